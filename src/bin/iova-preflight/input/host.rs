//! Which host guests are evaluated for.

use std::path::Path;

use anyhow::{Context, Result, anyhow, bail};
#[cfg(feature = "libvirt")]
use iova_preflight::host::Networks;
use iova_preflight::host::{self, BUILTIN, Host, Iommu, Profile};
use iova_preflight::io::detect::detect;
use iova_preflight::io::file::read_file_limited;
use iova_preflight::io::networks;

/// The longest profile that is read, in bytes.
const MAX_PROFILE_BYTES: usize = 1024 * 1024;

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
            if let Some(mut host) = wanted.to_str().and_then(host::builtin) {
                // It stands for a kind of host, and the guests may well be those of this one.
                host.networks = networks::defined(Path::new("/"));
                return Ok(Self { notice: format!("host: built-in profile {name}"), name, profile: host.into() });
            }
            let names: Vec<&str> = BUILTIN.iter().map(|builtin| builtin.name).collect();
            let bytes = read_file_limited(wanted, MAX_PROFILE_BYTES)
                .with_context(|| format!("host profile {name}: neither a file nor one of {}", names.join(", ")))?;
            if bytes.len() > MAX_PROFILE_BYTES {
                bail!("{name}: longer than 1 MiB");
            }
            let text = String::from_utf8(bytes).map_err(|_| anyhow!("{name}: not UTF-8"))?;
            let profile = Profile::from_toml(&text).map_err(|error| anyhow!("{name}:{error}"))?;
            return Ok(Self { notice: format!("host: profile {name}"), name, profile });
        }
        let this = detect(Path::new("/")).profile;
        if this.host.iommu == Some(Iommu::Amd) {
            return Ok(Self::detected(this));
        }
        let name = "amd-epyc";
        let mut host = host::builtin(name).ok_or_else(|| anyhow!("no built-in profile {name}"))?;
        host.networks = this.host.networks;
        let notice =
            format!("host: built-in profile {name}, as this host has no AMD IOMMU at work (--host chooses another)");
        Ok(Self { name: name.to_owned(), notice, profile: host.into() })
    }

    /// The same host with the networks that libvirt tells of.
    #[cfg(feature = "libvirt")]
    pub fn with_networks(mut self, networks: Networks) -> Self {
        self.profile.host.networks = networks;
        self
    }

    /// The host as a domain sees it that is run by `emulator`.
    pub fn host_for(&self, emulator: Option<&str>) -> Host {
        self.profile.host_for(emulator)
    }
}
