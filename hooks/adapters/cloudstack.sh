#!/bin/sh
# iova-preflight adapter cloudstack: `install --shell` writes this file and replaces it, `uninstall` removes it.
#
# CloudStack's agent runs it as `libvirt-vm-xml-transformer.sh transform XML`. Unless the exit status is 0, it uses its
# own XML: that is so if iova-preflight is missing, killed or an empty file, too.
program=/usr/bin/iova-preflight

# The dot saves the newlines at the end, which the shell would remove.
printed=$("$program" adapter cloudstack "$@"; status=$?; echo .; exit $status)
status=$?
printed=${printed%.}
if [ $status -eq 0 ] && [ -z "$printed" ]; then
    echo "iova-preflight: $program printed nothing" >&2
    exit 3
fi
printf %s "$printed"
exit $status
