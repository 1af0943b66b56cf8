//! Documents that are not XML, or not to the end.

use super::{REALISTIC, assert_all, assert_all_as, case, check};
use crate::common::work_dir;
use std::path::PathBuf;

#[test]
fn a_domain_cut_off_anywhere_is_named_with_its_place() {
    let folder = work_dir("hostile-cut");
    let whole = REALISTIC.trim_end();
    let files: Vec<(PathBuf, String)> = (0..whole.len())
        .map(|length| {
            let path = folder.join(format!("{length:04}.xml"));
            std::fs::write(&path, &whole[..length]).expect("write a file");
            (path, place_of_cut(&whole[..length]))
        })
        .collect();
    std::fs::write(folder.join("9999.xml"), whole).expect("write a file");
    // Worked out by hand, as a check of `place_of_cut`.
    for (length, place) in [
        (0, "1:1"),
        (30, "1:1"),
        (39, "2:1"),
        (70, "3:1"),
        (140, "3:1"),
        (148, "4:3"),
        (whole.find("amp;").expect("in it") + 2, "6:11"),
        (whole.find("4</vcpu").expect("in it"), "8:3"),
        (whole.len() - 1, "30:1"),
    ] {
        assert_eq!(files[length].1, place, "{length}: {:?}", &whole[..length]);
    }
    let run = check(&[folder.as_path()]);
    assert_eq!(run.code(), Some(2));
    for (path, place) in &files {
        run.assert_complaint(path, place, "");
    }
    assert_eq!(run.stderr.lines().count(), files.len(), "a message for the whole domain:\n{}", run.stderr);
    assert!(run.stdout.contains("9999.xml (db-1)"), "the whole domain is not evaluated:\n{}", run.stdout);
}

/// Where the parser has to point to in a domain that is cut off: to the markup or the reference that is cut, otherwise
/// to the element that is left open, and to the end if there is none.
fn place_of_cut(text: &str) -> String {
    let mut open = Vec::new();
    let mut at = 0;
    let offset = loop {
        let Some(start) = text[at..].find(['<', '&']).map(|found| at + found) else {
            break open.last().copied().unwrap_or(text.len());
        };
        let markup = &text[start..];
        let end = match markup {
            _ if markup.starts_with('&') => ";",
            _ if markup.starts_with("<![") => "]]>",
            _ if markup.starts_with("<!--") => "-->",
            _ if markup.starts_with("<?") => "?>",
            _ => ">",
        };
        let Some(length) = markup.find(end).map(|found| found + end.len()) else { break start };
        match markup {
            _ if markup.starts_with("</") => drop(open.pop()),
            _ if markup.starts_with(['&']) || markup.starts_with("<!") || markup.starts_with("<?") => {}
            _ if markup[..length].ends_with("/>") => {}
            _ => open.push(start),
        }
        at = start + length;
    };
    let before = &text[..offset];
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    format!("{}:{}", before.matches('\n').count() + 1, before[line_start..].chars().count() + 1)
}

/// What may be neither domain XML nor a command line, and with `--input xml` is certainly not XML.
#[test]
fn input_of_unknown_kind_is_an_error_with_its_place() {
    let elf = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x03\0\x3e\0\x01\0\0\0";
    let utf16 = "<domain/>".encode_utf16().flat_map(u16::to_be_bytes).collect::<Vec<u8>>();
    let json = "{\"domain\": {\"name\": \"a\"}}\n";
    let cases: [(&str, &[u8], &str, &str, &str); 8] = [
        ("empty", b"", "1:1", "1:1", "empty"),
        ("blank", b"  \n\n \t", "1:1", "3:3", "empty"),
        ("word", b"domain", "1:1", "1:1", "not XML"),
        ("word-after-blanks", b"\n  domain", "2:3", "2:3", "not XML"),
        ("elf", elf, "1:1", "1:5", "U+0002"),
        ("json", json.as_bytes(), "1:1", "1:1", "not XML"),
        ("yaml", b"---\nkind: VirtualMachine\n", "1:1", "1:1", "not XML"),
        ("utf-16-be-unmarked", &utf16, "1:1", "1:1", "UTF-16"),
    ];
    let neither = "neither domain XML nor a QEMU command line";
    let said = |document: &[u8]| if document.trim_ascii().is_empty() { "empty: " } else { neither };
    assert_all(&cases.map(|(name, document, place, ..)| case(name, document, place, said(document))));
    assert_all_as("xml", &cases.map(|(name, document, _, place, words)| case(name, document, place, words)));
}

#[test]
fn malformed_xml_is_an_error_with_its_place() {
    let utf16 = |text: &str, unit: fn(u16) -> [u8; 2]| text.encode_utf16().flat_map(unit).collect::<Vec<u8>>();
    assert_all(&[
        case("gzip", b"\x1f\x8b\x08\0", "1:2", "not UTF-8"),
        case("network", "<?xml version='1.0'?>\n<network>\n</network>\n", "2:1", "<network>"),
        case("foreign-namespace", "<!-- --><domain xmlns='urn:x'/>", "1:9", "<domain>"),
        case("prefixed", "<x:domain xmlns:x='urn:x'/>", "1:1", "<x:domain>"),
        case("two-roots", "<domain/>\n<domain/>\n", "2:1", "more than one"),
        case("trailing-text", "<domain/>\n  junk\n", "2:3", "after"),
        case("trailing-reference", "<domain/>&amp;", "1:10", "outside"),
        case("trailing-cdata", "<domain/>\n<![CDATA[]]>", "2:1", "outside"),
        case("trailing-nul", "<domain/>\n\0", "2:1", "U+0000"),
        case("wrong-end-tag", "<domain>\n  <name>\n  </nam>\n</domain>", "3:3", "</nam>"),
        case("end-tag-only", "</domain>", "1:1", "</domain>"),
        case("end-tag-too-many", "<domain>\n</domain></domain>", "2:10", "</domain>"),
        case("crossed", "<domain><a><b></a></b></domain>", "1:15", "</a>"),
        case("double-bracket", "<domain>\n<<name/></domain>", "2:1", ""),
        case("space-in-tag", "<domain>\n < name/></domain>", "2:2", ""),
        case("number-as-name", "<domain>\n<1/></domain>", "2:1", "name"),
        case("no-name", "<domain><></></domain>", "1:9", ""),
        case("unquoted", "<domain type=kvm/>", "1:14", "quoted"),
        case("no-value", "<domain\n  type/>", "2:3", "no value"),
        case("no-space", "<domain a='1'b='2'/>", "1:14", "white space"),
        case("twice", "<domain a='1'\n  a='2'/>", "2:3", "twice"),
        case("bracket-in-value", "<domain type='a<b'/>", "1:16", "`<`"),
        case("open-value", "<domain type='kvm>\n</domain>\n", "1:1", "not closed"),
        case("bare-ampersand", "<domain>a & b</domain>", "1:11", ""),
        case("bare-ampersand-in-value", "<domain a='b & c'/>", "1:14", ""),
        case("undefined-entity", "<domain>\n<name>&nope;</name></domain>", "2:7", "nope"),
        case("undefined-entity-in-value", "<domain type='&nope;'/>", "1:15", "nope"),
        case("reference-to-nul", "<domain>&#0;</domain>", "1:9", "reference"),
        case("reference-to-escape", "<domain a='&#27;[31m'/>", "1:12", "reference"),
        case("reference-to-surrogate", "<domain>&#xD800;</domain>", "1:9", "reference"),
        case("reference-overflow", "<domain>&#99999999999999999999;</domain>", "1:9", "reference"),
        case("section-end-in-text", "<domain>a ]]> b</domain>", "1:11", "]]>"),
        case("open-comment", "<domain>\n <!-- a </domain>", "2:2", "comment"),
        case("dashes-in-comment", "<domain>\n <!-- a -- b --></domain>", "2:9", "--"),
        case("open-section", "<domain>\n <![CDATA[ </domain>", "2:2", "CDATA"),
        case("open-instruction", "<domain>\n <?a </domain>", "2:2", "instruction"),
        case("late-declaration", "\n<?xml version='1.0'?>\n<domain/>", "2:1", "declaration"),
        case("second-declaration", "<?xml version='1.0'?><?xml version='1.0'?><domain/>", "1:22", "declaration"),
        case("version-2", "<?xml version='2.0'?><domain/>", "1:7", "declaration"),
        case("nul", "<domain>\0</domain>", "1:9", "U+0000"),
        case("bell-in-value", "<domain type='\u{7}'/>", "1:15", "U+0007"),
        case("escape", "<domain>\n\u{1b}]0;x\u{7}</domain>", "2:1", "U+001B"),
        case("noncharacter", "<domain>\u{fffe}</domain>", "1:9", "U+FFFE"),
        case("latin-1", b"<domain>\n<name>caf\xe9</name>\n</domain>", "2:10", "not UTF-8"),
        case(
            "latin-1-declared",
            b"<?xml version='1.0' encoding='ISO-8859-1'?>\n<domain>\xe9</domain>",
            "2:9",
            "not UTF-8",
        ),
        case("overlong", b"<domain>\xc0\x80</domain>", "1:9", "not UTF-8"),
        case("surrogate", b"<domain>\xed\xa0\x80</domain>", "1:9", "not UTF-8"),
        case("cut-in-character", b"<domain>\xc3", "1:9", "not UTF-8"),
        case("declared-utf-16", "<?xml version='1.0' encoding='UTF-16'?>\n<domain/>", "1:31", "UTF-16"),
        case("declared-latin-1", "<?xml version='1.0' encoding='ISO-8859-1'?>\n<domain/>", "1:31", "ISO-8859-1"),
        case("declared-nonsense", "<?xml version='1.0' encoding='\u{9b}x'?>\n<domain/>", "1:31", "\\u{9b}x"),
        case("utf-16-le", utf16("\u{feff}<domain/>", u16::to_le_bytes), "1:1", "UTF-16"),
        case("utf-16-be", utf16("\u{feff}<domain/>", u16::to_be_bytes), "1:1", "UTF-16"),
        case("utf-16-le-unmarked", utf16("<domain/>", u16::to_le_bytes), "1:1", "UTF-16"),
        case("two-byte-order-marks", "\u{feff}\u{feff}<domain/>", "1:1", ""),
        case("place-behind-byte-order-mark", "\u{feff}<domain><a></domain>", "1:12", "</domain>"),
        case("place-behind-wide-characters", "<domain>\n<!-- ä\u{1f600} --><a></domain>", "2:15", "</domain>"),
        case("place-behind-carriage-returns", "<domain>\r\n\t<a></domain>", "2:5", "</domain>"),
    ]);
}

#[test]
fn entities_are_not_even_looked_at() {
    let bomb = {
        let mut text = "<?xml version='1.0'?>\n<!DOCTYPE domain [\n<!ENTITY e0 'ha'>\n".to_owned();
        for level in 1..=30 {
            let inner = format!("&e{};", level - 1).repeat(10);
            text += &format!("<!ENTITY e{level} '{inner}'>\n");
        }
        text + "]>\n<domain>&e30;</domain>"
    };
    let external = "<!DOCTYPE domain SYSTEM 'file:///etc/passwd'><domain/>";
    let file = "\n\n<!DOCTYPE domain [<!ENTITY x SYSTEM 'file:///etc/passwd'>]><domain><name>&x;</name></domain>";
    assert_all(&[
        case("bomb", bomb, "2:1", "document type"),
        case("external-subset", external, "1:1", "document type"),
        case("external-entity", file, "3:1", "document type"),
        case("plain", "<!DOCTYPE domain>\n<domain/>", "1:1", "document type"),
        case("inside", "<domain>\n<!DOCTYPE domain></domain>", "2:1", "document type"),
        case("open", "<!DOCTYPE domain [", "1:1", ""),
        case("parameter", "<!DOCTYPE a [<!ENTITY % p '<!ENTITY x \"y\">'> %p; ]><domain/>", "1:1", "document type"),
    ]);
}

#[test]
fn nesting_stops_where_libxml2_stops() {
    let nested = |depth: usize| "<domain>\n".repeat(depth);
    assert_all(&[
        case("deep-258", nested(258) + &"</domain>\n".repeat(258), "258:1", "257"),
        case("deep-100000", nested(100_000), "258:1", "257"),
    ]);
    let folder = work_dir("hostile-nested");
    let path = folder.join("257.xml");
    std::fs::write(&path, nested(257) + &"</domain>\n".repeat(257)).expect("write a file");
    assert_eq!(check(&[&path]).stderr, "", "257 elements deep");
}
