#!/bin/sh
# A /etc/libvirt/hooks/qemu for libvirt older than 6.5, which runs only one hook: iova-preflight-hook first, then the
# hook that was there before, as /etc/libvirt/hooks/qemu.before.
#
# Whatever happens to iova-preflight-hook, it stops a guest only with exit status 1, when a guest starts,
# arrives or is restored. On every other operation it is not run, because libvirt kills a running guest whose hook
# fails on `reconnect`.
hook=/usr/bin/iova-preflight-hook
before=/etc/libvirt/hooks/qemu.before

# The hook that was there before decides as it did; without one, the guest starts. It replaces this shell, or
# a subshell: that needs no further process.
run_before() {
    # Installed a second time, this script is also the hook that was there before, and would run itself for ever.
    if [ "$0" = "$before" ]; then exit 0; fi
    if [ -f "$before" ] && [ -x "$before" ]; then exec "$before" "$@"; fi
    exit 0
}

case $2 in prepare | start | migrate | restore) ;; *) run_before "$@" ;; esac

# A shell that cannot start a process ends with an exit status of its own, which libvirt would take for a refusal.
end=0
is_read=
at_end() {
    trap - EXIT
    [ -n "$is_read" ] || run_before "$@"
    exit $end
}
trap 'at_end "$@"' EXIT

# Both hooks need the domain XML on their standard input. It is kept here and not in a file, for which there may be no
# room. The dot saves the newlines at the end, which the shell would remove.
xml=$(cat; echo .)
xml=${xml%.}
is_read=yes

# libvirt takes what a hook prints for new XML, so that only the hook before may print.
printf %s "$xml" | "$hook" "$@" > /dev/null
status=$?
if [ $status -eq 1 ]; then
    end=1
    exit
fi
if [ $status -ne 0 ]; then
    # In the background: a system log that hangs must not hold up the guest.
    logger -p daemon.err -t iova-preflight "guest $1: $hook failed with status $status; allowing $2 unchecked" \
        > /dev/null 2>&1 &
fi
printf %s "$xml" | (run_before "$@")
end=$?
