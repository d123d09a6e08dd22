#!/bin/sh
# Starts Redis, which keeps what it holds. The password goes in by a file that is written here from the environment:
# arguments can be read in the list of processes.
set -eu

: "${REDISCLI_AUTH:?Set REDISCLI_AUTH}"

settings="${REDIS_SETTINGS:-/tmp/redis.conf}"
umask 077
cat >"$settings" <<END
appendonly yes
requirepass $REDISCLI_AUTH
END
exec redis-server "$settings" "$@"
