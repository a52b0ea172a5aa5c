//! The border to C: pointers become values that can be used without care, and a panic never crosses.
#![expect(unsafe_code, reason = "a C library is made of pointers that its callers vouch for")]

use std::ffi::{CStr, c_char};

use croft_gpu_sim::driver::Return;

/// An argument of a C function, as the functions of this library take it.
pub trait Argument {
    type Taken;

    /// # Safety
    /// A pointer is null, or good for what `nvml.h` says of the argument for as long as the call lasts.
    unsafe fn take(self) -> Self::Taken;
}

/// Room of the caller's; or, where nothing is ever written, a handle.
#[derive(Debug)]
pub struct Out<T>(*mut T);

impl<T> Clone for Out<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Out<T> {}

/// Something of the caller's to read.
#[derive(Debug)]
pub struct In<T>(*const T);

impl<T> Argument for *mut T {
    type Taken = Out<T>;

    unsafe fn take(self) -> Out<T> {
        Out(self)
    }
}

impl<T> Argument for *const T {
    type Taken = In<T>;

    unsafe fn take(self) -> In<T> {
        In(self)
    }
}

macro_rules! plain {
    ($($number:ty),*) => {
        $(impl Argument for $number {
            type Taken = $number;

            unsafe fn take(self) -> $number {
                self
            }
        })*
    };
}
plain!(u32, u64, i32);

impl<T> Out<T> {
    pub fn put(self, value: T) -> Result<(), Return> {
        if self.0.is_null() {
            return Err(Return::InvalidArgument);
        }
        // SAFETY: not null, so room for a `T`: that is what `take` was promised.
        unsafe { self.0.write(value) };
        Ok(())
    }

    /// Into an array that the caller has made large enough.
    pub fn put_all(self, values: impl IntoIterator<Item = T>) -> Result<(), Return> {
        if self.0.is_null() {
            return Err(Return::InvalidArgument);
        }
        for (at, value) in values.into_iter().enumerate() {
            // SAFETY: not null, so room for as many as `nvml.h` says that the function may write.
            unsafe { self.0.add(at).write(value) };
        }
        Ok(())
    }

    pub fn is_null(self) -> bool {
        self.0.is_null()
    }

    /// The number that a handle is.
    pub fn address(self) -> usize {
        self.0.addr()
    }
}

impl<T: Copy> Out<T> {
    /// What the caller has put there for us.
    pub fn get(self) -> Result<T, Return> {
        In(self.0.cast_const()).get()
    }
}

impl<T: Copy> In<T> {
    pub fn get(&self) -> Result<T, Return> {
        if self.0.is_null() {
            return Err(Return::InvalidArgument);
        }
        // SAFETY: not null, so a `T`: that is what `take` was promised.
        Ok(unsafe { self.0.read() })
    }
}

/// A structure whose first field says, by NVML_STRUCT_VERSION, which of several it is.
impl<T> Out<T> {
    /// The same room as the `version`-th `U`, if the caller says that it is one.
    pub fn versioned<U>(self, version: u32) -> Result<Out<U>, Return> {
        let number: Out<u32> = Out(self.0.cast());
        let is = u32::try_from(size_of::<U>()).is_ok_and(|size| number.get() == Ok(size | version << 24));
        if is { Ok(Out(self.0.cast())) } else { Err(Return::VersionMismatch) }
    }
}

impl Out<c_char> {
    /// With its zero.
    pub fn text(self, length: u32, text: &str) -> Result<(), Return> {
        let fits = usize::try_from(length).is_ok_and(|length| text.len() < length);
        if !self.is_null() && !fits {
            return Err(Return::InsufficientSize);
        }
        self.put_all(text.bytes().chain([0]).map(u8::cast_signed))
    }
}

impl In<c_char> {
    pub fn text(&self) -> Result<&str, Return> {
        if self.0.is_null() {
            return Err(Return::InvalidArgument);
        }
        // SAFETY: not null, so a text with its zero: that is what `take` was promised.
        let text = unsafe { CStr::from_ptr(self.0) };
        text.to_str().map_err(|_| Return::InvalidArgument)
    }
}

/// A field of text in a structure, cut off where the field ends.
pub fn field<const N: usize>(text: &str) -> [c_char; N] {
    let mut field = [0; N];
    for (room, byte) in field.iter_mut().take(N - 1).zip(text.bytes()) {
        *room = byte.cast_signed();
    }
    field
}

/// Exports functions by NVML's names. Checks at compile time that each has the type of NVIDIA's.
macro_rules! export {
    ($($(#[$attribute:meta])* fn $name:ident($($argument:ident: $type:ty),* $(,)?) |$call:ident| $body:block)*) => {
        $(
            $(#[$attribute])*
            #[expect(unsafe_code, reason = "exported to C")]
            #[unsafe(no_mangle)]
            pub unsafe extern "C" fn $name($($argument: $type),*) -> nvml_wrapper_sys::bindings::nvmlReturn_t {
                // SAFETY: whoever calls a function of NVML keeps to `nvml.h`.
                $(let $argument = unsafe { $crate::c::Argument::take($argument) };)*
                $crate::call::answer(stringify!($name), move |$call| $body)
            }

            const _: fn(&mut nvml_wrapper_sys::bindings::NvmlLib) = |library| library.$name = Ok($name);
        )*
    };
}
pub(crate) use export;
