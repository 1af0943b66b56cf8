//! The vCPU's vendor, long mode and phys-bits, as QEMU realizes it.

use crate::command_line::{Accelerator, CpuOptions, Model, QemuTarget};
use crate::version::Version;

/// phys-bits of a 64-bit CPU unless something else is requested (`TCG_PHYS_ADDR_BITS` in QEMU `target/i386/cpu.h`).
pub const DEFAULT_PHYS_BITS: u32 = 40;

/// The most phys-bits there can be (`TARGET_PHYS_ADDR_SPACE_BITS` in QEMU `target/i386/cpu-param.h`).
pub const MAX_PHYS_BITS: u32 = 52;

/// The first QEMU that is known to take more without KVM; 10.0.13 does not (`x86_cpu_realizefn`).
const WITHOUT_UPPER_LIMIT: Version = Version::new(11, 1);

/// The least phys-bits a 64-bit CPU may be given (QEMU `x86_cpu_realizefn`).
pub const MIN_PHYS_BITS: u32 = 32;

/// The vendor that QEMU takes for AMD (`IS_AMD_CPU` in QEMU `target/i386/cpu.h`); Hygon is not.
pub const AMD: &str = "AuthenticAMD";

/// The vendor of Intel's CPUs, as CPUID spells it.
pub const INTEL: &str = "GenuineIntel";

/// What is known about the host CPU.
#[derive(Debug, Clone, Copy)]
pub struct HostCpu<'a> {
    /// CPUID vendor.
    pub vendor: &'a str,
    /// Physical address bits.
    pub phys_bits: u32,
}

/// A CPU as the guest sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Vcpu {
    /// CPUID vendor; `None` for a model whose vendor is not known.
    pub vendor: Option<String>,
    /// Whether it has long mode (CPUID `lm`).
    pub long_mode: bool,
    /// Physical address bits.
    pub phys_bits: u32,
}

/// QEMU refuses the CPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CpuRefusal {
    /// `phys-bits is not user-configurable in 32 bit`.
    NotConfigurable,
    /// `phys-bits should be between 32 and 52  (but is …)`.
    OutOfRange(u32),
}

/// Models without long mode, with their `pae` and `pse36` (from `query-cpu-model-expansion` of QEMU 7.2, 10.0, 11.1).
const WITHOUT_LONG_MODE: [(&str, bool, bool); 10] = [
    ("486", false, false),
    ("athlon", true, true),
    ("base", false, false),
    ("coreduo", true, false),
    ("kvm32", true, true),
    ("n270", true, false),
    ("pentium", false, false),
    ("pentium2", true, true),
    ("pentium3", true, true),
    ("qemu32", true, false),
];

/// Models whose CPUID vendor is AMD's, by the first part of their name (from `query-cpu-model-expansion` of QEMU 7.2,
/// 10.0, 11.1).
const AMD_MODELS: [&str; 5] = ["EPYC", "Opteron_", "athlon", "phenom", "qemu64"];

/// The same for Intel's.
const INTEL_MODELS: [&str; 33] = [
    "486",
    "Broadwell",
    "Cascadelake",
    "ClearwaterForest",
    "Conroe",
    "Cooperlake",
    "Denverton",
    "DiamondRapids",
    "GraniteRapids",
    "Haswell",
    "Icelake",
    "IvyBridge",
    "KnightsMill",
    "Nehalem",
    "Penryn",
    "SandyBridge",
    "SapphireRapids",
    "SierraForest",
    "Skylake",
    "Snowridge",
    "Westmere",
    "core2duo",
    "coreduo",
    "kvm32",
    "kvm64",
    "n270",
    "pentium",
    "pentium2",
    "pentium3",
    "pentiumpro",
    "qemu32",
    "cpu64-rhel5",
    "cpu64-rhel6",
];

/// The entry of a named model in [`WITHOUT_LONG_MODE`], its version left out.
fn without_long_mode(name: &str) -> Option<&'static (&'static str, bool, bool)> {
    let base = name.rsplit_once("-v").map_or(name, |(base, _)| base);
    WITHOUT_LONG_MODE.iter().find(|(known, ..)| *known == base)
}

/// Whether a named model has long mode unless a feature says otherwise.
pub fn has_long_mode(name: &str) -> bool {
    without_long_mode(name).is_none()
}

/// The CPUID vendor QEMU's definition of a named model has.
fn model_vendor(name: &str) -> Option<&'static str> {
    // It has no features at all.
    if name == "base" {
        return Some("");
    }
    let starts = |known: &&str| name.starts_with(*known);
    if AMD_MODELS.iter().any(starts) {
        Some(AMD)
    } else if name.starts_with("Dhyana") {
        Some("HygonGenuine")
    } else if name.starts_with("YongFeng") {
        Some("CentaurHauls")
    } else if INTEL_MODELS.iter().any(starts) {
        Some("GenuineIntel")
    } else {
        None
    }
}

impl Vcpu {
    /// The CPU that `options` make on `host`.
    ///
    /// `host_phys_bits_default` is a machine type's own `host-phys-bits=on` with its limit (0: none).
    ///
    /// Vendor: QEMU `host_cpu_instance_init` (`target/i386/host-cpu.c`) gives every named model the host's under KVM;
    /// a `vendor=` comes later and wins. phys-bits: `host_cpu_realizefn` and `x86_cpu_realizefn` (`target/i386/cpu.c`).
    ///
    /// # Errors
    /// QEMU refuses to start with such a CPU.
    pub fn realize(
        options: &CpuOptions,
        accelerator: Accelerator,
        target: QemuTarget,
        host: HostCpu<'_>,
        qemu: Version,
        host_phys_bits_default: Option<u32>,
    ) -> Result<Self, CpuRefusal> {
        let kvm = accelerator == Accelerator::Kvm;
        let default_vendor = match &options.model {
            _ if kvm => Some(host.vendor),
            Model::Named(name) => model_vendor(name),
            // TCG's own CPU is AMD's (`x86_cpu_max_instance_init`), and so the model nearest to it.
            Model::Host | Model::Max | Model::HostModel => Some(AMD),
        };
        let vendor = options.vendor.clone().or(default_vendor.map(str::to_owned));

        let named = match &options.model {
            Model::Named(name) => without_long_mode(name),
            _ => None,
        };
        // No CPU of a 32-bit QEMU has long mode (`x86_cpu_get_supported_feature_word`).
        let long_mode = target == QemuTarget::X86_64 && options.lm.unwrap_or(named.is_none());
        if !long_mode {
            if options.phys_bits != 0 {
                return Err(CpuRefusal::NotConfigurable);
            }
            let pse36 = options.pse36.unwrap_or(named.is_none_or(|&(_, _, pse36)| pse36));
            let pae = options.pae.unwrap_or(named.is_none_or(|&(_, pae, _)| pae));
            // Before 8.2 QEMU looked at PSE36 alone.
            let wide = pse36 || (pae && qemu >= Version::new(8, 2));
            return Ok(Self { vendor, long_mode, phys_bits: if wide { 36 } else { 32 } });
        }

        let takes_host_bits = options
            .host_phys_bits
            .unwrap_or(matches!(options.model, Model::Host | Model::Max) || host_phys_bits_default.is_some());
        let phys_bits = if kvm && takes_host_bits {
            match options.host_phys_bits_limit.or(host_phys_bits_default).unwrap_or(0) {
                0 => host.phys_bits,
                limit => host.phys_bits.min(limit),
            }
        } else if options.phys_bits == 0 {
            DEFAULT_PHYS_BITS
        } else {
            options.phys_bits
        };
        // Even without QEMU's upper limit KVM's code has it, and with 64 or more QEMU's sums overflow.
        let most = if kvm || qemu < WITHOUT_UPPER_LIMIT { MAX_PHYS_BITS } else { 63 };
        if !(MIN_PHYS_BITS..=most).contains(&phys_bits) {
            return Err(CpuRefusal::OutOfRange(phys_bits));
        }
        Ok(Self { vendor, long_mode, phys_bits })
    }

    /// Whether QEMU takes it for an AMD CPU.
    pub fn is_amd(&self) -> bool {
        self.vendor.as_deref() == Some(AMD)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EPYC_HOST: HostCpu<'static> = HostCpu { vendor: AMD, phys_bits: 48 };
    const QEMU_7_2: Version = Version::new(7, 2);
    const QEMU_10: Version = Version::new(10, 0);

    fn options(model: &str) -> CpuOptions {
        let model = match model {
            "host" => Model::Host,
            "max" => Model::Max,
            name => Model::Named(name.to_owned()),
        };
        CpuOptions::plain(model)
    }

    fn realize(options: &CpuOptions, accelerator: Accelerator, qemu: Version) -> Result<(String, u32), CpuRefusal> {
        Vcpu::realize(options, accelerator, QemuTarget::X86_64, EPYC_HOST, qemu, None)
            .map(|c| (c.vendor.unwrap_or_default(), c.phys_bits))
    }

    /// Expected values: QMP `qom-get` of `vendor` and `phys-bits` on QEMU 7.2.22 and 10.0.13, AMD host with 48 bits.
    #[test]
    fn vendor_and_phys_bits_are_qemus() {
        use Accelerator::{Kvm, Tcg};
        for (model, accelerator, qemu, vendor, bits) in [
            ("EPYC", Tcg, QEMU_7_2, AMD, 40),
            ("qemu64", Tcg, QEMU_7_2, AMD, 40),
            ("kvm64", Tcg, QEMU_7_2, "GenuineIntel", 40),
            ("kvm64", Kvm, QEMU_7_2, AMD, 40),
            ("Dhyana", Tcg, QEMU_7_2, "HygonGenuine", 40),
            ("Dhyana", Kvm, QEMU_7_2, AMD, 40),
            ("host", Kvm, QEMU_7_2, AMD, 48),
            ("max", Kvm, QEMU_7_2, AMD, 48),
            ("max", Tcg, QEMU_7_2, AMD, 40),
            ("qemu32", Tcg, QEMU_7_2, "GenuineIntel", 32),
            ("qemu32", Tcg, QEMU_10, "GenuineIntel", 36),
            ("athlon", Tcg, QEMU_7_2, AMD, 36),
            ("pentium", Tcg, QEMU_10, "GenuineIntel", 32),
        ] {
            assert_eq!(
                realize(&options(model), accelerator, qemu),
                Ok((vendor.to_owned(), bits)),
                "{model} {accelerator:?} {qemu}"
            );
        }
    }

    #[test]
    fn host_phys_bits_beats_phys_bits_under_kvm_only() {
        let asked = CpuOptions { phys_bits: 40, ..options("host") };
        assert_eq!(realize(&asked, Accelerator::Kvm, QEMU_10), Ok((AMD.to_owned(), 48)));
        let off = CpuOptions { host_phys_bits: Some(false), ..asked };
        assert_eq!(realize(&off, Accelerator::Kvm, QEMU_10), Ok((AMD.to_owned(), 40)));
        let inert = CpuOptions { host_phys_bits: Some(true), ..options("EPYC") };
        assert_eq!(realize(&inert, Accelerator::Tcg, QEMU_10), Ok((AMD.to_owned(), 40)));
        let limited = CpuOptions { host_phys_bits_limit: Some(46), ..inert };
        assert_eq!(realize(&limited, Accelerator::Kvm, QEMU_10), Ok((AMD.to_owned(), 46)));
    }

    #[test]
    fn qemu_refuses_what_it_refuses() {
        let narrow = CpuOptions { phys_bits: 42, ..options("qemu32") };
        assert_eq!(realize(&narrow, Accelerator::Tcg, QEMU_7_2), Err(CpuRefusal::NotConfigurable));
        let with_lm = CpuOptions { lm: Some(true), ..narrow };
        assert_eq!(realize(&with_lm, Accelerator::Tcg, QEMU_7_2), Ok(("GenuineIntel".to_owned(), 42)));
        let low = CpuOptions { phys_bits: 20, ..options("EPYC") };
        assert_eq!(realize(&low, Accelerator::Tcg, QEMU_7_2), Err(CpuRefusal::OutOfRange(20)));
        let wide = CpuOptions { phys_bits: 57, ..options("EPYC") };
        let newest = Version::new(11, 1);
        assert_eq!(realize(&wide, Accelerator::Tcg, newest), Ok((AMD.to_owned(), 57)));
        assert_eq!(realize(&wide, Accelerator::Kvm, newest), Err(CpuRefusal::OutOfRange(57)));
        assert_eq!(realize(&wide, Accelerator::Tcg, QEMU_10), Err(CpuRefusal::OutOfRange(57)));
    }
}
