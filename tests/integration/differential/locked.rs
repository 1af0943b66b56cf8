//! How much memory libvirt lets QEMU lock, asked of each stack. QEMU is not started: a script in its place prints its
//! limit. If root may not raise limits on this machine, libvirt's error names the limit.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

use iova_preflight::libvirt::locked_memory::{LockLimit, limit};
use iova_preflight::{Document, Host, Version, builtin_host, read_domain};

use super::tree;
use crate::common::{note, skip, work_dir};

/// The script in the place of QEMU, which still answers libvirt's probes.
const EMULATOR: &str = "#!/bin/sh\n\
    case \" $* \" in *guest=locked-*) grep 'Max locked memory' /proc/self/limits >&2; exit 1 ;; esac\n\
    exec /usr/bin/qemu-system-x86_64 \"$@\"\n";

/// What libvirt says of a guest without a limit (`VIR_DOMAIN_MEMORY_PARAM_UNLIMITED`).
const UNLIMITED: u64 = 9_007_199_254_740_991;

/// The guests, each with the first libvirt that takes it, its devices by letter, and its other parts.
const GUESTS: [(&str, &str, &str); 20] = [
    ("7.0", "", ""),
    ("7.0", "p", ""),
    ("7.0", "pp", ""),
    ("7.0", "ppi", ""),
    ("7.0", "m", ""),
    ("7.0", "mm", ""),
    ("7.0", "pmi", ""),
    ("7.0", "n", ""),
    ("7.0", "nn", ""),
    ("7.0", "nni", ""),
    ("7.0", "pnn", ""),
    ("7.0", "v", ""),
    ("7.0", "vv", ""),
    ("7.0", "vvi", ""),
    ("7.0", "pnv", ""),
    ("7.0", "pmnvvi", ""),
    // Shared memory is a demand of disks.
    ("9.8", "pvd", "<memoryBacking><source type='memfd'/><access mode='shared'/></memoryBacking>"),
    ("7.0", "pv", "<memtune><hard_limit unit='MiB'>77</hard_limit></memtune>"),
    ("7.0", "p", "<memoryBacking><locked/></memoryBacking>"),
    (
        "7.0",
        "pvM",
        "<maxMemory slots='4' unit='GiB'>8</maxMemory><cpu><model>qemu64</model><numa>\
         <cell id='0' cpus='0' memory='1050000' unit='KiB'/></numa></cpu>",
    ),
];

#[test]
fn locked_memory_is_that_of_this_machine() {
    limits_match("machine");
}

#[test]
fn locked_memory_is_that_of_debian_trixie() {
    limits_match("trixie");
}

#[test]
fn locked_memory_is_that_of_debian_sid() {
    limits_match("sid");
}

fn limits_match(stack: &str) {
    let work = work_dir(&format!("locked-{stack}"));
    let emulator = work.join("emulator");
    std::fs::write(&emulator, EMULATOR).expect("write the emulator");
    std::fs::set_permissions(&emulator, std::fs::Permissions::from_mode(0o755)).expect("an executable");
    let guests: Vec<(String, &str, String)> = GUESTS
        .iter()
        .enumerate()
        .map(|(number, (since, devices, parts))| {
            let name = format!("locked-{number}");
            let xml = domain(&name, devices, parts);
            std::fs::write(work.join(format!("{name}.xml")), &xml).expect("write a domain");
            (name, *since, xml)
        })
        .collect();
    let names: String = guests.iter().map(|(name, ..)| format!("{name}\n")).collect();
    let answers = match tree(stack).and_then(|tree| ask(&tree, &work, &names)) {
        Ok(answers) => answers,
        Err(why) => return skip(&format!("no libvirt of {stack} to ask what it lets QEMU lock: {why}")),
    };
    let version = answers[""].lines().find_map(|line| line.strip_prefix("Running against daemon: "));
    let version: Version = version.and_then(|version| version.trim().parse().ok()).expect("a version");
    let mut host = builtin_host("amd-epyc").expect("built in");
    host.libvirt = Some(version);
    let inherited = told(&answers["locked-0"]);
    let mut asked = 0;
    for (name, since, xml) in &guests {
        if version < since.parse().expect("a version") {
            continue;
        }
        let answer = &answers[name.as_str()];
        assert_eq!(told(answer), ours(xml, &host).or(inherited), "libvirt {version}: {xml}\n{answer}");
        asked += 1;
    }
    note(&format!("libvirt {version}: {asked} limits of locked memory are the same"));
}

/// A guest of 1 GiB.
fn domain(name: &str, devices: &str, parts: &str) -> String {
    let mut number = 0;
    let devices: String = devices
        .chars()
        .map(|device| {
            number += 1;
            let address = format!("<address domain='0' bus='0x41' slot='0x10' function='{number}'/>");
            match device {
                'p' => {
                    format!("<hostdev mode='subsystem' type='pci' managed='no'><source>{address}</source></hostdev>")
                }
                'm' => format!(
                    "<hostdev mode='subsystem' type='mdev' model='vfio-pci'><source>\
                     <address uuid='a297db4a-f4c2-11e6-90f6-d3b88d6c952{number}'/></source></hostdev>"
                ),
                'n' => format!(
                    "<disk type='nvme' device='disk'><driver name='qemu' type='raw'/><source type='pci' managed='no' \
                     namespace='1'>{address}</source><target dev='vd{device}{number}' bus='virtio'/></disk>"
                )
                .replace(&format!("vdn{number}"), ["vda", "vdb", "vdc", "vdd"][number - 1]),
                // Any file will do: it is never used.
                'v' => "<interface type='vdpa'><source dev='/dev/null'/></interface>".to_owned(),
                'd' => "<disk type='vhostvdpa' device='disk'><driver name='qemu' type='raw' cache='none'/>\
                        <source dev='/dev/zero'/><target dev='vdx' bus='virtio'/></disk>"
                    .to_owned(),
                'i' => "<iommu model='intel'><driver caching_mode='on' intremap='on'/></iommu>".to_owned(),
                'M' => "<memory model='dimm'><target><size unit='MiB'>2047</size><node>0</node></target></memory>"
                    .to_owned(),
                other => panic!("{other}"),
            }
        })
        .collect();
    format!(
        "<domain type='qemu'><name>{name}</name><memory unit='GiB'>1</memory>{parts}<vcpu>1</vcpu>\
         <os><type arch='x86_64' machine='q35'>hvm</type></os><features><acpi/><ioapic driver='qemu'/></features>\
         <devices><emulator>/run/cases/emulator</emulator>{devices}<memballoon model='none'/></devices></domain>"
    )
}

/// The output for each of these guests, and for the versions under the name ""; or what is missing.
fn ask(tree: &Path, work: &Path, names: &str) -> Result<BTreeMap<String, String>, String> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join(file!()).with_file_name("limits");
    let mut child = Command::new("unshare")
        .args(["--mount", "--pid", "--net", "--fork", "--kill-child", "--propagation", "private"])
        .arg(script)
        .args([tree, work])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|e| format!("unshare: {e}"))?;
    let mut input = child.stdin.take().ok_or("no standard input")?;
    // A command that does not read its input says why.
    let _ = input.write_all(names.as_bytes());
    drop(input);
    let output = child.wait_with_output().map_err(|e| e.to_string())?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).trim().replace('\n', " "));
    }
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let answers = text.split("\n@").enumerate().map(|(index, part)| match (index, part.split_once('\n')) {
        (0, _) | (_, None) => (String::new(), part.to_owned()),
        (_, Some((name, said))) => (name.to_owned(), said.to_owned()),
    });
    Ok(answers.collect())
}

/// The limit in what libvirt, or what runs in the place of QEMU, says.
fn told(answer: &str) -> Option<u64> {
    let would =
        answer.split("cannot limit locked memory of process ").nth(1).and_then(|rest| rest.split(" to ").nth(1));
    let has = answer.split("Max locked memory").nth(1).map(str::trim_start);
    let number = would.or(has)?;
    if number.starts_with("unlimited") {
        return Some(UNLIMITED);
    }
    number.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

/// The limit that we compute; nothing if libvirt sets none.
fn ours(xml: &str, host: &Host) -> Option<u64> {
    let document = Document::parse(xml.as_bytes()).expect("well-formed");
    let domain = read_domain(&document).expect("a domain");
    match limit(&domain, host).expect("a limit") {
        LockLimit::Hard(bytes, _) | LockLimit::Computed(bytes) => Some(bytes),
        LockLimit::Unlimited => Some(UNLIMITED),
        LockLimit::Inherited => None,
    }
}
