//! What VDSM passes to a hook besides the domain.

use std::path::{Path, PathBuf};

/// The VM custom property that exempts a VM, and its value. It is an environment variable of the hook.
const PROPERTY: (&str, &str) = ("iova_preflight", "off");

/// The file with the domain XML (`_runHooksDir` in VDSM's `lib/vdsm/common/hooks.py`).
pub(super) fn domain_file() -> Option<PathBuf> {
    std::env::var_os("_hook_domxml").map(PathBuf::from)
}

/// The id of the VM (`_runHooksDir`, too).
pub(super) fn vm() -> Option<String> {
    std::env::var("vmId").ok()
}

/// Whether the VM is exempt, or cannot be changed and must not be stopped.
pub(super) fn is_left_alone() -> bool {
    std::env::var(PROPERTY.0).is_ok_and(|value| value == PROPERTY.1) || is_restored(Path::new("/run/vdsm"))
}

/// Whether the VM is restored from memory that was saved. VDSM runs the same hooks then, with XML that is not used, and an
/// error stops it all the same. Only for a cold start it writes the flags of that into a file first (`_run` in
/// `lib/vdsm/virt/vm.py`, `dump_vm_launch_flags_to_file` in `lib/vdsm/common/hooks.py`, since VDSM 4.18).
fn is_restored(run: &Path) -> bool {
    let id = vm().unwrap_or_default();
    let is_id = !id.is_empty() && id.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-');
    is_id && run.is_dir() && matches!(run.join(id).join("launchflags").try_exists(), Ok(false))
}
