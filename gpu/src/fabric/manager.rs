//! Fabric Manager as steps use it: a connection for each verb, closed after it.

use std::path::PathBuf;

use super::FabricAddress;
use super::library::{FabricError, FabricLibrary};
use crate::apply::{FabricManager, Result, StepError};

#[derive(Clone, Debug, Default)]
pub struct Manager {
    /// `None`: where the system keeps its libraries.
    pub library: Option<PathBuf>,
    /// `None`: as Fabric Manager's own configuration says.
    pub address: Option<FabricAddress>,
}

impl Manager {
    fn open(&self) -> Result<FabricLibrary> {
        Ok(FabricLibrary::open(self.library.as_deref(), self.address.as_ref())?)
    }
}

impl FabricManager for Manager {
    fn active(&self, partition: u32) -> Result<Option<bool>> {
        Ok(self.open()?.active(partition)?)
    }

    fn activate(&self, partition: u32) -> Result<()> {
        Ok(self.open()?.activate(partition)?)
    }

    fn deactivate(&self, partition: u32) -> Result<()> {
        Ok(self.open()?.deactivate(partition)?)
    }
}

impl From<FabricError> for StepError {
    fn from(error: FabricError) -> Self {
        StepError::new(error.to_string())
    }
}
