use croft_proto::agent::v1::desired_image::Boot;
use croft_proto::v1::disk_image::Format as Declared;
use croft_proto::v1::{DiskImage, ImageFile, KernelImage};

use super::super::address::Policy;
use super::*;

const IMAGE: Uuid = Uuid::from_u128(0x0190_a3c5_6d3e_7000_8000_0000_0000_0001);

struct Fixture {
    temp: tempfile::TempDir,
}

impl Fixture {
    fn new() -> Self {
        let temp = tempfile::tempdir().unwrap();
        fs::create_dir(temp.path().join("source")).unwrap();
        Self { temp }
    }
    fn cache(&self) -> Arc<Cache> {
        self.cache_with(0)
    }
    fn cache_with(&self, disk_reserve: u64) -> Arc<Cache> {
        let root = self.temp.path().join("images");
        durable::ensure_dir(&root).unwrap();
        let limits = Limits { max_virtual: 64 << 20, disk_reserve };
        Cache::new(root, Some(self.temp.path().join("source")), Fetcher::new(Policy::default(), None), limits)
    }
    fn file(&self, name: &str, bytes: &[u8]) -> ImageFile {
        let path = self.temp.path().join("source").join(name);
        fs::write(&path, bytes).unwrap();
        ImageFile { uri: format!("file://{}", path.display()), sha256: local::sha256(&path).unwrap() }
    }
    fn disk(&self, bytes: &[u8], format: Declared) -> DesiredImage {
        let disk = DiskImage { file: Some(self.file("disk", bytes)), format: format.into(), min_disk_gib: 1 };
        let boot = Some(Boot::Disk(disk));
        DesiredImage { uid: IMAGE.to_string(), name: "images/x".into(), platform: true, boot, ..Default::default() }
    }
    fn dir(&self) -> PathBuf {
        self.temp.path().join("images").join(IMAGE.to_string())
    }
    fn names(&self) -> Vec<String> {
        let mut names: Vec<_> =
            fs::read_dir(self.dir()).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

#[tokio::test]
async fn checked_once_then_read_only() {
    let fixture = Fixture::new();
    let image = fixture.disk(&[7; 4096], Declared::Raw);
    let cache = fixture.cache();
    assert_eq!(cache.ready(&image).unwrap(), None);
    let ready = cache.ensure(&image, &|_, _| {}).await.unwrap();
    let disk = ready.disk.clone().unwrap();
    assert_eq!((disk.format, disk.virtual_size), (Format::Raw, 4096));
    assert_eq!(fs::metadata(&disk.path).unwrap().permissions().mode() & 0o777, 0o444);
    assert_eq!(fixture.names(), ["disk", "ready.json"]);

    // The source is not asked again, not even after a restart of the agent.
    fs::remove_dir_all(fixture.temp.path().join("source")).unwrap();
    assert_eq!(fixture.cache().ensure(&image, &|_, _| {}).await.unwrap(), ready);
}

#[tokio::test]
async fn a_raw_file_that_looks_like_qcow2_is_raw_and_nothing_else() {
    let fixture = Fixture::new();
    let mut bytes = vec![0u8; 1024];
    bytes[..8].copy_from_slice(b"QFI\xfb\0\0\0\x03");
    bytes[8..16].copy_from_slice(&512u64.to_be_bytes());
    let ready = fixture.cache().ensure(&fixture.disk(&bytes, Declared::Raw), &|_, _| {}).await.unwrap();
    assert_eq!(ready.disk.unwrap().format, Format::Raw);
    // Declared as qcow2 the same bytes are refused for what they name.
    let other = Fixture::new();
    let refused = other.cache().ensure(&other.disk(&bytes, Declared::Qcow2), &|_, _| {}).await.unwrap_err();
    assert_eq!(refused.reason, "ImageHasBackingFile");
    assert_eq!(other.names(), [""; 0]);
}

#[tokio::test]
async fn refusals_leave_nothing() {
    let fixture = Fixture::new();
    let cache = fixture.cache();
    let refused = async |image: &DesiredImage| cache.ensure(image, &|_, _| {}).await.unwrap_err().reason;

    let mut wrong_digest = fixture.disk(&[0; 512], Declared::Raw);
    if let Some(Boot::Disk(disk)) = &mut wrong_digest.boot {
        disk.file.as_mut().unwrap().sha256 = "0".repeat(64);
    }
    assert_eq!(refused(&wrong_digest).await, "ImageDigestMismatch");
    assert_eq!(refused(&fixture.disk(b"not sectors", Declared::Raw)).await, "ImageNotADisk");
    assert_eq!(refused(&fixture.disk(&[0; 4096], Declared::Qcow2)).await, "ImageNotQcow2");
    assert_eq!(refused(&fixture.disk(&vec![0; 65 << 20], Declared::Raw)).await, "ImageTooLarge");
    let tenants = DesiredImage { platform: false, ..fixture.disk(&[0; 512], Declared::Raw) };
    assert_eq!(refused(&tenants).await, "ImageSourceRefused");
    assert_eq!(fixture.names(), [""; 0]);

    let free = space::room(fixture.temp.path()).unwrap().free;
    let careful = fixture.cache_with(free.saturating_mul(2));
    let full = careful.ensure(&fixture.disk(&[0; 4096], Declared::Raw), &|_, _| {}).await.unwrap_err();
    assert_eq!(full.reason, "DiskFull");
}

#[tokio::test]
async fn an_image_larger_than_it_says_is_refused() {
    let fixture = Fixture::new();
    let mut image = fixture.disk(&[0; 4096], Declared::Raw);
    let Some(Boot::Disk(disk)) = &mut image.boot else { panic!() };
    disk.min_disk_gib = 0;
    assert!(fixture.cache().ensure(&image, &|_, _| {}).await.is_ok(), "0 says nothing");
}

#[tokio::test]
async fn a_crash_before_the_manifest_costs_one_digest_and_no_fetch() {
    let fixture = Fixture::new();
    let image = fixture.disk(&[9; 2048], Declared::Raw);
    fixture.cache().ensure(&image, &|_, _| {}).await.unwrap();
    fs::remove_file(fixture.dir().join("ready.json")).unwrap();
    fs::remove_dir_all(fixture.temp.path().join("source")).unwrap();
    assert!(fixture.cache().ensure(&image, &|_, _| {}).await.is_ok());

    // A sealed file with other bytes than it should have is not trusted.
    fs::remove_file(fixture.dir().join("ready.json")).unwrap();
    fs::remove_file(fixture.dir().join("disk")).unwrap();
    fs::write(fixture.dir().join("disk"), [1; 2048]).unwrap();
    assert!(fixture.cache().ensure(&image, &|_, _| {}).await.is_err());
    assert!(!fixture.dir().join("disk").exists());
}

#[tokio::test]
async fn kernel_initrd_and_root_are_one_image() {
    let fixture = Fixture::new();
    let root = DiskImage { file: Some(fixture.file("root", &[0; 512])), format: Declared::Raw.into(), min_disk_gib: 1 };
    let kernel = KernelImage {
        kernel: Some(fixture.file("vmlinuz", b"kernel")),
        initrd: Some(fixture.file("initrd", b"initrd")),
        root: Some(root),
        cmdline: "quiet".into(),
    };
    let image = DesiredImage { boot: Some(Boot::Kernel(kernel)), ..fixture.disk(&[0; 512], Declared::Raw) };
    let seen = Mutex::new(Vec::new());
    let ready = fixture.cache().ensure(&image, &|d, t| seen.lock().unwrap().push((d, t))).await.unwrap();
    assert_eq!(fs::read(ready.kernel.unwrap()).unwrap(), b"kernel");
    assert_eq!(fs::read(ready.initrd.unwrap()).unwrap(), b"initrd");
    assert!(ready.disk.is_some());
    assert!(seen.lock().unwrap().is_sorted(), "progress never runs backwards");
}

#[tokio::test]
async fn prune_spares_what_is_kept_used_or_not_ours() {
    let fixture = Fixture::new();
    let cache = fixture.cache();
    let image = fixture.disk(&[0; 512], Declared::Raw);
    cache.ensure(&image, &|_, _| {}).await.unwrap();
    fs::create_dir(fixture.temp.path().join("images/lost+found")).unwrap();

    cache.prune(&[IMAGE], &HashSet::new()).unwrap();
    cache.prune(&[], &HashSet::from([IMAGE])).unwrap();
    assert!(cache.ready(&image).unwrap().is_some());
    cache.prune(&[], &HashSet::new()).unwrap();
    assert!(!fixture.dir().exists());
    assert!(fixture.temp.path().join("images/lost+found").exists());
}
