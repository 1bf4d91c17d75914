#!/bin/sh
# Runs after the files are installed. dpkg calls it with "configure" and the old version,
# if there was one; rpm calls it with 1 for a first installation, and else with more.
set -e

case "$1" in
configure) old=$2 ;;
1) old= ;;
[2-9]*) old=yes ;;
*) exit 0 ;;
esac

systemd-sysusers drawbridge.conf
# It fails in a root without /proc. The directories are then created at boot.
systemd-tmpfiles --create drawbridge.conf || true

# Without systemd as process 1 no service runs.
[ -d /run/systemd/system ] || exit 0
systemctl daemon-reload
[ -n "$old" ] || exit 0
systemctl is-active --quiet drawbridge.service || exit 0

# The new process takes the sockets and the state over, so no client is refused. If it
# cannot, the old process continues, and so does the installation.
drawbridge upgrade --data-dir /var/lib/drawbridge || cat <<'TEXT' >&2
drawbridge: the running gateway still runs the old program. Use one of:
  drawbridge upgrade --data-dir DIRECTORY
  systemctl restart drawbridge
TEXT
