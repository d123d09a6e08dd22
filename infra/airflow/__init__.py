"""Airflow on several machines: what docker-compose.yaml starts."""
