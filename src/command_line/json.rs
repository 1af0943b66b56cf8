//! Options as JSON: `-device {…}`, `-object {…}`.

use serde_json::Value;

use super::words::{Argument, Pair};

/// The members of the object in an argument, those of objects inside with their path as key; `None` where it is not an
/// object.
pub(super) fn pairs(argument: &Argument<'_>) -> Option<Vec<Pair>> {
    let Ok(Value::Object(members)) = serde_json::from_str(argument.text) else { return None };
    let mut pairs = Vec::new();
    let mut open: Vec<(String, Value)> = members.into_iter().rev().collect();
    while let Some((key, value)) = open.pop() {
        let value = match value {
            Value::Object(members) => {
                open.extend(members.into_iter().rev().map(|(name, value)| (format!("{key}.{name}"), value)));
                continue;
            }
            Value::Bool(on) => if on { "on" } else { "off" }.to_owned(),
            Value::String(text) => text,
            Value::Number(number) => number.to_string(),
            // Nothing that counts is a list.
            Value::Null | Value::Array(_) => continue,
        };
        pairs.push(Pair { key, value, origin: argument.origin });
    }
    Some(pairs)
}
