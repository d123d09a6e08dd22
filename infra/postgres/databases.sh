#!/bin/bash
# Makes the databases of Airflow and MLflow, each with an owner that cannot read the other's. PostgreSQL's
# image runs this once, when its volume is empty.
set -eu

: "${AIRFLOW_DB_PASSWORD:?Set AIRFLOW_DB_PASSWORD}" "${MLFLOW_DB_PASSWORD:?Set MLFLOW_DB_PASSWORD}"

# The passwords go in by the environment: arguments can be read in the list of processes.
psql --set ON_ERROR_STOP=1 --no-psqlrc --username "$POSTGRES_USER" --dbname postgres <<'SQL'
\getenv airflow_password AIRFLOW_DB_PASSWORD
\getenv mlflow_password MLFLOW_DB_PASSWORD
CREATE ROLE airflow LOGIN PASSWORD :'airflow_password';
CREATE ROLE mlflow LOGIN PASSWORD :'mlflow_password';
CREATE DATABASE airflow OWNER airflow;
CREATE DATABASE mlflow OWNER mlflow;
CREATE DATABASE mlflow_auth OWNER mlflow;
REVOKE CONNECT ON DATABASE airflow, mlflow, mlflow_auth FROM PUBLIC;
SQL
