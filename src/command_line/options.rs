//! `-device`, `-global` and the properties they set.

use std::borrow::Cow;

use super::Origin;
use super::value::{number, size};

/// A property and its value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Property {
    /// The name.
    pub name: Cow<'static, str>,
    /// The value as it is written on a command line.
    pub value: String,
    /// Where it comes from.
    pub origin: Origin,
}

impl Property {
    /// The value as a number.
    pub fn number(&self) -> Option<u64> {
        number(&self.value)
    }

    /// The value as a size in bytes.
    pub fn size(&self) -> Option<u64> {
        size(&self.value, 1)
    }
}

/// Properties in the order QEMU sets them: of two with one name, the last counts.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Properties(Vec<Property>);

impl Properties {
    /// None.
    pub const fn new() -> Self {
        Self(Vec::new())
    }

    /// Sets a property after all others.
    pub fn set(&mut self, name: impl Into<Cow<'static, str>>, value: impl ToString, origin: Origin) {
        self.0.push(Property { name: name.into(), value: value.to_string(), origin });
    }

    /// The property called `name`.
    pub fn get(&self, name: &str) -> Option<&Property> {
        self.0.iter().rev().find(|property| property.name == name)
    }

    /// The value of the property called `name`.
    pub fn value(&self, name: &str) -> Option<&str> {
        self.get(name).map(|property| property.value.as_str())
    }

    /// Takes the property called `name` away.
    pub fn remove(&mut self, name: &str) {
        self.0.retain(|property| property.name != name);
    }

    /// All of them, in order.
    pub fn iter(&self) -> impl Iterator<Item = &Property> {
        self.0.iter()
    }
}

/// A `-device`, or a device on the host's side: a `-netdev`, a `-blockdev`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    /// `driver`, or `type` of a `-netdev`.
    pub driver: Cow<'static, str>,
    /// `id`.
    pub id: Option<String>,
    /// Everything else.
    pub properties: Properties,
    /// Where it comes from.
    pub origin: Origin,
    /// Whether it was given as `key=value`; `-set` does not find others.
    pub settable: bool,
}

/// A `-global`: a property of every object of a class.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Global {
    /// The class, or one that it is derived from.
    pub driver: Cow<'static, str>,
    /// The property.
    pub property: Property,
}
