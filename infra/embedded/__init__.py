"""The whole stack on one machine: Airflow and MLflow on loopback, and one run through it."""
