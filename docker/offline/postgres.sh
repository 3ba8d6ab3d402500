#!/usr/bin/env bash
# As the official image does: a new directory gets a cluster, POSTGRES_USER with the password in POSTGRES_PASSWORD_FILE, and
# POSTGRES_DB; then the command runs as postgres.
set -euo pipefail
bin=$(echo /usr/lib/postgresql/*/bin)
export PATH="$bin:$PATH" PGDATA=${PGDATA:-/var/lib/postgresql/data}
mkdir -p "$PGDATA"
chown -R postgres:postgres "$PGDATA"
chmod 700 "$PGDATA"
as() { setpriv --reuid postgres --regid postgres --init-groups "$@"; }
if [ ! -s "$PGDATA/PG_VERSION" ]; then
	# A start that was cut off left half a cluster.
	find "$PGDATA" -mindepth 1 -delete
	password=$(mktemp)
	cat "$POSTGRES_PASSWORD_FILE" >"$password"
	chown postgres "$password"
	as initdb --username "$POSTGRES_USER" --pwfile "$password" --auth-local trust --auth-host scram-sha-256 --no-instructions >/dev/null
	rm "$password"
	printf "listen_addresses = '*'\nunix_socket_directories = '/tmp'\n" >>"$PGDATA/postgresql.conf"
	echo 'host all all all scram-sha-256' >>"$PGDATA/pg_hba.conf"
	printf 'create database "%s";\n' "$POSTGRES_DB" | as postgres --single -D "$PGDATA" postgres >/dev/null
fi
exec setpriv --reuid postgres --regid postgres --init-groups "$@"
