//! What orchestrators run: scripts that run this program, where they go, and what is there.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use iova_preflight::io::file::{open_regular, read_open};
use iova_preflight::text::{printable, shell_word};

/// Where packages put this program.
pub(crate) const DEFAULT_PROGRAM: &str = "/usr/bin/iova-preflight";

/// A script of one orchestrator.
#[derive(Debug)]
pub(crate) struct Script {
    /// The command that puts it in place.
    pub command: &'static str,
    /// Where the orchestrator looks for it, without the slash of the root folder.
    pub path: &'static str,
    /// The folder without which the orchestrator is not installed.
    pub needs: Option<&'static str>,
    text: &'static str,
    /// The line that names the program, around it.
    line: (&'static str, &'static str),
}

const SHELL: (&str, &str) = ("program=", "\n");

/// VDSM's.
pub(crate) const VDSM: Script = Script {
    command: "iova-preflight adapter vdsm",
    path: "usr/libexec/vdsm/hooks/before_vm_start/50_iova_preflight",
    needs: Some("usr/libexec/vdsm"),
    text: include_str!("../../../../hooks/adapters/vdsm.sh"),
    line: SHELL,
};

/// KubeVirt's, in the image of a sidecar.
pub(crate) const KUBEVIRT: Script = Script {
    command: "iova-preflight adapter kubevirt",
    path: "usr/bin/onDefineDomain",
    needs: None,
    text: include_str!("../../../../hooks/adapters/kubevirt.sh"),
    line: SHELL,
};

/// CloudStack's, in Groovy.
pub(crate) const CLOUDSTACK_GROOVY: Script = Script {
    command: "iova-preflight adapter cloudstack",
    path: "etc/cloudstack/agent/hooks/libvirt-vm-xml-transformer.groovy",
    needs: Some("etc/cloudstack/agent"),
    text: include_str!("../../../../hooks/adapters/cloudstack.groovy"),
    line: ("    static final String PROGRAM = '", "'\n"),
};

/// CloudStack's, for a shell. The agent hands it what the one in Groovy made.
pub(crate) const CLOUDSTACK_SHELL: Script = Script {
    command: "iova-preflight adapter cloudstack",
    path: "etc/cloudstack/agent/hooks/libvirt-vm-xml-transformer.sh",
    needs: Some("etc/cloudstack/agent"),
    text: include_str!("../../../../hooks/adapters/cloudstack.sh"),
    line: SHELL,
};

/// OpenNebula's, on the front-end, in the place of its own.
pub(crate) const OPENNEBULA: Script = Script {
    command: "iova-preflight adapter opennebula",
    path: "var/lib/one/remotes/vmm/kvm/deploy",
    needs: Some("var/lib/one/remotes/vmm/kvm"),
    text: include_str!("../../../../hooks/adapters/opennebula.sh"),
    line: SHELL,
};

/// Proxmox VE's, in the storage `local`.
pub(crate) const PROXMOX: Script = Script {
    command: "iova-preflight adapter proxmox",
    path: "var/lib/vz/snippets/iova-preflight",
    needs: Some("etc/pve"),
    text: include_str!("../../../../hooks/adapters/proxmox.sh"),
    line: SHELL,
};

/// What is at the place of a script.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// Nothing.
    Nothing,
    /// One of ours.
    Ours {
        /// The program that it runs.
        program: PathBuf,
        /// Whether it is as this version writes it.
        current: bool,
    },
    /// Something that is not ours.
    Foreign,
}

impl Script {
    /// The script that runs `program`.
    ///
    /// # Errors
    /// The path cannot be written in it.
    pub fn text(&self, program: &Path) -> Result<String> {
        // One that is not UTF-8 or that a terminal acts on would be written as another.
        let name = program.to_str().filter(|name| printable(name) == *name);
        let Some(name) = name.filter(|name| self.line == SHELL || !name.contains(['\'', '\\'])) else {
            bail!("{}: a path with these characters does not work in the script", program.display());
        };
        let quoted = if self.line == SHELL { shell_word(name) } else { name.to_owned() };
        let line = |program: &str| format!("{}{program}{}", self.line.0, self.line.1);
        Ok(self.text.replacen(&line(DEFAULT_PROGRAM), &line(&quoted), 1))
    }

    /// Its place on the system below `root`.
    pub fn place(&self, root: &Path) -> PathBuf {
        root.join(self.path)
    }

    /// What is there.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn found(&self, root: &Path) -> Result<Found> {
        /// Bytes. A script is shorter.
        const MOST: usize = 1 << 20;
        let place = self.place(root);
        match std::fs::symlink_metadata(&place) {
            Ok(metadata) if !metadata.is_file() => return Ok(Found::Foreign),
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Found::Nothing),
            Err(error) => return Err(error).with_context(|| place.display().to_string()),
        }
        let bytes = open_regular(&place, libc::O_NOFOLLOW).and_then(|file| read_open(file, MOST));
        let bytes = bytes.with_context(|| place.display().to_string())?;
        Ok(self.recognised(&String::from_utf8_lossy(&bytes)))
    }

    /// What a text is. The first lines of ours name the command that it belongs to, in every version.
    fn recognised(&self, text: &str) -> Found {
        let mark = format!(" {}: ", self.command);
        if !text.lines().take(2).any(|line| line.starts_with(['#', '/']) && line.contains(&mark)) {
            return Found::Foreign;
        }
        let named = text.split_once(self.line.0).and_then(|(_, rest)| rest.split_once(self.line.1));
        let word = named.map_or("", |(word, _)| word);
        // As `shell_word` quotes.
        let quoted = word.strip_prefix('\'').and_then(|word| word.strip_suffix('\''));
        let program = PathBuf::from(quoted.map_or_else(|| word.to_owned(), |inner| inner.replace(r"'\''", "'")));
        let current = self.text(&program).is_ok_and(|ours| ours == text);
        Found::Ours { program, current }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;

    const ALL: [&Script; 6] = [&VDSM, &KUBEVIRT, &CLOUDSTACK_GROOVY, &CLOUDSTACK_SHELL, &OPENNEBULA, &PROXMOX];

    #[test]
    fn a_script_runs_the_program_it_is_made_for_and_is_recognised() {
        for script in ALL {
            for path in [DEFAULT_PROGRAM, "/opt/iova preflight/iova-preflight"] {
                let program = Path::new(path);
                let text = script.text(program).expect("it can be named");
                assert!(text.contains(path), "{text}");
                let expected = Found::Ours { program: program.to_owned(), current: true };
                assert_eq!(script.recognised(&text), expected);
                // One of another version.
                let older = text.replace("Whatever", "What ever");
                assert!(matches!(script.recognised(&older), Found::Ours { current, .. } if current == (older == text)));
            }
            for foreign in ["", "#!/bin/sh\nexec iova-preflight adapter\n", "#!/bin/bash\n\n# comment\n"] {
                assert_eq!(script.recognised(foreign), Found::Foreign, "{foreign}");
            }
        }
        assert!(CLOUDSTACK_GROOVY.text(Path::new("/opt/it's")).is_err());
        for path in ["/opt/it's/p", "/opt/''", "/opt/a'\\''b"] {
            let text = VDSM.text(Path::new(path)).expect("it can be named");
            assert_eq!(VDSM.recognised(&text), Found::Ours { program: path.into(), current: true }, "{path}");
        }
        for bytes in [&b"/opt/\xff/p"[..], b"/opt/\n/p", "/opt/\u{202e}/p".as_bytes()] {
            let path = Path::new(OsStr::from_bytes(bytes));
            assert!(ALL.iter().all(|script| script.text(path).is_err()), "{path:?}");
        }
    }
}
