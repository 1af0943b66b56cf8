//! What is reported of a guest that is to move.

use schemars::JsonSchema;
use serde::Serialize;

use crate::migration::{Migration, Obstacle};
use crate::report::json::LocationReport;
use crate::report::source::GuestSource;

/// A migration from one host to another. The guest's `verdict` and all that belongs to it are of a start on the
/// destination, which is its `host`.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Migration")]
pub struct MigrationReport {
    /// The host that the guest runs on, as `from` names it.
    from: String,
    /// `migrates`: it moves and could be started there; `cannot-start`: it moves, and does not start there once it is off;
    /// `refused`: it stays where it is; `breaks`: it moves, and its memory map or its CPU is another one afterwards;
    /// `not-applicable`. There may come more.
    outcome: &'static str,
    /// What keeps it where it is, or breaks it; what comes first is what the migration fails with.
    obstacles: Vec<ObstacleReport>,
    /// What that depends on, and what is good to know, a sentence each.
    notes: Vec<String>,
}

/// What keeps a guest where it is, or breaks it.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Obstacle")]
struct ObstacleReport {
    /// On which host that is: `source` or `destination`.
    side: &'static str,
    /// The rule that says the same of a start; null for what only concerns a migration.
    rule: Option<&'static str>,
    /// What is wrong, and why, in one line.
    message: String,
    location: LocationReport,
}

impl MigrationReport {
    /// What is reported of a guest that runs on `from`; `running` is what that was read from.
    pub fn new(migration: &Migration, from: &str, running: GuestSource<'_>) -> Self {
        let obstacle = |obstacle: &Obstacle| ObstacleReport {
            side: obstacle.side.name(),
            rule: obstacle.rule,
            message: obstacle.message(),
            location: running.location(obstacle.primary.span.start).into(),
        };
        Self {
            from: from.to_owned(),
            outcome: migration.outcome.name(),
            obstacles: migration.obstacles.iter().map(obstacle).collect(),
            notes: migration.notes.clone(),
        }
    }
}
