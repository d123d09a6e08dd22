#!/bin/sh
# Starts the tracking server with basic authentication: MLflow reads where its users are kept from a file
# only, so that file is written here from the environment.
set -eu

: "${MLFLOW_BACKEND_STORE_URI:?Set MLFLOW_BACKEND_STORE_URI to the database of runs and models}"
: "${MLFLOW_AUTH_DATABASE_URI:?Set MLFLOW_AUTH_DATABASE_URI to the database of users and permissions}"

# MLflow itself refuses to start without these, but only after half a minute of imports.
: "${MLFLOW_AUTH_ADMIN_USERNAME:?Set MLFLOW_AUTH_ADMIN_USERNAME to the name of the administrator}"
: "${MLFLOW_AUTH_ADMIN_PASSWORD:?Set MLFLOW_AUTH_ADMIN_PASSWORD to at least 12 characters}"
: "${MLFLOW_FLASK_SERVER_SECRET_KEY:?Set MLFLOW_FLASK_SERVER_SECRET_KEY to a long random text}"

MLFLOW_AUTH_CONFIG_PATH="${MLFLOW_AUTH_CONFIG_PATH:-/tmp/mlflow-basic-auth.ini}"
export MLFLOW_AUTH_CONFIG_PATH

# It holds the database's password. The administrator's stays in the environment, where MLflow looks first. Without the
# cache each request waits for the hash of a password, 0.2 s; with it a changed password counts after a minute.
umask 077
cat > "$MLFLOW_AUTH_CONFIG_PATH" <<EOF
[mlflow]
default_permission = ${MLFLOW_DEFAULT_PERMISSION:-READ}
database_uri = $(printf '%s' "$MLFLOW_AUTH_DATABASE_URI" | sed 's/%/%%/g')
admin_username = $(printf '%s' "$MLFLOW_AUTH_ADMIN_USERNAME" | sed 's/%/%%/g')
authorization_function = mlflow.server.auth:authenticate_request_basic_auth
auth_cache_ttl_seconds = 60
EOF
umask 022

# The server brings the users' database to the installed version, and refuses an older one of runs. Within Python, because
# everybody sees the arguments of a process, and the address holds a password.
python -c 'import os; from mlflow.db import upgrade; upgrade([os.environ["MLFLOW_BACKEND_STORE_URI"]])'

exec mlflow server --app-name basic-auth "$@"
