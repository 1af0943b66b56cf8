//! What the operator allows, from `/etc/iova-preflight/policy.toml` or `--policy`.

use serde::Deserialize;

use crate::machine::{MachineType, Resolved, resolve};
use crate::text::quoted;
use crate::xml::Location;

/// The operator's policy. Every key is optional.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Policy {
    /// What the hook does about a guest that would fail.
    pub mode: Mode,
    /// Which guests are evaluated as if DMA had to reach their memory.
    pub passthrough: PassthroughPolicy,
    /// To which machine type a rewrite may go.
    pub machine_upgrade: MachineUpgrade,
    /// How a rewrite may give a guest more phys-bits.
    pub phys_bits: PhysBitsPolicy,
    /// What the hook does when it fails itself.
    pub on_internal_error: OnInternalError,
    /// Names or UUIDs of guests that the hook and the watch service leave alone.
    pub exempt: Vec<String>,
    /// The watch service.
    pub watch: WatchPolicy,
}

/// `mode`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Stop it.
    #[default]
    Enforce,
    /// Log it and let it start.
    Warn,
    /// Do not look.
    Off,
}

/// `passthrough`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PassthroughPolicy {
    /// Those with a VFIO or vDPA device.
    #[default]
    Present,
    /// All: a device may be hot-plugged.
    Assume,
}

/// `machine_upgrade`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum MachineUpgrade {
    /// The oldest type that relocates RAM.
    #[default]
    Minimum,
    /// The newest this host's QEMU has.
    Latest,
    /// None.
    Never,
    /// This one, for guests of its family and flavor.
    Named(MachineType),
}

impl TryFrom<String> for MachineUpgrade {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        match (text.as_str(), resolve(&text)) {
            ("minimum", _) => Ok(Self::Minimum),
            ("latest", _) => Ok(Self::Latest),
            ("never", _) => Ok(Self::Never),
            (_, Resolved::Known(machine)) if machine.enforces_amd_1tb_hole => Ok(Self::Named(machine)),
            (_, Resolved::Known(_)) => Err(format!("machine type {} does not move RAM above 1 TiB", quoted(&text))),
            _ => Err(format!("`{}` is neither minimum, latest, never nor a machine type that is known", quoted(&text))),
        }
    }
}

/// `phys_bits`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PhysBitsPolicy {
    /// The fewest bits that do.
    #[default]
    Minimum,
    /// The host's.
    Host,
    /// Leave them.
    Never,
}

/// `on_internal_error`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnInternalError {
    /// Let the guest start.
    #[default]
    Allow,
    /// Stop it.
    Block,
}

/// `[watch]`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct WatchPolicy {
    /// Whether definitions that can be fixed are.
    pub rewrite: bool,
}

/// Why a text is no policy, and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{location}: {message}")]
pub struct PolicyError {
    /// Where it stands.
    pub location: Location,
    /// What is wrong, in one line.
    pub message: String,
}

impl Policy {
    /// Reads a policy file.
    ///
    /// # Errors
    /// Not TOML, an unknown key, or an unknown value.
    pub fn from_toml(text: &str) -> Result<Self, PolicyError> {
        toml::from_str(text).map_err(|e| PolicyError {
            location: Location::of(text.as_bytes(), e.span().map_or(0, |span| span.start)),
            message: e.message().replace('\n', " "),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_file_is_the_default() {
        assert_eq!(Policy::from_toml(""), Ok(Policy::default()));
    }

    #[test]
    fn the_example_shows_the_defaults() {
        assert_eq!(Policy::from_toml(include_str!("../hooks/policy.toml")), Ok(Policy::default()));
    }

    #[test]
    fn every_key_is_read() {
        let policy = Policy::from_toml(
            "mode = 'warn'\npassthrough = 'assume'\nmachine_upgrade = 'latest'\nphys_bits = 'host'\n\
             on_internal_error = 'block'\nexempt = ['a']\n[watch]\nrewrite = true\n",
        );
        let expected = Policy {
            mode: Mode::Warn,
            passthrough: PassthroughPolicy::Assume,
            machine_upgrade: MachineUpgrade::Latest,
            phys_bits: PhysBitsPolicy::Host,
            on_internal_error: OnInternalError::Block,
            exempt: vec!["a".to_owned()],
            watch: WatchPolicy { rewrite: true },
        };
        assert_eq!(policy, Ok(expected));
    }

    #[test]
    fn a_mistake_is_named_with_its_line() {
        let error = Policy::from_toml("mode = 'warn'\nmodes = 'x'\n").expect_err("unknown key");
        assert_eq!((error.location.line, error.location.column), (2, 1));
        let error = Policy::from_toml("machine_upgrade = 'pc-q35-7.0'").expect_err("does not move RAM");
        assert!((error.location.line, error.location.column) == (1, 19) && error.message.contains("1 TiB"), "{error}");
        assert!(Policy::from_toml("machine_upgrade = 'q35'").is_err());
        assert!(matches!(
            Policy::from_toml("machine_upgrade = 'pc-q35-8.2'"),
            Ok(Policy { machine_upgrade: MachineUpgrade::Named(machine), .. }) if machine.name == "pc-q35-8.2"
        ));
        let error = Policy::from_toml("\n\nmode = 'perhaps'\n").expect_err("unknown value");
        assert_eq!((error.location.line, error.location.column), (3, 8));
    }
}
