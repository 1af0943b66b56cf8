//! Which host guests are evaluated for.

use std::borrow::Cow;
use std::path::Path;
use std::sync::OnceLock;

use anyhow::{Context, Result, anyhow, bail};
use iova_preflight::Subject;
#[cfg(feature = "libvirt")]
use iova_preflight::host::Networks;
use iova_preflight::host::{self, BUILTIN, FirmwareFile, Host, Iommu, Profile};
use iova_preflight::io::detect::detect_for_any_guest;
use iova_preflight::io::file::read_file_limited;
use iova_preflight::io::{firmware, networks, pci};

/// The longest profile that is read, in bytes.
const MAX_PROFILE_BYTES: usize = 1024 * 1024;

/// The host that guests are evaluated for.
pub(crate) struct HostSource {
    /// For the JSON document.
    pub name: String,
    /// For people: which host, and why.
    pub notice: String,
    profile: Profile,
    /// Whether guests get devices and firmware of this host; its firmware, once a guest needs it.
    here: Option<OnceLock<Vec<FirmwareFile>>>,
}

/// The least memory, in bytes, with which firmware may lose BARs of a guest without a passthrough device: it takes those
/// of a map that ends beyond 768 GiB, or that may grow so far.
const LARGE: u64 = 512 << 30;

impl HostSource {
    /// This host, whatever it has.
    pub fn this() -> Self {
        Self::detected(detect_for_any_guest(Path::new("/")).profile)
    }

    fn detected(profile: Profile) -> Self {
        let here = Some(OnceLock::new());
        Self { name: "this host".to_owned(), notice: "host: this host".to_owned(), profile, here }
    }

    /// A host that only libvirt tells of.
    #[cfg(feature = "libvirt")]
    pub fn told(uri: &str, host: Host) -> Self {
        let notice = format!("host: as {uri} describes it");
        Self { name: uri.to_owned(), notice, profile: host.into(), here: None }
    }

    /// The host in a profile, or this one.
    pub fn choose(wanted: Option<&Path>) -> Result<Self> {
        if let Some(wanted) = wanted {
            let name = wanted.display().to_string();
            if let Some(mut host) = wanted.to_str().and_then(host::builtin) {
                // It stands for a kind of host, and the guests may well be those of this one.
                host.networks = networks::defined(Path::new("/"));
                let notice = format!("host: built-in profile {name}");
                return Ok(Self { notice, name, profile: host.into(), here: None });
            }
            let names: Vec<&str> = BUILTIN.iter().map(|builtin| builtin.name).collect();
            let bytes = read_file_limited(wanted, MAX_PROFILE_BYTES)
                .with_context(|| format!("host profile {name}: neither a file nor one of {}", names.join(", ")))?;
            if bytes.len() > MAX_PROFILE_BYTES {
                bail!("{name}: longer than 1 MiB");
            }
            let text = String::from_utf8(bytes).map_err(|_| anyhow!("{name}: not UTF-8"))?;
            let profile = Profile::from_toml(&text).map_err(|error| anyhow!("{name}:{error}"))?;
            return Ok(Self { notice: format!("host: profile {name}"), name, profile, here: None });
        }
        let this = detect_for_any_guest(Path::new("/")).profile;
        if this.host.iommu == Some(Iommu::Amd) {
            return Ok(Self::detected(this));
        }
        let name = "amd-epyc";
        let mut host = host::builtin(name).ok_or_else(|| anyhow!("no built-in profile {name}"))?;
        host.networks = this.host.networks;
        let notice =
            format!("host: built-in profile {name}, as this host has no AMD IOMMU at work (--host chooses another)");
        Ok(Self { name: name.to_owned(), notice, profile: host.into(), here: Some(OnceLock::new()) })
    }

    /// The same host with the networks that libvirt tells of.
    #[cfg(feature = "libvirt")]
    pub fn with_networks(mut self, networks: Networks) -> Self {
        self.profile.host.networks = networks;
        self
    }

    /// The host as a guest sees it that names no emulator, without what only some guests need.
    pub fn host(&self) -> Host {
        self.profile.host_for(None).into_owned()
    }

    /// The host as this guest sees it.
    pub fn host_of<'g>(&self, guest: impl Into<Subject<'g>>) -> Cow<'_, Host> {
        let guest = guest.into();
        let mut host = self.profile.host_for(guest.emulator());
        let Some(firmwares) = &self.here else { return host };
        let (root, passthrough) = (Path::new("/"), guest.passthrough());
        if passthrough.is_empty() && guest.most_memory() < LARGE {
            return host;
        }
        let functions =
            passthrough.iter().filter_map(|device| Some((device.device.clone(), pci::function(root, &device.device)?)));
        let installed = || firmware::installed(root).into_iter().map(|found| found.firmware).collect();
        let seen = host.to_mut();
        seen.pci.extend(functions);
        seen.firmwares.clone_from(firmwares.get_or_init(installed));
        host
    }
}
