//! Files in libvirt's capability cache: only those that libvirt can have written count, and none blocks.

use std::io::Write;
use std::os::unix::fs::{chown, symlink};
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};

use crate::common::guest::Guest;
use crate::common::namespace::Namespace;
use crate::common::{end_of, skip, work_dir};

const CACHE: &str = "/var/cache/libvirt/qemu/capabilities";

/// A cache file of the QEMU that guests without `<emulator>` get, probed at this second, with these machine types.
fn cached(probed: u32, machines: &str) -> String {
    format!(
        "<qemuCaps>\n  <emulator>/usr/bin/qemu-system-x86_64</emulator>\n  <qemuctime>{probed}</qemuctime>\n  \
         <selfvers>9000000</selfvers>\n  <version>7002000</version>\n  <arch>x86_64</arch>\n{machines}</qemuCaps>\n"
    )
}

/// A machine whose libvirt has looked at a QEMU in which `q35` is an old type. `None` after saying that there is none.
fn machine(test: &str) -> Option<Namespace> {
    match Namespace::new(&work_dir(&format!("found-{test}")), None) {
        Ok(namespace) => {
            let machines =
                "  <machine type='kvm' name='pc-q35-6.2' alias='q35'/>\n  <machine type='kvm' name='pc-q35-7.2'/>\n";
            namespace.write(&format!("{CACHE}/a.xml"), cached(1_700_000_000, machines));
            Some(namespace)
        }
        Err(why) => {
            skip(&format!("found_files {test}: {why}"));
            None
        }
    }
}

fn path(machine: &Namespace, name: &str) -> PathBuf {
    machine.path(&format!("{CACHE}/{name}"))
}

/// Ends a program that takes so long that it must be waiting for something.
fn ended(mut child: Child) -> Output {
    end_of(&mut child);
    child.wait_with_output().expect("ended")
}

fn feed(command: &mut Command, guest: &Guest) -> Output {
    let command = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("runs");
    child.stdin.take().expect("a pipe").write_all(guest.xml().as_bytes()).expect("taken");
    ended(child)
}

/// Fails unless the hook and `check` stop the guest, which certainly does not start.
fn assert_stopped(machine: &Namespace, guest: &Guest) {
    let hook = feed(
        machine.command(env!("CARGO_BIN_EXE_iova-preflight-hook")).args([&guest.name, "prepare", "begin", "-"]),
        guest,
    );
    let said = String::from_utf8_lossy(&hook.stderr).into_owned();
    assert!(hook.status.code() == Some(1) && said.contains("HyperTransport"), "{}: {said}", hook.status);
    let check = feed(machine.command(env!("CARGO_BIN_EXE_iova-preflight")).args(["check", "-"]), guest);
    let said = String::from_utf8_lossy(&check.stdout).into_owned();
    assert!(check.status.code() == Some(1) && said.contains("pc-q35-6.2"), "{}: {said}", check.status);
}

#[test]
fn only_what_libvirt_can_have_written_counts() {
    let Some(machine) = machine("planted") else { return };
    let guest = Guest::huge("db", "q35").with_hostdev();
    assert_stopped(&machine, &guest);
    // A newer answer, which would let the guest start.
    let planted = cached(1_800_000_000, "  <machine type='kvm' name='pc-q35-7.2' alias='q35'/>\n");

    machine.write(&format!("{CACHE}/b.xml"), &planted);
    chown(path(&machine, "b.xml"), Some(1234), None).expect("somebody else's");
    assert_stopped(&machine, &guest);

    std::fs::remove_file(path(&machine, "b.xml")).expect("removed");
    machine.write("/run/planted", &planted);
    symlink("/run/planted", path(&machine, "b.xml")).expect("a link");
    assert_stopped(&machine, &guest);

    // The control: from libvirt, it is believed.
    std::fs::remove_file(path(&machine, "b.xml")).expect("removed");
    machine.write(&format!("{CACHE}/b.xml"), &planted);
    let command = &mut machine.command(env!("CARGO_BIN_EXE_iova-preflight-hook"));
    assert_eq!(feed(command.args(["db", "prepare", "begin", "-"]), &guest).status.code(), Some(0));
}

#[test]
fn an_alias_that_is_called_like_a_type_is_not_believed() {
    let Some(machine) = machine("alias") else { return };
    let machines =
        "  <machine type='kvm' name='pc-q35-7.2' alias='pc-q35-6.2'/>\n  <machine type='kvm' name='pc-q35-6.2'/>\n";
    machine.write(&format!("{CACHE}/b.xml"), cached(1_800_000_000, machines));
    assert_stopped(&machine, &Guest::huge("db", "pc-q35-6.2").with_hostdev());
}

#[test]
fn nothing_waits_for_a_pipe_or_a_device() {
    let Some(machine) = machine("pipes") else { return };
    // The first and the last in the folder.
    for name in ["0.xml", "z.xml"] {
        assert!(Command::new("mkfifo").arg(path(&machine, name)).status().expect("mkfifo runs").success());
    }
    symlink("/dev/zero", path(&machine, "1.xml")).expect("a link to a device");
    let _socket = std::os::unix::net::UnixListener::bind(path(&machine, "2.xml")).expect("a socket");
    // Nor among libvirt's networks.
    let network = machine.path("/etc/libvirt/qemu/networks/0.xml");
    std::fs::create_dir_all(network.parent().expect("a folder")).expect("folders");
    assert!(Command::new("mkfifo").arg(&network).status().expect("mkfifo runs").success());
    std::fs::create_dir(path(&machine, "3.xml")).expect("a folder");
    // Where device nodes can be made, one that never ends.
    let _ = Command::new("mknod").arg(path(&machine, "4.xml")).args(["c", "1", "5"]).status();
    assert_stopped(&machine, &Guest::huge("db", "q35").with_hostdev());
    let mut host = machine.command(env!("CARGO_BIN_EXE_iova-preflight"));
    let host = host.arg("host").stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("runs");
    let host = ended(host);
    let said = String::from_utf8_lossy(&host.stdout).into_owned();
    assert!(host.status.success() && said.contains("q35 = \"pc-q35-6.2\""), "{said}");
}

/// A guest whose outcome depends on a missing answer starts, and the log names it.
#[test]
fn without_an_answer_in_the_cache_the_log_names_the_guest() {
    let Some(machine) = machine("empty") else { return };
    std::fs::remove_file(path(&machine, "a.xml")).expect("removed");
    let planted = cached(1_800_000_000, "  <machine type='kvm' name='pc-q35-7.2' alias='q35'/>\n");
    machine.write(&format!("{CACHE}/b.xml"), &planted);
    chown(path(&machine, "b.xml"), Some(1234), None).expect("somebody else's");
    let log = machine.system_log();
    let command = &mut machine.command(env!("CARGO_BIN_EXE_iova-preflight-hook"));
    let output = feed(command.args(["db", "start", "begin", "-"]), &Guest::huge("db", "q35").with_hostdev());
    let lines = log.lines();
    assert_eq!(output.status.code(), Some(0));
    assert!(matches!(&lines[..], [line] if line.contains("guest db") && line.contains("q35")), "{lines:?}");
}
