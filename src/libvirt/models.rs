//! The CPU models that libvirt knows and that QEMU has, for hosts whose capability cache does not list the latter.
//!
//! Sources: `virsh cpu-models x86_64` of libvirt 9.0.0, 11.3.0 and 12.8.0; `-cpu help` of QEMU 7.2.22, 10.0.13 and
//! 11.1.3; what libvirt makes of a model that QEMU lacks (`virCPUx86Translate` in libvirt `src/cpu/cpu_x86.c`) by
//! `domxml-to-native` of all three.

use crate::version::Version;

/// The libvirt versions the table is made of.
const LIBVIRTS: [Version; 3] = [Version::new(9, 0), Version::new(11, 3), Version::new(12, 8)];

/// The QEMU versions the table is made of.
const QEMUS: [Version; 3] = [Version::new(7, 2), Version::new(10, 0), Version::new(11, 1)];

/// A model without its version, and the highest version of it for each libvirt and each QEMU: 0 if there is only the
/// model itself, -1 if there is not even that.
#[rustfmt::skip]
const MODELS: [(&str, [i8; 3], [i8; 3]); 68] = [
    ("486", [0, 1, 1], [1, 1, 1]),
    ("Broadwell", [0, 4, 4], [4, 4, 4]),
    ("Broadwell-IBRS", [0, 0, 0], [0, 0, 0]),
    ("Broadwell-noTSX", [0, 0, 0], [0, 0, 0]),
    ("Broadwell-noTSX-IBRS", [0, 0, 0], [0, 0, 0]),
    ("Cascadelake-Server", [0, 5, 5], [5, 5, 7]),
    ("Cascadelake-Server-noTSX", [0, 0, 0], [0, 0, 0]),
    ("ClearwaterForest", [-1, -1, 3], [-1, 1, 4]),
    ("Conroe", [0, 1, 1], [1, 1, 1]),
    ("Cooperlake", [0, 2, 2], [2, 2, 2]),
    ("Denverton", [-1, 3, 3], [3, 3, 3]),
    ("Dhyana", [0, 2, 2], [2, 2, 2]),
    ("DiamondRapids", [-1, -1, 1], [-1, -1, 2]),
    ("EPYC", [0, 4, 5], [3, 4, 5]),
    ("EPYC-Genoa", [-1, 1, 2], [-1, 1, 3]),
    ("EPYC-IBPB", [0, 0, 0], [0, 0, 0]),
    ("EPYC-Milan", [0, 2, 3], [1, 2, 4]),
    ("EPYC-Rome", [0, 4, 5], [2, 4, 5]),
    ("EPYC-Turin", [-1, -1, 1], [-1, -1, 2]),
    ("GraniteRapids", [-1, 2, 5], [-1, 2, 7]),
    ("Haswell", [0, 4, 4], [4, 4, 4]),
    ("Haswell-IBRS", [0, 0, 0], [0, 0, 0]),
    ("Haswell-noTSX", [0, 0, 0], [0, 0, 0]),
    ("Haswell-noTSX-IBRS", [0, 0, 0], [0, 0, 0]),
    ("Icelake-Client", [0, 0, 0], [-1, -1, -1]),
    ("Icelake-Client-noTSX", [0, 0, 0], [-1, -1, -1]),
    ("Icelake-Server", [0, 7, 7], [6, 7, 9]),
    ("Icelake-Server-noTSX", [0, 0, 0], [0, 0, 0]),
    ("IvyBridge", [0, 2, 2], [2, 2, 2]),
    ("IvyBridge-IBRS", [0, 0, 0], [0, 0, 0]),
    ("KnightsMill", [-1, 1, 1], [1, 1, 1]),
    ("Nehalem", [0, 2, 2], [2, 2, 2]),
    ("Nehalem-IBRS", [0, 0, 0], [0, 0, 0]),
    ("Opteron_G1", [0, 1, 1], [1, 1, 1]),
    ("Opteron_G2", [0, 1, 1], [1, 1, 1]),
    ("Opteron_G3", [0, 1, 1], [1, 1, 1]),
    ("Opteron_G4", [0, 1, 1], [1, 1, 1]),
    ("Opteron_G5", [0, 1, 1], [1, 1, 1]),
    ("Penryn", [0, 1, 1], [1, 1, 1]),
    ("SandyBridge", [0, 2, 2], [2, 2, 2]),
    ("SandyBridge-IBRS", [0, 0, 0], [0, 0, 0]),
    ("SapphireRapids", [-1, 3, 6], [-1, 3, 8]),
    ("SierraForest", [-1, 1, 5], [-1, 2, 6]),
    ("Skylake-Client", [0, 4, 4], [4, 4, 4]),
    ("Skylake-Client-IBRS", [0, 0, 0], [0, 0, 0]),
    ("Skylake-Client-noTSX-IBRS", [0, 0, 0], [0, 0, 0]),
    ("Skylake-Server", [0, 5, 5], [5, 5, 6]),
    ("Skylake-Server-IBRS", [0, 0, 0], [0, 0, 0]),
    ("Skylake-Server-noTSX-IBRS", [0, 0, 0], [0, 0, 0]),
    ("Snowridge", [0, 4, 4], [4, 4, 4]),
    ("Westmere", [0, 2, 2], [2, 2, 2]),
    ("Westmere-IBRS", [0, 0, 0], [0, 0, 0]),
    ("YongFeng", [-1, -1, 3], [-1, 2, 3]),
    ("athlon", [0, 1, 1], [1, 1, 1]),
    ("core2duo", [0, 1, 1], [1, 1, 1]),
    ("coreduo", [0, 1, 1], [1, 1, 1]),
    ("cpu64-rhel5", [0, 0, 0], [-1, -1, -1]),
    ("cpu64-rhel6", [0, 0, 0], [-1, -1, -1]),
    ("kvm32", [0, 1, 1], [1, 1, 1]),
    ("kvm64", [0, 1, 1], [1, 1, 1]),
    ("n270", [0, 1, 1], [1, 1, 1]),
    ("pentium", [0, 1, 1], [1, 1, 1]),
    ("pentium2", [0, 1, 1], [1, 1, 1]),
    ("pentium3", [0, 1, 1], [1, 1, 1]),
    ("pentiumpro", [0, 0, 0], [-1, -1, -1]),
    ("phenom", [0, 1, 1], [1, 1, 1]),
    ("qemu32", [0, 1, 1], [1, 1, 1]),
    ("qemu64", [0, 1, 1], [1, 1, 1]),
];

/// Whether a libvirt knows a model; `None` if nothing is known about that version.
pub(super) fn libvirt_knows(model: &str, libvirt: Version) -> Option<bool> {
    at(model, libvirt, &LIBVIRTS, |row| &row.1)
}

/// Whether a QEMU has a model; `None` if nothing is known about that version.
pub(super) fn qemu_has(model: &str, qemu: Version) -> Option<bool> {
    at(model, qemu, &QEMUS, |row| &row.2)
}

/// What libvirt passes in place of a model that QEMU lacks. For models that are not listed, only the vendor matters:
/// libvirt's replacement has the same vendor, and long mode too.
pub(super) fn replacement(model: &str) -> &str {
    match model {
        "cpu64-rhel5" => "Opteron_G1",
        "cpu64-rhel6" => "kvm64",
        "pentiumpro" => "qemu32",
        other => other,
    }
}

type Row = (&'static str, [i8; 3], [i8; 3]);

fn at(model: &str, version: Version, measured: &[Version; 3], column: fn(&Row) -> &[i8; 3]) -> Option<bool> {
    let release = Version::new(version.major, version.minor);
    let has = |index: usize| has(model, index, column);
    if let Some(index) = measured.iter().position(|&known| known == release) {
        return Some(has(index));
    }
    // Between two versions that agree the answer is known, and an older version lacks what came later.
    match measured.iter().position(|&known| known > release) {
        Some(0) => (!has(0) && (has(1) || has(2) || !is_model(model))).then_some(false),
        Some(newer) => (has(newer) == has(newer.saturating_sub(1))).then(|| has(newer)),
        None => None,
    }
}

fn has(model: &str, index: usize, column: fn(&Row) -> &[i8; 3]) -> bool {
    let (base, version) = split(model);
    MODELS.iter().any(|row| row.0 == base && column(row)[index] >= version)
}

/// Whether any version has it.
fn is_model(model: &str) -> bool {
    let (base, _) = split(model);
    MODELS.iter().any(|row| row.0 == base)
}

/// The model and its version, 0 if it names none.
fn split(model: &str) -> (&str, i8) {
    let parts = model.rsplit_once("-v").and_then(|(base, number)| Some((base, number.parse::<i8>().ok()?)));
    parts.filter(|&(_, number)| number > 0).unwrap_or((model, 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_is_known_from_the_version_on_that_has_it() {
        for (model, libvirt, known) in [
            ("EPYC", (8, 0), None),
            ("EPYC", (9, 0), Some(true)),
            ("EPYC-v4", (9, 0), Some(false)),
            ("EPYC-v4", (10, 0), None),
            ("EPYC-v4", (11, 3), Some(true)),
            ("EPYC-Turin", (8, 0), Some(false)),
            ("EPYC-Turin", (10, 0), Some(false)),
            ("EPYC-Turin", (12, 0), None),
            ("EPYC-Turin-v1", (12, 8), Some(true)),
            ("EPYC-Turin-v2", (12, 8), Some(false)),
            ("base", (9, 0), Some(false)),
            ("base", (13, 0), None),
            ("EPYC-v0", (12, 8), Some(false)),
        ] {
            assert_eq!(libvirt_knows(model, Version::new(libvirt.0, libvirt.1)), known, "{model} {libvirt:?}");
        }
        assert_eq!(qemu_has("Icelake-Client", Version::new(7, 2)), Some(false));
        // Gone since 7.1.
        assert_eq!(qemu_has("Icelake-Client", Version::new(6, 2)), None);
        assert_eq!(qemu_has("EPYC-Turin", Version::new(8, 2)), Some(false));
    }
}
