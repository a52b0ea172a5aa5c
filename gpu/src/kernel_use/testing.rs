//! Trees that a test lays out file by file.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;

use crate::hostfs::HostFs;

pub struct Tree(tempfile::TempDir);

impl Tree {
    pub fn new() -> Tree {
        Tree(tempfile::tempdir().unwrap())
    }

    pub fn fs(&self) -> HostFs {
        HostFs::at(self.0.path()).unwrap()
    }

    pub fn path(&self, path: &str) -> PathBuf {
        self.0.path().join(path)
    }

    pub fn directory(&self, path: &str) {
        fs::create_dir_all(self.path(path)).unwrap();
    }

    pub fn write(&self, path: &str, text: &str) {
        self.parent(path);
        fs::write(self.path(path), text).unwrap();
    }

    pub fn link(&self, path: &str, target: &str) {
        self.parent(path);
        symlink(target, self.path(path)).unwrap();
    }

    pub fn disk(&self, name: &str, below: &str, number: &str) {
        self.write(&format!("sys/devices/{below}/dev"), &format!("{number}\n"));
        self.link(&format!("sys/block/{name}"), &format!("../devices/{below}"));
    }

    fn parent(&self, path: &str) {
        fs::create_dir_all(self.path(path).parent().unwrap()).unwrap();
    }
}
