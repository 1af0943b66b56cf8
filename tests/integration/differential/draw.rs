//! Random numbers, and sizes as people write them.

pub const KIB: u64 = 1 << 10;
pub const MIB: u64 = 1 << 20;
pub const GIB: u64 = 1 << 30;

/// SplitMix64.
pub struct Rng(u64);

impl Rng {
    /// The generator of one case, independent of every other case.
    pub fn of_case(seed: u64, case: u64) -> Self {
        let mut rng = Rng(seed ^ case.wrapping_mul(0xd6e8_feb8_6659_fd93));
        rng.next();
        rng
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    pub fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.below(high - low + 1)
    }

    pub fn percent(&mut self, chance: u64) -> bool {
        self.below(100) < chance
    }

    pub fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        let index = self.below(from.len() as u64);
        &from[usize::try_from(index).expect("an index fits")]
    }

    pub fn text<'a>(&mut self, from: &[&'a str]) -> &'a str {
        let text: &&str = self.pick(from);
        text
    }
}

/// Every spelling of a unit that libvirt knows and that fits these sizes.
const UNITS: &[(&str, u64)] = &[
    ("b", 1),
    ("bytes", 1),
    ("KB", 1_000),
    ("k", KIB),
    ("KiB", KIB),
    ("kib", KIB),
    ("MB", 1_000_000),
    ("M", MIB),
    ("MiB", MIB),
    ("GB", 1_000_000_000),
    ("G", GIB),
    ("GiB", GIB),
    ("T", GIB * KIB),
    ("TB", 1_000_000_000_000),
    ("TiB", GIB * KIB),
];

/// A size as attribute and text, in a unit that may cut it down a little.
pub fn sized(rng: &mut Rng, bytes: u64) -> (String, u64) {
    if rng.percent(40) && bytes.is_multiple_of(KIB) {
        // No unit means KiB.
        return (String::new(), bytes / KIB);
    }
    let fitting: Vec<_> =
        UNITS.iter().filter(|(_, size)| bytes >= *size && bytes % size < MIB.max(bytes >> 9)).collect();
    match fitting.is_empty() {
        true => (" unit='b'".to_owned(), bytes),
        false => {
            let (unit, size) = rng.pick(&fitting);
            (format!(" unit='{unit}'"), bytes / size)
        }
    }
}

/// An element with a size in it.
pub fn element(rng: &mut Rng, name: &str, attributes: &str, bytes: u64) -> String {
    let (unit, number) = sized(rng, bytes);
    format!("<{name}{attributes}{unit}>{number}</{name}>")
}

/// Moves a size a little across the threshold it is at.
pub fn nudged(rng: &mut Rng, bytes: u64) -> u64 {
    let step = *rng.pick(&[0, 0, 1, KIB, 512 * KIB, MIB, 2 * MIB, 128 * MIB, GIB]);
    let step = if rng.percent(15) { rng.below(2 * MIB) } else { step };
    if rng.percent(50) { bytes + step } else { bytes.saturating_sub(step).max(KIB) }
}
