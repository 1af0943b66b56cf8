//! A guest to try changes on.

use super::Change;
#[cfg(feature = "cli")]
use super::arguments;
use super::rewrite;
#[cfg(feature = "cli")]
use crate::command_line::{Launch, PCI_MMIO64_MB, Property};
use crate::domain::{CpuElement, CpuMode, Domain, MaxPhysAddr, MaxPhysAddrMode, MemoryModel, Sourced};
use crate::evaluate::{Diagnosis, diagnose};
use crate::guest::Subject;
use crate::host::Host;
#[cfg(feature = "cli")]
use crate::libvirt::LIMIT_SINCE;
use crate::libvirt::MAXPHYSADDR_SINCE;
use crate::policy::{PhysBitsPolicy, Policy};
#[cfg(feature = "cli")]
use crate::qemu::memory_device::MemoryDeviceKind;
use crate::text::quoted;
use crate::xml::Span;

/// A guest to try changes on, evaluated for a host under a policy.
pub(super) struct Draft<'a> {
    subject: Subject<'a>,
    host: &'a Host,
    policy: &'a Policy,
}

/// A memory device at a fixed address.
pub(super) struct Fixed {
    /// Its index among the memory devices.
    pub device: usize,
    /// The address.
    pub address: u64,
    /// Whether QEMU finds a place for it if there is no address.
    pub can_move: bool,
}

impl<'a> Draft<'a> {
    /// The guest as it is.
    pub fn new(subject: Subject<'a>, host: &'a Host, policy: &'a Policy) -> Self {
        Self { subject, host, policy }
    }

    /// Whether it is started without libvirt.
    pub fn is_bare(&self) -> bool {
        self.subject.domain().is_none()
    }

    fn diagnose_domain(&self, domain: &Domain, change: impl FnOnce(&mut Domain)) -> Diagnosis {
        let mut domain = domain.clone();
        change(&mut domain);
        diagnose(&domain, self.host, self.policy)
    }

    #[cfg(feature = "cli")]
    fn diagnose_launch(&self, launch: &Launch, change: impl FnOnce(&mut Launch)) -> Diagnosis {
        let mut launch = launch.clone();
        change(&mut launch);
        diagnose(&launch, self.host, self.policy)
    }

    /// What becomes of it with these changes.
    pub fn with(&self, changes: &[Change]) -> Diagnosis {
        match self.subject {
            Subject::Domain(domain) => {
                self.diagnose_domain(domain, |domain| changes.iter().for_each(|change| apply(change, domain)))
            }
            #[cfg(feature = "cli")]
            Subject::Launch(launch) => diagnose(&arguments::changed(launch, changes), self.host, self.policy),
        }
    }

    /// What becomes of it with these changes and a window for BARs of this many MiB that OVMF is told of.
    #[cfg(feature = "cli")]
    pub fn with_window(&self, changes: &[Change], mib: u64) -> Diagnosis {
        match self.subject {
            Subject::Domain(domain) => self.diagnose_domain(domain, |domain| {
                changes.iter().for_each(|change| apply(change, domain));
                domain.fw_cfg.push((PCI_MMIO64_MB.to_owned(), Some(mib.to_string()), domain.span));
            }),
            Subject::Launch(launch) => {
                let changed = arguments::changed(launch, changes);
                let told = ["-fw_cfg".to_owned(), format!("name={PCI_MMIO64_MB},string={mib}")];
                let all = changed.arguments.iter().cloned().chain(told).collect();
                diagnose(&changed.with_arguments(all), self.host, self.policy)
            }
        }
    }

    /// `pci-hole64-size`, in bytes, where it is told one.
    pub fn hole(&self) -> Option<u64> {
        match self.subject {
            Subject::Domain(domain) => domain.pci_hole64.and_then(|hole| hole.value.checked_mul(1024)),
            #[cfg(feature = "cli")]
            Subject::Launch(launch) => {
                let globals = launch.line.globals.iter().map(|global| &global.property);
                globals.filter(|property| property.name == "pci-hole64-size").filter_map(Property::size).max()
            }
        }
    }

    /// A hole of this many bytes.
    pub fn hole_of(&self, bytes: u64) -> Change {
        match self.subject {
            Subject::Domain(_) => Change::PciHole64(bytes / 1024),
            #[cfg(feature = "cli")]
            Subject::Launch(_) => Change::HoleSize(bytes),
        }
    }

    /// The ways to give the CPU at least this many phys-bits, the one that the policy prefers first.
    pub fn widths(&self, bits: u32) -> [Change; 2] {
        let [emulated, passed] = match self.subject {
            Subject::Domain(_) => [Change::EmulateBits(bits), Change::PassHostBits],
            #[cfg(feature = "cli")]
            Subject::Launch(_) => [Change::PhysBits(bits), Change::HostPhysBits],
        };
        match self.policy.phys_bits {
            PhysBitsPolicy::Host => [passed, emulated],
            _ => [emulated, passed],
        }
    }

    /// The ways to give the CPU just this many phys-bits, the one that the policy prefers first.
    #[cfg(feature = "cli")]
    pub fn exact_widths(&self, bits: u32) -> Vec<Change> {
        let is_host = self.host.phys_bits == Some(bits);
        let (emulated, passed) = match self.subject {
            Subject::Domain(_) => {
                let limited = self.host.libvirt.is_none_or(|version| version >= LIMIT_SINCE);
                let limit = limited.then_some(Change::PassHostBitsUpTo(bits));
                (Change::EmulateBits(bits), if is_host { Some(Change::PassHostBits) } else { limit })
            }
            Subject::Launch(_) => {
                let passed = if is_host { Change::HostPhysBits } else { Change::HostPhysBitsUpTo(bits) };
                (Change::PhysBits(bits), Some(passed))
            }
        };
        match self.policy.phys_bits {
            PhysBitsPolicy::Host => passed.into_iter().chain([emulated]).collect(),
            _ => [emulated].into_iter().chain(passed).collect(),
        }
    }

    /// Why the CPU's width cannot be changed at all, where it cannot.
    pub fn fixed_width(&self) -> Option<String> {
        self.subject.domain()?;
        let version = self.host.libvirt.filter(|&version| version < MAXPHYSADDR_SINCE)?;
        Some(format!("libvirt {version} has no <maxphysaddr>"))
    }

    /// The memory devices at fixed addresses.
    pub fn fixed(&self) -> Vec<Fixed> {
        match self.subject {
            Subject::Domain(domain) => {
                let devices = domain.memory_devices.iter().enumerate();
                let fixed = devices.filter_map(|(device, memory)| {
                    let can_move = matches!(memory.model, MemoryModel::Dimm | MemoryModel::Nvdimm);
                    Some(Fixed { device, address: memory.address?.value, can_move })
                });
                fixed.collect()
            }
            #[cfg(feature = "cli")]
            Subject::Launch(launch) => {
                let devices = launch.line.devices.iter();
                let memory = devices.filter_map(|device| Some((MemoryDeviceKind::of(device)?, device))).enumerate();
                let fixed = memory.filter_map(|(device, (kind, told))| {
                    let address = told.properties.get(kind.address_property())?.number().filter(|&at| at > 0)?;
                    Some(Fixed { device, address, can_move: true })
                });
                fixed.collect()
            }
        }
    }

    /// How many slots it has for memory devices, and the fewest that its devices need.
    pub fn slots(&self) -> Option<(u32, u32)> {
        let (slots, devices) = match self.subject {
            Subject::Domain(domain) => (domain.slots?.value, domain.memory_devices.len()),
            #[cfg(feature = "cli")]
            Subject::Launch(launch) => {
                let slots = launch.line.memory?.slots?.value;
                let devices = launch.line.devices.iter();
                let dimms =
                    devices.filter(|device| MemoryDeviceKind::of(device).is_some_and(MemoryDeviceKind::has_slot));
                (u32::try_from(slots).ok()?, dimms.count())
            }
        };
        Some((slots, u32::try_from(devices).ok()?.max(1)))
    }

    /// What becomes of it with this many slots.
    pub fn with_slots(&self, slots: u32) -> Diagnosis {
        match self.subject {
            Subject::Domain(domain) => self.diagnose_domain(domain, |domain| {
                if let Some(has) = &mut domain.slots {
                    has.value = slots;
                }
            }),
            #[cfg(feature = "cli")]
            Subject::Launch(launch) => self.diagnose_launch(launch, |launch| {
                if let Some(has) = launch.line.memory.as_mut().and_then(|memory| memory.slots.as_mut()) {
                    has.value = slots.into();
                }
            }),
        }
    }

    /// What becomes of it with an AMD CPU, and how it would get that; `None` if it has the machine's default CPU.
    pub fn with_amd_cpu(&self) -> Option<(String, Diagnosis)> {
        const MODEL: &str = "EPYC";
        let other = || format!("with an AMD CPU model such as {MODEL}");
        match self.subject {
            Subject::Domain(domain) => {
                let cpu = domain.cpu.as_ref()?;
                let (model, advice) = match &cpu.vendor_id {
                    Some(vendor) => (cpu.model.clone(), format!("without vendor_id='{}'", quoted(&vendor.value))),
                    None => (Some(Sourced { value: MODEL.to_owned(), span: cpu.span }), other()),
                };
                let amd = self.diagnose_domain(domain, |domain| {
                    if let Some(cpu) = &mut domain.cpu {
                        cpu.vendor_id = None;
                        cpu.model = model;
                    }
                });
                Some((advice, amd))
            }
            #[cfg(feature = "cli")]
            Subject::Launch(launch) => {
                let vendor = launch.line.cpu.as_ref()?.properties.value("vendor");
                let advice = vendor.map_or_else(other, |vendor| format!("without vendor={}", quoted(vendor)));
                let named = vendor.is_none();
                let amd = self.diagnose_launch(launch, |launch| {
                    if let Some(cpu) = &mut launch.line.cpu {
                        cpu.properties.remove("vendor");
                        if named {
                            cpu.model = crate::command_line::Model::Named(MODEL.to_owned());
                        }
                    }
                });
                Some((advice, amd))
            }
        }
    }
}

fn apply(change: &Change, domain: &mut Domain) {
    match change {
        Change::Machine { to, .. } => {
            let span = domain.machine.as_ref().map_or(domain.span, |machine| machine.span);
            domain.machine = Some(Sourced { value: to.clone(), span });
        }
        Change::EmulateBits(bits) => set_width(domain, MaxPhysAddrMode::Emulate, Some(*bits), None),
        Change::PassHostBits => set_width(domain, MaxPhysAddrMode::Passthrough, None, None),
        #[cfg(feature = "cli")]
        Change::PassHostBitsUpTo(limit) => set_width(domain, MaxPhysAddrMode::Passthrough, None, Some(*limit)),
        Change::PciHole64(kib) => {
            // The root controller that the rewrite writes if there is none.
            domain.pcie |= rewrite::root_is_pcie(domain.machine.as_ref().map(|machine| machine.value.as_str()));
            let span = domain.pci_hole64.map_or(domain.span, |hole| hole.span);
            domain.pci_hole64 = Some(Sourced { value: *kib, span });
        }
        Change::FreeAddress { device, .. } => {
            if let Some(device) = domain.memory_devices.get_mut(*device) {
                device.address = None;
            }
        }
        Change::DeviceAddress { device, to, .. } => {
            if let Some(address) = domain.memory_devices.get_mut(*device).and_then(|device| device.address.as_mut()) {
                address.value = *to;
            }
        }
        // Those of a command line.
        #[cfg(feature = "cli")]
        Change::PhysBits(_) | Change::HostPhysBits | Change::HostPhysBitsUpTo(_) | Change::HoleSize(_) => {}
    }
}

fn set_width(domain: &mut Domain, mode: MaxPhysAddrMode, bits: Option<u32>, limit: Option<u32>) {
    let span = domain.span;
    let cpu = domain.cpu.get_or_insert_with(|| bare_cpu(span));
    let [bits, limit] = [bits, limit].map(|number| number.map(|value| Sourced { value, span: cpu.span }));
    cpu.maxphysaddr = Some(MaxPhysAddr { mode, bits, limit, span: cpu.span });
}

/// `<cpu/>`: libvirt's default model.
fn bare_cpu(span: Span) -> CpuElement {
    CpuElement {
        mode: CpuMode::Custom,
        model: None,
        vendor_id: None,
        vendor: None,
        matching: None,
        check: None,
        fallback: None,
        features: Vec::new(),
        has_features: false,
        maxphysaddr: None,
        span,
    }
}
