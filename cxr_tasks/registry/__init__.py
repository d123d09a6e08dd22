"""Challenger and champion: which trained arm is registered, and under which alias."""
