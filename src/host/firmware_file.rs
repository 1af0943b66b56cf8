//! The firmware that a host has for its guests.

/// A file with firmware for guests, or the firmware of guests that name none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FirmwareFile {
    /// Its path, as guests name it; `None` for the firmware of guests that name none.
    pub path: Option<String>,
    /// What it is.
    pub kind: FirmwareKind,
    /// Its version as its makers or a distribution's package write it (`1.16.3-debian-1.16.3-2`,
    /// `2022.11-6+deb12u2`), if it is known.
    pub version: Option<String>,
}

/// Kinds of guest firmware.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum FirmwareKind {
    /// UEFI: OVMF of edk2.
    Ovmf,
    /// BIOS: SeaBIOS.
    SeaBios,
}

impl FirmwareKind {
    /// The name in a host profile.
    pub fn key(self) -> &'static str {
        match self {
            Self::Ovmf => "ovmf",
            Self::SeaBios => "seabios",
        }
    }
}
