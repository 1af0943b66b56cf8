//! The command line that Proxmox VE would start a guest with.

use std::io::{self, Read};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use iova_preflight::io::file::read_limited;

/// The longest command line that is read, in bytes: twice what Linux starts a program with.
const MOST: usize = 4 << 20;

/// How long it may take. Proxmox VE activates the guest's volumes first.
const PATIENCE: Duration = Duration::from_secs(50);

/// What `qm showcmd` prints. No lock is held or waited for (`vm_commandline` in Proxmox' `QemuServer.pm`, 9.2), so that
/// it can be called while the guest starts.
///
/// # Errors
/// It cannot be run, fails, or does not end in time.
pub(super) fn showcmd(number: &str) -> Result<Vec<u8>, String> {
    let mut command = Command::new("qm");
    run(command.args(["showcmd", number]), PATIENCE).map_err(|error| format!("qm showcmd {number}: {error}"))
}

fn run(command: &mut Command, patience: Duration) -> Result<Vec<u8>, String> {
    let pipes = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = pipes.spawn().map_err(|error| error.to_string())?;
    let timed_out = || format!("timed out after {} seconds", patience.as_secs());
    let result = output(&mut child, Instant::now() + patience).and_then(|output| output.ok_or_else(timed_out));
    if result.is_err() {
        // It may have ended meanwhile.
        let _ = child.kill();
        let _ = child.wait();
    }
    result
}

/// What a program prints; `None` if it does not end in time.
fn output(child: &mut Child, end: Instant) -> Result<Option<Vec<u8>>, String> {
    let (sender, receiver) = mpsc::channel();
    // A process that it leaves behind may hold its output open for ever, so the threads are not joined.
    let read = |pipe: Box<dyn Read + Send>, is_output: bool| {
        let sender = sender.clone();
        thread::spawn(move || sender.send((is_output, read_limited(pipe, MOST))));
    };
    read(Box::new(child.stdout.take().ok_or("no pipe")?), true);
    read(Box::new(child.stderr.take().ok_or("no pipe")?), false);
    let (mut printed, mut said) = (Vec::new(), Vec::new());
    for _ in 0..2 {
        let left = end.saturating_duration_since(Instant::now());
        let Ok((is_output, bytes)) = receiver.recv_timeout(left) else { return Ok(None) };
        *(if is_output { &mut printed } else { &mut said }) = bytes.map_err(|error: io::Error| error.to_string())?;
    }
    if printed.len() > MOST || said.len() > MOST {
        return Err("more than 4 MiB of output".to_owned());
    }
    loop {
        match child.try_wait().map_err(|error| error.to_string())? {
            Some(status) if status.success() => return Ok(Some(printed)),
            Some(status) => {
                let said = String::from_utf8_lossy(&said);
                return Err(format!("{status}: {}", said.lines().last().unwrap_or_default()));
            }
            None if Instant::now() < end => thread::sleep(Duration::from_millis(1)),
            None => return Ok(None),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_waits_for_what_does_not_end() {
        let shell = |script: &str, seconds| run(Command::new("sh").args(["-c", script]), Duration::from_secs(seconds));
        let begin = Instant::now();
        // It lives on, with its output open or closed, or leaves a process behind that has it open.
        for script in ["exec sleep 1000", "exec > /dev/null 2>&1 sleep 1000", "sleep 3 & echo early"] {
            assert_eq!(shell(script, 1).expect_err("no output"), "timed out after 1 seconds", "{script}");
        }
        assert!(begin.elapsed() < Duration::from_secs(300));
        assert_eq!(shell("echo it; echo said >&2", 300).as_deref(), Ok(&b"it\n"[..]));
        assert_eq!(shell("echo said >&2; exit 4", 300).expect_err("it failed"), "exit status: 4: said");
    }
}
