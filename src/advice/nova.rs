//! Nova: the machine type is kept with the instance, address bits are properties of image or flavor.

use super::{Advice, Wanted, Width, no_setting};
use crate::domain::Owner;
use crate::fix::{Change, Fix};
use crate::guest::Subject;
use crate::text::shell_word;

/// The first Nova with `hw_maxphysaddr_mode` (release notes of 29.0.0).
const FIRST_WITH_WIDTH: u32 = 29;

/// The instance keeps its flavor and the properties of its image from the time when it was made, so that for it they are
/// changed with `nova-manage` (`LibvirtCommands.update_machine_type` and `ImagePropertyCommands.set` in nova 34.0.0
/// `cmd/manage.py`, both only while it is stopped or shelved); image and flavor are for those that are made later.
pub(super) fn advise(subject: Subject<'_>, fix: &Fix) -> Advice {
    let wanted = Wanted::by(fix);
    let domain = subject.domain();
    let ownership = domain.and_then(|domain| domain.ownership.as_ref());
    let word =
        |value: Option<&String>, missing: &str| value.map_or_else(|| missing.to_owned(), |text| shell_word(text));
    let instance = word(domain.and_then(|domain| domain.uuid.as_ref()), "INSTANCE");
    let image = word(ownership.and_then(|ownership| ownership.image.as_ref()), "IMAGE");
    let flavor = word(ownership.and_then(|ownership| ownership.flavor.as_ref()), "FLAVOR");

    let (mut steps, mut properties) = (Vec::new(), Vec::new());
    if let Some(to) = wanted.machine {
        let force = if needs_force(subject.machine(), to) { " --force" } else { "" };
        steps.push(format!("nova-manage libvirt update_machine_type {instance} {to}{force}"));
        properties.push(format!("hw_machine_type={to}"));
    }
    let too_old = ownership.and_then(|ownership| ownership.release).filter(|&release| release < FIRST_WITH_WIDTH);
    let width = match (wanted.width, too_old) {
        (None, _) => Vec::new(),
        (Some(_), Some(release)) => {
            steps.push(format!(
                "Nova {release} has no property for address bits; {FIRST_WITH_WIDTH} and newer have one. Until then, \
                 only cpu_mode = \
                 host-passthrough in nova.conf of the compute host gives the host's"
            ));
            Vec::new()
        }
        (Some(Width::HostUpTo(bits)), None) => {
            steps.push(format!(
                "Nova cannot limit the host's address bits to {bits}: with cpu_mode host-model or custom in nova.conf of the \
                 compute host, hw_maxphysaddr_mode=emulate and hw_maxphysaddr_bits={bits} do"
            ));
            Vec::new()
        }
        (Some(Width::Bits(bits)), None) => vec!["mode=emulate".to_owned(), format!("bits={bits}")],
        (Some(Width::Host), None) => vec!["mode=passthrough".to_owned()],
    };
    let of_image: Vec<String> = width.iter().map(|setting| format!("hw_maxphysaddr_{setting}")).collect();
    if !width.is_empty() {
        steps.push(format!("nova-manage image_property set {instance}{}", options(&of_image)));
        let has_width = domain.and_then(|domain| domain.cpu.as_ref()).is_some_and(|cpu| cpu.maxphysaddr.is_some());
        if has_width {
            // `_get_guest_cpu_config_maxphysaddr` in nova 34.0.0 `virt/libvirt/driver.py` reads the flavor first.
            steps.push(
                "if its flavor has hw:maxphysaddr_mode, that wins: resize the instance to a flavor without it"
                    .to_owned(),
            );
        }
    }
    properties.extend(of_image);
    let unset = Wanted::told(fix, |change| {
        change.is_hole() || matches!(change, Change::DeviceAddress { .. } | Change::FreeAddress { .. })
    });
    steps.extend(no_setting(Owner::Nova, &unset));

    let mut later = Vec::new();
    if !properties.is_empty() {
        later.push(format!("openstack image set{} {image}", options(&properties)));
    }
    if !width.is_empty() {
        // From 2.86 on the API refuses properties that its validators do not list, and these are in none
        // (`FlavorExtraSpecsController._check_extra_specs_value` of nova 34.0.0, with or without the image's).
        let settings: Vec<String> = width.iter().map(|setting| format!("hw:maxphysaddr_{setting}")).collect();
        later.push(format!("openstack --os-compute-api-version 2.85 flavor set{} {flavor}", options(&settings)));
    }
    // Without a UUID, the instance does not exist yet.
    if domain.is_some_and(|domain| domain.uuid.is_none()) {
        steps.retain(|step| !step.starts_with("nova-manage"));
        steps.extend(later);
        return Advice { steps, later: Vec::new() };
    }
    if !steps.is_empty() {
        steps.insert(0, format!("openstack server stop {instance}"));
        steps.push(format!("openstack server start {instance}"));
    }
    Advice { steps, later }
}

fn options(settings: &[String]) -> String {
    settings.iter().map(|setting| format!(" --property {setting}")).collect()
}

/// Whether `nova-manage` takes the new type only with `--force` (`_check_machine_type_support` and
/// `_check_update_to_existing_type` in nova 34.0.0 `virt/libvirt/machine_type_utils.py`): it knows neither Ubuntu's types
/// nor those of RHEL 10, and does not go from an alias to a version.
pub(super) fn needs_force(from: Option<&str>, to: &str) -> bool {
    let version = to.strip_prefix("pc-q35-").or_else(|| to.strip_prefix("pc-i440fx-")).unwrap_or(to);
    let is_supported = match version.strip_prefix("rhel") {
        Some(release) => release.split('.').next().is_some_and(|major| major.len() == 1),
        None => version.starts_with(|c: char| c.is_ascii_digit()),
    };
    !is_supported || from.is_some_and(|from| matches!(from, "pc" | "q35"))
}
