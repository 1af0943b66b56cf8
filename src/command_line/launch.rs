//! A QEMU that is started by its own command line, without libvirt.

use std::collections::HashSet;

use super::words::{last, pairs};
use super::{
    Accelerator, Argument, CommandLine, Device, MDEV_FOLDER, NotModelled, Origin, Properties, QemuTarget, Refused,
};
use crate::argv::Call;
use crate::xml::Span;

/// A QEMU that is started by its own command line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Launch {
    /// The program, as it is called.
    pub program: Option<String>,
    /// The guest's name (`-name`); empty if it has none.
    pub name: String,
    /// The arguments.
    pub arguments: Vec<String>,
    /// What QEMU is told by them.
    pub line: CommandLine,
    /// The word to point at for the whole command line: the program, or the first option.
    pub span: Span,
    /// Arguments in which a shell puts something in the place of a part.
    replaced: Replaced,
    /// Devices that came after the start.
    attached: Vec<Device>,
    /// What the process that runs it may lock, if there is one with a limit.
    pub lock_limit: Option<ProcessLimit>,
}

/// How much memory a process may lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProcessLimit {
    /// Bytes.
    pub bytes: u64,
    /// Whether VFIO may map more than that.
    pub vfio_exempt: bool,
}

/// Arguments in which a shell puts something that is not known in the place of a part.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Replaced {
    /// All such arguments.
    all: HashSet<String>,
    /// Those where it may matter.
    counting: Vec<NotModelled>,
}

/// Options whose value does not matter, whatever a shell puts in it (`qemu-options.hx` of QEMU 2.12 to 11.1).
const WITHOUT_EFFECT: [&str; 47] = [
    "D",
    "L",
    "add-fd",
    "append",
    "audiodev",
    "bios",
    "boot",
    "cdrom",
    "chardev",
    "chroot",
    "d",
    "dfilter",
    "display",
    "drive",
    "dtb",
    "dump-vmstate",
    "fda",
    "fdb",
    "fsdev",
    "fw_cfg",
    "gdb",
    "hda",
    "hdb",
    "hdc",
    "hdd",
    "icount",
    "incoming",
    "initrd",
    "k",
    "kernel",
    "loadvm",
    "mem-path",
    "mon",
    "monitor",
    "msg",
    "name",
    "overcommit",
    "parallel",
    "pflash",
    "pidfile",
    "qmp",
    "qmp-pretty",
    "rtc",
    "runas",
    "run-with",
    "sandbox",
    "serial",
];

impl Launch {
    /// The QEMU that a program and its arguments start.
    pub fn new<'a>(program: Option<&str>, span: Span, arguments: impl IntoIterator<Item = Argument<'a>>) -> Self {
        let arguments: Vec<Argument<'a>> = arguments.into_iter().collect();
        let replaced = replaced_by_a_shell(&arguments);
        Self::told(program, span, &arguments, replaced, Vec::new())
    }

    /// The same with other arguments; each part then comes from bytes of its argument, and not of a text.
    pub(crate) fn with_arguments(&self, arguments: Vec<String>) -> Self {
        let numbered = arguments.iter().enumerate().map(|(number, text)| Argument::numbered(number, text));
        let numbered: Vec<Argument<'_>> = numbered.collect();
        let told =
            Self::told(self.program.as_deref(), self.span, &numbered, self.replaced.clone(), self.attached.clone());
        Self { lock_limit: self.lock_limit, ..told }
    }

    fn told(
        program: Option<&str>,
        span: Span,
        arguments: &[Argument<'_>],
        replaced: Replaced,
        attached: Vec<Device>,
    ) -> Self {
        let target = match program.and_then(target_of) {
            Some("i386") => QemuTarget::I386,
            _ => QemuTarget::X86_64,
        };
        let mut line = CommandLine { target, ..CommandLine::default() };
        line.merge_all(arguments.iter().copied());
        if line.accelerator.is_some() && line.machine.accelerator.is_some() {
            line.refused.extend(second_accelerator(arguments));
        }
        // Whether QEMU accepts a value that a shell puts in is unknown.
        line.refused.retain(|refused| !replaced.all.contains(&refused.value));
        if line.accelerator.is_none() && line.machine.accelerator.is_none() {
            line.accelerator = program.and_then(default_accelerator);
        }
        let known: HashSet<String> = line.not_modelled.iter().map(|entry| entry.value.clone()).collect();
        line.not_modelled.extend(replaced.counting.iter().filter(|entry| !known.contains(&entry.value)).cloned());
        line.devices.extend(attached.iter().cloned());
        Self {
            program: program.map(str::to_owned),
            name: name(arguments).unwrap_or_default(),
            arguments: arguments.iter().map(|argument| argument.text.to_owned()).collect(),
            line,
            span,
            replaced,
            attached,
            lock_limit: None,
        }
    }

    /// The QEMU that a call in a text starts.
    pub fn read(call: &Call<'_>) -> Self {
        Self::read_as(call, call.program.as_ref().map(|word| word.text.as_str()))
    }

    /// The same, with `program` as the program that really runs.
    pub fn read_as(call: &Call<'_>, program: Option<&str>) -> Self {
        let arguments = call.arguments.iter().enumerate().map(|(number, word)| Argument::in_text(number, word));
        Self::new(program, call.span(), arguments)
    }

    /// The same guest with a PCI function, or a mediated device, that it has got since it was started: `name` is a PCI
    /// address or a UUID. What the command line names already is not added.
    pub fn attach_vfio(&mut self, name: &str) {
        let is_address = name.contains(':');
        match is_address {
            true => self.attach("vfio-pci", "host", name.to_owned(), name),
            false => self.attach("vfio-pci", "sysfsdev", format!("{MDEV_FOLDER}{name}"), name),
        }
    }

    /// The same for a vDPA device; `path` is that of its character device.
    pub fn attach_vhost_vdpa(&mut self, path: &str) {
        self.attach("vhost-vdpa-device-pci", "vhostdev", path.to_owned(), path);
    }

    fn attach(&mut self, driver: &'static str, property: &'static str, value: String, name: &str) {
        if self.line.passthrough().iter().any(|device| device.device == name) {
            return;
        }
        let origin = Origin::Argument { number: self.arguments.len(), span: self.span };
        let mut properties = Properties::new();
        properties.set(property, value, origin);
        let device = Device { driver: driver.into(), id: None, properties, origin, settable: false };
        self.line.devices.push(device.clone());
        self.attached.push(device);
    }

    /// The target of the program, if it is one without `pc` and `q35`: `aarch64`.
    pub fn other_target(&self) -> Option<&str> {
        let target = self.program.as_deref().and_then(target_of)?;
        (!matches!(target, "x86_64" | "i386")).then_some(target)
    }
}

/// `x86_64` of `/usr/bin/qemu-system-x86_64`, and of the names that distributions add something to.
fn target_of(program: &str) -> Option<&str> {
    let name = program.rsplit('/').next().unwrap_or(program);
    let target = name.strip_prefix('.').unwrap_or(name).strip_prefix("qemu-system-")?;
    let end = target.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(target.len());
    target.get(..end)
}

/// KVM for a program whose name ends with `kvm`, as on RHEL and Proxmox (`configure_accelerators` in QEMU
/// `softmmu/vl.c`); Debian's `kvm` says `-enable-kvm`.
fn default_accelerator(program: &str) -> Option<Accelerator> {
    program.ends_with("kvm").then_some(Accelerator::Kvm)
}

/// Each option with its value.
fn options<'a, 'b>(arguments: &'b [Argument<'a>]) -> impl Iterator<Item = (&'a str, &'b Argument<'a>)> {
    arguments.iter().zip(arguments.iter().skip(1)).filter_map(|(option, value)| {
        let name = option.text.strip_prefix('-')?;
        Some((name.strip_prefix('-').unwrap_or(name), value))
    })
}

/// `-name` (`qemu_opts` of it in QEMU `softmmu/vl.c`: `guest` is implied).
fn name(arguments: &[Argument<'_>]) -> Option<String> {
    let named = options(arguments).filter(|(option, _)| *option == "name");
    let names = named.filter_map(|(_, value)| last(&pairs(value, "guest"), "guest").map(|pair| pair.value.clone()));
    names.last()
}

/// The `-accel` beside an accelerator of the machine: QEMU takes one or the other (`configure_accelerators` in
/// `softmmu/vl.c`), and `-enable-kvm` is the machine's.
fn second_accelerator(arguments: &[Argument<'_>]) -> Option<Refused> {
    let (_, value) = options(arguments).find(|(option, _)| *option == "accel")?;
    Some(Refused { option: "-accel".to_owned(), value: value.text.to_owned(), origin: value.origin, from: None })
}

fn replaced_by_a_shell(arguments: &[Argument<'_>]) -> Replaced {
    let mut replaced = Replaced::default();
    let mut option: Option<&str> = None;
    for argument in arguments {
        let name = argument.text.strip_prefix('-').map(|name| name.strip_prefix('-').unwrap_or(name));
        if argument.is_replaced() {
            replaced.all.insert(argument.text.to_owned());
            let counts = match option {
                // A word of its own may be any option.
                None => true,
                Some(option) => counts(option, argument.text),
            };
            if counts {
                let option = option.map(|option| format!("-{option}")).unwrap_or_default();
                replaced.counting.push(NotModelled {
                    option,
                    value: argument.text.to_owned(),
                    origin: argument.origin,
                });
            }
        }
        option = match (option, name) {
            (None, Some(name)) if !super::parse::is_switch(name) => Some(name),
            _ => None,
        };
    }
    replaced
}

/// Whether an unknown part of an option's value may matter: of a device or back end that is not memory, only the kind
/// does.
fn counts(option: &str, value: &str) -> bool {
    let kind = value.split(',').next().unwrap_or_default();
    let kind = kind.strip_prefix("driver=").or_else(|| kind.strip_prefix("type=")).unwrap_or(kind);
    let memory = ["memory-backend-", "pc-dimm", "nvdimm", "virtio-mem", "virtio-pmem"];
    match option {
        "device" | "object" | "netdev" | "nic" | "blockdev" if !kind.contains(['$', '`', '{']) => {
            memory.iter().any(|driver| kind.starts_with(driver))
        }
        _ => !WITHOUT_EFFECT.contains(&option),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Launch {
        Launch::read(&Call::read(text.as_bytes()).expect("a call"))
    }

    #[test]
    fn a_guest_is_called_as_it_is_named() {
        for (text, name) in [
            ("kvm -name a", "a"),
            ("kvm -name guest=a,debug-threads=on", "a"),
            ("kvm -name 'a,,b,debug-threads=on' -S", "a,b"),
            ("kvm -name debug-threads=on", ""),
            ("kvm -name a -name b", "b"),
            ("kvm -S", ""),
        ] {
            assert_eq!(read(text).name, name, "{text}");
        }
    }

    #[test]
    fn the_program_tells_the_target() {
        for (program, target, other) in [
            ("/usr/bin/qemu-system-x86_64", QemuTarget::X86_64, None),
            ("qemu-system-i386", QemuTarget::I386, None),
            ("qemu-system-x86_64-spice", QemuTarget::X86_64, None),
            ("/usr/libexec/qemu-kvm", QemuTarget::X86_64, None),
            (".qemu-system-aarch64-wrapped", QemuTarget::X86_64, Some("aarch64")),
        ] {
            let launch = read(&format!("{program} -S"));
            assert_eq!((launch.line.target, launch.other_target()), (target, other), "{program}");
        }
    }

    #[test]
    fn a_program_called_kvm_is_accelerated() {
        for (text, expected) in [
            ("/usr/bin/kvm -S", Accelerator::Kvm),
            ("/usr/libexec/qemu-kvm -S", Accelerator::Kvm),
            ("qemu-system-x86_64 -S", Accelerator::Tcg),
            ("kvm -accel tcg", Accelerator::Tcg),
            ("kvm -machine accel=tcg,type=q35", Accelerator::Tcg),
        ] {
            assert_eq!(read(text).line.accelerator(), expected, "{text}");
        }
    }

    #[test]
    fn shell_substitutions_are_unknown_where_they_may_matter() {
        for (text, unknown) in [
            ("kvm -m $RAM", vec!["$RAM"]),
            ("kvm -cpu $CPU -name $NAME -drive file=$DISK -S", vec!["$CPU"]),
            ("kvm -S \"$@\"", vec!["$@"]),
            ("kvm -device virtio-net-pci,mac=$MAC -device $CARD -netdev tap,ifname=$IF", vec!["$CARD"]),
            ("kvm -object memory-backend-ram,id=a,size=${SIZE}", vec!["memory-backend-ram,id=a,size=${SIZE}"]),
            ("kvm -smp $(nproc)", vec!["$(nproc)"]),
            ("kvm -device virtio-net-pci,id=$NET -device virtio-net-pci,id=$NET", vec![]),
            (
                "kvm -device pc-dimm,memdev=$A,node=$B -device pc-dimm,memdev=$A",
                vec!["pc-dimm,memdev=$A,node=$B", "pc-dimm,memdev=$A"],
            ),
        ] {
            let line = read(text).line;
            let values: Vec<String> = line.not_modelled.into_iter().map(|entry| entry.value).collect();
            assert_eq!((values, line.refused), (unknown.into_iter().map(str::to_owned).collect(), vec![]), "{text}");
        }
    }
}
