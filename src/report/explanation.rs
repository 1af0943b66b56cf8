//! The document that `explain --format json` prints. Addresses and sizes are in bytes, ends are inclusive.

use schemars::JsonSchema;
use schemars::generate::SchemaSettings;
use serde::Serialize;

use crate::address::GpaRange;
use crate::messages::clue::MappedMemory;
use crate::messages::{Printed, Sighting};

/// The version of this document's form.
pub const VERSION: u32 = 1;

/// What `iova-preflight explain --format json` prints of a text.
///
/// Sizes and addresses are in bytes, and the ends of ranges are inclusive. Within a version of the form, keys may be
/// added and none is taken away or changes its meaning.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(title = "iova-preflight explain")]
pub struct Explanation<'a> {
    /// The version of this form.
    #[schemars(extend("const" = VERSION))]
    pub version: u32,
    /// The messages that are known, the most telling first; empty if the text has none.
    pub messages: Vec<MessageReport<'a>>,
    /// Further messages that say something else and are too many to list.
    pub omitted: u64,
}

/// A message that is known.
#[derive(Debug, Serialize, JsonSchema)]
pub struct MessageReport<'a> {
    /// The name of what is behind it: words with hyphens, the same for ever.
    pub cause: &'a str,
    /// Whether it is about addresses, widths or limits, which `check` computes before the start.
    pub ours: bool,
    /// What goes wrong, in one line.
    pub headline: &'a str,
    /// Why.
    pub because: &'a str,
    /// What it is often taken for and is not.
    pub is_not: &'a [&'a str],
    /// The rule that finds it before the start.
    pub rule: Option<&'a str>,
    /// Who prints the message.
    pub by: &'a str,
    /// The line on which it is first, from 1.
    pub line: u64,
    /// How often it is there.
    pub count: u64,
    /// The line as it is first, cut and printable.
    pub quote: &'a str,
    /// The error number, negative as the kernel gives it.
    pub error: Option<i32>,
    /// The guest-physical addresses, or IOVAs.
    pub range: Option<GpaRange>,
    /// What is at these addresses: `ram`, `device` or `bar`.
    pub memory: Option<&'a str>,
    /// QEMU's name of the memory.
    pub region: Option<&'a str>,
    /// A PCI address.
    pub device: Option<&'a str>,
    /// A single address.
    pub address: Option<u64>,
    /// The last address that can be used.
    pub last_address: Option<u64>,
    /// A limit or a need in bytes.
    pub bytes: Option<u64>,
    /// A number of address bits.
    pub bits: Option<u8>,
}

impl<'a> Explanation<'a> {
    /// The document for what was found in a text.
    pub fn new(sightings: &'a [Sighting], omitted: u64) -> Self {
        Self { version: VERSION, messages: sightings.iter().map(MessageReport::new).collect(), omitted }
    }

    /// The document for a text that has a message which the page of a rule quotes; `quote` is that text.
    pub fn of_page(printed: Printed, quote: &'a str) -> Self {
        let message = MessageReport {
            cause: printed.rule.id,
            ours: true,
            headline: printed.rule.summary,
            because: printed.error.when,
            is_not: &[],
            rule: Some(printed.rule.id),
            by: printed.error.by.name(),
            line: 1,
            count: 1,
            quote,
            error: None,
            range: None,
            memory: None,
            region: None,
            device: None,
            address: None,
            last_address: None,
            bytes: None,
            bits: None,
        };
        Self { version: VERSION, messages: vec![message], omitted: 0 }
    }
}

impl<'a> MessageReport<'a> {
    fn new(sighting: &'a Sighting) -> Self {
        let (answer, clue) = (sighting.cause.answer(), &sighting.clue);
        Self {
            cause: answer.id,
            ours: answer.ours,
            headline: answer.headline,
            because: answer.because,
            is_not: answer.is_not,
            rule: answer.rule,
            by: sighting.wording.by.name(),
            line: sighting.line,
            count: sighting.count,
            quote: &sighting.quote,
            error: clue.error,
            range: clue.range,
            memory: clue.memory.map(|memory| match memory {
                MappedMemory::Ram => "ram",
                MappedMemory::Device => "device",
                MappedMemory::Bar => "bar",
            }),
            region: clue.region.as_deref(),
            device: clue.device.as_deref(),
            address: clue.address,
            last_address: clue.last_address,
            bytes: clue.bytes,
            bits: clue.bits,
        }
    }
}

/// The JSON schema of an [`Explanation`] (draft 2020-12). Objects are open: keys may be added within a version.
pub fn schema() -> serde_json::Value {
    SchemaSettings::draft2020_12().for_serialize().into_generator().into_root_schema_for::<Explanation<'_>>().to_value()
}
