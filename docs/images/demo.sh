#!/usr/bin/env bash
# What docs/images/demo.svg shows. `make pictures` records it.
set -u
export PATH=$PWD/bin:$PATH
type_in() {
	printf '\033[1;32m$\033[0m '
	sleep 0.6
	printf '%s\n' "$1"
	eval "$1"
	sleep "${2:-2}"
}

log=$(mktemp)
drawbridge demo >"$log" 2>&1 &
demo=$!
trap 'kill $demo 2>/dev/null; wait $demo 2>/dev/null; rm -f "$log"' EXIT
until grep -q DRAWBRIDGE_ADMIN "$log"; do sleep 0.1; done
dir=$(sed -n 's/.*DRAWBRIDGE_ADMIN=unix:\(.*\)\/admin.sock/\1/p' "$log")
export DRAWBRIDGE_ADMIN=unix:$dir/admin.sock
cd "$dir" || exit 1

printf '\033[1;32m$\033[0m make demo\n'
sed -n '/plaintext  /,/listener echo/p' "$log"
sleep 2
type_in 'curl http://127.0.0.1:8080/'
type_in 'drawbridge probe echo' 5
type_in 'drawbridge apply -f route.yaml' 1
type_in 'curl http://127.0.0.1:8080/hello'
type_in 'drawbridge apply -f rotate.yaml    # a new client certificate' 1
type_in 'curl http://127.0.0.1:8080/        # the upstream sees its serial'
type_in 'drawbridge status' 5
