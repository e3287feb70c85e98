#!/bin/sh
# Installs PostgreSQL without a cluster, under the account number that the official image has.
set -eux
mkdir -p /var/cache/apt/archives/partial /var/lib/apt/lists/partial /etc/postgresql-common /docker-entrypoint-initdb.d
groupadd --system --gid 999 postgres
useradd --system --uid 999 --gid postgres --home-dir /var/lib/postgresql --shell /bin/bash postgres
echo 'create_main_cluster = false' >/etc/postgresql-common/createcluster.conf
apt-get update
apt-get install --yes "postgresql-$PG_MAJOR"
sed -i "s/^#listen_addresses.*/listen_addresses = '*'/" "/usr/share/postgresql/$PG_MAJOR/postgresql.conf.sample"
install --directory --owner postgres --group postgres --mode 3777 /var/run/postgresql
install --directory --owner postgres --group postgres --mode 1777 "$PGDATA"
