# shellcheck shell=bash
# The first process of a test's own PID, mount and network namespace: gives it private copies of every folder that
# libvirt and the hook write to or read facts from, says its PID as the machine outside counts, and lives until
# its standard input ends. With it ends every process in the namespace and every mount.
#
# Arguments: an empty folder to work in; a folder to use as libvirt's capability cache, or nothing.

set -eu
work=$1
capabilities=$2

# Outside and inside count differently; /proc is still the one from outside.
read -r pid _ < /proc/self/stat
mount -t proc proc /proc

mount -t tmpfs -o mode=755 iova-preflight-test "$work"
mkdir "$work"/{etc,run,lib,log,cache,dev,groups,class}

# /etc without what this machine's libvirt and operator put there.
cp -a /etc/. "$work/etc/"
rm -rf "$work/etc/libvirt" "$work/etc/iova-preflight"
mkdir -p "$work/etc/libvirt/hooks" "$work/etc/iova-preflight"

# An AMD IOMMU, which reserves the HyperTransport range for the group of one device.
mkdir -p "$work/class/ivhd0" "$work/groups/0/devices/0000:41:10.1"
printf '%s\n' '0x00000000fee00000 0x00000000feefffff msi' '0x000000fd00000000 0x000000ffffffffff reserved' \
    > "$work/groups/0/reserved_regions"

mkdir -p "$work/cache/qemu/capabilities"
if [ -n "$capabilities" ]; then
    mount --bind "$capabilities" "$work/cache/qemu/capabilities"
fi

# Devices, but no /dev/log: what the hook says in a test is not for the system log of this machine.
for node in null zero full random urandom tty kvm ptmx; do
    if [ -e "/dev/$node" ]; then
        touch "$work/dev/$node"
        mount --bind "/dev/$node" "$work/dev/$node"
    fi
done
for folder in pts shm; do
    mkdir "$work/dev/$folder"
    mount --bind "/dev/$folder" "$work/dev/$folder"
done

cover() {
    if [ -d "$2" ]; then
        mount --rbind "$work/$1" "$2"
    fi
}
cover etc /etc
cover run /run
cover lib /var/lib/libvirt
cover log /var/log/libvirt
cover cache /var/cache/libvirt
cover groups /sys/kernel/iommu_groups
cover class /sys/class/iommu
cover dev /dev

# The guests of a test are not put into control groups beside those of others.
umount --recursive --lazy /sys/fs/cgroup 2> /dev/null || true

echo "$pid"
read -r _ || true
