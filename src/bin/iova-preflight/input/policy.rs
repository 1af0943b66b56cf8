//! The operator's policy.

use std::path::Path;

use anyhow::{Result, anyhow};
use iova_preflight::io::policy::{self, PolicyFileError};
use iova_preflight::policy::Policy;

/// The policy in a file, or the default one.
pub(crate) fn read_policy(path: Option<&Path>) -> Result<Policy> {
    let Some(path) = path else { return Ok(Policy::default()) };
    let name = path.display();
    policy::read(path).map_err(|error| match error {
        PolicyFileError::Unreadable(error) => anyhow!(error).context(format!("policy {name}")),
        error => anyhow!("{name}:{error}"),
    })
}
