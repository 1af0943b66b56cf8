//! `check --from HOST --to HOST…`: what becomes of guests that are to move.

use crate::common::validators::{Schema, Validators};
use crate::common::work_dir;
use serde_json::Value;
use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};

const TURIN: &str = "xml-samples/hosts/debian-13-turin.toml";
const MILAN: &str = "xml-samples/hosts/debian-12-epyc.toml";
const JAMMY: &str = "xml-samples/hosts/ubuntu-jammy-epyc.toml";

fn check(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_iova-preflight"));
    command.args(["check", "--policy", "none"]).args(arguments).current_dir(env!("CARGO_MANIFEST_DIR"));
    command.stdin(Stdio::null()).output().expect("run iova-preflight")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("UTF-8")
}

fn document(arguments: &[&str]) -> Value {
    let output = check(&[&["--format", "json"], arguments].concat());
    serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {}", text(&output.stderr)))
}

/// A command line with an alias, which a start there reads anew: as pc-q35-6.2 the guest fits 40 bits, as pc-q35-7.2
/// QEMU moves its RAM.
fn aliased(folder: &Path) -> String {
    let path = folder.join("aliased.args");
    fs::write(&path, "qemu-system-x86_64 -accel kvm -M q35 -cpu EPYC -m 985G\n").expect("written");
    path.to_str().expect("UTF-8").to_owned()
}

#[test]
fn the_exit_status_says_whether_every_guest_can_move() {
    let guest = aliased(&work_dir("migrations-status"));
    for (arguments, status, says) in [
        (&["--from", MILAN, "--to", TURIN, "xml-samples/virtio-in-ram-800g.xml"][..], 0, "migrates "),
        (&["--from", JAMMY, "--to", MILAN, &guest], 1, "cannot-start "),
        (&["--from", TURIN, "--to", MILAN, &guest], 1, "refused "),
        (&["--from", TURIN, "--to", MILAN, "xml-samples/nested-600g.xml"], 1, "breaks "),
        (&["--from", TURIN, "--to", MILAN, "xml-samples/arm-guest.xml"], 0, "not-applicable "),
        (&["--from", MILAN, "--to", TURIN, "xml-samples/virtio-in-ram-800g.xml", "README.md"], 2, "migrates "),
    ] {
        let output = check(arguments);
        let printed = text(&output.stdout);
        assert_eq!(output.status.code(), Some(status), "{arguments:?}: {printed}");
        assert!(printed.starts_with(says), "{arguments:?}: {printed}");
        let quiet = check(&[&["-q"], arguments].concat());
        assert_eq!((quiet.status.code(), quiet.stdout.len()), (Some(status), 0), "{arguments:?}");
    }
}

#[test]
fn what_makes_no_sense_is_refused() {
    let guest = "xml-samples/last-that-fits-978g.xml";
    for (arguments, says) in [
        (&["--from", TURIN, guest][..], "--to"),
        (&["--to", TURIN, guest], "--from"),
        (&["--from", TURIN, "--to", TURIN, guest], "names no host but"),
        (&["--from", TURIN, "--to", MILAN, "--host", MILAN, guest], "cannot be used with"),
        (&["--from", TURIN, "--to", MILAN, "--running"], "cannot be used with"),
        (&["--from", TURIN, "--to", MILAN, "--format", "sarif", guest], "SARIF"),
        (&["--from", "xml-samples/hosts", "--to", MILAN, guest], "--from takes one host"),
        (&["--from", TURIN, "--to", "no-such-host", guest], "no-such-host"),
        (&["--from", TURIN, "--to", "src", guest], "no *.toml"),
        (&["--from", TURIN, "--to", MILAN], "PATH"),
    ] {
        let output = check(arguments);
        assert_eq!((output.status.code(), output.stdout.len()), (Some(2), 0), "{arguments:?}");
        let said = text(&output.stderr);
        assert!(said.contains(says), "{arguments:?}: {said}");
    }
}

/// In a folder with the profiles of all hosts, the source is not a destination.
#[test]
fn a_folder_of_destinations_may_hold_the_source() {
    let arguments = ["--from", TURIN, "--to", "xml-samples/hosts", "xml-samples"];
    let all = document(&arguments);
    assert_eq!(all["from"]["name"], "debian-13-turin");
    let names: Vec<&str> =
        all["hosts"].as_array().expect("hosts").iter().filter_map(|host| host["name"].as_str()).collect();
    assert_eq!(names, ["debian-12-epyc", "debian-13-core", "ubuntu-jammy-epyc", "ubuntu-noble-xeon"]);
    let guests = all["guests"].as_array().expect("guests");
    for (nth, guest) in guests.iter().enumerate() {
        assert_eq!(guest["host"], names[nth % names.len()], "{guest}");
        assert_eq!(guest["migration"]["from"], "debian-13-turin", "{guest}");
    }
    let lines = check(&[&["--format", "jsonl"], &arguments[..]].concat());
    let lines: Vec<Value> = text(&lines.stdout).lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert!(&lines == guests);
    // The verdict is that of a start on the destination.
    for (name, file) in names.iter().zip(["debian-12-epyc", "debian-13-core", "ubuntu-jammy-epyc", "ubuntu-noble-xeon"])
    {
        let alone = document(&["--host", &format!("xml-samples/hosts/{file}.toml"), "xml-samples"]);
        let (mut compared, starts) = (0, alone["guests"].as_array().expect("guests").iter());
        for (moves, starts) in guests.iter().filter(|guest| guest["host"] == *name).zip(starts) {
            assert_eq!(moves["source"], starts["source"], "{name}");
            // An alias means what it meant on the source when the guest was defined.
            if !matches!(starts["machine"]["requested"].as_str(), Some("q35" | "pc")) {
                assert_eq!(moves["verdict"], starts["verdict"], "{name}: {}", moves["source"]);
                compared += 1;
            }
        }
        assert!(compared > 30, "{name}: {compared}");
    }
}

/// Who empties a host asks where its guests can go, and which of them can go nowhere.
#[test]
fn moves_to_each_host_are_counted_and_guests_that_stay_are_named() {
    let guests = ["xml-samples/virtio-in-ram-800g.xml", "xml-samples/old-machine-1200g-gpu.xml"];
    let output = check(&[&["--from", MILAN, "--to", TURIN, "--to", JAMMY], &guests[..]].concat());
    let printed = text(&output.stdout);
    for line in [
        "→ debian-13-turin: 1 migrates, 1 refused",
        "→ ubuntu-jammy-epyc: 2 refused",
        "can be moved to none of the hosts: xml-samples/old-machine-1200g-gpu.xml",
    ] {
        assert!(printed.lines().any(|found| found == line), "{line}: {printed}");
    }
    let one = text(&check(&[&["--from", MILAN, "--to", TURIN], &guests[..]].concat()).stdout);
    assert!(!one.contains("can be moved") && !one.lines().any(|line| line.starts_with('→')), "{one}");
}

#[test]
fn documents_follow_the_schema() {
    let Some(validators) = Validators::install() else { return };
    let folder = work_dir("migrations-documents");
    let guest = aliased(&folder);
    let path = folder.join("all.json");
    let arguments =
        ["--format", "json", "--from", JAMMY, "--to", "xml-samples/hosts", "xml-samples", "README.md", &guest];
    let output = check(&arguments);
    for outcome in ["migrates", "cannot-start", "refused", "breaks", "not-applicable"] {
        let wanted = format!("\"outcome\": \"{outcome}\"");
        assert!(text(&output.stdout).contains(&wanted), "no {outcome}");
    }
    fs::write(&path, output.stdout).expect("written");
    let schema = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/check.schema.json");
    validators.assert_valid(&Schema::File(&schema), &[path]);
}
