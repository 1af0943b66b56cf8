//! The search for many literal texts at once.

/// Bytes that are looked at together.
const BLOCK: usize = 3;
/// Slots of the tables: as many as [`slot`] tells apart.
const SLOTS: usize = 1 << 15;

/// Texts to search for, after Wu and Manber ("A Fast Algorithm for Multi-Pattern Searching", 1994): a table says how
/// far the search may go on after the three bytes it has just seen, which is mostly by the length of the shortest text.
#[derive(Debug)]
pub(super) struct Needles {
    needles: Vec<&'static [u8]>,
    /// The length of the shortest.
    shortest: usize,
    /// For the last three bytes of a window of that length: by how much it may be moved on.
    shifts: Vec<u8>,
    /// If that is nothing: the texts that begin with such a window.
    candidates: Vec<Vec<u16>>,
}

impl Needles {
    /// A search for `texts`, of which each has to be longer than a block. Of two that begin alike, both are found.
    pub(super) fn new(texts: impl IntoIterator<Item = &'static str>) -> Self {
        let needles: Vec<&[u8]> = texts.into_iter().map(str::as_bytes).collect();
        let shortest = needles.iter().map(|needle| needle.len()).min().unwrap_or(BLOCK).clamp(BLOCK, u8::MAX.into());
        let farthest = shortest.saturating_sub(BLOCK).saturating_add(1);
        let mut shifts = vec![u8::try_from(farthest).unwrap_or(u8::MAX); SLOTS];
        let mut candidates = vec![Vec::new(); SLOTS];
        for (number, needle) in needles.iter().enumerate() {
            let start = needle.get(..shortest).unwrap_or(needle);
            for (at, block) in start.windows(BLOCK).enumerate() {
                let (slot, left) = (slot(block), start.len().saturating_sub(BLOCK).saturating_sub(at));
                shifts[slot] = shifts[slot].min(u8::try_from(left).unwrap_or(u8::MAX));
                if left == 0 {
                    candidates[slot].extend(u16::try_from(number));
                }
            }
        }
        Self { needles, shortest, shifts, candidates }
    }

    /// Calls `found` with the place and the number of every text that begins in `from..until`, in order of the places.
    pub(super) fn each(&self, text: &[u8], from: usize, until: usize, mut found: impl FnMut(usize, usize)) {
        let mut at = from;
        while at < until {
            let Some(window) = at.checked_add(self.shortest).and_then(|end| text.get(at..end)) else { return };
            let slot = slot(&window[window.len().saturating_sub(BLOCK)..]);
            let shift = self.shifts[slot];
            if shift == 0 {
                for &number in &self.candidates[slot] {
                    let number = usize::from(number);
                    if text[at..].starts_with(self.needles[number]) {
                        found(at, number);
                    }
                }
            }
            at = at.saturating_add(usize::from(shift.max(1)));
        }
    }
}

/// The slot of three bytes.
fn slot(block: &[u8]) -> usize {
    block.iter().fold(0, |slot, &byte| ((slot << 5) ^ usize::from(byte)) & (SLOTS - 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(needles: &Needles, text: &[u8]) -> Vec<(usize, usize)> {
        let mut hits = Vec::new();
        needles.each(text, 0, text.len(), |at, number| hits.push((at, number)));
        hits
    }

    #[test]
    fn every_text_is_found_wherever_it_is() {
        let needles = Needles::new(["failed to open", "failed to open /dev", "vfio_dma_map(", "aaaaaaaa"]);
        assert_eq!(all(&needles, b"failed to open /dev/vfio/1"), [(0, 0), (0, 1)]);
        assert_eq!(all(&needles, b"xvfio_dma_map(vfio_dma_map("), [(1, 2), (14, 2)]);
        assert_eq!(all(&needles, b"aaaaaaaaaa"), [(0, 3), (1, 3), (2, 3)]);
        assert_eq!(all(&needles, b""), []);
        assert_eq!(all(&needles, b"vfio_dma_map"), []);
        let mut hits = Vec::new();
        needles.each(b"vfio_dma_map(vfio_dma_map(", 1, 13, |at, _| hits.push(at));
        assert_eq!(hits, [0_usize; 0], "what begins at the end of the range is not in it");
    }

    #[test]
    fn the_tables_find_what_a_plain_search_finds() {
        let texts = ["abcabcab", "bcabcabca", "cabcabcabc", "zzzzabca"];
        let needles = Needles::new(texts);
        let mut state = 1_u32;
        let text: Vec<u8> = (0..20_000)
            .map(|_| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                b"abcabcabcz"[(state >> 16) as usize % 10]
            })
            .collect();
        let text = [text.as_slice(), b"abcabcabcabcabcabczzzzabcabcab"].concat();
        let plain = (0..text.len()).flat_map(|at| {
            let here = &text[at..];
            texts
                .iter()
                .enumerate()
                .filter(move |(_, needle)| here.starts_with(needle.as_bytes()))
                .map(move |(n, _)| (at, n))
        });
        assert_eq!(all(&needles, &text), plain.collect::<Vec<_>>());
    }
}
