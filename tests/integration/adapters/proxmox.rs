//! Proxmox VE: a hookscript, as `exec_hookscript` of pve-guest-common runs it, and `qm showcmd` in front of it.

use super::*;

const HOOK: &str = "var/lib/vz/snippets/iova-preflight";

/// What `qm showcmd` prints for a guest of 1200 GiB with a device, as the expected outputs of qemu-server's tests are
/// written (`src/test/cfg2cmd`); without KVM (`kvm: 0`), so that the guest's vendor is that of its CPU model.
fn showcmd(machine: &str, memory: &str, cpu: &str) -> String {
    format!(
        "/usr/bin/kvm -id 104 -name 'db,debug-threads=on' -no-shutdown -chardev \
         'socket,id=qmp,path=/var/run/qemu-server/104.qmp,server=on,wait=off' -mon 'chardev=qmp,mode=control' -pidfile \
         /var/run/qemu-server/104.pid -daemonize -smp '4,sockets=1,cores=4,maxcpus=4' -nodefaults -vnc \
         'unix:/var/run/qemu-server/104.vnc,password=on' -cpu {cpu} {memory} -readconfig \
         /usr/share/qemu-server/pve-q35-4.0.cfg -device \
         'vfio-pci,host=0000:41:10.1,id=hostpci0,bus=ich9-pcie-port-1,addr=0x0' -device 'VGA,id=vga,bus=pcie.0,addr=0x1' \
         -machine 'accel=tcg,type={machine}'\n"
    )
}

/// A call of the hookscript in a phase, with a `qm` that is this script.
fn call(host: &Host, hook: &str, qm: &str, phase: &str) -> Output {
    let bin = host.folder.join("bin");
    let counted = format!("#!/bin/sh\necho \"$@\" >> {}/called\n{qm}\n", host.folder.display());
    write_program(&bin.join("qm"), &counted);
    let mut command = host.namespace.command(if hook == PROGRAM { PROGRAM } else { hook });
    command.env("PATH", format!("{}:/sbin:/bin:/usr/sbin:/usr/bin", bin.display()));
    if hook == PROGRAM {
        command.args(["adapter", "proxmox"]);
    }
    run(command.args(["104", phase]))
}

/// How `qm` was called.
fn called(host: &Host) -> String {
    let file = host.folder.join("called");
    let called = std::fs::read_to_string(&file).unwrap_or_default();
    let _ = std::fs::remove_file(file);
    called
}

fn prints(host: &Host, text: &str) -> String {
    let file = host.folder.join("showcmd");
    std::fs::write(&file, text).expect("written");
    format!("echo 'a warning' >&2\ncat {}", file.display())
}

/// A host with Proxmox VE's folder and the hookscript.
fn node(test: &str) -> Option<(Host, String)> {
    let host = Host::new(test)?;
    std::fs::create_dir_all(host.folder.join("etc/pve")).expect("a folder");
    let hook = host.install(&["proxmox", "install"], HOOK, PROGRAM).display().to_string();
    Some((host, hook))
}

#[test]
fn a_vm_passes_or_is_stopped_with_qm_set() {
    let Some((host, hook)) = node("proxmox") else { return };
    host.set_policy("");
    let huge = "-m 1228800";
    for hook in [PROGRAM, &hook] {
        for (machine, memory, cpu) in
            [("pc-q35-9.2+pve1", "-m 4096", "qemu64,+aes"), ("pc-q35-9.2+pve1", huge, "EPYC-Milan,phys-bits=42")]
        {
            let qm = prints(&host, &showcmd(machine, memory, cpu));
            assert_ended(&call(&host, hook, &qm, "pre-start"), "", "", 0);
            assert_eq!(called(&host), "showcmd 104\n");
        }
        // A Windows guest that Proxmox pins, and one whose CPU has the 40 bits of Proxmox' own types.
        for (machine, cpu, cause, remedy) in [
            ("pc-q35-5.1+pve0", "EPYC-Milan,phys-bits=48", CAUSE, "qm set 104 --machine pc-q35-7.1"),
            ("pc-q35-9.2+pve1", "EPYC-Milan", "40", "qm set 104 --cpu EPYC-Milan,phys-bits=42"),
        ] {
            let qm = prints(&host, &showcmd(machine, huge, cpu));
            let output = call(&host, hook, &qm, "pre-start");
            assert_eq!((output.status.code(), &output.stdout[..]), (Some(1), &b""[..]), "{output:?}");
            let line = assert_block_line(&output.stderr);
            assert!(line.contains("guest db: ") && line.contains(cause) && line.contains(remedy), "{line}");
            assert!(line.ends_with("; then start it again") && !line.contains("shutdown"), "{line}");
        }
        called(&host);
    }
}

/// With hotplug, the window for memory reaches to 4 TiB: a DIMM that is there from the start may lie in the range, and
/// one that comes later is not a reason to stop the guest.
#[test]
fn the_hotplug_window_is_seen() {
    let Some((host, _)) = node("proxmox-hotplug") else { return };
    host.set_policy("");
    let memory = |dimms: u64| {
        let mut words = "-m 'size=1024,slots=255,maxmem=4194304M'".to_owned();
        for number in 0..dimms {
            words += &format!(
                " -object 'memory-backend-ram,id=mem-dimm{number},size=262144M' -device \
                 'pc-dimm,id=dimm{number},memdev=mem-dimm{number},node=0'"
            );
        }
        format!(
            "{words} -object 'memory-backend-ram,id=ram-node0,size=1024M' -numa 'node,nodeid=0,cpus=0-3,memdev=ram-node0'"
        )
    };
    let start = |machine: &str, dimms: u64| {
        let qm = prints(&host, &showcmd(machine, &memory(dimms), "EPYC-Milan,phys-bits=48"));
        host.log.lines();
        call(&host, PROGRAM, &qm, "pre-start")
    };
    assert_ended(&start("pc-q35-6.2+pve0", 1), "", "", 0);
    let lines = host.log.lines();
    assert!(matches!(&lines[..], [line] if line.contains("hotplug-window-in-reserved-range")), "{lines:?}");
    let output = start("pc-q35-6.2+pve0", 5);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(assert_block_line(&output.stderr).contains(CAUSE));
    assert_ended(&start("pc-q35-9.2+pve1", 5), "", "", 0);
}

/// In every other phase the guest runs, or has run.
#[test]
fn no_other_phase_is_looked_at() {
    let Some((host, hook)) = node("proxmox-phases") else { return };
    for policy in ["", "on_internal_error = 'block'\nmodes = 1\n"] {
        host.set_policy(policy);
        for hook in [PROGRAM, &hook] {
            for phase in ["post-start", "pre-stop", "post-stop", "pre-migrate"] {
                assert_ended(&call(&host, hook, "exit 1", phase), "", "", 0);
            }
        }
    }
    assert_eq!(called(&host), "");
}

#[test]
fn its_own_failures_stop_no_vm_unless_the_policy_says_so() {
    let Some((host, hook)) = node("proxmox-failures") else { return };
    let failing = [
        ("echo 'Configuration file does not exist' >&2\nexit 2", "exit status: 2: Configuration file does not exist"),
        ("kill -9 $$", "signal: 9"),
        ("echo 'no command line'", "command line:"),
        ("head -c 5000000 /dev/zero", "more than 4 MiB"),
        ("", "command line:"),
    ];
    for (policy, status) in [("", 0), ("on_internal_error = 'block'\n", 1)] {
        host.set_policy(policy);
        for (qm, problem) in failing {
            for hook in [PROGRAM, &hook] {
                host.log.lines();
                let output = call(&host, hook, qm, "pre-start");
                let lines = host.log.lines();
                assert!(
                    matches!(&lines[..], [line] if line.contains(problem) && line.contains("VM 104 ")),
                    "{qm}: {lines:?}"
                );
                if status == 0 {
                    assert_ended(&output, "", "", 0);
                } else {
                    assert_eq!(output.status.code(), Some(1));
                    assert!(assert_block_line(&output.stderr).contains(problem), "{output:?}");
                }
            }
        }
    }
    host.set_policy("modes = 1\n");
    let qm = prints(&host, &showcmd("pc-q35-5.1+pve0", "-m 1228800", "EPYC-Milan,phys-bits=48"));
    assert_ended(&call(&host, PROGRAM, &qm, "pre-start"), "", "", 0);
    host.set_policy("");
    // Without `qm` in the folders that programs are looked for in.
    let output = run(host.namespace.command(PROGRAM).args(["adapter", "proxmox", "104", "pre-start"]));
    assert_ended(&output, "", "", 0);
    for program in host.broken_programs() {
        let hook = host.install(&["proxmox", "install"], HOOK, &program).display().to_string();
        assert_eq!(call(&host, &hook, &qm, "pre-start").status.code(), Some(0), "{program}");
    }
}
