//! The time limit: a timer whose handler ends the process, since libvirt would wait for ever.
//!
//! A timer and not a thread: it needs no memory, covers every blocking call, and cannot be starved by one.

#![allow(unsafe_code)]

use std::sync::atomic::{AtomicI32, Ordering};

use iova_preflight::policy::OnInternalError;

/// How long the domain XML may take to arrive, and how much of the CPU's time a decision may take, in seconds.
const LIMIT_SECONDS: libc::time_t = 1;

/// How often the clock is wound up again for a decision that the machine has given less than that, because it is busy
/// with a hundred other guests that start.
const EXTENSIONS: i32 = 4;

/// The exit status of a run that did not come to a decision.
static STATUS_ON_FAILURE: AtomicI32 = AtomicI32::new(0);

/// How often the clock may still be wound up again.
static EXTENSIONS_LEFT: AtomicI32 = AtomicI32::new(0);

/// All input is there: from now on a second of this process counts, not of the machine.
pub(crate) fn input_is_complete() {
    EXTENSIONS_LEFT.store(EXTENSIONS, Ordering::Relaxed);
}

/// What an internal error leads to, a passed time limit included.
pub(crate) fn set_on_internal_error(choice: OnInternalError) {
    STATUS_ON_FAILURE.store(i32::from(choice == OnInternalError::Block), Ordering::Relaxed);
}

/// What was set last; allow, if nothing was.
pub(crate) fn on_internal_error() -> OnInternalError {
    if STATUS_ON_FAILURE.load(Ordering::Relaxed) == 0 { OnInternalError::Allow } else { OnInternalError::Block }
}

/// Ends the process at once.
pub(crate) fn exit_now(status: i32) -> ! {
    // SAFETY: `_exit` has no preconditions.
    unsafe { libc::_exit(status) }
}

/// Starts the clock.
pub(crate) fn arm() {
    // SAFETY: the structures are plain data that all-zero bytes initialise validly; the handler calls nothing but
    // async-signal-safe functions (signal-safety(7)) and touches only an atomic and constants. A failure of either
    // call leaves the process without a time limit, which is the state it was in.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = expired as extern "C" fn(libc::c_int) as libc::sighandler_t;
        action.sa_flags = libc::SA_RESTART;
        libc::sigaction(libc::SIGALRM, &raw const action, std::ptr::null_mut());
        let mut unblocked: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut unblocked);
        libc::sigaddset(&raw mut unblocked, libc::SIGALRM);
        // libvirt may hand down any signal mask.
        libc::sigprocmask(libc::SIG_UNBLOCK, &raw const unblocked, std::ptr::null_mut());
    }
    start_timer();
}

/// Winds up the clock. setitimer is a system call and nothing else on Linux, so that the handler may call it, too.
fn start_timer() {
    let once = libc::timeval { tv_sec: 0, tv_usec: 0 };
    let limit = libc::timeval { tv_sec: LIMIT_SECONDS, tv_usec: 0 };
    let timer = libc::itimerval { it_interval: once, it_value: limit };
    // SAFETY: the structure outlives the call.
    unsafe { libc::setitimer(libc::ITIMER_REAL, &raw const timer, std::ptr::null_mut()) };
}

/// Whether this process has had less of the CPU than it may take.
fn was_kept_waiting() -> bool {
    // SAFETY: plain data; clock_gettime is async-signal-safe and writes to the local.
    unsafe {
        let mut used: libc::timespec = std::mem::zeroed();
        libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &raw mut used) == 0 && used.tv_sec < LIMIT_SECONDS
    }
}

extern "C" fn expired(_signal: libc::c_int) {
    const ALLOWED: &str = "<27>iova-preflight-hook: internal error: no decision in time; the guest goes on unchecked";
    const STOPPED: &str = "<27>iova-preflight-hook: internal error: no decision in time; the guest is stopped";
    const REASON: &str = "iova-preflight: internal error: no decision in time; the guest is stopped\n";
    if EXTENSIONS_LEFT.fetch_sub(1, Ordering::Relaxed) > 0 && was_kept_waiting() {
        start_timer();
        return;
    }
    let status = STATUS_ON_FAILURE.load(Ordering::Relaxed);
    let line = if status == 0 { ALLOWED } else { STOPPED };
    // SAFETY: socket, connect, send, write and _exit are async-signal-safe; every pointer is to a constant or a local
    // of the size given. The socket does not block.
    unsafe {
        let mut address: libc::sockaddr_un = std::mem::zeroed();
        address.sun_family = libc::AF_UNIX as libc::sa_family_t;
        for (to, from) in address.sun_path.iter_mut().zip(super::log::SOCKET.bytes()) {
            *to = from as libc::c_char;
        }
        let socket = libc::socket(libc::AF_UNIX, libc::SOCK_DGRAM | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC, 0);
        let size = size_of::<libc::sockaddr_un>() as libc::socklen_t;
        if libc::connect(socket, (&raw const address).cast(), size) == 0 {
            libc::send(socket, line.as_ptr().cast(), line.len(), libc::MSG_NOSIGNAL);
        }
        if status != 0 {
            libc::write(libc::STDERR_FILENO, REASON.as_ptr().cast(), REASON.len());
        }
        libc::_exit(status)
    }
}
