#!/usr/bin/env bash
# As the official image does: a new directory gets a cluster, POSTGRES_USER with the password in POSTGRES_PASSWORD_FILE, and
# POSTGRES_DB; then the command runs as postgres.
set -euo pipefail
bin=$(echo /usr/lib/postgresql/*/bin)
export PATH="$bin:$PATH" PGDATA=${PGDATA:-/var/lib/postgresql/data}
as() { setpriv --reuid postgres --regid postgres --init-groups "$@"; }
mkdir -p "$(dirname "$PGDATA")"
if [ ! -e "$PGDATA" ]; then
	# Made beside it, and put in its place when it is whole: a start that is cut off leaves no half of a cluster.
	new=$PGDATA.new
	rm -rf "$new"
	install -d -o postgres -g postgres -m 700 "$new"
	password=$(mktemp)
	cat "$POSTGRES_PASSWORD_FILE" >"$password"
	chown postgres "$password"
	as initdb --pgdata "$new" --username "$POSTGRES_USER" --pwfile "$password" --encoding UTF8 --locale C.UTF-8 \
		--auth-local trust --auth-host scram-sha-256 --no-instructions >/dev/null
	rm "$password"
	printf "listen_addresses = '*'\nunix_socket_directories = '/tmp'\n" >>"$new/postgresql.conf"
	echo 'host all all all scram-sha-256' >>"$new/pg_hba.conf"
	printf 'create database "%s";\n' "$POSTGRES_DB" | as postgres --single -D "$new" postgres >/dev/null
	mv "$new" "$PGDATA"
fi
exec setpriv --reuid postgres --regid postgres --init-groups "$@"
