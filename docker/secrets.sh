#!/usr/bin/env bash
# Makes the secrets of the compose stack that are not there yet, in the directory SECRETS, docker/secrets: passwords by chance, and a
# certificate of its own for PUBLIC_HOST, which a browser warns of: put yours in its place. QUEUE_DRIVER says for which queue queue_url
# is, which alone is made anew each time.
set -euo pipefail
cd "$(dirname "$0")"
# Files are mounted as they are, to users of many containers: who may read them is said by the directory.
umask 022
secrets=${SECRETS:-secrets}
mkdir -p "$secrets"
chmod 700 "$secrets"
cd "$secrets"

chance() { # chance FILE: 32 letters and digits, once
	[ -s "$1" ] || head -c 64 /dev/urandom | base64 -w 0 | tr -dc 'A-Za-z0-9' | head -c 32 >"$1"
}
for name in postgres_password rpc_secret rabbitmq_password grafana_password; do
	chance "$name"
done
[ -s database_url ] || printf 'postgres://gochat:%s@postgres:5432/gochat' "$(cat postgres_password)" >database_url
printf 'default_user = gochat\ndefault_pass = %s\n' "$(cat rabbitmq_password)" >rabbitmq.conf
case ${QUEUE_DRIVER:-redis} in
redis) : >queue_url ;; # the Redis of the sessions
rabbitmq) printf 'amqp://gochat:%s@rabbitmq:5672/' "$(cat rabbitmq_password)" >queue_url ;;
kafka) printf 'kafka://kafka:9092' >queue_url ;;
*)
	echo "QUEUE_DRIVER=$QUEUE_DRIVER: want redis, rabbitmq or kafka" >&2
	exit 2
	;;
esac
if [ ! -s tls_certificate ]; then
	openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 825 -subj "/CN=${PUBLIC_HOST:-localhost}" \
		-addext "subjectAltName=DNS:${PUBLIC_HOST:-localhost},DNS:localhost,IP:127.0.0.1" -keyout tls_key -out tls_certificate 2>openssl.log || {
		cat openssl.log >&2
		exit 1
	}
	rm openssl.log
	chmod 644 tls_key
fi
