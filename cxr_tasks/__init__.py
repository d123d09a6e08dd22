"""Everything that works without Airflow: data, networks, training, evaluation and the steps that join them."""
