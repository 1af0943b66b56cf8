//! `-cpu`, and what becomes of it together with `-global`.

use super::{CommandLine, Origin, Properties, Target};

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

/// What the CPU is told in all, by `-cpu` and by `-global`.
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

/// The model a machine has where none is asked for (`default_cpu_type` in QEMU `hw/i386/pc.c`:
/// `TARGET_DEFAULT_CPU_TYPE`).
pub(crate) fn default_model(target: Target) -> Model {
    let name = match target {
        Target::X86_64 => "qemu64",
        Target::I386 => "qemu32",
    };
    Model::Named(name.to_owned())
}

/// The classes every x86 CPU is derived from (QEMU `target/i386/cpu.c`, `hw/core/cpu-common.c`).
const BASE_CLASSES: [&str; 4] = ["x86_64-cpu", "i386-cpu", "cpu", "device"];

fn is_base_class(class: &str) -> bool {
    BASE_CLASSES.contains(&class)
}

impl CpuOptions {
    /// A model of which nothing else is asked.
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

    /// Sets a property, if it is one that counts here and QEMU takes the value.
    fn set(&mut self, name: &str, value: &str) {
        match name {
            "vendor" => self.vendor = Some(value.to_owned()),
            "lm" => self.lm = boolean(value).or(self.lm),
            "pae" => self.pae = boolean(value).or(self.pae),
            "pse36" => self.pse36 = boolean(value).or(self.pse36),
            "phys-bits" => self.phys_bits = value.parse().unwrap_or(self.phys_bits),
            "host-phys-bits" => self.host_phys_bits = boolean(value).or(self.host_phys_bits),
            "host-phys-bits-limit" => self.host_phys_bits_limit = value.parse().ok().or(self.host_phys_bits_limit),
            _ => {}
        }
    }
}

/// `qapi_bool_parse` in QEMU `qapi/qapi-util.c`.
pub(crate) fn boolean(value: &str) -> Option<bool> {
    match value {
        "on" | "yes" | "true" | "y" => Some(true),
        "off" | "no" | "false" | "n" => Some(false),
        _ => None,
    }
}

impl CommandLine {
    /// What the CPU is told in all. The properties of `-cpu` are registered as globals after those of `-global`
    /// (`x86_cpu_parse_featurestr` in QEMU `target/i386/cpu.c`), so that they win.
    pub fn cpu_options(&self) -> CpuOptions {
        let default = || default_model(self.target);
        let mut options = CpuOptions::plain(self.cpu.as_ref().map_or_else(default, |cpu| cpu.model.clone()));
        let own_class = options.model.class(self.target);
        for global in &self.globals {
            if is_base_class(&global.driver) || own_class.as_deref() == Some(global.driver.as_ref()) {
                options.set(&global.property, &global.value);
            }
        }
        for property in self.cpu.iter().flat_map(|cpu| cpu.properties.iter()) {
            options.set(&property.name, &property.value);
        }
        options
    }
}

impl Model {
    /// The class of such a CPU, where the model is known.
    fn class(&self, target: Target) -> Option<String> {
        let name = match self {
            Self::Named(name) => name,
            Self::Host => "host",
            Self::Max => "max",
            Self::HostModel => return None,
        };
        Some(match target {
            Target::X86_64 => format!("{name}-x86_64-cpu"),
            Target::I386 => format!("{name}-i386-cpu"),
        })
    }
}
