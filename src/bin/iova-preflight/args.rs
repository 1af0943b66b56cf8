//! The command line.

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;

use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use clap::{Arg, Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use iova_preflight::domain::Owner;
use iova_preflight::rules::RULES;

/// Tells, before QEMU starts, whether a PCI-passthrough guest collides with the HyperTransport range that AMD hosts
/// reserve below 1 TiB
#[derive(Debug, Parser)]
#[command(version, max_term_width = 100)]
pub(crate) struct Cli {
    /// When to colour the output
    #[arg(long, global = true, value_name = "WHEN", default_value = "auto")]
    pub color: Color,

    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Evaluate guests: domain XML or QEMU command lines
    #[command(after_help = CHECK_HELP)]
    #[command(mut_arg("paths", |paths| paths.required_unless_present("running")))]
    Check(CheckArgs),
    /// Rewrite a guest so that it starts, and touch nothing else
    #[command(after_help = FIX_HELP)]
    Fix(FixArgs),
    /// Draw the memory map of a guest: RAM, PCI hole, what the host reserves, what collides, and the same after the fix
    #[command(after_help = MAP_HELP)]
    Map(MapArgs),
    /// Say what a rule, an error message or a log means
    #[command(after_help = EXPLAIN_HELP)]
    Explain(ExplainArgs),
    /// Put the libvirt hook in place, take it away, or see whether libvirt will run it
    Hook(HookArgs),
    /// Speak the hook protocol of an orchestrator, or put its hook in place
    Adapter(AdapterArgs),
    /// Evaluate every guest of a libvirt when it is defined, as a service, and rewrite it where the policy says so
    #[command(after_help = WATCH_HELP)]
    Watch(WatchArgs),
    /// Print what is known of this host and how, as a profile that --host reads on another machine
    #[command(after_help = HOST_HELP)]
    Host(HostArgs),
    /// Print a completion script for a shell (for packages)
    Completions {
        /// The shell
        shell: Shell,
    },
    /// Print the manual page, or write it and a page for each command into a folder (for packages)
    Man {
        /// The folder, made where it is missing
        #[arg(value_name = "DIR")]
        folder: Option<PathBuf>,
    },
}

const CHECK_HELP: &str = "\
Exit status: 0 every guest may start; 1 at least one is `blocked` or `fixable`; 2 at least one input could not be \
evaluated. 2 wins over 1, and every other input is still evaluated.";

const FIX_HELP: &str = "\
With -, the domain or command line goes to standard output: rewritten, or byte for byte as it came if there is nothing \
to fix. Of a `blocked` guest, and of what is neither, nothing is printed, so that a pipe into `virsh define` defines \
nothing.

Exit status: 0 every guest may start, as it is or as it was rewritten; 1 at least one is `blocked`, or `fixable` and was \
not rewritten; 2 at least one input could not be evaluated or written.";

const EXPLAIN_HELP: &str = "\
One word of letters and hyphens is a rule, and anything else is a text: an error message of QEMU, libvirt or the kernel, \
pasted with quotes or without. Options come first, or last. A log is read from standard input: \
`iova-preflight explain - < /var/log/libvirt/qemu/NAME.log`.

Exit status: 0 the rule, or a message in the text, is known; 1 no message in the text is known; 2 there is no such rule, \
or the log could not be read.";

const WATCH_HELP: &str = "\
At its start it evaluates every guest that is defined, then each when it is defined anew. What would not start is said on \
standard error, with priorities where that leads to the journal. With `rewrite = true` under `[watch]` in the policy, \
it redefines what can be fixed, as `fix --connect --domain` does, but for guests of Nova, oVirt, KubeVirt, CloudStack and \
OpenNebula, which write the definition anew at each start: of those it says where to change them, unless the policy says \
`owned = \"rewrite\"`. Guests without a definition are left to the hook.

With --metrics, it replaces a file, readable for everybody, whenever it has nothing more to do. What is in there, and \
rules that raise alerts, are in docs/monitoring.md of the sources. A file that cannot be written is said on standard error \
and stops nothing.

It goes on until it is asked to end, with SIGTERM or SIGINT; it reconnects when libvirt goes away.";

const MAP_HELP: &str = "\
Exit status: 0 a map was printed, whatever the findings; 2 there is none, or the input could not be read.";

/// What `check` and `fix` both take.
#[derive(Debug, Args)]
pub(crate) struct CommonArgs {
    /// Files with domain XML or a QEMU command line, folders (every *.xml in them, recursively), or - for standard input
    #[arg(required_unless_present = "connect", value_name = "PATH")]
    pub paths: Vec<PathBuf>,

    /// Read the input as this [default: XML if it begins with <, otherwise a command line]
    #[arg(long, value_name = "KIND", conflicts_with = "connect")]
    pub input: Option<InputKind>,

    /// Evaluate for the host in this profile: a TOML file, or one of amd-epyc, amd-turin-ht-ignore, intel-xeon. Given
    /// several times, or a folder (every *.toml in it), for each of these hosts; a fix is then one for all. Without it, for this host if it has an
    /// AMD IOMMU, otherwise for amd-epyc
    #[arg(long, value_name = "FILE|FOLDER|NAME")]
    pub host: Vec<PathBuf>,

    /// Read what a fix may do, and which guests count as passthrough guests, from this policy; `none` is the default
    /// policy [default: /etc/iova-preflight/policy.toml, if it is there]
    #[arg(long, value_name = "FILE|none")]
    pub policy: Option<PathBuf>,

    /// Phrase fixes for this orchestrator [default: the one that regenerates the guest's definition at each start, as its
    /// <metadata> tells; otherwise libvirt]
    #[arg(long, value_name = "NAME", value_parser = Words::parser())]
    pub advice: Option<Words>,

    /// Suppress all output except errors; the exit status tells the verdict
    #[arg(short, long)]
    pub quiet: bool,
}

/// In whose words fixes are told; libvirt's where it is nobody else's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Words(pub Option<Owner>);

impl Words {
    /// What libvirt's are called.
    const LIBVIRT: &str = "libvirt";

    fn parser() -> impl TypedValueParser<Value = Self> {
        let names = std::iter::once(Self::LIBVIRT).chain(Owner::ALL.map(Owner::name));
        PossibleValuesParser::new(names).map(|name| Self(Owner::ALL.into_iter().find(|owner| owner.name() == name)))
    }
}

#[derive(Debug, Args)]
pub(crate) struct CheckArgs {
    #[command(flatten)]
    pub common: CommonArgs,

    /// Evaluate the defined and running guests of this libvirt instead, for example qemu:///system; several at once
    #[arg(long, value_name = "URI", conflicts_with = "paths")]
    pub connect: Vec<String>,

    /// Only the guest of this name
    #[arg(long, value_name = "NAME", requires = "connect", conflicts_with = "paths")]
    pub domain: Option<String>,

    /// Give up a libvirt that has not told of all its guests after this many seconds; the others are evaluated
    #[arg(long, value_name = "SECONDS", requires = "connect", default_value = "60")]
    #[arg(value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub connect_timeout: u64,

    /// Evaluate every QEMU that runs on this host instead, whoever started it: whether it would start again, with the
    /// devices it has by now. Root sees all of them
    #[arg(long, conflicts_with_all = ["paths", "connect", "domain", "input"])]
    pub running: bool,

    /// Print the memory map of every guest, and what is merely good to know
    #[arg(short, long, conflicts_with = "quiet")]
    pub verbose: bool,

    /// Evaluate this many guests at once [default: as many as there are processors]
    #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub jobs: Option<u16>,

    /// How to print verdicts
    #[arg(long, value_name = "FORMAT", default_value = "human")]
    pub format: Format,
}

#[derive(Debug, Args)]
pub(crate) struct FixArgs {
    #[command(flatten)]
    pub common: CommonArgs,

    /// Print what would change, and write nothing; the default for files
    #[arg(long, conflicts_with = "in_place")]
    pub diff: bool,

    /// Fix warnings about BARs, too, of guests that start as they are
    #[arg(long)]
    pub warnings: bool,

    /// Rewrite the files; each is replaced in one step and keeps mode, owner, access control list and label
    #[arg(short, long)]
    pub in_place: bool,

    /// Redefine a guest of this libvirt instead, for example qemu:///system
    #[arg(long, value_name = "URI", conflicts_with_all = ["paths", "in_place"], requires = "domain")]
    pub connect: Option<String>,

    /// The guest to redefine
    #[arg(long, value_name = "NAME", requires = "connect", conflicts_with = "paths")]
    pub domain: Option<String>,

    /// Show what would change, and redefine nothing
    #[arg(long, requires = "connect", conflicts_with = "paths")]
    pub dry_run: bool,

    /// Redefine even a guest whose managed save image or snapshots will no longer restore, or whose definition is written
    /// anew at each start
    #[arg(long, requires = "connect", conflicts_with = "paths")]
    pub force: bool,

    /// Where the replaced definition is kept [default: /var/lib/iova-preflight for root, otherwise below
    /// ~/.local/state]
    #[arg(long, value_name = "DIR", requires = "connect", conflicts_with = "paths")]
    pub backup: Option<PathBuf>,
}

#[cfg_attr(not(feature = "libvirt"), allow(dead_code, reason = "only a program with libvirt can watch"))]
#[derive(Debug, Args)]
pub(crate) struct WatchArgs {
    /// The libvirt to watch
    #[arg(long, value_name = "URI", default_value = "qemu:///system")]
    pub connect: String,

    /// Evaluate for the host in this profile: a TOML file or a built-in name. Without it, for the host libvirt runs on
    #[arg(long, value_name = "FILE|NAME")]
    pub host: Option<PathBuf>,

    /// Read what is allowed from this policy; `none` is the default policy [default: /etc/iova-preflight/policy.toml, if
    /// it is there]
    #[arg(long, value_name = "FILE|none")]
    pub policy: Option<PathBuf>,

    /// Where replaced definitions are kept [default: /var/lib/iova-preflight for root, otherwise below ~/.local/state]
    #[arg(long, value_name = "DIR")]
    pub backup: Option<PathBuf>,

    /// Write metrics for the textfile collector of Prometheus' node exporter to this file, whose name ends in .prom
    #[arg(long, value_name = "FILE", value_parser = metrics_file)]
    pub metrics: Option<PathBuf>,
}

/// A file that the node exporter reads.
fn metrics_file(text: &str) -> Result<PathBuf, &'static str> {
    let path = PathBuf::from(text);
    let is_read = path.extension().is_some_and(|extension| extension == "prom");
    is_read.then_some(path).ok_or("the node exporter only reads files whose names end in .prom")
}

#[derive(Debug, Args)]
pub(crate) struct AdapterArgs {
    #[command(subcommand)]
    pub orchestrator: Orchestrator,
}

const VDSM_HELP: &str = "\
As a before_vm_start hook it edits the file that _hook_domxml names. A VM with the custom property iova_preflight=off is \
left alone.

Exit status: 0 the VM starts, as it is or as it was rewritten; 2 it is stopped, and standard error says why.";

const KUBEVIRT_HELP: &str = "\
Called as onDefineDomain --vmi JSON --domain XML, it prints the domain, rewritten or as it came.

Exit status: 0 the domain was printed; 1 the VM is stopped, and standard error says why.";

const CLOUDSTACK_HELP: &str = "\
The domain comes on standard input, or as the second of two arguments, and is printed, rewritten or as it came.

Exit status: 0 the domain was printed; 1 the VM should be stopped, and 2 the adapter failed: CloudStack uses its own XML \
then, and logs standard error.";

const OPENNEBULA_HELP: &str = "\
In front of vmm/kvm/deploy, it reads the domain from standard input and prints it, rewritten or as it came.

Exit status: 0 the domain was printed; 1 the VM is stopped, and standard error says why; 2 the domain could not be read.";

const PROXMOX_HELP: &str = "\
As a hookscript, called with VMID pre-start, it evaluates what `qm showcmd VMID` prints.

Exit status: 0 the VM starts; 1 it is stopped, and standard error says why and what to do.";

#[derive(Debug, Subcommand)]
pub(crate) enum Orchestrator {
    /// oVirt: the hook before_vm_start of VDSM
    #[command(after_help = VDSM_HELP)]
    Vdsm(OrchestratorArgs),
    /// KubeVirt: the hook onDefineDomain of a sidecar
    #[command(after_help = KUBEVIRT_HELP)]
    Kubevirt(OrchestratorArgs),
    /// CloudStack: the XML transformer of the KVM agent
    #[command(after_help = CLOUDSTACK_HELP)]
    #[command(mut_subcommand("install", |install| install.mut_arg("shell", |shell| shell.hide(false))))]
    Cloudstack(OrchestratorArgs),
    /// OpenNebula: in front of vmm/kvm/deploy
    #[command(after_help = OPENNEBULA_HELP)]
    Opennebula(OrchestratorArgs),
    /// Proxmox VE: a hookscript
    #[command(after_help = PROXMOX_HELP)]
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

    /// What the orchestrator calls with
    #[arg(value_name = "ARGUMENT", trailing_var_arg = true, allow_hyphen_values = true)]
    pub call: Vec<OsString>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum AdapterCommand {
    /// Put the hook in place; what is not ours is left alone
    Install {
        #[command(flatten)]
        at: AdapterRoot,

        /// The program that the hook runs; this one, or below another root /usr/bin/iova-preflight
        #[arg(long, value_name = "PATH")]
        program: Option<PathBuf>,

        /// The shell script instead of the Groovy script: for agents without Groovy, and domains of up to 65,000 bytes
        #[arg(long, hide = true)]
        shell: bool,
    },
    /// Remove the hook
    Uninstall {
        #[command(flatten)]
        at: AdapterRoot,
    },
    /// Say whether the hook is in place; the exit status is 1 if it is not
    Status {
        #[command(flatten)]
        at: AdapterRoot,
    },
}

#[derive(Debug, Args)]
pub(crate) struct AdapterRoot {
    /// Work on the system below this folder
    #[arg(long, value_name = "DIR", default_value = "/", hide_default_value = true)]
    pub root: PathBuf,
}

const HOOK_HELP: &str = "\
The program that libvirt runs is another one, iova-preflight-hook; nobody else has to call it.";

#[derive(Debug, Args)]
pub(crate) struct MapArgs {
    /// A file with domain XML or a QEMU command line, or - for standard input
    #[arg(value_name = "PATH")]
    pub path: PathBuf,

    /// Read the input as this [default: XML if it begins with <, otherwise a command line]
    #[arg(long, value_name = "KIND")]
    pub input: Option<InputKind>,

    /// Draw it for the host in this profile: a TOML file, or one of amd-epyc, amd-turin-ht-ignore, intel-xeon
    #[arg(long, value_name = "FILE|NAME")]
    pub host: Option<PathBuf>,

    /// Read what a fix may do from this policy; `none` is the default policy [default:
    /// /etc/iova-preflight/policy.toml, if it is there]
    #[arg(long, value_name = "FILE|none")]
    pub policy: Option<PathBuf>,

    /// How to draw it
    #[arg(long, value_name = "FORMAT", default_value = "human")]
    pub format: MapFormat,
}

/// What an input is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum InputKind {
    /// libvirt domain XML
    Xml,
    /// A QEMU command line: words of a shell, libvirt's log, or NUL-separated
    Argv,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum MapFormat {
    /// For a terminal
    Human,
    /// A picture for a ticket or a page
    Svg,
}

#[derive(Debug, Args)]
#[command(after_help = HOOK_HELP)]
pub(crate) struct HookArgs {
    /// Work on the system below this folder, as packages do
    #[arg(long, global = true, value_name = "DIR")]
    pub root: Option<PathBuf>,

    #[command(subcommand)]
    pub command: HookCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum HookCommand {
    /// Link the hook into libvirt's hook folder; hooks of others are left alone
    Install {
        /// The hook program; the one beside this program, or else in /usr/bin
        #[arg(long, value_name = "PATH")]
        program: Option<PathBuf>,

        /// Link even a program that others than root can change, or that is not linked statically
        #[arg(long)]
        force: bool,
    },
    /// Remove the link
    Uninstall,
    /// Say whether libvirt will run the hook; the exit status is 1 if it will not
    Status,
}

#[derive(Debug, Args)]
pub(crate) struct ExplainArgs {
    /// How to print what a text means
    #[arg(long, value_name = "FORMAT", default_value = "human")]
    pub format: ExplainFormat,

    /// A rule, as findings name it; a text, in one argument or several; or - for a log on standard input. Without it, the
    /// rules are listed
    #[arg(value_name = "RULE|TEXT|-", value_parser = RuleOrText, hide_possible_values = true)]
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    pub text: Vec<OsString>,
}

impl ExplainArgs {
    /// The names of rules.
    pub fn rules() -> PossibleValuesParser {
        PossibleValuesParser::new(RULES.iter().map(|rule| rule.id))
    }
}

/// Any words; for completions, the rules.
#[derive(Debug, Clone)]
struct RuleOrText;

impl TypedValueParser for RuleOrText {
    type Value = OsString;

    fn parse_ref(&self, _: &clap::Command, _: Option<&Arg>, value: &OsStr) -> Result<OsString, clap::Error> {
        Ok(value.to_owned())
    }

    fn possible_values(&self) -> Option<Box<dyn Iterator<Item = PossibleValue> + '_>> {
        Some(Box::new(RULES.iter().map(|rule| PossibleValue::new(rule.id))))
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ExplainFormat {
    /// For people
    Human,
    /// One JSON document
    Json,
}

const HOST_HELP: &str = "\
What is printed is a host profile: facts and, as comments, where each came from, and what follows where one is missing. \
`iova-preflight host > epyc.toml` keeps it, `iova-preflight check --host epyc.toml` evaluates for it on any machine. As \
root more is known: QEMU's machine types are in a folder that others cannot read.";

#[derive(Debug, Args)]
pub(crate) struct HostArgs {
    /// Describe the built-in profiles instead
    #[arg(long)]
    pub list: bool,

    /// How to print what is known
    #[arg(long, value_name = "FORMAT", default_value = "human")]
    pub format: HostFormat,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum HostFormat {
    /// A host profile, TOML with comments
    Human,
    /// One JSON document
    Json,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people
    Human,
    /// One JSON document
    Json,
    /// A JSON document for each guest, one on a line, written as they come
    Jsonl,
    /// SARIF 2.1.0, for code scanning services and editors
    Sarif,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Color {
    /// If standard output is a terminal and NO_COLOR is not set
    Auto,
    Always,
    Never,
}

impl Color {
    /// Applies to all output from here on.
    pub fn write_global(self) {
        match self {
            Self::Auto => anstream::ColorChoice::Auto,
            Self::Always => anstream::ColorChoice::Always,
            Self::Never => anstream::ColorChoice::Never,
        }
        .write_global();
    }
}
