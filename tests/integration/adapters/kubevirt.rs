//! KubeVirt: `onDefineDomain` as the sidecar shim runs it (`cmd/sidecars/sidecar_shim.go`).

use super::*;

const HOOK: &str = "usr/bin/onDefineDomain";

const VMI: &str = r#"{"metadata":{"name":"db","namespace":"default"},"spec":{"domain":{"devices":{}}}}"#;

fn call(host: &Host, hook: &str, xml: &str) -> Output {
    let mut command = host.namespace.command(if hook == PROGRAM { PROGRAM } else { hook });
    command.env("CONTAINER_NAME", "hook-sidecar-0");
    if hook == PROGRAM {
        command.args(["adapter", "kubevirt"]);
    }
    run(command.args(["--vmi", VMI, "--domain", xml]))
}

#[test]
fn a_vmi_passes_is_rewritten_or_stopped() {
    let Some(host) = Host::new("kubevirt") else { return };
    let hook = host.install(&["kubevirt", "install"], HOOK, PROGRAM).display().to_string();
    for hook in [PROGRAM, &hook] {
        host.set_policy("");
        assert_ended(&call(&host, hook, &fine()), &fine(), "", 0);
        assert_ended(&call(&host, hook, &fixable()), &fixed(), "", 0);

        host.set_policy(NO_FIX);
        let output = call(&host, hook, &fixable());
        assert_eq!((output.status.code(), &output.stdout[..]), (Some(1), &b""[..]));
        let line = assert_block_line(&output.stderr);
        assert!(line.contains("guest db: ") && line.contains(CAUSE) && line.contains("no automatic fix"), "{line}");

        host.set_policy(&format!("{NO_FIX}[adapter]\nblock_in_domain = true\n"));
        let output = call(&host, hook, &fixable());
        assert_eq!((output.status.code(), &output.stderr[..]), (Some(0), &b""[..]));
        let refused = String::from_utf8(output.stdout).expect("UTF-8");
        assert!(
            refused.starts_with("<domain type='iova-preflight: guest db: ") && refused.contains(CAUSE),
            "{refused}"
        );
    }
}

/// The longest argument that Linux hands over (`MAX_ARG_STRLEN`) has a NUL at its end.
#[test]
fn the_largest_domain_that_the_shim_can_hand_over_comes_back() {
    let Some(host) = Host::new("kubevirt-large") else { return };
    let hook = host.install(&["kubevirt", "install"], HOOK, PROGRAM).display().to_string();
    host.set_policy("");
    let padded = |xml: &str| {
        let comment = "x".repeat(131_071 - xml.len() - "<!---->".len());
        xml.replace("</domain>", &format!("<!--{comment}--></domain>"))
    };
    for hook in [PROGRAM, &hook] {
        assert_eq!(padded(&fine()).len(), 131_071);
        assert_ended(&call(&host, hook, &padded(&fine())), &padded(&fine()), "", 0);
        let output = call(&host, hook, &padded(&fixable()));
        assert_ended(&output, &padded(&fixable()).replace("pc-q35-6.2", "pc-q35-7.1"), "", 0);
    }
}

/// The shim closes the pipe as soon as the program ends, and logs what it has read until then.
#[test]
fn the_reason_is_written_well_before_the_end() {
    let Some(host) = Host::new("kubevirt-linger") else { return };
    host.set_policy(NO_FIX);
    let mut command = host.namespace.command(PROGRAM);
    command.args(["adapter", "kubevirt", "--vmi", VMI, "--domain", &fixable()]);
    let mut child = command.stdin(Stdio::null()).stderr(Stdio::piped()).spawn().expect("runs");
    let mut stderr = std::io::BufReader::new(child.stderr.take().expect("a pipe"));
    let mut line = String::new();
    std::io::BufRead::read_line(&mut stderr, &mut line).expect("a line");
    let read = std::time::Instant::now();
    assert_eq!(child.wait().expect("it ends").code(), Some(1));
    // Of 20 milliseconds; this thread may have been slow to read.
    assert!(read.elapsed() > std::time::Duration::from_millis(2), "{:?}", read.elapsed());
}

#[test]
fn other_hook_points_get_their_data_back() {
    let Some(host) = Host::new("kubevirt-others") else { return };
    let hook = host.install(&["kubevirt", "install"], HOOK, PROGRAM).display().to_string();
    for policy in ["", "modes = 1\n", "on_internal_error = 'block'\nmodes = 1\n"] {
        host.set_policy(policy);
        let data = "{\"userData\": \"#cloud-config\\n\"}\n";
        let shim = |program: &str, before: &[&str]| {
            run(host.namespace.command(program).args(before).args(["--vmi", VMI, "--cloud-init", data]))
        };
        assert_ended(&shim(PROGRAM, &["adapter", "kubevirt"]), data, "", 0);
        assert_ended(&shim(&hook, &[]), data, "", 0);
        assert_ended(&run(host.namespace.command(PROGRAM).args(["adapter", "kubevirt"])), "", "", 0);
    }
}

#[test]
fn its_own_failures_stop_no_vmi_unless_the_policy_says_so() {
    let Some(host) = Host::new("kubevirt-failures") else { return };
    let hook = host.install(&["kubevirt", "install"], HOOK, PROGRAM).display().to_string();
    for hook in [PROGRAM, &hook] {
        for xml in BROKEN {
            host.set_policy("");
            let output = call(&host, hook, xml);
            // Its log is the only one in a container.
            let stderr = assert_block_line(&output.stderr);
            assert!(stderr.contains("internal error: domain XML"), "{stderr}");
            assert_ended(&output, xml, &format!("{stderr}\n"), 0);
            host.set_policy("on_internal_error = 'block'\n");
            let output = call(&host, hook, xml);
            assert_eq!((output.status.code(), &output.stdout[..]), (Some(1), &b""[..]));
            assert!(assert_block_line(&output.stderr).contains("internal error: domain XML"));
            // A refusal that names the failure.
            host.set_policy("on_internal_error = 'block'\n[adapter]\nblock_in_domain = true\n");
            let output = call(&host, hook, xml);
            assert_eq!((output.status.code(), &output.stderr[..]), (Some(0), &b""[..]));
            assert!(
                String::from_utf8_lossy(&output.stdout).starts_with("<domain type='iova-preflight: internal error: ")
            );
        }
        host.set_policy("modes = 1\n");
        let output = call(&host, hook, &fixable());
        assert_eq!((output.status.code(), output.stdout), (Some(0), fixable().into_bytes()));
    }
    host.set_policy(NO_FIX);
    for program in host.broken_programs() {
        let hook = host.install(&["kubevirt", "install"], HOOK, &program).display().to_string();
        let output = call(&host, &hook, &fixable());
        let ended = (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned());
        assert_eq!(ended, (Some(0), fixable()), "{program}");
    }
}
