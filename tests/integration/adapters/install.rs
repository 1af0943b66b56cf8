//! `iova-preflight adapter NAME install|uninstall|status` below a root folder of the test's own.

use super::{PROGRAM, write_program};
use crate::common::work_dir;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The command, where its script goes, and the folder that says that the orchestrator is there.
const SCRIPTS: [(&str, &[&str], &str, &str); 6] = [
    ("vdsm", &[], "usr/libexec/vdsm/hooks/before_vm_start/50_iova_preflight", "usr/libexec/vdsm"),
    ("kubevirt", &[], "usr/bin/onDefineDomain", ""),
    ("cloudstack", &[], "etc/cloudstack/agent/hooks/libvirt-vm-xml-transformer.groovy", "etc/cloudstack/agent"),
    ("cloudstack", &["--shell"], "etc/cloudstack/agent/hooks/libvirt-vm-xml-transformer.sh", "etc/cloudstack/agent"),
    ("opennebula", &[], "var/lib/one/remotes/vmm/kvm/deploy", "var/lib/one/remotes/vmm/kvm"),
    ("proxmox", &[], "var/lib/vz/snippets/iova-preflight", "etc/pve"),
];

const DEPLOY: &str = "#!/bin/bash\n# OpenNebula's own\ncat > $1\n";

/// A host with every orchestrator.
struct Root(PathBuf);

impl Root {
    fn new(test: &str) -> Self {
        let root = Self(work_dir(&format!("adapters-install-{test}")));
        for (_, _, _, needs) in SCRIPTS {
            fs::create_dir_all(root.path(needs)).expect("its folder");
        }
        write_program(&root.path("var/lib/one/remotes/vmm/kvm/deploy"), DEPLOY);
        write_program(&root.path("usr/bin/iova-preflight"), "#!/bin/sh\n");
        root
    }

    fn path(&self, below: &str) -> PathBuf {
        self.0.join(below)
    }

    fn read(&self, below: &str) -> String {
        fs::read_to_string(self.path(below)).unwrap_or_default()
    }

    fn adapter(&self, name: &str, words: &[&str]) -> (i32, String) {
        let output = Command::new(PROGRAM)
            .args(["adapter", name])
            .args(words)
            .args(["--root".as_ref(), self.0.as_os_str()])
            .output()
            .expect("runs");
        let text = [output.stdout, output.stderr].concat();
        (output.status.code().expect("a status"), String::from_utf8(text).expect("UTF-8"))
    }

    /// Every file with its mode and content.
    fn files(&self) -> Vec<(PathBuf, u32, Vec<u8>)> {
        let mut found = Vec::new();
        walk(&self.0, &mut found);
        found.sort();
        found
    }
}

fn walk(folder: &Path, found: &mut Vec<(PathBuf, u32, Vec<u8>)>) {
    for entry in fs::read_dir(folder).expect("readable").map(|entry| entry.expect("an entry").path()) {
        if entry.is_dir() {
            walk(&entry, found);
        } else {
            let mode = entry.metadata().expect("it is there").permissions().mode();
            found.push((entry.clone(), mode, fs::read(&entry).expect("readable")));
        }
    }
}

#[test]
fn installs_twice_and_leaves_nothing_behind() {
    for (name, options, path, _) in SCRIPTS {
        let root = Root::new("twice");
        let before = root.files();
        assert_eq!(root.adapter(name, &["status"]).0, 1, "{name}");
        let install = [&["install"], options].concat();
        let (status, text) = root.adapter(name, &install);
        assert!(status == 0 && text.contains(path), "{text}");
        let script = root.read(path);
        assert!(script.contains("/usr/bin/iova-preflight"), "{script}");
        let mode = root.path(path).metadata().expect("it is there").permissions().mode();
        assert_eq!(mode & 0o7777, 0o755);
        let (status, text) = root.adapter(name, &["status"]);
        assert!(status == 0 && !text.contains("FAIL"), "{name}: {text}");
        let installed = root.files();
        let (status, text) = root.adapter(name, &install);
        assert!(status == 0 && text.contains("already installed"), "{text}");
        assert_eq!(root.files(), installed);
        assert_eq!(root.adapter(name, &["uninstall"]).0, 0);
        assert_eq!(root.files(), before, "{name}");
        let (status, text) = root.adapter(name, &["uninstall"]);
        assert!(status == 0 && text.contains("not installed"), "{text}");
    }
}

#[test]
fn a_script_of_another_version_is_renewed() {
    for (name, options, path, _) in SCRIPTS {
        let root = Root::new("renewed");
        let install = [&["install"], options].concat();
        root.adapter(name, &install);
        let script = root.read(path);
        write_program(&root.path(path), &(script.clone() + "\n"));
        let (status, text) = root.adapter(name, &["status"]);
        assert!(status == 0 && text.contains("another version"), "{text}");
        assert_eq!(root.adapter(name, &install).0, 0);
        assert_eq!(root.read(path), script);
        // Another program takes the place of the one before.
        assert_eq!(root.adapter(name, &[&install[..], &["--program", "/opt/iova-preflight"]].concat()).0, 0);
        assert!(root.read(path).contains("/opt/iova-preflight"));
        let (status, text) = root.adapter(name, &["status"]);
        assert_eq!(status, i32::from(name != "opennebula"), "{text}");
    }
}

#[test]
fn foreign_files_are_never_touched() {
    let foreign = "#!/bin/sh\n# runs iova-preflight adapter, too\nexit 0\n";
    for (name, options, path, _) in SCRIPTS.into_iter().filter(|(name, ..)| *name != "opennebula") {
        let root = Root::new("foreign");
        write_program(&root.path(path), foreign);
        let before = root.files();
        let (status, text) = root.adapter(name, &[&["install"], options].concat());
        assert!(status == 2 && text.contains("is not changed"), "{text}");
        assert_eq!(root.adapter(name, &["uninstall"]).0, 0);
        let (status, text) = root.adapter(name, &["status"]);
        assert!(status == 1 && text.contains("is not our script"), "{text}");
        assert_eq!(root.files(), before);
        // Nor is a link followed, wherever it leads.
        fs::remove_file(root.path(path)).expect("removed");
        std::os::unix::fs::symlink("/etc/hostname", root.path(path)).expect("a link");
        assert_eq!(root.adapter(name, &[&["install"], options].concat()).0, 2);
        assert!(root.path(path).is_symlink());
    }
}

#[test]
fn no_adapter_runs_a_program_that_others_can_change() {
    for (name, options, path, _) in SCRIPTS {
        let root = Root::new("changeable");
        root.adapter(name, &[&["install"], options].concat());
        fs::set_permissions(root.path("usr/bin"), fs::Permissions::from_mode(0o777)).expect("its mode");
        let (status, text) = root.adapter(name, &["status"]);
        assert!(status == 1 && text.contains("can be changed by users other"), "{text}");
        let installed = root.read(path);
        let program = ["--program", "/usr/bin/../bin/iova-preflight"];
        let (status, text) = root.adapter(name, &[&["install"], options, &program].concat());
        assert!(status == 2 && text.contains("can be changed by users other"), "{text}");
        assert_eq!(root.read(path), installed);
    }
}

#[test]
fn without_the_orchestrator_nothing_is_installed() {
    for (name, options, path, needs) in SCRIPTS.into_iter().filter(|(.., needs)| !needs.is_empty()) {
        let root = Root::new("elsewhere");
        fs::remove_dir_all(root.path(needs)).expect("removed");
        let (status, text) = root.adapter(name, &[&["install"], options].concat());
        assert!(status == 2 && text.contains("does not exist"), "{text}");
        assert!(!root.path(path).exists());
    }
}

#[test]
fn only_one_script_of_cloudstack_is_run() {
    let root = Root::new("cloudstack");
    let [groovy, shell] = [SCRIPTS[2].2, SCRIPTS[3].2];
    for (options, there, gone) in [(&["install"][..], groovy, shell), (&["install", "--shell"], shell, groovy)] {
        assert_eq!(root.adapter("cloudstack", options).0, 0);
        assert!(root.path(there).is_file() && !root.path(gone).exists());
    }
    // That of somebody else stays, and is run first.
    write_program(&root.path(groovy), "// another\n");
    assert_eq!(root.adapter("cloudstack", &["install", "--shell"]).0, 0);
    assert_eq!(root.read(groovy), "// another\n");
    assert_eq!(root.adapter("vdsm", &["install", "--shell"]).0, 2);
}

#[test]
fn an_upgrade_of_opennebula_is_followed_by_the_same_command() {
    let root = Root::new("opennebula");
    let (deploy, kept) = ("var/lib/one/remotes/vmm/kvm/deploy", "var/lib/one/remotes/vmm/kvm/deploy.one");
    let is_root = std::os::unix::fs::chown(root.path(deploy), Some(9869), Some(9869)).is_ok();
    assert_eq!(root.adapter("opennebula", &["install"]).0, 0);
    assert_eq!(root.read(kept), DEPLOY);
    let ours = root.read(deploy);
    if is_root {
        use std::os::unix::fs::MetadataExt;
        assert_eq!(root.path(deploy).metadata().expect("it is there").uid(), 9869, "oneadmin's");
    }
    // The package replaces its file.
    let newer = DEPLOY.replace("own", "newer one");
    write_program(&root.path(deploy), &newer);
    let (status, text) = root.adapter("opennebula", &["status"]);
    assert!(status == 1 && text.contains("not installed"), "{text}");
    assert_eq!(root.adapter("opennebula", &["uninstall"]).0, 0);
    assert_eq!((root.read(deploy), root.read(kept)), (newer.clone(), DEPLOY.to_owned()));
    assert_eq!(root.adapter("opennebula", &["install"]).0, 0);
    assert_eq!((root.read(deploy), root.read(kept)), (ours.clone(), newer.clone()));
    assert_eq!(root.adapter("opennebula", &["uninstall"]).0, 0);
    assert!(root.read(deploy) == newer && !root.path(kept).exists());
    // Somebody else's script in front of the original.
    let other = "#!/bin/sh\nexec \"$(dirname \"$0\")/deploy.one\"\n";
    write_program(&root.path(deploy), other);
    write_program(&root.path(kept), &newer);
    let (status, text) = root.adapter("opennebula", &["install"]);
    assert!(status == 2 && text.contains("is not changed"), "{text}");
    assert_eq!((root.read(deploy), root.read(kept)), (other.to_owned(), newer));
    // Ours without the original: nothing could be started.
    write_program(&root.path(deploy), &ours);
    fs::remove_file(root.path(kept)).expect("removed");
    assert_eq!(root.adapter("opennebula", &["status"]).0, 1);
    assert_eq!(root.adapter("opennebula", &["uninstall"]).0, 2);
    let (status, text) = root.adapter("opennebula", &["install"]);
    assert!(status == 2 && text.contains("OpenNebula's own deploy from its package"), "{text}");
    assert_eq!(root.read(deploy), ours);
}

#[test]
fn a_foreign_backup_of_deploy_is_not_overwritten() {
    let (deploy, kept) = ("var/lib/one/remotes/vmm/kvm/deploy", "var/lib/one/remotes/vmm/kvm/deploy.one");
    let root = Root::new("opennebula-kept");
    let refused = |root: &Root| {
        let before = root.files();
        let (status, text) = root.adapter("opennebula", &["install"]);
        assert!(status == 2 && text.contains("deploy.one is not our script and is not changed"), "{text}");
        assert_eq!(root.files(), before);
    };
    write_program(&root.path(kept), "#!/bin/sh\n# a site's own\n");
    refused(&root);
    fs::remove_file(root.path(kept)).expect("removed");
    std::os::unix::fs::symlink("elsewhere", root.path(kept)).expect("a link");
    let (status, text) = root.adapter("opennebula", &["install"]);
    assert!(status == 2 && root.path(kept).is_symlink(), "{text}");
    // An installation that was interrupted.
    fs::remove_file(root.path(kept)).expect("removed");
    fs::set_permissions(root.path(deploy), fs::Permissions::from_mode(0o750)).expect("its mode");
    fs::hard_link(root.path(deploy), root.path(kept)).expect("a link");
    let (status, text) = root.adapter("opennebula", &["install"]);
    assert_eq!(status, 0, "{text}");
    for path in [deploy, kept] {
        let mode = root.path(path).metadata().expect("it is there").permissions().mode();
        assert_eq!(mode & 0o7777, 0o750, "{path}");
    }
    // What was kept is changed by somebody, and then OpenNebula is upgraded.
    write_program(&root.path(kept), &(DEPLOY.to_owned() + "# changed\n"));
    fs::remove_file(root.path(deploy)).expect("removed");
    write_program(&root.path(deploy), &(DEPLOY.to_owned() + "# newer\n"));
    refused(&root);
}

#[test]
fn folders_that_are_made_are_everybodys_to_read() {
    for (name, options, path, _) in SCRIPTS {
        let root = Root::new("umask");
        let mut command = Command::new("sh");
        command.args(["-c", "umask 077; exec \"$@\"", "sh", PROGRAM, "adapter", name, "install"]).args(options);
        let output = command.arg("--root").arg(&root.0).output().expect("runs");
        assert!(output.status.success(), "{output:?}");
        let mode = |path: &Path| path.metadata().expect("it is there").permissions().mode() & 0o7777;
        assert_eq!(mode(&root.path(path)), 0o755);
        let mut folder = root.path(path);
        while folder.pop() && folder != root.0 {
            assert_eq!(mode(&folder) & 0o005, 0o005, "{}", folder.display());
        }
    }
}

/// VDSM, which lists the folder of its hooks, is user 36.
#[test]
fn status_fails_where_vdsm_cannot_see_the_hook() {
    let root = Root::new("unseen");
    assert_eq!(root.adapter("vdsm", &["install"]).0, 0);
    let hook = root.path(SCRIPTS[0].2);
    for path in [hook.parent().expect("a folder"), &hook] {
        let set = |mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("its mode");
        set(0o700);
        let (status, text) = root.adapter("vdsm", &["status"]);
        assert!(status == 1 && text.contains("cannot be read by VDSM"), "{text}");
        set(0o755);
        assert_eq!(root.adapter("vdsm", &["status"]).0, 0);
    }
}

/// Proxmox VE 9: `exec_hookscript` dies if the script is not there, so that the VM does not start.
#[test]
fn a_hookscript_that_vms_name_is_not_removed() {
    let hook = "var/lib/vz/snippets/iova-preflight";
    let root = Root::new("named");
    let named = "memory: 1228800\nhookscript: local:snippets/iova-preflight\n";
    for (node, vm, text) in [
        ("pve1", "104.conf", named),
        ("pve2", "1105.conf", named),
        ("pve2", "106.conf", "memory: 1228800\nhookscript: local:snippets/other.pl\n"),
        ("pve2", "107.conf", "memory: 1228800\n\n[before]\nhookscript: local:snippets/iova-preflight\n"),
        ("pve2", "108.conf.tmp", named),
    ] {
        let folder = root.path("etc/pve/nodes").join(node).join("qemu-server");
        fs::create_dir_all(&folder).expect("a folder");
        fs::write(folder.join(vm), text).expect("a configuration");
    }
    let link = root.path("etc/pve/qemu-server");
    std::os::unix::fs::symlink("nodes/pve1/qemu-server", &link).expect("a link");
    let (status, text) = root.adapter("proxmox", &["status"]);
    assert!(status == 1 && text.contains("do not start without it: 104, 1105"), "{text}");
    assert_eq!(root.adapter("proxmox", &["install"]).0, 0);
    let before = root.read(hook);
    let (status, text) = root.adapter("proxmox", &["uninstall"]);
    let commands = "on pve1: qm set 104 --delete hookscript\non pve2: qm set 1105 --delete hookscript\n";
    assert!(status == 2 && text.starts_with(commands), "{text}");
    assert!(text.contains("is not removed") && !text.contains("106") && !text.contains("107"), "{text}");
    assert_eq!(root.read(hook), before);
    // Only the link of the node itself.
    fs::remove_file(&link).expect("removed");
    fs::rename(root.path("etc/pve/nodes/pve1/qemu-server"), &link).expect("renamed");
    fs::remove_dir_all(root.path("etc/pve/nodes")).expect("removed");
    let (status, text) = root.adapter("proxmox", &["uninstall"]);
    assert!(status == 2 && text.starts_with("qm set 104 --delete hookscript\n"), "{text}");
    fs::write(link.join("104.conf"), "memory: 1228800\n").expect("written");
    let (status, text) = root.adapter("proxmox", &["uninstall"]);
    assert!(status == 0 && text.contains("removed ") && !root.path(hook).exists(), "{text}");
}

#[test]
fn uninstall_says_what_is_left_to_do() {
    for (name, expected) in [
        ("cloudstack", "`systemctl restart cloudstack-agent`"),
        (
            "opennebula",
            "deploy is OpenNebula's own script again\nto remove it from the hosts, run `onehost sync --force`",
        ),
    ] {
        let root = Root::new("removal");
        assert_eq!(root.adapter(name, &["install"]).0, 0);
        let (status, text) = root.adapter(name, &["uninstall"]);
        assert!(status == 0 && text.contains(expected), "{text}");
    }
}

#[test]
fn status_says_that_no_iommu_is_at_work() {
    for (name, options, ..) in SCRIPTS {
        let root = Root::new("no-iommu");
        root.adapter(name, &[&["install"], options].concat());
        let says = |root: &Root| root.adapter(name, &["status"]).1.contains("no IOMMU is active on this host");
        assert_eq!(says(&root), !["kubevirt", "opennebula"].contains(&name), "{name}");
        let group = root.path("sys/kernel/iommu_groups/0");
        fs::create_dir_all(&group).expect("a folder");
        fs::write(group.join("reserved_regions"), "0x000000fd00000000 0x000000ffffffffff reserved\n").expect("written");
        assert!(!says(&root), "{name}");
    }
}
