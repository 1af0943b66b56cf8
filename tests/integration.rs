//! The programs and the library from outside, a module for each topic. `cargo test --test integration TOPIC` runs one.
//!
//! The tests run in one process: none changes its working directory, its environment or a limit of it.

mod common;

mod integration {
    mod adapters;
    mod advice;
    mod architecture;
    mod bar_inputs;
    mod bars;
    mod cases;
    mod ci_pipelines;
    mod command_lines;
    #[cfg(feature = "libvirt")]
    mod connect;
    mod corpus;
    mod differential;
    mod docs;
    mod explain;
    mod fix_corpus;
    mod fix_files;
    mod folders;
    mod found_files;
    mod golden;
    mod hook_install;
    mod hook_protocol;
    mod host;
    mod hostile;
    mod hosts;
    mod iommu_width;
    mod locked_memory;
    mod many;
    mod map;
    mod messages;
    mod migrations;
    mod monitoring;
    mod networks;
    mod nova;
    mod packages;
    mod policy;
    mod release;
    mod running;
    mod samples;
    mod sarif;
    mod schema;
    mod security;
    mod shown;
    mod snapshots;
    mod terminal;
    mod viommu;
    mod wellformed;
    mod without_libvirt;
}
