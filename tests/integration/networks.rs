//! Interfaces to networks of libvirt's: whether one gives the guest a PCI function is looked up if possible.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::common::{samples_folder, work_dir};

/// The sample whose interface belongs to the network `sriov-pool`, as libvirt keeps it, with that network beside it.
fn domain_beside(name: &str, network: &str) -> PathBuf {
    let folder = work_dir(name);
    let domain = folder.join("db-11.xml");
    std::fs::copy(samples_folder().join("network-pool-1200g.xml"), &domain).expect("copy the sample");
    if !network.is_empty() {
        std::fs::create_dir(folder.join("networks")).expect("create a folder");
        // Not by its name: libvirt's tools name it so, and people do not.
        std::fs::write(folder.join("networks/a.xml"), network).expect("write the network");
    }
    domain
}

fn guest(domain: &Path) -> Value {
    let output = Command::new(env!("CARGO_BIN_EXE_iova-preflight"))
        .args(["check", "--policy", "none", "--host", "amd-epyc", "--format", "json"])
        .arg(domain)
        .output()
        .expect("run iova-preflight");
    let document: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    document["guests"][0].clone()
}

fn rules(guest: &Value) -> Vec<&str> {
    guest["findings"].as_array().expect("findings").iter().filter_map(|finding| finding["rule"].as_str()).collect()
}

fn network(forward: &str) -> String {
    format!("<network>\n  <name>sriov-pool</name>\n  {forward}\n</network>\n")
}

#[test]
fn a_pool_of_functions_is_a_passthrough_device() {
    let pool = network("<forward mode='hostdev' managed='yes'><pf dev='enp65s0f0'/></forward>");
    let domain = domain_beside("networks-pool", &pool);
    let guest = guest(&domain);
    assert_eq!(guest["verdict"], "fixable", "{guest:#}");
    assert_eq!(rules(&guest), ["ram-in-reserved-range"]);
    assert_eq!(guest["passthrough"][0]["kind"], "vfio-pci");
    assert_eq!(guest["fix"]["changes"][0], "machine pc-q35-6.2 → pc-q35-7.1");
    // And as a part of a folder, in which the network is passed over.
    let output = Command::new(env!("CARGO_BIN_EXE_iova-preflight"))
        .args(["fix", "--policy", "none", "--host", "amd-epyc", "--in-place"])
        .arg(domain.parent().expect("a folder"))
        .output()
        .expect("run iova-preflight");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(std::fs::read_to_string(&domain).expect("the domain").contains("machine='pc-q35-7.1'"));
}

#[test]
fn other_networks_are_not_passthrough_devices() {
    for (name, forward) in [("networks-nat", "<forward mode='nat'/>"), ("networks-isolated", "")] {
        let guest = guest(&domain_beside(name, &network(forward)));
        assert_eq!((&guest["verdict"], rules(&guest)), (&"warn".into(), vec!["ram-in-reserved-range"]), "{name}");
        assert_eq!(guest["passthrough"].as_array().map(Vec::len), Some(0));
    }
}

#[test]
fn networks_that_cannot_be_looked_up_are_named() {
    let other = network("<forward mode='hostdev'/>").replace("sriov-pool", "another");
    for (name, network) in [("networks-none", ""), ("networks-other", other.as_str()), ("networks-broken", "<network>")]
    {
        let guest = guest(&domain_beside(name, network));
        assert_eq!(guest["verdict"], "warn", "{name}");
        assert_eq!(rules(&guest), ["ram-in-reserved-range", "dma-not-visible"], "{name}");
    }
    // Where no memory lies in a reserved range, there is nothing to say.
    let domain = domain_beside("networks-moved", "");
    let text = std::fs::read_to_string(&domain).expect("the domain").replace("pc-q35-6.2", "pc-q35-7.2");
    std::fs::write(&domain, text).expect("write the domain");
    assert_eq!(guest(&domain)["verdict"], "pass");
}
