//! libvirt's virtual networks, read from where its network driver keeps their definitions.

use std::path::Path;

use super::file::{open_regular, read_found, read_limited};
use crate::host::{Networks, read_network};
use crate::xml::{Document, MAX_BYTES};

/// Where libvirt's network driver keeps definitions, below the root folder (`virNetworkLoadAllConfigs`).
const NETWORKS: &str = "etc/libvirt/qemu/networks";

/// The networks defined on the host whose root folder is `root`; none if they cannot be read. Only what libvirt can
/// have written counts, see [`super::file::open_found`].
pub fn defined(root: &Path) -> Networks {
    read_all(&root.join(NETWORKS), |path| read_found(path, MAX_BYTES).ok())
}

/// The networks in the folder `networks` next to a domain's file, as in a copy of `/etc/libvirt/qemu`, with any owner.
pub fn beside(domain: &Path) -> Networks {
    let folder = domain.parent().unwrap_or(Path::new("")).join("networks");
    read_all(&folder, |path| read_limited(open_regular(path, libc::O_NOFOLLOW).ok()?, MAX_BYTES).ok())
}

/// Files that are not networks are passed over.
fn read_all(folder: &Path, read: impl Fn(&Path) -> Option<Vec<u8>>) -> Networks {
    let files = std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    files
        .filter(|path| path.extension().is_some_and(|extension| extension == "xml"))
        .filter_map(|path| read_network(&Document::parse(&read(&path)?).ok()?))
        .collect()
}
