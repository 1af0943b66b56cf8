//! The command line.

mod adapter;

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;

use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use clap::{Arg, ArgAction, Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use iova_preflight::domain::Owner;
use iova_preflight::rules::RULES;

pub(crate) use self::adapter::{AdapterArgs, AdapterCommand};

/// Headings of options in the help, in the order in which the commands use them.
const INPUT: &str = "Input";
const EVALUATION: &str = "Evaluation";
const OUTPUT: &str = "Output";
const FILES: &str = "Files";
const LIBVIRT: &str = "Guests of a libvirt";
const GLOBAL: &str = "Global options";

/// Find and fix guests that cannot start because of their memory map
///
/// Computes the guest-physical memory map that QEMU builds for a libvirt domain or a QEMU command line, and compares it
/// with what the host's IOMMU accepts. AMD hosts, for example, reserve 1012-1024 GiB for HyperTransport: a guest with PCI
/// passthrough and RAM there does not start.
#[derive(Debug, Parser)]
#[command(version, max_term_width = 100, disable_help_flag = true, disable_version_flag = true, args = flags())]
pub(crate) struct Cli {
    /// Use colours: auto, always or never
    ///
    /// With auto, output is coloured if it goes to a terminal and NO_COLOR is not set.
    #[arg(long, global = true, value_name = "WHEN", default_value = "auto", hide_possible_values = true)]
    #[arg(help_heading = GLOBAL)]
    pub color: Color,

    #[command(subcommand)]
    pub command: Command,
}

/// What clap would add by itself, below the heading of the other option that every command has.
fn flags() -> [Arg; 2] {
    [
        Arg::new("help")
            .short('h')
            .long("help")
            .action(ArgAction::Help)
            .global(true)
            .help_heading(GLOBAL)
            .help("Print this summary; --help prints the details")
            .long_help("Print this help; -h prints a summary"),
        Arg::new("version")
            .short('V')
            .long("version")
            .action(ArgAction::Version)
            .help_heading(GLOBAL)
            .help("Print the version"),
    ]
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Check domain XML, QEMU command lines or running guests
    #[command(after_help = CHECK_STATUS, after_long_help = CHECK_HELP)]
    #[command(mut_arg("paths", |paths| paths.required_unless_present("running")))]
    Check(CheckArgs),
    /// Rewrite guests so that they start
    ///
    /// Changes only what keeps a guest from starting; everything else stays byte for byte as it is.
    #[command(after_help = FIX_STATUS, after_long_help = FIX_HELP)]
    Fix(FixArgs),
    /// Draw the memory map of a guest, before and after a fix
    ///
    /// Shows RAM, device memory, the PCI hole, BARs, what the host reserves, and what collides.
    #[command(after_long_help = MAP_HELP)]
    Map(MapArgs),
    /// Explain a rule, an error message or a log
    #[command(after_long_help = EXPLAIN_HELP)]
    Explain(ExplainArgs),
    /// Install or remove the libvirt hook, or show its status
    Hook(HookArgs),
    /// Run, install or remove the hook of an orchestrator
    Adapter(AdapterArgs),
    /// Check guests as they are defined, and fix them if allowed
    ///
    /// A service: it evaluates all guests of a libvirt when it starts, and then each guest whenever it is defined.
    #[command(after_long_help = WATCH_HELP)]
    Watch(WatchArgs),
    /// Print the facts about this host as a profile for --host
    #[command(after_long_help = HOST_HELP)]
    Host(HostArgs),
    /// Print a completion script for a shell
    #[command(hide = true)]
    Completions {
        /// The shell
        shell: Shell,
    },
    /// Print the manual page, or write all pages into a folder
    #[command(hide = true)]
    Man {
        /// The folder for a page of each command; created if it does not exist
        #[arg(value_name = "DIR")]
        folder: Option<PathBuf>,
    },
}

const CHECK_STATUS: &str = "\
Exit status: 0 all guests may start; 1 some are fixable or blocked; 2 error";

const CHECK_HELP: &str = "\
Exit status: 0 every guest may start; 1 at least one guest is `fixable` or `blocked`; 2 at least one input could not be \
evaluated. 2 takes precedence over 1; every other input is still evaluated. With --from: 0 every guest \
migrates to every host and could be started there; 1 at least one guest does not. If standard output is closed before \
everything is printed, as by `| head`, the program ends by SIGPIPE, which shells show as 141.";

const FIX_STATUS: &str = "\
Exit status: 0 all guests may start; 1 some still do not; 2 error";

const FIX_HELP: &str = "\
With -, the domain or command line is printed on standard output: rewritten, or byte for byte as it was read if there is \
nothing to fix. Nothing is printed for a `blocked` guest or for an unreadable input, so that `… | virsh define` defines \
nothing.

Exit status: 0 every guest may start, as it was or rewritten; 1 at least one guest is `blocked`, or `fixable` and was \
not rewritten; 2 at least one input could not be evaluated or written.";

const EXPLAIN_HELP: &str = "\
A single word of letters and hyphens is the name of a rule. Anything else is text: an error message of QEMU, libvirt or \
the kernel, with or without quotes. Options go before or after the text. To read a log from standard input: \
`iova-preflight explain - < /var/log/libvirt/qemu/NAME.log`.

Exit status: 0 the rule, or a message in the text, is known; 1 no message in the text is known; 2 no rule has that name, \
or the log could not be read.";

const WATCH_HELP: &str = "\
Guests that would not start are reported on standard error, with priorities if that is the journal. With \
`rewrite = true` under `[watch]` in the policy, guests that can be fixed are redefined as by `fix --connect --domain`. \
Guests of Nova, oVirt, KubeVirt, CloudStack and OpenNebula, which regenerate the definition at each start, are left \
alone, and the report says where to change them; `owned = \"rewrite\"` in the policy redefines them too. Transient guests \
are left to the hook.

With --metrics, the file is replaced whenever all pending guests are done, and is readable for everyone. For the \
metrics and sample alert rules, see docs/monitoring.md in the sources. If the file cannot be written, that is reported on \
standard error and nothing else changes.

The service runs until SIGTERM or SIGINT; it reconnects when libvirt goes away.";

const MAP_HELP: &str = "\
Exit status: 0 a map was printed, whatever the findings; 2 there is no map, or the input could not be read.";

/// What `check` and `fix` both take.
#[derive(Debug, Args)]
pub(crate) struct CommonArgs {
    /// Files (domain XML or QEMU command line), folders, or - for stdin
    ///
    /// A file is domain XML if it begins with <, otherwise a QEMU command line. In a folder, every *.xml is read,
    /// recursively.
    #[arg(required_unless_present = "connect", value_name = "PATH")]
    pub paths: Vec<PathBuf>,

    /// Read input as xml or argv (QEMU command line)
    ///
    /// By default, an input that begins with < is XML, and anything else a command line: shell words, libvirt's log, or
    /// NUL-separated as in /proc/PID/cmdline.
    #[arg(long, value_name = "KIND", conflicts_with = "connect", help_heading = INPUT, hide_possible_values = true)]
    pub input: Option<InputKind>,

    /// Host profile: a file, folder or name; repeatable
    ///
    /// A profile is a TOML file (`iova-preflight host` prints one), a folder includes every *.toml in it, and the built-in
    /// profiles are amd-epyc, amd-turin-ht-ignore and intel-xeon. With several profiles, each guest is evaluated for each
    /// of these hosts, and a fix is one that all of them accept. Default: this host if its IOMMU is on, otherwise
    /// amd-epyc.
    #[arg(long, value_name = "PROFILE", help_heading = EVALUATION)]
    pub host: Vec<PathBuf>,

    /// Policy file, or none for the built-in defaults
    ///
    /// The policy says what a fix may change, and which guests count as passthrough guests. Default:
    /// /etc/iova-preflight/policy.toml if it exists.
    #[arg(long, value_name = "FILE", help_heading = EVALUATION)]
    pub policy: Option<PathBuf>,

    /// Phrase fixes for nova, kubevirt, proxmox, …
    ///
    /// One of libvirt, nova, vdsm (oVirt), kubevirt, cloudstack, opennebula and proxmox. Default: the orchestrator that
    /// the guest's <metadata> names, if it regenerates the definition at each start; otherwise libvirt.
    #[arg(long, value_name = "NAME", value_parser = Words::parser(), help_heading = EVALUATION)]
    #[arg(hide_possible_values = true)]
    pub advice: Option<Words>,

    /// Suppress all output except errors
    ///
    /// The exit status tells the verdict.
    #[arg(short, long, help_heading = OUTPUT)]
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

    /// Check the guests of this libvirt; repeatable
    ///
    /// For example qemu:///system. All its guests are evaluated, running or not.
    #[arg(long, value_name = "URI", conflicts_with = "paths", help_heading = INPUT)]
    pub connect: Vec<String>,

    /// Check only the guest with this name
    #[arg(long, value_name = "NAME", requires = "connect", conflicts_with = "paths", help_heading = INPUT)]
    pub domain: Option<String>,

    /// How long to wait for each libvirt
    ///
    /// A libvirt that has not listed all its guests after so many seconds is reported and skipped; the others are evaluated.
    #[arg(long, value_name = "SEC", requires = "connect", default_value = "60", help_heading = INPUT)]
    #[arg(value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub connect_timeout: u64,

    /// Check the QEMU processes of this host
    ///
    /// Would each of them start again, with the devices it has now? It does not matter what started them. Only root sees
    /// all of them.
    #[arg(long, conflicts_with_all = ["paths", "connect", "domain", "input"], help_heading = INPUT)]
    pub running: bool,

    /// Host the guests run on: can they migrate to --to?
    ///
    /// For each guest and each --to, says whether the running guest can migrate there, and whether it could be started
    /// there afterwards. With --connect, only running guests are checked.
    #[arg(long, value_name = "PROFILE", requires = "to", conflicts_with_all = ["host", "running"])]
    #[arg(help_heading = EVALUATION)]
    pub from: Option<PathBuf>,

    /// Host to migrate to; repeatable
    ///
    /// A folder includes every *.toml in it; the profile of --from is skipped.
    #[arg(long, value_name = "PROFILE", requires = "from", help_heading = EVALUATION)]
    pub to: Vec<PathBuf>,

    /// Print the memory map and notes of every guest
    ///
    /// With --from, no memory maps.
    #[arg(short, long, conflicts_with = "quiet", help_heading = OUTPUT)]
    pub verbose: bool,

    /// Guests to evaluate at once [default: one per CPU]
    #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    #[arg(help_heading = EVALUATION)]
    pub jobs: Option<u16>,

    /// Format: human, json, jsonl or sarif
    ///
    /// json is one document. jsonl is one JSON document per guest, each on a line, printed as guests are evaluated. sarif
    /// is SARIF 2.1.0, for code scanning services and editors.
    #[arg(long, value_name = "FORMAT", default_value = "human", help_heading = OUTPUT, hide_possible_values = true)]
    pub format: Format,
}

#[derive(Debug, Args)]
pub(crate) struct FixArgs {
    #[command(flatten)]
    pub common: CommonArgs,

    /// Print the changes and write nothing (the default)
    #[arg(long, conflicts_with = "in_place", help_heading = FILES)]
    pub diff: bool,

    /// Also fix warnings about BARs
    ///
    /// By default, guests that start are left alone.
    #[arg(long, help_heading = EVALUATION)]
    pub warnings: bool,

    /// Rewrite the files
    ///
    /// Each file is replaced atomically and keeps its mode, owner, access control list and SELinux label.
    #[arg(short, long, help_heading = FILES)]
    pub in_place: bool,

    /// Redefine a guest of this libvirt
    ///
    /// For example qemu:///system. The persistent definition changes at once; a running guest has to be shut down and started
    /// again.
    #[arg(long, value_name = "URI", conflicts_with_all = ["paths", "in_place"], requires = "domain")]
    #[arg(help_heading = LIBVIRT)]
    pub connect: Option<String>,

    /// The name of the guest
    #[arg(long, value_name = "NAME", requires = "connect", conflicts_with = "paths", help_heading = LIBVIRT)]
    pub domain: Option<String>,

    /// How long to wait for each answer
    ///
    /// If it does not answer within so many seconds when it is given the new definition, it is unknown which one is in
    /// place; the error says how to find out.
    #[arg(long, value_name = "SEC", requires = "connect", default_value = "60", help_heading = LIBVIRT)]
    #[arg(value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub connect_timeout: u64,

    /// Print the changes and redefine nothing
    #[arg(long, requires = "connect", conflicts_with = "paths", help_heading = LIBVIRT)]
    pub dry_run: bool,

    /// Redefine even if saved states break
    ///
    /// Redefine a guest although its managed save image or snapshots can no longer be restored, or although its
    /// orchestrator regenerates the definition at each start.
    #[arg(long, requires = "connect", conflicts_with = "paths", help_heading = LIBVIRT)]
    pub force: bool,

    /// Folder for the previous definition
    ///
    /// Default: /var/lib/iova-preflight for root, otherwise a folder in ~/.local/state.
    #[arg(long, value_name = "DIR", requires = "connect", conflicts_with = "paths", help_heading = LIBVIRT)]
    pub backup: Option<PathBuf>,
}

#[cfg_attr(not(feature = "libvirt"), allow(dead_code, reason = "only a program with libvirt can watch"))]
#[derive(Debug, Args)]
pub(crate) struct WatchArgs {
    /// The libvirt to watch
    #[arg(long, value_name = "URI", default_value = "qemu:///system")]
    pub connect: String,

    /// Host profile: a file or name
    ///
    /// A TOML file (`iova-preflight host` prints one), or the name of a built-in profile. Default: the host that libvirt
    /// runs on.
    #[arg(long, value_name = "PROFILE")]
    pub host: Option<PathBuf>,

    /// Policy file, or none for the built-in defaults
    ///
    /// Default: /etc/iova-preflight/policy.toml if it exists.
    #[arg(long, value_name = "FILE")]
    pub policy: Option<PathBuf>,

    /// Folder for previous definitions
    ///
    /// Default: /var/lib/iova-preflight for root, otherwise a folder in ~/.local/state.
    #[arg(long, value_name = "DIR")]
    pub backup: Option<PathBuf>,

    /// Write metrics for Prometheus to this .prom file
    ///
    /// For the textfile collector of Prometheus' node exporter, which reads files whose names end in .prom.
    #[arg(long, value_name = "FILE", value_parser = metrics_file)]
    pub metrics: Option<PathBuf>,
}

/// A file that the node exporter reads.
fn metrics_file(text: &str) -> Result<PathBuf, &'static str> {
    let path = PathBuf::from(text);
    let is_read = path.extension().is_some_and(|extension| extension == "prom");
    is_read.then_some(path).ok_or("the node exporter only reads files whose names end in .prom")
}

const HOOK_HELP: &str = "\
libvirt runs the program iova-preflight-hook; these commands only put it in place.";

#[derive(Debug, Args)]
pub(crate) struct MapArgs {
    /// A file (domain XML or QEMU command line), or - for stdin
    #[arg(value_name = "PATH")]
    pub path: PathBuf,

    /// Read input as xml or argv (QEMU command line)
    ///
    /// By default, an input that begins with < is XML, and anything else a command line.
    #[arg(long, value_name = "KIND", hide_possible_values = true)]
    pub input: Option<InputKind>,

    /// Host profile: a file or name
    ///
    /// A TOML file (`iova-preflight host` prints one), or one of amd-epyc, amd-turin-ht-ignore and intel-xeon. Default:
    /// this host if its IOMMU is on, otherwise amd-epyc.
    #[arg(long, value_name = "PROFILE")]
    pub host: Option<PathBuf>,

    /// Policy file, or none for the built-in defaults
    ///
    /// The policy says what a fix may change. Default: /etc/iova-preflight/policy.toml if it exists.
    #[arg(long, value_name = "FILE")]
    pub policy: Option<PathBuf>,

    /// Format: human (for a terminal) or svg
    #[arg(long, value_name = "FORMAT", default_value = "human", hide_possible_values = true)]
    pub format: MapFormat,
}

/// What an input is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum InputKind {
    /// libvirt domain XML
    Xml,
    /// A QEMU command line: shell words, libvirt's log, or NUL-separated
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
#[command(after_long_help = HOOK_HELP)]
pub(crate) struct HookArgs {
    /// Work on the system in this folder instead of /
    #[arg(long, global = true, value_name = "DIR")]
    pub root: Option<PathBuf>,

    #[command(subcommand)]
    pub command: HookCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum HookCommand {
    /// Link the hook into libvirt's hook folder
    ///
    /// Other hooks are left alone.
    Install {
        /// The hook program to link to
        ///
        /// Default: iova-preflight-hook in the folder of this program, or else in /usr/bin.
        #[arg(long, value_name = "PATH")]
        program: Option<PathBuf>,

        /// Link even a program that is not safe as a hook
        ///
        /// That is a program that users other than root can change, or that is not statically linked.
        #[arg(long)]
        force: bool,
    },
    /// Remove the link
    Uninstall,
    /// Say whether libvirt will run the hook (exit status 1: no)
    Status,
}

#[derive(Debug, Args)]
pub(crate) struct ExplainArgs {
    /// Format: human or json
    #[arg(long, value_name = "FORMAT", default_value = "human", hide_possible_values = true)]
    pub format: ExplainFormat,

    /// A rule, an error message, or - for a log on stdin
    ///
    /// Without an argument, all rules are listed.
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
The output is a host profile in TOML. Its comments say where each fact was found, and what an unknown fact means for the \
verdicts. `iova-preflight host > epyc.toml` saves it; `iova-preflight check --host epyc.toml` uses it on any machine. Run \
it as root: QEMU's machine types are in a folder that other users cannot read.";

#[derive(Debug, Args)]
pub(crate) struct HostArgs {
    /// Describe the built-in profiles instead
    #[arg(long)]
    pub list: bool,

    /// Format: human (TOML) or json
    #[arg(long, value_name = "FORMAT", default_value = "human", hide_possible_values = true)]
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
    /// One JSON document per guest, each on a line
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
