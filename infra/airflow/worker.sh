#!/bin/sh
# Starts a Celery worker. Arguments go to `airflow celery worker`.
set -eu

threads=$(python -c 'from cxr_tasks.cores import threads_of_task; print(threads_of_task())')
export TF_NUM_INTRAOP_THREADS="${TF_NUM_INTRAOP_THREADS:-$threads}"
export TF_NUM_INTEROP_THREADS="${TF_NUM_INTEROP_THREADS:-$threads}"
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-$threads}"

python "$(dirname "$0")/let_go.py"
exec airflow celery worker "$@"
