//! One open connection and the events that come over it.
//!
//! The `virt` crate registers no events, so this is where libvirt's C callbacks are met. libvirt's own event loop runs on
//! one thread for the whole process; it also drives the keepalive, without which a hung libvirtd would never be noticed.
//! Callbacks only send on channels: they run on that one thread.

use std::collections::HashMap;
use std::ffi::{CStr, c_char, c_int, c_void};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, Once, PoisonError};

use tokio::sync::{Notify, broadcast};
use uuid::Uuid;
use virt::connect::Connect;
use virt::error::Error as VirtError;
use virt_sys as sys;

use super::metadata::uid_of_name;

/// A libvirtd that stays silent for (count + 1) × interval seconds is gone.
const KEEPALIVE_SECONDS: i32 = 4;
const KEEPALIVE_COUNT: u32 = 3;

/// Registers libvirt's event loop and runs it. Must come before the first connection.
pub fn start_loop() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // Errors reach us as values; libvirt would print them to stderr as well.
        virt::error::clear_error_callback();
        if let Err(e) = virt::event::event_register_default_impl() {
            tracing::error!(error = e.message(), "libvirt's event loop cannot be registered; events will not come");
            return;
        }
        let run = || loop {
            if let Err(e) = virt::event::event_run_default_impl() {
                tracing::warn!(error = e.message(), "libvirt's event loop stumbled");
                std::thread::sleep(std::time::Duration::from_secs(1));
            }
        };
        if let Err(e) = std::thread::Builder::new().name("libvirt-events".into()).spawn(run) {
            tracing::error!(error = %e, "libvirt's event loop cannot be started; events will not come");
        }
    });
}

/// How often each guest restarted itself, as told by reboot events.
#[derive(Debug, Clone, Default)]
pub struct Restarts(Arc<Mutex<HashMap<Uuid, u64>>>);

impl Restarts {
    pub fn of(&self, uid: Uuid) -> u64 {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(&uid).copied().unwrap_or(0)
    }

    fn count(&self, uid: Uuid) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner).entry(uid).or_default() += 1;
    }
}

/// An open connection with its callbacks.
#[derive(Debug)]
pub struct Session {
    connect: Connect,
    callbacks: Vec<c_int>,
    end: Arc<End>,
}

#[derive(Debug, Default)]
struct End {
    closed: AtomicBool,
    notify: Notify,
}

/// Where events go. A copy is what a domain callback is given; freed by libvirt through [`free`].
#[derive(Debug, Clone)]
pub struct Ear {
    pub events: broadcast::Sender<Option<Uuid>>,
    pub restarts: Restarts,
}

impl Session {
    /// Connects, and listens if there is somebody to hear it. Blocks.
    pub fn open(uri: &str, ear: Option<&Ear>) -> Result<Self, VirtError> {
        start_loop();
        let connect = Connect::open(Some(uri))?;
        let end = Arc::new(End::default());
        register_close(&connect, &end)?;
        // From here on the drop below cleans up.
        let mut session = Self { connect, callbacks: Vec::new(), end };
        session.connect.set_keep_alive(KEEPALIVE_SECONDS, KEEPALIVE_COUNT)?;
        let heard = ear.into_iter().flat_map(|ear| callbacks().map(|(id, callback)| (id, callback, ear.clone())));
        for (id, callback, ear) in heard {
            session.callbacks.push(register(&session.connect, id, callback, ear)?);
        }
        Ok(session)
    }

    pub fn connect(&self) -> &Connect {
        &self.connect
    }

    pub fn is_closed(&self) -> bool {
        self.end.closed.load(Ordering::Acquire)
    }

    pub fn is_alive(&self) -> bool {
        !self.is_closed() && self.connect.is_alive().unwrap_or(false)
    }

    /// Returns when libvirtd or the keepalive closed the connection.
    pub async fn closed(&self) {
        loop {
            let notified = self.end.notify.notified();
            if self.is_closed() {
                return;
            }
            notified.await;
        }
    }
}

impl Drop for Session {
    /// A connection with callbacks is never freed by closing it alone.
    fn drop(&mut self) {
        for id in &self.callbacks {
            deregister(&self.connect, *id);
        }
        unregister_close(&self.connect);
    }
}

type Callback = sys::virConnectDomainEventGenericCallback;
/// The shape that all callbacks are registered under.
type Plain = unsafe extern "C" fn(sys::virConnectPtr, sys::virDomainPtr, *mut c_void);

/// The events we listen to, each with a callback of its own shape.
#[expect(unsafe_code, reason = "libvirt registers callbacks of all shapes through one generic type")]
fn callbacks() -> [(sys::virDomainEventID, Callback); 4] {
    // SAFETY: each function has exactly the C signature that libvirt documents for the event beside it
    // (virConnectDomainEventCallback, …GenericCallback, …IOErrorReasonCallback, …AgentLifecycleCallback), and libvirt
    // casts it back to that signature before it calls it.
    unsafe {
        [
            (
                sys::VIR_DOMAIN_EVENT_ID_LIFECYCLE,
                Some(std::mem::transmute::<*const (), Plain>(on_lifecycle as *const ())),
            ),
            (sys::VIR_DOMAIN_EVENT_ID_REBOOT, Some(on_reboot as _)),
            (
                sys::VIR_DOMAIN_EVENT_ID_IO_ERROR_REASON,
                Some(std::mem::transmute::<*const (), Plain>(on_io_error as *const ())),
            ),
            (
                sys::VIR_DOMAIN_EVENT_ID_AGENT_LIFECYCLE,
                Some(std::mem::transmute::<*const (), Plain>(on_agent as *const ())),
            ),
        ]
    }
}

#[expect(unsafe_code, reason = "the virt crate has no event registration")]
fn register(
    connect: &Connect,
    id: sys::virDomainEventID,
    callback: Callback,
    listener: Ear,
) -> Result<c_int, VirtError> {
    let opaque = Box::into_raw(Box::new(listener)).cast::<c_void>();
    // SAFETY: the connection is open, no domain is named, and `opaque` lives until libvirt passes it to `free`.
    let registered = unsafe {
        let domain = std::ptr::null_mut();
        sys::virConnectDomainEventRegisterAny(connect.as_ptr(), domain, id as c_int, callback, opaque, Some(free))
    };
    if registered < 0 {
        // SAFETY: libvirt did not take it, so it is still ours.
        unsafe { free(opaque) };
        return Err(VirtError::last_error());
    }
    Ok(registered)
}

#[expect(unsafe_code, reason = "the virt crate has no event registration")]
fn deregister(connect: &Connect, id: c_int) {
    // SAFETY: the connection is open (if maybe dead) and the id came from it. On a dead connection libvirt still forgets
    // the callback on our side, which is all that matters.
    unsafe { sys::virConnectDomainEventDeregisterAny(connect.as_ptr(), id) };
}

#[expect(unsafe_code, reason = "the virt crate has no close callback")]
fn register_close(connect: &Connect, end: &Arc<End>) -> Result<(), VirtError> {
    let opaque = Arc::into_raw(Arc::clone(end)).cast_mut().cast::<c_void>();
    // SAFETY: the connection is open; the reference in `opaque` is given back by `free_end`.
    let done =
        unsafe { sys::virConnectRegisterCloseCallback(connect.as_ptr(), Some(on_close), opaque, Some(free_end)) };
    if done < 0 {
        // SAFETY: libvirt did not take it, so the reference is still ours.
        unsafe { free_end(opaque) };
        return Err(VirtError::last_error());
    }
    Ok(())
}

#[expect(unsafe_code, reason = "the virt crate has no close callback")]
fn unregister_close(connect: &Connect) {
    // SAFETY: the connection is open and `on_close` is the callback that was registered.
    unsafe { sys::virConnectUnregisterCloseCallback(connect.as_ptr(), Some(on_close)) };
}

#[expect(unsafe_code, reason = "called by libvirt when it lets go of a listener")]
unsafe extern "C" fn free(opaque: *mut c_void) {
    // SAFETY: made by `register` from a Box<Ear>, and freed once.
    drop(unsafe { Box::from_raw(opaque.cast::<Ear>()) });
}

#[expect(unsafe_code, reason = "called by libvirt when it lets go of the close callback")]
unsafe extern "C" fn free_end(opaque: *mut c_void) {
    // SAFETY: made by `register_close` from an Arc<End>, and given back once.
    drop(unsafe { Arc::from_raw(opaque.cast::<End>()) });
}

#[expect(unsafe_code, reason = "called by libvirt")]
unsafe extern "C" fn on_close(_: sys::virConnectPtr, _reason: c_int, opaque: *mut c_void) {
    // SAFETY: alive until `free_end`.
    let end = unsafe { &*opaque.cast::<End>() };
    end.closed.store(true, Ordering::Release);
    end.notify.notify_waiters();
}

#[expect(unsafe_code, reason = "called by libvirt")]
unsafe extern "C" fn on_lifecycle(
    _: sys::virConnectPtr,
    domain: sys::virDomainPtr,
    _event: c_int,
    _detail: c_int,
    opaque: *mut c_void,
) -> c_int {
    // SAFETY: libvirt's arguments, for the time of the call.
    unsafe { tell(domain, opaque) };
    0
}

#[expect(unsafe_code, reason = "called by libvirt")]
unsafe extern "C" fn on_reboot(_: sys::virConnectPtr, domain: sys::virDomainPtr, opaque: *mut c_void) {
    // SAFETY: libvirt's arguments, for the time of the call; the listener lives until `free`.
    unsafe {
        if let Some(uid) = uid(domain) {
            (*opaque.cast::<Ear>()).restarts.count(uid);
        }
        tell(domain, opaque);
    }
}

#[expect(unsafe_code, reason = "called by libvirt")]
unsafe extern "C" fn on_io_error(
    _: sys::virConnectPtr,
    domain: sys::virDomainPtr,
    _path: *const c_char,
    _alias: *const c_char,
    _action: c_int,
    _reason: *const c_char,
    opaque: *mut c_void,
) {
    // SAFETY: libvirt's arguments, for the time of the call.
    unsafe { tell(domain, opaque) };
}

#[expect(unsafe_code, reason = "called by libvirt")]
unsafe extern "C" fn on_agent(
    _: sys::virConnectPtr,
    domain: sys::virDomainPtr,
    _state: c_int,
    _reason: c_int,
    opaque: *mut c_void,
) {
    // SAFETY: libvirt's arguments, for the time of the call.
    unsafe { tell(domain, opaque) };
}

/// Tells whose domain it was; a foreign one changes what the host has left, so everything is looked at again.
#[expect(unsafe_code, reason = "reads libvirt's arguments")]
unsafe fn tell(domain: sys::virDomainPtr, opaque: *mut c_void) {
    // SAFETY: the caller's arguments are libvirt's; the listener lives until `free`.
    let (uid, listener) = unsafe { (uid(domain), &*opaque.cast::<Ear>()) };
    let _ = listener.events.send(uid);
}

#[expect(unsafe_code, reason = "reads a domain that libvirt lends us")]
unsafe fn uid(domain: sys::virDomainPtr) -> Option<Uuid> {
    // SAFETY: the name belongs to the domain, which outlives this call.
    let name = unsafe {
        let name = sys::virDomainGetName(domain);
        (!name.is_null()).then(|| CStr::from_ptr(name).to_string_lossy().into_owned())
    };
    uid_of_name(&name?)
}
