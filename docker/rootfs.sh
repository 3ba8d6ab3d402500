#!/usr/bin/env bash
# Lays out what the image consists of: rootfs.sh DIR. The page must be built. VERSION, TARGETOS and TARGETARCH say what is made.
set -euo pipefail
cd "$(dirname "$0")/.."
root=$1
mkdir -p "$root/etc/ssl/certs" "$root/data" "$root/tmp"
chmod 1777 "$root/tmp"
chown 65532:65532 "$root/data"
# Whoever is called over TLS: the trace endpoint, the queue, the database.
cp -L /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/"
CGO_ENABLED=0 GOOS=${TARGETOS:-$(go env GOOS)} GOARCH=${TARGETARCH:-$(go env GOARCH)} \
	go build -trimpath -buildvcs=false -ldflags "-s -w -buildid= -X main.version=${VERSION:-dev}" -o "$root/gochat" ./cmd/gochat
