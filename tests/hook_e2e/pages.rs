//! The commands that the pages of `explain` name, and the README's fix by hand, on a real libvirtd.

use iova_preflight::rules::RULES;
use iova_preflight::rules::page::Block;

use super::world::World;
use crate::common::guest::Guest;

/// The commands of a page, block by block.
fn commands(blocks: &'static [Block]) -> impl Iterator<Item = &'static str> {
    blocks.iter().filter_map(|block| if let Block::Shell(commands) = block { Some(*commands) } else { None })
}

/// The lines of a block that libvirt, QEMU or this machine answers; the others need a device or a guest's inside.
fn answered(commands: &'static str) -> Vec<&'static str> {
    let programs = ["virsh ", "sed ", "grep ", "qemu-system-x86_64 -machine help"];
    commands.lines().filter(|line| programs.iter().any(|program| line.starts_with(program))).collect()
}

#[test]
fn the_commands_of_the_pages_work() {
    let Some(world) = World::without_hook("pages") else { return };
    world.start_daemons();
    let guest = Guest::with_dimm_in_hole("NAME");
    world.define(&guest);
    std::fs::write(world.files().join("guest.xml"), guest.xml()).expect("write the domain");
    let network = "<network><name>NETWORK</name><forward mode='hostdev'><pf dev='eth0'/></forward></network>";
    let file = world.files().join("network.xml");
    std::fs::write(&file, network).expect("write the network");
    world.virsh(&["net-define", file.to_str().expect("UTF-8")]).expect_ok();
    let background = include_str!("../../docs/background.md").split("```sh\n").skip(1);
    let background: Vec<_> = background.filter_map(|block| block.split("```").next()).collect();
    let pages = RULES.iter().map(|rule| (rule.id, commands(rule.page.fix).chain(commands(rule.page.verify)).collect()));
    let mut ran = 0;
    for (page, blocks) in pages.chain([("background", background)]) {
        for block in blocks {
            let lines = answered(block);
            if lines.iter().any(|line| line.starts_with("virsh start")) && world.state("NAME") != "shut off" {
                world.virsh(&["destroy", "NAME"]).expect_ok();
            } else if lines.iter().any(|line| line.contains("qemu-monitor-command") || line.contains("NAME.log"))
                && world.qemu("NAME").is_none()
            {
                world.start("NAME").expect_ok();
            }
            for line in lines {
                let script = format!("set -o pipefail; cd '{}'; {line}", world.files().display());
                let run = world.command("bash", &["-c", &script]);
                assert!(run.ok, "{page}: {line}: {run:?}");
                let printed = run.expect_ok();
                assert!(line.contains(" > ") || !printed.trim().is_empty(), "{page}: {line} prints nothing");
                assert!(!printed.contains("\"error\""), "{page}: {line} prints {printed}");
                ran += 1;
            }
        }
    }
    assert!(ran >= 40, "{ran} commands");
}

/// The guest that the hook stops starts after the README's change of machine type and address bits, with its RAM above 1 TiB.
#[test]
fn the_fix_by_hand_of_the_readme_starts() {
    let Some(world) = World::new("by-hand") else { return };
    let readme = include_str!("../../README.md");
    let between = |start: &str, end: &str| {
        let (_, rest) = readme.split_once(start).unwrap_or_else(|| panic!("{start}"));
        rest.split_once(end).expect("the end").0
    };
    let bits = format!(
        "<cpu mode='custom' check='none'><model>EPYC</model><maxphysaddr{}</cpu>",
        between("  <maxphysaddr", "\n")
    );
    let machine = between("machine='", "'");
    world.define(&Guest::huge("by-hand", "pc-q35-6.2").with_hostdev());
    world.start("by-hand").expect_error();
    world.virsh(&["undefine", "by-hand"]).expect_ok();
    // The function of the host is one that is not there, so that the guest that starts has none.
    world.define(&Guest::huge("by-hand", machine).with_cpu(&bits));
    world.start("by-hand").expect_ok();
    let tree = world.monitor("by-hand", "info mtree -f");
    assert!(tree.contains("0000010000000000-"), "{tree}");
}
