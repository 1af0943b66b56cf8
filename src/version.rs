//! Versions of QEMU, libvirt and the kernel.

use std::str::FromStr;

/// A version: major, minor and micro number. What a distribution appends is left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version {
    /// Major number.
    pub major: u32,
    /// Minor number.
    pub minor: u32,
    /// Micro number; 0 if it is not given.
    pub micro: u32,
}

impl Version {
    /// The version `major.minor.0`.
    pub const fn new(major: u32, minor: u32) -> Self {
        Self { major, minor, micro: 0 }
    }

    /// From the number in libvirt's capability cache and API: `major * 1000000 + minor * 1000 + micro`.
    pub fn from_libvirt_number(number: u32) -> Self {
        Self { major: number / 1_000_000, minor: number / 1000 % 1000, micro: number % 1000 }
    }
}

/// A text does not begin with `major.minor`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a version such as 7.2 or 7.2.22")]
pub struct VersionError(String);

impl FromStr for Version {
    type Err = VersionError;

    /// Reads `7.2`, `7.2.22`, `6.1.0-28-amd64`, `8.2.2-0ubuntu1`.
    fn from_str(text: &str) -> Result<Self, VersionError> {
        let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
        let mut numbers = text[..end].split('.').map(str::parse::<u32>);
        match (numbers.next(), numbers.next(), numbers.next()) {
            (Some(Ok(major)), Some(Ok(minor)), micro) => {
                Ok(Self { major, minor, micro: micro.and_then(Result::ok).unwrap_or(0) })
            }
            _ => Err(VersionError(crate::text::quoted(text))),
        }
    }
}

impl std::fmt::Display for Version {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.micro)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_distributions_write() {
        for (text, version) in [
            ("7.2", (7, 2, 0)),
            ("7.2.22", (7, 2, 22)),
            ("6.1.0-28-amd64", (6, 1, 0)),
            ("8.2.2-0ubuntu1.16", (8, 2, 2)),
            ("6.12.48+deb13", (6, 12, 48)),
        ] {
            let (major, minor, micro) = version;
            assert_eq!(text.parse(), Ok(Version { major, minor, micro }), "{text}");
        }
        for text in ["", "7", "x.y", "-1.2", "99999999999.0"] {
            assert!(text.parse::<Version>().is_err(), "{text}");
        }
    }

    #[test]
    fn libvirt_packs_versions_in_thousands() {
        assert_eq!(Version::from_libvirt_number(7_002_022), Version { major: 7, minor: 2, micro: 22 });
    }
}
