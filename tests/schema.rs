//! The JSON schema of `check --format json`.

mod common;

use common::generated;

#[test]
fn the_committed_schema_is_that_of_the_types() {
    let mut text = serde_json::to_string_pretty(&iova_preflight::report::json::schema()).expect("JSON");
    text.push('\n');
    generated("docs/check.schema.json", &text);
}
