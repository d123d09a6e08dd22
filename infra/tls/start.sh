#!/bin/sh
# Starts nginx, which speaks TLS for Airflow and MLflow. Each has a host name of its own, that of AIRFLOW_URL and of
# MLFLOW_URL; the certificate is for both.
set -eu

: "${AIRFLOW_URL:?Set AIRFLOW_URL}" "${MLFLOW_URL:?Set MLFLOW_URL}"
for url in "$AIRFLOW_URL" "$MLFLOW_URL"; do
    case "${url#https://}" in
    "$url" | *[!A-Za-z0-9.:-]* | '')
        echo "Set AIRFLOW_URL and MLFLOW_URL to https:// and a host name, and not to $url." >&2
        exit 1
        ;;
    esac
done
name_of() { echo "${1#https://}" | cut -d: -f1; }
if [ "$(name_of "$AIRFLOW_URL")" = "$(name_of "$MLFLOW_URL")" ]; then
    echo "AIRFLOW_URL and MLFLOW_URL have one host name: give each its own." >&2
    exit 1
fi
certificates="${CERTIFICATES:-/certificates}"
for file in certificate.pem key.pem; do
    if [ ! -r "$certificates/$file" ]; then
        echo "$certificates/$file is missing or may not be read: put it into the folder TLS_FOLDER, for user 101." >&2
        exit 1
    fi
done

scratch="${SCRATCH:-/tmp}"
sed -e "s|@SCRATCH@|$scratch|g" -e "s|@CERTIFICATES@|$certificates|" \
    -e "s|@TLS_LISTEN@|${TLS_LISTEN:-8443}|" -e "s|@HTTP_LISTEN@|${HTTP_LISTEN:-8080}|" \
    -e "s|@AIRFLOW_NAME@|$(name_of "$AIRFLOW_URL")|" -e "s|@MLFLOW_NAME@|$(name_of "$MLFLOW_URL")|" \
    -e "s|@AIRFLOW_URL@|$AIRFLOW_URL|" -e "s|@MLFLOW_URL@|$MLFLOW_URL|" \
    -e "s|@AIRFLOW_SERVER@|${AIRFLOW_SERVER:-api-server:8080}|" -e "s|@MLFLOW_SERVER@|${MLFLOW_SERVER:-mlflow:5000}|" \
    -e "s|@RESOLVER@|$(awk '$1 == "nameserver" { print $2; exit }' /etc/resolv.conf)|" \
    "$(dirname "$0")/nginx.conf" >"$scratch/nginx.conf"
exec nginx -e stderr -c "$scratch/nginx.conf" -g 'daemon off;'
