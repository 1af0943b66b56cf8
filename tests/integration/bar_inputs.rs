//! The recorded placements of BARs again, from a user's input: a domain or a command line, and a host profile.

use std::fmt::Write as _;

use iova_preflight::host::Profile;
use iova_preflight::mmio64::{Likelihood, Mmio64};
use iova_preflight::policy::Policy;
use iova_preflight::report::json::GuestReport;
use iova_preflight::report::source::GuestSource;
use iova_preflight::verdict::{Evaluation, evaluate};
use iova_preflight::xml::Document;
use iova_preflight::{Call, Launch, domain};

/// The record; tests/data/README.md says what is in it.
const RECORD: &str = include_str!("../data/bars.txt");

const GIB: u64 = 1 << 30;

/// A guest of the record.
struct Row<'a> {
    line: &'a str,
    kind: &'a str,
    version: &'a str,
    machine: &'a str,
    cpu: &'a str,
    memory: &'a str,
    options: Vec<(&'a str, &'a str)>,
    devices: Vec<Device>,
    addresses: Vec<Option<u64>>,
}

/// What is on bus 0, or behind a port there.
struct Device {
    slot: u32,
    function: u32,
    behind_port: bool,
    size: Option<u64>,
}

fn number(text: &str) -> Option<u64> {
    match (text.strip_suffix('G'), text.strip_prefix("0x")) {
        (Some(gib), _) => Some(gib.parse::<u64>().ok()? * GIB),
        (_, Some(digits)) => u64::from_str_radix(digits, 16).ok(),
        _ => None,
    }
}

fn device(text: &str) -> Device {
    let (place, size) = text.split_once(['/', '=']).expect("a device");
    let (slot, function) = place.split_once('.').expect("slot and function");
    let hex = |text: &str| u32::from_str_radix(text, 16).expect("hexadecimal digits");
    Device { slot: hex(slot), function: hex(function), behind_port: text.contains('/'), size: number(size) }
}

fn rows() -> Vec<Row<'static>> {
    let row = |line: &'static str| {
        let columns: Vec<&str> = line.split(" | ").collect();
        let [head, devices, addresses] = columns[..] else { panic!("{line}") };
        let head: Vec<&str> = head.split(' ').collect();
        let [kind, version, machine, cpu, memory, options] = head[..] else { panic!("{line}") };
        let options = options.split(';').filter_map(|option| option.split_once('=')).collect();
        let devices = devices.split(' ').map(device).collect();
        let addresses = addresses.split(' ').map(number).collect();
        Row { line, kind, version, machine, cpu, memory, options, devices, addresses }
    };
    RECORD.lines().filter(|line| !line.starts_with('#')).map(row).collect()
}

impl Row<'_> {
    fn option(&self, name: &str) -> Option<&str> {
        self.options.iter().find(|(known, _)| *known == name).map(|(_, value)| *value)
    }

    /// The address of the host's function for the device with this number.
    fn host_bus(number: usize) -> String {
        format!("{:02x}", 0x40 + number)
    }

    fn profile(&self) -> Profile {
        let path = if self.kind == "ovmf" { "path = '/firmware'\n" } else { "" };
        let mut text = format!(
            "[cpu]\nvendor = 'AuthenticAMD'\nphys_bits = 52\n[qemu]\nversion = '10.0'\n[libvirt]\nversion = '11.3'\n\
             [[firmware]]\n{path}kind = '{}'\nversion = '{}'\n",
            self.kind, self.version
        );
        for (number, device) in self.devices.iter().enumerate() {
            let Some(size) = device.size.filter(|&size| size >= GIB) else { continue };
            let bars = format!("{{ index = 2, size = {size}, prefetchable = true, bits64 = true }}");
            let bus = Self::host_bus(number);
            writeln!(text, "[[pci]]\naddress = '0000:{bus}:00.0'\nbars = [{bars}]").expect("written");
        }
        Profile::from_toml(&text).expect("a profile")
    }

    /// As libvirt has it once it is defined; `None` if its XML has no words for the CPU.
    fn domain(&self) -> Option<String> {
        let (model, bits) = self.cpu.split_once(",phys-bits=")?;
        bits.parse::<u32>().ok()?;
        let mib = |text: &str| text.trim_end_matches('M').parse::<u64>().expect("MiB");
        let part = |name: &str| self.memory.split(',').find_map(|part| part.strip_prefix(name)?.strip_prefix('='));
        let ram = mib(self.memory.split(',').next().expect("RAM"));
        let (maximum, numa) = match (part("maxmem"), part("slots")) {
            (Some(maxmem), Some(slots)) => (
                format!("<maxMemory slots='{slots}' unit='MiB'>{}</maxMemory>", mib(maxmem)),
                format!("<numa><cell id='0' cpus='0' memory='{ram}' unit='MiB'/></numa>"),
            ),
            _ => Default::default(),
        };
        let loader = if self.kind == "ovmf" { "<loader readonly='yes' type='pflash'>/firmware</loader>" } else { "" };
        let option = self
            .option("X-PciMmio64Mb")
            .map(|mib| format!("<sysinfo type='fwcfg'><entry name='opt/ovmf/X-PciMmio64Mb'>{mib}</entry></sysinfo>"));
        let q35 = self.machine.contains("q35");
        let hole = self
            .option("pci-hole64-size")
            .map(|size| format!("<pcihole64 unit='GiB'>{}</pcihole64>", size.trim_end_matches('G')));
        let root = if q35 { "pcie-root" } else { "pci-root" };
        let mut devices =
            format!("<controller type='pci' index='0' model='{root}'>{}</controller>", hole.unwrap_or_default());
        for (number, device) in self.devices.iter().enumerate() {
            let Device { slot, function, .. } = device;
            let index = number + 1;
            let on_root =
                format!("<address type='pci' domain='0x0000' bus='0x00' slot='{slot:#04x}' function='{function:#x}'/>");
            let place = if device.behind_port {
                write!(devices, "<controller type='pci' index='{index}' model='pcie-root-port'>{on_root}</controller>")
                    .expect("written");
                format!("<address type='pci' domain='0x0000' bus='{index:#04x}' slot='0x00' function='0x0'/>")
            } else {
                on_root
            };
            match device.size {
                Some(GIB..) => write!(
                    devices,
                    "<hostdev mode='subsystem' type='pci' managed='yes'><source><address domain='0x0000' \
                     bus='0x{}' slot='0x00' function='0x0'/></source>{place}</hostdev>",
                    Self::host_bus(number)
                ),
                Some(_) => write!(devices, "<rng model='virtio'>{place}</rng>"),
                None => Ok(()),
            }
            .expect("written");
        }
        Some(format!(
            "<domain type='qemu'><name>g</name>{maximum}<memory unit='MiB'>{ram}</memory>\
             <os><type arch='x86_64' machine='{}'>hvm</type>{loader}</os>{}\
             <features><acpi/></features><cpu mode='custom'><model>{model}</model>\
             <maxphysaddr mode='emulate' bits='{bits}'/>{numa}</cpu><devices>{devices}\
             <controller type='usb' model='none'/><memballoon model='none'/></devices></domain>",
            self.machine,
            option.unwrap_or_default()
        ))
    }

    /// As it was measured.
    fn command_line(&self) -> String {
        let mut text = format!(
            "qemu-system-x86_64 -nodefaults -machine {},accel=tcg -cpu {} -m {}",
            self.machine, self.cpu, self.memory
        );
        if self.kind == "ovmf" {
            text += " -drive if=pflash,format=raw,unit=0,readonly=on,file=/firmware -drive if=pflash,unit=1,file=/vars";
        }
        if let Some(size) = self.option("pci-hole64-size") {
            text += &format!(" -global q35-pcihost.pci-hole64-size={size}");
        }
        if let Some(mib) = self.option("X-PciMmio64Mb") {
            text += &format!(" -fw_cfg name=opt/ovmf/X-PciMmio64Mb,string={mib}");
        }
        for (number, Device { slot, function, behind_port, size }) in self.devices.iter().enumerate() {
            if *behind_port {
                text += &format!(
                    " -device pcie-root-port,id=rp{number},bus=pcie.0,chassis={number},addr={slot:x}.{function:x}"
                );
            }
            let place = if *behind_port { format!("bus=rp{number}") } else { format!("addr={slot:x}.{function:x}") };
            match *size {
                Some(size @ GIB..) => text += &format!(" -device pci-testdev,membar={size},{place}"),
                Some(_) => text += &format!(" -device virtio-rng-pci,{place}"),
                None => {}
            }
        }
        text
    }

    /// The differences from the record.
    fn difference(&self, mmio64: Option<Mmio64>) -> Option<String> {
        let Some(mmio64) = mmio64 else { return Some(format!("{}\n    nothing is said", self.line)) };
        let sizes: Vec<u64> = self.devices.iter().filter_map(|device| device.size).collect();
        let all = |bar: usize| mmio64.bars[bar].size == sizes[bar];
        if mmio64.bars.len() != sizes.len() || !(0..sizes.len()).all(all) {
            return Some(format!("{}\n    other BARs: {:?}", self.line, mmio64.bars));
        }
        let place = |bar: usize| mmio64.place(bar).map(|(range, _)| range.map(|range| range.start));
        let right = |bar: usize| sizes[bar] < GIB || place(bar) == Some(self.addresses[bar]);
        let said = || (0..sizes.len()).map(place).collect::<Vec<_>>();
        (!(0..sizes.len()).all(right)).then(|| format!("{}\n    we say {:x?}", self.line, said()))
    }
}

/// The addresses of the host's functions in the JSON of `check`.
fn in_json(row: &Row<'_>, guest: GuestSource<'_>, evaluation: &Evaluation) -> Vec<Option<Option<u64>>> {
    let report = GuestReport::new(String::new(), guest, evaluation, None);
    let json = serde_json::to_value(report).expect("JSON");
    let bars = json["layout"]["bars"].as_array().cloned().unwrap_or_default();
    let of = |number: usize| {
        let device = format!("0000:{}:00.0", Row::host_bus(number));
        let bar = bars.iter().find(|bar| bar["device"] == device.as_str() && bar["index"] == 2)?;
        Some(bar["address"].as_u64())
    };
    let functions = row.devices.iter().enumerate().filter(|(_, device)| device.size >= Some(GIB));
    functions.map(|(number, _)| of(number)).collect()
}

/// Whether every address is reported as certain.
fn is_certain(mmio64: Option<&Mmio64>) -> bool {
    let Some(mmio64) = mmio64 else { return false };
    (0..mmio64.bars.len()).all(|bar| mmio64.place(bar).is_some_and(|(_, likelihood)| likelihood == Likelihood::Certain))
}

fn assert_same(differences: &[String], rows: usize) {
    assert!(differences.is_empty(), "{} of {rows} differ:\n{}", differences.len(), differences.join("\n"));
}

#[test]
fn domains_have_their_bars_where_they_were_measured() {
    let rows = rows();
    let mut differences = Vec::new();
    let (mut without_words, mut certain) = (0, 0);
    for row in &rows {
        let Some(xml) = row.domain() else {
            without_words += 1;
            continue;
        };
        let document = Document::parse(xml.as_bytes()).expect("well-formed");
        let domain = domain::read(&document).expect("a domain");
        let evaluation = evaluate(&domain, &row.profile().host_for(None), &Policy::default());
        let sizes = row.devices.iter().filter_map(|device| device.size);
        let measured = sizes.zip(&row.addresses).filter(|(size, _)| *size >= GIB).map(|(_, address)| Some(*address));
        let said = in_json(row, GuestSource::Xml(&document, &domain), &evaluation);
        assert_eq!(said, measured.collect::<Vec<_>>(), "{}", row.line);
        certain += usize::from(is_certain(evaluation.facts.mmio64.as_ref()));
        differences.extend(row.difference(evaluation.facts.mmio64));
    }
    assert_same(&differences, rows.len());
    assert_eq!((rows.len(), without_words), (168, 2));
    assert!(certain >= 160, "{certain} are certain");
}

#[test]
fn command_lines_have_their_bars_where_they_were_measured() {
    let rows = rows();
    let mut differences = Vec::new();
    for row in &rows {
        let text = row.command_line();
        let launch = Launch::read(&Call::read(text.as_bytes()).expect("a command line"));
        let evaluation = evaluate(&launch, &row.profile().host_for(None), &Policy::default());
        differences.extend(row.difference(evaluation.facts.mmio64));
    }
    assert_same(&differences, rows.len());
}

/// The findings for a guest with these devices, and with a profile in which every function from 0000:40:00.0 on has a
/// BAR of 64 GiB.
fn said_of(devices: &str) -> Option<Mmio64> {
    said_with("pc-q35-7.2", "kind = 'seabios'\nversion = '1.16.3'", "", devices)
}

/// The same with another machine type, firmware, and what says in a domain that it is that.
fn said_with(machine: &str, firmware: &str, os: &str, devices: &str) -> Option<Mmio64> {
    let mut profile = String::from("[cpu]\nvendor = 'AuthenticAMD'\nphys_bits = 48\n");
    writeln!(profile, "[[firmware]]\n{firmware}").expect("written");
    for function in 0..8 {
        let bars = format!("{{ index = 2, size = {}, prefetchable = true, bits64 = true }}", 64 * GIB);
        writeln!(profile, "[[pci]]\naddress = '0000:40:00.{function}'\nbars = [{bars}]").expect("written");
    }
    let xml = format!(
        "<domain type='qemu'><name>g</name><memory unit='GiB'>4</memory>\
         <os{os}><type arch='x86_64' machine='{machine}'>hvm</type></os><features><acpi/></features>\
         <cpu mode='custom'><model>EPYC</model><maxphysaddr mode='emulate' bits='40'/></cpu><devices>{devices}\
         <controller type='usb' model='none'/><memballoon model='none'/></devices></domain>"
    );
    let document = Document::parse(xml.as_bytes()).expect("well-formed");
    let domain = domain::read(&document).expect("a domain");
    let host = Profile::from_toml(&profile).expect("a profile").host_for(None).into_owned();
    evaluate(&domain, &host, &Policy::default()).facts.mmio64
}

fn host_device(function: usize, bus: usize, slot: usize) -> String {
    format!(
        "<hostdev mode='subsystem' type='pci'><source><address bus='0x40' slot='0' function='{function}'/></source>\
         <address type='pci' bus='{bus}' slot='{slot}' function='0'/></hostdev>"
    )
}

fn controller(model: &str, index: usize, bus: usize, slot: usize) -> String {
    format!(
        "<controller type='pci' index='{index}' model='{model}'>\
         <address type='pci' bus='{bus}' slot='{slot}' function='0'/></controller>"
    )
}

/// Without bridges at the end of the chain a device is nowhere; it is not one without an address.
#[test]
fn nothing_is_said_of_more_bridges_behind_one_another_than_are_looked_at() {
    let chain = |bridges: usize| {
        let first = controller("pcie-root-port", 1, 0, 4) + &controller("pcie-to-pci-bridge", 2, 1, 0);
        let others: String = (3..=bridges).map(|index| controller("pci-bridge", index, index - 1, 1)).collect();
        said_of(&(first + &others + &host_device(0, bridges, 1)))
    };
    let few = chain(4).expect("BARs");
    assert_eq!(
        few.place(0).map(|(place, likelihood)| (place.is_some(), likelihood)),
        Some((true, Likelihood::Possible))
    );
    assert_eq!(chain(20), None);
}

/// OVMF 2026.08 and SeaBIOS were seen to pass over a port at 04.1 with nothing at 04.0.
#[test]
fn nothing_is_certain_of_a_slot_without_its_first_function() {
    let certain = |first: &str| {
        let port = controller("pcie-root-port", 1, 0, 4).replace("function='0'", "function='1'");
        is_certain(said_of(&(first.to_owned() + &port + &host_device(0, 1, 0))).as_ref())
    };
    assert!(certain(&controller("pcie-root-port", 2, 0, 4).replace("function='0'", "function='0' multifunction='on'")));
    assert!(!certain(""));
}

/// SeaBIOS 1.16.3 puts every 64-bit BAR above 4 GiB: a guest of 4 GiB has it at 768 GiB, as with a BAR of any other
/// device.
#[test]
fn a_small_guest_is_looked_at_for_shared_memory_alone() {
    assert_eq!(said_of(""), None);
    let shared = "<shmem name='s'><model type='ivshmem-plain'/><size unit='GiB'>64</size></shmem>";
    let first = |devices: &str| said_of(devices).and_then(|mmio64| mmio64.place(0)?.0).map(|place| place.start / GIB);
    assert_eq!(first(shared), first(&(controller("pcie-root-port", 1, 0, 4) + &host_device(0, 1, 0))));
    assert_eq!(first(shared), Some(768));
}

/// What ports keep below 4 GiB is of no interest above, unless so much is kept that little else fits.
#[test]
fn memory_reserved_below_4_gib_leaves_bars_certain_unless_it_is_much() {
    let certain = |mib: usize| {
        let port = |index: usize| {
            let target = format!("<target memReserve='{}'/></controller>", mib << 10);
            controller("pcie-root-port", index, 0, index + 3).replace("</controller>", &target)
        };
        is_certain(said_of(&(port(1) + &port(2) + &host_device(0, 1, 0))).as_ref())
    };
    assert!(certain(16));
    assert!(!certain(100));
}

/// The names are what libvirt 11.3 writes as `id`.
#[test]
fn devices_of_shared_memory_have_names_of_their_own() {
    let shared = |name: &str, more: &str| {
        let model = "<model type='ivshmem-plain'/><size unit='GiB'>64</size>";
        format!("<shmem name='{name}'>{model}{more}</shmem>")
    };
    let devices = shared("a", "") + &shared("b", "<alias name='ua-mine'/>") + &shared("c", "");
    let names: Vec<String> = said_of(&devices).expect("BARs").bars.into_iter().map(|bar| bar.device).collect();
    assert_eq!(names, ["shmem0", "ua-mine", "shmem2"]);
}

/// Measured: with 15 ports SeaBIOS 1.16.2, 1.16.3 and 1.17.0 stop at "PCI: out of I/O address space", with 14 they do
/// not, and with 15 of other machine types neither.
#[test]
fn nothing_is_certain_of_ports_that_seabios_has_no_io_ports_for() {
    let certain = |machine: &str, count: usize| {
        let port = |index: usize| {
            let place = format!("function='{:#x}'", (index - 1) % 8);
            controller("pcie-root-port", index, 0, 4 + (index - 1) / 8).replace("function='0'", &place)
        };
        let devices: String = (1..=count).map(port).collect();
        let firmware = "kind = 'seabios'\nversion = '1.16.3'";
        is_certain(said_with(machine, firmware, "", &(devices + &host_device(0, 1, 0))).as_ref())
    };
    assert!(certain("pc-q35-6.1", 14));
    assert!(!certain("pc-q35-6.1", 15));
    assert!(certain("pc-q35-6.2", 15));
}

/// Measured with OVMF of Debian 13 and two BARs of 64 GiB: of its window of 128 GiB an empty port takes a part, unless
/// it does not say that devices can be plugged into it.
#[test]
fn ports_of_6_1_do_not_say_that_they_take_devices() {
    let devices: String = (1..=3).map(|index| controller("pcie-root-port", index, 0, index + 3)).collect();
    let devices = devices + &host_device(0, 1, 0) + &host_device(1, 2, 0);
    let placed = |machine: &str| {
        let firmware = "kind = 'ovmf'\nversion = '2025.02-8+deb13u1'";
        let mmio64 = said_with(machine, firmware, " firmware='efi'", &devices).expect("BARs");
        [0, 1].map(|bar| {
            let (place, likelihood) = mmio64.place(bar).expect("a firmware");
            (place.map(|place| place.start / GIB), likelihood)
        })
    };
    let certain = Likelihood::Certain;
    assert_eq!(placed("pc-q35-6.1"), [(Some(896), certain), (Some(960), certain)]);
    assert_eq!(placed("pc-q35-6.2"), [(Some(896), certain), (None, certain)]);
}

/// QEMU starts none of these guests.
#[test]
fn nothing_is_certain_of_guests_that_two_devices_share_a_place_in() {
    let ports = controller("pcie-root-port", 1, 0, 4) + &controller("pcie-root-port", 2, 0, 5);
    let certain = |buses: [usize; 2]| {
        let devices = ports.clone() + &host_device(0, buses[0], 0) + &host_device(1, buses[1], 0);
        is_certain(said_of(&devices).as_ref())
    };
    assert!(certain([1, 2]));
    assert!(!certain([1, 1]));
    let crowd: String = (0..1000).map(|nth| host_device(nth % 8, 1, nth % 32)).collect();
    assert_eq!(said_of(&(ports + &crowd)), None);
}

/// With 39 bits, which the IOMMU has, OVMF does not believe an AMD CPU, and its window of 32 GiB is too small: the
/// guest would lose a device that now only other devices do not reach.
#[test]
fn no_fix_loses_a_bar() {
    let rows = rows();
    let row = rows.iter().find(|row| row.line.starts_with("ovmf 2025.02-8+deb13u1 pc-i440fx-6.2 EPYC,phys-bits=40"));
    let xml = row.and_then(Row::domain).expect("a row with a BAR of 128 GiB");
    let profile = "[cpu]\nvendor = 'AuthenticAMD'\nphys_bits = 52\n[iommu]\nkind = 'amd'\naddress_bits = 39\n\
                   reserved = [{ start = 0xfd00000000, end = 0xffffffffff, type = 'reserved' }]\n\
                   [[firmware]]\npath = '/firmware'\nkind = 'ovmf'\nversion = '2025.02-8+deb13u1'\n\
                   [[pci]]\naddress = '0000:40:00.0'\n\
                   bars = [{ index = 2, size = 137438953472, prefetchable = true, bits64 = true }]";
    let document = Document::parse(xml.as_bytes()).expect("well-formed");
    let domain = domain::read(&document).expect("a domain");
    let host = Profile::from_toml(profile).expect("a profile").host_for(None).into_owned();
    let evaluation = evaluate(&domain, &host, &Policy::default());
    assert!(evaluation.findings.iter().any(|finding| finding.rule == "bar-above-iommu-width"));
    assert_eq!(evaluation.any_fix(), None);
}

/// Seconds of CPU time that this thread has taken; what others do on the machine does not count.
fn seconds_taken() -> f64 {
    let stat = std::fs::read_to_string("/proc/thread-self/stat").expect("procfs");
    let (_, fields) = stat.rsplit_once(')').expect("a name in brackets");
    // utime and stime of proc_pid_stat(5), in ticks of which Linux tells programs that there are a hundred in a second.
    let ticks = fields.split_ascii_whitespace().skip(11).take(2).map(|ticks| ticks.parse::<f64>().expect("a number"));
    ticks.sum::<f64>() / 100.0
}

/// Machine type, QEMU and firmware are unknown, so that many combinations are looked at; no width and no window that
/// the host allows holds 64 BARs of 128 GiB.
#[test]
fn a_fix_for_many_large_bars_is_not_searched_for_long() {
    const BARS: usize = 64;
    let mut profile = String::from("[cpu]\nvendor = 'AuthenticAMD'\nphys_bits = 42\n[iommu]\nkind = 'amd'\n");
    let mut devices = String::new();
    for number in 0..BARS {
        let bars = format!("{{ index = 2, size = {}, prefetchable = true, bits64 = true }}", 128 * GIB);
        writeln!(profile, "[[pci]]\naddress = '0000:{:02x}:00.0'\nbars = [{bars}]", 0x40 + number).expect("written");
        let (slot, function, bus) = (2 + number / 8, number % 8, number + 1);
        devices += &format!(
            "<controller type='pci' index='{bus}' model='pcie-root-port'>\
             <address type='pci' bus='0' slot='{slot}' function='{function}'/></controller>\
             <hostdev type='pci'><source><address bus='{:#x}' slot='0' function='0'/></source>\
             <address type='pci' bus='{bus}' slot='0' function='0'/></hostdev>",
            0x40 + number
        );
    }
    let xml = format!(
        "<domain type='kvm'><name>g</name><memory unit='GiB'>64</memory>\
         <os firmware='efi'><type arch='x86_64' machine='q35'>hvm</type></os><features><acpi/></features>\
         <cpu mode='custom'><model>EPYC</model><maxphysaddr mode='emulate' bits='40'/></cpu>\
         <devices>{devices}</devices></domain>"
    );
    let document = Document::parse(xml.as_bytes()).expect("well-formed");
    let domain = domain::read(&document).expect("a domain");
    let host = Profile::from_toml(&profile).expect("a profile").host_for(None).into_owned();
    let before = seconds_taken();
    let evaluation = evaluate(&domain, &host, &Policy::default());
    let seconds = seconds_taken() - before;
    assert!(evaluation.findings.iter().any(|finding| finding.rule == "bar-not-placed"), "{:?}", evaluation.findings);
    assert!(seconds < 10.0, "{seconds} seconds of CPU time");
}
