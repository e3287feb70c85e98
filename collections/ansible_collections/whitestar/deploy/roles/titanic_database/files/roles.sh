#!/bin/bash
# Makes the database and its two roles over the network, where nobody runs SQL in the server's own pod. Each password
# leaves this pod as a SCRAM verifier, which psql's \password makes of it.
set -euo pipefail
umask 077
export PGPASSFILE=/tmp/password
trap 'rm -f "$PGPASSFILE"' EXIT
printf '*:*:*:%s:%s\n' "$PGUSER" "$(sed 's/[\\:]/\\&/g' /run/titanic/database_superuser_password)" > "$PGPASSFILE"

until pg_isready --quiet; do
    sleep 1
done

run() {
    psql --quiet --no-psqlrc --set=ON_ERROR_STOP=1 \
        --set=database="$DATABASE_NAME" --set=owner="$DATABASE_OWNER" --set=user="$DATABASE_USER" "$@"
}

run --file=- <<'SQL'
SELECT format('CREATE ROLE %I', name) FROM unnest(ARRAY[:'owner', :'user']) AS name
WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = name) \gexec
SELECT format('ALTER ROLE %I LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION', name)
FROM unnest(ARRAY[:'owner', :'user']) AS name \gexec
SELECT format('CREATE DATABASE %I OWNER %I', :'database', :'owner')
WHERE NOT EXISTS (SELECT FROM pg_database WHERE datname = :'database') \gexec
SELECT format('ALTER DATABASE %I OWNER TO %I', :'database', :'owner') \gexec
SELECT format('REVOKE ALL ON DATABASE %I FROM PUBLIC', :'database') \gexec
SELECT format('GRANT CONNECT ON DATABASE %I TO %I', :'database', :'user') \gexec
SQL

# Asked twice for the password, and without a terminal, psql reads it from its standard input.
for who in owner user; do
    password=$(cat "/run/titanic/database_${who/user/app}_password")
    printf '%s\n' "$password" "$password" | run --file=<(printf '\\password :"%s"\n' "$who") > /dev/null 2> /tmp/said ||
        { cat /tmp/said >&2; exit 1; }
done
