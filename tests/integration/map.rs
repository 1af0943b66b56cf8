//! `map`: every sample is drawn, within the width there is, with the addresses that `check` computes and the
//! differential tests hold against QEMU; and other programs accept the SVG.

use crate::common::{evaluated, generated, samples, skip, work_dir};
use serde_json::Value;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};

/// Samples that QEMU builds no map for.
const WITHOUT_A_MAP: [&str; 4] =
    ["arm-guest.xml", "dimm-without-maxmemory.xml", "pentium3-with-maxphysaddr.xml", "slots-without-room.xml"];

fn map(path: &Path, columns: usize, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_iova-preflight"))
        .args(["map", "--policy", "none", "--host", "amd-epyc"])
        .arg(path)
        .args(arguments)
        .env("COLUMNS", columns.to_string())
        .output()
        .expect("run iova-preflight")
}

fn text(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).expect("UTF-8")
}

fn name(path: &Path) -> &str {
    path.file_name().and_then(|name| name.to_str()).expect("a sample has a name")
}

#[test]
fn every_sample_is_drawn_or_it_is_said_why_not() {
    for path in samples() {
        let output = map(&path, 80, &[]);
        let expected = if WITHOUT_A_MAP.contains(&name(&path)) { 2 } else { 0 };
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(expected), "{}: {stderr}", path.display());
        if expected == 2 {
            assert!(output.stdout.is_empty() && stderr.contains("no map: "), "{}: {stderr}", path.display());
        }
    }
}

#[test]
fn no_line_is_wider_than_the_terminal() {
    for path in samples() {
        for columns in [40, 60, 80, 100, 120, 200] {
            for line in text(&map(&path, columns, &[])).lines() {
                // A word is not broken.
                let fits = line.chars().count() <= columns || !line.contains(' ');
                assert!(fits, "{} at {columns} columns:\n{line}", path.display());
            }
        }
    }
}

/// The starts of what `check` computed are on the axis, in hexadecimal as there is room for it.
#[test]
fn the_axis_has_the_addresses_of_the_layout() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_iova-preflight"));
    let guests =
        evaluated(command.args(["check", "--policy", "none", "--format", "json", "--host", "amd-epyc", "xml-samples"]));
    let mut compared = 0;
    for path in samples() {
        let guest = &guests[name(&path)];
        let drawn = text(&map(&path, 120, &[]));
        let ranges = ["ram_above_4g", "device_memory", "pci_hole64"].map(|part| &guest["layout"][part]);
        let devices = guest["layout"]["memory_devices"].as_array().map(Vec::as_slice).unwrap_or_default();
        for start in ranges.into_iter().chain(devices).filter_map(|range| range["start"].as_u64()) {
            let axis = format!("{start:#x}");
            let found = drawn.lines().any(|line| line.split_whitespace().take(3).any(|word| word == axis));
            assert!(found, "{}: {axis} is not on the axis of\n{drawn}", path.display());
            compared += 1;
        }
    }
    assert!(compared > 50, "{compared} addresses");
}

#[test]
fn what_collides_is_seen_without_colour_and_gone_with_the_fix() {
    let drawn = text(&map(Path::new("xml-samples/old-machine-1200g-gpu.xml"), 80, &[]));
    // 1012-1024 GiB are cut out of the RAM on the left and free of it on the right.
    let row = drawn.lines().find(|line| line.starts_with("1012 GiB")).expect("a row");
    assert!(row.contains("XXXXXXXX RAM in HyperTransport") && row.contains("//////// HyperTransport 12 GiB"), "{row}");
    assert!(!drawn.contains('\u{1b}'));
    let coloured = text(&map(Path::new("xml-samples/old-machine-1200g-gpu.xml"), 80, &["--color", "always"]));
    assert!(coloured.contains("\u{1b}["));
}

#[test]
fn both_maps_are_drawn_where_the_machine_type_is_not_known() {
    let drawn = text(&map(Path::new("xml-samples/alias-q35-1200g-gpu.xml"), 80, &[]));
    assert!(drawn.contains("with a type older than 7.1: fails   with 7.1 or newer: starts"), "{drawn}");
    assert!(drawn.contains("XXXXXXXX RAM in HyperTransport      //////// HyperTransport 12 GiB"), "{drawn}");
}

#[test]
fn names_reach_neither_the_terminal_nor_the_picture_as_they_are() {
    let folder = work_dir("map-names");
    let sample = std::fs::read_to_string("xml-samples/old-machine-1200g-gpu.xml").expect("a sample");
    let path = folder.join("a.xml");
    std::fs::write(&path, sample.replace("ml-train-03", "&lt;b&gt;&amp;&#x202e;\u{85}x")).expect("written");
    let drawn = text(&map(&path, 80, &[]));
    assert!(drawn.starts_with("<b>&\\u{202e}\\u{85}x, 1200 GiB of RAM"), "{drawn}");
    let svg = text(&map(&path, 80, &["--format", "svg"]));
    assert!(svg.contains("<title>&lt;b&gt;&amp;\\u{202e}\\u{85}x, 1200 GiB of RAM"), "{svg}");
}

#[test]
fn the_svg_is_one_and_needs_nothing_else() {
    let folder = work_dir("map-svg");
    for tool in ["xmllint", "rsvg-convert"] {
        if Command::new(tool).arg("--version").stderr(Stdio::null()).stdout(Stdio::null()).status().is_err() {
            return skip(&format!("{tool} is not there, so that nobody looks at the SVG"));
        }
    }
    for path in samples().iter().filter(|path| !WITHOUT_A_MAP.contains(&name(path))) {
        let svg = text(&map(path, 80, &["--format", "svg"]));
        let file = folder.join(name(path)).with_extension("svg");
        std::fs::write(&file, &svg).expect("written");
        let lint = Command::new("xmllint").args(["--nonet", "--noout"]).arg(&file).output().expect("runs");
        assert!(lint.status.success(), "{}: {}", path.display(), String::from_utf8_lossy(&lint.stderr));
        // Patterns are its own; there is no link, script or image.
        assert!(svg.split("url(").skip(1).all(|rest| rest.starts_with('#')), "{}", path.display());
        assert!(!["href", "<script", "<image", "@import"].iter().any(|word| svg.contains(word)), "{}", path.display());
        let png = Command::new("rsvg-convert").arg(&file).output().expect("runs");
        assert!(png.status.success(), "{}: {}", path.display(), String::from_utf8_lossy(&png.stderr));
        let side = |at: usize| u32::from_be_bytes(png.stdout[at..at + 4].try_into().expect("4 bytes"));
        let size = format!(r#"width="{}" height="{}""#, side(16), side(20));
        assert!(svg.contains(&size), "{}: drawn as {size}", path.display());
    }
}

/// The title is text, and text is as wide as its font: the picture leaves room for wide characters.
#[test]
fn the_title_fits_the_picture() {
    let folder = work_dir("map-title");
    let sample = std::fs::read_to_string("xml-samples/old-machine-1200g-gpu.xml").expect("a sample");
    for name in ["x".repeat(200), "仮".repeat(60), "a b ".repeat(40)] {
        let path = folder.join("a.xml");
        std::fs::write(&path, sample.replace("ml-train-03", &name)).expect("written");
        let svg = text(&map(&path, 80, &["--format", "svg"]));
        let width: usize =
            svg.split("width=\"").nth(1).and_then(|rest| rest.split('"').next()?.parse().ok()).expect("a width");
        for line in svg.split("<text class=\"title\"").skip(1) {
            let words = line.split_once('>').and_then(|(_, rest)| rest.split_once('<')).expect("a text").0;
            // A character of 17 pixels bold is no wider than 12, an ideograph no wider than 17.
            let most: usize = words.chars().map(|c| if c.is_ascii() { 12 } else { 17 }).sum();
            assert!(24 + most <= width, "{words} in {width}");
        }
    }
}

/// Side by side the scale is one; below one another each map has its own, and ends where it ends.
#[test]
fn maps_below_one_another_have_scales_of_their_own() {
    let drawn = text(&map(Path::new("xml-samples/old-machine-1200g-gpu.xml"), 60, &[]));
    let (before, after) = drawn.split_once("with the fix").expect("both maps");
    assert!(before.contains("1234 GiB") && !before.contains("2222 GiB"), "{before}");
    assert!(after.contains("2254 GiB") && !after.contains("1202 GiB"), "{after}");
    assert!(!drawn.contains("unused 1020"), "{drawn}");
}

#[test]
fn standard_input_is_drawn_and_rubbish_is_not() {
    let feed = |bytes: &[u8]| {
        let mut child = Command::new(env!("CARGO_BIN_EXE_iova-preflight"))
            .args(["map", "--policy", "none", "-", "--host", "amd-epyc"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("runs");
        child.stdin.take().expect("piped").write_all(bytes).expect("taken");
        child.wait_with_output().expect("ends")
    };
    let sample = std::fs::read("xml-samples/old-machine-1200g-gpu.xml").expect("a sample");
    let output = feed(&sample);
    assert_eq!(output.status.code(), Some(0));
    assert!(text(&output).starts_with("ml-train-03"));
    let output = feed(b"<domain>\n  <name>x</nam></domain>");
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).starts_with("-:2:"), "{output:?}");
    let folder = map(Path::new("xml-samples"), 80, &[]);
    assert_eq!(folder.status.code(), Some(2));
}

/// Guests with as much as the format allows: the picture stays one.
#[test]
fn a_guest_with_hundreds_of_devices_fits_a_screen() {
    let folder = work_dir("map-devices");
    let device = |slot: u64| {
        let base = 0x2_0000_0000 + slot * (1 << 30);
        format!(
            "<memory model='dimm'><target><size unit='MiB'>512</size><node>0</node></target>\
             <address type='dimm' slot='{slot}' base='{base:#x}'/></memory>"
        )
    };
    let devices: String = (0..200).map(device).collect();
    let xml = format!(
        "<domain type='kvm'><name>many</name><maxMemory slots='250' unit='GiB'>300</maxMemory>\
         <memory unit='GiB'>104</memory><vcpu>1</vcpu><os><type arch='x86_64' machine='pc-q35-7.2'>hvm</type></os>\
         <features><acpi/></features><cpu mode='custom'><model>EPYC</model>\
         <numa><cell id='0' cpus='0' memory='4' unit='GiB'/></numa></cpu><devices>{devices}</devices></domain>"
    );
    let path = folder.join("many.xml");
    std::fs::write(&path, xml).expect("written");
    let output = map(&path, 80, &[]);
    let drawn = text(&output);
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(drawn.contains("200 memory devices") && drawn.lines().count() < 60, "{drawn}");
}

#[test]
fn samples_without_a_map_exist() {
    let names: Vec<Value> = samples().iter().map(|path| Value::from(name(path))).collect();
    for sample in WITHOUT_A_MAP {
        assert!(names.contains(&Value::from(sample)), "{sample} is not a sample");
    }
}

#[test]
fn the_picture_in_the_readme_is_the_programs() {
    let svg = text(&map(Path::new("xml-samples/old-machine-1200g-gpu.xml"), 80, &["--format", "svg"]));
    generated("docs/map.svg", &svg);
}
