#!/usr/bin/env bash
# Sees to a Docker engine, and to compose. On a Debian without one, as root, it installs docker.io and starts dockerd, whose pid is in PIDFILE then:
#   engine.sh start PIDFILE
#   engine.sh stop PIDFILE     # ends the one that start has started, no other
set -euo pipefail
pidfile=$2
case $1 in
start)
	compose() { docker compose version >/dev/null 2>&1 || command -v docker-compose >/dev/null; }
	if docker info >/dev/null 2>&1 && compose; then
		exit 0
	fi
	if [ "$(id -u)" -ne 0 ]; then
		echo "No Docker engine answers, or there is no compose, and only root can install and start them." >&2
		exit 1
	fi
	missing=()
	compose || missing+=(docker-compose)
	command -v dockerd >/dev/null || missing+=(docker.io)
	command -v docker >/dev/null || missing+=(docker.io)
	command -v iptables >/dev/null || missing+=(iptables)
	if [ ${#missing[@]} -gt 0 ]; then
		export DEBIAN_FRONTEND=noninteractive
		apt-get update -qq
		apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
	fi
	if docker info >/dev/null 2>&1; then # the package has started it
		exit 0
	fi
	mkdir -p "$(dirname "$pidfile")"
	setsid dockerd >"$pidfile.log" 2>&1 </dev/null &
	echo $! >"$pidfile"
	for _ in $(seq 60); do
		docker info >/dev/null 2>&1 && exit 0
		kill -0 "$(cat "$pidfile")" 2>/dev/null || break
		sleep 0.5
	done
	echo "dockerd does not answer:" >&2
	tail -n 20 "$pidfile.log" >&2
	exit 1
	;;
stop)
	[ -s "$pidfile" ] || exit 0
	pid=$(cat "$pidfile")
	rm -f "$pidfile"
	kill "$pid" 2>/dev/null || exit 0
	for _ in $(seq 60); do
		kill -0 "$pid" 2>/dev/null || exit 0
		sleep 0.5
	done
	echo "dockerd ($pid) does not end" >&2
	exit 1
	;;
esac
