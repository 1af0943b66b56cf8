//! `-cpu`, and what becomes of it together with `-global`.

use super::value::{boolean, number};
use super::{CommandLine, Global, Origin, Properties, Property, QemuTarget};

/// `-cpu`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cpu {
    /// The model.
    pub model: Model,
    /// Its properties.
    pub properties: Properties,
    /// Where it comes from.
    pub origin: Origin,
}

/// The model in `-cpu`.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(clippy::enum_variant_names, reason = "libvirt calls it host-model")]
pub enum Model {
    /// A named model.
    Named(String),
    /// `host`.
    Host,
    /// `max`.
    Max,
    /// Whatever named model is nearest to what this host and accelerator can do: libvirt's host-model before libvirt
    /// has put a name in its place.
    HostModel,
}

/// All CPU properties, from `-cpu` and from `-global`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CpuOptions {
    /// The model.
    pub model: Model,
    /// `vendor=`.
    pub vendor: Option<String>,
    /// `lm=`.
    pub lm: Option<bool>,
    /// `pae=`.
    pub pae: Option<bool>,
    /// `pse36=`.
    pub pse36: Option<bool>,
    /// `phys-bits=`; 0 is the same as none.
    pub phys_bits: u32,
    /// `host-phys-bits=`.
    pub host_phys_bits: Option<bool>,
    /// `host-phys-bits-limit=`; 0 is none.
    pub host_phys_bits_limit: Option<u32>,
}

/// The model a machine has if none is asked for (`default_cpu_type` in QEMU `hw/i386/pc.c`:
/// `TARGET_DEFAULT_CPU_TYPE`).
pub(crate) fn default_model(target: QemuTarget) -> Model {
    let name = match target {
        QemuTarget::X86_64 => "qemu64",
        QemuTarget::I386 => "qemu32",
    };
    Model::Named(name.to_owned())
}

/// Bytes of a CPUID vendor; QEMU takes no other (`x86_cpuid_set_vendor` in `target/i386/cpu.c`).
const VENDOR_LENGTH: usize = 12;

/// The classes every x86 CPU is derived from (QEMU `target/i386/cpu.c`, `hw/core/cpu-common.c`).
const BASE_CLASSES: [&str; 3] = ["x86_64-cpu", "i386-cpu", "cpu"];

impl CpuOptions {
    /// A model without further properties.
    pub const fn plain(model: Model) -> Self {
        Self {
            model,
            vendor: None,
            lm: None,
            pae: None,
            pse36: None,
            phys_bits: 0,
            host_phys_bits: None,
            host_phys_bits_limit: None,
        }
    }

    /// Sets a property; `None` if QEMU does not take the value. Properties that do not matter here are accepted with
    /// any value.
    fn set(&mut self, name: &str, value: &str) -> Option<()> {
        let bits = |text: &str| number(text).and_then(|bits| u32::try_from(bits).ok());
        match name {
            "vendor" if value.len() == VENDOR_LENGTH => self.vendor = Some(value.to_owned()),
            "vendor" => return None,
            "lm" => self.lm = Some(boolean(value)?),
            "pae" => self.pae = Some(boolean(value)?),
            "pse36" => self.pse36 = Some(boolean(value)?),
            "phys-bits" => self.phys_bits = bits(value)?,
            "host-phys-bits" => self.host_phys_bits = Some(boolean(value)?),
            "host-phys-bits-limit" => self.host_phys_bits_limit = Some(bits(value)?),
            _ => {}
        }
        Some(())
    }

    /// Whether QEMU takes the value for the property.
    pub(super) fn reads(name: &str, value: &str) -> bool {
        Self::plain(Model::Max).set(name, value).is_some()
    }
}

/// Whether every x86 CPU is derived from a class.
pub(super) fn is_base_class(class: &str) -> bool {
    BASE_CLASSES.contains(&class)
}

/// Whether a class is that of a CPU, or one that CPUs are derived from.
pub(super) fn is_cpu_class(class: &str) -> bool {
    is_base_class(class) || class.ends_with("-x86_64-cpu") || class.ends_with("-i386-cpu")
}

impl CommandLine {
    /// All CPU properties. Those of `-cpu` are registered as globals after those of `-global`
    /// (`x86_cpu_parse_featurestr` in QEMU `target/i386/cpu.c`), so that they win.
    pub fn cpu_options(&self) -> CpuOptions {
        let default = || default_model(self.target);
        let model = self.cpu.as_ref().map_or_else(default, |cpu| cpu.model.clone());
        let mut options = CpuOptions::plain(model.clone());
        for property in self.cpu_properties(Some(&model)) {
            let _ = options.set(&property.name, &property.value);
        }
        options
    }

    /// The value given to a CPU property, if any.
    pub fn cpu_property(&self, name: &str) -> Option<&Property> {
        let model = self.cpu.as_ref().map(|cpu| &cpu.model);
        self.cpu_properties(model).filter(|property| property.name == name).last()
    }

    /// The properties of a CPU of this model, in the order QEMU applies them.
    fn cpu_properties<'a>(&'a self, model: Option<&'a Model>) -> impl Iterator<Item = &'a Property> {
        let is_its = move |class: &str| model.is_some_and(|model| model.has_class(class, self.target));
        let about = move |global: &&Global| is_base_class(&global.driver) || is_its(&global.driver);
        let globals = self.globals.iter().filter(about).map(|global| &global.property);
        globals.chain(self.cpu.iter().flat_map(|cpu| cpu.properties.iter()))
    }
}

impl Model {
    /// Whether such a CPU is of a class; of one whose model is not known, none is its own.
    fn has_class(&self, class: &str, target: QemuTarget) -> bool {
        let name = match self {
            Self::Named(name) => name,
            Self::Host => "host",
            Self::Max => "max",
            Self::HostModel => return false,
        };
        let suffix = match target {
            QemuTarget::X86_64 => "-x86_64-cpu",
            QemuTarget::I386 => "-i386-cpu",
        };
        class.strip_suffix(suffix) == Some(name)
    }
}
