//! Where a guest's 64-bit BARs may be once its firmware has run: the places that each possible firmware gives them.

mod topology;

pub use topology::Mmio64Input;

use crate::address::{ABOVE_4G_START, GpaRange};
use crate::command_line::Origin;
use crate::host::FirmwareKind;

/// The 64-bit BARs of a guest, and where each possible firmware puts them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Mmio64 {
    /// The BARs whose sizes are known.
    pub bars: Vec<Bar>,
    /// The passthrough devices whose BARs are unknown.
    pub unsized_devices: Vec<UnsizedDevice>,
    /// What firmware makes of [`Self::bars`], the likeliest first; empty if no firmware is known that it may be.
    pub possible: Vec<Possible>,
}

/// A 64-bit BAR.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Bar {
    /// The device, as in [`crate::command_line::Passthrough`], or the name or model of an emulated one.
    pub device: String,
    /// Which of its BARs, 0 to 5.
    pub index: u8,
    /// Bytes, a power of two.
    pub size: u64,
    /// Whether VFIO maps it for the DMA of other devices.
    pub passed: bool,
    /// Where the device is.
    pub origin: Origin,
}

/// A passthrough device whose BARs are unknown.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct UnsizedDevice {
    /// As in [`crate::command_line::Passthrough`].
    pub device: String,
    /// Where it is.
    pub origin: Origin,
}

/// What one firmware makes of the BARs.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Possible {
    /// The firmware and its version, for people.
    pub firmware: String,
    /// What kind of firmware that is.
    pub kind: FirmwareKind,
    /// The window that it has for 64-bit BARs. Each of [`Mmio64::unsized_devices`] counts as one with the smallest BAR.
    pub window: Option<GpaRange>,
    /// The address of each of [`Mmio64::bars`]; `None` of one that has none.
    pub addresses: Vec<Option<u64>>,
    /// Whether the addresses are certain: the model is exact for this guest.
    pub exact: bool,
    /// Whether every BAR has an address, and still has one if the guest gets one more hot-plug port.
    pub has_spare_port: bool,
}

/// How sure something is, over all that is possible.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Likelihood {
    /// With some of the firmware that it may be.
    Possible,
    /// With all of it.
    Certain,
}

impl Bar {
    /// Where it lies if it begins at `address`.
    pub fn at(&self, address: u64) -> Option<GpaRange> {
        GpaRange::with_size(address, self.size)
    }

    /// What it is called: `BAR 2 of 0000:41:00.0`.
    pub fn name(&self) -> String {
        format!("BAR {} of {}", self.index, crate::text::quoted(&self.device))
    }
}

impl Mmio64 {
    /// The BARs, each with the place that one firmware gives it.
    pub fn placed(&self, possible: &Possible) -> impl Iterator<Item = (&Bar, Option<GpaRange>)> {
        let addresses = possible.addresses.iter().copied().chain(std::iter::repeat(None));
        self.bars.iter().zip(addresses).map(|(bar, address)| (bar, address.and_then(|address| bar.at(address))))
    }

    /// The places of the BAR with this index in [`Self::bars`], one for each of [`Self::possible`].
    pub fn places(&self, bar: usize) -> impl Iterator<Item = (&Possible, Option<GpaRange>)> {
        self.possible.iter().map(move |possible| {
            let address = possible.addresses.get(bar).copied().flatten();
            (possible, address.and_then(|address| self.bars.get(bar)?.at(address)))
        })
    }

    /// The place of that BAR, the likeliest where they differ, and whether it is sure to be there.
    pub fn place(&self, bar: usize) -> Option<(Option<GpaRange>, Likelihood)> {
        let (_, first) = self.places(bar).next()?;
        // Below 4 GiB it depends on the 32-bit BARs.
        let is_exact = |place: Option<GpaRange>| place.is_none_or(|place| place.start >= ABOVE_4G_START);
        let same = self.places(bar).all(|(possible, place)| possible.exact && is_exact(place) && place == first);
        Some((first, if same { Likelihood::Certain } else { Likelihood::Possible }))
    }

    /// The window, where all firmware that it may be has the same.
    pub fn window(&self) -> Option<GpaRange> {
        let mut windows = self.possible.iter().map(|possible| possible.window);
        let first = windows.next()??;
        windows.all(|other| other == Some(first)).then_some(first)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::address::GIB;

    fn possible(window: u64, addresses: [Option<u64>; 1]) -> Possible {
        let window = GpaRange::with_size(window * GIB, 128 * GIB);
        let addresses = addresses.map(|at| at.map(|at| at * GIB)).to_vec();
        let kind = FirmwareKind::Ovmf;
        Possible { firmware: String::new(), kind, window, addresses, exact: true, has_spare_port: true }
    }

    #[test]
    fn only_what_all_firmware_does_is_certain() {
        let origin = Origin::Xml(crate::xml::Span { start: 0, end: 0 });
        let bar = Bar { device: "0000:41:00.0".to_owned(), index: 2, size: 64 * GIB, passed: true, origin };
        let mmio64 = |possible: Vec<Possible>| Mmio64 { bars: vec![bar.clone()], possible, ..Mmio64::default() };
        let [first, second] = [896, 768].map(|at| GpaRange::with_size(at * GIB, 64 * GIB));
        let two = |other| mmio64(vec![possible(896, [Some(896)]), other]);
        let same = two(possible(896, [Some(896)]));
        assert_eq!(
            (same.place(0), same.window()),
            (Some((first, Likelihood::Certain)), first.map(|_| GpaRange::inclusive(896 << 30, (1024 << 30) - 1)))
        );
        let other = two(possible(768, [Some(768)]));
        assert_eq!((other.place(0), other.window()), (Some((first, Likelihood::Possible)), None));
        let near = two(Possible { exact: false, ..possible(896, [Some(896)]) });
        assert_eq!(near.place(0), Some((first, Likelihood::Possible)));
        assert_eq!(near.placed(&near.possible[1]).collect::<Vec<_>>(), [(&bar, first)]);
        assert_eq!(other.places(0).map(|(_, place)| place).collect::<Vec<_>>(), [first, second]);
        let lost = mmio64(vec![possible(896, [None])]);
        assert_eq!(lost.place(0), Some((None, Likelihood::Certain)));
        assert_eq!(mmio64(Vec::new()).place(0), None);
        assert_eq!(bar.name(), "BAR 2 of 0000:41:00.0");
    }
}
