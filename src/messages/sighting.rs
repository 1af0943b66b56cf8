//! [`LogReader`].

use super::cause::Cause;
use super::clue::{Clue, MappedMemory, Spot, find};
use super::search::Needles;
use super::table::{Meaning, Wording, cause_of_mapping, fragments, wordings};
use crate::address::GpaRange;
use crate::text;

/// How much of a line before and after the words of a message is looked at, in bytes.
const AROUND: usize = 2 << 10;
/// How much is searched at once, in bytes.
const PIECE: usize = 128 << 10;
/// How many different messages are kept; a log of a guest with all of its BARs refused has a few dozen.
const MOST: usize = 256;
/// How long a quote may be, in characters.
const LONGEST_QUOTE: usize = 400;

/// A message that was found, and how often.
#[derive(Debug, Clone)]
pub struct Sighting {
    /// Its cause.
    pub cause: Cause,
    /// Which message it is.
    pub wording: &'static Wording,
    /// What it says in numbers.
    pub clue: Clue,
    /// The line on which it is first, from 1.
    pub line: u64,
    /// How often it is there.
    pub count: u64,
    /// The line as it is first, cut and printable.
    pub quote: String,
    kind: Likeness,
}

impl Sighting {
    /// Its numbers in words; for KVM's memory slots without the IOMMU's reserved ranges, which KVM does not know.
    pub fn told(&self) -> Vec<(&'static str, String)> {
        let is_slot = matches!(self.cause, Cause::SlotAboveHostWidth | Cause::SlotTooLarge | Cause::SlotRefused);
        let mut told = self.clue.told();
        told.retain(|&(name, _)| !(is_slot && name == "reserved"));
        told
    }

    /// Whether it is an event of an IOMMU: of those, each has another address.
    fn is_event(&self) -> bool {
        matches!(self.cause, Cause::DmaFault | Cause::DmaToReservedRange)
    }

    /// Whether a message with this cause and these numbers says the same.
    fn says(&self, cause: Cause, clue: &Clue) -> bool {
        let known = &self.clue;
        if self.is_event() {
            return self.cause == cause && known.device == clue.device;
        }
        // What memory it is may be known from a later line.
        let numbers = |clue: &Clue| (clue.error, clue.range, clue.address, clue.last_address, clue.bytes, clue.bits);
        numbers(known) == numbers(clue) && known.region == clue.region && known.device == clue.device
    }
}

/// The range that holds both.
fn joined(one: Option<GpaRange>, other: Option<GpaRange>) -> Option<GpaRange> {
    let (one, other) = (one?, other?);
    Some(GpaRange { start: one.start.min(other.start), end: one.end.max(other.end) })
}

/// A message in the buffer.
struct Occurrence {
    wording: &'static Wording,
    /// Where its line starts, or what of it is near, where its words do, and where the line ends.
    start: usize,
    at: usize,
    end: usize,
}

/// What may be left out next to another message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Likeness {
    /// It is complete by itself.
    Own,
    /// A mapping, with addresses.
    Mapping,
    /// The error of a mapping, or what became of one.
    MappingError,
    /// Another message says the same.
    Echo,
}

/// A log that is read piece by piece. Memory is bounded, whether the text has no line ends, is full of messages or has
/// none.
#[derive(Debug)]
pub struct LogReader {
    wordings: Vec<&'static Wording>,
    needles: Needles,
    buffer: Vec<u8>,
    /// Up to where the buffer was searched.
    searched: usize,
    /// Up to where its lines were counted, the number of the line there, and where that begins.
    counted: usize,
    line: u64,
    line_start: usize,
    sightings: Vec<Sighting>,
    /// Messages beyond [`MOST`].
    dropped: u64,
    /// The mapping that was seen last.
    last_mapping: Option<usize>,
    /// The error that the line before a mapping names, and whether iommufd gave it.
    last_error: Option<(Option<i32>, bool)>,
}

impl Default for LogReader {
    fn default() -> Self {
        Self::of(wordings())
    }
}

/// The causes of a text that has no whole message but words of one, as people type them.
pub fn from_fragment(text: &[u8]) -> Vec<Sighting> {
    let mut reader = LogReader::of(fragments());
    reader.read(text);
    let mut seen = reader.finish().0;
    seen.truncate(1);
    seen
}

impl LogReader {
    /// A reader that searches for these.
    fn of(wordings: impl Iterator<Item = &'static Wording>) -> Self {
        let wordings: Vec<_> = wordings.collect();
        Self {
            needles: Needles::new(wordings.iter().map(|wording| wording.words)),
            wordings,
            buffer: Vec::new(),
            searched: 0,
            counted: 0,
            line: 1,
            line_start: 0,
            sightings: Vec::new(),
            dropped: 0,
            last_mapping: None,
            last_error: None,
        }
    }

    /// Reads the next piece.
    pub fn read(&mut self, bytes: &[u8]) {
        for piece in bytes.chunks(PIECE) {
            self.buffer.extend_from_slice(piece);
            if self.buffer.len().saturating_sub(self.searched) > PIECE {
                self.search(self.buffer.len().saturating_sub(AROUND));
            }
        }
    }

    /// What was found, the most telling first, and how many messages were too many to keep.
    pub fn finish(mut self) -> (Vec<Sighting>, u64) {
        self.search(self.buffer.len());
        let mut sightings = self.sightings;
        let is_mapping = |sighting: &Sighting| sighting.kind == Likeness::Mapping;
        if sightings.iter().any(is_mapping) {
            sightings.retain(|sighting| sighting.kind != Likeness::MappingError);
        }
        let said: Vec<Cause> = sightings
            .iter()
            .filter(|sighting| sighting.kind != Likeness::Echo)
            .map(|sighting| sighting.cause)
            .collect();
        let said_by = |cause: Cause| match cause {
            Cause::QemuExited => !said.is_empty(),
            Cause::SlotRefused => said
                .iter()
                .any(|cause| matches!(cause, Cause::SlotRefused | Cause::SlotTooLarge | Cause::SlotAboveHostWidth)),
            Cause::DeviceNotOpened => {
                said.iter().any(|cause| matches!(cause, Cause::DeviceNotOpened | Cause::DeviceBusy))
            }
            cause => said.contains(&cause),
        };
        sightings.retain(|sighting| sighting.kind != Likeness::Echo || !said_by(sighting.cause));
        sightings.sort_by_key(|sighting| (sighting.cause, sighting.line));
        (sightings, self.dropped)
    }

    /// Searches the buffer up to `until` and forgets what is not needed any more.
    fn search(&mut self, until: usize) {
        let mut hits = Vec::new();
        self.needles.each(&self.buffer, self.searched, until, |at, number| hits.push((at, number)));
        for (at, number) in hits {
            self.count_lines(at);
            self.look(at, self.wordings[number]);
        }
        self.count_lines(until);
        self.searched = until;
        let old = until.saturating_sub(AROUND);
        self.buffer.drain(..old);
        self.searched = self.searched.saturating_sub(old);
        self.counted = self.counted.saturating_sub(old);
        self.line_start = self.line_start.saturating_sub(old);
    }

    fn count_lines(&mut self, until: usize) {
        let Some(text) = self.buffer.get(self.counted..until) else { return };
        let lines = text.iter().filter(|&&byte| byte == b'\n').count();
        if lines > 0 {
            self.line = self.line.saturating_add(lines as u64);
            let last = text.iter().rposition(|&byte| byte == b'\n').unwrap_or_default();
            self.line_start = self.counted.saturating_add(last).saturating_add(1);
        }
        self.counted = until;
    }

    /// Reads what is at a place where the words of a message are.
    fn look(&mut self, at: usize, wording: &'static Wording) {
        let start = self.line_start.max(at.saturating_sub(AROUND));
        let end = self.buffer.len().min(at.saturating_add(AROUND));
        let rest = &self.buffer[at..end];
        let line_end = rest.iter().position(|&byte| byte == b'\n').map_or(end, |length| at.saturating_add(length));
        let line = &self.buffer[start..line_end];
        let spot = Spot { line, at: at.saturating_sub(start), rest };
        if !wording.with.is_empty() && !wording.with.iter().any(|words| find(line, words.as_bytes()).is_some()) {
            return;
        }
        let Some(told) = (wording.read)(&spot) else { return };
        let place = Occurrence { wording, start, at, end: line_end };
        self.take(told, &place);
    }

    fn take(&mut self, told: Meaning, place: &Occurrence) {
        match told {
            Meaning::Cause(cause, clue) => {
                self.add(cause, clue, Likeness::Own, place);
            }
            Meaning::Mapping(mut clue) => {
                // QEMU 9.2 and 10.0 lose the error number on the way, and print -2.
                match self.last_error.take() {
                    Some((error, _)) if clue.error == Some(-2) => clue.error = error.or(clue.error),
                    Some((Some(-14), true)) if clue.region.is_none() => clue.memory = Some(MappedMemory::Bar),
                    _ => {}
                }
                let cause = cause_of_mapping(&clue);
                self.last_mapping = self.add(cause, clue, Likeness::Mapping, place);
            }
            Meaning::MappingError { error, iommufd } => {
                self.last_error = Some((error, iommufd));
                let memory = (iommufd && error == Some(-14)).then_some(MappedMemory::Bar);
                let clue = Clue { error, memory, ..Clue::default() };
                self.add(cause_of_mapping(&clue), clue, Likeness::MappingError, place);
            }
            Meaning::WasBar => {
                if !self.correct_mapping(Some(MappedMemory::Bar)) {
                    self.add(Cause::BarNotMapped, Clue::default(), Likeness::MappingError, place);
                }
            }
            Meaning::WasFatal => {
                let was_bar = self
                    .last_mapping
                    .is_some_and(|last| matches!(self.sightings[last].clue.memory, Some(MappedMemory::Bar) | None));
                if was_bar {
                    self.correct_mapping(Some(MappedMemory::Device));
                } else if self.last_mapping.is_none() {
                    self.add(Cause::MappingRefused, Clue::default(), Likeness::MappingError, place);
                }
            }
            Meaning::Echo(cause) => {
                self.add(cause, Clue::default(), Likeness::Echo, place);
            }
        }
    }

    /// Says of the last mapping what memory it was; `false` if there was none.
    fn correct_mapping(&mut self, memory: Option<MappedMemory>) -> bool {
        let Some(sighting) = self.last_mapping.and_then(|last| self.sightings.get_mut(last)) else { return false };
        sighting.clue.memory = memory;
        sighting.cause = cause_of_mapping(&sighting.clue);
        true
    }

    /// Counts a message; its place among the sightings.
    fn add(&mut self, cause: Cause, clue: Clue, kind: Likeness, place: &Occurrence) -> Option<usize> {
        let same = |sighting: &&mut Sighting| {
            std::ptr::eq(sighting.wording, place.wording) && sighting.kind == kind && sighting.says(cause, &clue)
        };
        if let Some((number, sighting)) = self.sightings.iter_mut().enumerate().find(|(_, sighting)| same(sighting)) {
            sighting.count = sighting.count.saturating_add(1);
            if sighting.is_event() {
                sighting.clue.range = joined(sighting.clue.range, clue.range);
            }
            return Some(number);
        }
        if self.sightings.len() >= MOST {
            self.dropped = self.dropped.saturating_add(1);
            return None;
        }
        let line = self.buffer.get(place.start..place.end).unwrap_or_default();
        let quote = quote(line, place.at.saturating_sub(place.start));
        self.sightings.push(Sighting { cause, wording: place.wording, clue, line: self.line, count: 1, quote, kind });
        Some(self.sightings.len().saturating_sub(1))
    }
}

/// The line as people can read it, around the place `at`.
fn quote(line: &[u8], at: usize) -> String {
    let line = line.trim_ascii_end();
    // A line of that length is a log record with much text around the message.
    let start = if line.len() > LONGEST_QUOTE { at.saturating_sub(LONGEST_QUOTE / 2) } else { 0 };
    let cut = String::from_utf8_lossy(line.get(start..).unwrap_or_default());
    let mut shown: String = cut.trim_start().chars().take(LONGEST_QUOTE).collect();
    if shown.chars().count() < cut.trim_start().chars().count() {
        shown.push('…');
    }
    let before = if start > 0 { "…" } else { "" };
    format!("{before}{}", text::printable(&shown))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Vec<Sighting> {
        let mut reader = LogReader::default();
        reader.read(text.as_bytes());
        reader.finish().0
    }

    #[test]
    fn every_form_of_every_message_is_found() {
        for wording in wordings() {
            assert!(!wording.forms.is_empty() && wording.words.len() >= 10, "{}", wording.words);
            for form in wording.forms {
                assert!(form.contains(wording.words), "{form}");
                let seen = read(form);
                assert!(seen.iter().any(|sighting| std::ptr::eq(sighting.wording, wording)), "{form}");
            }
        }
    }

    #[test]
    fn slots_of_kvm_do_not_collide_with_what_the_iommu_reserves() {
        let names = |text: &str| read(text)[0].told().into_iter().map(|(name, _)| name).collect::<Vec<_>>();
        let slot = "KVM_SET_USER_MEMORY_REGION failed, slot=1, start=0x100000000, size=0xbff80000000: Invalid argument";
        assert_eq!(names(slot), ["error", "addresses"]);
        let mapping = "vfio_dma_map(0x55, 0x100000000, 0xbff80000000, 0x7e) = -22 (Invalid argument)";
        assert_eq!(names(mapping), ["error", "RAM", "reserved"]);
    }

    #[test]
    fn every_cause_has_a_message() {
        let causes: Vec<Cause> =
            wordings().flat_map(|wording| wording.forms).flat_map(|form| read(form)).map(|seen| seen.cause).collect();
        for answer in super::super::cause::answers() {
            assert!(causes.contains(&answer.cause), "{}", answer.id);
        }
    }

    #[test]
    fn pieces_make_no_difference() {
        let line = "x vfio 0000:00:10.0: Region pc.ram: vfio_dma_map(0x55, 0x100000000, 0x11280000000, 0x7e) = -22 (Invalid)\n";
        let text = format!("{}{line}{}{line}", "filler\n".repeat(40_000), "y".repeat(3 * PIECE));
        let whole = read(&text);
        assert_eq!(whole.len(), 1);
        assert_eq!((whole[0].line, whole[0].count), (40_001, 2));
        for length in [1, 7, 4096, PIECE - 1, PIECE + 1] {
            let mut reader = LogReader::default();
            for piece in text.as_bytes().chunks(length) {
                reader.read(piece);
                assert!(reader.buffer.len() <= 3 * PIECE, "{}", reader.buffer.len());
            }
            let (seen, dropped) = reader.finish();
            let shape = |seen: &[Sighting]| seen.iter().map(|s| (s.cause, s.line, s.count)).collect::<Vec<_>>();
            assert_eq!((shape(&seen), dropped), (shape(&whole), 0), "{length}");
        }
    }

    #[test]
    fn memory_stays_bounded() {
        let mut reader = LogReader::default();
        for number in 0..2_000_u64 {
            let text = format!("vfio_dma_map(0x1, {:#x}, 0x1000, 0x1) = -22 (Invalid argument)\n", number << 20);
            reader.read(text.as_bytes());
        }
        let (seen, dropped) = reader.finish();
        assert_eq!((seen.len(), dropped), (MOST, 2_000 - MOST as u64));
    }

    #[test]
    fn terminals_are_safe_from_quotes() {
        let seen = read("\u{1b}[31mgroup 1 is not viable\u{202e}\0\u{7}");
        assert_eq!(seen.len(), 1);
        assert!(!seen[0].quote.contains(|c: char| c.is_control() || c == '\u{202e}'), "{}", seen[0].quote);
        let mut reader = LogReader::default();
        reader.read(b"\xff\xfe\0 group 1 is not viable \xc3\x28");
        assert_eq!(reader.finish().0.len(), 1);
    }

    #[test]
    fn what_follows_a_mapping_says_what_it_was() {
        let mapping = "vfio_container_dma_map(0x5766, 0x380020000000, 0x2000000, 0x7d96) = -22 (Invalid argument)\n";
        assert_eq!(read(mapping)[0].cause, Cause::BarAboveIommuWidth);
        let fatal = read(&format!("{mapping}qemu: hardware error: vfio: DMA mapping failed, unable to continue\n"));
        assert_eq!((fatal.len(), fatal[0].clue.memory), (1, Some(MappedMemory::Device)));
        let lost = read(
            "VFIO_MAP_DMA failed: Cannot allocate memory\nRegion pc.bios: vfio_container_dma_map (0x56, 0xfffc0000, \
             0x40000, 0x7f) = -2 (No such file or directory)",
        );
        assert_eq!((lost.len(), lost[0].cause), (1, Cause::LockedMemory));
    }
}
