//! What the watch service knows of its guests, as metrics for Prometheus.
//!
//! The form is the "Text-based format" of Prometheus' page "Exposition formats", version 0.0.4. Names, units and labels
//! follow its pages "Metric and label naming" and "Writing exporters".

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use crate::verdict::Verdict;

/// Why a guest is not rewritten although a rewrite would help, or might.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum LeftAlone {
    /// `exempt` in the policy names it; it is not evaluated.
    Exempt,
    /// An orchestrator writes its definition anew at each start.
    Owner,
    /// The policy does not say `rewrite = true`.
    Policy,
    /// Whether the rewrite helps depends on a fact that is unknown.
    UnknownFact,
    /// It was rewritten so often that something must be restoring the old definition.
    Repeated,
    /// The rewrite failed or would lose saved state.
    Failed,
}

impl LeftAlone {
    const ALL: [Self; 6] = [Self::Exempt, Self::Owner, Self::Policy, Self::UnknownFact, Self::Repeated, Self::Failed];

    /// The value of the label `reason`.
    fn name(self) -> &'static str {
        match self {
            Self::Exempt => "exempt",
            Self::Owner => "owner",
            Self::Policy => "policy",
            Self::UnknownFact => "unknown-fact",
            Self::Repeated => "repeated",
            Self::Failed => "failed",
        }
    }
}

/// How many guests there are of each kind. A kind missing in a map counts 0.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tally {
    /// Those that have a definition, whether or not they were evaluated yet.
    pub guests: usize,
    /// By verdict, those that were evaluated.
    pub verdicts: BTreeMap<Verdict, usize>,
    /// Those whose definition could not be read or evaluated.
    pub errors: usize,
    /// Those that are left alone, by reason.
    pub left_alone: BTreeMap<LeftAlone, usize>,
}

impl Tally {
    /// How many guests have this verdict.
    pub fn of(&self, verdict: Verdict) -> usize {
        self.verdicts.get(&verdict).copied().unwrap_or(0)
    }
}

/// The state of the service at one moment.
#[derive(Debug, Clone)]
pub struct WatchMetrics<'a> {
    /// The watched libvirt, which tells the metrics of several services apart.
    pub uri: &'a str,
    /// Whether there is a connection to it.
    pub is_connected: bool,
    /// Its guests.
    pub tally: &'a Tally,
    /// How many definitions were rewritten since the service was started.
    pub redefinitions: u64,
    /// When a guest was last evaluated, or a libvirt found to have none, as the time since 1970-01-01 00:00 UTC; `None` if
    /// that was not yet.
    pub last_evaluation: Option<Duration>,
}

impl WatchMetrics<'_> {
    /// The metrics as the content of a file for the node exporter's textfile collector. Every label value is present
    /// from the start, as 0: an alert cannot compare with a missing one.
    pub fn to_text(&self) -> String {
        let mut text = Text { text: String::new(), uri: escaped(self.uri) };
        let version = format!("version=\"{}\"", escaped(env!("CARGO_PKG_VERSION")));
        text.family("build_info", "gauge", "Version of iova-preflight that writes these metrics; always 1.");
        text.sample("build_info", &version, 1);
        text.family("libvirt_up", "gauge", "Whether the watch service is connected to libvirt.");
        text.sample("libvirt_up", "", u8::from(self.is_connected));
        text.family("guests", "gauge", "Defined guests that were evaluated, by verdict.");
        let verdicts =
            [Verdict::Pass, Verdict::Warn, Verdict::Fixable, Verdict::Blocked, Verdict::NotApplicable].into_iter();
        let counts = verdicts.map(|verdict| (verdict.name(), self.tally.of(verdict)));
        for (verdict, count) in counts.chain([("error", self.tally.errors)]) {
            text.sample("guests", &format!("verdict=\"{verdict}\""), count);
        }
        let help = "Defined guests that the watch service does not rewrite: exempt ones and fixable ones, by reason.";
        text.family("guests_left_alone", "gauge", help);
        for reason in LeftAlone::ALL {
            let count = self.tally.left_alone.get(&reason).copied().unwrap_or(0);
            text.sample("guests_left_alone", &format!("reason=\"{}\"", reason.name()), count);
        }
        let help = "Guests that were redefined with a fix since the watch service was started.";
        text.family("redefinitions_total", "counter", help);
        text.sample("redefinitions_total", "", self.redefinitions);
        if let Some(last) = self.last_evaluation {
            let help = "Unix time at which a guest was last evaluated, or libvirt last found to have none.";
            text.family("last_evaluation_timestamp_seconds", "gauge", help);
            let seconds = format!("{}.{:03}", last.as_secs(), last.subsec_millis());
            text.sample("last_evaluation_timestamp_seconds", "", seconds);
        }
        text.text
    }
}

/// A text in the exposition format.
struct Text {
    text: String,
    /// The value of the label `uri`, which every sample has.
    uri: String,
}

impl Text {
    /// Begins a metric. `help` has neither a backslash nor a line feed, which would have to be escaped.
    fn family(&mut self, name: &str, kind: &str, help: &str) {
        // Writing to a String cannot fail.
        let _ = writeln!(self.text, "# HELP iova_preflight_{name} {help}\n# TYPE iova_preflight_{name} {kind}");
    }

    fn sample(&mut self, name: &str, label: &str, value: impl std::fmt::Display) {
        let (comma, uri) = (if label.is_empty() { "" } else { "," }, &self.uri);
        let _ = writeln!(self.text, "iova_preflight_{name}{{uri=\"{uri}\"{comma}{label}}} {value}");
    }
}

/// A label value with `\`, `"` and line feeds escaped, which are all that the format asks for.
fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(uri: &str, last_evaluation: Option<Duration>) -> String {
        let tally = Tally {
            guests: 9,
            verdicts: BTreeMap::from([(Verdict::Pass, 5), (Verdict::Fixable, 2)]),
            errors: 1,
            left_alone: BTreeMap::from([(LeftAlone::Owner, 2), (LeftAlone::Exempt, 1)]),
        };
        WatchMetrics { uri, is_connected: true, tally: &tally, redefinitions: 7, last_evaluation }.to_text()
    }

    #[test]
    fn what_is_not_there_is_zero() {
        let text = text("qemu:///system", None);
        for line in [
            "iova_preflight_guests{uri=\"qemu:///system\",verdict=\"pass\"} 5",
            "iova_preflight_guests{uri=\"qemu:///system\",verdict=\"blocked\"} 0",
            "iova_preflight_guests{uri=\"qemu:///system\",verdict=\"error\"} 1",
            "iova_preflight_guests_left_alone{uri=\"qemu:///system\",reason=\"owner\"} 2",
            "iova_preflight_guests_left_alone{uri=\"qemu:///system\",reason=\"policy\"} 0",
            "iova_preflight_redefinitions_total{uri=\"qemu:///system\"} 7",
            "iova_preflight_libvirt_up{uri=\"qemu:///system\"} 1",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} in\n{text}");
        }
        // Nothing was evaluated yet: a 0 would be the year 1970.
        assert!(!text.contains("timestamp"), "{text}");
    }

    #[test]
    fn times_have_milliseconds() {
        let text = text("qemu:///system", Some(Duration::from_millis(1_790_000_000_042)));
        assert!(text.ends_with("timestamp_seconds{uri=\"qemu:///system\"} 1790000000.042\n"), "{text}");
    }

    /// The example of the page on exposition formats: `path="C:\\DIR\\FILE.TXT",error="Cannot find file:\n\"FILE.TXT\""`.
    #[test]
    fn label_values_are_escaped() {
        assert_eq!(escaped("C:\\DIR\\FILE.TXT"), r"C:\\DIR\\FILE.TXT");
        assert_eq!(escaped("Cannot find file:\n\"FILE.TXT\""), r#"Cannot find file:\n\"FILE.TXT\""#);
        let text = text("qemu:///system?socket=/run/\"a\\b\"\n", None);
        let samples: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
        let escaped = r#"{uri="qemu:///system?socket=/run/\"a\\b\"\n""#;
        assert!(samples.iter().all(|line| line.starts_with("iova_preflight_") && line.contains(escaped)), "{text}");
    }

    #[test]
    fn names_follow_the_conventions() {
        let text = text("qemu:///system", Some(Duration::from_secs(1)));
        let mut families = 0;
        for line in text.lines().filter_map(|line| line.strip_prefix("# TYPE ")) {
            let (name, kind) = line.split_once(' ').expect("a name and a type");
            families += 1;
            assert!(name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'), "{name}");
            assert_eq!(name.ends_with("_total"), kind == "counter", "{line}");
            assert_eq!(name.contains("timestamp"), name.ends_with("_timestamp_seconds"), "{line}");
            let help = text.lines().find_map(|line| line.strip_prefix(&format!("# HELP {name} "))).expect("help");
            assert!(help.ends_with('.') && !help.contains('\\'), "{help}");
        }
        assert_eq!(families, 6);
    }
}
