"""Judges models from saved predictions alone: metrics, comparisons, calibration and plots.

No module here loads a model or an image file, so any comparison can be repeated in seconds.
"""
