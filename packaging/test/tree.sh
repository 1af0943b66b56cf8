# shellcheck shell=bash
# Sourced by scripts that run in a tree: the tree, its libvirtd, and checks of both.
set -eu

tree=$1
root=$(mktemp -d)

# The tree itself stays as it is. It gets a /sys with an AMD IOMMU, which reserves the HyperTransport range.
enter() {
    local top
    top=$(realpath "$tree")
    mount -t tmpfs -o mode=755 tree "$root"
    mkdir "$root"/{upper,work,tree,dev,class,groups}
    mount -t overlay -o "lowerdir=$top,upperdir=$root/upper,workdir=$root/work" tree "$root/tree"
    local dev=$root/dev class=$root/class groups=$root/groups node
    root=$root/tree
    mount -t proc proc "$root/proc"
    mount --rbind /sys "$root/sys"
    mkdir -p "$class/ivhd0" "$groups/0/devices/0000:41:10.1"
    printf '%s\n' '0x00000000fee00000 0x00000000feefffff msi' '0x000000fd00000000 0x000000ffffffffff reserved' \
        > "$groups/0/reserved_regions"
    mount --bind "$class" "$root/sys/class/iommu"
    mount --bind "$groups" "$root/sys/kernel/iommu_groups"
    # Guests are not put into control groups beside those of others.
    umount --recursive --lazy "$root/sys/fs/cgroup" 2> /dev/null || true
    for node in null zero full random urandom tty kvm ptmx; do
        [ -e "/dev/$node" ] || continue
        touch "$dev/$node"
        mount --bind "/dev/$node" "$dev/$node"
    done
    mkdir "$dev/pts" "$dev/shm"
    mount --bind /dev/pts "$dev/pts"
    mount --rbind "$dev" "$root/dev"
    mount -t tmpfs -o mode=755 run "$root/run"
    mkdir "$root/run/packages"
}

inside() {
    chroot "$root" env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C HOME=/root DEBIAN_FRONTEND=noninteractive "$@"
}

fail() {
    echo "FAILED: $*"
    exit 1
}

ok() { echo "ok: $*"; }

wait_until() {
    local what=$1
    shift
    for _ in $(seq 1500); do
        if "$@" > /dev/null 2>&1; then return; fi
        sleep 0.2
    done
    fail "waited in vain for $what"
}

start_libvirtd() {
    # This test needs neither libvirt's mount namespaces for guests nor its users.
    printf 'namespaces = []\nsecurity_driver = "none"\nuser = "root"\ngroup = "root"\n' > "$root/etc/libvirt/qemu.conf"
    printf 'auth_unix_rw = "none"\n' > "$root/etc/libvirt/libvirtd.conf"
    inside virtlogd --daemon
    inside libvirtd --daemon
    wait_until "libvirtd" inside virsh --quiet list
    # It probes QEMU first.
    inside virsh --quiet capabilities > /dev/null
}

# Writes the XML of a guest: NAME MACHINE GIBIBYTES [hostdev]
write_guest() {
    local devices=
    [ "${4:-}" = hostdev ] && devices="<hostdev mode='subsystem' type='pci' managed='no'><driver name='vfio'/><source>
        <address domain='0x0000' bus='0x41' slot='0x10' function='0x1'/></source></hostdev>"
    cat > "$root/run/$1.xml" << XML
<domain type='qemu'>
  <name>$1</name>
  <memory unit='GiB'>$3</memory>
  <vcpu>1</vcpu>
  <os><type arch='x86_64' machine='$2'>hvm</type></os>
  <features><acpi/></features>
  <cpu mode='custom' check='none'><model>EPYC</model><maxphysaddr mode='emulate' bits='42'/></cpu>
  <devices>$devices<controller type='usb' model='none'/><memballoon model='none'/></devices>
</domain>
XML
}

# Defines a guest: NAME MACHINE GIBIBYTES [hostdev]
define() {
    write_guest "$@"
    inside virsh --quiet define "/run/$1.xml"
}

# Whether a guest's start is stopped by the hook.
is_stopped() {
    ! inside virsh --quiet start --paused "$1" > "$root/run/start.log" 2>&1 \
        && grep -q "iova-preflight: guest $1: " "$root/run/start.log"
}

# Whether the hook lets a guest start: libvirt then reports that the device does not exist or that memory cannot be
# locked.
is_passed() {
    ! inside virsh --quiet start --paused "$1" > "$root/run/start.log" 2>&1 \
        && ! grep -q "iova-preflight\|Hook script" "$root/run/start.log"
}

runs() {
    inside virsh --quiet start --paused "$1" || fail "$1 does not start"
    inside virsh --quiet destroy "$1"
}

# The files of the tree, those in /etc and /var with their contents, without what package managers and daemons keep there.
snapshot() {
    local leave=(./proc ./sys ./dev ./run ./tmp ./var/cache ./var/log ./var/lib/libvirt ./var/lib/dpkg ./var/lib/apt
                 ./var/lib/rpm ./var/tmp) prune=() path
    for path in "${leave[@]}"; do prune+=(-path "$path" -o); done
    (
        cd "$root"
        find . \( "${prune[@]}" -false \) -prune -o -printf '%p %y %m %U:%G %l\n' | sort
        find ./etc ./var \( "${prune[@]}" -false \) -prune -o -type f -exec sha256sum {} + | sort -k 2
    )
}

same_as() {
    snapshot > "$root/run/packages/now"
    diff -u "$root/run/packages/$1" "$root/run/packages/now" || fail "the tree is not as it was"
}
