use super::*;

fn read(text: &str) -> Call<'_> {
    Call::read(text.as_bytes()).unwrap_or_else(|error| panic!("{text:?}: {error}"))
}

fn words(text: &str) -> Vec<String> {
    read(text).arguments.into_iter().map(|word| word.text).collect()
}

fn error(text: &[u8]) -> String {
    Call::read(text).expect_err("an error").to_string()
}

/// What bash makes of each, as `printf '<%s>'` shows it.
#[test]
fn words_are_those_of_a_shell() {
    for (text, expected) in [
        ("qemu-system-x86_64 -m 1G", vec!["-m", "1G"]),
        ("kvm -name 'a b' -m \"1G\" -S", vec!["-name", "a b", "-m", "1G", "-S"]),
        ("kvm -name a\\ b -m 1\"2\"'3'G", vec!["-name", "a b", "-m", "123G"]),
        ("kvm -m 1G \\\n  -S", vec!["-m", "1G", "-S"]),
        ("kvm -m 1\\\n2G", vec!["-m", "12G"]),
        ("kvm -m 1G \\\r\n  -S\r\n", vec!["-m", "1G", "-S"]),
        ("kvm -m 1G \\", vec!["-m", "1G"]),
        ("kvm -m 1G # -m 2G\n", vec!["-m", "1G"]),
        ("kvm -append a#b -S", vec!["-append", "a#b", "-S"]),
        ("kvm -append \"a\\\"b\\$c\\d\"", vec!["-append", "a\"b$c\\d"]),
        ("kvm -append $'a\\tb\\x41\\101\\'' -S", vec!["-append", "a\tbAA'", "-S"]),
        ("kvm -append '' -S", vec!["-append", "", "-S"]),
        ("kvm -m 1G >/dev/null 2>&1 &", vec!["-m", "1G"]),
        ("kvm -m 1G | tee log; echo done", vec!["-m", "1G"]),
        ("kvm -m 1G && echo -m 2G", vec!["-m", "1G"]),
        ("kvm -device '{\"driver\":\"vfio-pci\"}'", vec!["-device", "{\"driver\":\"vfio-pci\"}"]),
        ("-m 1G -S", vec!["-m", "1G", "-S"]),
        ("\u{feff}  \n kvm -m 1G", vec!["-m", "1G"]),
        ("kvm\0-name\0a b\0-append\0\0", vec!["-name", "a b", "-append", ""]),
        ("kvm\0-S\0\n", vec!["-S"]),
    ] {
        assert_eq!(words(text), expected, "{text:?}");
    }
}

#[test]
fn the_program_is_found_after_variables_and_wrappers() {
    for (text, program) in [
        ("LC_ALL=C PATH=/bin /usr/bin/qemu-system-x86_64 -S", "/usr/bin/qemu-system-x86_64"),
        ("sudo -E nice -n 5 /usr/bin/kvm -S", "/usr/bin/kvm"),
        ("#!/bin/sh\nset -e\ncd /vms\nexec env A=b qemu-kvm -S \"$@\"\n", "qemu-kvm"),
        ("taskset -c 0-3 numactl --membind=0 qemu-system-x86_64 -S", "qemu-system-x86_64"),
        ("if qemu-system-aarch64 -S; then true; fi", "qemu-system-aarch64"),
        ("/opt/wrapper -S", "/opt/wrapper"),
    ] {
        assert_eq!(read(text).program.map(|word| word.text).as_deref(), Some(program), "{text:?}");
    }
    assert_eq!(read("-S").program, None);
}

/// What libvirt 9.0 logged.
const LOG: &str = "\
2026-11-29 06:31:02.123+0000: starting up libvirt version: 9.0.0, package: 9.0.0-4, qemu version: 7.2.22, kernel: 6.1
LC_ALL=C \\
HOME=/var/lib/libvirt/qemu/domain-1-a \\
/usr/bin/qemu-system-x86_64 \\
-name guest=a,debug-threads=on \\
-msg timestamp=on
char device redirected to /dev/pts/1 (label charserial0)
qemu-system-x86_64: can't do it
2026-11-29 06:32:02.123+0000: shutting down, reason=failed
";

#[test]
fn the_last_start_in_a_log_is_read() {
    let one = read(LOG);
    assert_eq!((one.form, one.calls, one.remark()), (Form::Log, 1, None));
    assert_eq!(one.arguments.len(), 4);
    let twice = format!("{LOG}{}", LOG.replace("guest=a", "guest=b"));
    let last = read(&twice);
    assert_eq!(last.arguments[1].text, "guest=b,debug-threads=on");
    assert_eq!(last.remark().as_deref(), Some("the last of 2 starts in this log, line 13"));
    // Without its date line.
    let (_, cut) = LOG.split_once('\n').expect("lines");
    assert_eq!(
        read(cut).arguments,
        one.arguments.iter().cloned().map(|word| shifted(word, LOG.len() - cut.len())).collect::<Vec<_>>()
    );
}

fn shifted(word: Word, by: usize) -> Word {
    let mut moved = Word::begun(word.span.start - by);
    moved.add(&word.text, Span::new(word.span.start - by, word.span.end - by));
    moved
}

/// Every part of a word leads back to the bytes that it comes from.
#[test]
fn every_part_of_a_word_has_its_place() {
    for (text, word, part, expected) in [
        ("kvm -m 1200G", "1200G", "1200", "1200"),
        ("kvm -m 'size=1G,maxmem=2G'", "size=1G,maxmem=2G", "maxmem=2G", "maxmem=2G"),
        ("kvm -m size=\"1\"2G,slots=2", "size=12G,slots=2", "12G", "1\"2G"),
        ("kvm -m size=1\\\n2G", "size=12G", "12G", "1\\\n2G"),
        ("kvm -m $'size\\x3d1G'", "size=1G", "e=1", "e\\x3d1"),
        ("kvm -m \"a\\\"b\"", "a\"b", "\"", "\""),
        ("kvm\x00-m\x001200G\x00", "1200G", "1200G", "1200G"),
    ] {
        let call = read(text);
        let found = &call.arguments[1];
        assert_eq!(found.text, word);
        let at = word.find(part).expect("a part");
        let place = found.place(at..at + part.len());
        assert_eq!(&text[place.start..place.end], expected, "{text:?}");
    }
    let call = read("kvm -append ''");
    assert_eq!(call.arguments[1].place(0..0), Span::new(12, 12));
    assert_eq!(call.arguments[1].span, Span::new(12, 14));
}

#[test]
fn text_that_a_shell_replaces_is_marked() {
    let call = read("kvm -m $RAM -smp `nproc` -name \"$(hostname -s)-a\" -append '$x' -fd \\$y");
    let expands: Vec<bool> = call.arguments.iter().map(|word| word.expands).collect();
    assert_eq!(expands, [false, true, false, true, false, true, false, false, false, false]);
    assert_eq!(call.arguments[1].text, "$RAM");
}

#[test]
fn unreadable_command_lines_are_errors_with_their_place() {
    assert_eq!(error(b"kvm -name 'a"), "1:11: this ' is not closed");
    assert_eq!(error(b"kvm \\\n -name \"a\n"), "2:8: this \" is not closed");
    assert_eq!(error(b"kvm -m $(x"), "1:8: this $( is not closed");
    assert_eq!(error(b"kvm -m 1\0G"), "1:9: a NUL byte in a shell word");
    assert_eq!(error(b"kvm -name \xff"), "1:11: not UTF-8");
    for text in ["", " \n", "\u{feff}\n"] {
        assert_eq!(error(text.as_bytes()), "1:1: empty: neither domain XML nor a QEMU command line");
    }
    for text in ["hello", "- a\n- b", "[domain]\nname = 1", "name: x", "\0", "echo kvm", "{}", "can't"] {
        let said = error(text.as_bytes());
        assert!(said.ends_with(NEITHER), "{text:?}: {said}");
    }
    let comments = "#\n".repeat(crate::xml::MAX_BYTES / 2) + "kvm";
    assert!(error(comments.as_bytes()).ends_with("longer than 4 MiB; the QEMU command line alone is enough"));
    let long = format!("kvm -name {} -S", "x".repeat(MAX_ARGUMENT_BYTES));
    assert_eq!(error(long.as_bytes()), "1:11: more than 2 MiB of arguments, more than Linux passes to a program");
}
