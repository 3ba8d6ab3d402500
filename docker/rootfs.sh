#!/usr/bin/env bash
# Lays out what the image consists of: rootfs.sh DIR makes DIR/root, and DIR/own, which is gochat's to write to. The page must be built. VERSION, TARGETOS and TARGETARCH say what is made.
set -euo pipefail
umask 022
cd "$(dirname "$0")/.."
root=$1/root
mkdir -p "$root/etc/ssl/certs" "$1/own/data" "$1/own/tmp"
# Whoever is called over TLS: the trace endpoint, the queue, the database.
cp -L /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/"
CGO_ENABLED=0 GOOS=${TARGETOS:-$(go env GOOS)} GOARCH=${TARGETARCH:-$(go env GOARCH)} \
	go build -tags nomsgpack -trimpath -buildvcs=false -ldflags "-s -w -buildid= -X main.version=${VERSION:-dev}" -o "$root/gochat" ./cmd/gochat
