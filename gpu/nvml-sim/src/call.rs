//! One call of one function: the session it needs, the fault that may strike it, and the state that it sees.

use std::ffi::OsString;
use std::ops::Deref;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::{env, io, process};

use croft_gpu::pci::PciAddress;
use croft_gpu_sim::clients::{self, Session};
use croft_gpu_sim::driver::{self, Return};
use croft_gpu_sim::faults::{self, Answer};
use croft_gpu_sim::state::{ComputeInstance, GpuInstance, GpuState, Nvidia};
use nvml_wrapper_sys::bindings::nvmlReturn_t;

use crate::c::Out;
use crate::handle::{self, Thing};

/// Any return code: one of the rules, or one that a fault names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Code(pub u32);

impl From<Return> for Code {
    fn from(code: Return) -> Code {
        Code(code as u32)
    }
}

impl From<io::Error> for Code {
    fn from(error: io::Error) -> Code {
        eprintln!("croft-nvml-sim: {error}");
        Return::Unknown.into()
    }
}

/// `NVML_ERROR_DRIVER_NOT_LOADED`
const DRIVER_NOT_LOADED: Code = Code(9);

/// This process's use of the library. As with NVIDIA's, each `nvmlInit` wants its `nvmlShutdown`.
struct Library {
    root: PathBuf,
    uses: usize,
    _session: Session,
}

static LIBRARY: Mutex<Option<Library>> = Mutex::new(None);

pub fn init(name: &'static str) -> Result<(), Code> {
    let mut library = LIBRARY.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(library) = &mut *library {
        strike(&library.root, name, None)?;
        library.uses += 1;
        return Ok(());
    }
    let root: OsString = env::var_os("CROFT_SIM_ROOT").ok_or(DRIVER_NOT_LOADED)?;
    let root = PathBuf::from(root);
    strike(&root, name, None)?;
    match read(&root) {
        Ok(state) if state.gpus.iter().any(|gpu| gpu.driver_loaded) => {}
        Ok(_) => return Err(DRIVER_NOT_LOADED),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(DRIVER_NOT_LOADED),
        Err(error) => return Err(error.into()),
    }
    let session = Session::open(&root)?;
    *library = Some(Library { root, uses: 1, _session: session });
    Ok(())
}

pub fn shutdown(name: &'static str) -> Result<(), Code> {
    let root = begin(name)?.root;
    strike(&root, name, None)?;
    let mut library = LIBRARY.lock().unwrap_or_else(PoisonError::into_inner);
    let Some(open) = &mut *library else { return Err(Return::Uninitialized.into()) };
    open.uses -= 1;
    if open.uses == 0 {
        *library = None;
    }
    Ok(())
}

/// Runs a function of the library, and gives C its number.
pub fn answer(name: &'static str, body: impl FnOnce(&Call) -> Result<(), Code>) -> nvmlReturn_t {
    number(|| body(&begin(name)?))
}

/// For `nvmlInit` and `nvmlShutdown`, which no session need be open for.
pub fn number(body: impl FnOnce() -> Result<(), Code>) -> nvmlReturn_t {
    // A panic has been printed by then; it must not unwind into C.
    match catch_unwind(AssertUnwindSafe(body)) {
        Ok(Ok(())) => 0,
        Ok(Err(code)) => code.0,
        Err(_) => Return::Unknown as u32,
    }
}

fn begin(name: &'static str) -> Result<Call, Code> {
    let library = LIBRARY.lock().unwrap_or_else(PoisonError::into_inner);
    let library = library.as_ref().ok_or(Return::Uninitialized)?;
    Ok(Call { name, root: library.root.clone() })
}

fn strike(root: &Path, name: &str, device: Option<PciAddress>) -> Result<(), Code> {
    match faults::strike(root, name, device)? {
        None => Ok(()),
        Some(Answer::Nvml(code)) => Err(Code(code)),
        Some(Answer::Errno(errno)) => Err(io::Error::from_raw_os_error(errno).into()),
    }
}

#[derive(Debug)]
pub struct Call {
    name: &'static str,
    root: PathBuf,
}

/// One GPU in the state as it was when the call came.
#[derive(Debug)]
pub struct View {
    pub host: Arc<Nvidia>,
    at: usize,
}

impl Deref for View {
    type Target = GpuState;

    fn deref(&self) -> &GpuState {
        &self.host.gpus[self.at]
    }
}

impl View {
    /// NVML's index: GPUs of other drivers do not count.
    pub fn index(&self) -> usize {
        self.host.gpus[..self.at].iter().filter(|gpu| gpu.driver_loaded).count()
    }

    pub fn instance(&self, gi: u32) -> Result<&GpuInstance, Code> {
        Ok(driver::instance(self, gi)?)
    }

    pub fn compute_instance(&self, gi: u32, ci: u32) -> Result<&ComputeInstance, Code> {
        let mut all = self.instance(gi)?.compute_instances.iter();
        Ok(all.find(|compute| compute.id == ci).ok_or(Return::NotFound)?)
    }
}

impl Call {
    /// The whole host, for a call that is about no GPU.
    pub fn host(&self) -> Result<Arc<Nvidia>, Code> {
        strike(&self.root, self.name, None)?;
        Ok(read(&self.root)?)
    }

    /// The same, once more in a call that waits.
    pub fn host_again(&self) -> Result<Arc<Nvidia>, Code> {
        Ok(read(&self.root)?)
    }

    /// Which GPU a handle is, for [`Call::change`].
    pub fn target<T>(&self, handle: Out<T>) -> Result<PciAddress, Code> {
        match handle::find(handle)? {
            Thing::Gpu(address) => Ok(address),
            _ => Err(Return::InvalidArgument.into()),
        }
    }

    /// The GPU that a handle is.
    pub fn gpu<T>(&self, handle: Out<T>) -> Result<View, Code> {
        match handle::find(handle)? {
            Thing::Gpu(address) => self.view(address),
            _ => Err(Return::InvalidArgument.into()),
        }
    }

    /// A GPU, or the GPU of a MIG device, with that device's GPU and compute instance.
    pub fn device<T>(&self, handle: Out<T>) -> Result<(View, Option<(u32, u32)>), Code> {
        match handle::find(handle)? {
            Thing::Gpu(address) => Ok((self.view(address)?, None)),
            Thing::Mig { gpu, gi, ci } => Ok((self.view(gpu)?, Some((gi, ci)))),
            _ => Err(Return::InvalidArgument.into()),
        }
    }

    /// The GPU instance that a handle is: its GPU, its id.
    pub fn instance<T>(&self, handle: Out<T>) -> Result<(View, u32), Code> {
        let Thing::GpuInstance { gpu, gi } = handle::find(handle)? else { return Err(Return::InvalidArgument.into()) };
        let view = self.view(gpu)?;
        view.instance(gi)?;
        Ok((view, gi))
    }

    pub fn view(&self, address: PciAddress) -> Result<View, Code> {
        strike(&self.root, self.name, Some(address))?;
        self.look(address)
    }

    /// Without asking whether a fault strikes: it had its chance in this call.
    pub fn look(&self, address: PciAddress) -> Result<View, Code> {
        let host = read(&self.root)?;
        let at = position(&host, address)?;
        Ok(View { host, at })
    }

    /// Changes a GPU by a rule, under the host's lock. What the rule refuses may still have changed something: a pending mode.
    pub fn change<T>(
        &self,
        address: PciAddress,
        rule: impl FnOnce(&mut GpuState, &Nvidia) -> Result<T, Return>,
    ) -> Result<T, Code> {
        strike(&self.root, self.name, Some(address))?;
        let mut host = Nvidia::open(&self.root)?;
        let at = position(&host, address)?;
        let before = (*host).clone();
        let result = rule(&mut host.gpus[at], &before);
        if *host != before {
            host.save()?;
        }
        Ok(result?)
    }

    /// Who else keeps this GPU busy.
    pub fn others(&self, gpu: &GpuState) -> Result<Vec<u32>, Code> {
        let pids = clients::of(&self.root, gpu.minor)?;
        Ok(pids.into_iter().filter(|pid| *pid != process::id()).collect())
    }

    pub fn root(&self) -> &Path {
        &self.root
    }
}

/// The state now. Whoever lists a GPU makes a hundred calls in a row: only what has changed is parsed.
fn read(root: &Path) -> io::Result<Arc<Nvidia>> {
    type Parsed = (Vec<u8>, Arc<Nvidia>);
    static LAST: Mutex<Option<Parsed>> = Mutex::new(None);

    let text = Nvidia::text(root)?;
    let mut last = LAST.lock().unwrap_or_else(PoisonError::into_inner);
    match &*last {
        Some((same, state)) if *same == text => Ok(state.clone()),
        _ => {
            let state = Arc::new(Nvidia::parse(&text)?);
            *last = Some((text, state.clone()));
            Ok(state)
        }
    }
}

fn position(host: &Nvidia, address: PciAddress) -> Result<usize, Code> {
    let at = host.gpus.iter().position(|gpu| gpu.address == address && gpu.driver_loaded).ok_or(Return::NotFound)?;
    if host.gpus[at].lost {
        return Err(Return::GpuIsLost.into());
    }
    Ok(at)
}
