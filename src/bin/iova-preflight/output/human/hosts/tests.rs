use super::*;
use unicode_width::UnicodeWidthStr;

fn on(host: &str, name: &str, verdict: Verdict, reason: &str) -> OnHost {
    OnHost {
        host: host.to_owned(),
        name: name.to_owned(),
        source: format!("/etc/libvirt/qemu/{name}.xml"),
        is_domain: true,
        verdict,
        reason: reason.to_owned(),
        is_certain: true,
        rules: Vec::new(),
        page: None,
    }
}

/// A guest with these verdicts on hosts `a`, `b` and so on.
fn guest(name: &str, verdicts: &[Verdict]) -> Vec<OnHost> {
    let hosts = verdicts.iter().zip('a'..);
    hosts
        .map(|(verdict, host)| on(&host.to_string(), name, *verdict, if verdict.stops() { "why" } else { "" }))
        .collect()
}

fn printer(hosts: &[&str], columns: usize) -> HostsPrinter<std::fs::File> {
    let nowhere = std::fs::File::options().write(true).open("/dev/null").expect("/dev/null");
    HostsPrinter::new(nowhere, columns, hosts.iter().map(|host| (*host).to_owned()).collect())
}

fn table(printer: &mut HostsPrinter<std::fs::File>) -> String {
    printer.cut();
    anstream::adapter::strip_str(&printer.table()).to_string()
}

use Verdict::{Blocked, Fixable, NotApplicable, Pass, Warn};

#[test]
fn guests_that_run_nowhere_come_first() {
    let mut printer = printer(&["a", "b", "c"], 80);
    for (name, verdicts) in [
        ("all", [Pass, Pass, Pass]),
        ("arm", [NotApplicable; 3]),
        ("one", [Pass, Blocked, Pass]),
        ("warned", [Pass, Warn, Pass]),
        ("two", [Fixable, Pass, Pass]),
        ("fixed", [Fixable, Fixable, Fixable]),
        ("none", [Blocked, Fixable, Fixable]),
    ] {
        printer.guest(guest(name, &verdicts)).expect("printed");
    }
    printer.unreadable("x.xml", "1:1: nothing").expect("printed");
    let text = table(&mut printer);
    let names: Vec<&str> = text
        .lines()
        .filter(|line| !line.starts_with(' '))
        .map(|line| line.split(' ').next().unwrap_or_default())
        .collect();
    assert_eq!(names, ["guest", "none", "fixed", "one", "two", "x.xml", "warned", "all"], "{text}");
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines[1].split_whitespace().collect::<Vec<_>>(), ["none", "blocked", "fixable", "fixable", "none"]);
    assert_eq!(lines[2..4], ["    blocked on a: why", "    fixable on b, c: why"], "{text}");
    assert!(text.contains("\none     pass     blocked  pass     a, c\n    blocked on b: why\n"), "{text}");
}

#[test]
fn the_worst_of_many_are_shown_and_the_rest_counted() {
    let mut printer = printer(&["a", "b"], 80);
    for n in 0..10_000 {
        printer.guest(guest(&format!("pass{n}"), &[Pass, Pass])).expect("printed");
    }
    for n in 0..60 {
        printer.guest(guest(&format!("some{n}"), &[Pass, Blocked])).expect("printed");
    }
    printer.guest(guest("none", &[Blocked, Blocked])).expect("printed");
    assert!(printer.rows.len() < 2 * MOST);
    let text = table(&mut printer);
    let guests = text.lines().filter(|line| !line.starts_with(' ')).count();
    assert_eq!(guests, 1 + MOST + 1, "{text}");
    assert!(text.lines().nth(1).is_some_and(|line| line.starts_with("none ")), "{text}");
    assert!(text.ends_with("\nnot shown here: 11 run on some, 10000 run on all\n"), "{text}");
}

#[test]
fn hosts_are_named_in_few_words() {
    let row = |verdicts: &[Verdict]| GuestRow {
        name: String::new(),
        source: String::new(),
        error: None,
        hosts: guest("g", verdicts),
    };
    for (verdicts, words) in [
        (&[Pass, Pass][..], "all"),
        (&[Blocked, Fixable], "none"),
        (&[Pass, Warn, Blocked], "a, b"),
        (&[Pass, Warn, Pass, Blocked], "all but d"),
        (&[Pass, Warn, Blocked, Blocked], "a, b"),
        // Guests of a libvirt whose host is only one of them.
        (&[Pass], "a"),
    ] {
        assert_eq!(row(verdicts).runs_on(), words, "{verdicts:?}");
    }
}

#[test]
fn a_domain_that_all_hosts_are_in_is_not_shown() {
    let shown = |labels: &[&str]| without_domain(&labels.iter().map(|label| (*label).to_owned()).collect::<Vec<_>>());
    assert_eq!(shown(&["a.dc1.example.com", "b.dc1.example.com"]), ["a", "b"]);
    for labels in [
        &["a.example.com", "b.example.org"][..],
        &["a.example.com", "b"],
        &["hosts/a.toml", "hosts/b.toml"],
        &["a.toml", "a.toml"],
        &[".toml", "b.toml"],
    ] {
        assert_eq!(shown(labels), labels, "as they are");
    }
}

#[test]
fn no_line_is_wider_than_the_terminal_and_columns_line_up() {
    let hosts: Vec<String> = (0..10).map(|n| format!("hv{n:02}")).collect();
    let names = ["db", "仮想マシン仮想マシン仮想マシン仮想マシン", "e\u{301}te\u{301}", "👩‍🔬 lab", &"x".repeat(90)];
    let reason = "ram-in-reserved-range; fix: machine pc-q35-7.1, maxphysaddr emulate 42, pcihole64 32 GiB";
    for count in [2, 3, 10] {
        let hosts: Vec<&str> = hosts.iter().take(count).map(String::as_str).collect();
        for columns in [40, 60, 72, 80, 100, 120, 200] {
            let mut printer = printer(&hosts, columns);
            for name in names {
                let verdict = |nth: usize| if nth.is_multiple_of(2) { Fixable } else { Pass };
                let on_hosts = hosts.iter().enumerate().map(|(nth, host)| on(host, name, verdict(nth), reason));
                printer.guest(on_hosts.collect()).expect("printed");
            }
            let text = table(&mut printer);
            for line in text.lines() {
                assert!(line.width() <= columns, "{count} {columns}: {} {line:?}", line.width());
            }
            let cells: Vec<usize> = text
                .lines()
                .filter_map(|line| line.split_once("  fixable").filter(|_| !line.starts_with(' ')))
                .map(|(before, _)| before.width())
                .collect();
            assert!(cells.is_empty() || cells.len() == names.len(), "{text}");
            assert!(cells.iter().all(|cell| *cell == cells[0]), "{text}");
            let has_columns = !cells.is_empty();
            let (always, never) = if count == 10 { (120, 80) } else { (60, 0) };
            assert!(has_columns || columns < always, "{count} hosts, {columns} columns\n{text}");
            assert!(!has_columns || columns > never, "{count} hosts, {columns} columns\n{text}");
        }
    }
}
