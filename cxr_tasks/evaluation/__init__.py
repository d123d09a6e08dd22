"""What a model is worth, from saved predictions alone: metrics, comparisons, figures and the report.

Nothing here loads a model or an image file, so any comparison can be redone in seconds.
"""
