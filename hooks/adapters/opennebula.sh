#!/bin/sh
# iova-preflight adapter opennebula: `install` writes this file and replaces it, `uninstall` puts deploy.one back.
#
# OpenNebula runs it as vmm/kvm/deploy on the host, with the domain on standard input. It hands over to deploy.one, which
# is OpenNebula's own, with the domain as it came or rewritten. Only iova-preflight itself may stop a VM, with status 1;
# its line is on standard error then. Whatever else happens to it, the domain is unchanged.
program=/usr/bin/iova-preflight
original=$(dirname "$0")/deploy.one

# The dot saves the newlines at the end, which the shell would remove.
domain=$(cat; echo .)
domain=${domain%.}
printed=$(printf %s "$domain" | "$program" adapter opennebula "$@"; status=$?; echo .; exit $status)
status=$?
# An empty file is a program, too, and prints nothing.
[ "$status:$printed" != 0:. ] || [ -z "$domain" ] || status=3
case $status in
    0) domain=${printed%.} ;;
    1) exit 1 ;;
    *)
        # In the background: a system log that hangs must not hold up the VM.
        logger -p daemon.err -t iova-preflight "VM $3: $program failed with status $status; it starts unchecked" \
            > /dev/null 2>&1 < /dev/null &
        ;;
esac
printf %s "$domain" | "$original" "$@"
