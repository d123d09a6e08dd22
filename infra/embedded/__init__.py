"""The whole stack on one machine: Airflow standalone and an MLflow server on loopback, and one run through it."""
