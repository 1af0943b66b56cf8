#!/bin/sh
# A /etc/libvirt/hooks/qemu for libvirt older than 6.5 that runs iova-preflight-hook before what it did before.
# Its standard input is the domain XML, which both need: it is kept in a file and given to each.

# Without room for the copy the guest goes on unchecked: failing on `reconnect` would kill a running one.
xml=$(mktemp) || exit 0
trap 'rm -f "$xml"' EXIT
cat >"$xml" || exit 0

/usr/bin/iova-preflight-hook "$@" <"$xml" || exit 1

# Here follows the hook that was there, with "$xml" as its standard input, for example:
# /etc/libvirt/hooks/qemu.before "$@" <"$xml" || exit 1
