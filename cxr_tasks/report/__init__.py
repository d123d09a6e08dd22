"""The report of a run: gathered from the handles of its steps, and rendered as one HTML file."""
