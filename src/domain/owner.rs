//! Who made a domain and makes it anew at every start, so that what is changed in libvirt is lost.

use crate::machine::without_revision;
use crate::xml::{Document, Element};

/// A program that writes definitions of guests anew at each of their starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owner {
    /// OpenStack Nova.
    Nova,
    /// oVirt, by VDSM on the host.
    Vdsm,
    /// KubeVirt.
    Kubevirt,
    /// Apache CloudStack.
    Cloudstack,
    /// OpenNebula.
    Opennebula,
    /// Proxmox VE, which starts QEMU without libvirt.
    Proxmox,
}

impl Owner {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Nova, Self::Vdsm, Self::Kubevirt, Self::Cloudstack, Self::Opennebula, Self::Proxmox];

    /// The name, as in JSON, after `--advice` and of its adapter.
    pub fn name(self) -> &'static str {
        match self {
            Self::Nova => "nova",
            Self::Vdsm => "vdsm",
            Self::Kubevirt => "kubevirt",
            Self::Cloudstack => "cloudstack",
            Self::Opennebula => "opennebula",
            Self::Proxmox => "proxmox",
        }
    }

    /// What people call it.
    pub fn title(self) -> &'static str {
        match self {
            Self::Nova => "OpenStack Nova",
            Self::Vdsm => "oVirt",
            Self::Kubevirt => "KubeVirt",
            Self::Cloudstack => "CloudStack",
            Self::Opennebula => "OpenNebula",
            Self::Proxmox => "Proxmox VE",
        }
    }

    /// The owner that a machine type on QEMU's command line shows: only QEMU as Proxmox builds it takes a revision
    /// (`get_vm_machine` in qemu-server 9.2.6 `src/PVE/QemuServer/Machine.pm`).
    pub fn of_machine(name: &str) -> Option<Self> {
        (without_revision(name) != name).then_some(Self::Proxmox)
    }
}

/// What a domain says of its owner.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ownership {
    /// The owner.
    pub owner: Owner,
    /// The UUID of the image that Nova made the guest from.
    pub image: Option<String>,
    /// The name of its Nova flavor.
    pub flavor: Option<String>,
    /// The major version of that Nova.
    pub release: Option<u32>,
}

/// The longest value that is taken over from `<metadata>`, in bytes: Nova's names have at most 255.
const LONGEST: usize = 255;

/// The namespaces of elements in `<metadata>`, without the version if there are several, and who writes them.
/// libosinfo's (virt-manager, GNOME Boxes, Cockpit) name an operating system, not an owner.
///
/// Sources: `NOVA_NS` in nova 34.0.0 `virt/libvirt/config.py` (1.0 up to 19, 1.1 since); `METADATA_VM_VDSM_URI` and
/// `METADATA_VM_TUNE_URI` in vdsm fd4b0df2 `lib/vdsm/virt/xmlconstants.py`, which the engine writes as well; `Metadata`
/// in KubeVirt 1.9 `pkg/virt-launcher/virtwrap/api/schema.go`; `LibVirtDriver::deployment_description_kvm` in
/// OpenNebula 7.4.0 `src/vmm/LibVirtDriverKVM.cc`, since 5.10.
const NAMESPACES: [(&str, Owner); 4] = [
    ("http://openstack.org/xmlns/libvirt/nova/", Owner::Nova),
    ("http://ovirt.org/vm/", Owner::Vdsm),
    ("http://kubevirt.io", Owner::Kubevirt),
    ("http://opennebula.org/xmlns/libvirt/", Owner::Opennebula),
];

/// The owner of a domain, where it can be told.
pub(super) fn ownership(document: &Document<'_>) -> Option<Ownership> {
    let root = document.root();
    let elements = || root.child("metadata").into_iter().flat_map(|metadata| metadata.children());
    let named = elements().find_map(|element| Some((element, by_namespace(element.namespace()?)?)));
    if let Some((element, owner)) = named {
        let plain = Ownership { owner, image: None, flavor: None, release: None };
        let is_instance = owner == Owner::Nova && element.local_name() == "instance";
        return Some(if is_instance { nova(element) } else { plain });
    }
    let owner = by_system(root).or_else(|| is_cloudstack(&root.child("name")?.text()).then_some(Owner::Cloudstack))?;
    Some(Ownership { owner, image: None, flavor: None, release: None })
}

fn by_namespace(namespace: &str) -> Option<Owner> {
    let is_of = |prefix: &str| {
        let rest = namespace.strip_prefix(prefix);
        rest.is_some_and(|rest| rest.is_empty() || prefix.ends_with('/') || rest.starts_with('/'))
    };
    NAMESPACES.iter().find(|(prefix, _)| is_of(prefix)).map(|&(_, owner)| owner)
}

/// What `LibvirtConfigGuestMetaNovaInstance` in nova 34.0.0 `virt/libvirt/config.py` writes.
fn nova(instance: Element<'_>) -> Ownership {
    let child = |name: &str| instance.children().find(|element| element.local_name() == name);
    let value = |element: Option<Element<'_>>, name: &str| {
        let value = element?.value(name).filter(|value| !value.is_empty() && value.len() <= LONGEST)?;
        Some(value.to_owned())
    };
    let root = child("root").filter(|root| root.value("type") == Some("image"));
    Ownership {
        owner: Owner::Nova,
        image: value(root, "uuid"),
        flavor: value(child("flavor"), "name"),
        release: child("package").and_then(|package| major(package.value("version")?)),
    }
}

/// The major version in that of a package: 29 in `3:29.0.1-0ubuntu1`.
fn major(version: &str) -> Option<u32> {
    let upstream = version.split_once(':').map_or(version, |(_, upstream)| upstream);
    upstream.split('.').next()?.parse().ok()
}

/// By what `<sysinfo>` says of the system. It is what these write unless somebody configured other words:
/// `VmMetadataProductName` and `VmMetadataManufacturer` in CloudStack `VirtualMachineManager.java`,
/// `SmbiosConfigDefaultManufacturer` in KubeVirt 1.9 `pkg/virt-config/virt-config.go`.
fn by_system(root: Element<'_>) -> Option<Owner> {
    let system = root.descend(&["sysinfo", "system"])?;
    let entry = |name: &str| {
        system.children_named("entry").find(|entry| entry.value("name") == Some(name)).map(|entry| entry.text())
    };
    match (entry("manufacturer").as_deref(), entry("product").as_deref()) {
        (_, Some("CloudStack KVM Hypervisor")) => Some(Owner::Cloudstack),
        (Some("KubeVirt"), _) => Some(Owner::Kubevirt),
        _ => None,
    }
}

/// Whether a name is one that CloudStack gives: `i-USER-ID-VM` to instances, `r-ID-VM` to routers, `s-ID-VM` and
/// `v-ID-VM` to its own guests (CloudStack `api/src/main/java/com/cloud/vm/VirtualMachineName.java`). The last part is
/// the setting `instance.name`; only its default is known here.
fn is_cloudstack(name: &str) -> bool {
    let parts: Vec<&str> = name.split('-').collect();
    let is_number = |part: &&str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    match parts.as_slice() {
        ["i", numbers @ .., "VM"] => numbers.len() == 2 && numbers.iter().all(is_number),
        ["r" | "s" | "v", number, "VM"] => is_number(number),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owned(inside: &str) -> Option<Ownership> {
        let xml = format!("<domain type='kvm'>{inside}</domain>");
        ownership(&Document::parse(xml.as_bytes()).expect("well-formed"))
    }

    fn owner(inside: &str) -> Option<Owner> {
        owned(inside).map(|ownership| ownership.owner)
    }

    /// Elements as those programs write them; the KubeVirt one from kubevirt/kubevirt#1814, oVirt's from VDSM's tests.
    #[test]
    fn metadata_names_the_owner() {
        for (element, expected) in [
            ("<nova:instance xmlns:nova='http://openstack.org/xmlns/libvirt/nova/1.1'/>", Some(Owner::Nova)),
            ("<nova:instance xmlns:nova='http://openstack.org/xmlns/libvirt/nova/1.0'/>", Some(Owner::Nova)),
            ("<ovirt-vm:vm xmlns:ovirt-vm='http://ovirt.org/vm/1.0'/>", Some(Owner::Vdsm)),
            ("<ovirt-tune:qos xmlns:ovirt-tune='http://ovirt.org/vm/tune/1.0'/>", Some(Owner::Vdsm)),
            ("<kubevirt xmlns='http://kubevirt.io'><uid>6de3334e</uid></kubevirt>", Some(Owner::Kubevirt)),
            ("<kubevirt xmlns='http://kubevirt.io/v1'/>", Some(Owner::Kubevirt)),
            ("<kubevirt xmlns='http://kubevirt.iox'/>", None),
            ("<kubevirt xmlns='http://kubevirt.io.example.org'/>", None),
            ("<one:vm xmlns:one='http://opennebula.org/xmlns/libvirt/1.0'/>", Some(Owner::Opennebula)),
            (
                "<libosinfo:libosinfo xmlns:libosinfo='http://libosinfo.org/xmlns/libvirt/domain/1.0'>\
                 <libosinfo:os id='http://debian.org/debian/12'/></libosinfo:libosinfo>",
                None,
            ),
            ("<policy xmlns='urn:iova-preflight:policy:1' passthrough='assume'/>", None),
            ("<instance/>", None),
        ] {
            assert_eq!(owner(&format!("<metadata>{element}</metadata>")), expected, "{element}");
        }
        // On the outermost element, as VDSM writes it; and elsewhere than in <metadata> it says nothing.
        assert_eq!(owner("<description xmlns:nova='http://openstack.org/xmlns/libvirt/nova/1.1'/>"), None);
        let xml =
            "<domain xmlns:ovirt-tune='http://ovirt.org/vm/tune/1.0'><metadata><ovirt-tune:qos/></metadata></domain>";
        let document = Document::parse(xml.as_bytes()).expect("well-formed");
        assert_eq!(ownership(&document).map(|ownership| ownership.owner), Some(Owner::Vdsm));
    }

    #[test]
    fn nova_names_flavor_image_and_release() {
        let instance = |root: &str, version: &str| {
            owned(&format!(
                "<metadata><nova:instance xmlns:nova='http://openstack.org/xmlns/libvirt/nova/1.1'>\
                 <nova:package version='{version}'/><nova:flavor name='gpu.1t'/><nova:root type='{root}' uuid='155d'/>\
                 </nova:instance></metadata>"
            ))
            .expect("owned")
        };
        let expected = |image: Option<&str>, release| Ownership {
            owner: Owner::Nova,
            image: image.map(str::to_owned),
            flavor: Some("gpu.1t".to_owned()),
            release,
        };
        assert_eq!(instance("image", "34.0.0"), expected(Some("155d"), Some(34)));
        assert_eq!(instance("volume", "3:29.0.1-0ubuntu1"), expected(None, Some(29)));
        assert_eq!(instance("image", "devel"), expected(Some("155d"), None));
    }

    /// CloudStack's own test of migration has such a domain (`LibvirtMigrateCommandWrapperTest.java`).
    #[test]
    fn without_metadata_the_name_or_the_system_tells() {
        for (name, expected) in [
            ("i-6-6-VM", true),
            ("r-12-VM", true),
            ("s-2196-VM", true),
            ("v-1-VM", true),
            ("i-6-VM", false),
            ("i-6-6-6-VM", false),
            ("i-a-6-VM", false),
            ("r--VM", false),
            ("x-1-VM", false),
            ("i-2-3-PROD", false),
            ("db", false),
        ] {
            assert_eq!(owner(&format!("<name>{name}</name>")) == Some(Owner::Cloudstack), expected, "{name}");
        }
        let system = |entry: &str, value: &str| {
            owner(&format!(
                "<name>i-2-3-PROD</name><sysinfo type='smbios'><system><entry name='{entry}'>{value}</entry></system></sysinfo>"
            ))
        };
        assert_eq!(system("product", "CloudStack KVM Hypervisor"), Some(Owner::Cloudstack));
        assert_eq!(system("manufacturer", "KubeVirt"), Some(Owner::Kubevirt));
        assert_eq!(system("manufacturer", "Dell Inc."), None);
    }

    #[test]
    fn only_proxmox_adds_a_revision() {
        assert_eq!(Owner::of_machine("pc-q35-5.1+pve0"), Some(Owner::Proxmox));
        assert_eq!(Owner::of_machine("q35+pve0"), Some(Owner::Proxmox));
        assert_eq!(Owner::of_machine("pc-q35-5.1"), None);
    }
}
