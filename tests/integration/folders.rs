//! Folders that hold libvirt's other XML next to domains, as every host has them.

use std::path::Path;
use std::process::{Command, Output};

use crate::common::{samples_folder, skip, work_dir};

fn run(arguments: &[&str], folder: &Path) -> Output {
    Command::new(env!("CARGO_BIN_EXE_iova-preflight"))
        .args(arguments)
        .args(["--policy", "none", "--host", "amd-epyc"])
        .arg(folder)
        .output()
        .expect("run iova-preflight")
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn write(folder: &Path, name: &str, text: &str) {
    let path = folder.join(name);
    std::fs::create_dir_all(path.parent().expect("a folder")).expect("create a folder");
    std::fs::write(path, text).expect("write a file");
}

/// A sample domain that starts, or one that does not.
fn domain(starts: bool) -> String {
    let name = if starts { "last-that-fits-978g.xml" } else { "default-cpu-1100g-database.xml" };
    std::fs::read_to_string(samples_folder().join(name)).expect("a sample")
}

/// The outermost elements of what libvirt 12.8 keeps on disk and virsh prints: the schemas in `src/conf/schemas`, the
/// state files below `/run/libvirt`, and its caches.
const ROOTS: [&str; 28] = [
    "network",
    "networkstatus",
    "networkport",
    "pool",
    "poolstate",
    "storagepoolCapabilities",
    "sources",
    "volume",
    "secret",
    "filter",
    "filterbinding",
    "filterbindingstatus",
    "interface",
    "device",
    "domainsnapshot",
    "domaincheckpoint",
    "domainbackup",
    "domstatus",
    "cookie",
    "capabilities",
    "domainCapabilities",
    "qemuCaps",
    "nbdkitCaps",
    "cpu",
    "cpus",
    "sysinfo",
    "hostdev",
    "disk",
];

#[test]
fn other_xml_of_libvirt_is_passed_over_in_folders() {
    let folder = work_dir("folders-libvirt");
    for root in ROOTS {
        write(
            &folder,
            &format!("{root}/a.xml"),
            &format!("<!--\nnot for editing\n-->\n\n<{root}>\n  <name>a</name>\n</{root}>\n"),
        );
    }
    for command in ["check", "fix"] {
        let output = run(&[command], &folder);
        assert_eq!(output.status.code(), Some(0), "{command}: {}", stderr(&output));
        let said = stdout(&output) + &stderr(&output);
        assert!(said.contains(&format!("no domain in {}", folder.display())), "{command}: {said}");
        assert!(said.contains(&format!("skipped {} libvirt XML files", ROOTS.len())), "{command}: {said}");
        let output = run(&[command, "-q"], &folder);
        assert_eq!(
            (output.status.code(), stdout(&output) + &stderr(&output)),
            (Some(0), String::new()),
            "{command} -q"
        );
    }
    write(&folder, "qemu/good.xml", &domain(true));
    let output = run(&["check"], &folder);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert!(!stdout(&output).contains("no domain in"), "{}", stdout(&output));
    write(&folder, "qemu/bad.xml", &domain(false));
    for command in ["check", "fix"] {
        let output = run(&[command], &folder);
        assert_eq!(output.status.code(), Some(1), "{command}: {}", stderr(&output));
    }
    let output = run(&["check", "--format", "json"], &folder);
    let document: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(document["guests"].as_array().map(Vec::len), Some(2));
    assert_eq!(document["passed_over"], ROOTS.len());
    let output = run(&["fix", "--in-place"], &folder);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
}

#[test]
fn xml_that_is_not_libvirts_stays_an_error() {
    for (name, text) in [
        ("other.xml", "<svg/>"),
        ("malformed.xml", "<network><name>a</network>"),
        ("namespace.xml", "<network xmlns='urn:other'/>"),
        ("empty.xml", ""),
    ] {
        let folder = work_dir("folders-other");
        write(&folder, "network.xml", "<network/>");
        write(&folder, name, text);
        for command in ["check", "fix"] {
            let output = run(&[command], &folder);
            assert_eq!(output.status.code(), Some(2), "{command} {name}");
            assert!(stderr(&output).contains(name), "{command}: {}", stderr(&output));
            assert!(!(stdout(&output) + &stderr(&output)).contains("no domain in"), "{command} {name}");
        }
    }
    let empty = work_dir("folders-empty");
    write(&empty, "README", "nothing");
    for command in ["check", "fix"] {
        assert_eq!(run(&[command], &empty).status.code(), Some(2), "{command}");
    }
}

#[test]
fn naming_other_xml_says_what_it_is() {
    let folder = work_dir("folders-named");
    for (root, what, instead) in [
        ("network", "a virtual network, not a domain", "virsh dumpxml --inactive NAME"),
        ("domstatus", "the state of a running domain, not a domain", "virsh dumpxml NAME"),
        ("domainsnapshot", "a snapshot of a domain, not a domain", "virsh dumpxml --inactive NAME"),
        ("cookie", "the cookie of a save image, not a domain", "virsh save-image-dumpxml FILE"),
        ("capabilities", "the capabilities of a host, not a domain", "iova-preflight host"),
    ] {
        let file = folder.join(format!("{root}.xml"));
        write(&folder, &format!("{root}.xml"), &format!("\n <{root}/>"));
        for command in ["check", "fix", "map"] {
            let output = run(&[command], &file);
            assert_eq!(output.status.code(), Some(2), "{command} {root}");
            let said = stderr(&output);
            assert!(
                said.contains(&format!("{root}.xml:2:2: ")) && said.contains(what) && said.contains(instead),
                "{said}"
            );
        }
    }
}

/// What a real virsh prints of libvirt's test driver, all of which somebody may have kept in a folder.
#[test]
fn xml_printed_by_virsh_is_skipped() {
    let virsh = |arguments: &[&str]| {
        let output = Command::new("virsh").args(["-q", "-c", "test:///default"]).args(arguments).output().ok()?;
        output.status.success().then(|| stdout(&output))
    };
    if virsh(&["uri"]).is_none() {
        return skip("virsh with libvirt's test driver is not installed");
    }
    let folder = work_dir("folders-virsh");
    let commands: [&[&str]; 7] = [
        &["capabilities"],
        &["net-dumpxml", "default"],
        &["pool-dumpxml", "default-pool"],
        &["iface-dumpxml", "eth1"],
        &["nodedev-dumpxml", "computer"],
        &["cpu-models", "x86_64"],
        &["sysinfo"],
    ];
    let mut printed = 0;
    for arguments in commands {
        let Some(text) = virsh(arguments).filter(|text| text.trim_start().starts_with('<')) else { continue };
        write(&folder, &format!("{}.xml", arguments[0]), &text);
        printed += 1;
    }
    assert!(printed >= 5, "virsh printed {printed} documents");
    let output = run(&["check"], &folder);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert!(stdout(&output).contains(&format!("skipped {printed} libvirt XML files")), "{}", stdout(&output));
    write(&folder, "domain.xml", &virsh(&["dumpxml", "test"]).expect("the domain"));
    assert_eq!(run(&["check"], &folder).status.code(), Some(0));
}

/// A folder that cannot be read completely must not be reported as passing.
#[test]
fn a_folder_that_may_not_be_read_is_an_error() {
    use std::os::unix::fs::PermissionsExt;
    let folder = work_dir("folders-closed");
    write(&folder, "network.xml", "<network/>");
    write(&folder, "secret/domain.xml", &domain(true));
    let closed = std::fs::Permissions::from_mode(0o000);
    std::fs::set_permissions(folder.join("secret"), closed).expect("close the folder");
    // root reads it all the same.
    let nobody = ["--reuid=65534", "--clear-groups", env!("CARGO_BIN_EXE_iova-preflight")];
    let is_root = std::os::unix::fs::MetadataExt::uid(&std::fs::metadata("/proc/self").expect("a process")) == 0;
    for command in ["check", "fix"] {
        let arguments = [command, "--policy", "none", "--host", "amd-epyc"];
        let mut program = Command::new(if is_root { "setpriv" } else { nobody[2] });
        program.args(nobody.iter().filter(|_| is_root)).args(arguments).arg(&folder);
        let output = program.output().expect("run iova-preflight");
        if output.status.code() == Some(127) {
            skip("no other user can run the program");
            break;
        }
        assert_eq!(output.status.code(), Some(2), "{command}: {}", stderr(&output));
        let said = format!("{}: Permission denied", folder.join("secret").display());
        assert!(stderr(&output).starts_with(&said), "{command}: {}", stderr(&output));
    }
    let open = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(folder.join("secret"), open).expect("open the folder");
}
