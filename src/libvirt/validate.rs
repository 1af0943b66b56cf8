//! What libvirt refuses apart from memory and CPU: controllers, NUMA cells, virtual IOMMUs, firmware and launch
//! security.
//!
//! Sources: libvirt 9.0, 11.3 and 12.8, named at each. A rule that came or went with a version is left out where the
//! version is not known.

use std::collections::HashSet;

use super::{Refusal, refuse};
use crate::domain::{Controller, Domain, Sourced};
use crate::machine::Family;
use crate::version::Version;

/// The first libvirt measured to take `<iommu model='amd'>`; the last measured without is 11.3.
const AMD_IOMMU: Version = Version::new(12, 8);

/// The last libvirt measured to refuse `<loader secure>` beside `<os firmware>` is 9.0; 9.2 takes it (`NEWS.rst`).
const SECURE_WITH_FIRMWARE: Version = Version::new(9, 1);

/// The last libvirt measured to refuse a 64-bit PCI hole of which it cannot count the KiB; 11.3 takes it for 0.
const ENDLESS_HOLE_REFUSED: Version = Version::new(9, 0);

/// Everything of that kind that a libvirt of that version refuses.
pub(super) fn refusals(domain: &Domain, family: Option<Family>, libvirt: Option<Version>) -> Vec<Refusal> {
    let checks = [
        types(domain),
        huge_pages(domain),
        cells(domain),
        controllers(domain, family),
        iommu(domain, family, libvirt),
        firmware(domain, libvirt),
        hole(domain, libvirt),
        launch_security(domain, libvirt),
        #[cfg(feature = "cli")]
        addresses(domain),
    ];
    checks.into_iter().filter_map(Result::err).collect()
}

/// `virDomainPCIAddressReserveAddrInternal` in `src/conf/domain_addr.c`.
#[cfg(feature = "cli")]
fn addresses(domain: &Domain) -> Result<(), Refusal> {
    match domain.pci.given_twice {
        Some((address, span)) => refuse(span, format!("two devices have the PCI address {address}")),
        None => Ok(()),
    }
}

/// `virDomainDefParseCaps` in `src/conf/domain_conf.c`.
fn types(domain: &Domain) -> Result<(), Refusal> {
    if domain.hypervisor.is_none() {
        return refuse(domain.span, "<domain> has no type");
    }
    match domain.os_type.as_ref().is_some_and(|os_type| !os_type.value.is_empty()) {
        true => Ok(()),
        false => refuse(domain.span, "<os> has no <type>"),
    }
}

/// `qemuValidateDomainDefMemory` in `src/qemu/qemu_validate.c`.
fn huge_pages(domain: &Domain) -> Result<(), Refusal> {
    let backing = &domain.backing;
    match (backing.on_demand, backing.anonymous) {
        _ if backing.huge_pages.is_empty() => Ok(()),
        (Some(span), _) => refuse(span, "huge pages are not allocated on demand"),
        (_, Some(span)) => refuse(span, "huge pages are not anonymous memory"),
        (None, None) => Ok(()),
    }
}

/// `virDomainNumaDefParseXML` in `src/conf/numa_conf.c`.
fn cells(domain: &Domain) -> Result<(), Refusal> {
    let count = domain.cell_ids.len();
    if let Some(span) = domain.numa.filter(|_| count == 0) {
        return refuse(span, "<numa> has no <cell>");
    }
    let mut seen = HashSet::new();
    for (index, id) in domain.cell_ids.iter().enumerate() {
        let number = id.map_or(index, |id| id.value as usize);
        let span = id.map(|id| id.span).or(domain.numa).unwrap_or(domain.span);
        if number >= count {
            return refuse(span, format!("the {count} NUMA cells need ids from 0 on, without gaps"));
        }
        if !seen.insert(number) {
            return refuse(span, format!("two NUMA cells have the id {number}"));
        }
    }
    Ok(())
}

/// The models of PCI controllers (`virDomainControllerModelPCI` in `src/conf/domain_conf.c`).
const CONTROLLER_MODELS: [&str; 10] = [
    "pci-root",
    "pcie-root",
    "pci-bridge",
    "dmi-to-pci-bridge",
    "pcie-to-pci-bridge",
    "pcie-root-port",
    "pcie-switch-upstream-port",
    "pcie-switch-downstream-port",
    "pci-expander-bus",
    "pcie-expander-bus",
];

/// `virDomainControllerDefParseXML` in `src/conf/domain_conf.c`, `virDomainDefRejectDuplicateControllers` in
/// `src/conf/domain_validate.c`, `qemuValidateDomainDeviceDefControllerPCI` in `src/qemu/qemu_validate.c`,
/// `qemuDomainAssignPCIAddresses` in `src/qemu/qemu_domain_address.c`.
fn controllers(domain: &Domain, family: Option<Family>) -> Result<(), Refusal> {
    let root = match family {
        Some(Family::Q35) => "pcie-root",
        Some(Family::I440fx) => "pci-root",
        None => return Ok(()),
    };
    let mut indexes = HashSet::new();
    for controller in &domain.controllers {
        if controller.kind.is_none() {
            return refuse(controller.span, "<controller> has no type");
        }
        pci_controller(controller, domain, root)?;
        if let Some(index) = controller.index.filter(|index| !indexes.insert(index.value)) {
            return refuse(index.span, format!("two PCI controllers have the index {}", index.value));
        }
    }
    Ok(())
}

fn pci_controller(controller: &Controller, domain: &Domain, root: &str) -> Result<(), Refusal> {
    let model = controller.model.as_ref();
    let named = model.map(|model| model.value.as_str());
    let span = model.map_or(controller.span, |model| model.span);
    if let Some(unknown) = named.filter(|model| !CONTROLLER_MODELS.contains(model)) {
        return refuse(span, format!("there is no PCI controller model {}", crate::text::quoted(unknown)));
    }
    let index = controller.index.map(|index| index.value);
    if matches!(named, Some("pci-root" | "pcie-root")) {
        if let Some(index) = controller.index.filter(|index| index.value != 0) {
            return refuse(index.span, "a PCI root has index 0");
        }
        if named != Some(root) {
            return refuse(span, format!("the PCI root of this machine type is {root}"));
        }
    } else if index == Some(0) {
        return refuse(span, format!("the PCI controller with index 0 is the root, {root}"));
    }
    // Without PCI Express there is no slot for devices that need it (`virDomainPCIAddressSetGrow` in
    // `src/conf/domain_addr.c`).
    let express = matches!(
        named,
        Some(
            "dmi-to-pci-bridge"
                | "pcie-to-pci-bridge"
                | "pcie-root-port"
                | "pcie-switch-upstream-port"
                | "pcie-switch-downstream-port"
        )
    );
    if express && root == "pci-root" {
        return refuse(span, "this machine type has no PCI Express");
    }
    let expander = matches!(named, Some("pci-expander-bus" | "pcie-expander-bus"));
    let wrong_root = match named {
        Some("pci-expander-bus") => root != "pci-root",
        Some("pcie-expander-bus") => root != "pcie-root",
        _ => false,
    };
    if wrong_root {
        return refuse(span, "this machine type has another kind of expander bus");
    }
    match controller.node.filter(|node| expander && node.value as usize >= domain.numa_cells.len()) {
        Some(node) => refuse(node.span, format!("NUMA node {} is not among the cells", node.value)),
        None => Ok(()),
    }
}

/// `virDomainIOMMUDefParseXML` in `src/conf/domain_conf.c`, `virDomainIOMMUDefValidate` and
/// `virDomainDefIOMMUValidate` in `src/conf/domain_validate.c`, `qemuValidateDomainDeviceDefIOMMU` in
/// `src/qemu/qemu_validate.c`.
fn iommu(domain: &Domain, family: Option<Family>, libvirt: Option<Version>) -> Result<(), Refusal> {
    let Some(iommu) = &domain.iommu else { return Ok(()) };
    let Some(model) = &iommu.model else { return refuse(iommu.span, "<iommu> has no model") };
    let on = |option: &Option<Sourced<String>>| option.as_ref().is_some_and(|option| option.value == "on");
    match model.value.as_str() {
        "intel" | "virtio" | "amd" if family == Some(Family::I440fx) => {
            return refuse(model.span, format!("a virtual IOMMU of model {} needs q35", model.value));
        }
        "intel" | "virtio" => {}
        "amd" if libvirt.is_none_or(|version| version >= AMD_IOMMU) => {}
        "amd" if libvirt.is_some_and(|version| version > Version::new(11, 4)) => {}
        "smmuv3" => return refuse(model.span, "a virtual IOMMU of model smmuv3 is for ARM"),
        other => {
            return refuse(model.span, format!("there is no virtual IOMMU model {}", crate::text::quoted(other)));
        }
    }
    if model.value == "virtio" {
        if let Some(span) = iommu.option {
            return refuse(span, "a virtual IOMMU of model virtio takes no such option");
        }
        if !domain.acpi {
            return refuse(model.span, "a virtual IOMMU of model virtio needs <features><acpi/></features>");
        }
    }
    let split = domain.ioapic.as_ref().is_some_and(|ioapic| ioapic.value == "qemu");
    if on(&iommu.interrupt_remapping) && !split {
        return refuse(iommu.span, "interrupt remapping needs <features><ioapic driver='qemu'/></features>");
    }
    if on(&iommu.extended_interrupts) && !on(&iommu.interrupt_remapping) {
        return refuse(iommu.span, "eim needs intremap");
    }
    Ok(())
}

/// `qemuFirmwareFillDomain` in `src/qemu/qemu_firmware.c`, `virDomainDefParseBootFirmwareOptions` in
/// `src/conf/domain_conf.c`.
fn firmware(domain: &Domain, libvirt: Option<Version>) -> Result<(), Refusal> {
    let Some(firmware) = &domain.firmware else { return Ok(()) };
    match firmware.value.as_str() {
        "efi" | "bios"
            if libvirt.is_some_and(|libvirt| libvirt < SECURE_WITH_FIRMWARE) && domain.loader_secure.is_some() =>
        {
            refuse(
                domain.loader_secure.unwrap_or(firmware.span),
                "<loader secure> and <os firmware> cannot be combined",
            )
        }
        "efi" if !domain.acpi => refuse(firmware.span, "UEFI needs <features><acpi/></features>"),
        "efi" | "bios" => Ok(()),
        other => refuse(firmware.span, format!("there is no firmware {}", crate::text::quoted(other))),
    }
}

/// `virDomainControllerDefParseXML` in `src/conf/domain_conf.c`.
fn hole(domain: &Domain, libvirt: Option<Version>) -> Result<(), Refusal> {
    let old = libvirt.is_some_and(|libvirt| {
        (libvirt.major, libvirt.minor) <= (ENDLESS_HOLE_REFUSED.major, ENDLESS_HOLE_REFUSED.minor)
    });
    match domain.pci_hole64.filter(|_| old && domain.pci_hole64_is_endless) {
        Some(hole) => refuse(hole.span, "<pcihole64> is more than libvirt accepts"),
        None => Ok(()),
    }
}

/// `virDomainSecDefParseXML` in `src/conf/domain_conf.c`.
fn launch_security(domain: &Domain, libvirt: Option<Version>) -> Result<(), Refusal> {
    let Some(security) = &domain.launch_security else { return Ok(()) };
    let Some(kind) = &security.kind else { return refuse(security.span, "<launchSecurity> has no type") };
    // SNP came with 10.5, TDX with 11.6 (NEWS.rst).
    let since = match kind.value.as_str() {
        "sev" => None,
        "s390-pv" => return refuse(kind.span, "launch security s390-pv is for s390x"),
        "sev-snp" => Some(Version::new(10, 5)),
        "tdx" => Some(Version::new(11, 6)),
        other => return refuse(kind.span, format!("there is no launch security {}", crate::text::quoted(other))),
    };
    if since.is_some_and(|since| libvirt.is_some_and(|version| version < since)) {
        return refuse(kind.span, format!("this libvirt has no launch security {}", kind.value));
    }
    if matches!(kind.value.as_str(), "sev" | "sev-snp") && !security.has_policy {
        return refuse(security.span, "<launchSecurity> needs a <policy>");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain;
    use crate::xml::Document;

    /// What is wrong with a domain that has these devices, each with the address that comes with it.
    fn refused(devices: &[(&str, &str)]) -> Vec<String> {
        let devices: String = devices
            .iter()
            .map(|(device, address)| device.replace("</", &format!("<address type='pci' {address}/></")))
            .collect();
        let xml = format!(
            "<domain type='kvm'><name>a</name><os><type>hvm</type></os>\
             <devices><controller type='pci' model='pcie-root-port' index='1'/>{devices}</devices></domain>"
        );
        let domain = domain::read(&Document::parse(xml.as_bytes()).expect("well-formed")).expect("a domain");
        refusals(&domain, Some(Family::Q35), None).into_iter().map(|refusal| refusal.message).collect()
    }

    /// Expected: what `virsh define` of libvirt 9.0, 11.3 and 12.8 refuses ("Attempted double use of PCI Address").
    #[test]
    fn no_address_is_given_twice() {
        let twice = ["two devices have the PCI address 0000:01:00.0"];
        let rng = "<rng model='virtio'></rng>";
        let here = "bus='0x01' slot='0x00' function='0x0'";
        for device in [
            "<disk type='file'></disk>",
            "<interface type='user'></interface>",
            "<hostdev type='pci'></hostdev>",
            "<controller type='scsi' model='virtio-scsi'></controller>",
            "<memballoon model='virtio'></memballoon>",
            "<serial type='pty'></serial>",
            "<watchdog model='i6300esb'></watchdog>",
            "<sound model='ich9'></sound>",
            "<video></video>",
        ] {
            assert_eq!(refused(&[(device, here), (rng, here)]), twice, "{device}");
            assert_eq!(refused(&[(device, here), (rng, "bus='1' slot='0' function='1'")]), [""; 0], "{device}");
        }
        assert_eq!(refused(&[(rng, here), (rng, "bus='1'")]), twice);
        // Absent devices have no address, and an address of zeros counts as none.
        assert_eq!(refused(&[("<memballoon model='none'></memballoon>", here), (rng, here)]), [""; 0]);
        assert_eq!(refused(&[("<controller type='usb' model='none'></controller>", here), (rng, here)]), [""; 0]);
        assert_eq!(refused(&[(rng, "bus='0' slot='0'"), (rng, "bus='0' slot='0'")]), [""; 0]);
    }
}
