#!/usr/bin/env bash
# Waits until every container of the compose project that tells how it is says that it is well, two minutes at most; then says which
# are not, and what they wait for.
set -euo pipefail
unwell() {
	docker ps --filter "label=com.docker.compose.project=$1" --format '{{.Names}} {{.Status}}' | grep -E '\((health: starting|unhealthy)\)|Restarting' | cut -d ' ' -f 1
}
for _ in $(seq 120); do
	[ -n "$(unwell "$1")" ] || exit 0
	sleep 1
done
for name in $(unwell "$1"); do
	echo "$name:" >&2
	docker exec "$name" /gochat health >&2 || docker logs --tail 5 "$name" >&2
done
exit 1
