//! libvirt's virtual networks: which of them give a guest a PCI function.

use std::collections::BTreeMap;

use crate::xml::Document;

/// Networks by name; whether each hands out PCI functions of the host.
pub type Networks = BTreeMap<String, bool>;

/// The name of the network in `document`, and whether it hands out PCI functions through VFIO
/// (`<forward mode='hostdev'>`, `virNetworkForwardDefParseXML` of libvirt `src/conf/network_conf.c`); `None` if it is not
/// a network. Its state, as libvirt keeps it in `/run`, holds one too.
pub fn read_network(document: &Document<'_>) -> Option<(String, bool)> {
    let root = document.root();
    let network = if root.name() == "networkstatus" { root.child("network")? } else { root };
    if network.name() != "network" || root.namespace().is_some() {
        return None;
    }
    let name = network.child("name")?.text().into_owned();
    let hands_out = network.child("forward").is_some_and(|forward| {
        let driver = forward.child("driver").and_then(|driver| driver.value("name"));
        forward.value("mode") == Some("hostdev") && driver.is_none_or(|name| name == "vfio")
    });
    Some((name, hands_out))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_pool_of_functions_hands_them_out() {
        let read = |xml: &str| read_network(&Document::parse(xml.as_bytes()).expect("well-formed"));
        let forward = |forward: &str| format!("<network><name>a</name>{forward}</network>");
        for (xml, hands_out) in [
            (forward("<forward mode='hostdev' managed='yes'><pf dev='eth3'/></forward>"), true),
            (forward("<forward mode='hostdev'><driver name='vfio'/></forward>"), true),
            (forward("<forward mode='hostdev'><driver name='kvm'/></forward>"), false),
            (forward("<forward mode='nat'/>"), false),
            (forward(""), false),
            (format!("<networkstatus>{}</networkstatus>", forward("<forward mode='hostdev'/>")), true),
        ] {
            assert_eq!(read(&xml), Some(("a".to_owned(), hands_out)), "{xml}");
        }
        assert_eq!(read("<pool><name>a</name></pool>"), None);
        assert_eq!(read("<network/>"), None);
    }
}
