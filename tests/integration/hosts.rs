//! `check` for several hosts at once: which host runs which guest.

use crate::common::validators::{Schema, Validators};
use crate::common::{command_lines, end_of, every_host, samples_folder, work_dir};
use serde_json::Value;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

fn command(hosts: &[PathBuf], arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_iova-preflight"));
    command.args(["check", "--policy", "none"]).args(arguments).current_dir(env!("CARGO_MANIFEST_DIR"));
    hosts.iter().for_each(|host| _ = command.arg("--host").arg(host));
    command.env_remove("COLUMNS").stdin(Stdio::null());
    command
}

fn check(hosts: &[PathBuf], arguments: &[&str]) -> Output {
    command(hosts, arguments).output().expect("run iova-preflight")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("UTF-8")
}

fn document(hosts: &[PathBuf], arguments: &[&str]) -> Value {
    let output = check(hosts, &[&["--format", "json"], arguments].concat());
    serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {}", text(&output.stderr)))
}

fn guests(document: &Value) -> &Vec<Value> {
    document["guests"].as_array().expect("guests")
}

/// A folder with this many profiles, which carry the names `hv-01` and so on.
fn fleet(name: &str, count: usize) -> PathBuf {
    let folder = work_dir(&format!("hosts-{name}"));
    let profiles: Vec<PathBuf> = every_host().into_iter().filter(|host| host.is_file()).collect();
    for number in 1..=count {
        let facts = fs::read_to_string(&profiles[number % profiles.len()]).expect("a profile");
        let text = format!("[host]\nname = \"hv-{number:02}\"\n\n{facts}");
        fs::write(folder.join(format!("{number:02}.toml")), text).expect("written");
    }
    folder
}

/// The samples as domain XML and command lines, and what is neither.
fn inputs() -> Vec<String> {
    let lines = command_lines().into_iter().map(|path| path.to_str().expect("UTF-8").to_owned());
    ["xml-samples".to_owned(), "README.md".to_owned()].into_iter().chain(lines).collect()
}

/// What several hosts say at once is what each says alone, guest by guest and host by host.
#[test]
fn each_guest_is_evaluated_for_each_host_as_for_that_host_alone() {
    let inputs = inputs();
    let inputs: Vec<&str> = inputs.iter().map(String::as_str).collect();
    for count in [2, 3, 10] {
        let folder = fleet("same", count);
        let all = document(std::slice::from_ref(&folder), &inputs);
        let alone: Vec<Value> =
            (1..=count).map(|number| document(&[folder.join(format!("{number:02}.toml"))], &inputs)).collect();
        assert_eq!(all["host"], alone[0]["host"], "the first");
        let hosts = all["hosts"].as_array().expect("hosts");
        assert_eq!(hosts.len(), count);
        for (nth, host) in hosts.iter().enumerate() {
            let mut host = host.clone();
            let name = host.as_object_mut().expect("an object").remove("name").expect("a name");
            assert_eq!(name, format!("hv-{:02}", nth + 1));
            assert_eq!(host, alone[nth]["host"]);
        }
        let mut expected = Vec::new();
        for input in 0..guests(&alone[0]).len() {
            for (nth, document) in alone.iter().enumerate() {
                let mut guest = guests(document)[input].clone();
                if guest["verdict"] != "error" {
                    guest["host"] = format!("hv-{:02}", nth + 1).into();
                    expected.push(guest);
                } else if nth == 0 {
                    expected.push(guest);
                }
            }
        }
        assert!(guests(&all) == &expected, "{count} hosts");
        let lines = check(&[folder], &[&["--format", "jsonl"], &inputs[..]].concat());
        assert_eq!(lines.status.code(), Some(2));
        let lines: Vec<Value> =
            text(&lines.stdout).lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
        assert!(lines == expected, "{count} hosts as lines");
    }
}

#[test]
fn documents_follow_the_schema() {
    let Some(validators) = Validators::install() else { return };
    let folder = work_dir("hosts-documents");
    let mut documents = Vec::new();
    for count in [2, 10] {
        let path = folder.join(format!("{count}.json"));
        let output = check(&[fleet("schema", count)], &["--format", "json", "xml-samples", "README.md"]);
        fs::write(&path, output.stdout).expect("written");
        documents.push(path);
    }
    let schema = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/check.schema.json");
    validators.assert_valid(&Schema::File(&schema), &documents);
}

/// One host is not a list, however it is named.
#[test]
fn one_host_stays_as_it_is() {
    let folder = fleet("one", 1);
    let file = [folder.join("01.toml")];
    for arguments in [&["xml-samples"][..], &["--format", "json", "xml-samples"], &["--format", "sarif", "xml-samples"]]
    {
        let (one, other) = (check(&file, arguments), check(std::slice::from_ref(&folder), arguments));
        assert!(one == other, "{arguments:?}");
        let twice = check(&[folder.clone(), file[0].clone()], arguments);
        assert!(one == twice, "a profile that is named twice is one host: {arguments:?}");
    }
    let document = document(&file, &["xml-samples"]);
    assert!(document.get("hosts").is_none() && guests(&document).iter().all(|guest| guest.get("host").is_none()));
}

#[test]
fn the_exit_status_is_that_of_the_worst_host() {
    let hosts = ["amd-epyc".into(), "intel-xeon".into()];
    for (inputs, status) in [
        (&["xml-samples/last-that-fits-978g.xml"][..], 0),
        // Runs on the second host only.
        (&["xml-samples/old-machine-1200g-gpu.xml"], 1),
        (&["xml-samples/last-that-fits-978g.xml", "xml-samples/default-cpu-1100g-database.xml"], 1),
        (&["xml-samples/old-machine-1200g-gpu.xml", "README.md"], 2),
    ] {
        for arguments in [&[][..], &["-q"], &["-v"], &["--format", "json"], &["--format", "jsonl"]] {
            let output = check(&hosts, &[arguments, inputs].concat());
            assert_eq!(output.status.code(), Some(status), "{arguments:?} {inputs:?}");
            let complaints = text(&output.stderr).lines().count();
            assert_eq!(complaints, usize::from(status == 2), "an input is read once: {}", text(&output.stderr));
            assert!(arguments != ["-q"] || output.stdout.is_empty());
        }
    }
}

#[test]
fn standard_input_is_read_once_for_all_hosts() {
    let mut command = command(&["amd-epyc".into(), "intel-xeon".into()], &["--format", "jsonl", "-"]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("run iova-preflight");
    let sample = fs::read(samples_folder().join("old-machine-1200g-gpu.xml")).expect("a sample");
    child.stdin.take().expect("a pipe").write_all(&sample).expect("written");
    assert_eq!(end_of(&mut child).code(), Some(1));
    let output = text(&child.wait_with_output().expect("its output").stdout);
    let verdicts: Vec<(String, String)> = output
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).expect("JSON"))
        .map(|guest| (guest["host"].to_string(), guest["verdict"].to_string()))
        .collect();
    let expected = [("amd-epyc", "fixable"), ("intel-xeon", "pass")];
    assert_eq!(verdicts, expected.map(|(host, verdict)| (format!("\"{host}\""), format!("\"{verdict}\""))));
}

#[test]
fn the_table_names_the_hosts_that_run_each_guest() {
    let hosts = ["amd-epyc".into(), "amd-turin-ht-ignore".into(), "intel-xeon".into()];
    let inputs = ["xml-samples/last-that-fits-978g.xml", "xml-samples/old-machine-1200g-gpu.xml"];
    let output = check(&hosts, &inputs);
    assert_eq!(
        text(&output.stdout),
        "guest        amd-epyc  amd-turin-ht-ignore  intel-xeon  runs on\n\
         ml-train-03  fixable   pass                 pass        amd-turin-ht-ignore, intel-xeon\n    \
         fixable on amd-epyc: ram-in-reserved-range; fix: machine pc-q35-7.1\n\
         redis-978    pass      pass                 pass        all\n\n\
         2 domains, 3 hosts: 1 run on some, 1 run on all\n\
         amd-epyc: 1 pass, 1 fixable\n\
         amd-turin-ht-ignore: 2 pass\n\
         intel-xeon: 2 pass\n\
         1 can be fixed; to see how, run `iova-preflight fix --host HOST` (several hosts: one fix for all of them)\n\
         for details, add -v, or run `iova-preflight explain ram-in-reserved-range`\n"
    );
    assert!(output.stderr.is_empty(), "{}", text(&output.stderr));
    let verbose = text(&check(&hosts, &[&["-v"], &inputs[..]].concat()).stdout);
    assert_eq!(verbose.matches("= host: intel-xeon\n").count(), 2, "a page for each guest and host: {verbose}");
    assert!(verbose.ends_with(&text(&output.stdout)), "{verbose}");
}

/// What a terminal of so many columns shows.
#[test]
fn lines_fit_into_terminals() {
    for count in [2, 3, 10] {
        let folder = [fleet("terminal", count)];
        for columns in [40, 80, 120] {
            let output = command(&folder, &["xml-samples"]).env("COLUMNS", columns.to_string()).output().expect("runs");
            let text = text(&output.stdout);
            for line in text.lines().filter(|line| !line.trim_end_matches(',').ends_with('`')) {
                assert!(line.chars().count() <= columns, "{count} hosts, {columns} columns: {line}");
            }
            let guests: Vec<&str> = text.lines().filter(|line| line.starts_with("ml-train-03 ")).collect();
            assert_eq!(guests.len(), 1, "{text}");
            // Ten hosts have no room for a column each in 80.
            let cells: usize =
                ["blocked", "fixable", "pass"].iter().map(|verdict| guests[0].matches(verdict).count()).sum();
            assert!(columns == 40 || cells == if columns == 80 && count == 10 { 0 } else { count }, "{guests:?}");
        }
    }
}

#[test]
fn output_is_the_same_however_many_are_evaluated_at_once() {
    let folder = [fleet("jobs", 3)];
    for arguments in [&[][..], &["-v"], &["--format", "json"], &["--format", "jsonl"]] {
        let one = check(&folder, &[arguments, &["--jobs", "1", "xml-samples", "README.md"]].concat());
        let many = check(&folder, &[arguments, &["--jobs", "7", "xml-samples", "README.md"]].concat());
        assert!(one == many, "{arguments:?}");
    }
}

#[test]
fn hosts_are_labelled_by_name_then_file_then_path() {
    let folder = work_dir("hosts-names");
    for name in ["a", "b"] {
        fs::create_dir(folder.join(name)).expect("made");
    }
    let write = |path: &str, text: &str| fs::write(folder.join(path), text).expect("written");
    write("a/same.toml", "");
    write("b/same.toml", "");
    write("b/other.toml", "[host]\nname = \"epyc-1.example.com\"");
    write("b/unnamed.toml", "[host]\nname = \"\"");
    let names = |hosts: &[PathBuf]| -> Vec<String> {
        let document = document(hosts, &["xml-samples/arm-guest.xml"]);
        let hosts = document["hosts"].as_array().expect("hosts").iter();
        let names: Vec<String> = hosts.map(|host| host["name"].as_str().expect("a name").to_owned()).collect();
        let guests = guests(&document).iter().map(|guest| guest["host"].as_str().expect("a host").to_owned());
        assert_eq!(names, guests.collect::<Vec<_>>());
        names.iter().map(|name| name.replace(&format!("{}/", folder.display()), "")).collect()
    };
    let (a, b) = (folder.join("a"), folder.join("b"));
    assert_eq!(names(&["intel-xeon".into(), b.clone()]), ["intel-xeon", "epyc-1.example.com", "same", "unnamed"]);
    assert_eq!(names(&[b.clone(), a]), ["epyc-1.example.com", "b/same.toml", "unnamed", "a/same.toml"]);
    // A host that is named like the path by which another one is told apart.
    let taken = folder.join("b/same.toml");
    write("like-a-path.toml", &format!("[host]\nname = \"{}\"", taken.display()));
    let hosts = [folder.join("a/same.toml"), taken, folder.join("like-a-path.toml")];
    assert_eq!(names(&hosts), ["a/same.toml", "b/same.toml", "b/same.toml (2)"]);
}

/// "pass" on a host of which too little is known is not the same as on one that was looked at.
#[test]
fn what_a_verdict_depends_on_is_said_for_each_host() {
    let folder = work_dir("hosts-unknown");
    let unknown = folder.join("empty.toml");
    fs::write(&unknown, "").expect("written");
    let known = samples_folder().join("hosts/debian-13-turin.toml");
    let guest = "xml-samples/old-machine-1200g-gpu.xml";
    let printed = text(&check(&[unknown.clone(), known.clone()], &[guest]).stdout);
    let said = printed.split_whitespace().collect::<Vec<_>>().join(" ");
    for fact in ["physical address bits, which are unknown", "ranges the host's IOMMU reserves, which are unknown"] {
        assert!(said.contains("pass on empty: depends on"), "{printed}");
        assert!(said.contains(fact), "{printed}");
    }
    assert!(!said.contains("on debian-13-turin:") && !said.contains("on all:"), "{printed}");
    // What depends on nothing is not said.
    let printed = text(&check(&[unknown.clone(), known.clone()], &["xml-samples/arm-guest.xml"]).stdout);
    assert!(!printed.contains("depends"), "{printed}");
    // Of many, those that are not shown are counted.
    let many = folder.join("guests");
    fs::create_dir(&many).expect("made");
    for number in 0..120 {
        fs::copy(samples_folder().join("old-machine-1200g-gpu.xml"), many.join(format!("{number:03}.xml")))
            .expect("copied");
    }
    let many = many.to_str().expect("UTF-8");
    let printed = text(&check(&[unknown.clone(), known.clone()], &[many]).stdout);
    assert!(printed.contains("of those not shown, 70 depend on unknown facts"), "{printed}");
    // `fix` does not claim more.
    let fix = |hosts: &[&Path]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_iova-preflight"));
        command.args(["fix", "--policy", "none", guest]).current_dir(env!("CARGO_MANIFEST_DIR"));
        hosts.iter().for_each(|host| _ = command.arg("--host").arg(host));
        text(&command.output().expect("run iova-preflight").stderr)
    };
    let said = fix(&[&unknown, &known]);
    assert!(said.contains("nothing to fix\n1 guest depends on unknown facts"), "{said}");
    let epyc = samples_folder().join("hosts/debian-12-epyc.toml");
    fs::write(&unknown, "[qemu]\nversion = \"10.0\"\n").expect("written");
    let said = fix(&[&unknown, &epyc]);
    let note = "  note: on empty: whether it starts depends on";
    assert!(said.contains("pc-q35-7.1\n") && said.contains(note), "{said}");
}

#[test]
fn a_folder_is_its_toml_files() {
    let folder = fleet("folder", 2);
    fs::write(folder.join("README.md"), "no profile").expect("written");
    fs::write(folder.join(".01.toml.swp"), "no profile").expect("written");
    fs::write(folder.join(".#hidden.toml"), "no profile").expect("written");
    fs::create_dir(folder.join("older.toml")).expect("made");
    fs::write(folder.join("older.toml/broken.toml"), "no profile").expect("written");
    let names: Vec<Value> = document(std::slice::from_ref(&folder), &["xml-samples/arm-guest.xml"])["hosts"]
        .as_array()
        .expect("hosts")
        .iter()
        .map(|host| host["name"].clone())
        .collect();
    assert_eq!(names, ["hv-01", "hv-02"]);
}

/// With a profile that cannot be read, nothing is evaluated.
#[test]
fn a_profile_that_is_none_ends_the_run() {
    let empty = work_dir("hosts-empty");
    let broken = fleet("broken", 2);
    fs::write(broken.join("015.toml"), "[cpu]\nvendor = \"AuthenticAMD\"\nphys_bits = many\n").expect("written");
    let pipe = fleet("pipe", 2);
    let made = Command::new("mkfifo").arg(pipe.join("03.toml")).status().expect("mkfifo");
    assert!(made.success());
    let dangling = fleet("dangling", 2);
    std::os::unix::fs::symlink("nowhere", dangling.join("03.toml")).expect("a link");
    for (hosts, complaint) in [
        (vec![empty.clone()], format!("host profiles {}: no *.toml in this folder", empty.display())),
        (vec!["amd-epyc".into(), empty.clone()], "no *.toml in this folder".to_owned()),
        (vec![broken.clone()], format!("{}/015.toml:3:13: ", broken.display())),
        (vec![dangling.clone()], format!("{}/03.toml: ", dangling.display())),
        (vec![pipe.clone()], format!("{}/03.toml: not a regular file", pipe.display())),
        (vec!["amd-epyc".into(), "epyc".into()], "host profile epyc: neither a file nor one of".to_owned()),
    ] {
        for format in ["human", "json", "jsonl"] {
            let output = check(&hosts, &["--format", format, "xml-samples"]);
            let said = text(&output.stderr);
            assert_eq!((output.status.code(), text(&output.stdout).as_str()), (Some(2), ""), "{hosts:?} {said}");
            assert!(said.contains(&complaint) && said.lines().count() == 1, "{said}");
        }
    }
}

/// What `fix` says of a sample for these hosts, and how it ends.
fn fixed(sample: &str, hosts: &[&str]) -> (Option<i32>, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_iova-preflight"));
    command.args(["fix", "--policy", "none", "--diff"]).arg(samples_folder().join(sample));
    for host in hosts {
        let file = samples_folder().join(format!("hosts/{host}.toml"));
        command.arg("--host").arg(if file.exists() { file } else { host.into() });
    }
    let output = command.output().expect("run iova-preflight");
    (output.status.code(), text(&output.stderr))
}

/// Each of these is what QEMU needs on the host that asks for the most.
#[test]
fn a_fix_for_several_hosts_is_one_that_all_of_them_accept() {
    let (epyc, turin, xeon, jammy) = ("debian-12-epyc", "debian-13-turin", "ubuntu-noble-xeon", "ubuntu-jammy-epyc");
    for (sample, hosts, changes) in [
        // The first host takes 42 bits, as QEMU moves RAM there, the second 41.
        ("default-cpu-1100g-database.xml", vec![epyc, xeon], "maxphysaddr emulate 42"),
        ("default-cpu-1100g-database.xml", vec![xeon, epyc], "maxphysaddr emulate 42"),
        // Runs on the others as it is.
        ("old-machine-1200g-gpu.xml", vec![turin, epyc, xeon], "machine pc-q35-6.2 → pc-q35-7.1"),
        // Its memory device would have another address on each.
        (
            "fixed-dimm-address-in-the-hole.xml",
            vec![epyc, xeon],
            "machine pc-q35-6.2 → pc-q35-7.1, memory device 0xfd00000000 → address chosen by QEMU",
        ),
    ] {
        let (status, said) = fixed(sample, &hosts);
        assert_eq!(status, Some(1), "{said}");
        assert!(said.contains(&format!("{sample}: {changes}\n")), "{hosts:?}: {said}");
    }
    // QEMU 6.2 there has no machine type that moves RAM.
    let (status, said) = fixed("old-machine-1200g-gpu.xml", &[epyc, jammy, xeon]);
    assert_eq!(status, Some(1));
    assert!(said.contains("no automatic fix\n  on ubuntu-jammy-epyc: no machine type of QEMU 6.2"), "{said}");
    assert!(!said.contains(&format!("on {epyc}")), "{said}");
}

/// Of the bits that a fix gives, the guest's own map may need fewer: 1538 GiB and the hole are 41 bits, and with RAM from
/// 1 TiB on, 2558 GiB are 42.
#[test]
fn a_fix_says_what_more_bits_are_for() {
    let (epyc, xeon) = ("debian-12-epyc", "ubuntu-noble-xeon");
    for (sample, hosts, reason) in [
        ("ubuntu-jammy-large.xml", vec!["amd-epyc"], "needs 41 phys-bits as it is, and 42 with RAM moved above 1 TiB"),
        ("default-cpu-1100g-database.xml", vec![xeon, epyc], "needs 42 phys-bits on debian-12-epyc"),
        ("gpu-eight-h100-1900g.xml", vec![epyc], "needs 42 phys-bits; with 44, firmware has room for 64-bit BARs"),
    ] {
        let (_, said) = fixed(sample, &hosts);
        assert!(said.contains(&format!("  note: the memory map {reason}\n")), "{said}");
    }
    let (_, said) = fixed("default-cpu-1100g-database.xml", &[epyc]);
    assert!(!said.contains("the memory map"), "{said}");
}

/// What was rewritten for several hosts runs on each of them; of what was not, a host is named that is in the way.
#[test]
fn what_is_fixed_for_several_hosts_runs_on_all_of_them() {
    let mut rewritten = 0;
    for (nth, hosts) in [
        vec!["amd-epyc".into(), "intel-xeon".into()],
        vec![samples_folder().join("hosts")],
        vec![fleet("fix", 3)],
        vec!["amd-turin-ht-ignore".into(), "amd-epyc".into(), samples_folder().join("hosts/debian-12-epyc.toml")],
    ]
    .iter()
    .enumerate()
    {
        let folder = work_dir(&format!("hosts-fixed-{nth}"));
        for sample in crate::common::samples() {
            fs::copy(&sample, folder.join(sample.file_name().expect("a file"))).expect("copied");
        }
        let stops = |guest: &Value| ["fixable", "blocked"].contains(&guest["verdict"].as_str().expect("a verdict"));
        let by_guest = |stopping: bool| -> std::collections::BTreeSet<String> {
            let document = document(hosts, &[folder.to_str().expect("UTF-8")]);
            let guests = guests(&document).iter().filter(|guest| stops(guest) == stopping);
            guests.map(|guest| guest["source"].as_str().expect("a source").to_owned()).collect()
        };
        let before = by_guest(true);
        let mut fix = Command::new(env!("CARGO_BIN_EXE_iova-preflight"));
        fix.args(["fix", "--policy", "none", "--in-place"]).arg(&folder);
        hosts.iter().for_each(|host| _ = fix.arg("--host").arg(host));
        let said = text(&fix.output().expect("run iova-preflight").stderr);
        let after = by_guest(true);
        for guest in &before {
            let original = fs::read(samples_folder().join(Path::new(guest).file_name().expect("a file")));
            let is_rewritten = fs::read(guest).expect("a guest") != original.expect("a sample");
            assert_eq!(is_rewritten, !after.contains(guest), "{guest}: {said}");
            let blocked = format!("{guest}: no automatic fix\n  on ");
            assert_eq!(said.contains(&blocked), !is_rewritten, "{guest}: {said}");
            rewritten += usize::from(is_rewritten);
        }
    }
    assert!(rewritten > 20, "{rewritten} guests");
}

/// Of very many hosts, counts of the first are shown, and one fix is found for all.
#[test]
fn very_many_hosts_are_counted() {
    let folder = fleet("very-many", 60);
    let output = text(&check(std::slice::from_ref(&folder), &["xml-samples/old-machine-1200g-gpu.xml"]).stdout);
    assert_eq!(output.lines().filter(|line| line.starts_with("hv-")).count(), 50, "{output}");
    assert!(output.contains("\nand 10 more hosts\n"), "{output}");
    let mut fix = Command::new(env!("CARGO_BIN_EXE_iova-preflight"));
    fix.args(["fix", "--policy", "none", "xml-samples/old-machine-1200g-gpu.xml", "--host"]).arg(&folder);
    let said = text(&fix.current_dir(env!("CARGO_MANIFEST_DIR")).output().expect("run iova-preflight").stderr);
    assert!(said.starts_with("hosts: hv-01, hv-02, hv-03 and 57 more\n"), "{said}");
}

#[test]
fn sarif_takes_one_host() {
    let output = check(&["amd-epyc".into(), "intel-xeon".into()], &["--format", "sarif", "xml-samples"]);
    assert_eq!((output.status.code(), text(&output.stdout).as_str()), (Some(2), ""));
    assert!(text(&output.stderr).contains("SARIF takes one --host"), "{}", text(&output.stderr));
}

/// libvirt's test driver has the name of this machine.
#[cfg(feature = "libvirt")]
#[test]
fn a_profile_with_a_name_is_for_the_libvirt_of_that_name() {
    let folder = work_dir("hosts-connect");
    let virsh = Command::new("virsh").args(["--connect", "test:///default", "hostname"]).output();
    let Some(virsh) = virsh.ok().filter(|output| output.status.success()) else {
        return crate::common::skip("virsh is missing");
    };
    let its = text(&virsh.stdout).trim().to_owned();
    fs::write(folder.join("its.toml"), format!("[host]\nname = {its:?}\n")).expect("written");
    fs::write(folder.join("other.toml"), "[host]\nname = \"another-host\"\n").expect("written");
    let run = |hosts: &[PathBuf]| check(hosts, &["--format", "json", "--connect", "test:///default"]);
    let hosts = |output: &Output| {
        let document: Value = serde_json::from_slice(&output.stdout).expect("JSON");
        let several = document["hosts"].as_array().cloned().unwrap_or_default();
        (document["host"]["source"].as_str().expect("a source").to_owned(), several.len())
    };
    let its_profile = folder.join("its.toml").display().to_string();
    let output = run(std::slice::from_ref(&folder));
    assert_eq!((output.status.code(), hosts(&output)), (Some(0), (its_profile.clone(), 0)));
    // One without a name is for all.
    assert_eq!(hosts(&run(&[folder.clone(), "amd-epyc".into()])), (its_profile, 2));
    assert_eq!(hosts(&run(&[folder.join("other.toml"), "amd-epyc".into()])), ("amd-epyc".to_owned(), 0));
    let output = run(&[folder.join("other.toml")]);
    assert_eq!(output.status.code(), Some(2));
    let said = text(&output.stderr);
    assert!(said.starts_with(&format!("test:///default: its host is called {its}, but ")), "{said}");
    assert!(said.contains("another-host"), "{said}");
}

/// A block of `docs/fleet.md`, by the language and its first line.
fn block(start: &str) -> String {
    let page = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/fleet.md")).expect("docs/fleet.md");
    let (before, rest) = page.split_once(start).unwrap_or_else(|| panic!("no {start} in docs/fleet.md"));
    let first = before.rsplit_once("```").expect("a block").1.split_once('\n').map_or("", |(_, line)| line).to_owned();
    first + start + rest.split_once("```").expect("the block ends").0
}

/// Runs a script in `folder` with our program, and an `ssh` that is this machine under each name but `epyc-9`.
fn run_here(folder: &Path, script: &str) -> Output {
    use std::os::unix::fs::PermissionsExt;
    let bin = folder.join("bin");
    fs::create_dir_all(&bin).expect("made");
    let ssh = "#!/bin/sh\nhost=${1#*@}; shift\n[ \"$host\" != epyc-9 ] || exit 255\n\
               sh -c \"$*\" | sed \"s/^name = .*/name = \\\"$host\\\"/\"\n";
    fs::write(bin.join("ssh"), ssh).expect("written");
    fs::set_permissions(bin.join("ssh"), fs::Permissions::from_mode(0o755)).expect("executable");
    let program = Path::new(env!("CARGO_BIN_EXE_iova-preflight")).parent().expect("a folder");
    let path = std::env::var("PATH").unwrap_or_default();
    let mut bash = Command::new("bash");
    bash.args(["-c", script])
        .current_dir(folder)
        .env("PATH", format!("{}:{}:{path}", bin.display(), program.display()));
    bash.output().expect("run bash")
}

#[test]
fn profiles_are_gathered_as_the_page_says() {
    let folder = work_dir("hosts-gathered");
    let script = block("mkdir -p hosts\n").replace("epyc-2 ", "epyc-2 epyc-9 ");
    assert!(script.contains("epyc-9"), "{script}");
    let output = run_here(&folder, &script);
    let mut names: Vec<String> = fs::read_dir(folder.join("hosts"))
        .expect("the folder")
        .map(|entry| entry.expect("an entry").file_name().into_string().expect("UTF-8"))
        .collect();
    names.sort();
    // A host that does not answer leaves nothing that would pass for a profile.
    assert_eq!(names, ["epyc-1.toml", "epyc-2.toml", "epyc-9.toml.new", "xeon-1.toml"], "{output:?}");
    let document = document(&[folder.join("hosts")], &["xml-samples/arm-guest.xml"]);
    let hosts: Vec<&str> = document["hosts"]
        .as_array()
        .expect("hosts")
        .iter()
        .map(|host| host["name"].as_str().expect("a name"))
        .collect();
    assert_eq!(hosts, ["epyc-1", "epyc-2", "xeon-1"]);
}

#[test]
fn the_playbook_is_well_formed_and_its_command_prints_a_profile() {
    let Some(validators) = Validators::install() else { return };
    let folder = work_dir("hosts-playbook");
    let path = folder.join("gather.yml");
    fs::write(&path, block("# gather.yml\n")).expect("written");
    let playbook = validators.yaml(&path);
    let play = &playbook[0];
    let tasks = play["tasks"].as_array().expect("tasks");
    let [describe, keep] = &tasks[..] else { panic!("{tasks:?}") };
    assert_eq!((&play["become"], &describe["changed_when"]), (&true.into(), &false.into()));
    let output = run_here(&folder, describe["ansible.builtin.command"].as_str().expect("a command"));
    assert!(output.status.success(), "{output:?}");
    let copy = &keep["ansible.builtin.copy"];
    assert_eq!(keep["delegate_to"], "localhost");
    let content = format!("{{{{ {}.stdout }}}}\n", describe["register"].as_str().expect("a name"));
    assert_eq!(copy["content"], content);
    assert_eq!(copy["dest"], "{{ playbook_dir }}/hosts/{{ inventory_hostname }}.toml");
    // Ansible takes the last line ends away, the content has one.
    fs::write(folder.join("gathered.toml"), text(&output.stdout).trim_end().to_owned() + "\n").expect("written");
    let output = check(&[folder.join("gathered.toml")], &["xml-samples/arm-guest.xml"]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
}
