#!/bin/sh
# Starts a Celery worker. Arguments go to `airflow celery worker`.
set -eu

# Two trainings run at a time (pools.json). Where they share cores they wait for each other in every operation.
threads=$(($(nproc) / 2))
if [ "$threads" -lt 1 ]; then threads=1; fi
export TF_NUM_INTRAOP_THREADS="${TF_NUM_INTRAOP_THREADS:-$threads}"
export TF_NUM_INTEROP_THREADS="${TF_NUM_INTEROP_THREADS:-$threads}"
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-$threads}"

python "$(dirname "$0")/let_go.py"
exec airflow celery worker "$@"
