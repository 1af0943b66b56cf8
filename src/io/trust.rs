//! Whether only root can change a file: whoever can change a program that root runs, or a file that it obeys, can
//! become root.

use std::ffi::OsString;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};

/// How many links may lead from one to the next (`MAXSYMLINKS` in the kernel's `include/linux/namei.h`).
const MAX_LINKS: usize = 40;

/// `S_ISVTX`: in such a folder, only the owner of a file can put another in its place.
const STICKY: u32 = 0o1000;

/// The first part of `path` that users other than root can change: the file, a folder above it, or a link on the way;
/// `None` if only root can change it.
///
/// `root` is the folder that is `/` to these files. If it is not that of this process, its owner counts as root.
///
/// # Errors
/// `path` leads nowhere, or cannot be followed.
pub fn changeable_by_others(root: &Path, path: &Path) -> io::Result<Option<PathBuf>> {
    let owner = if root == Path::new("/") { 0 } else { std::fs::metadata(root)?.uid() };
    let is_roots = |metadata: &std::fs::Metadata| {
        let writable = metadata.mode() & 0o022 != 0;
        metadata.uid() == owner && (!writable || metadata.is_dir() && metadata.mode() & STICKY != 0)
    };
    if !is_roots(&std::fs::metadata(root)?) {
        return Ok(Some(root.to_owned()));
    }
    let mut here = root.to_owned();
    let mut below = 0_usize;
    let mut links = 0;
    // The parts left to walk, the next one last.
    let mut ahead: Vec<OsString> = parts(path);
    while let Some(part) = ahead.pop() {
        match Path::new(&part).components().next() {
            Some(Component::RootDir) => (here, below) = (root.to_owned(), 0),
            Some(Component::ParentDir) if below > 0 => {
                here.pop();
                below -= 1;
            }
            Some(Component::Normal(name)) => {
                let next = here.join(name);
                let metadata = std::fs::symlink_metadata(&next)?;
                if metadata.is_symlink() {
                    links += 1;
                    if links > MAX_LINKS {
                        return Err(io::Error::from_raw_os_error(libc::ELOOP));
                    }
                    // The mode of a link has no meaning.
                    if metadata.uid() != owner {
                        return Ok(Some(next));
                    }
                    ahead.extend(parts(&std::fs::read_link(&next)?));
                    continue;
                }
                if !is_roots(&metadata) {
                    return Ok(Some(next));
                }
                (here, below) = (next, below + 1);
            }
            _ => {}
        }
    }
    Ok(None)
}

/// The parts of a path, the first last.
fn parts(path: &Path) -> Vec<OsString> {
    path.components().rev().map(|part| part.as_os_str().to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt, symlink};

    #[test]
    fn folders_links_and_the_file_itself_count() {
        let root = std::env::temp_dir().join(format!("iova-preflight-trust-{}", std::process::id()));
        let (bin, opt) = (root.join("usr/bin"), root.join("opt"));
        let mode = |path: &Path, mode: u32| {
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).expect("a mode");
        };
        for folder in [&bin, &opt] {
            std::fs::create_dir_all(folder).expect("folders");
        }
        for folder in [&root, &root.join("usr"), &bin, &opt] {
            mode(folder, 0o755);
        }
        let program = bin.join("program");
        std::fs::write(&program, "").expect("a file");
        mode(&program, 0o755);
        symlink("/usr/bin/program", opt.join("absolute")).expect("a link");
        symlink("../usr/bin/../bin/program", opt.join("relative")).expect("a link");
        symlink("loop", opt.join("loop")).expect("a link");
        let found = |path: &str| changeable_by_others(&root, Path::new(path)).expect("is there");

        for path in ["/usr/bin/program", "/opt/absolute", "/opt/relative", "/../usr/./bin/program"] {
            assert_eq!(found(path), None, "{path}");
        }
        for (changed, to, back) in
            [(&program, 0o775, 0o755), (&bin, 0o777, 0o755), (&root.join("usr"), 0o775, 0o755), (&root, 0o777, 0o755)]
        {
            mode(changed, to);
            assert_eq!(found("/opt/relative").as_ref(), Some(changed));
            mode(changed, back);
        }
        // Like /tmp: others can add files, but not replace those of another user.
        mode(&bin, 0o1777);
        assert_eq!(found("/usr/bin/program"), None);
        mode(&opt, 0o777);
        assert_eq!(found("/opt/absolute"), Some(opt.clone()));
        mode(&opt, 0o755);
        if super::super::file::user() == Some(0) {
            std::os::unix::fs::lchown(opt.join("relative"), Some(1234), None).expect("root gives links away");
            assert_eq!(found("/opt/relative"), Some(opt.join("relative")));
        }
        let error = |path: &str| changeable_by_others(&root, Path::new(path)).expect_err("leads nowhere");
        assert_eq!(error("/opt/loop").raw_os_error(), Some(libc::ELOOP));
        assert_eq!(error("/opt/missing").kind(), io::ErrorKind::NotFound);
        std::fs::remove_dir_all(root).expect("removed");
    }
}
