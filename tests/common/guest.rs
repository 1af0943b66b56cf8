//! Guests as XML. None has a disk and all are emulated, so that they run on any machine.

/// A guest.
#[derive(Debug, Clone)]
pub struct Guest {
    pub name: String,
    uuid: String,
    metadata: String,
    machine: &'static str,
    memory_mib: u64,
    cpu: String,
    maximum: &'static str,
    devices: &'static str,
}

/// More than what lies below the HyperTransport range: 1.2 TB.
pub const HUGE_MIB: u64 = 1200 * 1024;

impl Guest {
    /// A guest that fits anywhere.
    pub fn small(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            uuid: String::new(),
            metadata: String::new(),
            machine: "pc-q35-6.2",
            memory_mib: 64,
            cpu: epyc(""),
            maximum: "",
            devices: "",
        }
    }

    /// A guest whose RAM does not fit below the HyperTransport range, with phys-bits to spare.
    pub fn huge(name: &str, machine: &'static str) -> Self {
        Self { machine, memory_mib: HUGE_MIB, ..Self::small(name) }.with_phys_bits(42)
    }

    /// A guest with little memory, one DIMM of which lies in the HyperTransport range. It fails only with a device.
    pub fn with_dimm_in_hole(name: &str) -> Self {
        const IN_HOLE: &str = "<memory model='dimm'><target><size unit='MiB'>128</size><node>0</node></target>\
                               <address type='dimm' slot='0' base='0xfd00000000'/></memory>";
        Self::with_dimm(name, IN_HOLE)
    }

    /// The same, but the DIMM lies at 600 GiB, which takes 40 address bits.
    pub fn with_dimm_above_39_bits(name: &str) -> Self {
        const ABOVE: &str = "<memory model='dimm'><target><size unit='MiB'>128</size><node>0</node></target>\
                             <address type='dimm' slot='0' base='0x9600000000'/></memory>";
        Self::with_dimm(name, ABOVE)
    }

    fn with_dimm(name: &str, dimm: &'static str) -> Self {
        let cell = "<numa><cell id='0' cpus='0' memory='128' unit='MiB'/></numa>";
        Self {
            memory_mib: 256,
            cpu: epyc(&format!("<maxphysaddr mode='emulate' bits='42'/>{cell}")),
            maximum: "<maxMemory slots='2' unit='GiB'>1100</maxMemory>",
            devices: dimm,
            ..Self::small(name)
        }
    }

    /// The same with this machine type.
    pub fn with_machine(self, machine: &'static str) -> Self {
        Self { machine, ..self }
    }

    /// The same with this many phys-bits.
    pub fn with_phys_bits(self, bits: u32) -> Self {
        Self { cpu: epyc(&format!("<maxphysaddr mode='emulate' bits='{bits}'/>")), ..self }
    }

    /// The same with this `<cpu>`.
    pub fn with_cpu(self, cpu: &str) -> Self {
        Self { cpu: cpu.to_owned(), ..self }
    }

    /// The same with a PCI function of the host. libvirt asks its hooks before it looks for the device.
    pub fn with_hostdev(self) -> Self {
        let devices = "<hostdev mode='subsystem' type='pci' managed='no'><driver name='vfio'/><source>\
                       <address domain='0x0000' bus='0x41' slot='0x10' function='0x1'/></source></hostdev>";
        Self { devices, ..self }
    }

    /// The same with a UUID that follows from its name. Without one it cannot be redefined.
    pub fn with_uuid(self) -> Self {
        let hex: String = self.name.bytes().chain(std::iter::repeat(0)).take(6).map(|b| format!("{b:02x}")).collect();
        Self { uuid: format!("<uuid>c0ffee00-0000-4000-8000-{hex}</uuid>"), ..self }
    }

    /// The same with this in its `<metadata>`.
    pub fn with_metadata(self, inside: &str) -> Self {
        Self { metadata: format!("\n  <metadata>{inside}</metadata>"), ..self }
    }

    /// The domain XML.
    pub fn xml(&self) -> String {
        let Self { name, uuid, metadata, machine, memory_mib, cpu, maximum, devices } = self;
        format!(
            "<domain type='qemu'>\n  <name>{name}</name>{uuid}{metadata}\n  <memory unit='MiB'>{memory_mib}</memory>\n  {maximum}\n  \
             <vcpu>1</vcpu>\n  <os><type arch='x86_64' machine='{machine}'>hvm</type></os>\n  \
             <features><acpi/></features>\n  {cpu}\n  <devices>\n    {devices}\n    \
             <controller type='usb' model='none'/>\n    <memballoon model='none'/>\n  </devices>\n</domain>\n"
        )
    }
}

fn epyc(inside: &str) -> String {
    format!("<cpu mode='custom' check='none'><model>EPYC</model>{inside}</cpu>")
}
