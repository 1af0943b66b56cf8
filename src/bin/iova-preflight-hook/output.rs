//! The system log and standard error, without waiting for either. Everything here may be called by a signal handler: it
//! allocates no memory and calls only functions that signal-safety(7) lists.

#![allow(unsafe_code)]

/// The socket of syslog(3). journald listens on the same.
const SOCKET: &[u8] = b"/dev/log";

/// Facility `daemon` of RFC 3164, times 8.
const DAEMON: u8 = 3 << 3;

/// A line of fewer bytes than this, so that its end fits.
struct Line<const LONGEST: usize> {
    bytes: [u8; LONGEST],
    length: usize,
}

impl<const LONGEST: usize> Line<LONGEST> {
    fn new() -> Self {
        Self { bytes: [0; LONGEST], length: 0 }
    }

    /// Adds as much of the text as fits, without cutting a character.
    fn push(&mut self, text: &str) {
        let mut end = text.len().min(LONGEST - 1 - self.length);
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        self.bytes[self.length..self.length + end].copy_from_slice(&text.as_bytes()[..end]);
        self.length += end;
    }

    fn push_number(&mut self, number: u32) {
        if number >= 10 {
            self.push_number(number / 10);
        }
        self.push(["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"][(number % 10) as usize]);
    }
}

/// Sends a line, given in parts, to the system log; it is lost if nobody listens or reads it at once.
pub(crate) fn to_log(level: u8, parts: &[&str]) {
    // Syslog daemons take at least this much.
    let mut line = Line::<2000>::new();
    line.push("<");
    line.push_number(u32::from(DAEMON | level));
    line.push(">iova-preflight-hook[");
    // SAFETY: getpid has no preconditions.
    line.push_number(unsafe { libc::getpid() }.unsigned_abs());
    line.push("]: ");
    for part in parts {
        line.push(part);
    }
    // SAFETY: the address is plain data that all-zero bytes initialise validly and is longer than the path; every
    // pointer is to a local of the size given.
    unsafe {
        let mut address: libc::sockaddr_un = std::mem::zeroed();
        address.sun_family = libc::AF_UNIX as libc::sa_family_t;
        for (to, from) in address.sun_path.iter_mut().zip(SOCKET) {
            *to = *from as libc::c_char;
        }
        let kind = libc::SOCK_DGRAM | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
        let mut socket = libc::socket(libc::AF_UNIX, kind, 0);
        if socket < 0 {
            // If no descriptor is left, the input's is given up for the line: the input is read by now, or it is too
            // late.
            libc::close(libc::STDIN_FILENO);
            socket = libc::socket(libc::AF_UNIX, kind, 0);
        }
        let size = size_of::<libc::sockaddr_un>() as libc::socklen_t;
        let to = (&raw const address).cast();
        libc::sendto(socket, line.bytes.as_ptr().cast(), line.length, libc::MSG_NOSIGNAL, to, size);
        libc::close(socket);
    }
}

/// Writes a line, given in parts, to standard error as far as that does not block; a long line is cut.
pub(crate) fn to_stderr(parts: &[&str]) {
    const FD: libc::c_int = libc::STDERR_FILENO;
    let mut line = Line::<{ libc::PIPE_BUF }>::new();
    for part in parts {
        line.push(part);
    }
    line.bytes[line.length] = b'\n';
    let (data, length) = (line.bytes.as_ptr().cast(), line.length + 1);
    // SAFETY: every pointer is to a constant or to a local of the size given.
    unsafe {
        let mut status: libc::stat = std::mem::zeroed();
        if libc::fstat(FD, &raw mut status) != 0 {
            return;
        }
        match status.st_mode & libc::S_IFMT {
            libc::S_IFSOCK => {
                libc::send(FD, data, length, libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL);
            }
            libc::S_IFIFO | libc::S_IFCHR => {
                // A file description of its own, so that non-blocking mode does not affect other processes.
                let flags = libc::O_WRONLY | libc::O_NONBLOCK | libc::O_NOCTTY | libc::O_CLOEXEC;
                let own = libc::open(c"/proc/self/fd/2".as_ptr(), flags);
                if own >= 0 {
                    libc::write(own, data, length);
                    libc::close(own);
                    return;
                }
                // Without /proc: a pipe that is writable takes at least a page.
                let mut room = libc::pollfd { fd: FD, events: libc::POLLOUT, revents: 0 };
                if libc::poll(&raw mut room, 1, 0) == 1 && room.revents & libc::POLLOUT != 0 {
                    libc::write(FD, data, length);
                }
            }
            _ => {
                libc::write(FD, data, length);
            }
        }
    }
}
