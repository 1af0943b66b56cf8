//! Any words and any domain as a call of the hook: the first line is operation and sub-operation, the rest the XML.

#![no_main]

use std::sync::LazyLock;

use iova_preflight::decision::{Decision, Operation, decide, is_exempt, is_out_of_reach, salvage_on_internal_error};
use iova_preflight::domain::{self, Domain};
use iova_preflight::host::{Host, builtin};
use iova_preflight::policy::{OnInternalError, Policy};
use iova_preflight::xml::Document;
use libfuzzer_sys::fuzz_target;

/// Hosts on which guests are stopped, one for each kind of QEMU, and one about which nothing is known.
static HOSTS: LazyLock<Vec<Host>> = LazyLock::new(|| {
    let epyc = |qemu: &str| {
        let mut host = builtin("amd-epyc").expect("a built-in profile");
        host.qemu = qemu.parse().ok();
        host
    };
    vec![epyc("7.2"), epyc("6.2"), epyc("11.1"), Host::default()]
});

/// Policies under which guests are stopped, and one under which none is.
static POLICIES: LazyLock<Vec<Policy>> = LazyLock::new(|| {
    ["", "passthrough = 'assume'", "machine_upgrade = 'never'\nphys_bits = 'never'", "mode = 'warn'"]
        .map(|text| Policy::from_toml(text).expect("a policy"))
        .into()
});

const ALL: [Operation; 4] = [Operation::Prepare, Operation::Start, Operation::Migrate, Operation::Restore];

fuzz_target!(|bytes: &[u8]| {
    check_salvage(bytes);
    let (words, xml) = match bytes.iter().position(|byte| *byte == b'\n') {
        Some(end) => (&bytes[..end], &bytes[end + 1..]),
        None => (bytes, &[][..]),
    };
    let words = String::from_utf8_lossy(words);
    let (operation, sub_operation) = words.split_once(' ').unwrap_or((&words, ""));
    if Operation::parse(operation, sub_operation).is_some() {
        assert!(matches!(&*words, "prepare begin" | "start begin" | "migrate begin" | "restore begin"), "{words:?}");
    }
    let Ok(document) = Document::parse(xml) else { return };
    let Ok(domain) = domain::read(&document) else { return };
    for policy in POLICIES.iter() {
        assert!(!is_exempt(policy, &domain.name, domain.uuid.as_deref()), "a policy without exemptions exempts");
        for host in HOSTS.iter() {
            check_decisions(&domain, host, policy, is_out_of_reach(&domain, policy));
        }
    }
});

fn check_decisions(domain: &Domain, host: &Host, policy: &Policy, out_of_reach: bool) {
    let decisions = ALL.map(|operation| decide(operation, domain, host, policy));
    let [prepare, later @ ..] = &decisions;
    // What is certain at `prepare` is as certain at the later operations.
    if is_block(prepare) {
        assert!(later.iter().all(is_block), "stopped at prepare only: {decisions:?}");
    }
    for decision in &decisions {
        if let Decision::Allow { log: Some(line) } | Decision::Block { message: line } = decision {
            assert!(!line.is_empty() && !line.contains(char::is_control), "{line:?}");
            assert!(line.starts_with("guest "), "{line:?}");
            assert!(line.len() < 16 * 1024, "{} bytes: {line:.400}", line.len());
        }
        if let Decision::Block { message } = decision {
            assert!(!out_of_reach, "what is let through unseen would be stopped: {message}");
            assert_ne!(policy, &POLICIES[3], "stopped where the policy says warn: {message}");
        }
    }
}

fn is_block(decision: &Decision) -> bool {
    matches!(decision, Decision::Block { .. })
}

/// The setting read from a broken policy equals that of the readable one.
fn check_salvage(bytes: &[u8]) {
    let salvaged = salvage_on_internal_error(bytes);
    let policy = std::str::from_utf8(bytes).ok().and_then(|text| Policy::from_toml(text).ok());
    if policy.is_some_and(|policy| policy.on_internal_error == OnInternalError::Allow) {
        let says_otherwise = bytes.windows(5).any(|word| word == b"block");
        assert!(salvaged == OnInternalError::Allow || says_otherwise, "salvaged what is not there");
    }
}
