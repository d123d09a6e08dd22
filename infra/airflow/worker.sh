#!/bin/sh
# Starts a Celery worker. Arguments go to `airflow celery worker`.
set -eu

python "$(dirname "$0")/let_go.py"
exec airflow celery worker "$@"
