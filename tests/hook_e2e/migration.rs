//! A guest that moves from one libvirtd to another.

use std::path::PathBuf;

use serde_json::Value;

use super::real_map;
use super::start::assert_stopped;
use super::world::{Reply, World};
use crate::common::guest::Guest;

/// Moves the guest; virsh talks to both sides, and QEMU to QEMU through a socket file that both see.
fn migrate(name: &str, from: &World, to: &World) -> Reply {
    let socket = to.files().join("migration");
    let _ = std::fs::remove_file(&socket);
    from.virsh(&["migrate", "--live", "--persistent", name, to.uri(), &format!("unix://{}", socket.display())])
}

#[test]
fn the_destination_decides() {
    let Some(source) = World::new("source") else { return };
    let Some(destination) = World::new("destination") else { return };
    destination.add_recorder("qemu.d/10-recorder");
    source.define_and_start(&Guest::with_dimm_in_hole("db")).expect_ok();
    let qemu = source.qemu("db").expect("QEMU runs");

    destination.set_policy("passthrough = 'assume'\n");
    let error = assert_stopped(migrate("db", &source, &destination), "db", "migrate");
    assert!(error.contains("a migrated or restored guest cannot be rewritten"), "{error}");
    assert_eq!(source.state("db"), "paused");
    assert_eq!(source.qemu("db"), Some(qemu), "the guest is not the one that was to move");
    assert_eq!(destination.qemu("db"), None);

    destination.set_policy("");
    migrate("db", &source, &destination).expect_ok();
    assert_eq!(source.qemu("db"), None);
    assert_eq!(destination.state("db"), "paused");
    real_map::assert_dimm_at(&destination, "db", 0xfd_0000_0000);
    let operations = destination.operations("10-recorder", "db");
    assert_eq!(operations.iter().filter(|operation| *operation == "migrate begin").count(), 2, "{operations:?}");
}

/// Physical address bits of the host that has few of them.
const FEW_BITS: u32 = 42;

/// A machine type that this host's libvirt does not know.
const LACKING: &str = "pc-q35-6.1";

/// A host that guests move from and to, and its profile.
struct Host {
    world: World,
    profile: PathBuf,
}

impl Host {
    /// One whose IOMMU reserves the HyperTransport range.
    fn reserving(name: &str) -> Option<Self> {
        Some(Self::described(World::new(name)?, |profile| profile))
    }

    /// One whose IOMMU reserves nothing but the MSI window.
    fn free(name: &str) -> Option<Self> {
        let world = World::new(name)?;
        world.write("/sys/kernel/iommu_groups/0/reserved_regions", MSI);
        Some(Self::described(world, |profile| profile))
    }

    /// One with an Intel IOMMU of 39 bits, few physical address bits, and no [`LACKING`].
    fn narrow(name: &str) -> Option<Self> {
        let world = World::new(name)?;
        world.write("/sys/kernel/iommu_groups/0/reserved_regions", MSI);
        world.command("rmdir", &["/sys/class/iommu/ivhd0"]).expect_ok();
        // MGAW is 39 bits, SAGAW tables of three levels (VT-d specification 4.1, section 11.4.2).
        world.write("/sys/class/iommu/dmar0/intel-iommu/cap", "260200\n");
        world.forget_machine(LACKING);
        // Where libvirt reads the bits; QEMU and the hook ask the CPU.
        let cpus = std::fs::read_to_string("/proc/cpuinfo").expect("/proc/cpuinfo");
        let lines = cpus.lines().map(|line| match line.split_once(':') {
            Some((key, _)) if key.trim() == "address sizes" => {
                format!("{key}: {FEW_BITS} bits physical, 48 bits virtual\n")
            }
            _ => format!("{line}\n"),
        });
        world.write("/run/cpuinfo", &lines.collect::<String>());
        world.command("mount", &["--bind", "/run/cpuinfo", "/proc/cpuinfo"]).expect_ok();
        world.restart_libvirtd();
        // It looks at the host's CPU when somebody asks.
        world.virsh(&["capabilities"]).expect_ok();
        let told = |profile: String| {
            let few = |line: &str| match line.starts_with("phys_bits = ") {
                true => format!("phys_bits = {FEW_BITS}\n"),
                false => format!("{line}\n"),
            };
            profile.lines().map(few).collect()
        };
        Some(Self::described(world, told))
    }

    fn described(world: World, told: impl FnOnce(String) -> String) -> Self {
        let profile = world.files().join("host.toml");
        std::fs::write(&profile, told(world.tool(&["host"]).expect_ok())).expect("write the profile");
        Self { world, profile }
    }

    /// What `check` predicts of a guest that runs here and moves; `inputs` are its other arguments.
    fn predicted(&self, to: &Self, policy: &str, inputs: &[&str]) -> Value {
        let file = self.world.files().join("policy.toml");
        std::fs::write(&file, policy).expect("write the policy");
        let paths = [&self.profile, &to.profile, &file].map(|path| path.to_str().expect("UTF-8"));
        let options = ["check", "--from", paths[0], "--to", paths[1], "--policy", paths[2], "--format", "json"];
        let printed = self.world.tool(&[&options, inputs].concat());
        let document: Value = serde_json::from_str(&printed.stdout).unwrap_or_else(|e| panic!("{e}: {printed:?}"));
        let guest = document["guests"][0].clone();
        assert_eq!(printed.ok, guest["migration"]["outcome"] == "migrates", "{printed:?}");
        guest
    }
}

const MSI: &str = "0x00000000fee00000 0x00000000feefffff msi\n";

/// Who keeps a guest from moving.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum By {
    Hook,
    Libvirt,
}

/// Between hosts whose IOMMUs, machine types and address bits differ, both ways: the prediction is what happens.
#[test]
fn what_is_predicted_of_a_migration_is_what_happens() {
    let (Some(reserving), Some(free), Some(narrow)) =
        (Host::reserving("reserving"), Host::free("free"), Host::narrow("narrow"))
    else {
        return;
    };
    const ASSUME: &str = "passthrough = 'assume'\n";
    let in_hole = Guest::with_dimm_in_hole;
    let high = Guest::with_dimm_above_39_bits;
    let small = Guest::small;
    for (name, guest, from, to, policy, refused) in [
        ("plain-there", small("plain-there"), &free, &reserving, "", None),
        ("plain-back", small("plain-back"), &reserving, &free, ASSUME, None),
        ("hole-unused", in_hole("hole-unused"), &free, &reserving, "", None),
        (
            "hole-there",
            in_hole("hole-there"),
            &free,
            &reserving,
            ASSUME,
            Some((By::Hook, "memory-device-in-reserved-range")),
        ),
        ("hole-back", in_hole("hole-back"), &reserving, &free, ASSUME, None),
        ("high-there", high("high-there"), &free, &narrow, ASSUME, Some((By::Hook, "ram-above-iommu-width"))),
        ("high-back", high("high-back"), &narrow, &free, ASSUME, None),
        (
            "type-there",
            small("type-there").with_machine(LACKING),
            &free,
            &narrow,
            "",
            Some((By::Libvirt, "machine-type-not-available")),
        ),
        ("type-back", small("type-back").with_machine("pc-q35-6.0"), &narrow, &free, "", None),
        (
            "bits-there",
            small("bits-there").with_phys_bits(FEW_BITS + 1),
            &free,
            &narrow,
            "",
            Some((By::Libvirt, "phys-bits-above-host")),
        ),
        ("bits-back", small("bits-back").with_phys_bits(FEW_BITS), &narrow, &free, "", None),
        ("alias", small("alias").with_machine("q35"), &reserving, &narrow, ASSUME, None),
    ] {
        // It runs before the policy is as strict as it will be.
        from.world.set_policy("");
        from.world.define_and_start(&guest).expect_ok();
        let xml = from.world.files().join(format!("{name}-running.xml"));
        std::fs::write(&xml, from.world.virsh(&["dumpxml", name]).expect_ok()).expect("write the domain");
        let predicted = from.predicted(to, policy, &[xml.to_str().expect("UTF-8")]);
        to.world.set_policy(policy);
        let real = migrate(name, &from.world, &to.world);
        let migration = &predicted["migration"];
        match refused {
            None => {
                assert_eq!(migration["outcome"], "migrates", "{name}: {predicted:#}");
                real.expect_ok();
                assert_eq!(to.world.state(name), "paused", "{name}");
                to.world.virsh(&["destroy", name]).expect_ok();
            }
            Some((by, rule)) => {
                let first = &migration["obstacles"][0];
                assert_eq!(
                    (&migration["outcome"], &first["rule"]),
                    (&"refused".into(), &rule.into()),
                    "{name}: {predicted:#}"
                );
                assert_eq!(first["side"], "destination", "{name}: {predicted:#}");
                match by {
                    By::Hook => _ = assert_stopped(real, name, "migrate"),
                    By::Libvirt => {
                        let error = real.expect_error();
                        let said = ["does not support machine type", "number of virtual CPU address bits"];
                        assert!(said.iter().any(|said| error.contains(said)), "{name}: {error}");
                    }
                }
                assert_eq!(from.world.state(name), "paused", "{name}");
                from.world.virsh(&["destroy", name]).expect_ok();
            }
        }
    }
}

/// A device that a guest gives back before it moves is still in its definition.
#[cfg(feature = "libvirt")]
#[test]
fn a_guest_that_migrates_and_cannot_start_is_told_apart() {
    let (Some(reserving), Some(free)) = (Host::reserving("cannot-start"), Host::free("can-start")) else { return };
    let runs = Guest::small("db").with_uuid();
    free.world.define_and_start(&runs).expect_ok();
    free.world.define(&Guest::huge("db", "pc-q35-6.2").with_uuid().with_hostdev());
    let predicted = free.predicted(&reserving, "", &["--connect", "qemu:///system", "--domain", "db"]);
    let migration = &predicted["migration"];
    assert_eq!(migration["outcome"], "cannot-start", "{predicted:#}");
    assert_eq!((&predicted["verdict"], &migration["obstacles"]), (&"fixable".into(), &serde_json::json!([])));
    migrate("db", &free.world, &reserving.world).expect_ok();
    assert_eq!(reserving.world.state("db"), "paused");
    reserving.world.virsh(&["destroy", "db"]).expect_ok();
    let error = assert_stopped(reserving.world.start("db"), "db", "prepare");
    assert!(error.contains("HyperTransport"), "{error}");
}
