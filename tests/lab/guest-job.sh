#!/bin/bash
# The init of the machine that `run` boots: what is done in it, reported on the second serial line. A line per case is
# not indented: case | predicted | observed. Commands and what they print are indented.

export PATH=/usr/sbin:/usr/bin LC_ALL=C.UTF-8 HOME=/root
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
exec < /dev/null > /dev/ttyS1 2>&1

device=0000:00:10.0
own_group=
hook=/usr/bin/iova-preflight-hook
limited_qemu=/usr/bin/qemu-with-locked-memory-limit
# RAM below 4 GiB is 2 GiB and may be locked, what lies above may not. Whether an address is valid is looked at first.
limit_mib=2112

# Runs a command, shows it and what it prints; leaves both in `said` and `status`.
run() {
    printf '    $ %s\n' "$*"
    said=$("$@" 2>&1)
    status=$?
    sed '/^$/d; s/^/    /' <<< "$said"
    printf '    [exit status %s]\n' "$status"
}

report() { printf '%s | %s | %s\n' "$1" "$2" "$3"; }

set_up() {
    mkdir -p /dev/pts /dev/shm /run/libvirt /run/lock /tmp /root /etc/libvirt /var/lib/libvirt /var/log/libvirt/qemu \
        /var/cache/libvirt/qemu
    rm -rf /var/run && ln -s /run /var/run
    mount -t devpts pts /dev/pts
    mount -t tmpfs shm /dev/shm
    echo lab > /proc/sys/kernel/hostname
    echo 127.0.0.1 localhost lab > /etc/hosts
    printf '%s\n' 'root:x:0:0::/root:/bin/bash' 'nobody:x:65534:65534::/:/bin/false' \
        'libvirt-qemu:x:64055:104::/:/bin/false' > /etc/passwd
    printf '%s\n' root:x:0: kvm:x:104: libvirt:x:105: libvirt-qemu:x:64055: nogroup:x:65534: > /etc/group
    printf '%s\n' 'passwd: files' 'group: files' > /etc/nsswitch.conf
    echo 0f8e5bd2c7f64a1db7b3f0c1d2e3a4b5 > /etc/machine-id
    # No cgroups, no mount namespaces and no virtlogd in here; and no dmidecode that would tell a UUID.
    printf '%s\n' 'cgroup_controllers = []' 'namespaces = []' 'stdio_handler = "file"' > /etc/libvirt/qemu.conf
    echo 'host_uuid = "0f8e5bd2-c7f6-4a1d-b7b3-f0c1d2e3a4b5"' > /etc/libvirt/libvirtd.conf
    # Where libvirt only asks what QEMU can do, the limit is lower already.
    printf '#!/bin/bash\nulimit -l %d 2> /dev/null\nexec qemu-system-x86_64 "$@"\n' $((limit_mib << 10)) > "$limited_qemu"
    chmod +x "$limited_qemu"
    local module
    for module in /modules/*; do insmod "$module" || echo "insmod $module failed"; done
    # Guests here are larger than the machine.
    echo 1 > /proc/sys/vm/overcommit_memory
}

start_libvirt() {
    libvirtd > /tmp/libvirtd.log 2>&1 &
    libvirtd=$!
    for _ in {1..150}; do
        virsh -q uri > /dev/null 2>&1 && return
        sleep 0.4
    done
    report "libvirt answers" yes no
}

# The card, handed through.
hostdev="<hostdev mode='subsystem' type='pci' managed='yes'>
      <source><address domain='0x0000' bus='0x00' slot='0x10' function='0x0'/></source>
    </hostdev>"

# A small guest with a DIMM at the beginning of the HyperTransport range, and with the device in $3.
dimm_guest() {
    cat << XML
<domain type='qemu'>
  <name>$1</name>
  <uuid>6d1c0b52-8f0e-4f57-9a0e-00000000000$2</uuid>
  <maxMemory slots='4' unit='GiB'>1200</maxMemory>
  <memory unit='MiB'>640</memory>
  <vcpu>1</vcpu>
  <os>
    <type arch='x86_64' machine='pc-q35-7.0'>hvm</type>
  </os>
  <features><acpi/></features>
  <cpu mode='custom' match='exact' check='none'>
    <model>EPYC</model>
    <maxphysaddr mode='emulate' bits='48'/>
    <numa><cell id='0' cpus='0' memory='512' unit='MiB'/></numa>
  </cpu>
  <devices>
    <emulator>/usr/bin/qemu-system-x86_64</emulator>
    <controller type='usb' model='none'/>
    $3
    <memory model='dimm'>
      <target><size unit='MiB'>128</size><node>0</node></target>
      <address type='dimm' slot='0' base='0xfd00000000'/>
    </memory>
    <memballoon model='none'/>
  </devices>
</domain>
XML
}

# A guest whose RAM goes through the range, with just the address bits it needs as it is.
ram_guest() {
    cat << XML
<domain type='qemu'>
  <name>$1</name>
  <uuid>6d1c0b52-8f0e-4f57-9a0e-00000000000$2</uuid>
  <memory unit='GiB'>1200</memory>
  <vcpu>1</vcpu>
  <os>
    <type arch='x86_64' machine='pc-q35-6.2'>hvm</type>
  </os>
  <features><acpi/></features>
  <cpu mode='custom' match='exact' check='none'>
    <model>EPYC</model>
    <maxphysaddr mode='emulate' bits='41'/>
  </cpu>
  <devices>
    <emulator>$limited_qemu</emulator>
    <controller type='usb' model='none'/>
    $hostdev
    <memballoon model='none'/>
  </devices>
</domain>
XML
}

# `virsh start`, and what became of it in a few words.
start() {
    run timeout 200 virsh start "$1"
    local map='vfio_dma_map\(0x[0-9a-f]+, (0x[0-9a-f]+), [^)]*\) = (-[0-9]+)'
    if [ "$status" = 0 ]; then
        run virsh domstate "$1"
        outcome="started, ${said//$'\n'/}"
    elif [[ $said =~ qemu.d/50-iova-preflight\ $1\ ([a-z]+)\ begin ]]; then
        outcome="the hook stops it at ${BASH_REMATCH[1]}"
    elif [[ $said =~ $map ]]; then
        outcome="VFIO answers ${BASH_REMATCH[2]} for ${BASH_REMATCH[1]}"
    else
        outcome="fails: $(tail -n1 <<< "$said")"
    fi
}

# `check` with these arguments, for people and for programs: the host, the verdict, the rules found, the exit status.
check() {
    run "$@"
    local json verdict host rules
    json=$("$1" check --format json "${@:3}" 2> /dev/null)
    verdict=$(grep -m1 -o '"verdict": *"[a-z-]*"' <<< "$json" | cut -d'"' -f4)
    host=$(grep -m1 -o '"source": *"[^"]*"' <<< "$json" | cut -d'"' -f4)
    rules=$(grep -o '"rule": *"[a-z0-9-]*"' <<< "$json" | cut -d'"' -f4 | paste -sd,)
    outcome="$host: $verdict (${rules//,/, }), exit status $status"
}

# The hook as libvirt calls it, without libvirt.
call_hook() {
    run sh -c "$hook dimm prepare begin - < /root/dimm.xml"
    case $status:$(grep -c . <<< "$said") in
        0:0) outcome="silent, the guest goes on" ;;
        1:1) outcome="one line, the guest is stopped" ;;
        *) outcome="exit status $status: $said" ;;
    esac
}

driver() { basename "$(readlink "/sys/bus/pci/devices/$device/driver")"; }

facts() {
    run uname -r
    run qemu-system-x86_64 --version
    run libvirtd --version
    run ls /sys/class/iommu
    own_group=$(basename "$(readlink "/sys/bus/pci/devices/$device/iommu_group")")
    run cat "/sys/kernel/iommu_groups/$own_group/reserved_regions"
    outcome=no
    grep -qx '0x000000fd00000000 0x000000ffffffffff reserved' <<< "$said" && outcome=yes
    report "the kernel reserves 1012-1024 GiB for the card" yes "$outcome"
}

without_the_hook() {
    dimm_guest dimm 1 "$hostdev" > /root/dimm.xml
    dimm_guest no-card 2 "" > /root/no-card.xml
    ram_guest ram 3 > /root/ram.xml
    local guest
    for guest in dimm no-card ram; do run virsh define "/root/$guest.xml"; done
    start dimm
    report "dimm: virsh start" "VFIO answers -22 for 0xfd00000000" "$outcome"
    start ram
    report "ram: virsh start" "VFIO answers -22 for 0x100000000" "$outcome"
}

check_them() {
    check iova-preflight check /root/dimm.xml
    report "dimm: check" "this host: fixable (memory-device-in-reserved-range, hotplug-window-in-reserved-range), exit status 1" "$outcome"
    check iova-preflight check /root/ram.xml
    report "ram: check" "this host: fixable (ram-in-reserved-range), exit status 1" "$outcome"
    check iova-preflight check /root/no-card.xml
    report "no-card: check" "this host: warn (memory-device-in-reserved-range, hotplug-window-in-reserved-range), exit status 0" "$outcome"
    check iova-preflight-connect check --connect qemu:///system --domain dimm
    report "dimm: check --connect" "this host: fixable (memory-device-in-reserved-range, hotplug-window-in-reserved-range), exit status 1" "$outcome"
}

with_the_hook() {
    run iova-preflight hook install
    # libvirtd looks for hooks when it starts and when it is told to reload.
    run kill -HUP "$libvirtd"
    sleep 3
    run iova-preflight hook status
    report "hook status" "exit status 0" "exit status $status"
    start dimm
    report "dimm: virsh start with the hook" "the hook stops it at prepare" "$outcome"
    report "dimm: the card's driver then" e1000e "$(driver)"
    start ram
    report "ram: virsh start with the hook" "the hook stops it at prepare" "$outcome"
    start no-card
    report "no-card: virsh start with the hook" "started, running" "$outcome"
    run virsh destroy no-card
}

# Only the group of the card itself counts: with others' ranges hidden it is stopped, with its own hidden it is not.
own_group_decides() {
    echo '0x00000000fee00000 0x00000000feefffff msi' > /tmp/plain
    local group
    for group in /sys/kernel/iommu_groups/*; do
        [ "${group##*/}" = "$own_group" ] || mount --bind /tmp/plain "$group/reserved_regions"
    done
    call_hook
    report "dimm: the hook, the range only in the card's group" "one line, the guest is stopped" "$outcome"
    for group in /sys/kernel/iommu_groups/*; do
        [ "${group##*/}" = "$own_group" ] || umount "$group/reserved_regions"
    done
    mount --bind /tmp/plain "/sys/kernel/iommu_groups/$own_group/reserved_regions"
    call_hook
    report "dimm: the hook, the range in every other group" "silent, the guest goes on" "$outcome"
    umount "/sys/kernel/iommu_groups/$own_group/reserved_regions"
}

# The fix and nothing else.
mend() {
    cp /root/dimm.xml /root/dimm.before.xml
    run iova-preflight fix --in-place /root/dimm.xml
    report "dimm: fix --in-place" "exit status 0" "exit status $status"
    run diff -u /root/dimm.before.xml /root/dimm.xml
    run virsh define /root/dimm.xml
    start dimm
    report "dimm: virsh start after fix" "started, running" "$outcome"
    run virsh qemu-monitor-command dimm --hmp 'info memory-devices'
    run virsh destroy dimm

    run iova-preflight-connect fix --connect qemu:///system --domain ram
    report "ram: fix --connect" "exit status 0" "exit status $status"
    start ram
    report "ram: virsh start after fix" "VFIO answers -12 for 0x10000000000" "$outcome"
    run sh -c 'dmesg | grep RLIMIT_MEMLOCK'
    run sh -c 'virsh dumpxml --inactive ram > /root/ram.xml'
    check iova-preflight check /root/ram.xml
    report "ram: check after fix" "this host: pass (relocated-above-1t), exit status 0" "$outcome"
}

set_up
facts
start_libvirt
without_the_hook
check_them
with_the_hook
own_group_decides
mend
run sh -c 'grep -v "TCG doesn" /tmp/libvirtd.log | tail -n 20'
echo "end of the job"
sync
sleep 2
echo o > /proc/sysrq-trigger
sleep 60
