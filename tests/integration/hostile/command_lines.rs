//! QEMU command lines that are wrong, hostile or endless.

use super::sizes::Large;
use super::{GOOD, assert_all_of, case, check_command, make_pipe, run};
use crate::common::{end_of, open_when_read, work_dir, writer_of};
use std::io::Write;
use std::path::Path;
use std::process::Stdio;

/// What Linux passes to a program at most: a NUL and a pointer come with each argument.
const MOST: usize = 2 << 20;

#[test]
fn unreadable_command_lines_are_errors_with_their_place() {
    let neither = "neither domain XML nor a QEMU command line";
    let log = "2026-11-29 06:31:02.123+0000: starting up libvirt version: 9.0.0, qemu version: 7.2.22\n";
    let in_log = format!("{log}/usr/bin/qemu-system-x86_64 \\\n-name 'a \\\n-S\n");
    assert_all_of(
        &[
            case("single-quote", "kvm -name 'a", "1:11", "this ' is not closed"),
            case("double-quote", "kvm -name a \\\n  -m \"1G\n-S\n", "2:6", "this \" is not closed"),
            case("dollar-quote", "kvm -name $'a\\'", "1:11", "this $' is not closed"),
            case("substitution", "kvm -smp $(nproc", "1:10", "this $( is not closed"),
            case("backtick", "kvm -smp `nproc", "1:10", "this ` is not closed"),
            case("brace", "kvm -m ${RAM", "1:8", "this ${ is not closed"),
            case("quote-in-a-log", in_log, "3:7", "this ' is not closed"),
            case(
                "quote-in-a-script",
                "#!/bin/sh\nset -e\nexec kvm -m 1G -name \"$1\n",
                "3:22",
                "this \" is not closed",
            ),
            case("nul-in-a-word", b"kvm -m 1\0G", "1:9", "NUL"),
            case("nul-after-a-line", b"kvm -m 1G\n\0", "2:1", "NUL"),
            case("nul-that-is-escaped", "kvm -name $'a\\0b'", "1:14", "NUL"),
            case("nuls", [0; 4096], "1:1", neither),
            case("nul-separated-words-of-others", b"bash\0-c\0true\0", "1:1", neither),
            case("latin-1", b"kvm -name caf\xe9 -m 1G", "1:14", "not UTF-8"),
            case("latin-1-between-nuls", b"kvm\0-name\0caf\xe9\0", "1:14", "not UTF-8"),
            case("cut-in-a-character", b"kvm -name \xc3", "1:11", "not UTF-8"),
            case("surrogate", b"kvm -name \xed\xa0\x80", "1:11", "not UTF-8"),
            case("overlong", b"kvm -name \xc0\x80", "1:11", "not UTF-8"),
            case("a-core", b"\x7fELF\x02\x01\x01\0qemu-system-x86_64\0-m\x001G\0", "1:1", neither),
            case("a-long-word", format!("kvm -name {} -m 1G", "x".repeat(MOST)), "1:11", "2 MiB"),
            case("many-words", format!("kvm {}", "-S ".repeat(MOST / 10)), "1:571952", "2 MiB"),
            case("many-words-between-nuls", "kvm\0".to_owned() + &"-S\0".repeat(MOST / 10), "1:571952", "2 MiB"),
            case("a-long-text", "kvm -m 1G\n".repeat(419_431), "419431:5", "4 MiB"),
        ],
        ("", "args"),
        &[],
    );
}

#[test]
fn endless_input_is_refused_for_its_size() {
    for (unit, place) in [("kvm -S \\\n", "466034:8"), ("\0", "1:4194305"), ("#", "1:4194305")] {
        let endless = unit.repeat((8 << 20) / unit.len());
        let run = run(check_command().arg("-"), endless.as_bytes());
        assert_eq!(run.code(), Some(2), "{unit:?}");
        run.assert_complaint(Path::new("-"), place, "4 MiB");
    }
}

/// Input that arrives in pieces through a pipe is read as one text, up to the end of the pipe.
#[test]
fn a_command_line_may_come_through_a_pipe() {
    let folder = work_dir("hostile-pipe-args");
    let good = folder.join("good.xml");
    std::fs::write(&good, GOOD).expect("write a file");
    for (name, pieces, code, said) in [
        ("shell", &["kvm -m 1", "G -name a\n"][..], 0, "pass"),
        ("nul", &["kvm\0-m\0", "1G\0-name\0a\0"], 0, "pass"),
        ("cut", &["kvm -m 1G -na", "me 'a"], 2, "1:17: this ' is not closed"),
        // Whether it is read before its writer is gone is a matter of time.
        ("nothing", &[], 2, "empty"),
    ] {
        let pipe = folder.join(format!("{name}.args"));
        make_pipe(&pipe);
        let held = writer_of(&pipe);
        let mut child = check_command()
            .args([&pipe, &good])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("run iova-preflight");
        let mut writer = open_when_read(&pipe);
        drop(held);
        for piece in pieces {
            writer.write_all(piece.as_bytes()).expect("write to the pipe");
            writer.flush().expect("write to the pipe");
        }
        drop(writer);
        let status = end_of(&mut child);
        let output = child.wait_with_output().expect("what it printed");
        let text = [output.stdout, output.stderr].concat();
        let text = String::from_utf8_lossy(&text);
        assert_eq!(status.code(), Some(code), "{name}: {text}");
        assert!(
            text.lines().any(|line| line.contains(said) && line.contains(&format!("{name}.args"))),
            "{name}: {text}"
        );
        assert!(text.contains("good.xml (good)"), "{name}: {text}");
    }
}

#[test]
fn nothing_in_a_command_line_commands_the_terminal() {
    const EVIL: &str = "\u{1b}[31m\u{9b}31m\u{9d}0;title\u{9c}\u{7}\u{8}\u{202e}\u{2066}\u{200f}\u{85}\u{2028}";
    let folder = work_dir("hostile-terminal-args");
    let stopped = "-m 1200G -device vfio-pci,host=0000:41:00.0 -cpu host";
    let mut paths = Vec::new();
    for (number, text) in [
        format!("kvm -name '{EVIL}' -machine pc-q35-6.2 {stopped}"),
        format!("kvm -name a -machine 'pc-q35-6.2' -m '1200G,{EVIL}=1' '{EVIL}'"),
        format!("kvm -name a -machine 'pc-q35-{EVIL}' {stopped}"),
        format!("kvm -readconfig '{EVIL}' -device '{{\"driver\":\"{EVIL}\"' -machine pc-q35-6.2 {stopped}"),
        format!("kvm -accel '{EVIL}' -set 'device.{EVIL}.a=b' -machine 'accel={EVIL}' {stopped}"),
        format!("qemu-system-{EVIL} -S"),
        format!("'/usr/bin/{EVIL}/qemu-system-x86_64' -machine pc-q35-6.2,memory-backend={EVIL} {stopped}"),
        format!("kvm -name $'\\e[31m\\x9b' -machine pc-q35-6.2 {stopped}"),
        format!("kvm\0-name\0{EVIL}\n{EVIL}\0-m\0{EVIL}\0-global\0{EVIL}\0"),
        format!("kvm -m 1G '{EVIL}"),
        EVIL.to_owned(),
    ]
    .into_iter()
    .enumerate()
    {
        let path = folder.join(format!("{number}.args"));
        std::fs::write(&path, text).expect("write a file");
        paths.push(path);
    }
    for command in ["check", "map"] {
        for path in &paths {
            let mut program = check_command();
            let arguments: Vec<_> = program.get_args().skip(1).map(std::ffi::OsStr::to_owned).collect();
            program = std::process::Command::new(env!("CARGO_BIN_EXE_iova-preflight"));
            let run = run(program.arg(command).args(arguments).arg(path), b"");
            assert!(matches!(run.code(), Some(0..=2)), "{command} {}: {:?}", path.display(), run.status);
            for text in [&run.stdout, &run.stderr] {
                let raw = |c: char| (c.is_control() && c != '\n') || EVIL.contains(c) && !c.is_ascii();
                let bad: Vec<String> =
                    text.lines().filter(|line| line.contains(raw)).map(|l| format!("{l:?}")).collect();
                assert!(bad.is_empty(), "{command} {}: reaches the terminal:\n{}", path.display(), bad.join("\n"));
            }
        }
    }
}

/// Command lines of as many bytes as Linux passes to a program, all of one thing, or more, and whether there is a verdict.
fn large() -> Vec<Large> {
    let numbered = |count: usize, text: &dyn Fn(usize) -> String| (0..count).map(text).collect::<String>();
    let of = |text: &str, count: usize| format!("kvm -m 1200G -machine pc-q35-6.2 {}", text.repeat(count));
    let inside = |option: &str, part: &str| format!("kvm -{option}{} -S", part.repeat((MOST - 200) / part.len()));
    let member = |n: usize| format!("{}\"{n}\":0", if n == 0 { "" } else { "," });
    let key = "x".repeat(MOST / 2);
    vec![
        ("a-long-word", inside("name ", "x"), true),
        ("switches", of("-S ", 180_000), true),
        ("passthrough-devices", of("-device vfio-pci,host=0:1.0 ", 40_000), true),
        ("passthrough-devices-as-json", of("-device '{\"driver\":\"vfio-pci\"}' ", 40_000), true),
        ("back-ends", numbered(33_000, &|n| format!("-object memory-backend-ram,id=a{n},size=1G ")), true),
        ("nodes", format!("kvm {}", numbered(50_000, &|n| format!("-numa node,nodeid={n} "))), true),
        ("memory-devices", numbered(34_000, &|n| format!("-device pc-dimm,id=a{n},memdev=b{n} ")), true),
        ("globals", of("-global cpu.a=b ", 60_000), true),
        ("changes", format!("kvm -device x,id=a {}", "-set device.a.b=c ".repeat(50_000)), true),
        ("cpus", of("-cpu EPYC ", 60_000), true),
        ("features", inside("cpu EPYC", ",+a"), true),
        ("cpu-properties", inside("cpu EPYC", ",a=b"), true),
        ("memory-keys", inside("m 1G", ",a=b"), true),
        ("machine-keys", inside("machine q35", ",cxl=on"), true),
        ("device-keys", inside("device x", ",a=b"), true),
        ("commas", inside("device x", ","), true),
        ("colons", inside("machine accel=", ":"), true),
        ("json-with-a-long-key", format!("kvm -device '{{\"{key}\":{{{}}}}}'", numbered(70_000, &member)), true),
        ("json-with-many-members", format!("kvm -device '{{{}}}'", numbered(150_000, &member)), true),
        ("json-that-is-deep", format!("kvm -device '{}1{}'", "{\"a\":".repeat(300_000), "}".repeat(200_000)), true),
        ("json-of-brackets", format!("kvm -device '{{\"a\":{}'", "[".repeat(MOST / 2)), true),
        ("escapes", format!("kvm -name $'{}'", "\\x41".repeat(500_000)), true),
        ("quotes", format!("kvm -name {}", "'a'".repeat(600_000)), true),
        ("empty-quotes", format!("kvm -name {}", "''".repeat(1_900_000)), true),
        ("variables", format!("kvm -m {}", "$a".repeat(900_000)), true),
        ("calls", "kvm -m 1G\n".repeat(400_000), true),
        ("starts", "2026-11-29 06:31:02.123+0000: starting up\nkvm -m 1G\n".repeat(80_000), true),
        ("comments", "#\n".repeat(2_000_000) + "kvm -m 1G", true),
        ("redirections", format!("kvm {}", ">".repeat(4_000_000)), true),
        ("ends", format!("kvm {}", ";".repeat(4_000_000)), true),
        ("open-substitutions", format!("kvm {}", "$(".repeat(1_900_000)), false),
        ("open-braces", format!("kvm {}", "${".repeat(1_900_000)), false),
        ("open-backtick", format!("kvm `{}", " ".repeat(4_000_000)), false),
        ("open-quotes-of-no-call", "can't\n".repeat(600_000), false),
        ("assignments", "A=b ".repeat(170_000), false),
    ]
}

#[test]
#[cfg(target_os = "linux")]
fn large_command_lines_take_little_memory_and_give_short_messages() {
    // Each of 2^19 features and properties is a value with its place.
    super::sizes::assert_little_memory("args", 160, large());
}
