#!/bin/sh
# Runs after the files are removed. dpkg calls it with "remove", "purge" or the name of
# another step; rpm calls it with 0 or, in an upgrade, with 1.
set -e

# remove removes a directory and its content. A mount point stays, and is empty.
remove() {
	rm -rf "$1" 2>/dev/null || [ -z "$(ls -A "$1")" ]
}

case "$1" in
remove | 0)
	if [ -d /run/systemd/system ]; then
		systemctl daemon-reload
	fi
	;;
purge)
	remove /var/lib/drawbridge
	remove /var/log/drawbridge
	remove /run/drawbridge
	# The administrator's own files stay. So does the user, which may own some of them:
	# another package could otherwise get its number, and with it the files.
	rmdir /etc/drawbridge 2>/dev/null || true
	;;
esac
