#!/bin/bash
# The official image's contract: POSTGRES_PASSWORD, _USER, _DB, _INITDB_ARGS, _HOST_AUTH_METHOD, each also as _FILE,
# and /docker-entrypoint-initdb.d on the first start.
set -Eeuo pipefail
shopt -s nullglob

# Sets a variable from itself, from the file that NAME_FILE names, or to a default.
setting() {
    local name=$1 file=$1_FILE value=${2:-}
    if [ -n "${!name:-}" ] && [ -n "${!file:-}" ]; then
        echo "error: both $name and $file are set (but are exclusive)" >&2
        exit 1
    fi
    if [ -n "${!file:-}" ]; then
        value=$(<"${!file}")
    fi
    printf -v "$name" '%s' "${!name:-$value}"
    unset "$file"
}

# Runs psql on the server that is there only for the first set-up.
client() {
    PGPASSWORD=$POSTGRES_PASSWORD psql --set ON_ERROR_STOP=1 --no-psqlrc --no-password --username "$POSTGRES_USER" "$@"
}

# Makes the cluster, the database and what the scripts of the first start make.
initialise() {
    setting POSTGRES_PASSWORD
    setting POSTGRES_USER postgres
    setting POSTGRES_DB "$POSTGRES_USER"
    setting POSTGRES_INITDB_ARGS
    setting POSTGRES_HOST_AUTH_METHOD
    if [ -z "$POSTGRES_PASSWORD" ] && [ "$POSTGRES_HOST_AUTH_METHOD" != trust ]; then
        echo 'Error: Database is uninitialized and superuser password is not specified.' >&2
        exit 1
    fi
    local options
    read -ra options <<<"$POSTGRES_INITDB_ARGS"
    initdb --username="$POSTGRES_USER" --pwfile=<(printf '%s\n' "$POSTGRES_PASSWORD") -D "$PGDATA" "${options[@]}"
    printf '\nhost all all all %s\n' "${POSTGRES_HOST_AUTH_METHOD:-scram-sha-256}" >>"$PGDATA/pg_hba.conf"
    pg_ctl -D "$PGDATA" -o "-c listen_addresses=''" --wait start
    if [ "$POSTGRES_DB" != postgres ]; then
        client --dbname postgres --set database="$POSTGRES_DB" <<<'CREATE DATABASE :"database";'
    fi
    local file
    for file in /docker-entrypoint-initdb.d/*; do
        echo "$0: running $file"
        case $file in
            *.sh) bash "$file" ;;
            *.sql) client --dbname "$POSTGRES_DB" --file "$file" ;;
            *) echo "$0: ignoring $file" ;;
        esac
    done
    pg_ctl -D "$PGDATA" --mode fast --wait stop
    echo 'PostgreSQL init process complete; ready for start up.'
}

case ${1:--} in
    -) set -- postgres ;;
    -*) set -- postgres "$@" ;;
esac
if [ "$1" = postgres ]; then
    mkdir -p "$PGDATA"
    if [ "$(id -u)" = 0 ]; then
        find "$PGDATA" /var/run/postgresql ! -user postgres -exec chown postgres {} +
        chmod 0700 "$PGDATA"
        exec setpriv --reuid postgres --regid postgres --init-groups "$0" "$@"
    fi
    export HOME=/var/lib/postgresql
    chmod 0700 "$PGDATA" 2>/dev/null || true # a volume of somebody else's that we may write is good enough
    [ -s "$PGDATA/PG_VERSION" ] || initialise
fi
unset POSTGRES_PASSWORD
exec "$@"
