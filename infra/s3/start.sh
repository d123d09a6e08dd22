#!/bin/sh
# Starts SeaweedFS as one process with an S3 door that asks for keys. It reads who may enter from a file only,
# so that file is written here from the environment.
set -eu

: "${S3_ACCESS_KEY:?Set S3_ACCESS_KEY}" "${S3_SECRET_KEY:?Set S3_SECRET_KEY}"
case "$S3_ACCESS_KEY$S3_SECRET_KEY" in
*[!A-Za-z0-9/+=_.-]*)
    echo "S3_ACCESS_KEY and S3_SECRET_KEY may hold letters, digits and / + = _ . - only." >&2
    exit 1
    ;;
esac

identities="${S3_IDENTITIES:-/tmp/s3-identities.json}"
umask 077
cat > "$identities" <<EOF
{
  "identities": [
    {
      "name": "cxr",
      "credentials": [{"accessKey": "$S3_ACCESS_KEY", "secretKey": "$S3_SECRET_KEY"}],
      "actions": ["Admin", "Read", "List", "Tagging", "Write"]
    }
  ]
}
EOF

# The master, the volume server and the filer ask nobody for a key, so they listen inside the container only.
exec weed server -dir="${S3_DATA:-/data}" -ip=127.0.0.1 -ip.bind=127.0.0.1 \
    -master.volumeSizeLimitMB=1024 -master.telemetry=false -volume.max=0 \
    -s3 -s3.port=8333 -s3.ip.bind=0.0.0.0 -s3.config="$identities"
