//! The metrics that `watch --metrics` writes about real guests.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use super::watcher::Watcher;
use super::world::World;
use crate::common::guest::Guest;
use crate::common::validators::Validators;
use crate::common::wait_for;

const REWRITE: &str = "exempt = ['left']\n[watch]\nrewrite = true\n";

/// A folder of the world's that the node exporter would read.
struct Collector {
    folder: PathBuf,
    file: PathBuf,
}

impl Collector {
    fn new(world: &World) -> Self {
        let folder = world.path("/run/node-exporter");
        std::fs::create_dir_all(&folder).expect("made");
        Self { file: folder.join("iova-preflight.prom"), folder }
    }

    fn watch<'a>(&self, world: &'a World, policy: &str) -> Watcher<'a> {
        Watcher::start_with(world, policy, &["--metrics", "/run/node-exporter/iova-preflight.prom"])
    }

    fn text(&self) -> String {
        std::fs::read_to_string(&self.file).unwrap_or_default()
    }

    /// The value of a sample of the libvirt that is watched.
    fn value(&self, name: &str, label: &str) -> Option<f64> {
        let sample = format!("iova_preflight_{name}{{uri=\"qemu:///system\"{label}}} ");
        self.text().lines().find_map(|line| line.strip_prefix(&sample)?.parse().ok())
    }

    fn guests(&self, verdict: &str) -> Option<f64> {
        self.value("guests", &format!(",verdict=\"{verdict}\""))
    }

    fn left_alone(&self, reason: &str) -> Option<f64> {
        self.value("guests_left_alone", &format!(",reason=\"{reason}\""))
    }
}

fn broken(name: &str) -> Guest {
    Guest::huge(name, "pc-q35-6.2").with_hostdev().with_uuid()
}

#[test]
fn metrics_count_every_guest() {
    let Some(world) = World::new("watch-metrics") else { return };
    let collector = Collector::new(&world);
    let instance = "<nova:instance xmlns:nova='http://openstack.org/xmlns/libvirt/nova/1.1'/>";
    let begin = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock").as_secs_f64();
    world.define_all(&[
        broken("a"),
        broken("b"),
        broken("left"),
        broken("owned").with_metadata(instance),
        Guest::small("small").with_uuid(),
    ]);
    let watcher = collector.watch(&world, REWRITE);
    watcher.wait_until_told("READY=1");
    wait_for("both to be evaluated once more", || collector.guests("pass") == Some(3.0));
    let counts = ["pass", "warn", "fixable", "blocked", "not-applicable", "error"].map(|name| collector.guests(name));
    assert_eq!(counts, [3.0, 0.0, 1.0, 0.0, 0.0, 0.0].map(Some), "{}", collector.text());
    let reasons = ["exempt", "owner", "policy", "unknown-fact", "repeated", "failed"];
    let counts = reasons.map(|reason| collector.left_alone(reason));
    assert_eq!(counts, [1.0, 1.0, 0.0, 0.0, 0.0, 0.0].map(Some), "{}", collector.text());
    assert_eq!(collector.value("redefinitions_total", ""), Some(2.0));
    assert_eq!(collector.value("libvirt_up", ""), Some(1.0));
    let last = collector.value("last_evaluation_timestamp_seconds", "").expect("a time");
    assert!(last > begin && last < begin + 3600.0, "{last} {begin}");

    // Any user can read it, as the exporter may run as any, and nothing else is left in its folder.
    let mode = std::fs::metadata(&collector.file).expect("the file").permissions().mode();
    assert_eq!(mode & 0o7777, 0o644);
    let names: Vec<_> = std::fs::read_dir(&collector.folder).expect("listed").flatten().collect();
    assert_eq!(names.len(), 1, "{names:?}");
    if let Some(validators) = Validators::install() {
        validators.assert_metrics(&collector.file);
    }

    let stamp = || collector.value("last_evaluation_timestamp_seconds", "");
    world.define(&Guest::small("another").with_uuid());
    wait_for("the next evaluation", || collector.guests("pass") == Some(4.0) && stamp() > Some(last));
    world.virsh(&["undefine", "another"]).expect_ok();
    wait_for("it to be gone", || collector.guests("pass") == Some(3.0));
    world.kill_libvirtd();
    wait_for("libvirt to be missed", || collector.value("libvirt_up", "") == Some(0.0));
    assert_eq!(collector.guests("pass"), Some(3.0), "what was last known of the guests is still there");
    world.start_libvirtd();
    wait_for("libvirt to be back", || collector.value("libvirt_up", "") == Some(1.0));
    let (_, status) = watcher.stop();
    assert_eq!((status, collector.value("libvirt_up", "")), (Some(0), Some(0.0)), "{}", collector.text());
}

/// Failing metrics must not stop the service.
#[test]
fn metrics_that_cannot_be_written_stop_nothing() {
    let Some(world) = World::new("watch-no-metrics") else { return };
    let collector = Collector::new(&world);
    std::fs::remove_dir(&collector.folder).expect("removed");
    let watcher = collector.watch(&world, "[watch]\nrewrite = true\n");
    watcher.wait_until_told("READY=1");
    world.define(&broken("a"));
    watcher.wait_until_said(&["guest a is redefined"]);
    assert_eq!(watcher.count(&["<3>metrics: /run/node-exporter/iova-preflight.prom: No such file"]), 1);
    // Once the folder exists, the file is written; a link of another user is not followed.
    let others = world.path("/run/others");
    std::fs::create_dir(&others).expect("made");
    std::os::unix::fs::symlink("others", &collector.folder).expect("a link");
    std::os::unix::fs::lchown(&collector.folder, Some(65534), None).expect("given away");
    world.define(&broken("b"));
    watcher.wait_until_said(&["<3>metrics", "is a symbolic link of user 65534"]);
    assert_eq!(std::fs::read_dir(&others).expect("listed").count(), 0);
    std::fs::remove_file(&collector.folder).expect("removed");
    std::fs::create_dir(&collector.folder).expect("made");
    world.define(&broken("c"));
    wait_for("the file", || collector.guests("pass") == Some(3.0));
    let (_, status) = watcher.stop();
    assert_eq!(status, Some(0));
}
