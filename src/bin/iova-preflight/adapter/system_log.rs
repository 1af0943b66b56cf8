//! The system log.

use std::os::unix::net::UnixDatagram;

use iova_preflight::decision::Level;

/// Sends a line (RFC 3164, facility daemon) unless that would block. Without a system log the line is lost.
pub(super) fn line(level: Level, text: &str) {
    const DAEMON: u8 = 3 << 3;
    let pid = std::process::id();
    let line = format!("<{}>iova-preflight[{pid}]: {text}", DAEMON | level as u8);
    let socket = UnixDatagram::unbound().and_then(|socket| socket.set_nonblocking(true).map(|()| socket));
    // A failure cannot be reported anywhere.
    let _ = socket.and_then(|socket| socket.send_to(line.as_bytes(), "/dev/log"));
}
