//! Network interfaces of a function, as far as its virtual functions depend on them.

use serde::{Deserialize, Serialize};

use crate::bus::parse_hex;
use crate::error::{FsError, IfPresent as _};
use crate::hostfs::HostFs;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Interface {
    pub name: String,
    /// Switched on; whether there is a cable is another matter.
    pub up: bool,
}

pub(super) fn read(fs: &HostFs, entry: &str) -> Result<Vec<Interface>, FsError> {
    /// IFF_UP
    const UP: u32 = 1;
    let names = fs.entries(&format!("{entry}/net")).if_present()?.unwrap_or_default();
    let read = names.into_iter().map(|name| {
        let flags = fs.parse(&format!("{entry}/net/{name}/flags"), "flags of an interface", parse_hex::<u32>);
        // One that went or got another name meanwhile is none.
        Ok(flags.if_present()?.map(|flags| Interface { name, up: flags & UP != 0 }))
    });
    read.filter_map(Result::transpose).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interface_is_up_by_its_first_flag() {
        let root = tempfile::tempdir().unwrap();
        for (name, flags) in [("eth0", "0x1003\n"), ("eth1", "0x1002\n")] {
            let at = root.path().join("card/net").join(name);
            std::fs::create_dir_all(&at).unwrap();
            std::fs::write(at.join("flags"), flags).unwrap();
        }
        let found = read(&HostFs::at(root.path()).unwrap(), "/card").unwrap();
        let words: Vec<_> = found.iter().map(|interface| (interface.name.as_str(), interface.up)).collect();
        assert_eq!(words, [("eth0", true), ("eth1", false)]);
    }
}
