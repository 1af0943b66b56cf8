//! Any bytes as a log: the messages in it, in pieces of any size, for people and as JSON.

#![no_main]

use iova_preflight::messages::{LogReader, Sighting};
use iova_preflight::report::explanation::Explanation;
use iova_preflight::text::is_hidden;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let (sightings, dropped) = read(bytes, bytes.len().max(1));
    for sighting in &sightings {
        check(bytes, sighting);
    }
    let document = serde_json::to_string(&Explanation::new(&sightings, dropped)).expect("JSON");
    // The size of the pieces makes no difference.
    let length = bytes.first().map_or(1, |&byte| usize::from(byte) + 1);
    let (again, dropped) = read(bytes, length);
    assert_eq!(
        document,
        serde_json::to_string(&Explanation::new(&again, dropped)).expect("JSON"),
        "pieces of {length}"
    );
});

fn read(bytes: &[u8], length: usize) -> (Vec<Sighting>, u64) {
    let mut reader = LogReader::default();
    bytes.chunks(length).for_each(|piece| reader.read(piece));
    reader.finish()
}

fn check(bytes: &[u8], sighting: &Sighting) {
    let lines = bytes.iter().filter(|&&byte| byte == b'\n').count() as u64 + 1;
    assert!((1..=lines).contains(&sighting.line), "line {} of {lines}", sighting.line);
    assert!(sighting.count > 0 && !sighting.quote.contains(is_hidden), "{sighting:?}");
    assert!(sighting.clue.range.is_none_or(|range| range.start <= range.end), "{sighting:?}");
    for (name, value) in sighting.clue.told() {
        assert!(!name.is_empty() && !value.is_empty() && !value.contains(is_hidden), "{name}: {value}");
    }
    assert_eq!(sighting.cause.answer().cause, sighting.cause);
}
