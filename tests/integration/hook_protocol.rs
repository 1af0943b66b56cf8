//! The hook as a program: what libvirt, and anything that calls it instead, can do to it and what comes out.
//!
//! Where namespaces can be made, it runs in one with its own policy and IOMMU; what needs these says SKIPPED elsewhere.

use std::ffi::{OsStr, OsString};
use std::io::Write;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use crate::common::guest::Guest;
use crate::common::namespace::Namespace;
use crate::common::{skip, work_dir};

const HOOK: &str = env!("CARGO_BIN_EXE_iova-preflight-hook");

/// The operations at which a guest can be stopped.
const DECIDING: [&str; 4] = ["prepare", "start", "migrate", "restore"];

/// Longer than the hook's own limit: a second, or a few where the machine is busy with other things.
const SOON: Duration = Duration::from_secs(10);

/// Where the hook runs.
struct Place(Option<Namespace>);

/// How it ended.
#[derive(Debug)]
struct Run {
    output: Output,
    took: Duration,
}

impl Place {
    /// A namespace, or this machine as it is.
    fn any(test: &str) -> Option<Self> {
        match Namespace::new(&work_dir(&format!("hook_protocol-{test}")), None) {
            Ok(namespace) => Some(Self(Some(namespace))),
            Err(_) if !Path::new("/etc/iova-preflight/policy.toml").exists() => Some(Self(None)),
            Err(why) => {
                skip(&format!("hook_protocol {test}: this machine has a policy of its own, and {why}"));
                None
            }
        }
    }

    /// A namespace. `None` after saying that there can be none.
    fn own(test: &str) -> Option<(Self, impl Fn(&str))> {
        match Namespace::new(&work_dir(&format!("hook_protocol-{test}")), None) {
            Ok(namespace) => {
                let policy = namespace.path("/etc/iova-preflight/policy.toml");
                let set_policy = move |text: &str| std::fs::write(&policy, text).expect("write the policy");
                Some((Self(Some(namespace)), set_policy))
            }
            Err(why) => {
                skip(&format!("hook_protocol {test}: {why}"));
                None
            }
        }
    }

    fn namespace(&self) -> &Namespace {
        self.0.as_ref().expect("made by `own`")
    }

    fn command(&self, program: &str) -> Command {
        match &self.0 {
            Some(namespace) => namespace.command(program),
            None => {
                let mut command = Command::new(program);
                command.env_clear().env("LC_ALL", "C").env("PATH", "/usr/bin:/bin");
                command
            }
        }
    }

    /// Calls the hook through a command that ends in it, with these bytes on its standard input.
    fn feed(&self, command: &mut Command, input: &[u8]) -> Run {
        let start = Instant::now();
        let mut child = spawn(command.stdin(Stdio::piped()));
        let mut stdin = child.stdin.take().expect("a pipe");
        let output = std::thread::scope(|scope| {
            // The hook does not have to read everything.
            scope.spawn(move || stdin.write_all(input));
            child.wait_with_output().expect("wait for the hook")
        });
        Run { output, took: start.elapsed() }
    }

    /// Calls the hook as libvirt does.
    fn hook(&self, name: &str, operation: &str, input: &[u8]) -> Run {
        self.feed(self.command(HOOK).args([name, operation, "begin", "-"]), input)
    }
}

fn spawn(command: &mut Command) -> Child {
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("run the hook")
}

impl Run {
    fn stderr(&self) -> String {
        String::from_utf8(self.output.stderr.clone()).expect("a line of UTF-8")
    }

    /// What holds of every run, whatever it was given.
    #[track_caller]
    fn assert_sane(&self) -> bool {
        let status = self.output.status;
        assert!(matches!(status.code(), Some(0 | 1)), "{status} {:?}: {}", status.signal(), self.stderr());
        assert!(self.output.stdout.is_empty(), "something on stdout");
        assert!(!self.stderr().contains("panicked"), "{}", self.stderr());
        assert!(self.took < SOON, "took {:?}", self.took);
        status.code() == Some(0)
    }

    /// Passed: not a word.
    #[track_caller]
    fn assert_passed(&self) {
        let passed = self.assert_sane();
        assert_eq!((passed, self.stderr().as_str()), (true, ""));
    }

    /// Stopped: one line, which can be shown on any terminal.
    #[track_caller]
    fn assert_stopped(&self) -> String {
        let passed = self.assert_sane();
        let stderr = self.stderr();
        assert!(!passed, "passed");
        let line = stderr.strip_suffix('\n').unwrap_or_else(|| panic!("no line: {stderr:?}"));
        assert!(line.starts_with("iova-preflight: "), "{line}");
        assert!(!line.contains(char::is_control), "{line:?}");
        line.to_owned()
    }
}

/// A guest that QEMU refuses on every host: it has more memory than 40 bits reach.
fn doomed() -> Vec<u8> {
    Guest::huge("db", "pc-q35-7.2").with_phys_bits(40).xml().into_bytes()
}

fn fine() -> Vec<u8> {
    Guest::small("web").xml().into_bytes()
}

#[test]
fn only_four_operations_can_stop_a_guest() {
    let Some(place) = Place::any("operations") else { return };
    for operation in DECIDING {
        let line = place.hook("db", operation, &doomed()).assert_stopped();
        assert!(line.starts_with("iova-preflight: guest db: ") && line.contains("virsh edit db"), "{line}");
        place.hook("web", operation, &fine()).assert_passed();
        for sub_operation in ["end", "", "Begin", "begin "] {
            let mut command = place.command(HOOK);
            place.feed(command.args(["db", operation, sub_operation, "-"]), &doomed()).assert_passed();
        }
    }
    for operation in ["reconnect", "attach", "started", "stopped", "release", "future", "Prepare", ""] {
        place.hook("db", operation, &doomed()).assert_passed();
    }
}

#[test]
fn a_running_guest_is_never_stopped_even_by_mistake() {
    let Some((place, set_policy)) = Place::own("running") else { return };
    set_policy("on_internal_error = 'block'\nbroken");
    for operation in ["reconnect", "attach", "started", "stopped", "release"] {
        for input in [doomed(), b"\xff<".to_vec(), Vec::new()] {
            place.hook("db", operation, &input).assert_passed();
        }
    }
}

#[test]
fn any_arguments_are_survived() {
    let Some(place) = Place::any("arguments") else { return };
    let long = "x".repeat(100_000);
    let junk = || OsString::from_vec(vec![0xff, 0xfe, b'\n', 0x1b, b'[']);
    let words = |words: &[&str]| words.iter().map(OsString::from).collect::<Vec<_>>();
    let calls = [
        words(&[]),
        words(&["--help"]),
        words(&["--version"]),
        words(&["db"]),
        words(&["db", "prepare"]),
        words(&["", "", "", ""]),
        words(&[&long, &long, "begin"]),
        words(&["--", "-x", "--", "-"]),
        vec![junk(), junk(), junk(), junk()],
        vec![junk(), "prepare".into(), junk(), "-".into()],
    ];
    for args in &calls {
        assert!(place.feed(place.command(HOOK).args(args), &doomed()).assert_sane(), "{args:?}");
    }
    // These are calls of libvirt's, as far as can be seen.
    for (name, extra) in [(OsString::from(&long), vec![]), (junk(), vec![]), ("db".into(), words(&["-", "-", "more"]))]
    {
        let args: Vec<&OsStr> = [&name, OsStr::new("prepare"), OsStr::new("begin")]
            .into_iter()
            .chain(extra.iter().map(|e| e.as_os_str()))
            .collect();
        place.feed(place.command(HOOK).args(&args), &doomed()).assert_stopped();
        place.feed(place.command(HOOK).args(&args), &fine()).assert_passed();
    }
}

#[test]
fn names_cannot_do_anything_to_a_terminal() {
    let Some((place, set_policy)) = Place::own("names") else { return };
    for name in ["a&#10;b", "&#x9b;31m", "a\u{202e}b", "$(reboot)", "'; reboot; '", "-x", "ü"] {
        let xml = Guest::huge(name, "pc-q35-7.2").with_phys_bits(40).xml();
        place.hook(name, "prepare", xml.as_bytes()).assert_stopped();
    }
    // The reason names the machine type and the vendor.
    let cpu = "<cpu><model vendor_id='GenuineInte\u{7f}'>EPYC</model><maxphysaddr mode='emulate' bits='42'/></cpu>";
    for machine in ["pc-q35-6.\u{9b}31m2", "pc-i440fx-\u{7f}", "pc-q35-7.2"] {
        let xml = Guest::huge("db", machine).with_cpu(cpu).with_hostdev().xml();
        place.hook("db", "prepare", xml.as_bytes()).assert_stopped();
    }
    set_policy("on_internal_error = 'block'\n");
    for name in ["a\nb", "\u{1b}[31m", "\u{202e}"] {
        let line = place.hook(name, "prepare", b"<a\n\x1b[31m").assert_stopped();
        assert!(!line.contains(name), "{line:?}");
    }
}

/// Inputs that are no domain, each with the reason that is logged.
fn garbage() -> Vec<(&'static str, Vec<u8>)> {
    let filled = |start: &str, byte: u8| {
        let mut bytes = start.as_bytes().to_vec();
        bytes.resize(64 << 20, byte);
        bytes
    };
    let utf16: Vec<u8> = "<domain type='kvm'/>".encode_utf16().flat_map(u16::to_le_bytes).collect();
    let laughs = "<!DOCTYPE d [<!ENTITY a 'ha'><!ENTITY b '&a;&a;&a;&a;&a;&a;&a;&a;'>]><domain type='kvm'>&b;</domain>";
    vec![
        ("empty", Vec::new()),
        ("not XML", b"a policy file, perhaps".to_vec()),
        ("another document", b"<network/>".to_vec()),
        ("bytes that are no text", vec![0xff; 4096]),
        ("zeros", vec![0; 1 << 20]),
        ("Latin-1", b"<domain type='kvm'><name>\xe9</name></domain>".to_vec()),
        ("UTF-16", utf16),
        ("two roots", b"<domain type='kvm'/><domain type='kvm'/>".to_vec()),
        ("entities", laughs.as_bytes().to_vec()),
        ("nested without end", b"<a>".repeat(1 << 20)),
        ("64 MiB of a comment", filled("<domain type='kvm'><!--", b'x')),
        ("64 MiB of white space", filled("", b' ')),
        ("64 MiB of an attribute", filled("<domain type='", b'k')),
        ("64 MiB of zeros", filled("", 0)),
    ]
}

#[test]
fn what_is_no_domain_is_let_through_and_logged() {
    let Some((place, _)) = Place::own("garbage-allow") else { return };
    let log = place.namespace().system_log();
    for (what, input) in garbage() {
        place.hook("db", "prepare", &input).assert_passed();
        let lines = log.lines();
        let [line] = &lines[..] else { panic!("{what}: {lines:?}") };
        assert!(line.starts_with("<27>iova-preflight-hook["), "{what}: {line}");
        assert!(line.contains("internal error: domain XML:") && line.contains("guest db"), "{what}: {line}");
        assert!(!line.contains(char::is_control), "{what}: {line:?}");
    }
}

#[test]
fn what_is_no_domain_is_stopped_if_the_policy_says_so() {
    let Some((place, set_policy)) = Place::own("garbage-block") else { return };
    set_policy("on_internal_error = 'block'\n");
    for (what, input) in garbage() {
        let line = place.hook("db", "prepare", &input).assert_stopped();
        assert!(line.contains("domain XML:") && line.contains("on_internal_error"), "{what}: {line}");
    }
}

#[test]
fn every_truncation_is_an_error_of_our_own() {
    let Some((place, set_policy)) = Place::own("truncated") else { return };
    let whole = doomed();
    let whole = whole.trim_ascii_end();
    let cuts = || (0..whole.len()).step_by(23);
    for cut in cuts() {
        place.hook("db", "prepare", &whole[..cut]).assert_passed();
    }
    set_policy("on_internal_error = 'block'\n");
    for cut in cuts() {
        let line = place.hook("db", "prepare", &whole[..cut]).assert_stopped();
        assert!(line.contains("internal error"), "cut at {cut}: {line}");
    }
}

#[test]
fn a_domain_as_large_as_libvirt_takes_is_decided() {
    let Some(place) = Place::any("large") else { return };
    let mut xml = String::from_utf8(doomed()).expect("UTF-8");
    let comment = format!("<!--{}-->", "x".repeat((4 << 20) - xml.len() - 7));
    xml.insert_str(xml.find("<memory").expect("a place"), &comment);
    assert_eq!(xml.len(), 4 << 20);
    place.hook("db", "prepare", xml.as_bytes()).assert_stopped();
}

#[test]
fn closed_and_useless_descriptors_do_not_matter() {
    let Some(place) = Place::any("descriptors") else { return };
    let shell = |redirections: &str, input: &[u8]| {
        let script = format!("exec \"$0\" db prepare begin - {redirections}");
        place.feed(place.command("sh").args(["-c", &script, HOOK]), input)
    };
    shell("<&-", &[]).assert_passed();
    shell("< /", &[]).assert_passed();
    shell("< /dev/null", &[]).assert_passed();
    shell("<&- >&- 2>&-", &[]).assert_passed();
    // Nobody hears why, but it is stopped.
    for nowhere in ["2>&-", "2> /dev/full", ">&- 2>&-"] {
        let run = shell(nowhere, &doomed());
        assert_eq!((run.assert_sane(), run.stderr().as_str()), (false, ""), "{nowhere}");
    }
    shell("> /dev/full", &doomed()).assert_stopped();
}

/// Calls the hook with a standard input that nobody writes to and nobody closes.
fn hang(command: &mut Command) -> Run {
    let start = Instant::now();
    let mut child = spawn(command.stdin(Stdio::piped()));
    let open = child.stdin.take();
    let output = child.wait_with_output().expect("wait for the hook");
    drop(open);
    Run { output, took: start.elapsed() }
}

#[track_caller]
fn assert_took_a_second(run: &Run) {
    assert!(run.took > Duration::from_millis(900), "gave up after {:?}", run.took);
}

#[test]
fn it_does_not_wait_for_a_domain_that_never_comes() {
    let Some((place, set_policy)) = Place::own("hung") else { return };
    let log = place.namespace().system_log();
    let run = hang(place.command(HOOK).args(["db", "prepare", "begin", "-"]));
    run.assert_passed();
    assert_took_a_second(&run);
    let lines = log.lines();
    assert!(matches!(&lines[..], [line] if line.starts_with("<27>iova-preflight-hook")), "{lines:?}");

    set_policy("on_internal_error = 'block'\n");
    let run = hang(place.command(HOOK).args(["db", "start", "begin", "-"]));
    let line = run.assert_stopped();
    assert_took_a_second(&run);
    assert!(line.contains("internal error") && line.contains("no decision"), "{line}");

    // At operations that cannot stop a guest there is nothing to wait for.
    let run = hang(place.command(HOOK).args(["db", "reconnect", "begin", "-"]));
    run.assert_passed();
    assert!(run.took < Duration::from_millis(900), "waited {:?}", run.took);
}

#[test]
fn it_does_not_wait_for_files_that_never_come_either() {
    let Some((place, set_policy)) = Place::own("hung-files") else { return };
    // Opening a pipe waits for a writer, who never comes.
    let make_pipe = |inside: &str| {
        let path = place.namespace().path(inside);
        std::fs::remove_file(&path).expect("remove the file");
        assert!(Command::new("mkfifo").arg(&path).status().expect("run mkfifo").success());
    };
    make_pipe("/sys/kernel/iommu_groups/0/reserved_regions");
    set_policy("on_internal_error = 'block'\n");
    let in_hole = Guest::huge("db", "pc-q35-6.2").with_hostdev().xml();
    let run = place.hook("db", "prepare", in_hole.as_bytes());
    assert!(run.assert_stopped().contains("no decision"), "{run:?}");

    // A policy has to be a regular file: anything else is an error at once.
    make_pipe("/etc/iova-preflight/policy.toml");
    let log = place.namespace().system_log();
    place.hook("db", "prepare", &doomed()).assert_passed();
    let lines = log.lines();
    assert!(matches!(&lines[..], [line] if line.contains("policy.toml: a pipe, not a regular file")), "{lines:?}");
}

#[test]
fn a_caller_cannot_take_the_time_limit_away() {
    let Some(place) = Place::any("signals") else { return };
    for option in ["--block-signal=ALRM", "--ignore-signal=ALRM", "--block-signal", "--ignore-signal"] {
        let run = hang(place.command("env").args([option, HOOK, "db", "prepare", "begin", "-"]));
        run.assert_passed();
        assert_took_a_second(&run);
    }
}

#[test]
fn a_domain_that_trickles_in_is_not_waited_for() {
    let Some(place) = Place::any("trickle") else { return };
    let start = Instant::now();
    let mut child = spawn(place.command(HOOK).args(["db", "prepare", "begin", "-"]).stdin(Stdio::piped()));
    let mut stdin = child.stdin.take().expect("a pipe");
    for byte in doomed() {
        // It ends by a closed pipe.
        if stdin.write_all(&[byte]).is_err() || child.try_wait().expect("wait for the hook").is_some() {
            break;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    drop(stdin);
    let run = Run { output: child.wait_with_output().expect("wait for the hook"), took: start.elapsed() };
    run.assert_passed();
    assert_took_a_second(&run);
}

#[test]
fn what_the_policy_says_is_done() {
    let Some((place, set_policy)) = Place::own("policy") else { return };
    let log = place.namespace().system_log();
    let logged = |priority: &str, part: &str| {
        let lines = log.lines();
        assert!(lines.len() == 1 && lines[0].starts_with(priority) && lines[0].contains(part), "{lines:?}");
    };
    place.hook("db", "prepare", &doomed()).assert_stopped();
    logged("<28>", "guest db");

    set_policy("mode = 'off'\n");
    place.hook("db", "prepare", &doomed()).assert_passed();
    assert_eq!(log.lines(), [""; 0]);

    set_policy("mode = 'warn'\n");
    place.hook("db", "prepare", &doomed()).assert_passed();
    logged("<28>", "allowed by policy");

    let uuid = "c7a5fdbd-edaf-9455-926a-d65c16db1809";
    let with_uuid =
        String::from_utf8(doomed()).expect("UTF-8").replace("<memory", &format!("<uuid>{uuid}</uuid><memory"));
    for exempt in ["db", uuid] {
        set_policy(&format!("exempt = ['other', '{exempt}']\n"));
        place.hook("db", "prepare", with_uuid.as_bytes()).assert_passed();
        assert_eq!(log.lines(), [""; 0]);
    }
    set_policy("exempt = ['d', 'db2', 'DB', '*']\n");
    place.hook("db", "prepare", &doomed()).assert_stopped();
    log.lines();

    // Without a device, its memory does no harm; with the assumption, it does.
    let in_hole = Guest::huge("db", "pc-q35-6.2").xml();
    set_policy("");
    place.hook("db", "prepare", in_hole.as_bytes()).assert_passed();
    set_policy("passthrough = 'assume'\n");
    place.hook("db", "prepare", in_hole.as_bytes()).assert_stopped();
    set_policy("");
    place.hook("db", "prepare", Guest::huge("db", "pc-q35-6.2").with_hostdev().xml().as_bytes()).assert_stopped();
}

#[test]
fn a_policy_that_cannot_be_read_is_an_error_of_our_own() {
    let Some((place, set_policy)) = Place::own("broken-policy") else { return };
    let log = place.namespace().system_log();
    let error = |part: &str| {
        let lines = log.lines();
        assert!(lines.len() == 1 && lines[0].starts_with("<27>") && lines[0].contains(part), "{lines:?}");
    };
    for text in ["mode = 'perhaps'", "modes = 'off'", "mode = [", "exempt = 'db'", "\u{0}", "[watch]\nrewrit = true"] {
        set_policy(text);
        place.hook("db", "prepare", &doomed()).assert_passed();
        error("policy.toml:");
        for line in ["on_internal_error = 'block'", "on_internal_error=\"block\" # strict"] {
            set_policy(&format!("{line}\n{text}\n"));
            let line = place.hook("web", "prepare", &fine()).assert_stopped();
            assert!(line.contains("policy.toml:"), "{line}");
            log.lines();
        }
    }
    set_policy(&"# a long policy\n".repeat(100_000));
    place.hook("db", "prepare", &doomed()).assert_passed();
    error("longer than 1 MiB");

    let policy = place.namespace().path("/etc/iova-preflight/policy.toml");
    std::fs::write(&policy, b"mode = '\xff'").expect("write the policy");
    place.hook("db", "prepare", &doomed()).assert_passed();
    error("UTF-8");

    std::fs::remove_file(&policy).expect("remove the policy");
    std::fs::create_dir(&policy).expect("a folder instead");
    place.hook("db", "prepare", &doomed()).assert_passed();
    error("policy.toml");
    std::fs::remove_dir(&policy).expect("remove the folder");
}

#[test]
fn a_system_log_that_nobody_reads_is_not_waited_for() {
    let Some((place, _)) = Place::own("full-log") else { return };
    let _log = place.namespace().system_log();
    // The kernel keeps a few datagrams for a slow reader, then a sender waits.
    for _ in 0..30 {
        let run = place.hook("db", "prepare", &doomed());
        run.assert_stopped();
        assert!(run.took < Duration::from_millis(900), "waited {:?}", run.took);
    }
}
