#!/usr/bin/env bash
# Waits until every container of the compose project runs and, if it tells how it is, says that it is well, two minutes at most; then
# says which do not, and what they wait for. One that has ended as it should, like the migrations, is well.
set -euo pipefail
unwell() {
	docker ps -a --filter "label=com.docker.compose.project=$1" --format '{{.Names}} {{.Status}}' |
		awk '/\((health: starting|unhealthy)\)/ || $2 == "Restarting" || $2 == "Created" || $2 == "Exited" && $3 != "(0)" { print $1 }'
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
