//! What of firmware, controllers, virtual IOMMUs and launch security libvirt may refuse.

use super::Sourced;
#[cfg(feature = "cli")]
use super::pci::{PciAddress, pci_address};
use super::read::{Result, attribute, number_attribute};
use crate::xml::{Element, Span};

/// A `<controller type='pci'>`, or one without a type.
#[derive(Debug, Clone)]
pub struct Controller {
    /// `type`.
    pub kind: Option<Sourced<String>>,
    /// `index`.
    pub index: Option<Sourced<u32>>,
    /// `model`.
    pub model: Option<Sourced<String>>,
    /// `<target><node>`: the NUMA cell it belongs to.
    pub node: Option<Sourced<u32>>,
    /// Where it is, if the domain says so.
    #[cfg(feature = "cli")]
    pub address: Option<PciAddress>,
    /// Whether devices can be plugged into it: not with `<target hotplug='off'>`.
    #[cfg(feature = "cli")]
    pub hotplug: bool,
    /// `<target memReserve>`: KiB of memory that is not prefetchable that firmware keeps for what will be plugged into it.
    #[cfg(feature = "cli")]
    pub memory_reserve: Option<u64>,
    /// The start tag.
    pub span: Span,
}

/// `<iommu>`.
#[derive(Debug, Clone)]
pub struct VirtualIommu {
    /// `model`.
    pub model: Option<Sourced<String>>,
    /// `<driver intremap>`.
    pub interrupt_remapping: Option<Sourced<String>>,
    /// `<driver eim>`.
    pub extended_interrupts: Option<Sourced<String>>,
    /// `<driver caching_mode>`.
    #[cfg(feature = "cli")]
    pub caching_mode: Option<Sourced<String>>,
    /// `<driver aw_bits>`.
    #[cfg(feature = "cli")]
    pub address_bits: Option<Sourced<String>>,
    /// The first attribute of `<driver>` that is for some models only.
    pub option: Option<Span>,
    /// The start tag.
    pub span: Span,
}

/// `<launchSecurity>`.
#[derive(Debug, Clone)]
pub struct LaunchSecurity {
    /// `type`.
    pub kind: Option<Sourced<String>>,
    /// Whether there is a `<policy>`.
    pub has_policy: bool,
    /// The start tag.
    pub span: Span,
}

/// The PCI controllers in document order, and those without a type.
pub(super) fn controllers(devices: Option<Element<'_>>) -> Result<Vec<Controller>> {
    let all = devices.into_iter().flat_map(|devices| devices.children_named("controller"));
    let pci = all.filter(|controller| matches!(controller.value("type"), None | Some("pci" | "")));
    pci.map(|controller| {
        Ok(Controller {
            kind: attribute(controller, "type")?,
            index: number_attribute(controller, "index")?,
            model: attribute(controller, "model")?,
            node: controller.descend(&["target", "node"]).map(super::read::node).transpose()?.flatten(),
            #[cfg(feature = "cli")]
            address: pci_address(controller),
            #[cfg(feature = "cli")]
            hotplug: controller.child("target").and_then(|target| target.value("hotplug")) != Some("off"),
            #[cfg(feature = "cli")]
            memory_reserve: controller
                .child("target")
                .and_then(|target| super::passthrough::parse_integer(target.value("memReserve")?)),
            span: controller.start_tag(),
        })
    })
    .collect()
}

/// The first `<iommu>`.
pub(super) fn iommu(devices: Option<Element<'_>>) -> Result<Option<VirtualIommu>> {
    let Some(iommu) = devices.and_then(|devices| devices.child("iommu")) else { return Ok(None) };
    let driver = iommu.child("driver");
    let option = |name: &str| driver.map_or(Ok(None), |driver| attribute(driver, name));
    let special = ["intremap", "caching_mode", "eim", "iotlb", "aw_bits"];
    Ok(Some(VirtualIommu {
        model: attribute(iommu, "model")?,
        interrupt_remapping: option("intremap")?,
        extended_interrupts: option("eim")?,
        #[cfg(feature = "cli")]
        caching_mode: option("caching_mode")?,
        #[cfg(feature = "cli")]
        address_bits: option("aw_bits")?,
        option: special.iter().find_map(|name| driver?.attribute(name)).map(|attribute| attribute.span),
        span: iommu.start_tag(),
    }))
}

/// `<os><loader>`.
#[cfg(feature = "cli")]
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoaderElement {
    /// Its path.
    pub path: Sourced<String>,
    /// Whether it is a flash (`type='pflash'`), and not the ROM.
    pub is_flash: bool,
}

/// `<os><loader>` with a path.
#[cfg(feature = "cli")]
pub(super) fn loader(root: Element<'_>) -> Result<Option<LoaderElement>> {
    let Some(element) = root.descend(&["os", "loader"]) else { return Ok(None) };
    let path = super::read::short_text(element)?;
    let is_flash = element.value("type") == Some("pflash");
    Ok(Some(LoaderElement { path, is_flash }).filter(|loader| !loader.path.value.is_empty()))
}

/// The entries of `<sysinfo type='fwcfg'>`.
#[cfg(feature = "cli")]
pub(super) fn fw_cfg(root: Element<'_>) -> Vec<(String, Option<String>, Span)> {
    let all = root.children_named("sysinfo").filter(|sysinfo| sysinfo.value("type") == Some("fwcfg"));
    let entries = all.flat_map(|sysinfo| sysinfo.children_named("entry"));
    let read = |entry: Element<'_>| {
        let value = entry.value("file").is_none().then(|| entry.text().into_owned());
        Some((entry.value("name")?.to_owned(), value, entry.start_tag()))
    };
    // Of firmware's own; what else there is may be long.
    entries.filter_map(read).filter(|(name, ..)| name.starts_with("opt/")).collect()
}

/// `<launchSecurity>`.
pub(super) fn launch_security(root: Element<'_>) -> Result<Option<LaunchSecurity>> {
    let Some(element) = root.child("launchSecurity") else { return Ok(None) };
    let has_policy = element.child("policy").is_some();
    Ok(Some(LaunchSecurity { kind: attribute(element, "type")?, has_policy, span: element.start_tag() }))
}
