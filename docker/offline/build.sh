#!/usr/bin/env bash
# Makes the images that docker/compose.yml names, without a registry: gochat's own from what is built on this machine, and its
# services from Debian's packages. images.env names them for compose (--env-file). As root, since debootstrap wants it.
#
#   build.sh [SERVICE...]     # etcd redis postgres rabbitmq nginx prometheus gochat; all of them if none is named
set -euo pipefail
cd "$(dirname "$0")"
export DOCKER_BUILDKIT=0 # Debian's client has no buildx
suite=bookworm base=gochat-offline/debian
packages=etcd-server,etcd-client,redis-server,postgresql,rabbitmq-server,nginx,libnginx-mod-stream,prometheus
umask 022
# What made the base is its label: another list, or another month, makes it anew.
recipe=$(echo "$suite $packages $(date -u +%Y-%m)" | sha256sum | head -c 16)

[ $# -gt 0 ] || set -- etcd redis postgres rabbitmq nginx prometheus gochat

work=$(mktemp -d)
trap 'rm -rf --one-file-system "$work"' EXIT

if [ "$(docker image inspect -f '{{index .Config.Labels "recipe"}}' "$base" 2>/dev/null)" != "$recipe" ]; then
	command -v debootstrap >/dev/null || { apt-get update -qq && apt-get install -y -qq --no-install-recommends debootstrap >/dev/null; }
	# This machine's own mirror.
	mirror=$(apt-cache policy | sed -nE "s|^ *[0-9]+ (https?://[^ ]+) $suite/main .*|\1|p" | head -n 1)
	debootstrap --variant=minbase --include="$packages" "$suite" "$work/root" "${mirror:-http://deb.debian.org/debian}" >"$work/log" 2>&1 || {
		tail -n 20 "$work/log" "$work/root/debootstrap/debootstrap.log" >&2
		exit 1
	}
	rm -rf "$work"/root/var/cache/apt/archives/*.deb "$work"/root/var/lib/apt/lists/* "$work"/root/var/lib/postgresql/*/main "$work"/root/usr/share/{doc,man,locale}
	tar -C "$work/root" -c . | docker import --change "LABEL recipe=$recipe" - "$base" >/dev/null
fi

build() { # build ARGUMENT...: docker build, silent unless it fails
	docker build "$@" >"$work/log" 2>&1 || { cat "$work/log" >&2; exit 1; }
}
for service in "$@"; do
	if [ "$service" != gochat ]; then
		build --target "$service" -t "gochat-offline/$service" .
		continue
	fi
	# The last stage of gochat's own Dockerfile, of what is laid out here in place of the stage before it.
	mkdir "$work/gochat"
	../rootfs.sh "$work/gochat/image"
	awk '/^FROM scratch/ { last = 1 } last' ../Dockerfile | sed 's/--from=build //' >"$work/gochat/Dockerfile"
	build --build-arg "VERSION=${VERSION:-dev}" -t gochat:latest "$work/gochat"
done
