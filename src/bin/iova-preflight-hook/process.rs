//! The process as libvirt starts it, with any limits, signals and descriptors, and its only way out: an exit status of
//! 0 or 1.
//!
//! What fails where nothing can be returned (a signal, an expired time limit, no memory) ends here: the log names the
//! guest, and the status is what the policy says, or what was decided already.

#![allow(unsafe_code)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::io::ErrorKind;
use std::sync::atomic::{AtomicI32, AtomicI64, AtomicU8, AtomicUsize, Ordering::Relaxed};

use iova_preflight::policy::OnInternalError;
use iova_preflight::text::printable;

use super::output;

/// How much of the CPU's time a decision may take, in nanoseconds: 2 seconds.
const CPU_LIMIT: i64 = 2_000_000_000;

/// The time limit by the clock for the whole run, in seconds: the last resort.
const CLOCK_LIMIT: i64 = 120;

/// How long the hook waits for the next byte of the domain XML, in milliseconds: 30 seconds.
const INPUT_LIMIT: libc::c_int = 30_000;

/// The time limit for reporting a decision, in seconds. Nothing in it waits; this is a safeguard.
const LAST_WORDS: i64 = 5;

/// The exit status of a run without a decision.
static STATUS_ON_FAILURE: AtomicI32 = AtomicI32::new(0);

/// The exit status once it is decided, before that [`UNDECIDED`].
static DECIDED: AtomicI32 = AtomicI32::new(UNDECIDED);

const UNDECIDED: i32 = -1;

/// When the time by the clock is over, in nanoseconds of `CLOCK_MONOTONIC`.
static DEADLINE: AtomicI64 = AtomicI64::new(i64::MAX);

/// The guest, printable, for the log. A longer name is cut.
static NAME: [AtomicU8; 200] = [const { AtomicU8::new(0) }; 200];

/// How long that is.
static NAME_LENGTH: AtomicUsize = AtomicUsize::new(0);

/// The stack of signal handlers, which cannot run on an overflown one. AVX-512 makes a signal's frame 3 KiB large.
static STACK: [AtomicU8; 64 * 1024] = [const { AtomicU8::new(0) }; 64 * 1024];

/// Called by the C library.
#[unsafe(no_mangle)]
extern "C" fn main() -> libc::c_int {
    super::hook()
}

/// What an internal error leads to.
pub(crate) fn set_on_internal_error(choice: OnInternalError) {
    STATUS_ON_FAILURE.store(i32::from(choice == OnInternalError::Block), Relaxed);
}

/// The last value set; allow by default.
pub(crate) fn on_internal_error() -> OnInternalError {
    if STATUS_ON_FAILURE.load(Relaxed) == 0 { OnInternalError::Allow } else { OnInternalError::Block }
}

/// Remembers the outcome. Nothing after this changes it.
pub(crate) fn decided(blocked: bool) {
    DECIDED.store(i32::from(blocked), Relaxed);
    set_clock(LAST_WORDS);
}

/// Ends the process with the status libvirt understands: no destructor or handler runs between the decision and
/// libvirt.
pub(crate) fn exit(blocked: bool) -> ! {
    // SAFETY: `_exit` has no preconditions.
    unsafe { libc::_exit(i32::from(blocked)) }
}

/// Resets inherited settings that could end this process by accident, and starts the timers.
pub(crate) fn harden(name: &str) {
    let shown = printable(name);
    let end = (0..=shown.len().min(NAME.len())).rev().find(|&end| shown.is_char_boundary(end)).unwrap_or(0);
    for (to, from) in NAME.iter().zip(&shown.as_bytes()[..end]) {
        to.store(*from, Relaxed);
    }
    NAME_LENGTH.store(end, Relaxed);

    // Nothing is ever written there, so nothing can be, and there is a descriptor for the policy if no other is left.
    // SAFETY: closing a descriptor that may not be open is an error and nothing else.
    unsafe { libc::close(libc::STDOUT_FILENO) };
    raise_limits();
    catch_signals();
    set_clock(CLOCK_LIMIT);
    // Repeatedly, in case the first is early: the timer and the clock may differ by a tick.
    start_timer(libc::ITIMER_PROF, CPU_LIMIT / 1_000_000_000, 100_000);
}

/// Raises limits that are too low for a decision: root without bound, others up to the hard limit.
fn raise_limits() {
    const MIB: libc::rlim_t = 1 << 20;
    let wanted = [
        (libc::RLIMIT_AS, 1024 * MIB),
        (libc::RLIMIT_DATA, 1024 * MIB),
        // The limit applies when the stack grows, not only at program start.
        (libc::RLIMIT_STACK, 8 * MIB),
        (libc::RLIMIT_NOFILE, 64),
        (libc::RLIMIT_CPU, 60),
    ];
    for (resource, least) in wanted {
        let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
        // SAFETY: the structure outlives the calls, whose failure leaves the limit as it is.
        unsafe {
            if libc::getrlimit(resource, &raw mut limit) != 0 || limit.rlim_cur >= least {
                continue;
            }
            let raised = libc::rlimit { rlim_cur: least, rlim_max: least.max(limit.rlim_max) };
            if libc::setrlimit(resource, &raw const raised) != 0 {
                limit.rlim_cur = limit.rlim_max;
                libc::setrlimit(resource, &raw const limit);
            }
        }
    }
}

/// Handles fatal signals and the timers; blocks every other signal, pending ones included.
fn catch_signals() {
    let caught = [
        libc::SIGALRM,
        libc::SIGPROF,
        libc::SIGXCPU,
        libc::SIGABRT,
        libc::SIGBUS,
        libc::SIGFPE,
        libc::SIGILL,
        libc::SIGSEGV,
        libc::SIGSYS,
        libc::SIGTRAP,
    ];
    // SAFETY: the structures are plain data that all-zero bytes initialise validly; the second stack is static and used
    // by nothing else; the handler calls nothing but async-signal-safe functions and touches only atomics and locals. A
    // call that fails leaves the signal as it was.
    unsafe {
        let stack = libc::stack_t { ss_sp: STACK.as_ptr().cast_mut().cast(), ss_flags: 0, ss_size: STACK.len() };
        libc::sigaltstack(&raw const stack, std::ptr::null_mut());
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = on_signal as extern "C" fn(libc::c_int) as libc::sighandler_t;
        action.sa_flags = libc::SA_RESTART | libc::SA_ONSTACK;
        let mut blocked: libc::sigset_t = std::mem::zeroed();
        libc::sigfillset(&raw mut blocked);
        for signal in caught {
            libc::sigaction(signal, &raw const action, std::ptr::null_mut());
            libc::sigdelset(&raw mut blocked, signal);
        }
        libc::sigprocmask(libc::SIG_SETMASK, &raw const blocked, std::ptr::null_mut());
    }
}

/// Sets the deadline by the clock to this many seconds from now.
fn set_clock(seconds: i64) {
    DEADLINE.store(now(libc::CLOCK_MONOTONIC).saturating_add(seconds * 1_000_000_000), Relaxed);
    start_timer(libc::ITIMER_REAL, seconds, 100_000);
}

/// Starts a timer that ends after `seconds` and then at this interval in microseconds.
fn start_timer(timer: libc::c_int, seconds: i64, again: libc::suseconds_t) {
    let value = libc::itimerval {
        it_interval: libc::timeval { tv_sec: 0, tv_usec: again },
        it_value: libc::timeval { tv_sec: seconds, tv_usec: 0 },
    };
    // SAFETY: the structure outlives the call.
    unsafe { libc::setitimer(timer, &raw const value, std::ptr::null_mut()) };
}

/// A clock, in nanoseconds; 0 if it cannot be read.
fn now(clock: libc::clockid_t) -> i64 {
    // SAFETY: plain data; clock_gettime is async-signal-safe and writes to the local.
    unsafe {
        let mut time: libc::timespec = std::mem::zeroed();
        libc::clock_gettime(clock, &raw mut time);
        time.tv_sec * 1_000_000_000 + time.tv_nsec
    }
}

extern "C" fn on_signal(signal: libc::c_int) {
    let cpu_time = || now(libc::CLOCK_PROCESS_CPUTIME_ID);
    // Any process may send the signal, even before this program started: the clock decides whether the time is over.
    let reason = match signal {
        libc::SIGALRM if now(libc::CLOCK_MONOTONIC) < DEADLINE.load(Relaxed) => return,
        libc::SIGALRM => "timed out: no decision after 120 seconds",
        libc::SIGPROF if cpu_time() < CPU_LIMIT => return,
        libc::SIGPROF => "timed out: no decision after 2 seconds of CPU time",
        // A limit that could not be raised. The kernel sends this every second, and then SIGKILL.
        libc::SIGXCPU if cpu_time() < CPU_LIMIT / 4 => return,
        libc::SIGXCPU => "timed out: no decision within the CPU time limit (SIGXCPU)",
        libc::SIGSEGV => "the program crashed (SIGSEGV)",
        libc::SIGBUS => "the program crashed (SIGBUS)",
        libc::SIGSYS => "a system call is forbidden (SIGSYS)",
        _ => "the program was aborted",
    };
    fail(reason)
}

/// Ends the process for an unrecoverable reason: with the outcome, if there is one, or as the policy says. May be
/// called anywhere, a signal handler included.
fn fail(reason: &str) -> ! {
    let status = STATUS_ON_FAILURE.load(Relaxed);
    let undecided = DECIDED.compare_exchange(UNDECIDED, status, Relaxed, Relaxed);
    // If even this fails, it is not tried a second time.
    if let Err(decided) = undecided {
        exit(decided != 0);
    }
    let mut bytes = [0; NAME.len()];
    for (to, from) in bytes.iter_mut().zip(&NAME) {
        *to = from.load(Relaxed);
    }
    let name = std::str::from_utf8(&bytes[..NAME_LENGTH.load(Relaxed)]).unwrap_or_default();
    let (before, after) = if status == 0 {
        ("; allowing guest ", " to start unchecked")
    } else {
        ("; guest ", " is stopped (on_internal_error = \"block\")")
    };
    output::to_log(3, &["internal error: ", reason, before, name, after]);
    if status != 0 {
        output::to_stderr(&["iova-preflight: internal error: ", reason, before, name, after]);
    }
    exit(status != 0)
}

/// Reads from standard input; 0 bytes at its end.
///
/// # Errors
/// It cannot be read, or no byte arrives in time.
pub(crate) fn read_stdin(buffer: &mut [u8]) -> Result<usize, String> {
    loop {
        let mut input = libc::pollfd { fd: libc::STDIN_FILENO, events: libc::POLLIN, revents: 0 };
        // SAFETY: the structure outlives the call.
        let ready = unsafe { libc::poll(&raw mut input, 1, INPUT_LIMIT) };
        if ready == 0 {
            return Err("timed out: no decision, no input for 30 seconds".to_owned());
        }
        let mut result = Err(std::io::Error::last_os_error());
        if ready > 0 {
            // SAFETY: the buffer is as long as is said. For a closed descriptor poll reports an event.
            let length = unsafe { libc::read(libc::STDIN_FILENO, buffer.as_mut_ptr().cast(), buffer.len()) };
            result = usize::try_from(length).map_err(|_| std::io::Error::last_os_error());
        }
        match result {
            Ok(length) => return Ok(length),
            Err(error) if matches!(error.kind(), ErrorKind::Interrupted | ErrorKind::WouldBlock) => {}
            Err(error) => return Err(error.to_string()),
        }
    }
}

/// The C library's, but for what happens when there is no memory: the standard library would write to standard error,
/// which may block, and abort.
struct Allocator;

#[global_allocator]
static ALLOCATOR: Allocator = Allocator;

/// The memory, if there is any.
fn checked(memory: *mut u8) -> *mut u8 {
    if memory.is_null() {
        fail("out of memory");
    }
    memory
}

// SAFETY: every call is handed on as it is.
unsafe impl GlobalAlloc for Allocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as the caller promises.
        checked(unsafe { System.alloc(layout) })
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as the caller promises.
        checked(unsafe { System.alloc_zeroed(layout) })
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: as the caller promises.
        checked(unsafe { System.realloc(memory, layout, size) })
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: as the caller promises.
        unsafe { System.dealloc(memory, layout) }
    }
}
