//! What the operator allows, from `/etc/iova-preflight/policy.toml` or `--policy`.

use serde::Deserialize;

use crate::domain::Overrides;
use crate::machine::{MachineType, Resolved, resolve};
use crate::text::{printable, quoted, toml_message};
use crate::xml::Location;

/// The operator's policy. Every key is optional.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct Policy {
    /// What the hook does about a guest that would fail, and whether an adapter does anything.
    pub mode: Mode,
    /// Which guests are evaluated as if DMA had to reach their memory.
    pub passthrough: PassthroughPolicy,
    /// To which machine type a rewrite may go.
    pub machine_upgrade: MachineUpgrade,
    /// How a rewrite may give a guest more phys-bits.
    pub phys_bits: PhysBitsPolicy,
    /// What the hook and the adapters do if they fail themselves.
    pub on_internal_error: OnInternalError,
    /// Names or UUIDs of guests that the hook, the adapters and the watch service leave alone.
    pub exempt: Vec<String>,
    /// What a guest's own `<metadata>` may change.
    pub overrides: OverridePolicy,
    /// What it means that one device cannot reach another one's BAR.
    pub peer_to_peer: PeerToPeer,
    /// What an alias such as `q35` means where the host's QEMU is not known.
    pub alias: AliasPolicy,
    /// What happens to definitions that an orchestrator regenerates at each start.
    pub owned: OwnedPolicy,
    /// The adapters of orchestrators.
    pub adapter: AdapterPolicy,
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
    /// Do not check it.
    Off,
}

/// `passthrough`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PassthroughPolicy {
    /// Guests with a VFIO or vDPA device.
    #[default]
    Present,
    /// All guests: a device may be hot-plugged.
    Assume,
}

/// `machine_upgrade`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum MachineUpgrade {
    /// The oldest type that relocates RAM and that the host's QEMU does not deprecate, if there is one.
    #[default]
    Minimum,
    /// The newest this host's QEMU has.
    Latest,
    /// None.
    Never,
    /// This one, for guests of its family and flavor.
    Named(MachineType),
}

impl PassthroughPolicy {
    /// The value in the file.
    fn name(self) -> &'static str {
        match self {
            Self::Present => "present",
            Self::Assume => "assume",
        }
    }
}

impl MachineUpgrade {
    /// The value in the file.
    fn name(&self) -> &str {
        match self {
            Self::Minimum => "minimum",
            Self::Latest => "latest",
            Self::Never => "never",
            Self::Named(machine) => &machine.name,
        }
    }
}

impl PhysBitsPolicy {
    /// The value in the file.
    fn name(self) -> &'static str {
        match self {
            Self::Minimum => "minimum",
            Self::Host => "host",
            Self::Never => "never",
        }
    }
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
            _ => Err(format!("`{}` is neither minimum, latest, never nor a known machine type", quoted(&text))),
        }
    }
}

/// `phys_bits`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PhysBitsPolicy {
    /// The fewest bits that are enough.
    #[default]
    Minimum,
    /// The host's.
    Host,
    /// Leave them as they are.
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

/// `overrides`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OverridePolicy {
    /// It may ask to be checked more strictly than this policy says.
    #[default]
    Tighten,
    /// It may ask for anything, less strict checks included.
    Honour,
    /// Nothing.
    Ignore,
}

impl OverridePolicy {
    /// The value in a policy file.
    pub fn name(self) -> &'static str {
        match self {
            Self::Tighten => "tighten",
            Self::Honour => "honour",
            Self::Ignore => "ignore",
        }
    }
}

/// `peer_to_peer`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PeerToPeer {
    /// Guests do without DMA between devices: a BAR that it cannot reach is a warning.
    #[default]
    Optional,
    /// Guests need it, as GPUs do that share memory: such a BAR is an error. The hook does not look at BARs.
    Required,
}

impl PeerToPeer {
    /// The value in the file.
    fn name(self) -> &'static str {
        match self {
            Self::Optional => "optional",
            Self::Required => "required",
        }
    }
}

/// `alias`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AliasPolicy {
    /// It is unknown: an old type or a new one.
    #[default]
    Unknown,
    /// The newest type of its family that the host's QEMU may have.
    Newest,
}

impl AliasPolicy {
    /// The value in the file.
    fn name(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Newest => "newest",
        }
    }
}

/// `owned`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OwnedPolicy {
    /// They are left as they are: the rewrite would be lost.
    #[default]
    Leave,
    /// They are redefined like all others.
    Rewrite,
}

impl OwnedPolicy {
    /// The value in the file.
    fn name(self) -> &'static str {
        match self {
            Self::Leave => "leave",
            Self::Rewrite => "rewrite",
        }
    }
}

/// `[watch]`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct WatchPolicy {
    /// Whether definitions that can be fixed are.
    pub rewrite: bool,
}

/// `[adapter]`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct AdapterPolicy {
    /// Whether KubeVirt and CloudStack get a domain that libvirt refuses with the reason, instead of an error of the
    /// hook that the one does not show and the other ignores.
    pub block_in_domain: bool,
}

/// Why a text is not a policy, and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{location}: {message}")]
pub struct PolicyError {
    /// Where it is.
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
            message: printable(&toml_message(text, &e)).into_owned(),
        })
    }

    /// The keys that decide how guests are evaluated and fixed, as far as they differ from the defaults, as they are
    /// written in the file. Those of the hook and of the watch service are not among them.
    pub fn differences(&self) -> Vec<String> {
        let Self {
            mode: _,
            passthrough,
            machine_upgrade,
            phys_bits,
            on_internal_error: _,
            exempt: _,
            overrides,
            peer_to_peer,
            alias,
            owned,
            adapter: _,
            watch: _,
        } = self;
        let defaults = Self::default();
        let mut differences = Vec::new();
        let mut compare = |key: &str, differs: bool, value: &str| {
            if differs {
                differences.push(format!("{key} = \"{value}\""));
            }
        };
        compare("passthrough", *passthrough != defaults.passthrough, passthrough.name());
        compare("machine_upgrade", *machine_upgrade != defaults.machine_upgrade, machine_upgrade.name());
        compare("phys_bits", *phys_bits != defaults.phys_bits, phys_bits.name());
        compare("overrides", *overrides != defaults.overrides, overrides.name());
        compare("peer_to_peer", *peer_to_peer != defaults.peer_to_peer, peer_to_peer.name());
        compare("alias", *alias != defaults.alias, alias.name());
        compare("owned", *owned != defaults.owned, owned.name());
        differences
    }

    /// Whether a guest with these overrides is evaluated as if it had a passthrough device.
    pub fn expects_passthrough(&self, overrides: &Overrides) -> bool {
        let expected = self.passthrough == PassthroughPolicy::Assume;
        match (self.overrides, overrides.assume_passthrough) {
            (OverridePolicy::Tighten, Some(assume)) => expected || assume,
            (OverridePolicy::Honour, Some(assume)) => assume,
            (OverridePolicy::Ignore, _) | (_, None) => expected,
        }
    }

    /// The overrides of a guest that the policy ignores, in one line; `None` if there are none.
    pub fn refused_override(&self, overrides: &Overrides) -> Option<String> {
        if let Some(broken) = &overrides.broken {
            return Some(format!("its <metadata> is ignored: {}", broken.value));
        }
        let assume = overrides.assume_passthrough?;
        let refused = self.expects_passthrough(overrides) != assume;
        let (asked, policy) = (if assume { "assume" } else { "present" }, self.overrides.name());
        refused.then(|| format!("passthrough='{asked}' in its <metadata> is ignored (overrides = \"{policy}\")"))
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
             on_internal_error = 'block'\nexempt = ['a']\noverrides = 'honour'\n\
             peer_to_peer = 'required'\nalias = 'newest'\nowned = 'rewrite'\n[adapter]\nblock_in_domain = true\n\
             [watch]\nrewrite = true\n",
        );
        let expected = Policy {
            mode: Mode::Warn,
            passthrough: PassthroughPolicy::Assume,
            machine_upgrade: MachineUpgrade::Latest,
            phys_bits: PhysBitsPolicy::Host,
            on_internal_error: OnInternalError::Block,
            exempt: vec!["a".to_owned()],
            overrides: OverridePolicy::Honour,
            peer_to_peer: PeerToPeer::Required,
            alias: AliasPolicy::Newest,
            owned: OwnedPolicy::Rewrite,
            adapter: AdapterPolicy { block_in_domain: true },
            watch: WatchPolicy { rewrite: true },
        };
        assert_eq!(policy, Ok(expected));
    }

    #[test]
    fn differences_are_told_as_they_are_written() {
        let differences = |text: &str| Policy::from_toml(text).expect("a policy").differences();
        assert!(
            differences("mode = 'warn'\nexempt = ['a']\nphys_bits = 'minimum'\n[watch]\nrewrite = true\n").is_empty()
        );
        for text in [
            "passthrough = \"assume\"",
            "machine_upgrade = \"pc-q35-8.2\"",
            "phys_bits = \"never\"",
            "overrides = \"honour\"",
            "peer_to_peer = \"required\"",
            "alias = \"newest\"",
            "owned = \"rewrite\"",
        ] {
            assert_eq!(differences(text), [text]);
        }
        let all = differences("phys_bits = 'host'\nmachine_upgrade = 'never'");
        assert_eq!(all, ["machine_upgrade = \"never\"", "phys_bits = \"host\""]);
    }

    #[test]
    fn a_guest_can_only_tighten_unless_the_policy_says_otherwise() {
        let policy = |text: &str| Policy::from_toml(text).expect("a policy");
        for (text, alone, present, assume) in [
            ("", false, false, true),
            ("passthrough = 'assume'", true, true, true),
            ("overrides = 'honour'", false, false, true),
            ("passthrough = 'assume'\noverrides = 'honour'", true, false, true),
            ("overrides = 'ignore'", false, false, false),
            ("passthrough = 'assume'\noverrides = 'ignore'", true, true, true),
        ] {
            let policy = policy(text);
            let overrides = |assume_passthrough| Overrides { assume_passthrough, broken: None };
            let expected = [None, Some(false), Some(true)].map(|asked| policy.expects_passthrough(&overrides(asked)));
            assert_eq!(expected, [alone, present, assume], "{text}");
            for asked in [false, true] {
                let refused = policy.refused_override(&overrides(Some(asked))).is_some();
                assert_eq!(refused, expected[1 + usize::from(asked)] != asked, "{text}");
            }
        }
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
        let error = Policy::from_toml("passthrough = \"a\\tssume\\u001b[31m\"").expect_err("unknown value");
        assert!(error.message.contains("a\\tssume") && !error.message.contains(char::is_control), "{error:?}");
        let error = Policy::from_toml("\n\nmode = 'perhaps'\n").expect_err("unknown value");
        assert_eq!((error.location.line, error.location.column), (3, 8));
    }

    #[test]
    fn a_value_is_named_with_its_key() {
        let message = |text: &str| Policy::from_toml(text).expect_err(text).message;
        assert_eq!(
            message("mode = 'perhaps'"),
            "mode: unknown variant `perhaps`, expected one of `enforce`, `warn`, `off`"
        );
        assert_eq!(
            message("[watch]\n  rewrite = 'yes' # =\n"),
            "rewrite: invalid type: string \"yes\", expected a boolean"
        );
        assert!(
            message("machine_upgrade = 'pc-q35-7.0'").starts_with("machine_upgrade: machine type pc-q35-7.0 does not")
        );
        assert!(message("watch = { rewrite = 1 }").starts_with("watch: invalid type"));
        // Errors that name the key already, and errors that are not about a value.
        assert!(message("modes = 'x'").starts_with("unknown field `modes`"));
        assert!(!message("exempt = [\n  1,\n]").contains("exempt:"));
    }
}
