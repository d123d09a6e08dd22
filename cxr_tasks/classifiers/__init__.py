"""Classifiers: their networks and weights, what they are trained on, and the training of one arm."""
