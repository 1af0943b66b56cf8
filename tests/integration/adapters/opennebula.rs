//! OpenNebula: `vmm/kvm/deploy` as the driver runs it through a shell on the host (`OpenNebulaDriver.rb`,
//! `SSHCommand.rb` of 7.4).

use super::*;
use std::fs;

const DEPLOY: &str = "var/lib/one/remotes/vmm/kvm/deploy";

/// Replaces OpenNebula's own `deploy`: keeps its input, prints its arguments, and exits with 3 for a guest called
/// `fails`.
const ORIGINAL: &str = "#!/bin/bash\ncat > \"$1\"\nprintf '%s\\n' \"$@\" > \"$1.arguments\"\necho \"in $(dirname \"$0\")\" >&2\n\
                        grep -q '<name>fails</name>' \"$1\" && exit 3\necho 11111111-2222-3333-4444-555555555555\n";

struct Deploy<'h> {
    host: &'h Host,
    domain: PathBuf,
}

impl<'h> Deploy<'h> {
    fn new(host: &'h Host) -> Self {
        Self { host, domain: host.folder.join("deployment.0") }
    }

    fn install(&self, program: &str) {
        self.host.install(&["opennebula", "install"], DEPLOY, program);
    }

    /// The driver's call: the domain in a here-document, so that a newline is added.
    fn call(&self, xml: &str) -> Output {
        let _ = fs::remove_file(&self.domain);
        let (deploy, file) = (self.host.folder.join(DEPLOY), self.domain.display());
        let script = format!("cat << 'EOT' | {} '{file}' 'node7' 42 node7\n{xml}\nEOT\n", deploy.display());
        let mut shell = self.host.namespace.command("bash");
        let mut child = shell
            .args(["-s"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("a shell");
        std::io::Write::write_all(&mut child.stdin.take().expect("a pipe"), script.as_bytes()).expect("it is read");
        child.wait_with_output().expect("it ends")
    }

    /// What the original got; nothing if it was not run.
    fn deployed(&self) -> Option<String> {
        fs::read_to_string(&self.domain).ok()
    }

    #[track_caller]
    fn assert_deployed(&self, output: &Output, xml: &str) {
        let folder = self.host.folder.join(DEPLOY);
        let stderr = format!("in {}\n", folder.parent().expect("a folder").display());
        assert!(String::from_utf8_lossy(&output.stderr).ends_with(&stderr), "{output:?}");
        assert_eq!(String::from_utf8_lossy(&output.stdout), "11111111-2222-3333-4444-555555555555\n");
        assert_eq!(output.status.code(), Some(0));
        assert_eq!(self.deployed().as_deref(), Some(format!("{xml}\n").as_str()));
        let arguments = fs::read_to_string(self.domain.with_extension("0.arguments")).expect("they were written");
        assert_eq!(arguments, format!("{}\nnode7\n42\nnode7\n", self.domain.display()));
    }
}

/// A host on which the original is in its place.
fn front_end(test: &str) -> Option<Host> {
    let host = Host::new(test)?;
    write_program(&host.folder.join(DEPLOY), ORIGINAL);
    Some(host)
}

#[test]
fn a_vm_passes_is_rewritten_or_stopped() {
    let Some(host) = front_end("opennebula") else { return };
    let deploy = Deploy::new(&host);
    deploy.install(PROGRAM);
    host.set_policy("");
    let output = deploy.call(&fine());
    deploy.assert_deployed(&output, &fine());
    assert_eq!(String::from_utf8_lossy(&output.stderr).lines().count(), 1, "not a word of ours");
    deploy.assert_deployed(&deploy.call(&fixable()), &fixed());
    let large = fine().replace("</domain>", &format!("<!--{}--></domain>", "x".repeat(1 << 20)));
    deploy.assert_deployed(&deploy.call(&large), &large);

    host.set_policy(NO_FIX);
    let output = deploy.call(&fixable());
    assert_eq!((output.status.code(), &output.stdout[..], deploy.deployed()), (Some(1), &b""[..], None));
    let line = assert_block_line(&output.stderr);
    assert!(line.contains("guest db: ") && line.contains(CAUSE) && line.contains("no automatic fix"), "{line}");
    // A failure of the original is passed on.
    let output = deploy.call(&fine().replace("<name>web</name>", "<name>fails</name>"));
    assert_eq!(output.status.code(), Some(3));
}

#[test]
fn its_own_failures_stop_no_vm_unless_the_policy_says_so() {
    let Some(host) = front_end("opennebula-failures") else { return };
    let deploy = Deploy::new(&host);
    deploy.install(PROGRAM);
    for xml in BROKEN {
        host.set_policy("");
        let output = deploy.call(xml);
        deploy.assert_deployed(&output, xml);
        assert_eq!(String::from_utf8_lossy(&output.stderr).lines().count(), 1);
        let lines = host.log.lines();
        let named =
            |line: &str| line.contains("internal error: domain XML") && line.contains("allowing VM 42 to start");
        assert!(matches!(&lines[..], [line] if named(line)), "{lines:?}");
        host.set_policy("on_internal_error = 'block'\n");
        let output = deploy.call(xml);
        assert_eq!((output.status.code(), deploy.deployed()), (Some(1), None));
        assert!(assert_block_line(&output.stderr).contains("internal error: domain XML"));
        host.log.lines();
    }
    host.set_policy("modes = 1\n");
    deploy.assert_deployed(&deploy.call(&fixable()), &fixable());
    host.set_policy(NO_FIX);
    for program in host.broken_programs() {
        deploy.install(&program);
        deploy.assert_deployed(&deploy.call(&fixable()), &fixable());
    }
}

/// Without the script, it works as a filter.
#[test]
fn the_program_reads_and_prints_the_domain() {
    let Some(host) = front_end("opennebula-filter") else { return };
    let filter = |xml: &str| {
        let file = host.folder.join("domain");
        fs::write(&file, xml).expect("the domain");
        let mut command = host.namespace.command(PROGRAM);
        command.args(["adapter", "opennebula", "/tmp/x/deployment.0", "node7", "42", "node7"]);
        command.stdin(fs::File::open(&file).expect("it")).output().expect("runs")
    };
    host.set_policy("");
    assert_ended(&filter(&fine()), &fine(), "", 0);
    assert_ended(&filter(&fixable()), &fixed(), "", 0);
    assert_ended(&filter("<domain"), "<domain", "", 0);
    // A guest's own XML is not a way around the check.
    let crammed =
        |xml: String| xml.replace("</domain>", &format!("<metadata>{}</metadata></domain>", "<a/>".repeat(100_000)));
    assert_ended(&filter(&crammed(fixable())), &crammed(fixed()), "", 0);
    // What could not be read cannot be handed back.
    let folder = fs::File::open(&host.folder).expect("a folder");
    let mut command = host.namespace.command(PROGRAM);
    let output = command.args(["adapter", "opennebula"]).stdin(folder).output().expect("runs");
    assert_ended(&output, "", "", 2);
}

/// The caller must get an answer in the end.
#[test]
fn it_waits_for_a_domain_for_20_seconds() {
    let Some(host) = front_end("opennebula-time") else { return };
    let begin = std::time::Instant::now();
    let mut command = host.namespace.command(PROGRAM);
    let pipes =
        command.args(["adapter", "opennebula"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = pipes.spawn().expect("runs");
    let stdin = child.stdin.take();
    assert_ended(&child.wait_with_output().expect("it ends"), "", "", 2);
    assert!(begin.elapsed() > std::time::Duration::from_secs(19), "{:?}", begin.elapsed());
    drop(stdin);
    let lines = host.log.lines();
    assert!(matches!(&lines[..], [line] if line.contains("timed out: no decision after 20 seconds")), "{lines:?}");
}
