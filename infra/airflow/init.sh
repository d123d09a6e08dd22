#!/bin/sh
# Prepares Airflow's database: schema, administrator, pools. Runs before every start, so it must be safe to repeat.
set -eu

here=$(dirname "$0")
: "${AIRFLOW_ADMIN_USERNAME:?Set AIRFLOW_ADMIN_USERNAME to the name of the administrator}"
: "${AIRFLOW_ADMIN_PASSWORD:?Set AIRFLOW_ADMIN_PASSWORD to the password of the administrator}"
: "${AIRFLOW_ADMIN_EMAIL:?Set AIRFLOW_ADMIN_EMAIL to the address of the administrator}"

airflow db migrate

python "$here/administrator.py"

# A task whose pool does not exist waits for ever. Slots changed in the UI go back to what the file says.
airflow pools import "$here/pools.json"
