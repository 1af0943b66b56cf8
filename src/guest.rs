//! A guest: what libvirt and QEMU make of a domain, or QEMU of its own command line, on a host whose facts are all
//! settled.

use crate::address::GpaRange;
use crate::command_line::{Accelerator, CommandLine, Memory, Origin, Passthrough, PassthroughKind, Told};
#[cfg(feature = "cli")]
use crate::command_line::{Launch, ProcessLimit};
#[cfg(feature = "cli")]
use crate::domain::Owner;
use crate::domain::{CpuElement, Domain, HiddenDma, MaxPhysAddr, Overrides, Unseen};
use crate::host::{Host, Reserved, Unmappable};
use crate::libvirt::Refusal;
#[cfg(feature = "cli")]
use crate::libvirt::locked_memory::{self, LockLimit};
use crate::machine::MachineType;
#[cfg(feature = "cli")]
use crate::mmio64::{Mmio64, Mmio64Input};
#[cfg(feature = "cli")]
use crate::policy::PeerToPeer;
use crate::policy::Policy;
use crate::qemu::cpu::{CpuRefusal, HostCpu, Vcpu};
#[cfg(feature = "cli")]
use crate::qemu::discard::{self, Pinning};
use crate::qemu::layout::{Layout, LayoutError};
use crate::qemu::memory_backend::BackendError;
use crate::qemu::memory_device::{PlacementError, Plugged, place_of};
#[cfg(feature = "cli")]
use crate::qemu::pinned::{Pinned, pinned};
use crate::qemu::tables::TableError;
use crate::qemu::viommu;
#[cfg(feature = "cli")]
use crate::qemu::viommu::Viommu;
use crate::qemu::{self, Built};
use crate::version::Version;
use crate::xml::Span;

/// Everything that has to be known to say what QEMU builds. Unknown facts have been settled by
/// [`mod@crate::evaluate`], which remembers that it did.
#[derive(Debug, Clone, Copy)]
pub struct Setting<'a> {
    /// The host.
    pub host: &'a Host,
    /// Its CPU.
    pub cpu: HostCpu<'a>,
    /// Its QEMU.
    pub qemu: Version,
    /// The guest's machine type.
    pub machine: &'a MachineType,
}

/// The properties of a CPU that decide how wide its addresses are.
const WIDTH_PROPERTIES: [&str; 3] = ["phys-bits", "host-phys-bits", "lm"];

/// Whether DMA has to reach all of the guest's RAM.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exposure {
    /// No passthrough device.
    None,
    /// Only mediated devices, whose parent driver pins single pages: VFIO has no list of valid IOVAs then and accepts
    /// every mapping (`vfio_iommu_iova_dma_valid` in Linux `drivers/vfio/vfio_iommu_type1.c`).
    MediatedOnly,
    /// None, but the policy or the guest says there may be one.
    Assumed,
    /// A VFIO or vDPA device.
    Present,
}

/// What is evaluated: a guest as somebody wrote it down.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub enum Subject<'a> {
    /// A domain, for which libvirt writes QEMU's command line.
    Domain(&'a Domain),
    /// A QEMU that is started without libvirt.
    #[cfg(feature = "cli")]
    Launch(&'a Launch),
}

impl<'a> From<&'a Domain> for Subject<'a> {
    fn from(domain: &'a Domain) -> Self {
        Self::Domain(domain)
    }
}

#[cfg(feature = "cli")]
impl<'a> From<&'a Launch> for Subject<'a> {
    fn from(launch: &'a Launch) -> Self {
        Self::Launch(launch)
    }
}

impl<'a> Subject<'a> {
    /// The domain, if it is one.
    pub fn domain(self) -> Option<&'a Domain> {
        match self {
            Self::Domain(domain) => Some(domain),
            #[cfg(feature = "cli")]
            Self::Launch(_) => None,
        }
    }

    /// The guest's name; empty if it has none.
    #[cfg(feature = "cli")]
    pub fn name(self) -> &'a str {
        match self {
            Self::Domain(domain) => &domain.name,
            Self::Launch(launch) => &launch.name,
        }
    }

    /// The machine type that is asked for.
    #[cfg(feature = "cli")]
    pub fn machine(self) -> Option<&'a str> {
        match self {
            Self::Domain(domain) => domain.machine.as_ref().map(|machine| machine.value.as_str()),
            Self::Launch(launch) => launch.line.machine.kind.as_ref().map(|kind| kind.value.as_str()),
        }
    }

    /// Who writes its definition or its command line anew at each start.
    #[cfg(feature = "cli")]
    pub fn owner(self) -> Option<Owner> {
        match self {
            Self::Domain(domain) => domain.ownership.as_ref().map(|ownership| ownership.owner),
            Self::Launch(_) => self.machine().and_then(Owner::of_machine),
        }
    }

    /// The place of all of it.
    pub fn span(self) -> Span {
        match self {
            Self::Domain(domain) => domain.span,
            #[cfg(feature = "cli")]
            Self::Launch(launch) => launch.span,
        }
    }

    /// The place that names the machine type, where one does.
    pub fn machine_span(self) -> Option<Span> {
        match self {
            Self::Domain(domain) => domain.machine.as_ref().map(|machine| machine.span),
            #[cfg(feature = "cli")]
            Self::Launch(launch) => launch.line.machine.kind.as_ref().map(|kind| kind.origin.span()),
        }
    }

    /// The QEMU that it names.
    #[cfg(feature = "cli")]
    pub fn emulator(self) -> Option<&'a str> {
        match self {
            Self::Domain(domain) => domain.emulator.as_ref().map(|emulator| emulator.value.as_str()),
            Self::Launch(launch) => launch.program.as_deref(),
        }
    }

    /// Its passthrough devices, but for those that a network hands out.
    #[cfg(feature = "cli")]
    pub fn passthrough(self) -> Vec<Passthrough> {
        match self {
            Self::Domain(domain) => crate::libvirt::passthrough(domain),
            Self::Launch(launch) => launch.line.passthrough(),
        }
    }

    /// Whether libvirt has QEMU lock all of its memory.
    #[cfg(feature = "cli")]
    fn locks_memory(self) -> bool {
        self.domain().is_some_and(|domain| domain.locked_memory.locked)
    }

    /// What the process that runs it may lock, where that is what was looked at.
    #[cfg(feature = "cli")]
    fn lock_limit(self) -> Option<ProcessLimit> {
        match self {
            Self::Domain(_) => None,
            Self::Launch(launch) => launch.lock_limit,
        }
    }

    /// How much memory it may come to have, in bytes, as far as that is written down.
    #[cfg(feature = "cli")]
    pub fn most_memory(self) -> u64 {
        match self {
            Self::Domain(domain) => {
                let told = domain.memory.iter().chain(&domain.max_memory).map(|size| size.value).max().unwrap_or(0);
                // If there are cells, they are the memory (`virDomainDefSetMemoryTotal` of libvirt
                // `src/conf/domain_postparse.c`).
                let cells = domain.numa_cells.iter().fold(0_u64, |sum, cell| sum.saturating_add(cell.value));
                told.max(cells).saturating_mul(1024)
            }
            Self::Launch(launch) => {
                let memory = launch.line.memory;
                let size = memory.map_or(0, |memory| memory.size.value);
                size.max(memory.and_then(|memory| memory.maxmem).map_or(0, |maxmem| maxmem.value))
            }
        }
    }

    /// Who refuses a machine type that is not there.
    pub fn refuser(self) -> &'static str {
        match self {
            Self::Domain(_) => "libvirt refuses the guest",
            #[cfg(feature = "cli")]
            Self::Launch(_) => "QEMU refuses to start",
        }
    }

    /// Whether the policy or the guest says that there may be a passthrough device that is not seen.
    fn expects_passthrough(self, policy: &Policy) -> bool {
        match self.domain() {
            Some(domain) => policy.expects_passthrough(&domain.overrides),
            None => policy.expects_passthrough(&Overrides::default()),
        }
    }
}

/// What libvirt and QEMU make of a guest.
#[derive(Debug)]
pub struct Guest<'a> {
    /// What it is made of.
    pub subject: Subject<'a>,
    /// The domain, where libvirt starts it.
    pub domain: Option<&'a Domain>,
    /// The settled facts.
    pub setting: Setting<'a>,
    /// What QEMU is told; without the parts that libvirt refuses to write.
    pub line: &'a CommandLine,
    /// What libvirt refuses.
    pub refusals: &'a [Refusal],
    /// The CPU, or why QEMU refuses it; `None` if libvirt refuses.
    pub cpu: Option<Result<Vcpu, CpuRefusal>>,
    /// RAM without memory devices, in bytes.
    pub ram: u64,
    /// `pci-hole64-size`, bytes, where it is told one.
    pub pci_hole64_size: Option<Told<u64>>,
    /// The map; `None` if libvirt or QEMU refuses before there is one.
    pub layout: Option<Result<Layout, LayoutError>>,
    /// The memory devices in the device memory region, in the order QEMU gets them; or the index in
    /// [`CommandLine::devices`] of the one QEMU refuses.
    pub plugged: Result<Vec<Plugged>, (usize, PlacementError)>,
    /// Why QEMU refuses the `-m` options, if it does.
    pub memory_refusal: Option<String>,
    /// The piece of memory that QEMU or KVM refuses, if one does, and the place that decides.
    pub backend_refusal: Option<(BackendError, Origin)>,
    /// Why QEMU cannot describe the map to the firmware.
    pub table_refusal: Option<TableError>,
    /// The passthrough devices.
    pub passthrough: Vec<Passthrough>,
    /// Devices that may be such, which neither the domain nor the command line tells.
    pub hidden_dma: Vec<HiddenDma>,
    /// Whether DMA has to reach all RAM.
    pub exposure: Exposure,
    /// What the host does not map for this guest's devices.
    pub unmappable: Vec<Unmappable>,
    /// Whether VFIO maps none of its memory before the guest says so.
    pub hides_memory: bool,
    /// Its virtual IOMMU.
    #[cfg(feature = "cli")]
    pub viommu: Option<Viommu>,
    /// Where its 64-bit BARs may be; `None` if nothing is known of them.
    #[cfg(feature = "cli")]
    pub mmio64: Option<Mmio64>,
    /// The virtio-mem device that QEMU refuses, and why.
    #[cfg(feature = "cli")]
    pub discard_refused: Option<(Origin, Pinning)>,
    /// What is pinned for its devices.
    #[cfg(feature = "cli")]
    pub pinned: Pinned,
    /// How much of it may be; `None` if that is unknown.
    #[cfg(feature = "cli")]
    pub lock_limit: Option<LockLimit>,
    /// The limit of the process that runs it.
    #[cfg(feature = "cli")]
    pub process_limit: Option<ProcessLimit>,
    /// What libvirt would compute as the limit if it was not told one, in bytes.
    #[cfg(feature = "cli")]
    pub computed_lock_limit: Option<u64>,
    /// Whether the policy says that devices have to reach one another's BARs.
    #[cfg(feature = "cli")]
    pub needs_peer_to_peer: bool,
}

impl<'a> Guest<'a> {
    /// Works the guest out that QEMU is told of by `line`, unless libvirt has refused to write it.
    pub fn new(
        subject: Subject<'a>,
        line: &'a CommandLine,
        refusals: &'a [Refusal],
        setting: Setting<'a>,
        policy: &Policy,
    ) -> Self {
        let guest = Self::without_bars(subject, line, refusals, setting, policy);
        #[cfg(feature = "cli")]
        let guest = Self { mmio64: guest.place_bars(), ..guest };
        guest
    }

    /// The same without a look at its BARs.
    pub fn without_bars(
        subject: Subject<'a>,
        line: &'a CommandLine,
        refusals: &'a [Refusal],
        setting: Setting<'a>,
        policy: &Policy,
    ) -> Self {
        let Built { cpu, ram, memory_refusal, backend_refusal, table_refusal, pci_hole64_size, layout, plugged } =
            qemu::build(line, setting.machine, setting.cpu, setting.qemu);
        // Of a line that libvirt does not write to its end, QEMU sees nothing.
        let starts = refusals.is_empty();
        let passthrough = line.passthrough();
        // vhost-vdpa listens to all of memory by itself.
        let hides_memory = viommu::hides_memory_at_start(line)
            && passthrough.iter().all(|device| device.kind != PassthroughKind::VhostVdpa);
        #[cfg(feature = "cli")]
        let pinned = match &plugged {
            Ok(plugged) if starts => pinned_for(subject, line, ram, plugged),
            _ => Pinned::default(),
        };
        // Most guests have nothing that locks memory.
        #[cfg(feature = "cli")]
        let locking = subject.domain().filter(|_| pinned != Pinned::default());
        Self {
            subject,
            domain: subject.domain(),
            setting,
            line,
            refusals,
            cpu: (starts || line.cpu.is_some()).then_some(cpu),
            ram,
            pci_hole64_size,
            layout: layout.filter(|_| starts),
            plugged: if starts { plugged } else { Ok(Vec::new()) },
            backend_refusal: backend_refusal.filter(|_| starts),
            table_refusal: table_refusal.filter(|_| starts),
            memory_refusal: memory_refusal.filter(|_| starts || line.memory.is_some()),
            exposure: exposure(&passthrough, subject.expects_passthrough(policy)),
            unmappable: setting.host.unmappable(passthrough.iter().map(|device| device.device.as_str())),
            passthrough,
            hides_memory,
            #[cfg(feature = "cli")]
            viommu: Viommu::of(
                subject.domain().and_then(crate::libvirt::virtual_iommu).as_ref(),
                line,
                setting.machine,
            ),
            #[cfg(feature = "cli")]
            mmio64: None,
            #[cfg(feature = "cli")]
            discard_refused: discard::refused(line, setting.qemu, subject.locks_memory()).filter(|_| starts),
            #[cfg(feature = "cli")]
            pinned,
            #[cfg(feature = "cli")]
            lock_limit: locking.and_then(|domain| locked_memory::limit(domain, setting.host)),
            #[cfg(feature = "cli")]
            process_limit: subject.lock_limit(),
            #[cfg(feature = "cli")]
            computed_lock_limit: locking.and_then(|domain| locked_memory::computed(domain, setting.host)?),
            #[cfg(feature = "cli")]
            needs_peer_to_peer: policy.peer_to_peer == PeerToPeer::Required,
            hidden_dma: hidden_dma(subject, line),
        }
    }

    #[cfg(feature = "cli")]
    fn place_bars(&self) -> Option<Mmio64> {
        let Setting { host, qemu, machine, .. } = self.setting;
        let (cpu, layout) = (self.cpu()?, self.layout()?);
        Mmio64::of(Mmio64Input { line: self.line, host, qemu, machine, cpu, layout })
    }

    /// What runs the CPU.
    pub fn accelerator(&self) -> Accelerator {
        self.line.accelerator()
    }

    /// `-m`, where libvirt writes it.
    pub fn memory(&self) -> Option<&Memory> {
        self.line.memory.as_ref()
    }

    /// The place that says how much RAM there is, where libvirt writes it.
    pub fn ram_span(&self) -> Option<Span> {
        let told = self.line.memory.map(|memory| memory.size.origin.span());
        // QEMU takes the size of the back end where `-m` does not tell one.
        let backend = || self.line.machine.memory_backend.as_ref().and_then(|id| self.line.backend(id));
        let bare = || backend().map_or(self.whole(), |backend| backend.size.origin.span());
        told.or_else(|| self.domain.is_none().then(bare))
    }

    /// The place of the guest as a whole, for what no part of it decides.
    pub fn whole(&self) -> Span {
        self.subject.span()
    }

    /// The place that says how much memory there may be, where one does.
    pub fn maxmem_span(&self) -> Option<Span> {
        self.line.memory.and_then(|memory| memory.maxmem).map(|maxmem| maxmem.origin.span())
    }

    /// The place that names the machine type, or the domain.
    pub fn machine_span(&self) -> Span {
        self.line.machine.kind.as_ref().map_or(self.whole(), |kind| kind.origin.span())
    }

    /// The place that decides about the CPU's vendor, where one does.
    pub fn vendor_span(&self) -> Option<Span> {
        if let Some(vendor) = self.line.cpu_property("vendor") {
            return Some(vendor.origin.span());
        }
        let raw = self.line.cpu.as_ref().map(|cpu| cpu.origin).filter(|&origin| self.is_raw(origin));
        let written = || {
            let cpu = self.domain?.cpu.as_ref()?;
            Some(cpu.model.as_ref().map_or(cpu.span, |model| model.span))
        };
        raw.map(Origin::span).or_else(written)
    }

    /// The raw QEMU argument that decides how wide the CPU's addresses are, where one does.
    pub fn raw_width_span(&self) -> Option<Span> {
        let asked = WIDTH_PROPERTIES.iter().find_map(|name| self.line.cpu_property(name));
        let origin = asked.map(|property| property.origin).or(self.line.cpu.as_ref().map(|cpu| cpu.origin))?;
        self.is_raw(origin).then(|| origin.span())
    }

    /// Whether QEMU is told anything of how wide the CPU's addresses are.
    pub fn is_width_told(&self) -> bool {
        WIDTH_PROPERTIES.iter().any(|name| self.line.cpu_property(name).is_some())
    }

    /// `<cpu>`, where a domain has it.
    pub fn cpu_element(&self) -> Option<&'a CpuElement> {
        self.domain?.cpu.as_ref()
    }

    /// `<maxphysaddr>`, where a domain has it.
    pub fn maxphysaddr(&self) -> Option<&'a MaxPhysAddr> {
        self.cpu_element()?.maxphysaddr.as_ref()
    }

    /// Whether it is one of Windows: the domain says so, or QEMU is told to be like Microsoft's hypervisor, which
    /// libvirt and Proxmox do for Windows.
    pub fn is_windows(&self) -> bool {
        let mut properties = self.line.cpu.iter().flat_map(|cpu| cpu.properties.iter());
        let enlightened = || properties.any(|property| property.name.starts_with("hv-") && property.value != "off");
        self.domain.map_or_else(enlightened, |domain| domain.windows)
    }

    fn is_raw(&self, origin: Origin) -> bool {
        self.domain.is_none_or(|domain| domain.raw_args.iter().any(|argument| Origin::Xml(argument.span) == origin))
    }

    /// The place that decides where the memory device with that index in [`CommandLine::devices`] lies.
    pub fn device_span(&self, device: usize) -> Span {
        place_of(self.line, device).map_or(self.whole(), |origin| origin.span())
    }

    /// The map, if there is one.
    pub fn layout(&self) -> Option<&Layout> {
        self.layout.as_ref().and_then(|layout| layout.as_ref().ok())
    }

    /// The CPU, where QEMU makes one.
    pub fn cpu(&self) -> Option<&Vcpu> {
        self.cpu.as_ref().and_then(|cpu| cpu.as_ref().ok())
    }

    /// The parts of `range` that the host does not map, and why.
    pub fn collisions(&self, range: GpaRange) -> impl Iterator<Item = (GpaRange, Unmappable)> {
        self.unmappable.iter().filter_map(move |unmappable| Some((range.intersection(unmappable.range)?, *unmappable)))
    }

    /// The parts of `range` that the host's IOMMU reserves, with the reserved range each belongs to.
    pub fn in_reserved(&self, range: GpaRange) -> impl Iterator<Item = (GpaRange, Unmappable)> {
        self.collisions(range).filter(|(_, unmappable)| unmappable.reserved().is_some())
    }

    /// The part of `range` above the addresses that the host's IOMMU translates.
    pub fn above_width(&self, range: GpaRange) -> Option<(GpaRange, Unmappable)> {
        self.collisions(range).find(|(_, unmappable)| unmappable.width().is_some())
    }

    /// The ranges that the host's IOMMU reserves for this guest's devices.
    pub fn reserved(&self) -> impl Iterator<Item = Reserved> {
        self.unmappable.iter().filter_map(|unmappable| unmappable.reserved())
    }

    /// How many address bits the host's IOMMU translates for this guest's devices.
    pub fn iommu_bits(&self) -> Option<u32> {
        self.unmappable.iter().find_map(|unmappable| unmappable.width())
    }
}

/// What is pinned for the devices of a guest with that much RAM.
#[cfg(feature = "cli")]
fn pinned_for(subject: Subject<'_>, line: &CommandLine, ram: u64, plugged: &[Plugged]) -> Pinned {
    let domain = subject.domain();
    let nvme_disks = domain.map_or(0, |domain| domain.locked_memory.nvme_disks);
    pinned(line, ram, plugged, nvme_disks, domain.is_some_and(|domain| domain.iommu.is_some()))
}

/// What the domain has of its own, and what raw QEMU arguments add.
fn hidden_dma(subject: Subject<'_>, line: &CommandLine) -> Vec<HiddenDma> {
    let processes = line.foreign_processes();
    let processes = processes.map(|(protocol, origin)| HiddenDma {
        unseen: Unseen::Process(protocol),
        #[cfg(feature = "cli")]
        failover: None,
        span: origin.span(),
    });
    let of_domain = subject.domain().into_iter().flat_map(|domain| domain.hidden_dma.iter().cloned());
    of_domain.chain(processes).collect()
}

fn exposure(devices: &[Passthrough], assumed: bool) -> Exposure {
    let mediated = devices.iter().all(|device| device.kind == PassthroughKind::VfioMdev);
    match (devices.is_empty(), mediated) {
        (false, false) => Exposure::Present,
        _ if assumed => Exposure::Assumed,
        (false, true) => Exposure::MediatedOnly,
        (true, _) => Exposure::None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain;
    use crate::xml::Document;

    #[test]
    fn numa_cells_count_for_how_large_a_guest_may_be() {
        let cell = |id: u32| format!("<cell id='{id}' memory='400' unit='GiB'/>");
        let xml = format!(
            "<domain type='kvm'><name>a</name><memory unit='GiB'>1</memory><cpu><numa>{}{}</numa></cpu></domain>",
            cell(0),
            cell(1)
        );
        let domain = domain::read(&Document::parse(xml.as_bytes()).expect("well-formed")).expect("a domain");
        assert_eq!(Subject::from(&domain).most_memory(), 800 << 30);
    }
}
