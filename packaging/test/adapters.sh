# shellcheck shell=bash
# Sourced after tree.sh: the adapters, which no package enables, in folders that imitate those of orchestrators.

root=${root:?set by tree.sh}
adapters=(vdsm kubevirt cloudstack opennebula proxmox)
vdsm_hook=usr/libexec/vdsm/hooks/before_vm_start/50_iova_preflight

# Puts each in place with one command, has it look at the guest in /run/bad.xml, and takes it away again.
check_adapters() {
    local name printed status=0
    snapshot > "$root/run/packages/adapters"
    mkdir -p "$root"/{usr/libexec/vdsm,etc/cloudstack/agent,var/lib/one/remotes/vmm/kvm,etc/pve}
    # OpenNebula's own.
    printf '#!/bin/sh\nexec cat > "$1"\n' > "$root/var/lib/one/remotes/vmm/kvm/deploy"
    chmod 755 "$root/var/lib/one/remotes/vmm/kvm/deploy"
    for name in "${adapters[@]}"; do
        inside iova-preflight adapter "$name" status && fail "adapter $name is in place unasked"
        inside iova-preflight adapter "$name" install
        inside iova-preflight adapter "$name" install
        inside iova-preflight adapter "$name" status || fail "adapter $name is not in place"
    done

    # With this machine type it starts.
    local fixed="machine='pc-q35-7\.[12]'\|machine='pc-q35-[89]\.\|machine='pc-q35-1[0-9]\."
    cp "$root/run/bad.xml" "$root/run/domain.xml"
    inside env _hook_domxml=/run/domain.xml "/$vdsm_hook" || fail "vdsm stops the guest"
    grep -q "$fixed" "$root/run/domain.xml" || fail "vdsm does not rewrite the guest: $(cat "$root/run/domain.xml")"
    printed=$(inside onDefineDomain --vmi '{}' --domain "$(cat "$root/run/bad.xml")")
    grep -q "$fixed" <<< "$printed" || fail "kubevirt does not rewrite the guest: $printed"
    printed=$(inside iova-preflight adapter cloudstack < "$root/run/bad.xml")
    grep -q "$fixed" <<< "$printed" || fail "cloudstack does not rewrite the guest: $printed"
    inside /var/lib/one/remotes/vmm/kvm/deploy /run/deployed node7 42 node7 < "$root/run/bad.xml"
    grep -q "$fixed" "$root/run/deployed" || fail "opennebula does not rewrite the guest: $(cat "$root/run/deployed")"
    mkdir "$root/run/bin"
    printf '#!/bin/sh\necho "/usr/bin/kvm -id $2 -name db -cpu EPYC,phys-bits=42 -m 1228800 -device vfio-pci,host=0000:41:10.1 %s"\n' \
        "-machine accel=tcg,type=pc-q35-5.1+pve0" > "$root/run/bin/qm"
    chmod 755 "$root/run/bin/qm"
    printed=$(inside env PATH=/run/bin:/usr/bin:/bin /var/lib/vz/snippets/iova-preflight 104 pre-start 2>&1) || status=$?
    [ $status -eq 1 ] && grep -q 'qm set 104 --machine' <<< "$printed" || fail "proxmox does not stop the guest: $printed"

    for name in "${adapters[@]}"; do inside iova-preflight adapter "$name" uninstall; done
    rm -r "$root"/{usr/libexec/vdsm,etc/cloudstack,var/lib/one,etc/pve,var/lib/vz} "$root/run/bin" "$root/run/deployed"
    same_as adapters
    ok "each adapter is put in place with one command, rewrites or stops the guest, and leaves nothing behind"
}

# Installs an adapter that is still there when the package is removed.
install_adapter() {
    mkdir -p "$root/usr/libexec/vdsm"
    inside iova-preflight adapter vdsm install
}

# Checks that guests then start all the same. LOG has what the removal printed.
check_left_adapter() {
    local log=$1
    grep -q "warning: /$vdsm_hook" "$log" || fail "no warning of the adapter that is left: $(cat "$log")"
    inside env _hook_domxml=/run/bad.xml "/$vdsm_hook" || fail "without the program, the adapter stops the guest"
    rm -r "$root/usr/libexec/vdsm"
    ok "an adapter that is left when the package is removed lets guests start"
}
