//! `fix --in-place` on files that others can change, and the attributes that it must keep.

use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, lchown, symlink};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::{code, command, fixable, fixed, names, read, run, stderr, stdout, write};
use crate::common::{end_of, note, skip, work_dir};

/// Somebody who is not root.
const SOMEBODY: u32 = 1234;

fn is_root() -> bool {
    std::fs::metadata("/proc/self").is_ok_and(|process| process.uid() == 0)
}

fn set_mode(path: &Path, mode: u32) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).expect("a mode");
}

/// An access control list as the kernel keeps it (`include/uapi/linux/posix_acl_xattr.h`): the owner and `SOMEBODY` may
/// read and write, others nothing.
fn access_control_list() -> Vec<u8> {
    const ANYBODY: u32 = u32::MAX;
    let mut list = 2_u32.to_le_bytes().to_vec();
    for (tag, permissions, id) in
        [(0x01_u16, 6_u16, ANYBODY), (0x02, 6, SOMEBODY), (0x04, 0, ANYBODY), (0x10, 6, ANYBODY), (0x20, 0, ANYBODY)]
    {
        list.extend(tag.to_le_bytes().into_iter().chain(permissions.to_le_bytes()).chain(id.to_le_bytes()));
    }
    list
}

#[test]
fn in_place_keeps_access_control_list_label_and_attributes() {
    const ACCESS: &str = "system.posix_acl_access";
    let folder = work_dir("fix-attributes");
    let path = write(&folder, "a.xml", &fixable());
    let mut expected = vec![(ACCESS, access_control_list()), ("user.note", b"keep me".to_vec())];
    if xattr::set(&path, "user.note", b"keep me").is_err() || xattr::set(&path, ACCESS, &expected[0].1).is_err() {
        return skip("this file system has no access control lists or extended attributes");
    }
    // What SELinux keeps; without SELinux, only root may write it.
    let label = b"system_u:object_r:virt_etc_t:s0\0";
    if xattr::set(&path, "security.selinux", label).is_ok() {
        expected.push(("security.selinux", label.to_vec()));
    }
    let output = run(&folder, &["-i", "a.xml"]);
    assert_eq!((code(&output), read(&path)), (0, fixed()), "{}", stderr(&output));
    for (name, value) in &expected {
        assert_eq!(xattr::get(&path, name).expect("readable").as_deref(), Some(&value[..]), "{name}");
    }
    assert_eq!(
        std::fs::metadata(&path).expect("there").mode() & 0o7777,
        0o660,
        "the mask must not become the group's right"
    );
    assert_eq!(names(&folder), ["a.xml"]);

    // What a new file in this folder would get is not what this one has.
    xattr::set(&folder, "system.posix_acl_default", &access_control_list()).expect("a default list");
    let plain = write(&folder, "b.xml", &fixable());
    xattr::remove(&plain, ACCESS).expect("it got one");
    set_mode(&plain, 0o640);
    assert_eq!(code(&run(&folder, &["-i", "b.xml"])), 0);
    assert_eq!((xattr::get(&plain, ACCESS).expect("readable"), read(&plain)), (None, fixed()));
    assert_eq!(std::fs::metadata(&plain).expect("there").mode() & 0o7777, 0o640);
}

#[test]
fn hard_links_are_not_taken_apart() {
    let folder = work_dir("fix-hard-links");
    let path = write(&folder, "a.xml", &fixable());
    let other = folder.join("other");
    std::fs::hard_link(&path, &other).expect("a second name");
    for arguments in [["-i", "a.xml"], ["-i", "."]] {
        let output = run(&folder, &arguments);
        assert!(code(&output) == 2 && stderr(&output).contains("2 hard links"), "{}", stderr(&output));
        assert_eq!((read(&path), read(&other)), (fixable(), fixable()));
    }
    assert_eq!(names(&folder), ["a.xml", "other"]);
    // A run that does not write has no reason to refuse.
    assert_eq!(code(&run(&folder, &["a.xml"])), 1);
}

#[test]
fn links_of_others_are_not_followed() {
    if !is_root() {
        return skip("only root can give a link to another owner");
    }
    let folder = work_dir("fix-foreign-links");
    let victim = write(&folder, "root/victim.xml", &fixable());
    std::fs::create_dir(folder.join("theirs")).expect("a folder");
    for (link, target) in [("theirs/a.xml", "../root/victim.xml"), ("theirs/folder", "../root")] {
        symlink(target, folder.join(link)).expect("a link");
        lchown(folder.join(link), Some(SOMEBODY), None).expect("their link");
    }
    for named in ["theirs/a.xml", "theirs/folder/victim.xml", "theirs/folder"] {
        let output = run(&folder, &["-i", named]);
        assert_eq!(code(&output), 2, "{named}: {}", stderr(&output));
        assert!(
            stderr(&output).contains("is a symbolic link of user 1234, which is not followed"),
            "{}",
            stderr(&output)
        );
        // To be read, they are followed: that is what naming them asks for.
        assert_eq!(code(&run(&folder, &[named])), 1, "{named}");
    }
    assert_eq!(read(&victim), fixable());
}

#[test]
fn a_user_without_write_permission_does_not_replace_a_file() {
    let folder = work_dir("fix-read-only");
    let path = write(&folder, "a.xml", &fixable());
    set_mode(&path, 0o444);
    let mut command = command();
    if is_root() {
        for path in [&folder, &path] {
            chown(path, Some(65534), Some(65534)).expect("an owner");
        }
        let arguments: Vec<_> = command.get_args().map(ToOwned::to_owned).collect();
        let program = command.get_program().to_owned();
        command = Command::new("setpriv");
        command.args(["--reuid=65534", "--regid=65534", "--clear-groups", "--"]).arg(program).args(arguments);
    }
    let output = command.args(["-i", "a.xml"]).current_dir(&folder).output().expect("runs");
    assert!(code(&output) == 2 && stderr(&output).contains("read-only"), "{}", stderr(&output));
    assert_eq!((read(&path), names(&folder)), (fixable(), vec!["a.xml".to_owned()]));
}

/// As in a container whose image holds the files: to open one for writing there makes another one of it.
#[test]
fn a_file_in_the_image_of_a_container_is_replaced() {
    let folder = work_dir("fix-overlay");
    write(&folder, "lower/a.xml", &fixable());
    let script = "mount -t tmpfs tmpfs \"$1/mount\" && mkdir \"$1\"/mount/upper \"$1\"/mount/work \"$1\"/mount/all || exit 77\n\
                  layers=lowerdir=$1/lower,upperdir=$1/mount/upper,workdir=$1/mount/work\n\
                  mount -t overlay -o \"$layers\" overlay \"$1/mount/all\" && cd \"$1/mount/all\" || exit 77\n\
                  shift; \"$@\" -q -i a.xml && cat a.xml";
    std::fs::create_dir(folder.join("mount")).expect("a folder");
    let fix = command();
    let mut shell = Command::new("unshare");
    shell.args(["--mount", "--propagation", "private", "sh", "-c", script, "sh"]).arg(&folder);
    let Ok(output) = shell.arg(fix.get_program()).args(fix.get_args()).output() else {
        return skip("unshare is not there");
    };
    if !is_root() || output.status.code() == Some(77) {
        return skip("no overlay can be mounted here");
    }
    assert_eq!((code(&output), stdout(&output)), (0, fixed()), "{}", stderr(&output));
    assert_eq!(read(&folder.join("lower/a.xml")), fixable());
}

#[test]
fn what_is_not_a_file_is_an_error_at_once() {
    let folder = work_dir("fix-not-files");
    let pipe = folder.join("pipe");
    assert!(Command::new("mkfifo").arg(&pipe).status().expect("mkfifo runs").success());
    let _socket = std::os::unix::net::UnixListener::bind(folder.join("socket")).expect("a socket");
    for named in ["pipe", "socket", "/dev/zero"] {
        for arguments in [&[named][..], &["-i", named], &["-q", named]] {
            let mut child = command();
            let child = child.args(arguments).current_dir(&folder).stdout(Stdio::null()).stderr(Stdio::piped());
            let mut child = child.spawn().expect("runs");
            // Nobody writes to the pipe: waiting for data would never end.
            end_of(&mut child);
            let output = child.wait_with_output().expect("ended");
            assert!(code(&output) == 2 && stderr(&output).contains("not a regular file"), "{}", stderr(&output));
        }
    }
}

#[test]
fn files_of_others_in_shared_folders_are_skipped() {
    if !is_root() {
        return skip("only root can give a file to another owner");
    }
    let folder = work_dir("fix-everybody");
    write(&folder, "mine.xml", &fixable());
    let theirs = write(&folder, "theirs.xml", &fixable());
    chown(&theirs, Some(SOMEBODY), None).expect("their file");
    assert_eq!(code(&run(&folder, &["."])), 1, "nobody else can have put it there");
    set_mode(&folder, 0o1777);
    for arguments in [&["."][..], &["-i", "."]] {
        let output = run(&folder, arguments);
        assert_eq!(code(&output), 2);
        assert!(stderr(&output).contains("theirs.xml: belongs to user 1234"), "{}", stderr(&output));
    }
    assert_eq!((read(&folder.join("mine.xml")), read(&theirs)), (fixed(), fixable()));
    assert_eq!((code(&run(&folder, &["-i", "theirs.xml"])), read(&theirs)), (0, fixed()));
    assert_eq!(std::fs::metadata(&theirs).expect("there").uid(), SOMEBODY);
}

/// Ends a background thread with the test, however that ends.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Swaps what is in a place again and again while `run` runs, after pauses that are different each time: a run takes a few
/// milliseconds, and is met at every step of it.
fn while_swapped(place: &Path, one: &(dyn Fn(&Path) + Sync), other: &(dyn Fn(&Path) + Sync), run: impl FnOnce()) {
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let _stop = Stop(&stop);
        scope.spawn(|| {
            let aside = place.with_extension("aside");
            for round in (0..).take_while(|_| !stop.load(Ordering::Relaxed)) {
                for (make, pause) in [(one, round * 7 % 11), (other, round * 3 % 4)] {
                    make(&aside);
                    std::fs::rename(&aside, place).expect("swapped");
                    std::thread::sleep(Duration::from_millis(pause));
                }
            }
        });
        run();
    });
}

#[test]
fn a_file_that_becomes_a_link_meanwhile_is_never_followed() {
    const RUNS: usize = 60;
    if !is_root() {
        return skip("only root can give a link to another owner");
    }
    let folder = work_dir("fix-race");
    let victim = write(&folder, "root/victim.xml", &fixable());
    let before = std::fs::metadata(&victim).expect("there");
    let place = folder.join("theirs/a.xml");
    std::fs::create_dir(folder.join("theirs")).expect("a folder");
    let file = |path: &Path| {
        std::fs::write(path, fixable()).expect("written");
        chown(path, Some(SOMEBODY), None).expect("their file");
    };
    let link = |path: &Path| {
        symlink("../root/victim.xml", path).expect("a link");
        lchown(path, Some(SOMEBODY), None).expect("their link");
    };
    let mut ended = [0; 3];
    for arguments in [["-q", "-i", "theirs/a.xml"], ["-q", "-i", "theirs"]] {
        while_swapped(&place, &file, &link, || {
            for _ in 0..RUNS {
                let output = run(&folder, &arguments);
                ended[usize::try_from(code(&output)).expect("0, 1 or 2")] += 1;
                let now = std::fs::metadata(&victim).expect("there");
                assert_eq!((now.ino(), now.mtime_nsec(), now.uid()), (before.ino(), before.mtime_nsec(), before.uid()));
                assert_eq!(read(&victim), fixable(), "{}", stderr(&output));
            }
        });
    }
    note(&format!("fix: {ended:?} of {} runs ended with 0, 1, 2 while the file was swapped for a link", 2 * RUNS));
    assert_eq!(names(&folder.join("root")), ["victim.xml"]);
}

#[test]
fn a_folder_that_becomes_a_link_meanwhile_is_never_followed() {
    const RUNS: usize = 60;
    if !is_root() {
        return skip("only root can give a link to another owner");
    }
    let folder = work_dir("fix-folder-race");
    let victim = write(&folder, "root/a.xml", &fixable());
    let before = std::fs::metadata(&victim).expect("there").ino();
    write(&folder, "theirs/real/a.xml", &fixable());
    let (place, aside) = (folder.join("theirs/sub"), folder.join("theirs/aside"));
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let _stop = Stop(&stop);
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                std::fs::rename(folder.join("theirs/real"), &place).expect("a folder");
                std::fs::rename(&place, folder.join("theirs/real")).expect("gone");
                symlink("../root", &aside).expect("a link");
                lchown(&aside, Some(SOMEBODY), None).expect("their link");
                std::fs::rename(&aside, &place).expect("a link");
                std::fs::remove_file(&place).expect("gone");
            }
        });
        for arguments in [["-q", "-i", "theirs"], ["-q", "-i", "theirs/sub/a.xml"]] {
            for _ in 0..RUNS {
                run(&folder, &arguments);
                assert_eq!(read(&victim), fixable());
                assert_eq!(std::fs::metadata(&victim).expect("there").ino(), before);
            }
        }
    });
}
