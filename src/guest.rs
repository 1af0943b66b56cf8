//! A guest: what libvirt and QEMU make of a domain on a host whose facts are all settled.

use crate::address::GpaRange;
use crate::domain::{Domain, MemoryDevice, MemoryModel, PassthroughKind};
use crate::host::{Host, Reserved};
use crate::libvirt::{self, Memory, Refusal};
use crate::machine::MachineType;
use crate::policy::Policy;
use crate::qemu::cpu::{Accelerator, Cpu, CpuOptions, CpuRefusal, HostCpu};
use crate::qemu::layout::{Layout, LayoutError, LayoutInput};
use crate::qemu::memory_device::{self, DEFAULT_ALIGNMENT, FILE_ALIGNMENT, PlacementError, Request};
use crate::version::Version;

/// Everything that has to be known to say what QEMU builds. Unknown facts have been settled by
/// [`crate::evaluate`], which remembers that it did.
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

/// What libvirt and QEMU make of a domain.
#[derive(Debug)]
pub struct Guest<'a> {
    /// The domain.
    pub domain: &'a Domain,
    /// The settled facts.
    pub setting: Setting<'a>,
    /// What runs the CPU.
    pub accelerator: Accelerator,
    /// `-cpu`, or why libvirt refuses it.
    pub cpu_options: Result<CpuOptions, Refusal>,
    /// The CPU, or why QEMU refuses it; `None` where libvirt refuses.
    pub cpu: Option<Result<Cpu, CpuRefusal>>,
    /// `-m` and the sizes of memory devices, or why libvirt refuses them.
    pub memory: Result<Memory, Refusal>,
    /// `pci-hole64-size`, bytes, where libvirt passes it.
    pub pci_hole64_size: Option<u64>,
    /// The map; `None` where libvirt or QEMU refuses before there is one.
    pub layout: Option<Result<Layout, LayoutError>>,
    /// Where memory devices land, in document order without those outside the device memory region; or the index in
    /// [`Domain::memory_devices`] of the one QEMU refuses.
    pub plugged: Result<Vec<(MemoryModel, GpaRange)>, (usize, PlacementError)>,
    /// Whether DMA has to reach all RAM.
    pub exposure: Exposure,
    /// The ranges in which the host maps nothing for this guest's devices.
    pub unmappable: Vec<Reserved>,
}

impl<'a> Guest<'a> {
    /// Works the domain out.
    pub fn new(domain: &'a Domain, setting: Setting<'a>, policy: &Policy) -> Self {
        let libvirt_version = setting.host.libvirt;
        let kvm = domain.hypervisor.as_ref().is_some_and(|h| h.value == "kvm");
        let accelerator = if kvm { Accelerator::Kvm } else { Accelerator::Tcg };
        let cpu_options = libvirt::cpu_options(domain.cpu.as_ref(), accelerator, libvirt_version);
        let cpu = cpu_options.as_ref().ok().map(|options| {
            Cpu::realize(options, accelerator, setting.cpu, setting.qemu, setting.machine.host_phys_bits_limit)
        });
        let memory = libvirt::memory(domain, libvirt_version);
        let pci_hole64_size = domain.pci_hole64.and_then(|hole| hole.value.checked_mul(1024));
        let layout = match (&cpu, &memory) {
            // QEMU refuses slots without room before it makes a CPU, everything else only after the map is laid out.
            (Some(Ok(cpu)), Ok(memory)) if !slots_without_room(memory) => Some(Layout::plan(&LayoutInput {
                machine: setting.machine,
                qemu: setting.qemu,
                amd: cpu.is_amd(),
                long_mode: cpu.long_mode,
                phys_bits: cpu.phys_bits,
                ram: memory.ram,
                maxmem: memory.maxmem.unwrap_or(memory.ram),
                slots: memory.slots,
                pci_hole64_size,
            })),
            _ => None,
        };
        let plugged = match (&layout, &memory) {
            (Some(Ok(layout)), Ok(memory)) => plug(domain, layout, memory, libvirt_version),
            _ => Ok(Vec::new()),
        };
        let exposure = exposure(domain, policy);
        Self {
            unmappable: unmappable(domain, setting.host),
            domain,
            setting,
            accelerator,
            cpu_options,
            cpu,
            memory,
            pci_hole64_size,
            layout,
            plugged,
            exposure,
        }
    }

    /// The map, where there is one.
    pub fn layout(&self) -> Option<&Layout> {
        self.layout.as_ref().and_then(|layout| layout.as_ref().ok())
    }

    /// The CPU, where QEMU makes one.
    pub fn cpu(&self) -> Option<&Cpu> {
        self.cpu.as_ref().and_then(|cpu| cpu.as_ref().ok())
    }

    /// The parts of `range` in which the host maps nothing, with the reserved range each belongs to.
    pub fn collisions(&self, range: GpaRange) -> impl Iterator<Item = (GpaRange, Reserved)> {
        self.unmappable.iter().filter_map(move |reserved| Some((range.intersection(reserved.range)?, *reserved)))
    }

    /// Why QEMU refuses the `-m` options, if it does.
    pub fn hotplug_refusal(&self) -> Option<String> {
        self.memory.as_ref().ok().and_then(|memory| hotplug_refusal(self.domain, self.setting.machine, memory))
    }
}

fn slots_without_room(memory: &Memory) -> bool {
    memory.slots > 0 && memory.maxmem == Some(memory.ram)
}

/// QEMU 7.2 to 11.1: `machine_set_mem` and `machine_parse_memory` (`hw/core/machine.c`), `pc_memory_init` and
/// `pc_memory_pre_plug` (`hw/i386/pc.c`).
fn hotplug_refusal(domain: &Domain, machine: &MachineType, memory: &Memory) -> Option<String> {
    memory.maxmem?;
    if slots_without_room(memory) {
        return Some("there are memory slots, but <maxMemory> is no more than the initial memory".to_owned());
    }
    if !machine.has_reserved_memory() {
        return Some(format!("machine type {} has no memory hotplug", machine.name));
    }
    if memory.slots > memory_device::MAX_SLOTS {
        return Some(format!("{} memory slots, QEMU has at most {}", memory.slots, memory_device::MAX_SLOTS));
    }
    let dimm = domain.memory_devices.iter().any(|d| matches!(d.model, MemoryModel::Dimm | MemoryModel::Nvdimm));
    (dimm && !domain.acpi).then(|| "a DIMM needs <features><acpi/></features>".to_owned())
}

/// Far more than the 256 slots for DIMMs and the PCI addresses for virtio devices that QEMU has.
const MAX_MEMORY_DEVICES: usize = 4096;

fn plug(
    domain: &Domain,
    layout: &Layout,
    memory: &Memory,
    libvirt: Option<Version>,
) -> Result<Vec<(MemoryModel, GpaRange)>, (usize, PlacementError)> {
    let devices: Vec<(usize, &MemoryDevice)> = window_devices(domain).collect();
    let Some(&(first, _)) = devices.first() else { return Ok(Vec::new()) };
    if devices.len() > MAX_MEMORY_DEVICES {
        return Err((first, PlacementError::TooMany(devices.len())));
    }
    for &(index, device) in devices.iter().filter(|(_, device)| device.model == MemoryModel::VirtioMem) {
        let block = device.block_kib.map_or(DEFAULT_ALIGNMENT, |kib| kib.saturating_mul(1024));
        if !memory.devices[index].is_multiple_of(block) {
            return Err((index, PlacementError::NotInBlocks { block }));
        }
    }
    let mut requests = Vec::with_capacity(devices.len());
    for &(index, device) in &devices {
        let request = request(domain, device, memory.devices[index], libvirt).map_err(|error| (index, error))?;
        requests.push(request);
    }
    let total = memory.maxmem.unwrap_or(memory.ram) - memory.ram;
    let Some(window) = layout.device_memory else {
        return Err((first, PlacementError::NotEnoughSpace { used: 0, total }));
    };
    let ranges = memory_device::place(window, total, &requests).map_err(|(nth, error)| (devices[nth].0, error))?;
    Ok(devices.iter().map(|(_, device)| device.model).zip(ranges).collect())
}

/// The memory devices that are plugged into the device memory region, in the order QEMU gets them.
pub(crate) fn window_devices(domain: &Domain) -> impl Iterator<Item = (usize, &MemoryDevice)> {
    domain.memory_devices.iter().enumerate().filter(|(_, device)| device.model != MemoryModel::SgxEpc)
}

/// What libvirt asks QEMU to plug (`qemuBuildMemoryBackendProps` and `qemuBuildMemoryDeviceProps` in libvirt
/// `src/qemu/qemu_command.c`).
fn request(
    domain: &Domain,
    device: &MemoryDevice,
    size: u64,
    libvirt: Option<Version>,
) -> Result<Request, PlacementError> {
    /// The first libvirt known to pass a virtio device's address on.
    const VIRTIO_ADDRESS_SINCE: Version = Version::new(9, 4);
    let bytes = |kib: Option<u64>| kib.and_then(|kib| kib.checked_mul(1024)).filter(|bytes| bytes.is_power_of_two());
    let virtio = matches!(device.model, MemoryModel::VirtioMem | MemoryModel::VirtioPmem);
    let address = device.address.filter(|_| !virtio || libvirt.is_none_or(|version| version >= VIRTIO_ADDRESS_SINCE));
    let address = address.map(|address| address.value);
    let alignment = match device.model {
        MemoryModel::VirtioMem => bytes(device.block_kib).unwrap_or(0).max(DEFAULT_ALIGNMENT),
        MemoryModel::VirtioPmem => FILE_ALIGNMENT,
        MemoryModel::Nvdimm => bytes(device.align_kib).unwrap_or(FILE_ALIGNMENT),
        MemoryModel::Dimm | MemoryModel::SgxEpc => {
            let huge_page = bytes(device.page_kib.or(domain.hugepage_kib)).filter(|&page| page > FILE_ALIGNMENT);
            let cell = device.node.and_then(|node| domain.cells_with_access.get(node.value as usize));
            let file = domain.file_backed || device.has_access || cell.is_some_and(|&has_access| has_access);
            huge_page.unwrap_or(if file { FILE_ALIGNMENT } else { DEFAULT_ALIGNMENT })
        }
    };
    if device.model != MemoryModel::Nvdimm {
        return Ok(Request { size, alignment, address });
    }
    // The label lies behind the memory, which is rounded down (QEMU `nvdimm_prepare_memory_region`).
    let label = device.label_kib.unwrap_or(0).saturating_mul(1024);
    match size.saturating_sub(label) & !(alignment - 1) {
        0 => Err(PlacementError::NothingButLabel { alignment }),
        size => Ok(Request { size, alignment, address }),
    }
}

fn exposure(domain: &Domain, policy: &Policy) -> Exposure {
    let assumed = policy.expects_passthrough(&domain.overrides);
    let mediated = domain.passthrough.iter().all(|device| device.kind == PassthroughKind::VfioMdev);
    match (domain.passthrough.is_empty(), mediated) {
        (false, false) => Exposure::Present,
        _ if assumed => Exposure::Assumed,
        (false, true) => Exposure::MediatedOnly,
        (true, _) => Exposure::None,
    }
}

fn unmappable(domain: &Domain, host: &Host) -> Vec<Reserved> {
    if domain.passthrough.is_empty() {
        return host.unmappable();
    }
    let mut all: Vec<Reserved> =
        domain.passthrough.iter().flat_map(|device| host.unmappable_for(&device.device)).collect();
    all.sort_unstable();
    all.dedup();
    all
}
