#!/bin/sh
# A guest that was never libvirt's. Since QEMU 7.1 it does not start: RAM moves above 1 TiB, and the
# CPU has 40 physical address bits, as any has that is not told otherwise.
set -e
disk=/srv/vm/db.qcow2

exec qemu-system-x86_64 \
    -name db \
    -machine pc-q35-7.2,accel=kvm \
    -cpu EPYC \
    -smp 32 \
    -m 1100G \
    -drive file="$disk",if=virtio \
    -nic bridge,br=br0 \
    -display none >/var/log/db.log 2>&1
