//! Secrets at rest: seeds with user data in them, and clusters' kubeconfigs. AEAD (ChaCha20-Poly1305) under a key in a file of mode 0600.
//!
//! A row names its key and is bound to its digest as associated data, so that rows cannot be swapped. The key file has
//! a line `<key id> <64 hex digits>` per key; the first encrypts, all decrypt.

use std::collections::HashMap;
use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use croft_core::{Error, Result, Timestamp};
use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::rand::{SecureRandom as _, SystemRandom};
use sha2::{Digest as _, Sha256};
use sqlx::AnyConnection;

use crate::error::unavailable;
use crate::sql::{insert, sql};

const KEY_LEN: usize = 32;

pub(crate) struct Keys {
    first: String,
    keys: HashMap<String, LessSafeKey>,
    random: SystemRandom,
}

impl std::fmt::Debug for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Keys").field("first", &self.first).finish_non_exhaustive()
    }
}

/// As it stands in a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Sealed {
    pub digest: String,
    pub key_id: String,
    pub nonce: String,
    pub ciphertext: String,
}

#[derive(sqlx::FromRow)]
struct Row {
    key_id: String,
    nonce: String,
    ciphertext: String,
}

impl Keys {
    /// `None`: there is no such file.
    pub fn read(path: &Path) -> Result<Option<Self>> {
        let text = match fs::read_to_string(path) {
            Ok(text) => text,
            Err(why) if why.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(why) => return Err(cannot("read", path, &why)),
        };
        // A backup tool may have widened it.
        fs::set_permissions(path, fs::Permissions::from_mode(0o600))
            .map_err(|why| cannot("set the mode of", path, &why))?;
        let mut keys = HashMap::new();
        let mut first = None;
        for line in text.lines().filter(|line| !line.trim().is_empty()) {
            let (id, key) = parse(line).ok_or_else(|| {
                unavailable(format!("the key file {} is damaged: restore it from a backup", path.display()))
            })?;
            first.get_or_insert_with(|| id.to_owned());
            keys.insert(id.to_owned(), key);
        }
        let Some(first) = first else {
            return Err(unavailable(format!("the key file {} is empty: restore it from a backup", path.display())));
        };
        Ok(Some(Self { first, keys, random: SystemRandom::new() }))
    }

    /// A new key in a new file.
    pub fn create(path: &Path) -> Result<Self> {
        let mut bytes = [0; KEY_LEN];
        let random = SystemRandom::new();
        random.fill(&mut bytes).map_err(|_| Error::internal("the system gives no random numbers"))?;
        let id = hex::encode(&Sha256::digest(bytes)[..4]);
        write_new(path, &format!("{id} {}\n", hex::encode(bytes))).map_err(|why| cannot("write", path, &why))?;
        let key = key(&bytes).ok_or_else(|| Error::internal("a key of the wrong length"))?;
        Ok(Self { first: id.clone(), keys: HashMap::from([(id, key)]), random })
    }

    pub fn seal(&self, digest: &str, plain: Vec<u8>) -> Result<Sealed> {
        let mut nonce = [0; NONCE_LEN];
        self.random.fill(&mut nonce).map_err(|_| Error::internal("the system gives no random numbers"))?;
        let mut bytes = plain;
        self.keys[&self.first]
            .seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::from(digest.as_bytes()), &mut bytes)
            .map_err(|_| Error::internal(format!("cannot encrypt {digest}")))?;
        Ok(Sealed {
            digest: digest.to_owned(),
            key_id: self.first.clone(),
            nonce: hex::encode(nonce),
            ciphertext: BASE64.encode(bytes),
        })
    }

    fn unseal(&self, digest: &str, row: &Row) -> std::result::Result<Vec<u8>, String> {
        let Some(key) = self.keys.get(&row.key_id) else {
            return Err(format!("{digest} needs key {}, which the key file lacks", row.key_id));
        };
        let damaged = || format!("{digest} is damaged, or its key file is another one's");
        let nonce = hex::decode(&row.nonce).ok().and_then(|bytes| Nonce::try_assume_unique_for_key(&bytes).ok());
        let mut bytes = BASE64.decode(&row.ciphertext).map_err(|_| damaged())?;
        let plain = key
            .open_in_place(nonce.ok_or_else(damaged)?, Aad::from(digest.as_bytes()), &mut bytes)
            .map_err(|_| damaged())?;
        Ok(plain.to_vec())
    }
}

pub(crate) async fn put_all(conn: &mut AnyConnection, sealed: &[&Sealed], now: Timestamp) -> Result<()> {
    insert(
        conn,
        "INSERT INTO secrets (digest, key_id, nonce, ciphertext, create_time)",
        // The same bytes are there already.
        " ON CONFLICT (digest) DO NOTHING",
        sealed,
        |row, secret| {
            row.cell(&secret.digest).cell(&secret.key_id).cell(&secret.nonce).cell(&secret.ciphertext).cell(now)
        },
    )
    .await
}

pub(crate) async fn get(conn: &mut AnyConnection, keys: &Keys, digest: &str) -> Result<Option<Vec<u8>>> {
    open(conn, keys, digest).await?.map(|opened| opened.map_err(Error::internal)).transpose()
}

/// What is wrong with this one alone is apart from what is wrong with the database.
pub(crate) async fn open(
    conn: &mut AnyConnection,
    keys: &Keys,
    digest: &str,
) -> Result<Option<std::result::Result<Vec<u8>, String>>> {
    let row: Option<Row> =
        sql("SELECT key_id, nonce, ciphertext FROM secrets WHERE digest = $1").bind(digest).optional(conn).await?;
    Ok(row.map(|row| keys.unseal(digest, &row)))
}

fn parse(line: &str) -> Option<(&str, LessSafeKey)> {
    let (id, digits) = line.split_once(' ')?;
    Some((id, key(&hex::decode(digits.trim()).ok()?)?))
}

fn key(bytes: &[u8]) -> Option<LessSafeKey> {
    UnboundKey::new(&CHACHA20_POLY1305, bytes).ok().map(LessSafeKey::new)
}

/// On the disk before the first row depends on it.
fn write_new(path: &Path, text: &str) -> io::Result<()> {
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    match path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        Some(parent) => fs::File::open(parent)?.sync_all(),
        None => Ok(()),
    }
}

fn cannot(what: &str, path: &Path, why: &io::Error) -> Error {
    unavailable(format!("cannot {what} the key file {}: {why}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_opens_only_under_its_own_digest_and_key() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("secrets.key");
        let keys = Keys::create(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let sealed = keys.seal("sha256:a", b"password".to_vec()).unwrap();
        assert!(!sealed.ciphertext.contains("password"));
        let row = Row { key_id: sealed.key_id, nonce: sealed.nonce, ciphertext: sealed.ciphertext };

        let again = Keys::read(&path).unwrap().unwrap();
        assert_eq!(again.unseal("sha256:a", &row).unwrap(), b"password");
        assert!(again.unseal("sha256:b", &row).is_err(), "another digest");
        let other = Keys::create(&dir.path().join("other.key")).unwrap();
        assert!(other.unseal("sha256:a", &row).unwrap_err().contains("which the key file lacks"), "another key");
    }

    #[test]
    fn a_damaged_key_file_is_refused_and_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("secrets.key");
        fs::write(&path, "abc nothex\n").unwrap();
        assert!(Keys::read(&path).unwrap_err().to_string().contains("damaged"));
        assert!(Keys::create(&path).is_err(), "never overwritten");
        assert_eq!(fs::read_to_string(&path).unwrap(), "abc nothex\n");
    }
}
