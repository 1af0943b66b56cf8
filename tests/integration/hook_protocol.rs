//! The hook as a program: what libvirt, and anything that calls it instead, can do to it and what comes out.
//!
//! Where namespaces can be made, it runs in one with its own policy and IOMMU; what needs these says SKIPPED elsewhere.

use std::ffi::{OsStr, OsString};
use std::io::Write;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use crate::common::guest::Guest;
use crate::common::namespace::Namespace;
use crate::common::{skip, work_dir};

/// The hook of this build, or the one that `IOVA_PREFLIGHT_HOOK` names: the static one that is shipped, say.
static HOOK: LazyLock<String> = LazyLock::new(|| {
    let built = env!("CARGO_BIN_EXE_iova-preflight-hook");
    std::env::var("IOVA_PREFLIGHT_HOOK").unwrap_or_else(|_| built.to_owned())
});

/// The operations at which a guest can be stopped.
const DECIDING: [&str; 4] = ["prepare", "start", "migrate", "restore"];

/// Longer than anything takes that is waited for, however busy the machine is.
const AT_LAST: Duration = Duration::from_secs(180);

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
        self.feed(self.command(&HOOK).args([name, operation, "begin", "-"]), input)
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
        assert!(self.took < AT_LAST, "took {:?}", self.took);
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
            let mut command = place.command(&HOOK);
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
        assert!(place.feed(place.command(&HOOK).args(args), &doomed()).assert_sane(), "{args:?}");
    }
    // These are calls of libvirt's, as far as can be seen.
    for (name, extra) in [(OsString::from(&long), vec![]), (junk(), vec![]), ("db".into(), words(&["-", "-", "more"]))]
    {
        let args: Vec<&OsStr> = [&name, OsStr::new("prepare"), OsStr::new("begin")]
            .into_iter()
            .chain(extra.iter().map(|e| e.as_os_str()))
            .collect();
        place.feed(place.command(&HOOK).args(&args), &doomed()).assert_stopped();
        place.feed(place.command(&HOOK).args(&args), &fine()).assert_passed();
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
        place.feed(place.command("sh").args(["-c", &script, &HOOK]), input)
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

/// What is written to the hook's standard input, and when.
enum Input {
    /// Nothing, and it stays open.
    Nothing,
    /// A byte every two seconds.
    Trickle(Vec<u8>),
    /// Half of it, and the rest after this time.
    Pause(Vec<u8>, Duration),
    /// A domain whose `<metadata>` does not end.
    Endless,
}

/// Calls the hook through a command that ends in it.
fn wait_for(command: &mut Command, input: &Input) -> Run {
    let start = Instant::now();
    let mut child = spawn(command.stdin(Stdio::piped()));
    let mut stdin = child.stdin.take().expect("a pipe");
    let output = std::thread::scope(|scope| {
        let (end, ended) = std::sync::mpsc::channel::<()>();
        let wait = move |time| matches!(ended.recv_timeout(time), Err(std::sync::mpsc::RecvTimeoutError::Timeout));
        scope.spawn(move || match input {
            Input::Nothing => {
                wait(AT_LAST);
                drop(stdin);
            }
            Input::Trickle(bytes) => {
                let mut bytes = bytes.iter();
                while bytes.next().is_some_and(|byte| stdin.write_all(&[*byte]).is_ok()) && wait(Duration::from_secs(2))
                {
                }
            }
            Input::Pause(bytes, time) => {
                let (first, rest) = bytes.split_at(bytes.len() / 2);
                let _ = stdin.write_all(first).and_then(|()| {
                    wait(*time);
                    stdin.write_all(rest)
                });
            }
            Input::Endless => {
                let piece = b"<a>x</a>".repeat(8192);
                let _ = stdin.write_all(b"<domain type='kvm'><name>db</name><metadata>");
                while stdin.write_all(&piece).is_ok() {}
            }
        });
        let output = child.wait_with_output().expect("wait for the hook");
        drop(end);
        output
    });
    Run { output, took: start.elapsed() }
}

/// By the clock it waits 30 seconds for a byte, and 120 for everything; a second that a busy machine takes is none of
/// its own. All of these wait at the same time.
#[test]
fn it_waits_for_its_input_but_not_for_ever() {
    let Some((allow, _)) = Place::own("hung-allow") else { return };
    let Some((block, set_policy)) = Place::own("hung-block") else { return };
    set_policy("on_internal_error = 'block'\n");
    let (allow_log, block_log) = (allow.namespace().system_log(), block.namespace().system_log());
    let call = |place: &Place, name: &str, input: Input| {
        wait_for(place.command(&HOOK).args([name, "prepare", "begin", "-"]), &input)
    };
    let signals = |name: &str, option: &str| {
        let words = [option, &HOOK, name, "prepare", "begin", "-"];
        wait_for(allow.command("env").args(words), &Input::Nothing)
    };
    let waited = |run: &Run, seconds: u64| {
        // It may be late on a busy machine, but never early.
        assert!(run.took > Duration::from_millis(seconds * 1000 - 100), "gave up after {:?}", run.took);
    };
    std::thread::scope(|scope| {
        for (name, option) in [
            ("g1", "--block-signal=ALRM"),
            ("g2", "--ignore-signal=ALRM"),
            ("g3", "--block-signal"),
            ("g4", "--ignore-signal"),
        ] {
            scope.spawn(move || {
                let run = signals(name, option);
                run.assert_passed();
                waited(&run, 30);
            });
        }
        scope.spawn(|| {
            let run = call(&allow, "g5", Input::Nothing);
            run.assert_passed();
            waited(&run, 30);
        });
        scope.spawn(|| {
            let run = call(&block, "g6", Input::Nothing);
            let line = run.assert_stopped();
            assert!(line.contains("internal error") && line.contains("no decision") && line.contains("g6"), "{line}");
            waited(&run, 30);
        });
        scope.spawn(|| {
            let run = call(&allow, "g7", Input::Trickle(doomed()));
            run.assert_passed();
            waited(&run, 120);
        });
        scope.spawn(|| {
            let run = call(&block, "g8", Input::Trickle(doomed()));
            assert!(run.assert_stopped().contains("no decision"));
            waited(&run, 120);
        });
        scope.spawn(|| {
            call(&allow, "db", Input::Pause(doomed(), Duration::from_secs(12))).assert_stopped();
        });
        // At operations that cannot stop a guest there is nothing to wait for.
        scope.spawn(|| {
            let run = wait_for(allow.command(&HOOK).args(["g9", "reconnect", "begin", "-"]), &Input::Nothing);
            run.assert_passed();
            assert!(run.took < Duration::from_secs(30), "waited {:?}", run.took);
        });
    });
    let named = |lines: Vec<String>, names: &[&str]| {
        for name in names {
            let of_this = |line: &&String| line.contains(&format!("guest {name} "));
            let found: Vec<&String> = lines.iter().filter(of_this).collect();
            assert!(found.len() == 1 && found[0].starts_with("<27>") && found[0].contains("no decision"), "{lines:?}");
        }
    };
    named(allow_log.lines(), &["g1", "g2", "g3", "g4", "g5", "g7"]);
    named(block_log.lines(), &["g6", "g8"]);
}

#[test]
fn it_takes_two_seconds_of_the_cpu_and_no_more() {
    let Some((place, set_policy)) = Place::own("cpu-time") else { return };
    let log = place.namespace().system_log();
    let call = || wait_for(place.command(&HOOK).args(["db", "prepare", "begin", "-"]), &Input::Endless);
    call().assert_passed();
    let lines = log.lines();
    let [line] = &lines[..] else { panic!("{lines:?}") };
    assert!(line.starts_with("<27>") && line.contains("guest db ") && line.contains("2 seconds of CPU time"), "{line}");
    set_policy("on_internal_error = 'block'\n");
    assert!(call().assert_stopped().contains("guest db is stopped"));
}

/// What a guest's owner can write into `<metadata>`, as libvirt prints it.
fn metadata() -> Vec<(&'static str, String)> {
    let elements = |count: usize| (0..count).map(|n| format!("<a{n} b='{n}'/>")).collect::<String>();
    let attributes: String = (0..70_000).map(|n| format!(" a{n}='{n}'")).collect();
    let namespaces: String = (0..70_000).map(|n| format!("<p{n}:a xmlns:p{n}='u{n}'/>")).collect();
    let policy = |asked: &str| format!("<p:policy xmlns:p='urn:iova-preflight:policy:1' {asked}/>");
    // libvirt indents by two blanks, up to 60, and prints `>` as four bytes.
    let indented = format!("{}<a/>\n", " ".repeat(60)).repeat(700_000);
    vec![
        ("an override that is none", policy("passthrough='x'")),
        ("an override that is empty", policy("passthrough=''")),
        ("an override of an undefined entity", policy("passthrough='&undefined;'")),
        ("an override that loosens", policy("passthrough='present'")),
        ("two overrides", policy("passthrough='present'") + &policy("passthrough='x'")),
        ("70 000 elements", elements(70_000)),
        ("70 000 attributes", format!("<a{attributes}/>")),
        ("70 000 namespaces", namespaces),
        ("4 MiB of >", format!("<a>{}</a>", "&gt;".repeat(4 << 20))),
        ("44 MiB of indentation", indented),
        ("4 MiB of \"", format!("<a b='{}'/>", "&quot;".repeat(4 << 20))),
        ("10 000 levels", format!("{}{}", "<a>".repeat(10_000), "</a>".repeat(10_000))),
        ("an undefined entity", "&undefined;<a b='&undefined;'/>".to_owned()),
        ("a section", "<![CDATA[</metadata><name>x</name><memory>1</memory>]]>".to_owned()),
        ("a comment", "<!-- </metadata><memory>1</memory> -->".to_owned()),
        ("an instruction", "<?a </metadata><memory>1</memory>?>".to_owned()),
        ("metadata", "<metadata><memory>1</memory></metadata><domain><memory>1</memory></domain>".to_owned()),
    ]
}

fn with_metadata(guest: &Guest, tag: &str, inside: &str) -> Vec<u8> {
    let xml = guest.xml();
    let at = xml.find("<memory").expect("a place");
    [&xml[..at], "<metadata", tag, ">", inside, "</metadata>\n  ", &xml[at..]].concat().into_bytes()
}

#[test]
fn a_guests_metadata_cannot_switch_the_check_off() {
    let Some((place, set_policy)) = Place::own("metadata") else { return };
    let log = place.namespace().system_log();
    let (doomed, fine) = (Guest::huge("db", "pc-q35-7.2").with_phys_bits(40), Guest::small("web"));
    set_policy("passthrough = 'assume'\non_internal_error = 'block'\n");
    for (what, inside) in metadata() {
        let line = place.hook("db", "prepare", &with_metadata(&doomed, "", &inside)).assert_stopped();
        assert!(line.contains("phys-bits"), "{what}: {line}");
        // Nor does it stop a guest.
        place.hook("web", "prepare", &with_metadata(&fine, "", &inside)).assert_passed();
        let lines = log.lines();
        assert!(lines.iter().all(|line| line.starts_with("<28>")), "{what}: {lines:?}");
        let ignored = lines.iter().filter(|line| line.contains("metadata") && line.contains("ignored"));
        assert_eq!(ignored.count(), if what.contains("override") { 2 } else { 0 }, "{what}: {lines:?}");
    }
    let attributes: String = (0..70_000).map(|n| format!(" a{n}='{n}'")).collect();
    place.hook("db", "prepare", &with_metadata(&doomed, &attributes, "")).assert_stopped();
}

#[test]
fn an_override_tightens_and_loosens_only_where_the_policy_says_so() {
    let Some((place, set_policy)) = Place::own("overrides") else { return };
    let in_hole = Guest::huge("db", "pc-q35-6.2");
    let call = |asked: &str| {
        let policy = format!("<p:policy xmlns:p='urn:iova-preflight:policy:1' passthrough='{asked}'/>");
        place.hook("db", "prepare", &with_metadata(&in_hole, "", &policy))
    };
    for policy in ["", "overrides = 'tighten'\n", "overrides = 'honour'\n"] {
        set_policy(policy);
        call("assume").assert_stopped();
        call("present").assert_passed();
    }
    set_policy("overrides = 'ignore'\n");
    call("assume").assert_passed();
    for (policy, loosens) in [("", false), ("overrides = 'ignore'\n", false), ("overrides = 'honour'\n", true)] {
        set_policy(&format!("passthrough = 'assume'\n{policy}"));
        call("assume").assert_stopped();
        if loosens {
            call("present").assert_passed();
        } else {
            call("present").assert_stopped();
        }
    }
}

/// A text of a guest's own is as long as a definition may be, and six times that once it is printed.
#[test]
fn a_guests_title_cannot_switch_the_check_off() {
    let Some(place) = Place::any("title") else { return };
    // A program that is not optimised takes too long for all of it.
    let most = if std::env::var_os("IOVA_PREFLIGHT_HOOK").is_some() { 4 << 20 } else { 200_000 };
    for text in ["&quot;".repeat(most), "&amp;x".repeat(most / 4)] {
        let xml = String::from_utf8(doomed()).expect("UTF-8");
        let xml = xml.replace("<memory", &format!("<title>{text}</title><memory"));
        place.hook("db", "prepare", xml.as_bytes()).assert_stopped();
    }
    // Elements that libvirt keeps, as many as a definition can have.
    let tags = "<tag id='1'/>\n".repeat(most.min(300_000) / 4);
    let xml = String::from_utf8(doomed()).expect("UTF-8");
    let xml = xml.replace("</devices>", &format!("<interface type='user'><vlan>{tags}</vlan></interface></devices>"));
    place.hook("db", "prepare", xml.as_bytes()).assert_stopped();
}

#[test]
fn a_guest_named_like_an_exempt_uuid_is_not_exempt() {
    let Some((place, set_policy)) = Place::own("named-like") else { return };
    let uuid = "c7a5fdbd-edaf-9455-926a-d65c16db1809";
    for exempt in [uuid.to_owned(), uuid.to_uppercase(), uuid.replace('-', "")] {
        set_policy(&format!("exempt = ['{exempt}']\n"));
        for name in [uuid.to_owned(), exempt.clone()] {
            let xml = Guest::huge(&name, "pc-q35-7.2").with_phys_bits(40).xml();
            place.hook(&name, "prepare", xml.as_bytes()).assert_stopped();
        }
        let with_uuid = String::from_utf8(doomed()).expect("UTF-8");
        let with_uuid = with_uuid.replace("<memory", &format!("<uuid>{uuid}</uuid><memory"));
        place.hook("db", "prepare", with_uuid.as_bytes()).assert_passed();
    }
}

/// What nobody reads is not waited for, and what was decided stands.
#[test]
fn a_blocked_standard_error_changes_nothing() {
    let Some((place, set_policy)) = Place::own("blocked-stderr") else { return };
    let _log = place.namespace().system_log();
    let full_pipe = || {
        let (reader, mut writer) = std::io::pipe().expect("a pipe");
        // What a pipe holds (pipe(7)).
        writer.write_all(&[0; 65_536]).expect("it is empty");
        (OwnedFd::from(reader), OwnedFd::from(writer))
    };
    let full_socket = || {
        let (reader, mut writer) = std::os::unix::net::UnixStream::pair().expect("a socket");
        writer.set_nonblocking(true).expect("for now");
        while writer.write(&[0; 4096]).is_ok() {}
        writer.set_nonblocking(false).expect("as it was");
        (OwnedFd::from(reader), OwnedFd::from(writer))
    };
    let closed_pipe = || {
        let (reader, writer) = std::io::pipe().expect("a pipe");
        drop(reader);
        (OwnedFd::from(writer.try_clone().expect("another")), OwnedFd::from(writer))
    };
    for policy in ["", "on_internal_error = 'block'\n"] {
        set_policy(policy);
        for full in [&full_pipe as &dyn Fn() -> (OwnedFd, OwnedFd), &full_socket, &closed_pipe] {
            for (input, stopped) in [(doomed(), true), (b"<a".to_vec(), !policy.is_empty()), (fine(), false)] {
                let (_reader, writer) = full();
                let mut command = place.command(&HOOK);
                command.args(["db", "prepare", "begin", "-"]).stdin(Stdio::piped()).stderr(Stdio::from(writer));
                let mut child = command.stdout(Stdio::piped()).spawn().expect("run the hook");
                child.stdin.take().expect("a pipe").write_all(&input).expect("it is read");
                let output = child.wait_with_output().expect("wait for the hook");
                assert_eq!(output.status.code(), Some(i32::from(stopped)), "{policy}");
            }
        }
    }
}

/// Signals that were sent before the hook was, and while it waits: none of them is the clock.
#[test]
fn no_signal_lets_a_guest_go() {
    let Some(place) = Place::any("stray-signals") else { return };
    let signals = "HUP INT QUIT USR1 USR2 PIPE ALRM TERM XCPU XFSZ VTALRM PROF IO PWR TSTP TTIN TTOU";
    let shell = |script: &str| place.feed(place.command("sh").args(["-c", script, &HOOK, signals]), &doomed());
    let blocked = "for s in $1; do kill -s $s $$; done; exec \"$0\" db prepare begin -";
    let option = "--block-signal";
    place.feed(place.command("env").args([option, "sh", "-c", blocked, &HOOK, signals]), &doomed()).assert_stopped();
    // It blocks signals once it is ready for them.
    shell(
        "exec 3<&0; (sleep 1; cat <&3) | \"$0\" db prepare begin - & hook=$!; \
         until grep -q '^SigBlk:.*[1-9a-f]' /proc/$hook/status; do :; done; \
         for s in $1; do kill -s $s $hook; done; kill -s CONT $hook; wait $hook",
    )
    .assert_stopped();
}

/// The program alone, as it is shipped: what a dynamic one needs before it begins is not for this test.
#[test]
fn whatever_is_short_ends_in_a_decision_or_in_a_line() {
    let Some((place, set_policy)) = Place::own("limits") else { return };
    if std::env::var_os("IOVA_PREFLIGHT_HOOK").is_none() {
        return skip("hook_protocol limits: IOVA_PREFLIGHT_HOOK names no static hook; hooks/build makes one");
    }
    let log = place.namespace().system_log();
    // Whoever may raise limits does, so that nobody is to be told apart from him.
    let limited = |limits: &str, input: &[u8]| {
        let mut words = vec!["--bounding-set=-sys_resource", "prlimit"];
        words.extend(limits.split(' '));
        words.extend(["--", &HOOK, "db", "prepare", "begin", "-"]);
        place.feed(place.command("setpriv").args(words), input)
    };
    for limits in [
        "--as=4194304",
        "--data=1000000",
        "--stack=65536",
        "--stack=32768",
        "--nofile=4",
        "--nofile=3",
        "--nofile=2",
        "--cpu=1",
        "--fsize=0",
        "--sigpending=0",
        "--nproc=0",
        "--memlock=0",
        "--as=4194304 --stack=65536 --nofile=3 --cpu=1 --fsize=0 --sigpending=0",
    ] {
        limited(limits, &doomed()).assert_stopped();
        limited(limits, &fine()).assert_passed();
    }
    log.lines();
    let title = format!("<title>{}</title><memory", "x".repeat(4 << 20));
    let large = String::from_utf8(doomed()).expect("UTF-8").replace("<memory", &title).into_bytes();
    for (limits, input) in [("--as=4194304", &large), ("--data=2000000", &large), ("--stack=16384", &doomed())] {
        set_policy("");
        let run = limited(limits, input);
        let (passed, lines) = (run.assert_sane(), log.lines());
        assert!(lines.len() == 1 && lines[0].contains("guest db"), "{limits}: {lines:?}");
        assert!(!passed || lines[0].contains("internal error"), "{limits}: {lines:?}");
        set_policy("on_internal_error = 'block'\n");
        limited(limits, input).assert_stopped();
        log.lines();
    }
    // No descriptor is left for the policy, but that of the input is good for the line.
    set_policy("");
    limited("--nofile=1", &doomed()).assert_passed();
    let lines = log.lines();
    assert!(lines.len() == 1 && lines[0].contains("guest db") && lines[0].contains("policy.toml"), "{lines:?}");
    // Nothing is left.
    limited("--nofile=0", &doomed()).assert_passed();
    assert_eq!(log.lines(), [""; 0]);
}

/// libvirt takes a signal for a refusal.
#[test]
fn what_cannot_be_caught_stops_the_guest() {
    let Some((place, _)) = Place::own("uncaught") else { return };
    if std::env::var_os("IOVA_PREFLIGHT_HOOK").is_none() {
        return skip("hook_protocol uncaught: IOVA_PREFLIGHT_HOOK names no static hook; hooks/build makes one");
    }
    // The C library needs memory before the program's first instruction.
    let words = ["--bounding-set=-sys_resource", "prlimit", "--data=0", "--", &HOOK, "db", "prepare", "begin", "-"];
    let run = place.feed(place.command("setpriv").args(words), &doomed());
    // nsenter ends as its child does.
    assert!(run.output.status.signal().is_some(), "{run:?}");
}

/// Facts that cannot be read are unknown. What depends on them is not certain, and is said.
#[test]
fn a_host_that_tells_nothing_lets_a_guest_go_and_is_named() {
    let Some((place, set_policy)) = Place::own("no-facts") else { return };
    let log = place.namespace().system_log();
    // Opening a pipe would wait for a writer, who never comes.
    let make_pipe = |inside: &str| {
        let path = place.namespace().path(inside);
        std::fs::remove_file(&path).expect("remove the file");
        assert!(Command::new("mkfifo").arg(&path).status().expect("run mkfifo").success());
    };
    make_pipe("/sys/kernel/iommu_groups/0/reserved_regions");
    set_policy("on_internal_error = 'block'\n");
    let in_hole = Guest::huge("db", "pc-q35-6.2").with_hostdev().xml();
    // It is said once, where the XML is final.
    place.hook("db", "prepare", in_hole.as_bytes()).assert_passed();
    place.hook("db", "start", in_hole.as_bytes()).assert_passed();
    let lines = log.lines();
    assert!(matches!(&lines[..], [line] if line.contains("guest db") && line.contains("depends on")), "{lines:?}");
    // What QEMU refuses is refused on any host.
    place.hook("db", "prepare", &doomed()).assert_stopped();
    log.lines();

    // A policy has to be a regular file: anything else is an error at once.
    make_pipe("/etc/iova-preflight/policy.toml");
    place.hook("db", "prepare", &doomed()).assert_passed();
    let lines = log.lines();
    assert!(matches!(&lines[..], [line] if line.contains("policy.toml: a pipe, not a regular file")), "{lines:?}");
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
        assert!(run.took < Duration::from_secs(30), "waited {:?}", run.took);
    }
}
