//! Options as JSON: `-device {…}`, `-object {…}`.

use std::borrow::Cow;

use serde_json::{Map, Value};

use super::words::{Argument, Pair};

/// The longest path of a member that is kept, in bytes; nothing that counts has one that is nearly as long. Without a
/// limit, many members of an object with a long name take up its length each.
const LONGEST_PATH: usize = 256;

/// What QEMU takes as a number only, and not in quotes: of memory back ends (`MemoryBackendProperties` in QEMU
/// `qapi/qom.json`), and of memory devices.
const NUMBERS: [&str; 9] = [
    "size",
    "align",
    "hugetlbsize",
    "memaddr",
    "slot",
    "label-size",
    "block-size",
    "requested-size",
    "prealloc-threads",
];

/// The members of the object in an argument, those of objects inside with their path as key; `None` if it is not an
/// object, or a number is not one.
pub(super) fn pairs(argument: &Argument<'_>) -> Option<Vec<Pair>> {
    let Ok(Value::Object(members)) = serde_json::from_str(&in_double_quotes(argument.text)) else { return None };
    let is_number = |name: &&str| members.get(*name).is_none_or(Value::is_u64);
    // Of virtio devices, `addr` is their place on the PCI bus, which is text.
    let address = (!of_kind(&members, "driver", &["virtio-"])).then_some("addr");
    let is_memory = of_kind(&members, "qom-type", &["memory-backend-"])
        || of_kind(&members, "driver", &["pc-dimm", "nvdimm", "virtio-mem", "virtio-pmem"]);
    if is_memory && !NUMBERS.iter().chain(&address).all(is_number) {
        return None;
    }
    let mut pairs = Vec::new();
    let mut open: Vec<(String, Value)> = members.into_iter().rev().collect();
    while let Some((key, value)) = open.pop() {
        let value = match value {
            Value::Object(members) => {
                let room = LONGEST_PATH.saturating_sub(key.len());
                let short = members.into_iter().rev().filter(|(name, _)| name.len() < room);
                open.extend(short.map(|(name, value)| (format!("{key}.{name}"), value)));
                continue;
            }
            Value::Bool(on) => if on { "on" } else { "off" }.to_owned(),
            Value::String(text) => text,
            Value::Number(number) => number.to_string(),
            // Nothing that counts is a list.
            Value::Null | Value::Array(_) => continue,
        };
        pairs.push(Pair { key, value, origin: argument.origin });
    }
    Some(pairs)
}

/// Whether the member called `key` begins with one of the words.
fn of_kind(members: &Map<String, Value>, key: &str, words: &[&str]) -> bool {
    let kind = members.get(key).and_then(Value::as_str);
    kind.is_some_and(|kind| words.iter().any(|word| kind.starts_with(word)))
}

/// The text with strings as JSON has them: QEMU takes single quotes, too, and an escaped one (`qobject/json-lexer.c`).
fn in_double_quotes(text: &str) -> Cow<'_, str> {
    if !text.contains('\'') {
        return Cow::Borrowed(text);
    }
    let mut written = String::with_capacity(text.len());
    let mut open: Option<char> = None;
    let mut characters = text.chars();
    while let Some(c) = characters.next() {
        match (open, c) {
            (None, '"' | '\'') => {
                open = Some(c);
                written.push('"');
            }
            (Some(quote), c) if c == quote => {
                open = None;
                written.push('"');
            }
            (Some(_), '"') => written.push_str("\\\""),
            (Some(_), '\\') => match characters.next() {
                Some('\'') => written.push('\''),
                next => {
                    written.push('\\');
                    written.extend(next);
                }
            },
            (_, c) => written.push(c),
        }
    }
    Cow::Owned(written)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Option<Vec<(String, String)>> {
        let pairs = pairs(&Argument::numbered(0, text))?;
        Some(pairs.into_iter().map(|pair| (pair.key, pair.value)).collect())
    }

    /// Each is taken or refused by QEMU 7.2.22, 10.0.13 and 11.1.3.
    #[test]
    fn json_is_read_as_qemu_reads_it() {
        for (text, value) in [
            ("{\"driver\":\"x\",\"k\":\"a\"}", Some("a")),
            ("{'driver':'x','k':'a\"b\\'c'}", Some("a\"b'c")),
            ("{\"driver\":\"x\",\"k\":\"it's\"}", Some("it's")),
            ("{'driver':'x','k':'a\\u0041\\n'}", Some("aA\n")),
            ("{\"qom-type\":\"memory-backend-ram\",\"id\":\"a\",\"size\":4096,\"k\":1}", Some("1")),
            ("{\"qom-type\":\"memory-backend-ram\",\"id\":\"a\",\"size\":\"4096\",\"k\":1}", None),
            ("{\"qom-type\":\"memory-backend-ram\",\"id\":\"a\",\"size\":\"1G\",\"k\":1}", None),
            ("{\"driver\":\"pc-dimm\",\"slot\":\"1\",\"k\":1}", None),
            ("{\"driver\":\"pc-dimm\",\"slot\":1.0,\"k\":1}", None),
            ("{\"driver\":\"pc-dimm\",\"addr\":\"0x100000000\",\"k\":1}", None),
            ("{\"driver\":\"virtio-mem-pci\",\"addr\":\"0x5\",\"k\":1}", Some("1")),
            ("{\"driver\":\"x\",\"k\":1,}", None),
            ("{\"driver\":\"x\",\"k\":1} x", None),
            ("{'driver':'x','k':'a}", None),
        ] {
            let found = read(text).and_then(|pairs| pairs.into_iter().find(|(key, _)| key == "k"));
            assert_eq!(found.map(|(_, value)| value).as_deref(), value, "{text}");
        }
    }

    #[test]
    fn many_members_of_an_object_with_a_long_name_take_little_memory() {
        let members: Vec<String> = (0..1000).map(|number| format!("\"{number}\":0")).collect();
        let text = format!("{{\"{}\":{{{}}},\"k\":{{\"k\":1}}}}", "x".repeat(100_000), members.join(","));
        assert_eq!(read(&text), Some(vec![("k.k".to_owned(), "1".to_owned())]));
    }
}
