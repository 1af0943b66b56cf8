//! Hooks of others that run ours.

use std::io::Read;
use std::path::{Path, PathBuf};

use iova_preflight::io::file::open_regular;
use iova_preflight::text::shell_word;

use super::places::{PROGRAM, places, programs};

/// Runs the hook and then the one that was there before, if libvirt runs only one.
const SCRIPT: &str = include_str!("../../../../hooks/chain.sh");

/// Where [`SCRIPT`] expects the hook.
const USUAL_PROGRAM: &str = "hook=/usr/bin/iova-preflight-hook\n";

/// The script that runs `program` and then the hook that was there before.
pub(crate) fn script(program: &Path) -> String {
    SCRIPT.replacen(USUAL_PROGRAM, &format!("hook={}\n", shell_word(&program.display().to_string())), 1)
}

/// The program that `hook` runs, if it is the script.
pub(crate) fn program(hook: &Path) -> Option<PathBuf> {
    let text = String::from_utf8(text(hook)?).ok()?;
    let word = text.lines().find_map(|line| line.strip_prefix("hook="))?;
    let program = PathBuf::from(word.trim_matches('\''));
    (text == script(&program)).then_some(program)
}

/// The hooks below `root` that name our program and are not links to it.
pub(crate) fn mentions(root: &Path) -> Vec<PathBuf> {
    // A hook that cannot be read counts as not naming it.
    let mentions = |hook: &PathBuf| {
        text(hook).is_some_and(|text| text.windows(PROGRAM.len()).any(|window| window == PROGRAM.as_bytes()))
    };
    let [in_folder, _] = places(root);
    let mut hooks = programs(root, &in_folder);
    hooks.sort();
    hooks.retain(mentions);
    hooks
}

/// The text of a hook, up to the length of a script; `None` if it cannot be read.
fn text(hook: &Path) -> Option<Vec<u8>> {
    /// Bytes. A script is shorter.
    const MOST: u64 = 1 << 20;
    let mut text = Vec::new();
    open_regular(hook, 0).ok()?.take(MOST).read_to_end(&mut text).ok()?;
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_script_runs_the_program_it_is_made_for() {
        let script = script(Path::new("/opt/it's/iova-preflight-hook"));
        assert!(script.contains("\nhook='/opt/it'\\''s/iova-preflight-hook'\n"), "{script}");
    }
}
