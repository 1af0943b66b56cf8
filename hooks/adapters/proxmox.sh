#!/bin/sh
# iova-preflight adapter proxmox: `install` writes this file and replaces it, `uninstall` removes it.
#
# A hookscript: Proxmox VE runs it as `SCRIPT VMID PHASE`, and takes every exit status but 0 for a refusal in the phase
# pre-start. Only iova-preflight itself may refuse, with status 1; its line is on standard error then. Whatever else
# happens to it, the VM starts.
program=/usr/bin/iova-preflight

[ "$2" = pre-start ] || exit 0
"$program" adapter proxmox "$1" "$2" < /dev/null
status=$?
case $status in 0 | 1) exit $status ;; esac
# In the background: a system log that hangs must not hold up the VM.
logger -p daemon.err -t iova-preflight "VM $1: $program failed with status $status; it starts unchecked" \
    > /dev/null 2>&1 < /dev/null &
exit 0
