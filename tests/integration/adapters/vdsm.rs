//! oVirt: `before_vm_start` as VDSM's `lib/vdsm/common/hooks.py` runs it.

use super::*;
use std::os::unix::fs::{MetadataExt, PermissionsExt};

const HOOK: &str = "usr/libexec/vdsm/hooks/before_vm_start/50_iova_preflight";

/// A call of VDSM's: no arguments, nothing on standard input, the file with the domain in the environment.
struct Vdsm<'h> {
    host: &'h Host,
    hook: String,
    environment: Vec<(&'static str, &'static str)>,
}

impl<'h> Vdsm<'h> {
    fn new(host: &'h Host, hook: impl Into<String>) -> Self {
        Self { host, hook: hook.into(), environment: vec![("vmId", "c0ffee00-0000-4000-8000-000000000001")] }
    }

    fn with(mut self, name: &'static str, value: &'static str) -> Self {
        self.environment.push((name, value));
        self
    }

    /// The hook's output and what VDSM reads back.
    fn call(&self, xml: &[u8]) -> (Output, Vec<u8>) {
        // tempfile.mkstemp(): only for its owner.
        let file = self.host.folder.join("tmp8f3k2x");
        std::fs::write(&file, xml).expect("the domain");
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).expect("its mode");
        std::os::unix::fs::chown(&file, Some(36), Some(36)).expect("vdsm:kvm");
        let mut command = self.host.namespace.command("env");
        command.arg(format!("_hook_domxml={}", file.display())).arg("PYTHONPATH=:/usr/share/vdsm/hook");
        command.args(self.environment.iter().map(|(name, value)| format!("{name}={value}")));
        if self.hook == PROGRAM {
            command.args([PROGRAM, "adapter", "vdsm"]);
        } else {
            command.arg(&self.hook);
        }
        let output = run(&mut command);
        let metadata = file.metadata().expect("it is there");
        let kept = (metadata.mode() & 0o7777, metadata.uid(), metadata.gid());
        assert_eq!(kept, (0o600, 36, 36), "the file is another one's");
        (output, std::fs::read(&file).expect("it can be read"))
    }
}

#[test]
fn a_vm_passes_is_rewritten_or_stopped() {
    let Some(host) = Host::new("vdsm") else { return };
    std::fs::create_dir_all(host.folder.join("usr/libexec/vdsm")).expect("VDSM");
    let hook = host.install(&["vdsm", "install"], HOOK, PROGRAM).display().to_string();
    for hook in [PROGRAM.to_owned(), hook] {
        let vdsm = Vdsm::new(&host, hook);
        host.set_policy("");
        let (output, after) = vdsm.call(fine().as_bytes());
        assert_ended(&output, "", "", 0);
        assert_eq!(after, fine().as_bytes());

        let (output, after) = vdsm.call(fixable().as_bytes());
        assert_ended(&output, "", "", 0);
        assert_eq!(String::from_utf8_lossy(&after), fixed());

        host.set_policy(NO_FIX);
        let (output, after) = vdsm.call(fixable().as_bytes());
        assert_eq!((output.status.code(), &output.stdout[..]), (Some(2), &b""[..]));
        let line = assert_block_line(&output.stderr);
        assert!(line.contains("guest db: ") && line.contains(CAUSE) && line.contains("no automatic fix"), "{line}");
        assert_eq!(after, fixable().as_bytes());
        // Every other file that was made is gone.
        let left = std::fs::read_dir(&host.folder).expect("the folder").flatten();
        let left: Vec<_> = left.map(|entry| entry.file_name()).filter(|name| name != "usr").collect();
        assert_eq!(left, ["tmp8f3k2x"]);
    }
}

/// A VM may be left alone, and one that is restored from saved memory can neither be changed nor must it be stopped.
#[test]
fn a_vm_can_be_left_alone() {
    let Some(host) = Host::new("vdsm-opt-out") else { return };
    for policy in ["", NO_FIX, "on_internal_error = 'block'\n"] {
        host.set_policy(policy);
        let left_alone = |vdsm: Vdsm<'_>, xml: &str| {
            let (output, after) = vdsm.call(xml.as_bytes());
            assert_ended(&output, "", "", 0);
            assert_eq!(after, xml.as_bytes());
        };
        left_alone(Vdsm::new(&host, PROGRAM).with("iova_preflight", "off"), &fixable());
        // A cold start, of which VDSM notes the flags first, and not the restored one beside it.
        host.namespace.write("/run/vdsm/c0ffee00-0000-4000-8000-000000000001/launchflags", "0");
        let (output, _) = Vdsm::new(&host, PROGRAM).with("iova_preflight", "on").call(fixable().as_bytes());
        assert_eq!(output.status.code(), Some(if policy == NO_FIX { 2 } else { 0 }));
        let restored = Vdsm::new(&host, PROGRAM).with("vmId", "c0ffee00-0000-4000-8000-000000000002");
        left_alone(restored, &fixable());
        std::fs::remove_dir_all(host.namespace.path("/run/vdsm")).expect("removed");
    }
}

#[test]
fn its_own_failures_stop_no_vm_unless_the_policy_says_so() {
    let Some(host) = Host::new("vdsm-failures") else { return };
    std::fs::create_dir_all(host.folder.join("usr/libexec/vdsm")).expect("VDSM");
    let hook = host.install(&["vdsm", "install"], HOOK, PROGRAM).display().to_string();
    let not_utf8 = [fixable().as_bytes(), b"<!-- \xff -->"].concat();
    for hook in [PROGRAM.to_owned(), hook] {
        let vdsm = Vdsm::new(&host, hook);
        for (policy, status) in [("", 0), ("on_internal_error = 'block'\n", 2)] {
            host.set_policy(policy);
            for xml in BROKEN.iter().map(|xml| xml.as_bytes()).chain([&not_utf8[..]]) {
                host.log.lines();
                let (output, after) = vdsm.call(xml);
                assert_eq!((output.status.code(), &output.stdout[..]), (Some(status), &b""[..]));
                assert_eq!(after, xml);
                if status == 0 {
                    assert_ended(&output, "", "", 0);
                } else {
                    assert!(assert_block_line(&output.stderr).contains("internal error: domain XML"));
                }
                let lines = host.log.lines();
                assert!(matches!(&lines[..], [line] if line.contains("internal error: domain XML")), "{lines:?}");
                assert!(lines[0].contains("VM c0ffee00-0000-4000-8000-000000000001"), "{lines:?}");
            }
        }
        host.set_policy("modes = 1\n");
        let (output, after) = vdsm.call(fixable().as_bytes());
        assert_ended(&output, "", "", 0);
        assert_eq!(after, fixable().as_bytes());
        host.set_policy("on_internal_error = 'block'\nmodes = 1\n");
        let (output, _) = vdsm.call(fixable().as_bytes());
        assert_eq!(output.status.code(), Some(2));
        assert!(assert_block_line(&output.stderr).contains("policy.toml:2:1"));
    }
    // A policy that cannot be read could even say `off`.
    let policy = host.namespace.path("/etc/iova-preflight/policy.toml");
    std::fs::remove_file(&policy).expect("it is there");
    std::fs::create_dir(&policy).expect("a folder in its place");
    let (output, after) = Vdsm::new(&host, PROGRAM).call(fixable().as_bytes());
    assert_ended(&output, "", "", 0);
    assert_eq!(after, fixable().as_bytes());
    std::fs::remove_dir(&policy).expect("it is there");
    host.set_policy(NO_FIX);
    for program in host.broken_programs() {
        let hook = host.install(&["vdsm", "install"], HOOK, &program).display().to_string();
        let (output, after) = Vdsm::new(&host, hook).call(fixable().as_bytes());
        assert_ended(&output, "", "", 0);
        assert_eq!(after, fixable().as_bytes(), "{program}");
    }
    // Without the file there is nothing to look at.
    let output = run(host.namespace.command(PROGRAM).args(["adapter", "vdsm"]));
    assert_ended(&output, "", "", 0);
}
