"""Everything that works without Airflow: data, networks, training, evaluation and the steps that join them."""

import os

# Arrow's own allocators keep what they have been given back: of tables of a million rows, several hundred megabytes.
os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")
