//! Where Fabric Manager listens for commands: what its own configuration says, or what whoever asks knows better.

use std::ffi::{c_char, c_uint};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::FabricError;
use crate::error::{IfPresent as _, chain};
use crate::hostfs::HostFs;

/// Where every package of Fabric Manager has it.
const CONFIGURATION: &str = "/usr/share/nvidia/nvswitch/fabricmanager.cfg";

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FabricAddress {
    /// `127.0.0.1:6666`
    Inet(String),
    /// A socket in the file system.
    Unix(PathBuf),
}

impl FabricAddress {
    /// What `fabricmanager.cfg` says, or what goes without it.
    pub fn configured(fs: &HostFs) -> Result<FabricAddress, FabricError> {
        let text = fs.read(CONFIGURATION).if_present();
        let text = text.map_err(|error| FabricError::Configuration { why: chain(&error) })?.unwrap_or_default();
        // As in the file; the last one counts. An empty value is none.
        let value = |key: &str| {
            let pairs = text.lines().filter(|line| !line.trim_start().starts_with('#'));
            let mut values = pairs.filter_map(|line| line.split_once('=')).filter(|(name, _)| name.trim() == key);
            values.next_back().map(|(_, value)| value.trim()).filter(|value| !value.is_empty())
        };
        Ok(match value("FM_CMD_UNIX_SOCKET_PATH") {
            Some(path) => FabricAddress::Unix(path.into()),
            None => {
                let interface = value("FM_CMD_BIND_INTERFACE").unwrap_or("127.0.0.1");
                FabricAddress::Inet(format!("{interface}:{}", value("FM_CMD_PORT_NUMBER").unwrap_or("6666")))
            }
        })
    }

    /// `addressInfo`, `addressIsUnixSocket` and `addressType` of `fmConnectParams_t`.
    pub(super) fn parameters(&self) -> Result<([c_char; 256], c_uint, c_uint), FabricError> {
        let (text, is_unix, kind) = match self {
            FabricAddress::Inet(text) => (text.as_bytes(), 0, 1),
            FabricAddress::Unix(path) => (path.as_os_str().as_encoded_bytes(), 1, 2),
        };
        let mut info = [0; 256];
        if text.len() >= info.len() {
            let why = format!("an address has 255 bytes at most, and this one {}: {self:?}", text.len());
            return Err(FabricError::Configuration { why });
        }
        for (to, from) in info.iter_mut().zip(text) {
            *to = from.cast_signed();
        }
        Ok((info, is_unix, kind))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fabric_manager_is_where_its_configuration_says() {
        let root = tempfile::tempdir().unwrap();
        let configured = |text: Option<&str>| {
            let path = root.path().join(CONFIGURATION.trim_start_matches('/'));
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            if let Some(text) = text {
                std::fs::write(path, text).unwrap();
            }
            FabricAddress::configured(&HostFs::at(root.path()).unwrap()).unwrap()
        };
        let inet = |text: &str| FabricAddress::Inet(text.to_owned());
        assert_eq!(configured(None), inet("127.0.0.1:6666"));
        let usual = "# Description: FM_CMD_PORT_NUMBER=1\nFM_CMD_BIND_INTERFACE=127.0.0.1\nFM_CMD_PORT_NUMBER=6666\n\
                     FM_CMD_UNIX_SOCKET_PATH=\n";
        assert_eq!(configured(Some(usual)), inet("127.0.0.1:6666"));
        assert_eq!(configured(Some("FM_CMD_BIND_INTERFACE = 10.0.0.1\nFM_CMD_PORT_NUMBER=7\n")), inet("10.0.0.1:7"));
        let unix = configured(Some(&(usual.to_owned() + "FM_CMD_UNIX_SOCKET_PATH=/run/nvidia-fabricmanager/socket\n")));
        assert_eq!(unix, FabricAddress::Unix("/run/nvidia-fabricmanager/socket".into()));
    }

    #[test]
    fn the_library_is_told_of_which_kind_an_address_is() {
        let (info, is_unix, kind) = FabricAddress::Unix("/run/fm".into()).parameters().unwrap();
        assert_eq!((info[..8].to_vec(), is_unix, kind), (b"/run/fm\0".map(u8::cast_signed).to_vec(), 1, 2));
        let (_, is_unix, kind) = FabricAddress::Inet("127.0.0.1:6666".to_owned()).parameters().unwrap();
        assert_eq!((is_unix, kind), (0, 1));
        let long = FabricAddress::Unix("x".repeat(256).into());
        assert!(long.parameters().unwrap_err().to_string().contains("255 bytes"), "and not another socket's name");
    }
}
