//! Which policy guests are evaluated and fixed under.

use std::io;
use std::path::Path;

use anyhow::{Result, anyhow};
use iova_preflight::io::policy::{self, PATH, PolicyFileError, path_below, read_operators};
use iova_preflight::policy::Policy;

use crate::stderr;

/// What `--policy` takes for the default policy.
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
    /// The policy in the file `wanted`, the default one if that is `none`, or else the operator's, if there is one that
    /// this user can read.
    pub fn choose(wanted: Option<&Path>) -> Result<Self> {
        if wanted == Some(Path::new(NONE)) {
            return Ok(Self::default());
        }
        let path = wanted.unwrap_or(Path::new(PATH));
        let read = match wanted {
            Some(wanted) => policy::read(wanted).map(Some),
            None => read_below(Path::new("/")),
        };
        match read {
            Ok(policy) => Ok(policy.map(|policy| Self::new(policy, path)).unwrap_or_default()),
            Err(PolicyFileError::Unreadable(error))
                if wanted.is_none() && error.kind() == io::ErrorKind::PermissionDenied =>
            {
                stderr::line(&format!(
                    "warning: policy {PATH}: {error}; using the built-in defaults, as with --policy none"
                ));
                Ok(Self::default())
            }
            Err(error) => Err(explained(error, path)),
        }
    }

    fn new(policy: Policy, path: &Path) -> Self {
        let differences = policy.differences();
        if differences.is_empty() {
            return Self { policy, ..Self::default() };
        }
        let file = path.display().to_string();
        let notice = format!("policy: {file}: {}", differences.join(", "));
        Self { policy, file: Some(file), notice: Some(notice) }
    }
}

/// The operator's policy on the system below `root`; `None` if there is none.
pub(crate) fn operators_policy(root: &Path) -> Result<Option<Policy>> {
    read_below(root).map_err(|error| explained(error, &path_below(root)))
}

fn read_below(root: &Path) -> Result<Option<Policy>, PolicyFileError> {
    read_operators(root)?.map(|bytes| policy::parse(&bytes)).transpose()
}

fn explained(error: PolicyFileError, path: &Path) -> anyhow::Error {
    let name = path.display();
    match error {
        PolicyFileError::Unreadable(error) => anyhow!(error).context(format!("policy {name}")),
        error => anyhow!("{name}:{error}"),
    }
}
