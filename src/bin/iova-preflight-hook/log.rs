//! One datagram to the system log. journald listens on the same socket.

use std::os::unix::net::UnixDatagram;

/// The socket of syslog(3).
pub(crate) const SOCKET: &str = "/dev/log";

/// Facility `daemon` of RFC 3164, times 8.
const DAEMON: u8 = 3 << 3;

/// Severities of RFC 3164.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Level {
    /// A failure of our own.
    Error = 3,
    /// Something about a guest.
    Warning = 4,
}

/// Sends a line to the system log; where nobody listens, or nobody takes it at once, it is lost.
pub(crate) fn send(priority: Level, line: &str) {
    /// Longer lines are cut; syslog daemons take at least this much.
    const MAX_LINE: usize = 1800;
    let mut end = line.len().min(MAX_LINE);
    while !line.is_char_boundary(end) {
        end -= 1;
    }
    let Ok(socket) = UnixDatagram::unbound() else { return };
    if socket.set_nonblocking(true).is_err() || socket.connect(SOCKET).is_err() {
        return;
    }
    let datagram =
        format!("<{}>iova-preflight-hook[{}]: {}", DAEMON | priority as u8, std::process::id(), &line[..end]);
    // There is nowhere left to report a failure to.
    let _ = socket.send(datagram.as_bytes());
}
