#!/bin/sh
# Runs before the files are removed. dpkg calls it with "remove" or, in an upgrade, with
# "upgrade"; rpm calls it with 0 or, in an upgrade, with 1. In an upgrade the gateway
# continues to run.
set -e

case "$1" in
remove | deconfigure | 0) ;;
*) exit 0 ;;
esac

command -v systemctl >/dev/null || exit 0
if [ -d /run/systemd/system ]; then
	systemctl stop drawbridge.service
fi
systemctl --no-reload disable drawbridge.service 2>/dev/null || true
