//! libvirt's event loop and its callbacks. The crate `virt` has no safe interface to domain events, so all calls into
//! libvirt's C interface are here.
//!
//! Nothing that C holds belongs to Rust: the callbacks find their listener in a static, and what C hands them back is
//! a number in the shape of a pointer.
#![allow(unsafe_code, reason = "calls of libvirt's C interface, each with the reason why it is sound")]

use std::ffi::{CStr, c_char, c_int, c_void};
use std::ptr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use virt::connect::Connect;
use virt::{event, sys};

/// An event from libvirt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Event {
    /// The guest with this UUID was defined, for the first time or anew.
    Defined(String),
    /// The guest with this UUID has no definition any more.
    Undefined(String),
    /// The connection is lost.
    Closed,
}

/// Receives events, each with the generation of its connection.
type Listener = Box<dyn Fn(usize, Event) + Send + Sync>;

static LISTENER: OnceLock<Listener> = OnceLock::new();

/// How often the loop has turned because its timer was due.
static TURNS: AtomicU64 = AtomicU64::new(0);

/// How often the timer is due, in milliseconds.
const TURN_MS: c_int = 1000;

/// Runs libvirt's event loop in a thread of its own, as long as the process lives. To be called once, before any
/// connection is opened.
///
/// # Errors
/// libvirt's, or that it was called before.
pub(crate) fn start(listener: impl Fn(usize, Event) + Send + Sync + 'static) -> Result<()> {
    if LISTENER.set(Box::new(listener)).is_err() {
        bail!("libvirt's event loop is running already");
    }
    event::event_register_default_impl().context("libvirt's event loop")?;
    // SAFETY: `turned` is a function, valid for ever, and makes no use of its second argument.
    if unsafe { sys::virEventAddTimeout(TURN_MS, Some(turned), ptr::null_mut(), None) } < 0 {
        bail!("libvirt's event loop cannot add a timer");
    }
    thread::Builder::new().name("events".to_owned()).spawn(|| {
        loop {
            if event::event_run_default_impl().is_err() {
                // `turns` shows that it is stuck.
                thread::sleep(Duration::from_millis(100));
            }
        }
    })?;
    Ok(())
}

/// A number that grows every second while the event loop is alive.
pub(crate) fn turns() -> u64 {
    TURNS.load(Ordering::Relaxed)
}

extern "C" fn turned(_timer: c_int, _nothing: *mut c_void) {
    TURNS.fetch_add(1, Ordering::Relaxed);
}

fn tell(generation: *mut c_void, event: Event) {
    if let Some(listener) = LISTENER.get() {
        listener(generation.addr(), event);
    }
}

/// `virConnectDomainEventCallback`.
///
/// # Safety
/// `domain` is a domain, as libvirt hands it to its callbacks.
unsafe extern "C" fn lifecycle(
    _connection: sys::virConnectPtr,
    domain: sys::virDomainPtr,
    event: c_int,
    _detail: c_int,
    generation: *mut c_void,
) -> c_int {
    let event = match u32::try_from(event) {
        Ok(sys::VIR_DOMAIN_EVENT_DEFINED) => Event::Defined,
        Ok(sys::VIR_DOMAIN_EVENT_UNDEFINED) => Event::Undefined,
        _ => return 0,
    };
    let mut uuid: [c_char; sys::VIR_UUID_STRING_BUFLEN as usize] = [0; sys::VIR_UUID_STRING_BUFLEN as usize];
    // SAFETY: the buffer is as long as libvirt says it has to be, and the domain is alive during the callback. The
    // UUID is part of it; nothing is asked of the daemon, which a callback must not do.
    if unsafe { sys::virDomainGetUUIDString(domain, uuid.as_mut_ptr()) } == 0 {
        // SAFETY: libvirt has written a string with its final NUL into the buffer.
        let uuid = unsafe { CStr::from_ptr(uuid.as_ptr()) };
        tell(generation, event(uuid.to_string_lossy().into_owned()));
    }
    0
}

/// `virConnectCloseFunc`.
extern "C" fn closed(_connection: sys::virConnectPtr, _reason: c_int, generation: *mut c_void) {
    tell(generation, Event::Closed);
}

/// A connection that delivers its events as long as this value lives.
#[derive(Debug)]
pub(super) struct Subscription {
    connection: Connect,
    lifecycle: c_int,
}

impl Subscription {
    /// Subscribes to the events of `connection`, under the number `generation`.
    ///
    /// # Errors
    /// libvirt's.
    pub fn new(connection: Connect, generation: usize) -> Result<Self> {
        let generation: *mut c_void = ptr::without_provenance_mut(generation);
        // SAFETY: libvirt calls a callback for VIR_DOMAIN_EVENT_ID_LIFECYCLE with the arguments of
        // virConnectDomainEventCallback; its own macro VIR_DOMAIN_EVENT_CALLBACK casts in the same way.
        let callback = unsafe {
            std::mem::transmute::<sys::virConnectDomainEventCallback, sys::virConnectDomainEventGenericCallback>(Some(
                lifecycle,
            ))
        };
        // SAFETY: the connection is open, no domain means all, and `generation` is a number that nobody dereferences
        // or frees.
        let lifecycle = unsafe {
            sys::virConnectDomainEventRegisterAny(
                connection.as_ptr(),
                ptr::null_mut(),
                sys::VIR_DOMAIN_EVENT_ID_LIFECYCLE as c_int,
                callback,
                generation,
                None,
            )
        };
        if lifecycle < 0 {
            return Err(virt::error::Error::last_error()).context("libvirt does not report changes of its guests");
        }
        // From here on, dropping the value removes the callback.
        let subscription = Self { connection, lifecycle };
        // SAFETY: as above.
        let status = unsafe {
            sys::virConnectRegisterCloseCallback(subscription.connection.as_ptr(), Some(closed), generation, None)
        };
        if status < 0 {
            return Err(virt::error::Error::last_error()).context("libvirt does not report when the connection closes");
        }
        Ok(subscription)
    }

    /// The connection.
    pub fn connection(&self) -> &Connect {
        &self.connection
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        // Each callback holds a reference to the connection. They are removed even if the daemon is gone, and then the
        // errors only say that it is gone. SAFETY: the connection is open; the callback of this number was registered
        // on it.
        let _ = unsafe { sys::virConnectDomainEventDeregisterAny(self.connection.as_ptr(), self.lifecycle) };
        // SAFETY: as above.
        let _ = unsafe { sys::virConnectUnregisterCloseCallback(self.connection.as_ptr(), Some(closed)) };
    }
}
