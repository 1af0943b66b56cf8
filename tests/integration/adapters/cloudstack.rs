//! CloudStack: the XML transformer of the KVM agent, in Groovy and as a shell script. The agent is `agent.groovy`.

use super::*;
use std::fs;

const GROOVY: &str = "etc/cloudstack/agent/hooks/libvirt-vm-xml-transformer.groovy";
const SHELL: &str = "etc/cloudstack/agent/hooks/libvirt-vm-xml-transformer.sh";

/// Groovy, of Debian's package of that name.
const ENGINE: &str = "/usr/share/java/groovy-all.jar";

/// A policy that makes libvirt refuse blocked guests.
const IN_DOMAIN: &str = "machine_upgrade = 'never'\n[adapter]\nblock_in_domain = true\n";

/// One guest that the agent starts.
struct Case {
    what: &'static str,
    policy: &'static str,
    xml: String,
    /// What goes to libvirt.
    expected: Expected,
    /// What the agent logs, in part; nothing if it is empty.
    logged: &'static str,
}

enum Expected {
    Xml(String),
    /// A domain that libvirt refuses with this.
    Refused(&'static str),
}

/// A guest whose XML has at least this many bytes.
fn padded(xml: &str, bytes: usize) -> String {
    let comment = "x".repeat(bytes - xml.len() - "<!---->".len());
    xml.replace("</domain>", &format!("<!--{comment}--></domain>"))
}

fn upgraded(xml: &str) -> String {
    xml.replace("pc-q35-6.2", "pc-q35-7.1")
}

/// The cases for both scripts.
fn cases() -> Vec<Case> {
    let xml = |text: String| (text.clone(), Expected::Xml(text));
    let pass = xml(fine());
    let original = xml(fixable());
    let broken = xml("<domain".to_owned());
    let mut cases = vec![
        Case { what: "pass", policy: "", xml: pass.0, expected: pass.1, logged: "" },
        Case { what: "rewrite", policy: "", xml: fixable(), expected: Expected::Xml(fixed()), logged: "" },
        Case { what: "block", policy: NO_FIX, xml: original.0, expected: original.1, logged: "HyperTransport" },
        Case { what: "failure", policy: "", xml: broken.0, expected: broken.1, logged: "internal error: domain XML" },
    ];
    let refused =
        |what, policy, xml: String, says| Case { what, policy, xml, expected: Expected::Refused(says), logged: "" };
    cases.push(refused("refusal", IN_DOMAIN, fixable(), "HyperTransport"));
    let strict = "on_internal_error = 'block'\n[adapter]\nblock_in_domain = true\n";
    cases.push(refused("strict refusal", strict, "<domain".to_owned(), "internal error: domain XML"));
    let policy = "modes = 1\n";
    let original = xml(fixable());
    cases.push(Case { what: "policy", policy, xml: original.0, expected: original.1, logged: "policy.toml:1:1" });
    cases
}

/// Has the agent start the guests, each with the hooks in a folder, and compares.
fn start(host: &Host, cases: &[(PathBuf, Case)]) {
    let folder = host.folder.join("cases");
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).expect("a folder");
    let path = |number: usize, name: &str| folder.join(format!("{number}.{name}")).display().to_string();
    let mut lines = String::new();
    for (number, (hooks, case)) in cases.iter().enumerate() {
        fs::write(path(number, "policy"), case.policy).expect("the policy");
        fs::write(path(number, "xml"), &case.xml).expect("the domain");
        let files = ["policy", "xml", "result", "log"].map(|name| path(number, name));
        lines += &format!("{}\t{}\n", hooks.display(), files.join("\t"));
    }
    fs::write(folder.join("cases"), lines).expect("the cases");
    let caller = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/integration/adapters/agent.groovy");
    // Not the program `groovy`, which runs the Java that Debian has by default, be it there or not.
    let mut java = host.namespace.command("java");
    java.env("HOME", &host.folder).args(["-cp", ENGINE, "groovy.ui.GroovyMain"]).arg(caller);
    let output = java.stdin(fs::File::open(folder.join("cases")).expect("them")).output().expect("Java runs");
    assert!(output.status.success(), "{output:?}");
    for (number, (_, case)) in cases.iter().enumerate() {
        let [result, log] = ["result", "log"].map(|name| fs::read_to_string(path(number, name)).expect("UTF-8"));
        match &case.expected {
            // The shell hook's lines end in a newline each, as those of the guests do.
            Expected::Xml(xml) => assert_eq!(&result, xml, "{}", case.what),
            Expected::Refused(says) => {
                assert!(result.starts_with("<domain type='iova-preflight: ") && result.contains(says), "{result}");
                refused_by_libvirt(host, &path(number, "result"), says);
            }
        }
        assert!(log.contains(case.logged) && log.is_empty() == case.logged.is_empty(), "{}: {log}", case.what);
        assert!(log.lines().count() <= 1 && log.is_ascii() && !log.contains("host:"), "{}: {log}", case.what);
    }
}

/// The real libvirt says why, in one line.
fn refused_by_libvirt(host: &Host, file: &str, says: &str) {
    if host.namespace.command("virsh").arg("--version").output().is_ok_and(|output| !output.status.success()) {
        return skip("adapters cloudstack: virsh is missing");
    }
    let mut virsh = host.namespace.command("virsh");
    let output = run(virsh.args(["--connect", "test:///default", "define", file]));
    let text = String::from_utf8(output.stderr).expect("UTF-8");
    assert!(!output.status.success() && text.contains("invalid domain type iova-preflight: "), "{text}");
    assert!(text.contains(says), "{text}");
}

/// A host with the agent's folder, and `groovy`. `None` after saying what is missing.
fn agent(test: &str) -> Option<Host> {
    let host = Host::new(test)?;
    if !Path::new(ENGINE).exists() {
        skip(&format!("adapters {test}: groovy is missing"));
        return None;
    }
    for root in ["groovy", "shell"] {
        fs::create_dir_all(host.folder.join(root).join("etc/cloudstack/agent")).expect("the agent's folder");
    }
    Some(host)
}

/// The folder with the hooks, of which one was installed for `program`.
fn installed(host: &Host, kind: &str, program: &str) -> PathBuf {
    let root = host.folder.join(kind);
    let options: &[&str] = if kind == "shell" { &["install", "--shell"] } else { &["install"] };
    let output = Command::new(PROGRAM)
        .args(["adapter", "cloudstack"])
        .args(options)
        .args(["--program", program, "--root"])
        .arg(&root)
        .output()
        .expect("runs");
    assert!(output.status.success(), "{output:?}");
    let name = Path::new(program).file_name().expect("a program").to_string_lossy().into_owned();
    let hooks = host.folder.join("hooks").join(format!("{kind}-{name}"));
    fs::create_dir_all(&hooks).expect("a folder");
    let script = root.join(if kind == "shell" { SHELL } else { GROOVY });
    let name = script.file_name().expect("a name");
    fs::copy(&script, hooks.join(name)).expect("copied");
    hooks
}

#[test]
fn the_groovy_script_passes_rewrites_and_blocks() {
    let Some(host) = agent("cloudstack-groovy") else { return };
    let mut cases = cases();
    // More than one argument takes, and more than a pipe holds.
    for bytes in [66_000, 131 * 1024, 1 << 20] {
        let (pass, rewrite) = (padded(&fine(), bytes), padded(&fixable(), bytes));
        let expected = Expected::Xml(upgraded(&rewrite));
        cases.push(Case { what: "large", policy: "", xml: pass.clone(), expected: Expected::Xml(pass), logged: "" });
        cases.push(Case { what: "large rewrite", policy: "", xml: rewrite, expected, logged: "" });
    }
    let hooks = installed(&host, "groovy", PROGRAM);
    start(&host, &cases.into_iter().map(|case| (hooks.clone(), case)).collect::<Vec<_>>());
}

#[test]
fn the_shell_script_passes_rewrites_and_blocks() {
    let Some(host) = agent("cloudstack-shell") else { return };
    let mut cases = cases();
    let small = padded(&fixable(), 65_000);
    let expected = Expected::Xml(upgraded(&small));
    cases.push(Case { what: "65,000 bytes", policy: "", xml: small, expected, logged: "" });
    // More than is handed back, and more than an argument holds: the agent's own XML, at once.
    for (bytes, logged) in [(65_001, "65001 bytes of XML are more"), (131_072, "cannot be run")] {
        let xml = padded(&fixable(), bytes);
        cases.push(Case { what: "too large", policy: "", xml: xml.clone(), expected: Expected::Xml(xml), logged });
    }
    let hooks = installed(&host, "shell", PROGRAM);
    start(&host, &cases.into_iter().map(|case| (hooks.clone(), case)).collect::<Vec<_>>());
}

#[test]
fn if_the_program_fails_the_agent_uses_its_own_xml() {
    let Some(host) = agent("cloudstack-failures") else { return };
    let mut cases = Vec::new();
    for program in host.broken_programs() {
        for kind in ["groovy", "shell"] {
            let case = Case {
                what: "broken program",
                policy: NO_FIX,
                xml: fixable(),
                expected: Expected::Xml(fixable()),
                logged: "WARN ",
            };
            cases.push((installed(&host, kind, &program), case));
        }
    }
    start(&host, &cases);
}

/// A build of the agent that escapes the XML for a shell: the hook does not guess the original.
#[test]
fn escaped_xml_is_not_handed_back() {
    let Some(host) = Host::new("cloudstack-escaped") else { return };
    let escaped = fixable().replace('<', r"\<").replace('>', r"\>").replace('\'', r"\'");
    let output = run(host.namespace.command(PROGRAM).args(["adapter", "cloudstack", "transform", &escaped]));
    assert_eq!((output.status.code(), &output.stdout[..]), (Some(2), &b""[..]));
    assert!(assert_block_line(&output.stderr).contains("escaped for a shell"));
}
