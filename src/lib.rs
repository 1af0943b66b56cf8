//! Tells, before QEMU starts, whether a guest with PCI passthrough collides with what the host's IOMMU reserves.
//!
//! AMD hosts reserve the range 0xfd_0000_0000 to 0xff_ffff_ffff, HyperTransport, just below 1 TiB. This library reads a
//! libvirt domain, works out the guest-physical memory map that QEMU will build, compares the two, and rewrites the
//! domain so that the guest starts:
//!
//! ```
//! use iova_preflight::{Document, Policy, Verdict, builtin_host, evaluate, read_domain, rewrite};
//!
//! let xml = "<domain type='kvm'><memory unit='GiB'>1200</memory>\
//!            <os><type arch='x86_64' machine='pc-q35-6.2'>hvm</type></os><cpu mode='host-passthrough'/>\
//!            <devices><hostdev type='pci'><source><address bus='0x41'/></source></hostdev></devices></domain>";
//! let document = Document::parse(xml.as_bytes())?;
//! let domain = read_domain(&document)?;
//! let host = builtin_host("amd-epyc").ok_or("no such profile")?;
//! let evaluation = evaluate(&domain, &host, &Policy::default());
//! assert_eq!(evaluation.verdict, Verdict::Fixable);
//! let fixed = rewrite(&document, &evaluation.fix.ok_or("no fix")?)?;
//! assert_eq!(fixed, xml.replace("pc-q35-6.2", "pc-q35-7.1"));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! A guest that libvirt does not start is read from the command line of its QEMU:
//!
//! ```
//! # #[cfg(feature = "cli")] {
//! use iova_preflight::{Call, Launch, Policy, Verdict, builtin_host, evaluate, rewrite_call};
//!
//! let text = "qemu-system-x86_64 -M pc-q35-6.2 -m 1200G -cpu EPYC,phys-bits=48 -device vfio-pci,host=41:00.0";
//! let call = Call::read(text.as_bytes())?;
//! let launch = Launch::read(&call);
//! let host = builtin_host("amd-epyc").ok_or("no such profile")?;
//! let evaluation = evaluate(&launch, &host, &Policy::default());
//! assert_eq!(evaluation.verdict, Verdict::Fixable);
//! let fixed = rewrite_call(&call, &launch, &evaluation.fix.ok_or("no fix")?)?;
//! assert_eq!(fixed, text.replace("pc-q35-6.2", "pc-q35-7.1"));
//! # }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # What is promised
//!
//! The names on this page, in the way Cargo's rules for versions ask for: within 0.x, a release that breaks them raises
//! the minor version. Structures and enumerations to which something will be added are `#[non_exhaustive]`. What a
//! verdict means and how a rule is called stays for ever. All of it is pure: text in, values out; nothing here reads a
//! file, a clock or the environment.
//!
//! The modules that are public and hidden are for the programs of this package and its tests. They are not promised.
//!
//! Arithmetic is checked: a size or an address that passes 64 bits is a finding and not a wrong number.

#![cfg_attr(not(test), deny(clippy::arithmetic_side_effects))]

#[cfg(feature = "cli")]
#[doc(hidden)]
pub mod adapter;
#[doc(hidden)]
pub mod address;
#[cfg(feature = "cli")]
#[doc(hidden)]
pub mod advice;
#[cfg(feature = "cli")]
#[doc(hidden)]
pub mod argv;
#[doc(hidden)]
pub mod command_line;
#[doc(hidden)]
pub mod decision;
#[doc(hidden)]
pub mod domain;
mod evaluate;
#[cfg(feature = "cli")]
#[doc(hidden)]
pub mod explain;
#[doc(hidden)]
pub mod finding;
#[cfg(feature = "cli")]
#[doc(hidden)]
pub mod firmware;
#[doc(hidden)]
pub mod fix;
mod guest;
#[doc(hidden)]
pub mod host;
#[doc(hidden)]
pub mod io;
#[doc(hidden)]
pub mod libvirt;
#[doc(hidden)]
pub mod machine;
#[cfg(feature = "cli")]
#[doc(hidden)]
pub mod messages;
#[cfg(feature = "cli")]
#[doc(hidden)]
pub mod migration;
#[cfg(feature = "cli")]
#[doc(hidden)]
pub mod mmio64;
#[doc(hidden)]
pub mod policy;
#[cfg(feature = "cli")]
#[doc(hidden)]
pub mod process;
#[doc(hidden)]
pub mod qemu;
#[doc(hidden)]
pub mod report;
#[doc(hidden)]
pub mod rules;
#[doc(hidden)]
pub mod text;
#[doc(hidden)]
pub mod verdict;
#[doc(hidden)]
pub mod version;
#[doc(hidden)]
pub mod xml;

pub use address::GpaRange;
#[cfg(feature = "cli")]
pub use argv::{Call, CallError};
#[cfg(feature = "cli")]
pub use command_line::Launch;
pub use domain::{Domain, ReadError, read as read_domain};
pub use evaluate::Facts;
pub use finding::{Finding, Label, Severity};
pub use fix::rewrite::rewrite;
#[cfg(feature = "cli")]
pub use fix::rewrite::rewrite_call;
pub use fix::{Change, Fix};
pub use guest::Subject;
pub use host::{Host, Iommu, Profile, ProfileError, Reserved, ReservedKind, builtin as builtin_host};
pub use machine::Family;
pub use policy::{
    AdapterPolicy, AliasPolicy, MachineUpgrade, Mode, OnInternalError, OverridePolicy, OwnedPolicy, PassthroughPolicy,
    PeerToPeer, PhysBitsPolicy, Policy, PolicyError, WatchPolicy,
};
pub use qemu::layout::Layout;
pub use verdict::{Evaluation, Verdict, evaluate};
pub use version::{Version, VersionError};
pub use xml::edit::EditError;
pub use xml::{Document, Location, Span, XmlError};
