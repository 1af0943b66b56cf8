#!/bin/sh
# GiB is a unit nearly everywhere, and QEMU does not take it: -m 16G.
exec qemu-system-x86_64 -name build -M pc-q35-7.2 -accel kvm -cpu max -m 16GiB -nographic
