//! Which policy guests are evaluated and fixed under.

use std::io;
use std::path::Path;

use anyhow::{Context, Result, anyhow};
use iova_preflight::io::file::read_file_limited;
use iova_preflight::io::policy_file::{self, MAX_BYTES, POLICY, parse};
use iova_preflight::policy::Policy;

use crate::output::stderr;

/// What `--policy` takes for no policy at all.
const NONE: &str = "none";

/// A policy and where it comes from.
#[derive(Debug, Default)]
pub(crate) struct ChosenPolicy {
    /// What it allows.
    pub policy: Policy,
    /// The file, if it differs from the defaults in what counts for an evaluation.
    pub file: Option<String>,
    /// For people: the same, and how it differs.
    pub notice: Option<String>,
}

impl ChosenPolicy {
    fn new(policy: Policy, file: String) -> Self {
        let differences = policy.differences();
        if differences.is_empty() {
            return Self { policy, ..Self::default() };
        }
        let notice = format!("policy: {file}: {}", differences.join(", "));
        Self { policy, file: Some(file), notice: Some(notice) }
    }

    /// The policy in the file `wanted`, no policy if that is `none`, or else the operator's, if there is one that this
    /// user can read.
    pub fn choose(wanted: Option<&Path>) -> Result<Self> {
        match wanted {
            Some(wanted) if wanted == Path::new(NONE) => Ok(Self::default()),
            Some(wanted) => Ok(Self::new(read_policy(wanted)?, wanted.display().to_string())),
            None => match operators(Path::new("/")) {
                Ok(policy) => Ok(policy.map_or_else(Self::default, |policy| Self::new(policy, POLICY.to_owned()))),
                Err(error) if is_denied(&error) => {
                    stderr::line(&format!(
                        "warning: {error:#}; using the default policy (`--policy none` does so without this warning)"
                    ));
                    Ok(Self::default())
                }
                Err(error) => Err(error),
            },
        }
    }
}

/// The operator's policy in the system below `root`; `None` if there is none.
pub(crate) fn operators(root: &Path) -> Result<Option<Policy>> {
    let shown = policy_file::path(root).display().to_string();
    let bytes = policy_file::read(root).with_context(|| format!("policy {shown}"))?;
    bytes.map(|bytes| parse(bytes, &shown).map_err(|error| anyhow!(error))).transpose()
}

/// The policy in a file that somebody named.
fn read_policy(path: &Path) -> Result<Policy> {
    let shown = path.display().to_string();
    let bytes = read_file_limited(path, MAX_BYTES).with_context(|| format!("policy {shown}"))?;
    parse(bytes, &shown).map_err(|error| anyhow!(error))
}

fn is_denied(error: &anyhow::Error) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::PermissionDenied)
}
