#!/bin/sh
# iova-preflight adapter cloudstack: `install --shell` writes this file and replaces it, `uninstall` removes it.
#
# CloudStack's agent runs it as `libvirt-vm-xml-transformer.sh transform XML`. Unless the exit status is 0, it uses its
# own XML: that is so if iova-preflight is missing or killed, too.
program=/usr/bin/iova-preflight

exec "$program" adapter cloudstack "$@"
