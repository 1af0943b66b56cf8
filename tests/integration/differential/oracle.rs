//! The real programs: what libvirt makes of a domain, and what QEMU builds from that.

use crate::common::{PATIENCE, Profile};
use serde_json::{Value, json};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Mutex, PoisonError};

const URI: &str = "qemu:///system";
const EMULATOR: &str = "/usr/bin/qemu-system-x86_64";
const OTHER_EMULATOR: &str = "/usr/bin/qemu-system-i386";
const ONE_TIB: u64 = 1 << 40;
const GIB: u64 = 1 << 30;

/// Held while a machine is asked that takes a good part of this machine's memory.
static LARGE: Mutex<()> = Mutex::new(());

/// What a machine may take of this machine's memory for it to be asked at all, and without waiting for its turn.
const MOST_MEMORY: u64 = 13 * GIB / 2;
const LITTLE_MEMORY: u64 = GIB / 4;

/// The programs that answer, in namespaces of their own, and what they are.
pub struct Oracle {
    /// Ends with its standard input, and all of the stack with it.
    stack: Child,
    _input: ChildStdin,
    /// Where the stack's root is, and a process in its namespaces.
    root: String,
    process: String,
    pub qemu_version: String,
    pub libvirt_version: String,
    /// The QEMU that libvirt builds its command lines for: it resolves the machine aliases.
    pub machines: Vec<String>,
    pub pc: String,
    pub q35: String,
    /// CPU models that both libvirt and QEMU know.
    pub models: Vec<String>,
    /// Models that libvirt knows and QEMU lacks.
    pub lacking: Vec<String>,
    /// Models of QEMU that libvirt does not know.
    pub unknown: Vec<String>,
    pub i386: bool,
}

impl Oracle {
    /// Starts the programs in `tree`, the root of a Debian or of this machine, or says what is missing. They see the
    /// files in `cases`.
    pub fn start(tree: &Path, cases: &Path) -> Result<Self, String> {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join(file!()).with_file_name("stack");
        let mut stack = Command::new("unshare")
            .args(["--mount", "--pid", "--net", "--fork", "--kill-child", "--propagation", "private"])
            .arg(script)
            .args([tree, cases])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|e| format!("unshare: {e}"))?;
        let input = stack.stdin.take().ok_or("no standard input")?;
        let stdout = stack.stdout.take().ok_or("no standard output")?;
        let (sender, line) = channel();
        std::thread::spawn(move || drop(sender.send(BufReader::new(stdout).lines().next())));
        let Ok(Some(Ok(line))) = line.recv_timeout(PATIENCE) else {
            let _ = stack.kill();
            let mut why = String::new();
            let _ = stack.stderr.take().map(|mut stderr| stderr.read_to_string(&mut why));
            let _ = stack.wait();
            return Err(format!("{}: {}", tree.display(), why.trim().replace('\n', " ")));
        };
        let (root, process) = line.split_once(' ').ok_or("the stack does not name its root")?;
        let mut oracle = Oracle {
            stack,
            _input: input,
            root: root.to_owned(),
            process: process.to_owned(),
            qemu_version: String::new(),
            libvirt_version: String::new(),
            machines: Vec::new(),
            pc: String::new(),
            q35: String::new(),
            models: Vec::new(),
            lacking: Vec::new(),
            unknown: Vec::new(),
            i386: false,
        };
        oracle.look_around()?;
        Ok(oracle)
    }

    fn look_around(&mut self) -> Result<(), String> {
        let version = self.output("virsh", &["-c", URI, "version", "--daemon"])?;
        let daemon = version.lines().find_map(|line| line.strip_prefix("Running against daemon: "));
        self.libvirt_version = daemon.ok_or("virsh does not name the daemon's version")?.trim().to_owned();
        (self.machines, self.pc, self.q35) = machines(&self.output(EMULATOR, &["-M", "help"])?)?;
        let help = self.output(EMULATOR, &["-cpu", "help"])?;
        let theirs = cpu_models(&help);
        let models = self.output("virsh", &["-c", URI, "cpu-models", "x86_64"])?;
        let ours: Vec<&str> = models.lines().map(str::trim).filter(|model| !model.is_empty()).collect();
        let all = |names: &[&str], others: &[&str], both: bool| -> Vec<String> {
            names.iter().filter(|name| others.contains(name) == both).map(|name| (*name).to_owned()).collect()
        };
        self.models = all(&ours, &theirs, true);
        self.lacking = all(&ours, &theirs, false);
        self.unknown = all(&theirs, &ours, false);
        self.i386 = self.output(OTHER_EMULATOR, &["-version"]).is_ok();
        let mut probe = Qemu::start(self.command(EMULATOR), &["-machine".to_owned(), "none".to_owned()])?;
        let version = probe.ask("query-version", &Value::Null).map_err(|_| probe.stderr())?;
        let number = |part: &str| version["qemu"][part].as_u64().unwrap_or_default();
        self.qemu_version = format!("{}.{}.{}", number("major"), number("minor"), number("micro"));
        Ok(())
    }

    /// A host with this CPU that has these programs.
    pub fn profile(&self, vendor: String, phys_bits: u64, kvm: bool) -> Profile {
        Profile {
            vendor,
            phys_bits,
            kvm,
            qemu: self.qemu_version.clone(),
            pc: self.pc.clone(),
            q35: self.q35.clone(),
            libvirt: self.libvirt_version.clone(),
        }
    }

    /// The root of the stack, as the stack sees it.
    pub fn root(&self) -> PathBuf {
        Path::new("/proc").join(&self.process).join("root").join(self.root.trim_start_matches('/'))
    }

    /// A program of the stack.
    fn command(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["--target", &self.process, "--mount", "chroot", &self.root]);
        command.args(["env", "-i", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C", "HOME=/root", program]);
        command
    }

    /// The standard output of a program that succeeds, or what it says instead.
    fn output(&self, program: &str, arguments: &[&str]) -> Result<String, String> {
        let output = self.command(program).args(arguments).output().map_err(|e| format!("nsenter: {e}"))?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        Err(String::from_utf8_lossy(&output.stderr).trim().replace('\n', " "))
    }

    /// The command line libvirt builds, or why it refuses the domain.
    pub fn command_line(&self, xml: &Path) -> Result<Vec<String>, String> {
        let name = xml.file_name().unwrap_or_default().to_string_lossy();
        let path = format!("/run/cases/{name}");
        let line = self.output("virsh", &["-c", URI, "domxml-to-native", "qemu-argv", "--xml", &path]);
        if let Err(error) = &line {
            // An error that is not about the domain.
            let gone = ["failed to connect to the hypervisor", "End of file while reading", "Disconnected from"];
            assert!(!gone.iter().any(|text| error.contains(text)), "libvirtd went away: {error}");
        }
        line.map(|line| split(&line))
    }

    /// What QEMU builds from such a command line.
    pub fn layout(&self, line: &[String]) -> Value {
        let arguments = relevant(line);
        let memory = memory_taken(&arguments);
        if memory > MOST_MEMORY {
            return json!({"not_asked": format!("it would take {} MiB of this machine", memory >> 20)});
        }
        let _turn = (memory > LITTLE_MEMORY).then(|| LARGE.lock().unwrap_or_else(PoisonError::into_inner));
        let emulator = if line.iter().any(|word| word == OTHER_EMULATOR) { OTHER_EMULATOR } else { EMULATOR };
        self.started(emulator, &arguments)
    }

    /// What QEMU builds from arguments as they are.
    pub fn built(&self, arguments: &[String]) -> Value {
        self.started(EMULATOR, arguments)
    }

    fn started(&self, emulator: &str, arguments: &[String]) -> Value {
        let mut qemu = match Qemu::start(self.command(emulator), arguments) {
            Ok(qemu) => qemu,
            Err(error) => return json!({"starts": false, "error": error}),
        };
        match measure(&mut qemu) {
            Ok(cell) => cell,
            Err(Silent) => {
                let stderr = qemu.stderr();
                let gone = ["unsupported machine type", "no such machine"].iter().any(|text| stderr.contains(text));
                match gone {
                    true => json!({"machine_missing": true}),
                    false => json!({"starts": false, "error": stderr}),
                }
            }
        }
    }
}

/// The versioned machine types of `-M help` with the aliases, and what the aliases mean.
fn machines(help: &str) -> Result<(Vec<String>, String, String), String> {
    let mut names = vec!["pc".to_owned(), "q35".to_owned()];
    let first = |line: &str| line.split_whitespace().next().unwrap_or_default().to_owned();
    names.extend(help.lines().map(first).filter(|name| name.starts_with("pc-i440fx-") || name.starts_with("pc-q35-")));
    let alias = |name: &str| {
        let line = help.lines().find(|line| first(line) == name)?;
        Some(line.split_once("(alias of ")?.1.trim_end_matches(')').to_owned())
    };
    let resolved = |name: &str| alias(name).ok_or_else(|| format!("{EMULATOR} has no alias {name}"));
    Ok((names, resolved("pc")?, resolved("q35")?))
}

impl Drop for Oracle {
    fn drop(&mut self) {
        let _ = self.stack.kill();
        let _ = self.stack.wait();
    }
}

/// The names in `-cpu help`: lines of the model, before QEMU 10 after the word x86.
fn cpu_models(help: &str) -> Vec<&str> {
    let lines = help.lines().skip_while(|line| !line.starts_with("Available CPUs")).skip(1);
    let lines = lines.take_while(|line| !line.trim().is_empty());
    lines.filter_map(|line| line.split_whitespace().find(|word| *word != "x86")).collect()
}

/// What a machine takes of this one: KVM eight bytes for each page it maps (`kvm_alloc_memslot_metadata` in Linux
/// `arch/x86/kvm/x86.c`), QEMU three bits for each page (`ram_block_add` in `system/physmem.c`).
fn memory_taken(arguments: &[String]) -> u64 {
    /// A slot of more is refused before anything is taken for it.
    const LARGEST_SLOT: u64 = (8 << 40) + (4 << 30);
    let sizes = || {
        arguments
            .iter()
            .filter_map(|word| word.split_once("\"size\":"))
            .filter_map(|(_, rest)| rest.split(|c: char| !c.is_ascii_digit()).next()?.parse::<u64>().ok())
    };
    let kvm = arguments.iter().any(|word| word == "kvm");
    let mapped: u64 = sizes().filter(|&size| size < LARGEST_SLOT).sum();
    let all: u64 = sizes().sum();
    all / 4096 * 3 / 8 + if kvm { mapped / 512 } else { 0 }
}

/// Splits a command line as virsh prints it: words, some in single or double quotes.
fn split(line: &str) -> Vec<String> {
    let (mut words, mut word, mut quote, mut any) = (Vec::new(), String::new(), None, false);
    let mut chars = line.chars();
    while let Some(c) = chars.next() {
        match (quote, c) {
            (Some(q), c) if c == q => quote = None,
            (Some('\''), c) => word.push(c),
            (_, '\\') => word.extend(chars.next()),
            (Some(_), c) => word.push(c),
            (None, '\'' | '"') => (quote, any) = (Some(c), true),
            (None, c) if c.is_whitespace() => {
                if any || !word.is_empty() {
                    words.push(std::mem::take(&mut word));
                }
                any = false;
            }
            (None, c) => word.push(c),
        }
    }
    if any || !word.is_empty() {
        words.push(word);
    }
    words
}

/// The arguments that shape the memory map and the CPU, without everything that needs the guest's
/// disks, networks and sockets.
fn relevant(line: &[String]) -> Vec<String> {
    const DEVICES: &[&str] = &[
        "pc-dimm",
        "nvdimm",
        "virtio-mem",
        "virtio-pmem",
        "pcie-root-port",
        "pcie-to-pci-bridge",
        "pci-bridge",
        "pxb",
        "ioh3420",
        "i82801b11-bridge",
        "x3130-upstream",
        "xio3130-downstream",
        "intel-iommu",
        "amd-iommu",
        "AMDVI-PCI",
        "virtio-iommu",
    ];
    let mut kept = Vec::new();
    let mut words = line.iter().peekable();
    while let Some(option) = words.next() {
        if option == "-no-acpi" {
            // The same, as every version of QEMU still understands it.
            kept.extend(["-machine", "acpi=off"].map(str::to_owned));
            continue;
        }
        let Some(value) = words.next_if(|word| !word.starts_with('-')) else {
            continue;
        };
        let keep = match option.trim_start_matches('-') {
            "machine" | "M" | "accel" | "cpu" | "m" | "numa" | "smp" | "global" | "set" => true,
            "object" => value.contains("memory-backend"),
            "device" => DEVICES.iter().any(|driver| value.contains(driver)),
            _ => false,
        };
        if keep {
            let value = if option == "-machine" { without_firmware(value) } else { unfilled(value) };
            kept.extend([option.clone(), value]);
        }
    }
    kept
}

/// A machine without the flash whose files are the guest's.
fn without_firmware(value: &str) -> String {
    value.split(',').filter(|part| !part.starts_with("pflash")).collect::<Vec<_>>().join(",")
}

/// A backend that stores nothing: the file becomes one that QEMU itself makes, as large as it has to be and gone when
/// it ends, and no page is taken for it, huge or not.
fn unfilled(value: &str) -> String {
    const PATH: &str = "\"mem-path\":\"";
    let mut value = value.replace("\"prealloc\":true", "\"prealloc\":false");
    let mut huge = value.contains("\"hugetlb\":true");
    if let Some((before, after)) = value.split_once(PATH).and_then(|(before, rest)| {
        let (path, after) = rest.split_once('"')?;
        let pages = ["/dev/hugepages-2M", "/dev/hugepages-1G"].into_iter().find(|folder| path.starts_with(folder));
        huge |= pages.is_some();
        Some((format!("{before}{PATH}{}\"", pages.unwrap_or("/tmp")), after))
    }) {
        value = before + after;
    }
    if huge && !value.contains("\"reserve\":") {
        value = value.replacen('{', "{\"reserve\":false,", 1);
    }
    value
}

/// The facts of a command line in the shape they are recorded in.
pub fn libvirt_facts(line: &[String]) -> Value {
    let value = |option: &str| line.windows(2).find(|pair| pair[0] == option).map(|pair| pair[1].as_str());
    let machine = value("-machine").and_then(|machine| machine.split(',').next());
    let memory = value("-m").unwrap_or_default();
    let bytes = |number: &str| match number.strip_suffix('k') {
        Some(kib) => kib.parse::<u64>().ok().map(|kib| kib << 10),
        None => number.parse::<u64>().ok().map(|mib| mib << 20),
    };
    let part = |key: &str| memory.split(',').find_map(|part| part.strip_prefix(key)?.strip_prefix('='));
    let hole = line.iter().find_map(|word| word.split_once(".pci-hole64-size=")).and_then(|(_, size)| {
        let kib: u64 = size.strip_suffix('K')?.parse().ok()?;
        kib.checked_mul(1024)
    });
    json!({
        "machine": machine,
        "accel": value("-accel"),
        "cpu": value("-cpu"),
        "m": memory,
        "ram": bytes(part("size").unwrap_or(memory)),
        "slots": part("slots").map_or(Some(0), |slots| slots.parse::<u64>().ok()),
        "maxmem": part("maxmem").and_then(bytes),
        "pci_hole64_size": hole,
    })
}

/// QEMU went away instead of answering.
pub struct Silent;

/// A machine that starts stopped, to be asked over QMP.
pub struct Qemu {
    child: Child,
    input: Option<ChildStdin>,
    lines: Receiver<String>,
    errors: Receiver<String>,
}

impl Qemu {
    pub fn start(mut command: Command, arguments: &[String]) -> Result<Self, String> {
        let mut child = command
            // An option that misses its value has to be the last.
            .args(["-S", "-display", "none", "-nodefaults", "-qmp", "stdio"])
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|e| format!("nsenter: {e}"))?;
        let (line_sender, lines) = channel();
        let (error_sender, errors) = channel();
        if let Some(stdout) = child.stdout.take() {
            std::thread::spawn(move || {
                BufReader::new(stdout).lines().map_while(Result::ok).for_each(|line| drop(line_sender.send(line)));
            });
        }
        if let Some(mut stderr) = child.stderr.take() {
            std::thread::spawn(move || {
                let mut text = Vec::new();
                let _ = stderr.read_to_end(&mut text);
                let _ = error_sender.send(String::from_utf8_lossy(&text).into_owned());
            });
        }
        let input = child.stdin.take();
        let mut qemu = Qemu { child, input, lines, errors };
        // A broken machine is silent here and fails at the first command.
        let _ = qemu.ask("qmp_capabilities", &Value::Null);
        Ok(qemu)
    }

    pub fn ask(&mut self, command: &str, arguments: &Value) -> Result<Value, Silent> {
        let mut question = json!({"execute": command});
        if arguments.is_object() {
            question["arguments"] = arguments.clone();
        }
        let input = self.input.as_mut().ok_or(Silent)?;
        writeln!(input, "{question}").and_then(|()| input.flush()).map_err(|_| Silent)?;
        loop {
            let line = self.lines.recv_timeout(PATIENCE).map_err(|_| Silent)?;
            let answer: Value = serde_json::from_str(&line).map_err(|_| Silent)?;
            if !answer["return"].is_null() {
                return Ok(answer["return"].clone());
            }
            if !answer["error"].is_null() {
                return Ok(Value::Null);
            }
        }
    }

    /// What QEMU said on stderr, without its warnings.
    pub fn stderr(&mut self) -> String {
        self.input = None;
        let _ = self.child.kill();
        let text = self.errors.recv_timeout(PATIENCE).unwrap_or_default();
        let lines = text.lines().filter(|line| !line.contains("warning: "));
        let lines: Vec<&str> = lines
            .map(|line| {
                line.split_once(": ").map_or(line, |(program, rest)| {
                    if program.starts_with("qemu-system") || program.starts_with("/usr/bin/qemu-system") {
                        rest
                    } else {
                        line
                    }
                })
            })
            .collect();
        lines.join(" ")
    }
}

impl Drop for Qemu {
    fn drop(&mut self) {
        self.input = None;
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn measure(qemu: &mut Qemu) -> Result<Value, Silent> {
    let cpus = qemu.ask("query-cpus-fast", &Value::Null)?;
    let path = cpus[0]["qom-path"].clone();
    let vendor = qemu.ask("qom-get", &json!({"path": path, "property": "vendor"}))?;
    let bits = qemu.ask("qom-get", &json!({"path": path, "property": "phys-bits"}))?;
    let mut hole = Value::Null;
    for bridge in ["/machine/q35", "/machine/i440fx"] {
        let size = qemu.ask("qom-get", &json!({"path": bridge, "property": "pci-hole64-size"}))?;
        hole = if size.is_null() { hole } else { size };
    }
    let tree = qemu.ask("human-monitor-command", &json!({"command-line": "info mtree"}))?;
    let devices = qemu.ask("query-memory-devices", &Value::Null)?;
    let tree = tree.as_str().unwrap_or_default();
    let (below, above) = (region(tree, "alias ram-below-4g"), region(tree, "alias ram-above-4g"));
    let window = region(tree, "device-memory");
    let starts_high = |region: &Option<(u64, u64)>| region.is_some_and(|(start, _)| start >= ONE_TIB);
    let as_json = |region: Option<(u64, u64)>| region.map(|(start, end)| json!({"start": start, "end": end}));
    Ok(json!({
        "starts": true,
        "vendor": vendor,
        "phys_bits": bits,
        "pci_hole64_size": hole,
        "relocated": starts_high(&above) || above.is_none() && starts_high(&window),
        "ram_below_4g": as_json(below),
        "ram_above_4g": as_json(above),
        "device_memory": as_json(window),
        "memory_devices": devices.as_array().map(|all| all.iter().map(device).collect::<Vec<_>>()),
    }))
}

/// The first range of `info mtree` with this description. Newer versions also print headings
/// that hold the description, in no certain order.
fn region(tree: &str, description: &str) -> Option<(u64, u64)> {
    let described = tree.lines().filter(|line| line.contains(description));
    described.filter_map(range).next()
}

/// The range at the beginning of a line.
fn range(line: &str) -> Option<(u64, u64)> {
    let (start, end) = line.split_whitespace().next()?.split_once('-')?;
    Some((u64::from_str_radix(start, 16).ok()?, u64::from_str_radix(end, 16).ok()?))
}

/// One memory device with the size of its region: `size` of virtio-mem is only what is plugged.
fn device(device: &Value) -> Value {
    let data = &device["data"];
    let first = |names: [&str; 2]| names.iter().map(|name| &data[*name]).find(|v| !v.is_null()).cloned();
    json!({"type": device["type"], "addr": first(["addr", "memaddr"]), "size": first(["max-size", "size"])})
}
