//! Which host guests are evaluated for.

use std::borrow::Cow;
use std::collections::HashSet;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
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
#[derive(Clone)]
pub(crate) struct HostSource {
    /// Where the facts come from, for the JSON document.
    pub name: String,
    /// The host's name among several.
    pub label: String,
    /// For people: which host, and why.
    pub notice: String,
    profile: Profile,
    /// Whether guests get devices and firmware of this host; its firmware, once a guest needs it.
    here: Option<OnceLock<Vec<FirmwareFile>>>,
}

/// The least memory, in bytes, with which firmware may lose BARs of a guest without a passthrough device: it takes
/// those of a map that ends beyond 768 GiB, or that may grow so far.
const LARGE: u64 = 512 << 30;

impl HostSource {
    /// The name of this host among others.
    pub const HERE: &str = "this host";

    /// This host, as detected.
    pub fn this() -> Self {
        Self::detected(detect_for_any_guest(Path::new("/")).profile)
    }

    fn detected(profile: Profile) -> Self {
        let here = Some(OnceLock::new());
        let name = Self::HERE.to_owned();
        Self { label: name.clone(), name, notice: "host: this host".to_owned(), profile, here }
    }

    /// A host known only from libvirt.
    #[cfg(feature = "libvirt")]
    pub fn told(uri: &str, host: Host) -> Self {
        let notice = format!("host: as {uri} describes it");
        Self { name: uri.to_owned(), label: uri.to_owned(), notice, profile: host.into(), here: None }
    }

    /// The host in a profile, or this one.
    pub fn choose(wanted: Option<&Path>) -> Result<Self> {
        if let Some(wanted) = wanted {
            return Self::in_profile(wanted);
        }
        let this = detect_for_any_guest(Path::new("/")).profile;
        if matches!(this.host.iommu, Some(Iommu::Amd | Iommu::Intel)) {
            return Ok(Self::detected(this));
        }
        let name = "amd-epyc";
        let mut host = host::builtin(name).ok_or_else(|| anyhow!("no built-in profile {name}"))?;
        host.networks = this.host.networks;
        let notice = format!(
            "host: built-in profile {name}, because no IOMMU is active on this host (choose another with \
                     --host)"
        );
        let (name, label) = (name.to_owned(), name.to_owned());
        Ok(Self { name, label, notice, profile: host.into(), here: Some(OnceLock::new()) })
    }

    /// The host in every profile of `wanted`, a folder being all that are in it; this host if nothing is wanted. Each
    /// is there once, and no two have the same label.
    ///
    /// # Errors
    /// A profile cannot be read, or a folder holds none.
    pub fn choose_all(wanted: &[PathBuf]) -> Result<Vec<Self>> {
        if wanted.is_empty() {
            return Ok(vec![Self::choose(None)?]);
        }
        let mut paths = Vec::new();
        for path in wanted {
            if path.is_dir() && builtin(path).is_none() {
                paths.extend(profiles_in(path)?);
            } else {
                paths.push(path.clone());
            }
        }
        let (mut seen, mut sources) = (Vec::new(), Vec::new());
        for path in paths {
            let file = if builtin(&path).is_some() { Ok(path.clone()) } else { path.canonicalize() };
            let file = file.unwrap_or_else(|_| path.clone());
            if !seen.contains(&file) {
                sources.push(Self::in_profile(&path)?);
                seen.push(file);
            }
        }
        let labels: Vec<String> = sources.iter().map(|source| source.label.clone()).collect();
        for source in &mut sources {
            if labels.iter().filter(|label| **label == source.label).count() > 1 {
                source.label.clone_from(&source.name);
            }
        }
        // Paths that differ only in what is not UTF-8, and a host that is named like a path, are still told apart.
        let mut taken = HashSet::new();
        for source in &mut sources {
            let label = source.label.clone();
            let mut nth = 1;
            while !taken.insert(source.label.clone()) {
                nth += 1;
                source.label = format!("{label} ({nth})");
            }
        }
        Ok(sources)
    }

    /// The host that guests run on, and those that they are to move to: every profile of `to`, but for the host itself.
    ///
    /// # Errors
    /// A profile cannot be read, `from` is a folder, or no other host is named.
    pub fn choose_journey(from: &Path, to: &[PathBuf]) -> Result<(Self, Vec<Self>)> {
        if from.is_dir() && builtin(from).is_none() {
            bail!("{}: a folder; --from takes one host", from.display());
        }
        let wanted: Vec<PathBuf> = std::iter::once(from.to_owned()).chain(to.iter().cloned()).collect();
        let mut hosts = Self::choose_all(&wanted)?.into_iter();
        let source = hosts.next().ok_or_else(|| anyhow!("no host"))?;
        let destinations: Vec<Self> = hosts.collect();
        if destinations.is_empty() {
            bail!("--to names no host but {}, where the guests run", source.label);
        }
        Ok((source, destinations))
    }

    fn in_profile(wanted: &Path) -> Result<Self> {
        let name = wanted.display().to_string();
        if let Some(mut host) = builtin(wanted) {
            // It describes a kind of host, and the guests may well belong to this one.
            host.networks = networks::defined(Path::new("/"));
            let notice = format!("host: built-in profile {name}");
            return Ok(Self { notice, label: name.clone(), name, profile: host.into(), here: None });
        }
        let names: Vec<&str> = BUILTIN.iter().map(|builtin| builtin.name).collect();
        let bytes = read_file_limited(wanted, MAX_PROFILE_BYTES)
            .with_context(|| format!("host profile {name}: neither a file nor one of {}", names.join(", ")))?;
        if bytes.len() > MAX_PROFILE_BYTES {
            bail!("{name}: longer than 1 MiB");
        }
        let text = String::from_utf8(bytes).map_err(|_| anyhow!("{name}: not UTF-8"))?;
        let profile = Profile::from_toml(&text).map_err(|error| anyhow!("{name}:{error}"))?;
        let label = profile.host.name.clone().filter(|name| !name.is_empty());
        let label = label.unwrap_or_else(|| wanted.file_stem().unwrap_or(wanted.as_os_str()).display().to_string());
        Ok(Self { notice: format!("host: profile {name}"), label, name, profile, here: None })
    }

    /// The name that the profile gives the host.
    #[cfg(feature = "libvirt")]
    pub fn host_name(&self) -> Option<&str> {
        self.profile.host.name.as_deref().filter(|name| !name.is_empty())
    }

    /// The same host with the networks that libvirt reports.
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

fn builtin(name: &Path) -> Option<Host> {
    host::builtin(name.to_str()?)
}

/// The profiles in a folder, sorted by name: what `*.toml` is for a shell.
fn profiles_in(folder: &Path) -> Result<Vec<PathBuf>> {
    let name = folder.display();
    let unreadable = || format!("host profiles {name}");
    let mut profiles = Vec::new();
    for entry in folder.read_dir().with_context(unreadable)? {
        let entry = entry.with_context(unreadable)?;
        let path = entry.path();
        let hidden = entry.file_name().as_bytes().starts_with(b".");
        if !hidden && path.extension() == Some(OsStr::new("toml")) && !path.is_dir() {
            // A pipe that nobody writes to would be waited for; what cannot be looked at fails when it is read.
            if path.metadata().is_ok_and(|metadata| !metadata.is_file()) {
                bail!("host profile {}: not a regular file", path.display());
            }
            profiles.push(path);
        }
    }
    if profiles.is_empty() {
        bail!("host profiles {name}: no *.toml in this folder");
    }
    profiles.sort();
    Ok(profiles)
}
