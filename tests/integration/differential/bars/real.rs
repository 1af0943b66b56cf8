//! The real firmware: where it puts BARs, read out of configuration space when it is done.

use super::super::oracle::{Qemu, Silent};
use super::generate::Guest;
use iova_preflight::host::FirmwareKind;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

/// Longer than OVMF takes on a busy machine.
const LIMIT: Duration = Duration::from_secs(900);

/// If the CPU waits for interrupts this many times in a row, the firmware has ended without output: OVMF has no console
/// if it gives up PCI enumeration.
const HALTED: u32 = 50;

/// A BAR whose register has such an address was not assigned one: firmware leaves the mask of its size in it.
const UNREACHED: u64 = 1 << 52;

/// A QEMU and its firmware.
pub struct Firmware {
    /// The root of the Debian that they are in.
    root: PathBuf,
    ovmf: String,
    seabios: String,
}

/// A 64-bit BAR.
pub struct Seen {
    pub device: String,
    pub size: u64,
    pub prefetchable: bool,
    pub address: Option<u64>,
}

const OVMF: &str = "/usr/share/OVMF/OVMF_CODE_4M.fd";
const OVMF_VARIABLES: &str = "/usr/share/OVMF/OVMF_VARS_4M.fd";
const SEABIOS: &str = "/usr/share/seabios/bios-256k.bin";

impl Firmware {
    /// The firmware in the tree of a Debian, or of this machine.
    pub fn find(root: &Path) -> Result<Self, String> {
        let package = |name: &str, file: &str| {
            let output = Command::new("dpkg-query")
                .arg(format!("--admindir={}", root.join("var/lib/dpkg").display()))
                .args(["-W", "-f", "${Version}", name])
                .output()
                .map_err(|e| format!("dpkg-query: {e}"))?;
            let version = String::from_utf8_lossy(&output.stdout).into_owned();
            let there = output.status.success() && root.join(file.trim_start_matches('/')).exists();
            there.then_some(version).ok_or_else(|| format!("{file} of package {name} is missing"))
        };
        let (ovmf, seabios) = (package("ovmf", OVMF)?, package("seabios", SEABIOS)?);
        Ok(Self { root: root.to_owned(), ovmf, seabios })
    }

    /// The version of its package.
    pub fn version(&self, kind: FirmwareKind) -> &str {
        match kind {
            FirmwareKind::Ovmf => &self.ovmf,
            FirmwareKind::SeaBios => &self.seabios,
        }
    }

    /// Whether its OVMF takes minutes for wide address spaces.
    pub fn is_slow(&self) -> bool {
        self.ovmf.starts_with("2022.")
    }

    /// The 64-bit BARs of a guest once its firmware is done.
    pub fn bars(&self, guest: &Guest) -> Result<Vec<Seen>, String> {
        let mut command = if self.root == Path::new("/") {
            Command::new("qemu-system-x86_64")
        } else {
            let mut command = Command::new("chroot");
            command.arg(&self.root).arg("qemu-system-x86_64");
            command
        };
        command.arg("-no-user-config");
        let (log, done): (&[&str], &[&str]) = match guest.firmware {
            FirmwareKind::SeaBios => (
                &["-bios", SEABIOS, "-device", "isa-debugcon,iobase=0x402,chardev=log"],
                &["No bootable device", "Booting from", "Boot failed"],
            ),
            FirmwareKind::Ovmf => (&["-serial", "chardev:log"], &["BdsDxe", "UEFI Interactive Shell"]),
        };
        let mut arguments = guest.line();
        arguments.extend(log.iter().map(|&word| word.to_owned()));
        arguments.extend(["-chardev", "ringbuf,id=log,size=1048576"].map(str::to_owned));
        if guest.firmware == FirmwareKind::Ovmf {
            for (unit, file, more) in [(0, OVMF, "readonly=on"), (1, OVMF_VARIABLES, "snapshot=on")] {
                arguments.extend(["-drive".to_owned(), format!("if=pflash,format=raw,unit={unit},file={file},{more}")]);
            }
        }
        let mut qemu = Qemu::start(command, &arguments)?;
        let answer = qemu.run(done);
        match answer {
            Ok(Some(seen)) => Ok(seen),
            Ok(None) => Err(format!("the firmware is not done after {LIMIT:?}")),
            Err(Silent) => Err(qemu.stderr()),
        }
    }
}

impl Qemu {
    /// Runs the machine until its firmware says that it is done, and reads the BARs.
    fn run(&mut self, done: &[&str]) -> Result<Option<Vec<Seen>>, Silent> {
        self.ask("cont", &Value::Null)?;
        let (start, mut text) = (Instant::now(), String::new());
        let (mut halted, mut at) = (0, String::new());
        while !done.iter().any(|words| text.contains(words)) && halted < HALTED {
            if start.elapsed() > LIMIT {
                return Ok(None);
            }
            std::thread::sleep(Duration::from_millis(100));
            let more = self.ask("ringbuf-read", &json!({"device": "log", "size": 1 << 20}))?;
            text += more.as_str().unwrap_or_default();
            let registers = self.ask("human-monitor-command", &json!({"command-line": "info registers"}))?;
            let registers = registers.as_str().unwrap_or_default();
            let now = registers.lines().find(|line| line.starts_with("RIP=")).unwrap_or_default();
            halted = if now == at && now.contains("HLT=1") { halted + 1 } else { 0 };
            now.clone_into(&mut at);
        }
        self.ask("stop", &Value::Null)?;
        let buses = self.ask("query-pci", &Value::Null)?;
        let mut devices = Vec::new();
        buses.as_array().into_iter().flatten().for_each(|bus| collect(&bus["devices"], &mut devices));
        let mut seen = Vec::new();
        for device in devices {
            for region in device["regions"].as_array().into_iter().flatten() {
                if region["type"] == "memory" && region["mem_type_64"] == true {
                    seen.push(self.bar(&device, region)?);
                }
            }
        }
        Ok(Some(seen))
    }

    /// A BAR as its register has it: `query-pci` shows an address only where the device decodes it, and OVMF leaves that
    /// off where no driver asks for it.
    fn bar(&mut self, device: &Value, region: &Value) -> Result<Seen, Silent> {
        let number = |value: &Value| value.as_u64().unwrap_or_default();
        let function = number(&device["bus"]) << 16 | number(&device["slot"]) << 11 | number(&device["function"]) << 8;
        let register = 0x8000_0010 + function + 4 * number(&region["bar"]);
        let low = self.configuration(register)?;
        let high = self.configuration(register + 4)?;
        let size = number(&region["size"]);
        let address = high << 32 | low & !0xf;
        Ok(Seen {
            device: device["qdev_id"].as_str().unwrap_or_default().to_owned(),
            size,
            prefetchable: region["prefetch"] == true,
            address: Some(address).filter(|&address| address != 0 && address.saturating_add(size) <= UNREACHED),
        })
    }

    /// 32 bits of configuration space (PCI Local Bus Specification 3.0, 3.2.2.3.2).
    fn configuration(&mut self, address: u64) -> Result<u64, Silent> {
        let mut monitor = |line: String| self.ask("human-monitor-command", &json!({"command-line": line}));
        monitor(format!("o /4 0xcf8 {address:#x}"))?;
        let answer = monitor("i /4 0xcfc".to_owned())?;
        let digits = answer.as_str().and_then(|text| text.trim().rsplit_once("0x")).map(|(_, digits)| digits);
        digits.and_then(|digits| u64::from_str_radix(digits, 16).ok()).ok_or(Silent)
    }
}

fn collect(devices: &Value, into: &mut Vec<Value>) {
    for device in devices.as_array().into_iter().flatten() {
        into.push(device.clone());
        collect(&device["pci_bridge"]["devices"], into);
    }
}
