#!/bin/sh
# Prepares Airflow's database: schema, administrator, pools. Runs before every start, so it must be safe to repeat.
set -eu

here=$(dirname "$0")
: "${AIRFLOW_ADMIN_USERNAME:?Set AIRFLOW_ADMIN_USERNAME to the name of the administrator}"
: "${AIRFLOW_ADMIN_PASSWORD:?Set AIRFLOW_ADMIN_PASSWORD to the password of the administrator}"
: "${AIRFLOW_ADMIN_EMAIL:?Set AIRFLOW_ADMIN_EMAIL to the address of the administrator}"

airflow db migrate

# An existing user is left alone: a password that was changed in the UI must survive a restart.
airflow users create --role Admin --username "$AIRFLOW_ADMIN_USERNAME" --email "$AIRFLOW_ADMIN_EMAIL" \
    --firstname Airflow --lastname Administrator --password "$AIRFLOW_ADMIN_PASSWORD"

# A task whose pool does not exist waits for ever. Slots changed in the UI go back to what the file says.
airflow pools import "$here/pools.json"
