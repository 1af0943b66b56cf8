//! `iova-preflight adapter`.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, Subcommand};

#[derive(Debug, Args)]
pub(crate) struct AdapterArgs {
    #[command(subcommand)]
    pub orchestrator: Orchestrator,
}

const VDSM_HELP: &str = "\
As VDSM's before_vm_start hook, it edits the file that _hook_domxml names. A VM with the custom property \
iova_preflight=off is left alone.

Exit status: 0 the VM starts, as it was or rewritten; 2 the VM does not start, and standard error says why.";

const KUBEVIRT_HELP: &str = "\
Called as `onDefineDomain --vmi JSON --domain XML`, it prints the domain, rewritten or as it was.

Exit status: 0 the domain was printed; 1 the VM does not start, and standard error says why.";

const CLOUDSTACK_HELP: &str = "\
It reads the domain from standard input, or from the second of two arguments, and prints it, rewritten or as it was.

Exit status: 0 the domain was printed; 1 the VM should not start; 2 the adapter failed. With 1 and 2, CloudStack uses its \
own XML and logs what is on standard error.";

const OPENNEBULA_HELP: &str = "\
Called before vmm/kvm/deploy, it reads the domain from standard input and prints it, rewritten or as it was.

Exit status: 0 the domain was printed; 1 the VM does not start, and standard error says why; 2 the domain could not be \
read.";

const PROXMOX_HELP: &str = "\
As a hookscript, called with `VMID pre-start`, it evaluates the command line that `qm showcmd VMID` prints.

Exit status: 0 the VM starts; 1 it does not, and standard error says why and what to do.";

#[derive(Debug, Subcommand)]
pub(crate) enum Orchestrator {
    /// oVirt: VDSM's before_vm_start hook
    #[command(after_long_help = VDSM_HELP)]
    Vdsm(OrchestratorArgs),
    /// KubeVirt: the onDefineDomain hook of a sidecar
    #[command(after_long_help = KUBEVIRT_HELP)]
    Kubevirt(OrchestratorArgs),
    /// CloudStack: the XML transformer of the KVM agent
    #[command(after_long_help = CLOUDSTACK_HELP)]
    #[command(mut_subcommand("install", |install| install.mut_arg("shell", |shell| shell.hide(false))))]
    Cloudstack(OrchestratorArgs),
    /// OpenNebula: a filter before vmm/kvm/deploy
    #[command(after_long_help = OPENNEBULA_HELP)]
    Opennebula(OrchestratorArgs),
    /// Proxmox VE: a hookscript
    #[command(after_long_help = PROXMOX_HELP)]
    Proxmox(OrchestratorArgs),
}

impl Orchestrator {
    /// The name of the command, and what it is asked for.
    pub fn parts(&self) -> (&'static str, &OrchestratorArgs) {
        match self {
            Self::Vdsm(args) => ("vdsm", args),
            Self::Kubevirt(args) => ("kubevirt", args),
            Self::Cloudstack(args) => ("cloudstack", args),
            Self::Opennebula(args) => ("opennebula", args),
            Self::Proxmox(args) => ("proxmox", args),
        }
    }
}

impl AdapterArgs {
    /// The orchestrator that calls, and with what; `None` if somebody else does.
    pub fn call(&self) -> Option<(&'static str, &[OsString])> {
        let (name, args) = self.orchestrator.parts();
        args.command.is_none().then_some((name, &args.call))
    }
}

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true, disable_help_subcommand = true)]
pub(crate) struct OrchestratorArgs {
    #[command(subcommand)]
    pub command: Option<AdapterCommand>,

    /// The arguments with which the orchestrator calls its hook
    #[arg(value_name = "ARGUMENT", trailing_var_arg = true, allow_hyphen_values = true)]
    pub call: Vec<OsString>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum AdapterCommand {
    /// Install the hook
    ///
    /// Files that are not this program's are left alone.
    Install {
        #[command(flatten)]
        at: AdapterRoot,

        /// The program that the hook runs
        ///
        /// Default: this program; with --root, /usr/bin/iova-preflight.
        #[arg(long, value_name = "PATH")]
        program: Option<PathBuf>,

        /// Install the shell script, not the Groovy script
        ///
        /// For agents without Groovy. It takes domains of up to 65,000 bytes.
        #[arg(long, hide = true)]
        shell: bool,
    },
    /// Remove the hook
    Uninstall {
        #[command(flatten)]
        at: AdapterRoot,
    },
    /// Say whether the hook is installed (exit status 1: no)
    Status {
        #[command(flatten)]
        at: AdapterRoot,
    },
}

#[derive(Debug, Args)]
pub(crate) struct AdapterRoot {
    /// Work on the system in this folder instead of /
    #[arg(long, value_name = "DIR", default_value = "/", hide_default_value = true)]
    pub root: PathBuf,
}
