//! What each command prints, compared with reviewed output: `tests/snapshots`, and the examples in the
//! README and in `docs`. `SNAPSHOTS=overwrite cargo test --test integration snapshots` writes what is printed now into
//! these files, for a person to read in the diff.

use crate::common;
use common::with_default_policy;
use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use snapbox::{Data, assert_data_eq};

const PROJECT: &str = env!("CARGO_MANIFEST_DIR");
const PROGRAM: &str = env!("CARGO_BIN_EXE_iova-preflight");

/// How one run is made.
struct Run<'a> {
    arguments: &'a [&'a str],
    folder: &'a Path,
    input: &'a [u8],
    columns: Option<u32>,
    /// Whether the policy of this machine is ignored.
    default_policy: bool,
}

impl<'a> Run<'a> {
    fn new(arguments: &'a [&'a str]) -> Self {
        Self { arguments, folder: Path::new(PROJECT), input: b"", columns: None, default_policy: true }
    }

    fn output(&self) -> Output {
        let mut command = Command::new(PROGRAM);
        let arguments = if self.default_policy { with_default_policy(self.arguments) } else { self.arguments.to_vec() };
        command.args(arguments).current_dir(self.folder);
        for variable in ["COLUMNS", "NO_COLOR", "CLICOLOR", "CLICOLOR_FORCE", "TERM"] {
            command.env_remove(variable);
        }
        if let Some(columns) = self.columns {
            command.env("COLUMNS", columns.to_string());
        }
        let pipes = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = pipes.spawn().expect("runs");
        // What does not read its input may have closed it.
        let _ = child.stdin.take().expect("a pipe").write_all(self.input);
        child.wait_with_output().expect("runs")
    }

    /// The run as somebody sees it who types the command.
    fn transcript(&self) -> String {
        let output = self.output();
        let mut text = format!("$ iova-preflight {}\n", self.arguments.join(" "));
        text += &visible(&output.stdout);
        if !output.stderr.is_empty() {
            let _ = write!(text, "[standard error]\n{}", visible(&output.stderr));
        }
        let _ = writeln!(text, "[exit status {}]", output.status.code().expect("a status"));
        text
    }
}

/// Text with escape sequences that can be seen.
fn visible(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("UTF-8").replace('\u{1b}', "␛")
}

fn snapshot(name: &str) -> Data {
    file(&Path::new("tests/snapshots").join(name))
}

fn file(path: &Path) -> Data {
    Data::read_from(&Path::new(PROJECT).join(path), None).raw()
}

#[test]
fn check() {
    for (name, arguments) in [
        (
            "check-many.txt",
            &[
                "check",
                "xml-samples/arm-guest.xml",
                "xml-samples/hotplug-without-numa.xml",
                "xml-samples/old-machine-1200g-gpu.xml",
                "xml-samples/old-machine-1200g-no-device.xml",
                "xml-samples/windows-gpu-hotplug-slots.xml",
                "--host",
                "amd-epyc",
            ][..],
        ),
        (
            "check-above-iommu-width.txt",
            &["check", "xml-samples/nested-600g.xml", "--host", "xml-samples/hosts/debian-13-core.toml"],
        ),
        ("check-verbose.txt", &["check", "-v", "xml-samples/last-that-fits-978g.xml", "--host", "amd-epyc"]),
        (
            "check-quiet.txt",
            &["check", "-q", "xml-samples/old-machine-1200g-gpu.xml", "README.md", "--host", "amd-epyc"],
        ),
        // With `-q`, requested documents are still printed.
        (
            "check-quiet-json.txt",
            &["check", "-q", "--format", "json", "xml-samples/arm-guest.xml", "--host", "amd-epyc"],
        ),
        ("fix-quiet.txt", &["fix", "-q", "xml-samples/old-machine-1200g-gpu.xml", "--host", "amd-epyc"]),
        ("check-errors.txt", &["check", "README.md", "no-such-file.xml", "src", "-", "--host", "amd-epyc"]),
        ("check-json.txt", &["check", "--format", "json", "xml-samples/ubuntu-jammy-large.xml", "--host", "amd-epyc"]),
        (
            "check-color.txt",
            &["check", "--color", "always", "xml-samples/vdpa-network.xml", "README.md", "--host", "amd-epyc"],
        ),
        ("check-no-such-host.txt", &["check", "xml-samples", "--host", "epyc"]),
    ] {
        assert_data_eq!(Run::new(arguments).transcript(), snapshot(name));
    }
    let arguments =
        ["check", "xml-samples/ubuntu-jammy-large.xml", "xml-samples/proxmox-import.xml", "--host", "amd-epyc"];
    for (name, columns) in [("check-40.txt", 40), ("check-60.txt", 60), ("check-80.txt", 80)] {
        let run = Run { columns: Some(columns), ..Run::new(&arguments) };
        assert_data_eq!(run.transcript(), snapshot(name));
    }
}

/// Guests that are to move: a line each, and what is in the way.
#[test]
fn check_of_migrations() {
    let arguments = [
        "check",
        "xml-samples/arm-guest.xml",
        "xml-samples/last-that-fits-978g.xml",
        "xml-samples/gpu-four-a30-64g.xml",
        "xml-samples/old-machine-1200g-gpu.xml",
        "README.md",
        "--from",
        "xml-samples/hosts/debian-13-turin.toml",
        "--to",
        "xml-samples/hosts/debian-12-epyc.toml",
        "--to",
        "xml-samples/hosts/ubuntu-noble-xeon.toml",
    ];
    for columns in [80, 120] {
        let run = Run { columns: Some(columns), ..Run::new(&arguments) };
        assert_data_eq!(run.transcript(), snapshot(&format!("check-migrations-{columns}.txt")));
    }
}

/// Guests on several hosts: a column for each if there is room.
#[test]
fn check_for_several_hosts() {
    let guests = [
        "check",
        "xml-samples/arm-guest.xml",
        "xml-samples/last-that-fits-978g.xml",
        "xml-samples/nova-sriov-1t.xml",
        "xml-samples/old-machine-1200g-gpu.xml",
        "xml-samples/proxmox-import.xml",
        "xml-samples/windows-gpu-hotplug-slots.xml",
    ];
    let three =
        ["debian-12-epyc", "debian-13-turin", "ubuntu-noble-xeon"].map(|name| format!("xml-samples/hosts/{name}.toml"));
    let three: Vec<&str> = three.iter().flat_map(|host| ["--host", host]).collect();
    let all = ["--host", "xml-samples/hosts"];
    for (name, hosts, columns) in [
        ("check-hosts-80.txt", &three[..], 80),
        ("check-hosts-120.txt", &three[..], 120),
        ("check-hosts-many-60.txt", &all[..], 60),
    ] {
        let arguments = [&guests[..], hosts].concat();
        assert_data_eq!(Run { columns: Some(columns), ..Run::new(&arguments) }.transcript(), snapshot(name));
    }
}

/// Each sample in a file of its own: on an AMD host where a passthrough device cannot reach all memory, and on an Intel
/// host.
#[test]
fn samples() {
    let mut names = BTreeSet::new();
    for sample in common::samples() {
        let name = format!("{}.txt", sample.file_stem().expect("a file").display());
        let path = sample.strip_prefix(PROJECT).expect("a part of the project").to_str().expect("UTF-8");
        let on = |host| Run::new(&["check", path, "--host", host]).transcript();
        let text = on("xml-samples/hosts/debian-12-epyc.toml") + &on("intel-xeon");
        assert_data_eq!(text, snapshot(&format!("samples/{name}")));
        names.insert(name);
    }
    let folder = Path::new(PROJECT).join("tests/snapshots/samples");
    let there = fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").file_name());
    let there: BTreeSet<String> = there.map(|name| name.into_string().expect("UTF-8")).collect();
    assert_eq!(there, names, "snapshots and samples");
}

/// Without the rules, which are what `explain` says.
#[test]
fn sarif() {
    let arguments = ["check", "--format", "sarif", "xml-samples/vdpa-network.xml", "README.md", "--host", "amd-epyc"];
    let output = Run::new(&arguments).output();
    let mut log: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    log["runs"][0]["tool"]["driver"]["rules"] = "…".into();
    assert_data_eq!(serde_json::to_string_pretty(&log).expect("JSON") + "\n", snapshot("check-sarif.txt"));
}

#[test]
fn fix() {
    let sample = fs::read(Path::new(PROJECT).join("xml-samples/ubuntu-jammy-large.xml")).expect("a sample");
    for (name, arguments) in [
        ("fix-diff.txt", &["fix", "xml-samples/ubuntu-jammy-large.xml", "--host", "amd-epyc"][..]),
        ("fix-filter.txt", &["fix", "-", "--host", "amd-epyc"]),
        ("fix-blocked.txt", &["fix", "xml-samples/proxmox-import.xml", "--host", "amd-epyc"]),
        ("fix-nothing.txt", &["fix", "xml-samples/last-that-fits-978g.xml", "--host", "amd-epyc"]),
        ("fix-color.txt", &["fix", "--color", "always", "xml-samples/large-pcihole64.xml", "--host", "amd-epyc"]),
    ] {
        let run = Run { input: &sample, ..Run::new(arguments) };
        assert_data_eq!(run.transcript(), snapshot(name));
    }
    let folder = common::work_dir("snapshot-in-place");
    fs::write(folder.join("guest.xml"), &sample).expect("written");
    let run = Run { folder: &folder, ..Run::new(&["fix", "--in-place", "guest.xml", "--host", "amd-epyc"]) };
    let first = run.transcript();
    // What was fixed needs nothing more.
    assert_data_eq!(first + &run.transcript(), snapshot("fix-in-place.txt"));
}

/// QEMU command lines: one long line, a script, a log.
#[test]
fn command_lines() {
    let host = ["--host", "amd-epyc"];
    let log = "argv-samples/libvirt.log";
    for (name, arguments, columns) in [
        ("proxmox-80.txt", &["check", "argv-samples/proxmox-showcmd.args"][..], 80),
        ("proxmox-120.txt", &["check", "argv-samples/proxmox-showcmd.args"], 120),
        ("script-80.txt", &["check", "argv-samples/script.sh"], 80),
        ("log-80.txt", &["check", log], 80),
        ("log-json.txt", &["check", "--format", "json", log], 80),
        ("log-map-120.txt", &["map", log], 120),
        ("many-80.txt", &["check", "argv-samples/script.sh", log, "xml-samples/arm-guest.xml"], 80),
        ("fix-diff.txt", &["fix", "argv-samples/proxmox-showcmd.args", "argv-samples/script.sh"], 80),
        ("fix-in-place.txt", &["fix", "--in-place", "argv-samples/script.sh"], 80),
        ("input.txt", &["check", "--input", "xml", "argv-samples/script.sh"], 80),
    ] {
        let arguments: Vec<&str> = arguments.iter().chain(&host).copied().collect();
        let run = Run { columns: Some(columns), ..Run::new(&arguments) };
        assert_data_eq!(run.transcript(), snapshot(&format!("argv/{name}")));
    }
    let read = |name: &str| fs::read_to_string(Path::new(PROJECT).join("argv-samples").join(name)).expect("a sample");
    // As `/proc/PID/cmdline` has it, one that nothing is wrong with, and three that cannot be read.
    for (name, input) in [
        ("fix-filter.txt", read("script.sh")),
        ("fix-filter-log.txt", read("libvirt.log")),
        ("fix-filter-nothing.txt", "kvm -m 4G # small\n".to_owned()),
        ("error-quote.txt", "kvm \\\n  -name 'a\n".to_owned()),
        ("error-neither.txt", "name: db\nmemory: 1200 GiB\n".to_owned()),
        ("error-nul.txt", "kvm -name a\0b".to_owned()),
    ] {
        let arguments = ["fix", "-", "--host", "amd-epyc"];
        let run = Run { input: input.as_bytes(), ..Run::new(&arguments) };
        assert_data_eq!(run.transcript(), snapshot(&format!("argv/{name}")));
    }
    let cmdline = "qemu-system-x86_64\0-name\0db\0-machine\0pc-q35-7.2,accel=kvm\0-m\x001100G\0";
    let arguments = ["check", "-", "--host", "amd-epyc"];
    let run = Run { input: cmdline.as_bytes(), columns: Some(80), ..Run::new(&arguments) };
    assert_data_eq!(run.transcript(), snapshot("argv/cmdline-80.txt"));
}

#[test]
fn host() {
    let run = Run { columns: Some(80), ..Run::new(&["host", "--list"]) };
    assert_data_eq!(run.transcript(), snapshot("host-list.txt"));
    assert_data_eq!(Run::new(&["host", "--list", "--format", "json"]).transcript(), snapshot("host-list-json.txt"));
}

#[test]
fn explain() {
    for (name, arguments) in [
        ("explain.txt", &["explain"][..]),
        ("explain-rule.txt", &["explain", "ram-in-reserved-range"]),
        ("explain-no-such-rule.txt", &["explain", "ram-in-range"]),
        ("explain-help.txt", &["explain", "--help"]),
        ("explain-text.txt", &["explain", "kvm: -device vfio-pci,host=0000:01:00.0: VFIO_MAP_DMA failed: Bad address"]),
        ("explain-unknown-text.txt", &["explain", "the guest", "does not start"]),
    ] {
        assert_data_eq!(Run { columns: Some(80), ..Run::new(arguments) }.transcript(), snapshot(name));
    }
    let log = include_bytes!("../data/vfio.txt");
    for (name, arguments) in
        [("explain-log.txt", &["explain", "-"][..]), ("explain-log-json.txt", &["explain", "-", "--format", "json"])]
    {
        assert_data_eq!(Run { columns: Some(80), input: log, ..Run::new(arguments) }.transcript(), snapshot(name));
    }
}

#[test]
fn map() {
    let sample = |name: &'static str| ["map", name, "--host", "amd-epyc"];
    let (collides, moves) =
        (sample("xml-samples/old-machine-1200g-gpu.xml"), sample("xml-samples/elastic-virtio-mem.xml"));
    for (name, arguments, columns) in [
        ("map-80.txt", collides, 80),
        ("map-120.txt", collides, 120),
        ("map-hotplug-80.txt", moves, 80),
        ("map-not-applicable.txt", sample("xml-samples/arm-guest.xml"), 80),
    ] {
        assert_data_eq!(Run { columns: Some(columns), ..Run::new(&arguments) }.transcript(), snapshot(name));
    }
}

/// A root folder in which the hook can be put in place.
fn hook_root(name: &str) -> PathBuf {
    let root = common::work_dir(name);
    let cache = root.join("var/cache/libvirt/qemu/capabilities");
    fs::create_dir_all(&cache).expect("the folder");
    let libvirt = "<qemuCaps><emulator>/usr/bin/qemu-system-x86_64</emulator><selfvers>9000000</selfvers>\
                   <version>7002000</version><arch>x86_64</arch></qemuCaps>";
    fs::write(cache.join("x.xml"), libvirt).expect("written");
    root
}

#[test]
fn hook() {
    let root = hook_root("snapshot-hook");
    let shown = |arguments: &[&str]| {
        let root = root.to_str().expect("UTF-8");
        let arguments = [arguments, &["--root", root]].concat();
        Run::new(&arguments).transcript().replace(root, "ROOT")
    };
    let program = "/usr/bin/iova-preflight-hook";
    let mut text = shown(&["hook", "status"]);
    text += &shown(&["hook", "install", "--program", program]);
    text += &shown(&["hook", "install", "--program", program]);
    text += &shown(&["hook", "uninstall"]);
    text += &shown(&["hook", "uninstall"]);
    let link = root.join("etc/libvirt/hooks/qemu.d/50-iova-preflight");
    fs::create_dir_all(link.parent().expect("a folder")).expect("the folder");
    symlink("/usr/bin/somebody-else", &link).expect("a link");
    text += &shown(&["hook", "install", "--program", program]);
    assert_data_eq!(text, snapshot("hook.txt"));
}

#[test]
fn hook_status() {
    use std::os::unix::fs::MetadataExt;
    let root = hook_root("snapshot-hook-status");
    let program = root.join("usr/bin/iova-preflight-hook");
    fs::create_dir_all(program.parent().expect("a folder")).expect("the folder");
    // An ELF header without program headers: nothing starts it but the kernel.
    let mut header = [0; 64];
    header[..7].copy_from_slice(b"\x7fELF\x02\x01\x01");
    fs::write(&program, header).expect("written");
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).expect("executable");
    if fs::metadata(&program).expect("written").uid() != 0 {
        common::skip("snapshot of hook status: not root, so that the hook would not be root's");
        return;
    }
    let root = root.to_str().expect("UTF-8");
    Run::new(&["hook", "install", "--program", "/usr/bin/iova-preflight-hook", "--root", root]).output();
    let text = Run::new(&["hook", "status", "--root", root]).transcript().replace(root, "ROOT");
    assert_data_eq!(text, snapshot("hook-status.txt"));
}

#[test]
fn mistakes_of_usage() {
    for (name, arguments) in [
        ("no-command", &[][..]),
        ("no-such-command", &["chek", "xml-samples"]),
        ("no-path", &["check"]),
        ("no-such-option", &["check", "--hots", "amd-epyc", "xml-samples"]),
        ("no-such-format", &["check", "--format", "xml", "a.xml"]),
        ("diff-and-in-place", &["fix", "--in-place", "--diff", "a.xml"]),
        // Each of these was once taken for something else.
        ("check-domain-without-connect", &["check", "--domain", "a", "xml-samples"]),
        ("fix-domain-without-connect", &["fix", "--in-place", "--domain", "a", "xml-samples"]),
        ("dry-run-of-a-file", &["fix", "--dry-run", "a.xml"]),
        ("standard-input-and-a-file", &["fix", "-", "a.xml"]),
        ("standard-input-in-place", &["fix", "--in-place", "-"]),
        ("sarif-of-guests", &["check", "--connect", "test:///default", "--format", "sarif"]),
    ] {
        let text = Run { columns: Some(100), ..Run::new(arguments) }.transcript();
        assert_data_eq!(text, snapshot(&format!("usage/{name}.txt")));
    }
}

/// The help of every command, in two lengths, each in a file of its own.
#[test]
fn help() {
    for command in common::commands(PROGRAM) {
        for (option, columns, begins) in [("--help", 100, "help"), ("-h", 80, "h")] {
            let arguments: Vec<&str> = command.iter().map(String::as_str).chain([option]).collect();
            let run = Run { columns: Some(columns), ..Run::new(&arguments) };
            let name = [&[begins.to_owned()], &command[..]].concat().join("-");
            assert_data_eq!(run.transcript(), snapshot(&format!("help/{name}.txt")));
        }
    }
}

/// A text with the output of its examples as it is now: `<!-- example: ARGUMENTS -->`, then a block of text whose first
/// line is the command.
fn with_examples(text: &str) -> (String, usize) {
    // At the beginning of a line; elsewhere it is only mentioned.
    const MARKER: &str = "\n<!-- example: ";
    let mut parts = text.split(MARKER);
    let mut new = parts.next().unwrap_or_default().to_owned();
    let mut examples = 0;
    for part in parts {
        let (arguments, rest) = part.split_once(" -->\n```text\n").expect("a block after the marker");
        let (_, rest) = rest.split_once("\n```").expect("the block ends");
        let words: Vec<&str> = arguments.split(' ').collect();
        let output = Run::new(&words).output();
        let output = String::from_utf8(output.stdout).expect("UTF-8");
        let _ = write!(
            new,
            "{MARKER}{arguments} -->\n```text\n$ iova-preflight {arguments}\n{}\n```{rest}",
            output.trim_end()
        );
        examples += 1;
    }
    (new, examples)
}

#[test]
fn the_readme_does_not_lie() {
    let mut all = 0;
    let docs =
        fs::read_dir(Path::new(PROJECT).join("docs")).expect("docs").map(|entry| entry.expect("readable").path());
    let docs = docs.filter(|path| path.extension().is_some_and(|extension| extension == "md"));
    for path in std::iter::once(Path::new(PROJECT).join("README.md")).chain(docs) {
        let text = fs::read_to_string(&path).expect("readable");
        let (new, examples) = with_examples(&text);
        all += examples;
        assert_data_eq!(new, file(&path));
    }
    assert!(all > 0, "no example found");
}
