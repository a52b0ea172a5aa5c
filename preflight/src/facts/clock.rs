//! Does something keep the machine's clock right? The kernel knows, whichever program it is (chrony, timesyncd, ntpd).

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Clock {
    Synchronised,
    Free,
    /// Why the kernel did not say.
    Unknown(String),
}

impl Clock {
    /// Asks and sets nothing.
    #[expect(unsafe_code, reason = "adjtimex(2) has no safe wrapper among our dependencies")]
    pub(super) fn ask() -> Clock {
        // SAFETY: `timex` is plain numbers, for which all zeroes is a value; `modes` 0 means that nothing is set.
        let mut state: libc::timex = unsafe { std::mem::zeroed() };
        // SAFETY: a pointer to a whole `timex` that outlives the call.
        match unsafe { libc::adjtimex(&raw mut state) } {
            -1 => Clock::Unknown(std::io::Error::last_os_error().to_string()),
            libc::TIME_ERROR => Clock::Free,
            _ if state.status & libc::STA_UNSYNC != 0 => Clock::Free,
            _ => Clock::Synchronised,
        }
    }
}
