//! `<cpu>`.

use super::super::draw::{GIB, Rng};
use super::{Draft, memory};
use std::fmt::Write as _;

fn max_phys_addr(rng: &mut Rng, draft: &mut Draft<'_>) -> String {
    let host = draft.inventory.host_bits;
    // As many bits as all of it takes, without the PCI hole: that is where the verdict flips.
    let window = draft.hotplug.map_or(0, |(max, slots)| max + slots.unwrap_or(0) * GIB);
    let need = u64::from(u64::BITS - (draft.ram.max(window) + 4 * GIB).leading_zeros());
    let large = draft.has.contains("terabytes") || draft.has.contains("piece-of-8-tib");
    let kind = if large { rng.between(12, 39) } else { rng.below(40) };
    if !draft.take("bits") && !large && rng.percent(40) {
        return String::new();
    }
    let bits = match kind {
        0..=11 => need + 1,
        12..=28 => rng.between(need.saturating_sub(1), need + 2),
        29..=33 if !large => rng.between(32, host.max(33)),
        29..=33 => rng.between(need + 1, need + 2),
        34 | 35 => *rng.pick(&[0, 31, host + 1, 52, 64]),
        36 => return "<maxphysaddr mode='emulate'/>".to_owned(),
        37 | 38 => return "<maxphysaddr mode='passthrough'/>".to_owned(),
        _ => {
            let limit = rng.between(36, host);
            return format!("<maxphysaddr mode='passthrough' limit='{limit}'/>");
        }
    };
    format!("<maxphysaddr mode='emulate' bits='{bits}'/>")
}

/// Features that decide the width of addresses, and some that do not.
fn features(rng: &mut Rng, draft: &mut Draft<'_>) -> String {
    let mut xml = String::new();
    if draft.take("cpu-features") {
        let names = ["lm", "pae", "pse36", "avx2", "svm", "vmx", "x2apic", "pcid", "invtsc", "topoext"];
        for name in names {
            if rng.percent(20) {
                let policy = rng.text(&["force", "require", "optional", "disable", "forbid"]);
                let _ = write!(xml, "<feature policy='{policy}' name='{name}'/>");
            }
        }
        if rng.percent(5) {
            xml.push_str(rng.text(&[
                "<feature policy='disable' name='lm'/><feature policy='require' name='lm'/>",
                "<feature name='lm'/>",
                "<feature policy='maybe' name='lm'/>",
            ]));
        }
    }
    // A host that is itself a guest may announce this one and not allow to set it.
    if draft.kvm {
        xml.push_str("<feature policy='disable' name='arch-capabilities'/>");
    }
    xml
}

/// The attributes beside the mode.
fn attributes(rng: &mut Rng, draft: &mut Draft<'_>) -> String {
    let matching = match (draft.take("cpu-minimum"), draft.take("cpu-strict")) {
        (true, _) => " match='minimum'",
        (_, true) => " match='strict'",
        _ => rng.text(&["", " match='exact'"]),
    };
    let check = match draft.take("cpu-check") {
        true => rng.text(&["", " check='partial'", " check='full'"]),
        false => " check='none'",
    };
    format!("{matching}{check}")
}

fn model(rng: &mut Rng, draft: &mut Draft<'_>, name: &str) -> String {
    let vendor = match draft.take("vendor-id") {
        true => format!(
            " vendor_id='{}'",
            match rng.below(12) {
                0 => "AMD",
                1 => "",
                _ => rng.text(&["AuthenticAMD", "AuthenticAMD", "GenuineIntel", "HygonGenuine", "KVMKVMKVMKVM"]),
            }
        ),
        false => String::new(),
    };
    let fallback = match draft.take("cpu-fallback") {
        true if rng.percent(8) => " fallback='maybe'",
        true => rng.text(&[" fallback='forbid'", " fallback='forbid'", ""]),
        false => " fallback='allow'",
    };
    format!("<model{fallback}{vendor}>{name}</model>")
}

/// The name of a model.
fn model_name(rng: &mut Rng, draft: &mut Draft<'_>) -> String {
    const INVENTED: &[&str] = &["base", "max", "host", "epyc", "Opteron_G9", "qemu128"];
    if draft.take("cpu-lacking") && !draft.inventory.lacking.is_empty() {
        return rng.pick(&draft.inventory.lacking).clone();
    }
    if draft.take("cpu-unknown") {
        if draft.inventory.unknown.is_empty() || rng.percent(30) {
            return (rng.text(INVENTED)).to_owned();
        }
        return rng.pick(&draft.inventory.unknown).clone();
    }
    // Every vendor, and those without long mode, as often as all the others.
    const FEW: &[&str] = &[
        "qemu32", "kvm32", "pentium", "pentium3", "athlon", "Dhyana", "YongFeng", "phenom", "486", "core2duo", "EPYC",
    ];
    let few = rng.text(FEW);
    match draft.inventory.models.iter().find(|model| *model == few) {
        Some(model) if rng.percent(40) => model.clone(),
        _ => rng.pick(&draft.inventory.models).clone(),
    }
}

pub fn cpu(rng: &mut Rng, draft: &mut Draft<'_>) -> String {
    const NAMED: &[&str] = &[
        "cpu-minimum",
        "cpu-strict",
        "cpu-lacking",
        "cpu-unknown",
        "vendor-id",
        "cpu-fallback",
        "cpu-check",
        "cpu-features",
    ];
    let (bits, numa) = (max_phys_addr(rng, draft), memory::numa(rng, draft));
    let with_model = draft.take("cpu-host-model-with-model");
    if with_model {
        let (features, attributes) = (features(rng, draft), attributes(rng, draft));
        let name = model_name(rng, draft);
        let mode = rng.text(&["host-model", "host-model", "host-passthrough", "maximum"]);
        let model = model(rng, draft, &name);
        return format!("<cpu mode='{mode}'{attributes}>{model}{bits}{features}{numa}</cpu>");
    }
    let named = NAMED.iter().any(|feature| draft.wanted.contains(feature));
    let passthrough = if draft.kvm { 15 } else { 1 };
    match if named { 99 } else { rng.below(100) } {
        0..=9 if numa.is_empty() => String::new(),
        0..=19 => format!("<cpu>{bits}{numa}</cpu>"),
        20..=34 => format!("<cpu mode='host-model' check='none'>{bits}{}{numa}</cpu>", features(rng, draft)),
        35..=46 => format!("<cpu mode='maximum' check='none'>{bits}{}{numa}</cpu>", features(rng, draft)),
        n if n < 47 + passthrough => {
            format!("<cpu mode='host-passthrough' check='none'>{bits}{}{numa}</cpu>", features(rng, draft))
        }
        _ => {
            let (features, attributes) = (features(rng, draft), attributes(rng, draft));
            let mode = if rng.percent(15) { "" } else { " mode='custom'" };
            let name = model_name(rng, draft);
            let model = model(rng, draft, &name);
            let vendor =
                if rng.percent(4) { rng.text(&["<vendor>AMD</vendor>", "<vendor>Intel</vendor>"]) } else { "" };
            format!("<cpu{mode}{attributes}>{model}{vendor}{bits}{features}{numa}</cpu>")
        }
    }
}
