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
    command.args(["showcmd", number]).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|error| format!("qm: {error}"))?;
    let result = output(&mut child, Instant::now() + PATIENCE);
    if result.is_err() {
        // It may have ended meanwhile.
        let _ = child.kill();
        let _ = child.wait();
    }
    result.map_err(|error| format!("qm showcmd {number}: {error}"))
}

fn output(child: &mut Child, end: Instant) -> Result<Vec<u8>, String> {
    let (sender, receiver) = mpsc::channel();
    // A process that it leaves behind may hold its output open for ever: nobody waits for the threads.
    let read = |pipe: Box<dyn Read + Send>, is_output: bool| {
        let sender = sender.clone();
        thread::spawn(move || sender.send((is_output, read_limited(pipe, MOST))));
    };
    read(Box::new(child.stdout.take().ok_or("no pipe")?), true);
    read(Box::new(child.stderr.take().ok_or("no pipe")?), false);
    let (mut printed, mut said) = (Vec::new(), Vec::new());
    for _ in 0..2 {
        let left = end.saturating_duration_since(Instant::now());
        let (is_output, bytes) = receiver.recv_timeout(left).map_err(|_| timed_out())?;
        *(if is_output { &mut printed } else { &mut said }) = bytes.map_err(|error: io::Error| error.to_string())?;
    }
    if printed.len() > MOST || said.len() > MOST {
        return Err("more than 4 MiB of output".to_owned());
    }
    loop {
        match child.try_wait().map_err(|error| error.to_string())? {
            Some(status) if status.success() => return Ok(printed),
            Some(status) => {
                let said = String::from_utf8_lossy(&said);
                return Err(format!("{status}: {}", said.lines().last().unwrap_or_default()));
            }
            None if Instant::now() < end => thread::sleep(Duration::from_millis(1)),
            None => return Err(timed_out()),
        }
    }
}

fn timed_out() -> String {
    format!("timed out after {} seconds", PATIENCE.as_secs())
}
