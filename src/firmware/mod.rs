//! Where guest firmware puts 64-bit BARs: OVMF (edk2 2022.08 to 2026.08) and SeaBIOS (1.16.2 to 1.17.0).
//!
//! Neither says so anywhere but in its source; each module names the function, the file and the version that it follows.

mod build;
mod ovmf;
mod platform;
mod seabios;

pub use build::{Build, possible_builds};
pub use platform::{BarRequest, Node, Placement, Platform, Port, Vendor};

use crate::host::FirmwareKind;

/// Where `build` puts the BARs of `platform`.
pub fn place(build: Build, platform: &Platform) -> Placement {
    let mut placement = match build.kind {
        FirmwareKind::Ovmf => ovmf::place(build.version, platform),
        FirmwareKind::SeaBios => seabios::place(build.version, platform),
    };
    placement.exact &= build.is_known() && !platform.has_nested_ports();
    placement
}
