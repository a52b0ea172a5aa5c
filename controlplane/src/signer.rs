//! The CA, as the handlers see it: an error of the caller's is told to him, one of ours to the log.

use croft_core::id::HostId;
use croft_core::{Error, Result};
use croft_rpc::Signer;

use crate::pki::{self, Authority, Csr};

impl Signer for Authority {
    fn sign_host(&self, csr_pem: &str, host: &HostId, host_uid: &str) -> Result<String> {
        let csr = Csr::parse(csr_pem).map_err(error)?;
        Self::sign_host(self, &csr, host, host_uid).map_err(error)
    }

    fn ca_pem(&self) -> String {
        self.bundle_pem().to_owned()
    }
}

fn error(error: pki::Error) -> Error {
    match error {
        pki::Error::Csr(why) => Error::invalid("csr_pem", why),
        other => Error::internal(other),
    }
}
