//! `explain TEXT`: real messages and their causes, logs of any size, hostile texts.

use std::io::Write as _;
use std::process::{Command, Output, Stdio};

use iova_preflight::explain::messages_page;
use iova_preflight::messages::cause::answers;
use iova_preflight::messages::table::{Speaker, wordings};
use serde_json::Value;

use crate::common::validators::{Schema, Validators};
use crate::common::{generated, skip, work_dir};

/// Messages as they really appear.
const RECORDED: &str = include_str!("../data/messages.txt");

struct Recorded {
    source: &'static str,
    cause: &'static str,
    ours: bool,
    /// `0x…-0x…`
    range: Option<&'static str>,
    text: &'static str,
}

fn recorded() -> Vec<Recorded> {
    let blocks = RECORDED.split("\n\n").skip_while(|block| !block.starts_with("source: "));
    blocks
        .map(|block| {
            let (source, rest) = block.split_once('\n').expect("a cause");
            let (cause, text) = rest.split_once('\n').expect("a text");
            let mut words = cause.strip_prefix("cause: ").expect("a cause").split(' ');
            let name = words.next().expect("a name");
            let ours = match words.next() {
                Some("ours") => true,
                Some("other") => false,
                word => panic!("{name}: {word:?}"),
            };
            let source = source.strip_prefix("source: ").expect("a source");
            Recorded { source, cause: name, ours, range: words.next(), text }
        })
        .collect()
}

fn explain(arguments: &[&str], input: Option<&[u8]>) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_iova-preflight"));
    command.arg("explain").args(arguments).env("COLUMNS", "100");
    let stdin = if input.is_some() { Stdio::piped() } else { Stdio::null() };
    let mut child = command.stdin(stdin).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("runs");
    let writer = child.stdin.take().map(|mut pipe| {
        let input = input.unwrap_or_default().to_vec();
        // It may have seen enough.
        std::thread::spawn(move || drop(pipe.write_all(&input)))
    });
    let output = child.wait_with_output().expect("runs");
    writer.into_iter().for_each(|thread| thread.join().expect("writes"));
    output
}

fn json(arguments: &[&str], input: Option<&[u8]>) -> Value {
    let output = explain(arguments, input);
    serde_json::from_slice(&output.stdout).expect("JSON")
}

#[test]
fn real_messages_are_recognised_with_their_cause() {
    let recorded = recorded();
    assert!(recorded.len() >= 40, "{} messages", recorded.len());
    let others = recorded.iter().filter(|message| !message.ours).count();
    assert!(others * 4 >= recorded.len(), "{others} of {} have another cause", recorded.len());
    for message in recorded {
        let Recorded { source, cause, ours, range, text } = message;
        let document = json(&["--format", "json", text], None);
        let first = &document["messages"][0];
        assert_eq!((first["cause"].as_str(), first["ours"].as_bool()), (Some(cause), Some(ours)), "{source}\n{text}");
        let causes: Vec<_> = document["messages"].as_array().expect("messages").iter().map(|m| &m["cause"]).collect();
        assert!(causes.iter().all(|other| **other == cause), "{source}: {causes:?}");
        let found = first["range"].is_object().then(|| {
            let number = |key: &str| first["range"][key].as_u64().expect("an address");
            format!("{:#x}-{:#x}", number("start"), number("end"))
        });
        assert_eq!(found.as_deref(), range, "{source}\n{text}");
        // The same as words of a shell, and as a log.
        let words: Vec<&str> = text.split_ascii_whitespace().collect();
        let arguments: Vec<&str> = ["--format", "json"].into_iter().chain(words).collect();
        assert_eq!(json(&arguments, None)["messages"][0]["cause"], cause, "{source}, as several arguments");
        assert_eq!(json(&["-", "--format", "json"], Some(text.as_bytes()))["messages"][0]["cause"], cause, "{source}");
    }
}

#[test]
fn the_committed_page_is_that_of_the_program_and_quotes_word_for_word() {
    let page = messages_page();
    generated("docs/messages.md", &page);
    for form in wordings().flat_map(|wording| wording.forms) {
        assert!(page.contains(&format!("\n{form}\n")), "{form}");
    }
    for answer in answers() {
        assert!(page.contains(&format!("\n## {}\n", answer.id)), "{}", answer.id);
    }
}

#[test]
fn the_committed_schema_is_that_of_the_types() {
    let mut text = serde_json::to_string_pretty(&iova_preflight::report::explanation::schema()).expect("JSON");
    text.push('\n');
    generated("docs/explain.schema.json", &text);
}

#[test]
fn every_document_follows_the_schema() {
    let Some(validators) = Validators::install() else { return };
    let folder = work_dir("explain-schema");
    let schema = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/explain.schema.json");
    let documents: Vec<_> = [RECORDED, "nothing", ""]
        .into_iter()
        .enumerate()
        .map(|(number, text)| {
            let output = explain(&["-", "--format", "json"], Some(text.as_bytes()));
            let path = folder.join(format!("{number}.json"));
            std::fs::write(&path, output.stdout).expect("write the document");
            path
        })
        .collect();
    validators.assert_valid(&Schema::File(&schema), &documents);
}

#[test]
fn the_status_says_whether_something_is_known() {
    let status = |arguments: &[&str], input: Option<&[u8]>| explain(arguments, input).status.code();
    assert_eq!(status(&["group 1 is not viable"], None), Some(0));
    assert_eq!(status(&["group", "1", "is", "not", "viable"], None), Some(0));
    assert_eq!(status(&["-device", "vfio-pci: group 1 is not viable"], None), Some(0), "a text that begins with -");
    assert_eq!(status(&["--", "--format of group 1 is not viable"], None), Some(0));
    assert_eq!(status(&["iommu width (39) is not sufficient"], None), Some(0), "cut short");
    assert_eq!(status(&["vfio_dma_map(…) = -22"], None), Some(0), "as people quote it");
    assert_eq!(status(&["it does not work"], None), Some(1));
    assert_eq!(status(&[""], None), Some(1));
    assert_eq!(status(&["-"], Some(b"")), Some(1));
    assert_eq!(status(&["-"], Some(b"group 1 is not viable\n")), Some(0));
    assert_eq!(status(&["ram-in-reserved-range"], None), Some(0), "a rule");
    assert_eq!(status(&["relocated-above-1t"], None), Some(0), "a rule");
    for word in ["no-such-rule", "vfio", "-x"] {
        assert_eq!(status(&[word], None), Some(2), "{word}");
    }
    assert_eq!(status(&["a text", "--format", "xml"], None), Some(1), "a part of the text");
    assert_eq!(status(&["--format", "xml", "a text"], None), Some(2));
}

/// What people type of a message, and its cause. A word of letters and hyphens alone is the name of a rule.
const TYPED: [(&str, &str); 14] = [
    ("vfio_container_dma_map", "mapping-refused"),
    ("vfio_dma_map = -22", "mapping-refused"),
    ("vfio_dma_map -12", "locked-memory"),
    ("VFIO_MAP_DMA -14", "memory-not-pinned"),
    ("VFIO_MAP_DMA: Cannot allocate memory", "locked-memory"),
    ("IOMMU_IOAS_MAP", "mapping-refused"),
    ("RLIMIT_MEMLOCK", "locked-memory"),
    ("phys-bits too low", "phys-bits-too-low"),
    ("KVM_SET_USER_MEMORY_REGION", "slot-refused"),
    ("BAR0 is 0M", "bar-not-placed"),
    ("BAR 1: can't assign; no space", "bar-not-placed"),
    ("iommu width", "address-above-iommu-width"),
    ("AMD-Vi IO_PAGE_FAULT", "dma-fault"),
    ("peer-to-peer transactions", "bar-not-mapped"),
];

#[test]
fn a_few_words_of_a_message_are_enough() {
    for (text, cause) in TYPED {
        let document = json(&["--format", "json", "--", text], None);
        let messages = document["messages"].as_array().expect("messages");
        assert_eq!((messages.len(), messages[0]["cause"].as_str()), (1, Some(cause)), "{text}");
        let answer = String::from_utf8(explain(&["--", text], None).stdout).expect("UTF-8");
        assert!(answer.contains("paste the whole line"), "{text}: {answer}");
    }
    let whole = String::from_utf8(explain(&["group 1 is not viable"], None).stdout).expect("UTF-8");
    assert!(!whole.contains("paste the whole line"), "{whole}");
    assert_eq!(explain(&["-"], Some(b"RLIMIT_MEMLOCK\n")).status.code(), Some(1), "a log has whole lines");
}

/// What libvirt 9.0 and QEMU 7.2 print (tests/data/refusals.txt), and the rule whose page has it.
#[test]
fn what_the_pages_quote_is_explained() {
    let missing = "error: Failed to start domain 'x'\nerror: unsupported configuration: Emulator \
                   '/usr/bin/qemu-system-x86_64' does not support machine type 'pc-q35-9.9'";
    for (text, rule) in [
        (missing, "machine-type-not-available"),
        ("qemu-system-x86_64: unsupported machine type", "machine-type-not-available"),
        (
            "error: unsupported configuration: The number of virtual CPU address bits cannot exceed the number supported by \
             the host CPU",
            "phys-bits-above-host",
        ),
        ("error: memory device count '3' exceeds slots count '2'", "refused-by-libvirt"),
    ] {
        let document = json(&["--format", "json", "--", text], None);
        let of_log = json(&["-", "--format", "json"], Some(text.as_bytes()));
        for document in [document, of_log] {
            let message = &document["messages"][0];
            assert_eq!((message["rule"].as_str(), message["ours"].as_bool()), (Some(rule), Some(true)), "{text}");
        }
        let answer = String::from_utf8(explain(&["--", text], None).stdout).expect("UTF-8");
        assert!(answer.contains(&format!("`iova-preflight explain {rule}`")), "{answer}");
        assert!(answer.contains(text.lines().last().expect("a line")), "{answer}");
    }
}

#[test]
fn a_text_that_is_not_known_says_where_to_look() {
    let output = explain(&["something", "went", "wrong"], None);
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    assert!(text.contains("/var/log/libvirt/qemu/NAME.log") && output.stderr.is_empty(), "{text}");
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml");
    let text = String::from_utf8(explain(&[file], None).stdout).expect("UTF-8");
    assert!(text.contains("iova-preflight explain - < FILE"), "{text}");
}

/// Proxmox VE has no libvirt; QEMU is called `kvm` there, but not only there.
#[test]
fn a_log_of_proxmox_is_answered_with_its_commands() {
    let mapping =
        "kvm: vfio_dma_map(0x5e043daea2f0, 0x100000000, 0x12b80000000, 0x771a38000000) = -22 (Invalid argument)";
    let device = "kvm: -device vfio-pci,host=0000:41:00.0,id=hostpci0,bus=pci.0: ";
    let said = |line: &str| String::from_utf8(explain(&["-"], Some(line.as_bytes())).stdout).expect("UTF-8");
    for line in [format!("Jun 04 07:25:13 pve1 QEMU[3989106]: {mapping}"), mapping.replacen("kvm: ", device, 1)] {
        let said = said(&line);
        assert!(said.contains("\n       $ qm showcmd VMID --pretty | iova-preflight check - "), "{said}");
        assert!(!said.contains("qemu:///system"), "{said}");
    }
    // Debian's wrapper as `<emulator>` of libvirt.
    let undecided = said(&format!("2026-01-05T10:00:00.000000Z {mapping}"));
    assert!(undecided.contains("--connect qemu:///system"), "{undecided}");
    assert!(undecided.contains("= proxmox: if this is Proxmox VE: `qm showcmd VMID"), "{undecided}");
    for other in ["qemu-kvm", "qemu-system-x86_64"] {
        let said = said(&mapping.replacen("kvm", other, 1));
        assert!(said.contains("--connect qemu:///system") && !said.contains("qm "), "{said}");
    }
}

/// Whoever has installed a package has no checkout.
#[test]
fn no_answer_names_a_file_of_the_source() {
    for recorded in recorded() {
        let said = String::from_utf8(explain(&["-"], Some(recorded.text.as_bytes())).stdout).expect("UTF-8");
        assert!(!said.contains("docs/"), "{said}");
    }
    let unknown = String::from_utf8(explain(&["nothing", "known"], None).stdout).expect("UTF-8");
    assert!(unknown.contains("/usr/share/doc/iova-preflight") && !unknown.contains("docs/"), "{unknown}");
    let package = include_str!("../../Cargo.toml");
    assert_eq!(package.matches("doc/messages.md").count(), 2, "the Debian package and the RPM");
}

#[test]
fn repeated_messages_are_counted() {
    let line =
        "kvm: vfio_dma_map(0x5e043daea2f0, 0x380000000000, 0x10000000, 0x771a38000000) = -22 (Invalid argument)\n";
    let log = format!("one\ntwo\n{}", line.repeat(500));
    let document = json(&["-", "--format", "json"], Some(log.as_bytes()));
    let messages = document["messages"].as_array().expect("messages");
    assert_eq!((messages.len(), &messages[0]["count"], &messages[0]["line"]), (1, &500.into(), &3.into()));
    let text = String::from_utf8(explain(&["-"], Some(log.as_bytes())).stdout).expect("UTF-8");
    assert!(text.contains("line 3, QEMU, 500 times:"), "{text}");
}

#[test]
fn hostile_texts_do_no_harm() {
    let message = b"\x1b]0;x\x07vfio 0000:41:00.0: group 1 is not viable\x1b[2J";
    let texts = [
        [&b"\0".repeat(1 << 20)[..], message].concat(),
        [&b"\xff\xfe\xc3".repeat(1 << 20)[..], message].concat(),
        [&b"vfio_dma_map(".repeat(200_000)[..], message].concat(),
        [&b"= -22 (vfio_dma_map(0x, , 0xffffffffffffffffff) = -99999999999999999999 ".repeat(20_000)[..], message]
            .concat(),
        [message, &b" address=0x".repeat(500_000)[..]].concat(),
    ];
    for text in texts {
        let output = explain(&["-"], Some(&text));
        let shown = String::from_utf8(output.stdout).expect("UTF-8");
        assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
        assert!(shown.contains("another device of the same IOMMU group") && !shown.contains(['\x1b', '\0', '\x07']));
        assert!(shown.len() < 20_000, "{} bytes", shown.len());
    }
}

#[test]
fn every_line_of_an_answer_fits_the_terminal() {
    for answer in RECORDED.lines().filter(|line| !line.is_empty()) {
        let text = String::from_utf8(explain(&["-"], Some(answer.as_bytes())).stdout).expect("UTF-8");
        // Quotes and commands stay on one line.
        let code = |line: &str| line.starts_with("    ");
        for line in text.lines().filter(|line| !code(line)) {
            assert!(line.chars().count() <= 100, "{line}");
        }
    }
}

/// Words of ours that a program makes of a format: the words, and the part of the format that has to be in the program.
const COMPOSED: [(&str, &str); 7] = [
    ("pci backend driver 'default' is not supported", "pci backend driver '%s' is not supported"),
    ("failed to open /dev/vfio/", "failed to open %s"),
    ("Could not open '/dev/vfio/", "Could not open '%s'"),
    ("KVM_SET_USER_MEMORY_REGION", "KVM_SET_USER_MEMORY_REGION failed, slot=%d"),
    ("phys-bits should be ", "phys-bits should be "),
    ("] error attach ", "[iommufd=%d] error attach %s"),
    ("vfio: Cannot reset device ", "vfio: Cannot reset device %s"),
];

/// The programs of a kind that are there: the installed one, and those of the trees of Debian releases.
fn programs(of: &str) -> Vec<std::path::PathBuf> {
    let trees = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("target/packages/trees");
    let roots = ["trixie", "sid"].map(|tree| trees.join(tree));
    let roots = std::iter::once(std::path::PathBuf::from("/")).chain(roots);
    roots.map(|root| root.join(of)).filter(|path| path.is_file()).collect()
}

#[test]
fn the_words_are_those_of_real_programs() {
    let libraries = "usr/lib/x86_64-linux-gnu";
    let qemu = programs("usr/bin/qemu-system-x86_64");
    let mut libvirt = programs(&format!("{libraries}/libvirt/connection-driver/libvirt_driver_qemu.so"));
    libvirt.extend(programs(&format!("{libraries}/libvirt.so.0")));
    libvirt.extend(programs("usr/bin/virsh"));
    for (speaker, programs, enough) in [(Speaker::Qemu, qemu, 3), (Speaker::Libvirt, libvirt, 2)] {
        if programs.len() < enough {
            skip(&format!("the messages of {} need its programs of several releases", speaker.name()));
            continue;
        }
        // Bytes that are not UTF-8 are lost; they are not part of a message.
        let read = |path| String::from_utf8_lossy(&std::fs::read(path).expect("a program")).into_owned();
        let texts: Vec<String> = programs.iter().map(read).collect();
        for wording in wordings().filter(|wording| wording.by == speaker) {
            let words =
                COMPOSED.iter().find(|(words, _)| *words == wording.words).map_or(wording.words, |(_, part)| *part);
            assert!(texts.iter().any(|text| text.contains(words)), "no {} prints {words:?}", speaker.name());
        }
    }
}
