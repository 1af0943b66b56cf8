//! The facts about a host in libvirt's capabilities XML (`virConnectGetCapabilities`), for hosts that are reached only
//! through libvirt.

use super::{Host, Iommu};
use crate::xml::{Document, Element, XmlError};

impl Host {
    /// Reads capabilities XML. Reserved ranges are not in it and stay unknown.
    ///
    /// # Errors
    /// Not XML.
    pub fn from_libvirt_capabilities(xml: &[u8]) -> Result<Self, XmlError> {
        let document = Document::parse(xml)?;
        let root = document.root();
        let cpu = root.descend(&["host", "cpu"]);
        let vendor = cpu.and_then(|cpu| cpu.child("vendor")).map(|vendor| vendor.text().into_owned());
        let width = cpu.and_then(|cpu| cpu.child("maxphysaddr")).and_then(|width| width.value("bits"));
        let iommu = root.descend(&["host", "iommu"]).and_then(|iommu| iommu.value("support"));
        let mut host = Self {
            // libvirt names vendors as its CPU map does (`src/cpu_map/x86_vendors.xml`).
            cpu_vendor: vendor.map(|vendor| match vendor.as_str() {
                "AMD" => "AuthenticAMD".to_owned(),
                "Intel" => "GenuineIntel".to_owned(),
                "Hygon" => "HygonGenuine".to_owned(),
                _ => vendor,
            }),
            phys_bits: width.and_then(|bits| bits.parse().ok()),
            iommu: (iommu == Some("no")).then_some(Iommu::None),
            ..Self::default()
        };
        for arch in root.children_named("guest").filter_map(|guest| guest.child("arch")) {
            if arch.value("name") == Some("x86_64") {
                machines(arch, &mut host);
            }
        }
        host.machines.sort_unstable();
        host.machines.dedup();
        Ok(host)
    }
}

fn machines(arch: Element<'_>, host: &mut Host) {
    let deprecated = host.deprecated.get_or_insert_default();
    for machine in arch.children_named("machine") {
        let name = machine.text().into_owned();
        // `virCapabilitiesFormatGuestXML` of libvirt `src/conf/capabilities.c`.
        if machine.value("deprecated") == Some("yes") {
            deprecated.push(machine.value("canonical").unwrap_or(&name).to_owned());
        }
        match machine.value("canonical") {
            Some(canonical) => {
                host.aliases.insert(name, canonical.to_owned());
                host.machines.push(canonical.to_owned());
            }
            None => host.machines.push(name),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_libvirt_prints() {
        let xml = "<capabilities><host><cpu><arch>x86_64</arch><vendor>AMD</vendor>\
            <maxphysaddr mode='emulate' bits='48'/></cpu><iommu support='yes'/></host>\
            <guest><os_type>hvm</os_type><arch name='x86_64'><emulator>/usr/bin/qemu-system-x86_64</emulator>\
            <machine canonical='pc-q35-7.2' maxCpus='288'>q35</machine><machine maxCpus='288' deprecated='yes'>pc-q35-6.2</machine>\
            </arch></guest></capabilities>";
        let host = Host::from_libvirt_capabilities(xml.as_bytes()).expect("well-formed");
        assert_eq!((host.cpu_vendor.as_deref(), host.phys_bits, host.iommu), (Some("AuthenticAMD"), Some(48), None));
        assert_eq!(host.machines, ["pc-q35-6.2", "pc-q35-7.2"]);
        assert_eq!(host.aliases["q35"], "pc-q35-7.2");
        assert_eq!(host.deprecated, Some(vec!["pc-q35-6.2".to_owned()]));
    }
}
