//! What a message says in numbers: addresses, sizes, error numbers, devices.

use std::borrow::Cow;

use crate::address::GpaRange;
use crate::text;

/// The range that AMD's IOMMU driver reserves for HyperTransport (drivers/iommu/amd/iommu.c, HT_RANGE_START and
/// HT_RANGE_END).
pub const HYPERTRANSPORT: GpaRange = GpaRange::inclusive(0xfd_0000_0000, 0xff_ffff_ffff);
/// The range of x86's message signalled interrupts, which both IOMMU drivers reserve (drivers/iommu/amd/iommu.c,
/// MSI_RANGE_START and MSI_RANGE_END; drivers/iommu/intel/iommu.c, IOAPIC_RANGE_START and IOAPIC_RANGE_END).
pub const INTERRUPTS: GpaRange = GpaRange::inclusive(0xfee0_0000, 0xfeef_ffff);
/// The first address beyond what the narrowest IOMMU in use addresses: 39 bits, those of Intel's client processors
/// (MGAW in the capability register, VT-d specification 11.4.2) and QEMU's default for a virtual one
/// (hw/i386/intel_iommu.c, VTD_HOST_AW_39BIT).
pub const NARROWEST_IOMMU: u64 = 1 << 39;

/// The kernel's error numbers that VFIO and KVM give, with the words of the C library (glibc 2.36).
const ERRORS: [(i32, &str); 14] = [
    (-1, "Operation not permitted"),
    (-2, "No such file or directory"),
    (-5, "Input/output error"),
    (-7, "Argument list too long"),
    (-12, "Cannot allocate memory"),
    (-13, "Permission denied"),
    (-14, "Bad address"),
    (-16, "Device or resource busy"),
    (-17, "File exists"),
    (-19, "No such device"),
    (-22, "Invalid argument"),
    (-25, "Inappropriate ioctl for device"),
    (-28, "No space left on device"),
    (-98, "Address already in use"),
];

/// The words for an error number, as the kernel gives it: negative.
pub fn error_words(number: i32) -> Option<&'static str> {
    ERRORS.iter().find(|(known, _)| *known == number).map(|(_, words)| *words)
}

/// Memory of a guest that was to be mapped for DMA.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MappedMemory {
    /// RAM.
    Ram,
    /// Memory that is a device, plugged or behind a BAR that QEMU emulates.
    Device,
    /// A BAR of a passthrough device.
    Bar,
}

/// What a message says in numbers.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Clue {
    /// The error number, negative as the kernel gives it.
    pub error: Option<i32>,
    /// Guest-physical addresses, or IOVAs.
    pub range: Option<GpaRange>,
    /// What is there, if the message tells.
    pub memory: Option<MappedMemory>,
    /// QEMU's name of the memory: `pc.ram`, `ram-node0`.
    pub region: Option<String>,
    /// A PCI address: `0000:41:00.0`.
    pub device: Option<String>,
    /// A single address.
    pub address: Option<u64>,
    /// The last address that can be used.
    pub last_address: Option<u64>,
    /// A limit or a need in bytes.
    pub bytes: Option<u64>,
    /// A number of address bits.
    pub bits: Option<u8>,
}

impl Clue {
    /// The numbers in words, each with what it is: addresses in hexadecimal, both ends included, and in GiB.
    pub fn told(&self) -> Vec<(&'static str, String)> {
        let mut told = Vec::new();
        if let Some(number) = self.error {
            told.push((
                "error",
                error_words(number).map_or_else(|| number.to_string(), |words| format!("{number} ({words})")),
            ));
        }
        told.extend(self.device.clone().map(|device| ("device", device)));
        if let Some(range) = self.range {
            told.push((self.what(), self.addresses(range)));
            told.extend(self.refused(range));
        }
        if let (Some(needed), Some(last)) = (self.address, self.last_address) {
            told.push(("needed", up_to(needed)));
            told.push(("usable", up_to(last)));
        } else if let Some(single) = self.address {
            told.push(("address", format!("{}, {} address bits", address(single), bits(single))));
        }
        if self.last_address.is_none() {
            told.extend(self.bits.map(|bits| ("width", format!("{bits} bits, {}", text::size(size(bits))))));
        }
        told.extend(self.bytes.map(|bytes| ("limit", format!("{bytes} bytes, {}", text::size(bytes)))));
        told
    }

    /// What the range is.
    fn what(&self) -> &'static str {
        match self.memory {
            Some(MappedMemory::Ram) => "RAM",
            Some(MappedMemory::Device) => "device memory",
            Some(MappedMemory::Bar) => "BAR",
            None => "addresses",
        }
    }

    fn addresses(&self, range: GpaRange) -> String {
        let name = self.region.as_ref().map(|name| format!("{name}, ")).unwrap_or_default();
        match range.size() {
            Some(1) => format!("{name}{}", address(range.start)),
            size => {
                let in_gib = text::range(range);
                let in_gib = if in_gib.contains("GiB") { format!(", {in_gib}") } else { String::new() };
                let size = size.map(|size| format!(", {}", text::size(size))).unwrap_or_default();
                format!("{name}{range}{in_gib}{size}")
            }
        }
    }

    /// Why the addresses are not accepted.
    fn refused(&self, range: GpaRange) -> Option<(&'static str, String)> {
        if self.error != Some(-22) {
            return None;
        }
        for reserved in [HYPERTRANSPORT, INTERRUPTS] {
            if let Some(size) = range.intersection(reserved).and_then(GpaRange::size) {
                let part = format!("{reserved}, {}; the overlap is {}", text::range(reserved), text::size(size));
                return Some(("reserved", part));
            }
        }
        (range.end >= NARROWEST_IOMMU).then(|| ("needed", format!("{} address bits", bits(range.end))))
    }
}

/// An address in hexadecimal and GiB.
fn address(address: u64) -> String {
    // With two decimals, as the address itself is there.
    let hundredths = u128::from(address).saturating_mul(100) >> 30;
    let (whole, rest) = (hundredths / 100, hundredths % 100);
    format!("{address:#x} ({whole}.{rest:02} GiB)")
}

/// The addresses up to `last`.
fn up_to(last: u64) -> String {
    let end = last.checked_add(1).map(|end| format!(", {}", text::address(end))).unwrap_or_default();
    format!("up to {last:#x}{end}, {} address bits", bits(last))
}

/// How many bits an address has.
fn bits(address: u64) -> u32 {
    u64::BITS.saturating_sub(address.leading_zeros())
}

/// How much is addressed with this many bits; all that fits a number from 64 on.
fn size(bits: u8) -> u64 {
    1_u64.checked_shl(bits.into()).unwrap_or(u64::MAX)
}

/// A place in a text, with what is around it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Spot<'a> {
    /// The line, or the part of it that is near.
    pub line: &'a [u8],
    /// Where in the line the found words are.
    pub at: usize,
    /// From there on, also beyond the end of the line: people paste text that was wrapped.
    pub rest: &'a [u8],
}

impl<'a> Spot<'a> {
    /// Whether `words` are on the line.
    pub fn has(&self, words: &str) -> bool {
        find(self.line, words.as_bytes()).is_some()
    }

    /// What is after `words`, from the place on.
    pub fn after(&self, words: &str) -> Option<&'a [u8]> {
        let at = find(self.rest, words.as_bytes())?;
        self.rest.get(at.checked_add(words.len())?..)
    }

    /// The number after `words`, with `0x` or in decimal.
    pub fn number(&self, words: &str) -> Option<u64> {
        number(self.after(words)?)
    }

    /// The number after `words`, hexadecimal with `0x` or without.
    pub fn hexadecimal(&self, words: &str) -> Option<u64> {
        let text = self.after(words)?;
        digits(text.strip_prefix(b"0x").unwrap_or(text), 16).map(|(value, _)| value)
    }

    /// The error whose words come next, or the first of those that are on the line.
    pub fn error(&self) -> Option<i32> {
        let near = self.rest.get(..ERROR_WITHIN).unwrap_or(self.rest);
        let places = ERRORS.iter().filter_map(|(number, words)| Some((find(near, words.as_bytes())?, *number)));
        places.min().map(|(_, number)| number)
    }

    /// The last PCI address before the words that were found, otherwise the first after them.
    pub fn device(&self) -> Option<String> {
        /// `dddd:bb:dd.f`
        const LENGTH: usize = 12;
        let is_address = |text: &[u8]| {
            text.iter().zip(b"xxxx:xx:xx.x").all(|(byte, form)| match form {
                b'x' => byte.is_ascii_hexdigit(),
                form => byte == form,
            })
        };
        let mut places = self.line.windows(LENGTH).enumerate().filter(|(_, text)| is_address(text));
        let first = places.next()?;
        let (_, address) = places.take_while(|(at, _)| *at < self.at).last().unwrap_or(first);
        Some(String::from_utf8_lossy(address).into_owned())
    }
}

/// The error that a line names anywhere, by its words or as a number: `-22`.
pub(super) fn error_in(line: &[u8]) -> Option<i32> {
    let by_words = ERRORS.iter().find(|(_, words)| find(line, words.as_bytes()).is_some());
    let by_number = || {
        let numbers = line.split(|&byte| byte == b'-').skip(1).filter_map(|text| digits(text, 10));
        let mut numbers = numbers.filter_map(|(value, _)| i32::try_from(value).ok()?.checked_neg());
        numbers.find(|&number| error_words(number).is_some())
    };
    by_words.map(|(number, _)| *number).or_else(by_number)
}

/// How far after a message its error is searched for, in bytes.
const ERROR_WITHIN: usize = 300;

/// The first place of `words` in `text`.
pub(super) fn find(text: &[u8], words: &[u8]) -> Option<usize> {
    let (&first, _) = words.split_first()?;
    let mut from = 0;
    while let Some(at) = text.get(from..)?.iter().position(|&byte| byte == first) {
        let at = from.saturating_add(at);
        if text.get(at..)?.starts_with(words) {
            return Some(at);
        }
        from = at.saturating_add(1);
    }
    None
}

fn blank(byte: u8) -> bool {
    byte.is_ascii_whitespace()
}

fn trimmed(text: &[u8]) -> &[u8] {
    text.trim_ascii_start()
}

/// The number that `text` begins with, after blanks: with `0x`, or in decimal.
fn number(text: &[u8]) -> Option<u64> {
    let text = trimmed(text);
    match text.strip_prefix(b"0x") {
        Some(text) => digits(text, 16),
        None => digits(text, 10),
    }
    .map(|(value, _)| value)
}

/// The number that `text` begins with, and what follows it.
fn digits(text: &[u8], radix: u32) -> Option<(u64, &[u8])> {
    let end = text.iter().position(|&byte| !char::from(byte).is_digit(radix)).unwrap_or(text.len());
    let (digits, rest) = text.split_at(end);
    let value = u64::from_str_radix(std::str::from_utf8(digits).ok()?, radix).ok()?;
    Some((value, rest))
}

/// What a line says about a call with the arguments (container, IOVA, size, address) and an error number:
/// `vfio_dma_map(0x55…, 0x100000000, 0x11280000000, 0x7e…) = -22 (Invalid argument)`.
pub(super) fn call(spot: &Spot<'_>) -> Option<Clue> {
    let arguments = spot.after("(")?;
    let end = arguments.iter().position(|&byte| byte == b')')?;
    let (arguments, rest) = arguments.split_at(end);
    let range = match arguments.trim_ascii() {
        // As people quote it.
        b"..." | b"\xe2\x80\xa6" => None,
        arguments => {
            let mut numbers = arguments.split(|&byte| byte == b',').map(number);
            let (_, iova, size) = (numbers.next()?, numbers.next()??, numbers.next()??);
            GpaRange::with_size(iova, size)
        }
    };
    let rest = trimmed(trimmed(rest.get(1..)?).strip_prefix(b"=")?);
    let (error, _) = digits(rest.strip_prefix(b"-")?, 10)?;
    let region = region(spot);
    let warning = spot.has("warning: vfio_container_dma_map");
    let memory = match &region {
        _ if warning => Some(MappedMemory::Bar),
        Some(name) => Some(named(name, range)),
        None => range.and_then(shape),
    };
    let error = i32::try_from(error).ok().and_then(i32::checked_neg);
    Some(Clue { error, range, memory, region, device: spot.device(), ..Clue::default() })
}

/// The memory region that the line names before the call: `Region pc.ram: `.
fn region(spot: &Spot<'_>) -> Option<String> {
    const WORD: &[u8] = b"Region ";
    let before = spot.line.get(..spot.at)?;
    let at = before.windows(WORD.len()).rposition(|text| text == WORD)?;
    let name = before.get(at.checked_add(WORD.len())?..)?;
    let end = name.iter().position(|&byte| byte == b':' || blank(byte)).unwrap_or(name.len());
    let name: Cow<'_, str> = String::from_utf8_lossy(&name[..end]);
    (!name.is_empty()).then(|| text::quoted(&name))
}

/// What memory of this name is. QEMU calls RAM `pc.ram` or after its backend, libvirt the backends of cells `ram-node0`
/// and those of plugged memory `memdimm0`, and a BAR has `BAR` in its name (hw/vfio/region.c, vfio_region_mmap).
fn named(name: &str, range: Option<GpaRange>) -> MappedMemory {
    let plugged = ["memdimm", "memnvdimm", "memvirtiomem", "memvirtiopmem"];
    if name.contains("BAR") {
        MappedMemory::Bar
    } else if plugged.iter().any(|start| name.starts_with(start)) {
        MappedMemory::Device
    } else if name.ends_with(".ram") || name.starts_with("ram-node") || range.is_some_and(starts_as_ram) {
        MappedMemory::Ram
    } else {
        MappedMemory::Device
    }
}

/// What lies at these addresses, if the message does not name it: RAM begins at few addresses, and a BAR is as large as
/// a power of two and lies at a multiple of that.
fn shape(range: GpaRange) -> Option<MappedMemory> {
    if starts_as_ram(range) {
        return Some(MappedMemory::Ram);
    }
    // Plugged memory looks the same, but lies near the RAM.
    let size = range.size()?;
    let is_bar = size.is_power_of_two() && range.start.is_multiple_of(size) && !HYPERTRANSPORT.overlaps(range);
    is_bar.then_some(MappedMemory::Bar)
}

/// Whether RAM begins there: at 0, after the holes below 1 MiB, at 4 GiB or at 1 TiB (hw/i386/pc.c, pc_memory_init;
/// hw/pci-host/pam.c).
fn starts_as_ram(range: GpaRange) -> bool {
    range.start < 1 << 21 || range.start == 1 << 32 || range.start == 1 << 40
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spot(text: &str) -> Spot<'_> {
        let at = text.find("vfio").unwrap_or(0);
        Spot { line: text.as_bytes(), at, rest: &text.as_bytes()[at..] }
    }

    #[test]
    fn calls_are_read_in_every_form() {
        for text in [
            "Region pc.ram: vfio_dma_map(0x55d3, 0x100000000, 0x11280000000, 0x7e89) = -22 (Invalid argument)",
            "Region pc.ram:vfio_dma_map(0x55d3,0x100000000,0x11280000000,0x7e89)=-22(Invalid argument):unknown",
            "Region pc.ram: vfio_container_dma_map (0x55d3, 0x100000000,\n  0x11280000000, 0x7e89) = -22",
        ] {
            let clue = call(&spot(text)).expect("a call");
            assert_eq!(clue.range, Some(GpaRange::inclusive(0x1_0000_0000, 0x1_0000_0000 + 0x112_8000_0000 - 1)));
            assert_eq!((clue.error, clue.memory), (Some(-22), Some(MappedMemory::Ram)), "{text}");
            assert_eq!(clue.region.as_deref(), Some("pc.ram"));
        }
        for text in ["vfio_dma_map(", "vfio_dma_map()", "vfio_dma_map(a, b, c) = -1", "vfio_dma_map(1, 2, 3, 4) = 22"] {
            assert_eq!(call(&spot(text)), None, "{text}");
        }
        for text in ["vfio_dma_map(…) = -22", "vfio_dma_map(...) = -22 (Invalid argument)"] {
            let clue = call(&spot(text)).expect("a call");
            assert_eq!((clue.error, clue.range), (Some(-22), None), "{text}");
        }
        let huge = call(&spot("vfio_dma_map(0x1, 0xffffffffffffffff, 0xffffffffffffffff, 0x1) = -22")).expect("a call");
        assert_eq!(huge.range, None);
    }

    #[test]
    fn memory_is_told_from_bars() {
        let memory = |name: &str, start, size| named(name, GpaRange::with_size(start, size));
        assert_eq!(memory("ram-node1", 5 << 30, 1 << 30), MappedMemory::Ram);
        assert_eq!(memory("dimm1", 1 << 32, 1 << 30), MappedMemory::Ram);
        assert_eq!(memory("memdimm0", 0xfd_0000_0000, 1 << 27), MappedMemory::Device);
        assert_eq!(memory("shmmem-shmem0", 0x3820_0000_0000, 1 << 28), MappedMemory::Device);
        let unnamed = |start, size| GpaRange::with_size(start, size).and_then(shape);
        assert_eq!(unnamed(1 << 40, 3 << 30), Some(MappedMemory::Ram));
        assert_eq!(unnamed(0x3800_0000_0000, 0x1000_0000), Some(MappedMemory::Bar));
        assert_eq!(unnamed(0xfd_0000_0000, 1 << 27), None);
        assert_eq!(unnamed(0xfa80_0000, 0x4000), Some(MappedMemory::Bar));
    }

    #[test]
    fn the_nearest_device_is_taken() {
        let text = "0000:01:00.0 and 0000:41:00.1: vfio_x 0000:02:00.0";
        assert_eq!(spot(text).device().as_deref(), Some("0000:41:00.1"));
        assert_eq!(spot("vfio 0000:02:00.0").device().as_deref(), Some("0000:02:00.0"));
        assert_eq!(spot("vfio 0000:02:00").device(), None);
    }
}
