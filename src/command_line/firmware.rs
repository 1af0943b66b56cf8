//! What QEMU is told of firmware: which file it is, and what it is told through fw_cfg.

use super::words::{Argument, last, pairs};
use super::{CommandLine, Origin, Told};

/// What QEMU is told of firmware. Where it is told nothing, it has SeaBIOS.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct FirmwareOptions {
    /// `-bios`, or `firmware=` of `-machine`: the file that is the ROM.
    pub rom: Option<Told<String>>,
    /// The file in the first flash (`-drive if=pflash`, `-pflash`); empty if it is a disk of another kind.
    pub flash: Option<Told<String>>,
    /// `pflash0=` of `-machine`: the node that is the first flash.
    pub flash_node: Option<Told<String>>,
    /// The place that requests UEFI in a file that libvirt chooses.
    pub uefi: Option<Origin>,
    /// The place that makes the guest confidential, which takes another build of the firmware.
    pub confidential: Option<Origin>,
    /// `opt/ovmf/X-PciMmio64Mb`, MiB.
    pub pci_mmio64_mb: Option<Told<u64>>,
    /// Another option of fw_cfg that changes where BARs are: `opt/org.seabios/pci64`, `opt/org.tianocore/PagingLevel`,
    /// or the one above from a file.
    pub not_modelled: Option<Origin>,
    /// How many flashes were given without a number.
    flashes: u64,
}

/// Firmware that QEMU loads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Firmware<'a> {
    /// SeaBIOS, as QEMU brings it.
    Default,
    /// UEFI in a file that libvirt chooses.
    Uefi,
    /// A file that is the ROM.
    Rom(&'a str),
    /// A file that is the first flash, which only UEFI has; empty if it is unknown.
    Flash(&'a str),
    /// A build for confidential guests.
    Confidential,
}

/// The longest chain of `-blockdev` nodes that is followed; a flash needs two.
const MOST_NODES: usize = 8;

/// The name under which OVMF looks for the size of its window, in MiB (edk2
/// `OvmfPkg/Library/PlatformInitLib/MemDetect.c`, `PlatformGetFirstNonAddress`).
pub(crate) const PCI_MMIO64_MB: &str = "opt/ovmf/X-PciMmio64Mb";

/// Other entries that firmware reads: SeaBIOS 1.17 (`src/fw/pciinit.c`) and edk2 2024.11 (`MemDetect.c`).
const OTHERS: [&str; 2] = ["opt/org.seabios/pci64", "opt/org.tianocore/PagingLevel"];

impl FirmwareOptions {
    /// Reads one of `-bios`, `-pflash`, `-drive` and `-fw_cfg`.
    pub(super) fn option(&mut self, name: &str, argument: &Argument<'_>) {
        let told = |value: String| Told { value, origin: argument.origin };
        match name {
            "bios" => self.rom = Some(told(argument.text.to_owned())),
            "pflash" => self.drive(None, told(argument.text.to_owned())),
            "drive" => {
                let pairs = pairs(argument, "file");
                let value = |key: &str| last(&pairs, key).map(|pair| pair.value.as_str());
                if value("if") == Some("pflash") {
                    let number = value("unit").or_else(|| value("index")).and_then(super::value::number);
                    let file = value("file").or_else(|| value("file.filename")).unwrap_or_default();
                    self.drive(number, told(file.to_owned()));
                }
            }
            "fw_cfg" => {
                let pairs = pairs(argument, "name");
                let value = |key: &str| last(&pairs, key).map(|pair| pair.value.as_str());
                self.fw_cfg(value("name").unwrap_or_default(), value("string"), argument.origin);
            }
            _ => {}
        }
    }

    /// Reads a property of `-machine`: `firmware`, `pflash0`, and the two that make the guest a confidential one.
    pub(super) fn machine(&mut self, property: &str, value: String, origin: Origin) {
        match property {
            "firmware" => self.rom = Some(Told { value, origin }),
            "pflash0" => self.flash_node = Some(Told { value, origin }),
            _ => self.confidential = Some(origin),
        }
    }

    /// A flash; those without a number are counted.
    fn drive(&mut self, number: Option<u64>, file: Told<String>) {
        let number = number.unwrap_or_else(|| {
            let next = self.flashes;
            self.flashes = next.saturating_add(1);
            next
        });
        if number == 0 {
            self.flash = Some(file);
        }
    }

    /// An entry of fw_cfg; `None` for one whose value is elsewhere.
    pub fn fw_cfg(&mut self, name: &str, value: Option<&str>, origin: Origin) {
        match (name, value) {
            // It is read as a decimal number, up to a line break (`QemuFwCfgParseUint64` of edk2
            // `OvmfPkg/Library/QemuFwCfgSimpleParserLib`).
            (PCI_MMIO64_MB, Some(text)) => {
                let number = text.trim_end_matches(['\r', '\n']).parse().ok();
                self.pci_mmio64_mb = number.map(|value| Told { value, origin });
            }
            (PCI_MMIO64_MB, None) => self.not_modelled = Some(origin),
            (name, _) if OTHERS.contains(&name) => self.not_modelled = Some(origin),
            _ => {}
        }
    }
}

impl CommandLine {
    /// The firmware (`pc_system_firmware_init` in QEMU `hw/i386/pc_sysfw.c`: the ROM counts if there is no flash).
    pub fn firmware(&self) -> Firmware<'_> {
        let options = &self.firmware;
        let node = options.flash_node.as_ref().map(|node| self.file_of(&node.value));
        let flash = node.or(options.flash.as_ref().map(|flash| flash.value.as_str()));
        match (flash, &options.rom) {
            _ if options.confidential.is_some() => Firmware::Confidential,
            (Some(path), _) => Firmware::Flash(path),
            (None, Some(rom)) => Firmware::Rom(&rom.value),
            (None, None) if options.uefi.is_some() => Firmware::Uefi,
            (None, None) => Firmware::Default,
        }
    }

    /// The file of a `-blockdev`, through those that it names; empty if it is none.
    fn file_of(&self, node: &str) -> &str {
        let find = |name: &str| self.host_ends.iter().find(|end| end.properties.value("node-name") == Some(name));
        let mut next = find(node);
        for _ in 0..MOST_NODES {
            let Some(end) = next else { break };
            let value = |name: &str| end.properties.value(name);
            if let Some(file) = value("filename").or_else(|| value("file.filename")) {
                return file;
            }
            next = end.properties.value("file").and_then(find);
        }
        ""
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> CommandLine {
        let mut line = CommandLine::default();
        line.merge(text.split(' ').enumerate().map(|(number, text)| Argument::numbered(number, text)));
        line
    }

    #[test]
    fn the_firmware_is_the_first_flash_or_the_rom() {
        for (text, firmware) in [
            ("-S", Firmware::Default),
            ("-bios bios.bin", Firmware::Rom("bios.bin")),
            ("-machine q35,firmware=/x -S", Firmware::Rom("/x")),
            ("-drive if=pflash,format=raw,file=/c.fd -drive if=pflash,file=/v.fd", Firmware::Flash("/c.fd")),
            (
                "-drive if=pflash,unit=1,file=/v.fd -drive if=pflash,unit=0,file.filename=/c.fd",
                Firmware::Flash("/c.fd"),
            ),
            ("-pflash /c.fd -pflash /v.fd -bios /x", Firmware::Flash("/c.fd")),
            ("-drive /disk -S", Firmware::Default),
            (
                "-blockdev {\"driver\":\"file\",\"filename\":\"/c.fd\",\"node-name\":\"s\"} \
                 -blockdev {\"node-name\":\"f\",\"driver\":\"raw\",\"file\":\"s\"} -machine pc,pflash0=f,pflash1=g",
                Firmware::Flash("/c.fd"),
            ),
            (
                "-blockdev driver=raw,file.driver=file,file.filename=/c.fd,node-name=f -machine pflash0=f",
                Firmware::Flash("/c.fd"),
            ),
            ("-machine pflash0=f", Firmware::Flash("")),
            ("-blockdev driver=raw,file=f,node-name=f -machine pflash0=f", Firmware::Flash("")),
            ("-object sev-guest,id=sev0 -machine q35,confidential-guest-support=sev0", Firmware::Confidential),
        ] {
            assert_eq!(read(text).firmware(), firmware, "{text}");
        }
    }

    #[test]
    fn options_of_fw_cfg_are_decimal() {
        let told = |text: &str| read(text).firmware.pci_mmio64_mb.map(|told| told.value);
        for (text, value) in [
            ("-fw_cfg name=opt/ovmf/X-PciMmio64Mb,string=65536", Some(65536)),
            ("-fw_cfg opt/ovmf/X-PciMmio64Mb,string=1", Some(1)),
            ("-fw_cfg name=opt/ovmf/X-PciMmio64Mb,string=0x10", None),
            ("-fw_cfg name=opt/ovmf/X,string=1", None),
        ] {
            assert_eq!(told(text), value, "{text}");
        }
        for text in ["-fw_cfg name=opt/ovmf/X-PciMmio64Mb,file=/x", "-fw_cfg name=opt/org.seabios/pci64,string=1"] {
            assert!(read(text).firmware.not_modelled.is_some(), "{text}");
        }
    }
}
