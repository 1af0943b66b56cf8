//! PCI controllers, firmware, virtual IOMMUs and launch security.

use super::super::draw::{GIB, KIB, MIB, Rng, element};
use super::Draft;
use std::fmt::Write as _;

/// `<controller>` elements.
pub fn controllers(rng: &mut Rng, draft: &mut Draft<'_>, without_type: bool) -> String {
    let mut xml = String::new();
    if without_type {
        xml += rng.text(&[
            "<controller index='0' model='pcie-root'/>",
            "<iommu/>",
            "<controller type='scsi' index='0'/><address/>",
            "<memory><target><size>1048576</size></target></memory>",
        ]);
    }
    xml += &root(rng, draft);
    if draft.take("expander-bus") {
        let (right, wrong) = match draft.q35() {
            true => ("pcie-expander-bus", "pci-expander-bus"),
            false => ("pci-expander-bus", "pcie-expander-bus"),
        };
        let model = if rng.percent(85) { right } else { wrong };
        let node = match draft.cells {
            0 => String::new(),
            cells if rng.percent(50) => format!("<node>{}</node>", rng.below(cells + 1)),
            _ => String::new(),
        };
        let bus = rng.text(&["<target busNr='180'>", "<target busNr='64'>", "<target>"]);
        let _ = write!(xml, "<controller type='pci' index='1' model='{model}'>{bus}{node}</target></controller>");
        if model == "pcie-expander-bus" && draft.q35() && rng.percent(50) {
            xml += "<controller type='pci' index='2' model='pcie-root-port'>\
                    <address type='pci' domain='0x0000' bus='0x01' slot='0x00' function='0x0'/></controller>";
        }
    }
    xml
}

fn root(rng: &mut Rng, draft: &mut Draft<'_>) -> String {
    let (right, other) = if draft.q35() { ("pcie-root", "pci-root") } else { ("pci-root", "pcie-root") };
    let mistake = draft.take("root");
    let absurd = draft.take("absurd-hole");
    let with_hole = draft.take("pci-hole");
    if !mistake && !absurd && !with_hole {
        return String::new();
    }
    let hole = if absurd {
        (rng.text(&[
            "<pcihole64 unit='GiB'>17179869183</pcihole64>",
            "<pcihole64 unit='GiB'>17179869184</pcihole64>",
            "<pcihole64 unit='TiB'>16777215</pcihole64>",
            "<pcihole64>18014398509481983</pcihole64>",
            "<pcihole64 unit='B'>18446744073709551615</pcihole64>",
            "<pcihole64 unit='TiB'>4194304</pcihole64>",
            "<pcihole64 unit='TiB'>256</pcihole64>",
            "<pcihole64 unit='PiB'>8</pcihole64>",
            "<pcihole64>-1</pcihole64>",
            "<pcihole64>much</pcihole64>",
        ]))
        .to_owned()
    } else if with_hole {
        let size = *rng.pick(&[0, 1, 512, MIB, GIB, 2 * GIB, 32 * GIB, 64 * GIB, 128 * GIB, 1024 * GIB]);
        let size = if rng.percent(30) { size + rng.below(GIB) } else { size };
        element(rng, "pcihole64", "", size)
    } else {
        let size = 64 * GIB + rng.below(64) * KIB;
        element(rng, "pcihole64", "", size)
    };
    if !mistake {
        return format!("<controller type='pci' index='0' model='{right}'>{hole}</controller>");
    }
    match rng.below(7) {
        0 => format!("<controller type='pci' index='1' model='{right}'>{hole}</controller>"),
        1 => format!("<controller type='pci' index='0' model='{other}'>{hole}</controller>"),
        2 => format!("<controller type='pci' model='{right}'>{hole}</controller>"),
        3 => format!(
            "<controller type='pci' index='0' model='{right}'/><controller type='pci' index='0' model='{right}'>{hole}</controller>"
        ),
        4 => format!("<controller type='pci' index='0'>{hole}</controller>"),
        5 => format!("<controller type='pci' index='0' model='no-root'>{hole}</controller>"),
        _ => format!("<controller type='pci' index='1' model='pcie-root-port'>{hole}</controller>"),
    }
}

/// The attribute of `<os>`, and what is in it.
pub fn firmware(rng: &mut Rng, draft: &mut Draft<'_>) -> (&'static str, &'static str) {
    if !draft.take("firmware") {
        return ("", "");
    }
    *rng.pick(&[
        (" firmware='efi'", ""),
        (" firmware='efi'", "<loader secure='no'/>"),
        (" firmware='efi'", "<firmware><feature enabled='no' name='secure-boot'/></firmware>"),
        (" firmware='bios'", ""),
        ("", "<loader readonly='yes' type='pflash'>/usr/share/OVMF/OVMF_CODE_4M.fd</loader>"),
    ])
}

/// A virtual IOMMU, and what it wants under `<features>`.
pub struct Iommu {
    pub device: String,
    pub features: &'static str,
}

pub fn iommu(rng: &mut Rng, draft: &mut Draft<'_>) -> Iommu {
    if !draft.take("iommu") {
        return Iommu { device: String::new(), features: "" };
    }
    let model = rng.text(&["intel", "intel", "intel", "virtio", "virtio", "amd", "smmuv3"]);
    let driver = match model {
        "intel" => rng.text(&[
            "",
            "<driver intremap='on'/>",
            "<driver intremap='on' eim='on'/>",
            "<driver caching_mode='on' iotlb='on'/>",
            "<driver aw_bits='48'/>",
            "<driver aw_bits='39'/>",
        ]),
        _ if rng.percent(10) => "<driver aw_bits='48'/>",
        _ => "",
    };
    let split = rng.text(&["<ioapic driver='qemu'/>", "<ioapic driver='qemu'/>", "<ioapic driver='kvm'/>", ""]);
    Iommu { device: format!("<iommu model='{model}'>{driver}</iommu>\n    "), features: split }
}

/// `<launchSecurity>`; hosts that have it are rare, so that most of these are refused.
pub fn launch_security(rng: &mut Rng, draft: &mut Draft<'_>) -> &'static str {
    if !draft.take("launch-security") {
        return "";
    }
    rng.text(&[
        "<launchSecurity type='sev'><cbitpos>47</cbitpos><reducedPhysBits>1</reducedPhysBits><policy>0x3</policy></launchSecurity>",
        "<launchSecurity type='sev'><policy>0x3</policy></launchSecurity>",
        "<launchSecurity type='sev'/>",
        "<launchSecurity type='sev-snp'><policy>0x30000</policy></launchSecurity>",
        "<launchSecurity type='tdx'/>",
        "<launchSecurity type='s390-pv'/>",
        "<launchSecurity type='none'/>",
        "<launchSecurity/>",
    ])
}
