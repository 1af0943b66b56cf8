//! What all commands that read domains have in common: which host, which policy, and one domain after the other.

use std::path::Path;

use anyhow::{Context, Result, anyhow};
use iova_preflight::domain::{self, Domain};
use iova_preflight::evaluate::{Evaluation, evaluate};
use iova_preflight::host::{self, BUILTIN, Host, Iommu, Profile};
use iova_preflight::io::detect::detect;
use iova_preflight::io::file::read_file_limited;
use iova_preflight::policy::Policy;
use iova_preflight::report::Unreadable;
use iova_preflight::xml::Document;

use crate::Outcome;
use crate::input::Input;
use crate::output::stderr;

/// The longest profile or policy that is read.
const MAX_CONFIG_BYTES: usize = 1024 * 1024;

/// Says on standard error what is wrong with an input.
pub(crate) fn complain(name: &str, error: &Unreadable) {
    let space = if error.at.is_some() { "" } else { " " };
    stderr::line(&format!("{name}:{space}{error}"));
}

/// An input that was evaluated.
pub(crate) struct Evaluated<'a> {
    pub name: &'a str,
    pub document: &'a Document<'a>,
    pub domain: &'a Domain,
    pub evaluation: &'a Evaluation,
    pub host: &'a Host,
}

/// Evaluates inputs and remembers the worst outcome.
pub(crate) struct Evaluator<'a> {
    source: &'a HostSource,
    policy: &'a Policy,
    pub outcome: Outcome,
}

impl<'a> Evaluator<'a> {
    /// An evaluator for guests of `source` under `policy`.
    pub fn new(source: &'a HostSource, policy: &'a Policy) -> Self {
        Self { source, policy, outcome: Outcome::Clean }
    }

    /// Evaluates one input and hands it to `evaluated`, or what is wrong with it to `unreadable`.
    pub fn each(
        &mut self,
        input: Input,
        mut evaluated: impl FnMut(&Evaluated<'_>) -> Result<()>,
        mut unreadable: impl FnMut(&str, Unreadable),
    ) -> Result<()> {
        let name = input.name();
        let bytes = match input.read() {
            Ok(bytes) => bytes,
            Err(error) => {
                self.outcome = Outcome::Failed;
                unreadable(&name, Unreadable { at: None, message: error.to_string() });
                return Ok(());
            }
        };
        let document = match Document::parse(&bytes) {
            Ok(document) => document,
            Err(error) => {
                self.outcome = Outcome::Failed;
                unreadable(&name, Unreadable { at: Some(error.location), message: error.message.into_owned() });
                return Ok(());
            }
        };
        let domain = match domain::read(&document) {
            Ok(domain) => domain,
            Err(error) => {
                self.outcome = Outcome::Failed;
                let at = Some(document.location(error.span.start));
                unreadable(&name, Unreadable { at, message: error.to_string() });
                return Ok(());
            }
        };
        let host = self.source.host_for(domain.emulator.as_ref().map(|emulator| emulator.value.as_str()));
        let evaluation = evaluate(&domain, &host, self.policy);
        if evaluation.verdict.stops() {
            self.outcome = self.outcome.max(Outcome::Stopped);
        }
        evaluated(&Evaluated {
            name: &name,
            document: &document,
            domain: &domain,
            evaluation: &evaluation,
            host: &host,
        })
    }
}

/// The host that guests are evaluated for.
pub(crate) struct HostSource {
    /// For the JSON document.
    pub name: String,
    /// For people: which host, and why.
    pub notice: String,
    profile: Profile,
}

impl HostSource {
    /// This host, whatever it has.
    #[cfg(feature = "libvirt")]
    pub fn this() -> Self {
        Self::detected(detect(Path::new("/")).profile)
    }

    fn detected(profile: Profile) -> Self {
        Self { name: "this host".to_owned(), notice: "host: this host".to_owned(), profile }
    }

    /// A host that only libvirt tells of.
    #[cfg(feature = "libvirt")]
    pub fn told(uri: &str, host: Host) -> Self {
        Self { name: uri.to_owned(), notice: format!("host: as {uri} describes it"), profile: host.into() }
    }

    /// The host in a profile, or this one.
    pub fn choose(wanted: Option<&Path>) -> Result<Self> {
        if let Some(wanted) = wanted {
            let name = wanted.display().to_string();
            if let Some(host) = wanted.to_str().and_then(host::builtin) {
                return Ok(Self { notice: format!("host: built-in profile {name}"), name, profile: host.into() });
            }
            let names: Vec<&str> = BUILTIN.iter().map(|builtin| builtin.name).collect();
            let bytes = read_file_limited(wanted, MAX_CONFIG_BYTES)
                .with_context(|| format!("host profile {name}: neither a file nor one of {}", names.join(", ")))?;
            let text = config_text(&bytes, wanted)?;
            let profile = Profile::from_toml(&text).map_err(|error| anyhow!("{name}:{error}"))?;
            return Ok(Self { notice: format!("host: profile {name}"), name, profile });
        }
        let this = detect(Path::new("/")).profile;
        if this.host.iommu == Some(Iommu::Amd) {
            return Ok(Self::detected(this));
        }
        let name = "amd-epyc";
        let host = host::builtin(name).ok_or_else(|| anyhow!("no built-in profile {name}"))?;
        let notice =
            format!("host: built-in profile {name}, as this host has no AMD IOMMU at work (--host chooses another)");
        Ok(Self { name: name.to_owned(), notice, profile: host.into() })
    }

    /// The host as a domain sees it that is run by `emulator`.
    pub fn host_for(&self, emulator: Option<&str>) -> Host {
        self.profile.host_for(emulator)
    }
}

/// The policy in a file, or the default one.
pub(crate) fn read_policy(path: Option<&Path>) -> Result<Policy> {
    let Some(path) = path else { return Ok(Policy::default()) };
    let bytes = read_file_limited(path, MAX_CONFIG_BYTES).with_context(|| format!("policy {}", path.display()))?;
    let text = config_text(&bytes, path)?;
    Policy::from_toml(&text).map_err(|error| anyhow!("{}:{error}", path.display()))
}

fn config_text(bytes: &[u8], path: &Path) -> Result<String> {
    if bytes.len() > MAX_CONFIG_BYTES {
        return Err(anyhow!("{}: longer than 1 MiB", path.display()));
    }
    String::from_utf8(bytes.to_vec()).map_err(|_| anyhow!("{}: not UTF-8", path.display()))
}
