//! Advice to users of OpenStack, compared with Nova itself: the XML that its driver makes is evaluated, and every
//! command that is printed is put to its own parsers and validators, until the driver makes XML of a guest that starts.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use serde_json::{Value, json};

use crate::common::validators::Validators;
use crate::common::{skip, work_dir};

/// A nova that answers (`tests/validators/ask_nova.py`).
struct Nova {
    child: Child,
    requests: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
}

impl Nova {
    /// `None` after saying that it is missing.
    fn start() -> Option<Self> {
        let python = Validators::nova()?.python();
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/validators/ask_nova.py");
        let mut child = Command::new(python)
            .arg(script)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .expect("run Python");
        let requests = child.stdin.take();
        let answers = BufReader::new(child.stdout.take().expect("a pipe"));
        Some(Self { child, requests, answers })
    }

    fn ask(&mut self, request: &Value) -> Value {
        writeln!(self.requests.as_mut().expect("a pipe"), "{request}").expect("nova listens");
        let mut line = String::new();
        self.answers.read_line(&mut line).expect("nova answers");
        let answer: Value = serde_json::from_str(&line).unwrap_or_else(|e| panic!("{request}: {e}: {line:?}"));
        answer.get("answer").cloned().unwrap_or_else(|| panic!("{request}: {}", answer["error"]))
    }

    /// The XML of a new instance.
    fn make(&mut self, instance: &Value) -> String {
        self.ask(&json!({ "make": instance })).as_str().expect("XML").to_owned()
    }

    /// The XML of the same instance at its next start.
    fn again(&mut self) -> String {
        self.ask(&json!({ "again": null })).as_str().expect("XML").to_owned()
    }

    /// Why nova does not take a command line; `None` if it does.
    fn refuses(&mut self, command: &str) -> Option<String> {
        self.ask(&json!({ "run": command })).as_str().map(str::to_owned)
    }
}

impl Drop for Nova {
    fn drop(&mut self) {
        drop(self.requests.take());
        let _ = self.child.wait();
    }
}

/// The guest in what `check` says of this XML on an AMD host.
fn checked(xml: &str, policy: &str) -> Value {
    let folder = work_dir(&format!("nova-{}", std::thread::current().name().unwrap_or_default().replace(":", "-")));
    let (guest, policy_file) = (folder.join("instance.xml"), folder.join("policy.toml"));
    std::fs::write(&guest, xml).expect("written");
    std::fs::write(&policy_file, policy).expect("written");
    let output = Command::new(env!("CARGO_BIN_EXE_iova-preflight"))
        .args(["check", "--host", "amd-epyc", "--format", "json", "--policy"])
        .args([policy_file, guest])
        .output()
        .expect("runs");
    let mut document: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    document["guests"][0].take()
}

/// The rules of its errors and warnings.
fn rules(guest: &Value) -> Vec<&str> {
    let findings = guest["findings"].as_array().expect("findings").iter();
    findings.filter(|finding| finding["severity"] != "note").filter_map(|finding| finding["rule"].as_str()).collect()
}

/// An instance with a GPU, the policy it is checked under, and the expected advice.
struct Case {
    what: &'static str,
    instance: Value,
    policy: &'static str,
    verdict: &'static str,
    rules: &'static [&'static str],
    /// The machine type that it ends up with.
    machine: &'static str,
    /// Whether nova takes that only with `--force`.
    forced: bool,
}

/// 1200 GiB of RAM, in MiB: from 4 GiB on they pass 1012 GiB, where the HyperTransport range begins, and end above the 40
/// address bits that QEMU gives a CPU of mode host-model. Machine types before 7.1 do not move them above that range.
const HUGE: u64 = 1200 * 1024;

fn cases() -> Vec<Case> {
    let instance = |mib: u64, machine: &str, mode: &str| {
        json!({ "memory_mb": mib, "image": { "hw_machine_type": machine }, "libvirt": { "cpu_mode": mode },
                "pci": ["0000:41:00.0"] })
    };
    let aliased = |mib: u64| {
        json!({ "memory_mb": mib, "libvirt": { "cpu_mode": "host-passthrough", "hw_machine_type": "x86_64=q35" },
                "pci": ["0000:41:00.0"] })
    };
    let mut of_flavor = instance(HUGE, "pc-i440fx-6.2", "host-model");
    of_flavor["extra_specs"] = json!({ "hw:maxphysaddr_mode": "emulate", "hw:maxphysaddr_bits": "42" });
    let both: &[&str] = &["phys-bits-too-low", "ram-in-reserved-range"];
    let ram: &[&str] = &["ram-in-reserved-range"];
    let case = |what, instance, verdict, rules, machine| Case {
        what,
        instance,
        policy: "",
        verdict,
        rules,
        machine,
        forced: false,
    };
    vec![
        case("a pinned type", instance(HUGE, "pc-q35-6.2", "host-model"), "fixable", both, "pc-q35-7.1"),
        Case {
            policy: "phys_bits = 'host'",
            ..case("the host's bits", instance(HUGE, "pc-q35-6.2", "host-model"), "fixable", both, "pc-q35-7.1")
        },
        Case {
            forced: true,
            ..case("Ubuntu's", instance(HUGE, "pc-q35-jammy", "host-passthrough"), "fixable", ram, "pc-q35-lunar")
        },
        case("Red Hat's", instance(HUGE, "pc-q35-rhel8.6.0", "host-passthrough"), "fixable", ram, "pc-q35-rhel9.2.0"),
        case("bits of the flavor", of_flavor, "fixable", ram, "pc-i440fx-7.1"),
        case("the host's alias", aliased(HUGE), "warn", &["unknown-machine-type"], "q35"),
        Case { policy: "alias = 'newest'", ..case("the newest", aliased(HUGE), "pass", &[], "q35") },
        case("a small one", aliased(64 * 1024), "pass", &[], "q35"),
    ]
}

/// The XML that the recipe in docs/orchestrators/nova.md makes of the flavor and the image of an instance, with an
/// `openstack` that knows these two.
fn by_recipe(instance: &Value) -> String {
    let page = include_str!("../../docs/orchestrators/nova.md");
    let (_, recipe) = page.split_once("<!-- recipe -->").expect("a recipe");
    let (recipe, _) = recipe.split_once("```sh\n").and_then(|(_, rest)| rest.split_once("```")).expect("a block");
    let folder = work_dir("nova-recipe");
    let flavor = json!({ "name": "m1.small", "ram": instance["memory_mb"], "vcpus": 16,
                         "properties": instance.get("extra_specs").unwrap_or(&json!({})) });
    let image = json!({ "id": "155d900f", "properties": instance.get("image").unwrap_or(&json!({})) });
    let libvirt = |key: &str| instance["libvirt"][key].as_str().unwrap_or_default();
    let machine = libvirt("hw_machine_type").strip_prefix("x86_64=").unwrap_or("pc");
    let functions = format!("openstack() {{ case $1 in flavor) echo '{flavor}';; image) echo '{image}';; esac; }}\n");
    let path = std::env::var("PATH").unwrap_or_default();
    let beside = Path::new(env!("CARGO_BIN_EXE_iova-preflight")).parent().expect("a folder");
    let output = Command::new("bash")
        .args(["-eu", "-c", &format!("{functions}{recipe}")])
        .current_dir(&folder)
        .env("PATH", format!("{}:{path}", beside.display()))
        .envs([("flavor", "m1.small"), ("image", "155d900f"), ("machine", machine), ("profile", "amd-epyc")])
        .env("cpu_mode", libvirt("cpu_mode"))
        .output()
        .expect("run bash");
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(matches!(output.status.code(), Some(0 | 1)), "{said}");
    std::fs::read_to_string(folder.join("instance.xml")).expect("written")
}

/// The result for a flavor and image equals that for the instance that Nova makes of them.
#[test]
fn the_recipe_finds_what_nova_will_make() {
    if Command::new("jq").arg("--version").output().is_err() {
        return skip("the recipe for flavors: there is no jq");
    }
    for Case { what, instance, policy, verdict, rules: expected, .. } in cases() {
        let guest = checked(&by_recipe(&instance), policy);
        assert_eq!((&guest["owner"], &guest["verdict"]), (&json!("nova"), &json!(verdict)), "{what}: {guest}");
        assert_eq!(rules(&guest), expected, "{what}");
    }
}

#[test]
fn the_printed_commands_make_nova_write_a_guest_that_starts() {
    let Some(mut nova) = Nova::start() else { return };
    for Case { what, instance, policy, verdict, rules: expected, machine, forced } in cases() {
        let guest = checked(&nova.make(&instance), policy);
        assert_eq!((&guest["owner"], &guest["verdict"]), (&json!("nova"), &json!(verdict)), "{what}: {guest}");
        assert_eq!(rules(&guest), expected, "{what}");
        let advice: Vec<&str> =
            guest["fix"]["advice"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        let is_command = |line: &&&str| line.starts_with("openstack ") || line.starts_with("nova-manage ");
        let commands: Vec<&&str> = advice.iter().filter(is_command).collect();
        for command in &commands {
            assert_eq!(nova.refuses(command), None, "{what}: {command}");
        }
        assert_eq!(commands.len() >= 4, verdict == "fixable", "{what}: {advice:?}");
        assert_eq!(advice.iter().any(|line| line.ends_with(" --force")), forced, "{what}: {advice:?}");
        let after = checked(&nova.again(), policy);
        assert_eq!(after["machine"]["requested"], machine, "{what}");
        let starts = if verdict == "fixable" { "pass" } else { verdict };
        assert_eq!(after["verdict"], starts, "{what}: {after}");
    }
}

/// The control of the test above.
#[test]
fn nova_refuses_what_would_not_work() {
    let Some(mut nova) = Nova::start() else { return };
    nova.make(&json!({ "memory_mb": 2048, "image": { "hw_machine_type": "pc-q35-jammy" } }));
    let mut refused = |command: &str, why: &str| {
        let said = nova.refuses(command).unwrap_or_else(|| panic!("accepted: {command}"));
        assert!(said.contains(why), "{command}: {said}");
    };
    refused("nova-manage libvirt update_machine_type U pc-q35-lunar --forced", "unrecognized arguments");
    refused("nova-manage libvirt update_machine_type U pc-q35-7.1", "in vm_state active");
    refused("nova-manage image_property set U --property hw_maxphysaddr_bits=41", "in vm_state active");
    refused("openstack image set --property hw_maxphysaddr_modes=emulate I", "hw_maxphysaddr_modes");
    refused("openstack image set --property hw_maxphysaddr_mode=host I", "host");
    refused(
        "openstack --os-compute-api-version 2.86 flavor set --property hw:maxphysaddr_mode=emulate F",
        "does not appear to be a valid extra spec",
    );
    assert_eq!(nova.refuses("openstack server stop U"), None);
    let said = nova.refuses("nova-manage libvirt update_machine_type U pc-q35-lunar").expect("refused");
    assert!(said.contains("not supported"), "{said}");
    assert_eq!(nova.refuses("nova-manage libvirt update_machine_type U pc-q35-lunar --force"), None);
}
