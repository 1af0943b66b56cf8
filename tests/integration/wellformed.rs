//! libxml2, libvirt's parser, decides what is well-formed: `Document::parse` has to accept exactly what `xmllint`
//! accepts, except for the differences named here.

use crate::common::{note, skip, work_dir};
use iova_preflight::xml::{Document, MAX_BYTES, MAX_DEPTH};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Documents derived from the seeds by mutation.
const MUTANTS: usize = 6000;

/// Files for one `xmllint`, well below the limit on the length of a command line.
const BATCH: usize = 1000;

/// Well-formed documents that between them use everything a domain may.
const SEEDS: [&str; 6] = [
    "<?xml version='1.0' encoding='UTF-8'?>\n<domain type='kvm' xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'>\
     \n  <name>db-1</name>\n  <memory unit='GiB'>1200</memory>\n  <os><type arch='x86_64' machine='pc-q35-6.2'>hvm\
     </type></os>\n  <qemu:commandline>\n    <qemu:arg value='-device'/>\n  </qemu:commandline>\n</domain>\n",
    "<a xmlns='urn:x' xmlns:p='urn:p' p:q=\"1\">\r\n\t<p:b c='&lt;&amp;&#65;&#x42;'/>\r\n\t<b xmlns=''>x &gt; y</b>\r\n</a>\r\n",
    "<!-- before -->\n<?pi some data?>\n<a><![CDATA[<not & markup>]]]]><!-- in - side --><?p?><b/></a>\n<!-- behind -->",
    "\u{feff}<a é='ü' b.c-d_e=\"it's\">ä&apos;&quot;\u{1f600}</a>",
    "<a b = 'x'\n\tc\n=\n\"y\" ><b ></b ><c\t/></a  >",
    "<d><e f='1' g='2' h='3'/><e>]] ></e><e>--&gt;</e><e>\t</e></d>",
];

/// What mutation inserts: the beginnings and ends of markup, and characters that are special somewhere.
const FRAGMENTS: [&str; 80] = [
    "<",
    ">",
    "/",
    "</",
    "/>",
    "<a",
    "<a>",
    "</a>",
    "<a/>",
    "<b></b>",
    "</ a>",
    "<1/>",
    "<a:b/>",
    "<!DOCTYPE a>",
    "<!DOCTYPE a [<!ENTITY x 'y'>]>",
    "<?xml version='1.0' encoding='ISO-8859-1'?>",
    "<c d='e'>&#233;</c>",
    "<!-- f -->",
    "<?g h?>",
    "<:a/>",
    "<a:/>",
    "&",
    "&;",
    "&#0;",
    "&#1;",
    "&#9;",
    "&#x;",
    "&#X41;",
    "&#65",
    "&#xD800;",
    "&#xFFFF;",
    "&#x110000;",
    "&#99999999999;",
    "&lt",
    "&nope;",
    "&lt;",
    "& amp;",
    "]]>",
    "]]",
    "<![CDATA[",
    "<![CDATA[]]>",
    "<![cdata[]]>",
    "<!--",
    "-->",
    "--",
    "--->",
    "<!-->",
    "<!--->",
    "<!---->",
    "<!-- -- -->",
    "<!",
    "<?",
    "?>",
    "<?xml",
    "<?xml?>",
    "<?xml version='1.0'?>",
    "<?XML x?>",
    "<?p?>",
    "<? p?>",
    "<?a:b?>",
    "<?p q",
    "'",
    "\"",
    "=",
    " x='1'",
    " x='1' x='2'",
    " x=1",
    " x",
    "x='<'",
    " xmlns:z='urn:z'",
    " xmlns:p=''",
    " z:y='1'",
    "\r\n",
    "\r",
    "\t",
    "\n",
    " ",
    "\u{feff}",
    "\u{b7}",
    "\u{2028}",
];

/// libxml2 2.9 asks for the white space before `standalone`, which XML demands, only if the encoding is not UTF-8.
const NO_BLANK: &[u8] = b"<?xml version='1.0' encoding='UTF-8'standalone='no'?><a/>";

#[test]
fn mutated_documents_are_accepted_exactly_where_libxml2_does() {
    let mut random = SplitMix64(0x1f83_d9ab_fb41_bd6b);
    let mutants = (0..MUTANTS).map(|_| mutant(&mut random)).collect::<BTreeSet<Vec<u8>>>();
    compare("mutants", mutants.into_iter().collect());
}

#[test]
fn special_documents_are_accepted_exactly_where_libxml2_does() {
    compare("specials", specials());
}

/// Every character is a name's start, a name's inner character, and text, or none of these, as in libxml2.
#[test]
fn characters_have_the_classes_that_libxml2_gives_them() {
    // Every character below U+3100 and then the ends of every range that the XML specification names.
    let ends =
        [0xd7ff, 0xf8ff, 0xf900, 0xfdcf, 0xfdd0, 0xfdef, 0xfdf0, 0xfffd, 0xfffe, 0xffff, 0x1_0000, 0xe_ffff, 0xf_0000];
    let characters = (0..0x3100).chain(ends).filter_map(char::from_u32);
    let documents = characters.flat_map(|c| [format!("<{c}/>"), format!("<a b{c}='1'/>")]);
    compare("names", documents.map(String::into_bytes).collect());
}

fn specials() -> Vec<Vec<u8>> {
    let mut documents: Vec<Vec<u8>> = [
        "",
        " ",
        "\n",
        "x",
        "{}",
        "<a/>x",
        "x<a/>",
        "<a/><b/>",
        "<a/><!-- -->",
        "<a/><?p?>",
        "<a/>&lt;",
        "<a/><![CDATA[]]>",
        "<a></b>",
        "<a><b></a></b>",
        "<a",
        "<a>",
        "<a/",
        "</a>",
        "<a b/>",
        "<a b=/>",
        "<a b=c/>",
        "<a b='c/>",
        "<a b='c\"/>",
        "<a b='c'd='e'/>",
        "<a b='c' b='c'/>",
        "<a b='<'/>",
        "<a b='>'/>",
        "<a b='&'/>",
        "<a b='&lt;'/>",
        "<a b='&x;'/>",
        "<a b='\n\t'/>",
        "<a / >",
        "<a b='c'/ >",
        "< a/>",
        "<a></ a>",
        "<a></a b>",
        "<a></a b='c'>",
        "<a></a/>",
        "<a></>",
        "<>",
        "<a>&#32;</a>",
        "<a b='&#32;'/>",
        "<a>&#0000000000000000000000000000000065;</a>",
        "<a>&#+65;</a>",
        "<a>&#x+41;</a>",
        "<a xmlns='' xmlns:p='u' xmlns:p='u'/>",
        "<a xmlns:='u'/>",
        "<a xmlns:p:q='u'/>",
        "<a xmlns:xml='u'/>",
        "<a xmlns:xmlns='u'/>",
        "<a xmlns:p='u' xmlns:q='u' p:x='1' q:x='2'/>",
        "<a p:x='1' p:x='2'/>",
        "<a xml:space='x'/>",
        "<a:b:c/>",
        "<a b:c:d='1'/>",
        "<a :b='1'/>",
        "<a b:='1'/>",
        "<a::b/>",
        "<a:1/>",
        "<a b:1='2'/>",
        "<a:-/>",
        "<?p?><a/>",
        "<?p ?><a/>",
        "<?p:q?><a/>",
        "<??><a/>",
        "<?1?><a/>",
        "<?p",
        "<?p?",
        "<?p?>",
        "<?xml?><a/>",
        "<?xmlx?><a/>",
        "<?xml-stylesheet href='x'?><a/>",
        "<?XML?><a/>",
        "<?Xml version='1.0'?><a/>",
        "<?xml version='1.0'?>",
        "<?xml version=\"1.0\" ?><a/>",
        "<?xml version = '1.0'?><a/>",
        " <?xml version='1.0'?><a/>",
        "\n<?xml version='1.0'?><a/>",
        "<?xml version='1.0'?><?xml version='1.0'?><a/>",
        "<a><?xml version='1.0'?></a>",
        "<?xml version='1.1'?><a/>",
        "<?xml version='1.00'?><a/>",
        "<?xml version='1.'?><a/>",
        "<?xml version='1'?><a/>",
        "<?xml version='2.0'?><a/>",
        "<?xml version=''?><a/>",
        "<?xml version='1.0x'?><a/>",
        "<?xml version='1.0 '?><a/>",
        "<?xml version='&#49;.0'?><a/>",
        "<?xml version='1.0' encoding='UTF-8'?><a/>",
        "<?xml version='1.0' encoding='utf8'?><a/>",
        "<?xml version='1.0' encoding='us-ascii'?><a/>",
        "<?xml version='1.0' encoding='ascii'?><a/>",
        "<?xml version='1.0' encoding='US-ASCII'?><a>ä</a>",
        "<?xml version='1.0' encoding=''?><a/>",
        "<?xml version='1.0' encoding='nope'?><a/>",
        "<?xml version='1.0' encoding='ISO-8859-1'?><a/>",
        "<?xml version='1.0' encoding='UTF-16'?><a/>",
        "<?xml version='1.0' encoding=' UTF-8'?><a/>",
        "<?xml encoding='UTF-8'?><a/>",
        "<?xml encoding='UTF-8' version='1.0'?><a/>",
        "<?xml version='1.0'encoding='UTF-8'?><a/>",
        "<?xml version='1.0' standalone='yes'?><a/>",
        "<?xml version='1.0' standalone='maybe'?><a/>",
        "<?xml version='1.0' standalone='no' encoding='UTF-8'?><a/>",
        "<?xml version='1.0' encoding='UTF-8' standalone='no' ?><a/>",
        "<?xml version='1.0' other='x'?><a/>",
        "<?xml version='1.0' version='1.0'?><a/>",
        "<?xml version='1.0'?x><a/>",
        "<?xml version='1.0'><a/>",
        "<?xml\tversion='1.0'?><a/>",
        "<?xmlversion='1.0'?><a/>",
        "\u{feff}<?xml version='1.0'?><a/>",
        "\u{feff}\u{feff}<a/>",
        "\u{feff}",
        "<a>\u{feff}</a>",
        "<!-- --><a/>",
        "<!----><a/>",
        "<!---><a/>",
        "<!--a---><a/>",
        "<!--a--b--><a/>",
        "<!-- - --><a/>",
        "<!--a",
        "<!- a -><a/>",
        "<!---a--><a/>",
        "<!--a-b--><a/>",
        "<!-><a/>",
        "<!a><a/>",
        "<a><!a></a>",
        "<a><!DOCTYPE a></a>",
        "<![CDATA[x]]><a/>",
        "<a><![CDATA[]]]]></a>",
        "<a><![CDATA[]]]></a>",
        "<a><![CDATA[ ]] > ]]></a>",
        "<a><![CDATA [x]]></a>",
        "<a><![CDATA[x]></a>",
        "<a>]]></a>",
        "<a>]]&gt;</a>",
        "<a>]></a>",
        "<a b=']]>'/>",
        "<a>]<!-- -->]></a>",
        "<a>]]<b/>></a>",
        "<a>&#93;]></a>",
        "<a>]]&#62;</a>",
        "<a>\u{85}</a>",
        "<a>\u{7f}</a>",
        "<a>\u{9f}</a>",
        "<a>\u{1}</a>",
        "<a>\u{0}</a>",
        "<a b='\u{b}'/>",
        "<!--\u{c}--><a/>",
        "<a>\u{fffe}</a>",
        "<a>\u{fffd}</a>",
        "<a>\u{10ffff}</a>",
        "<a\u{85}b='1'/>",
        "<a\u{a0}b='1'/>",
        "<a\u{3000}/>",
    ]
    .into_iter()
    .map(|text| text.as_bytes().to_vec())
    .collect();
    let wrong_utf8: [&[u8]; 9] = [
        b"<a>\x80</a>",
        b"<a>\xc0\x80</a>",
        b"<a>\xc3</a>",
        b"<a>\xed\xa0\x80</a>",
        b"<a>\xf4\x90\x80\x80</a>",
        b"<a b='\xe4'/>",
        b"<!--\xff--><a/>",
        b"<?p \xff?><a/>",
        b"<\xe4/>",
    ];
    documents.extend(wrong_utf8.map(<[u8]>::to_vec));
    documents.push(NO_BLANK.to_vec());
    for depth in [MAX_DEPTH - 1, MAX_DEPTH, MAX_DEPTH + 1] {
        documents.push(["<a>".repeat(depth), "</a>".repeat(depth)].concat().into_bytes());
        documents.push(["<a>".repeat(depth - 1), "<a/>".into(), "</a>".repeat(depth - 1)].concat().into_bytes());
        documents.push(["<a>".repeat(depth - 1), "<a/><a/>".into(), "</a>".repeat(depth - 1)].concat().into_bytes());
    }
    for length in [49_999, 50_000, 50_001] {
        let name = "n".repeat(length);
        documents
            .extend([format!("<{name}/>"), format!("<a {name}='1'/>"), format!("<?{name}?><a/>")].map(String::into));
        documents.push(format!("<a>&{name};</a>").into_bytes());
    }
    for length in [MAX_BYTES, MAX_BYTES + 1] {
        documents.push(["<a>", &" ".repeat(length - 7), "</a>"].concat().into_bytes());
    }
    documents
}

/// A seed with one or two random changes.
fn mutant(random: &mut SplitMix64) -> Vec<u8> {
    let mut bytes = SEEDS[random.below(SEEDS.len())].as_bytes().to_vec();
    for _ in 0..=random.below(2) {
        let at = random.below(bytes.len() + 1);
        let end = (at + 1 + random.below(8)).min(bytes.len());
        match random.below(8) {
            0 => drop(bytes.drain(at..end)),
            1 => {
                let copy = bytes[at..end].to_vec();
                bytes.splice(at..at, copy);
            }
            2 if at + 1 < bytes.len() => bytes.swap(at, at + 1),
            3 if at < bytes.len() => bytes[at] = b"<>&'\"=/!?-[]:;# \t\r\nx0\x00\x1f\x7f\xff"[random.below(25)],
            _ => {
                let fragment = FRAGMENTS[random.below(FRAGMENTS.len())];
                bytes.splice(at..at, fragment.bytes());
            }
        }
    }
    bytes
}

/// Why a document that libxml2 accepts is refused on purpose.
fn on_purpose(document: &[u8], message: &str) -> bool {
    // libxml2 reads DTDs and other encodings. No domain needs them, and every entity attack does.
    message.contains("document type declarations and entities are not accepted")
        || message.contains("domain XML is read as UTF-8 only")
        // libvirt's protocol carries no longer string.
        || message.contains("longer than 4 MiB")
        || document == NO_BLANK
}

/// Compares every document and fails with a table of the differences.
fn compare(name: &str, documents: Vec<Vec<u8>>) {
    let folder = work_dir(&format!("wellformed-{name}"));
    let mut files = BTreeMap::new();
    for (number, bytes) in documents.iter().enumerate() {
        let path = folder.join(format!("{number}.xml"));
        std::fs::write(&path, bytes).expect("write a document");
        files.insert(path, bytes);
    }
    let Some(refused) = refused_by_xmllint(files.keys().map(PathBuf::as_path).collect::<Vec<_>>().as_slice()) else {
        return skip("xmllint (package libxml2-utils) is not there");
    };
    let (mut differences, mut purposes) = (BTreeMap::<String, Vec<String>>::new(), 0);
    for (path, bytes) in &files {
        // Caught, so that one panic does not hide the other differences.
        let ours = std::panic::catch_unwind(|| Document::parse(bytes).map(|_| ()));
        let kind = match (ours, refused.get(path)) {
            (Ok(Ok(())), None) | (Ok(Err(_)), Some(_)) => continue,
            (Ok(Err(error)), None) if on_purpose(bytes, &error.message) => {
                purposes += 1;
                continue;
            }
            (Ok(Err(error)), None) => format!("only we refuse: {}", error.message),
            (Ok(Ok(())), Some(why)) => format!("only libxml2 refuses: {why}"),
            (Err(_), _) => "we panic".to_owned(),
        };
        let shown = bytes[..bytes.len().min(400)].escape_ascii().to_string();
        differences.entry(kind).or_default().push(shown);
    }
    let _ = std::fs::remove_dir_all(&folder);
    let total = files.len();
    assert!(differences.is_empty(), "{total} documents, evaluated otherwise by libxml2:\n{}", table(differences));
    let refused = refused.len();
    note(&format!("wellformed: {total} {name}, {refused} refused by both, {purposes} by us alone and on purpose"));
    assert!(refused > 0 && refused < total, "the documents are all of one kind");
}

/// A line for each kind of difference: how many, and the shortest documents.
fn table(differences: BTreeMap<String, Vec<String>>) -> String {
    let mut text = String::new();
    for (kind, mut documents) in differences {
        documents.sort_by_key(String::len);
        let (count, shortest) = (documents.len(), documents[..documents.len().min(5)].join("   "));
        let _ = writeln!(text, "{count} {kind}\n    {shortest}");
    }
    text
}

/// The files that `xmllint` refuses, and its first reason; `None` if there is no `xmllint`.
fn refused_by_xmllint(files: &[&Path]) -> Option<BTreeMap<PathBuf, String>> {
    let mut refused = BTreeMap::new();
    for batch in files.chunks(BATCH) {
        let output = Command::new("xmllint").args(["--noout", "--nonet"]).args(batch).output().ok()?;
        let text = String::from_utf8_lossy(&output.stderr);
        for line in text.lines() {
            // Warnings and namespace errors leave the document well-formed: libvirt's parser reads it too.
            let Some((place, why)) = line.split_once(": parser error : ") else { continue };
            let Some((path, _)) = place.rsplit_once(':') else { continue };
            refused.entry(PathBuf::from(path)).or_insert_with(|| why.to_owned());
        }
        let any = batch.iter().any(|path| refused.contains_key(*path));
        assert_eq!(output.status.success(), !any, "the exit status of xmllint against its messages:\n{text}");
    }
    Some(refused)
}

/// Sebastiano Vigna's splitmix64: the same numbers on every machine.
struct SplitMix64(u64);

impl SplitMix64 {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.next() % limit as u64).expect("less than a usize")
    }
}
