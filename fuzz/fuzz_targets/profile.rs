//! Any text as a host profile and as a policy.

#![no_main]

use std::sync::LazyLock;

use iova_preflight::domain::{self, Domain};
use iova_preflight::host::{Described, Host, Profile};
use iova_preflight::policy::Policy;
use iova_preflight::verdict::evaluate;
use iova_preflight::xml::{Document, Location};
use libfuzzer_sys::fuzz_target;

/// A guest on which much depends on the host: large, with a device passed through.
static DOMAIN: LazyLock<Domain> = LazyLock::new(|| {
    let text = include_bytes!("../../xml-samples/old-machine-1200g-gpu.xml");
    domain::read(&Document::parse(text).expect("a sample is XML")).expect("a sample is a domain")
});

fuzz_target!(|bytes: &[u8]| {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let policy = Policy::from_toml(text);
    match &policy {
        Ok(policy) => drop(evaluate(&*DOMAIN, &Host::default(), policy)),
        Err(error) => assert_mistake(text, error.location, &error.message),
    }
    match Host::from_profile(text) {
        Ok(host) => {
            assert!(host.reserved.is_sorted_by(|a, b| a < b), "{:?}", host.reserved);
            assert!(host.reserved.iter().all(|reserved| reserved.range.start <= reserved.range.end));
            let ranges = host.unmappable([]);
            assert!(
                ranges.iter().all(|one| one.width().is_some() || host.reserved.iter().any(|r| r.range == one.range))
            );
            let first = evaluate(&*DOMAIN, &host, &Policy::default());
            let second = evaluate(&*DOMAIN, &host, &Policy::default());
            assert_eq!((first.verdict, &first.findings), (second.verdict, &second.findings));
            assert_written(&Profile::from_toml(text).expect("it was read above"));
        }
        Err(error) => assert_mistake(text, error.location, &error.message),
    }
});

/// A profile that is written reads as the same host.
fn assert_written(profile: &Profile) {
    let described = Described { profile: profile.clone(), ..Described::default() };
    let text: String = described.lines().iter().map(|line| format!("{line}\n")).collect();
    let read = Profile::from_toml(&text).unwrap_or_else(|error| panic!("{error}\n{text}"));
    let paths = profile.qemu.iter().chain(&profile.emulators).map(|emulator| emulator.path.as_deref());
    for path in paths.chain([None, Some("/unknown")]) {
        let (before, after) = (profile.host_for(path), read.host_for(path));
        for device in before.reserved_by_device.keys().map(String::as_str).chain(["0000:ff:00.0"]) {
            assert_eq!(before.unmappable([device]), after.unmappable([device]), "{device:?}\n{text}");
        }
        let without = |host: &Host| {
            let mut host = host.clone();
            host.reserved_by_device.clear();
            host
        };
        assert_eq!(without(&before), without(&after), "{path:?}\n{text}");
    }
}

fn assert_mistake(text: &str, place: Location, message: &str) {
    let lines = text.split('\n').count();
    assert!((1..=lines).contains(&place.line), "line {} of {lines}: {message}", place.line);
    let line = text.split('\n').nth(place.line - 1).unwrap_or_default();
    assert!((1..=line.chars().count() + 1).contains(&place.column), "column {}: {message}", place.column);
    assert!(!message.is_empty() && !message.contains('\n'), "{message:?}");
}
