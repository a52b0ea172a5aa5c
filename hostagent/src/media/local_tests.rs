use std::os::unix::fs::symlink;

use super::*;

/// The digest of `hello`.
const HELLO: &str = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824";

struct Fixture {
    temp: tempfile::TempDir,
}

impl Fixture {
    fn new() -> Self {
        let temp = tempfile::tempdir().unwrap();
        let dir = temp.path().join("images");
        std::fs::create_dir_all(dir.join("sub")).unwrap();
        std::fs::write(dir.join("sub/good.raw"), "hello").unwrap();
        std::fs::write(temp.path().join("secret"), "secret").unwrap();
        Self { temp }
    }
    fn dir(&self) -> PathBuf {
        self.temp.path().join("images")
    }
    fn uri(&self, path: &str) -> String {
        format!("file://{}/{path}", self.dir().display())
    }
    fn refused(&self, uri: &str) -> String {
        let error = open(Some(&self.dir()), uri).unwrap_err();
        assert_eq!(error.reason, "ImagePathRefused", "{uri}: {error}");
        error.message
    }
}

#[test]
fn opens_regular_files_below_the_directory() {
    let fixture = Fixture::new();
    assert!(open(Some(&fixture.dir()), &fixture.uri("sub/good.raw")).is_ok());
}

#[test]
fn refuses_everything_else() {
    let fixture = Fixture::new();
    let dir = fixture.dir();
    symlink(fixture.temp.path().join("secret"), dir.join("link")).unwrap();
    symlink(fixture.temp.path(), dir.join("up")).unwrap();
    symlink("sub/good.raw", dir.join("inner")).unwrap();
    rustix::fs::mknodat(rustix::fs::CWD, dir.join("pipe"), rustix::fs::FileType::Fifo, Mode::from(0o600), 0).unwrap();

    assert!(fixture.refused(&fixture.uri("link")).contains("symbolic link"));
    assert!(fixture.refused(&fixture.uri("up/secret")).contains("symbolic link"));
    assert!(fixture.refused(&fixture.uri("inner")).contains("symbolic link"));
    assert!(fixture.refused(&fixture.uri("../secret")).contains(".."));
    assert!(fixture.refused(&fixture.uri("sub/../../secret")).contains(".."));
    assert!(fixture.refused(&fixture.uri("pipe")).contains("regular"));
    assert!(fixture.refused(&fixture.uri("sub")).contains("regular"));
    assert!(fixture.refused(&fixture.uri("nothing")).contains("no such file"));
    assert!(fixture.refused("file:///etc/shadow").contains("not below"));
    assert!(fixture.refused(&format!("file://localhost{}", dir.display())).contains("absolute"));
    assert!(fixture.refused(&format!("file://{}", dir.display())).contains("name a file"));
    // A directory whose name merely begins like ours.
    assert!(fixture.refused(&format!("file://{}-other/x", dir.display())).contains("not below"));
    assert!(open(None, &fixture.uri("sub/good.raw")).unwrap_err().message.contains("--image-dir"));
}

#[test]
fn copies_what_has_the_digest_and_leaves_nothing_else() {
    let fixture = Fixture::new();
    let part = fixture.temp.path().join("part");
    let source = || open(Some(&fixture.dir()), &fixture.uri("sub/good.raw")).unwrap();

    copy(source(), "u", HELLO, &part, 100).unwrap();
    assert_eq!(std::fs::read(&part).unwrap(), b"hello");

    let wrong = copy(source(), "u", &HELLO.replace('2', "3"), &part, 100).unwrap_err();
    assert_eq!(wrong.reason, "ImageDigestMismatch");
    assert!(!part.exists());

    let large = copy(source(), "u", HELLO, &part, 4).unwrap_err();
    assert_eq!(large.reason, "ImageTooLarge");
    assert!(!part.exists());
}
