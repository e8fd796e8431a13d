//! Decides and effects: who may use images that are here (`KubeletEnsureSecretPulledImages`, KEP-2535): an image that was
//! pulled with a pod's login is only for pods that have that login too, or can pull it themselves. What lay here before,
//! imported or pulled by others, is for all (`NeverVerifyPreloadedImages`, the default policy).
//!
//! A record for each image is a file below `image_manager/pulled`; while a pull is under way, its image's name is one below
//! `image_manager/pulling`: should the agent end in the middle, the image counts as pulled with an unknown login.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::cri::v1::AuthConfig;
use crate::pki::files;

/// Logins that are remembered of one image.
const LOGINS_MAX: usize = 100;
/// Records beyond which those of images that are gone are looked for.
const RECORDS_MAX: usize = 500;

/// A login, and the secret it is from. Only hashes of it are kept.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Login {
    pub uid: String,
    pub namespace: String,
    pub name: String,
    pub credential_hash: String,
}

/// With what an image was pulled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum With {
    /// No login, or one of the node: any pod could have done it.
    Node,
    Login(Login),
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Credentials {
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    kubernetes_secrets: Vec<Login>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    node_pods_accessible: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Record {
    image_ref: String,
    /// By the image's name without tag and digest.
    credential_mapping: BTreeMap<String, Credentials>,
}

#[derive(Default)]
struct Inner {
    /// By the id of the image.
    records: BTreeMap<String, Record>,
    /// How often a pull of this image is under way, or was when an agent ended.
    intents: BTreeMap<String, u32>,
}

pub struct Pulled {
    directory: PathBuf,
    inner: Mutex<Inner>,
}

impl Login {
    #[must_use]
    pub fn new(uid: &str, namespace: &str, name: &str, auth: &AuthConfig) -> Self {
        let mut hash = Sha256::new();
        for part in [&auth.username, &auth.password, &auth.identity_token, &auth.registry_token] {
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part);
        }
        let credential_hash = hex(&hash.finalize());
        Self { uid: uid.into(), namespace: namespace.into(), name: name.into(), credential_hash }
    }

    fn same_secret(&self, other: &Login) -> bool {
        (&self.uid, &self.namespace, &self.name) == (&other.uid, &other.namespace, &other.name)
    }
}

impl Pulled {
    /// Reads what earlier agents recorded. A record that cannot be read is as none would be for its image: the file stays
    /// in the way, and whoever wants the image must show that they may.
    #[must_use]
    pub fn load(directory: &Path) -> Self {
        let mut inner = Inner::default();
        for path in files(&directory.join("pulled")) {
            let record = std::fs::read(&path).ok().and_then(|bytes| serde_json::from_slice::<Record>(&bytes).ok());
            match record {
                Some(record) => drop(inner.records.insert(record.image_ref.clone(), record)),
                None => tracing::warn!(path = %path.display(), "the record of a pulled image cannot be read"),
            }
        }
        for path in files(&directory.join("pulling")) {
            if let Ok(image) = std::fs::read_to_string(&path) {
                inner.intents.insert(image, 1);
            }
        }
        Self { directory: directory.to_owned(), inner: Mutex::new(inner) }
    }

    /// Whether an image that is here must be pulled all the same, as a proof that the pod may have it.
    #[must_use]
    pub fn must_pull(&self, image: &str, name: &str, image_ref: &str, logins: &[Login]) -> bool {
        let inner = self.lock();
        let Some(record) = inner.records.get(image_ref) else {
            return inner.intents.contains_key(image) || self.path("pulled", image_ref).exists();
        };
        let Some(known) = record.credential_mapping.get(name) else { return true };
        let fits = |login: &Login| {
            let of = &known.kubernetes_secrets;
            of.iter().any(|k| k.credential_hash == login.credential_hash || k.same_secret(login))
        };
        !known.node_pods_accessible && !logins.iter().any(fits)
    }

    /// Before a pull.
    ///
    /// # Errors
    /// When it cannot be recorded: the pull must not start then.
    pub fn begin(&self, image: &str) -> io::Result<()> {
        let mut inner = self.lock();
        let count = inner.intents.entry(image.to_owned()).or_default();
        if *count == 0 {
            self.write("pulling", image, image.as_bytes())?;
        }
        *count += 1;
        Ok(())
    }

    /// After a pull, however it ended.
    pub fn end(&self, image: &str) {
        let mut inner = self.lock();
        match inner.intents.get_mut(image) {
            Some(count) if *count > 1 => *count -= 1,
            _ => {
                inner.intents.remove(image);
                let _ = std::fs::remove_file(self.path("pulling", image));
            }
        }
    }

    /// After a pull that succeeded.
    ///
    /// # Errors
    /// When it cannot be recorded; the image is then verified again next time.
    pub fn record(&self, name: &str, image_ref: &str, with: &With) -> io::Result<()> {
        let mut inner = self.lock();
        let record = inner
            .records
            .entry(image_ref.to_owned())
            .or_insert_with(|| Record { image_ref: image_ref.to_owned(), credential_mapping: BTreeMap::new() });
        let before = record.clone();
        let credentials = record.credential_mapping.entry(name.to_owned()).or_default();
        match with {
            With::Node => {
                // More than this cannot be allowed.
                *credentials = Credentials { node_pods_accessible: true, ..Credentials::default() };
            }
            With::Login(login) if !credentials.node_pods_accessible => {
                let secrets = &mut credentials.kubernetes_secrets;
                secrets.retain(|known| !known.same_secret(login));
                secrets.push(login.clone());
                let extra = secrets.len().saturating_sub(LOGINS_MAX);
                secrets.drain(..extra);
            }
            With::Login(_) => {}
        }
        if *record == before {
            return Ok(());
        }
        let bytes = serde_json::to_vec(record).map_err(io::Error::other)?;
        self.write("pulled", image_ref, &bytes)
    }

    /// There are so many records that some must be of images that are gone.
    #[must_use]
    pub fn is_crowded(&self) -> bool {
        self.lock().records.len() > RECORDS_MAX
    }

    /// Forgets the images that are not among these.
    pub fn prune(&self, there: &std::collections::BTreeSet<String>) {
        self.lock().records.retain(|image_ref, _| {
            let stays = there.contains(image_ref);
            if !stays {
                let _ = std::fs::remove_file(self.path("pulled", image_ref));
            }
            stays
        });
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn path(&self, folder: &str, key: &str) -> PathBuf {
        self.directory.join(folder).join(format!("sha256-{}", hex(&Sha256::digest(key))))
    }

    fn write(&self, folder: &str, key: &str, bytes: &[u8]) -> io::Result<()> {
        files::private_dir(&self.directory.join(folder)).map_err(io::Error::other)?;
        files::replace(&self.path(folder, key), bytes, 0o600).map_err(io::Error::other)
    }
}

/// Without those that a crash left half written.
fn files(directory: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten().map(|entry| entry.path());
    entries.filter(|path| path.extension().is_none()).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const IMAGE: &str = "r.io/team/app:1";
    const NAME: &str = "r.io/team/app";
    const ID: &str = "sha256:1";

    fn login(secret: &str, password: &str) -> Login {
        let auth = AuthConfig { username: "u".into(), password: password.into(), ..AuthConfig::default() };
        Login::new(&format!("uid-{secret}"), "ns", secret, &auth)
    }

    #[test]
    fn an_image_is_for_those_who_can_pull_it() {
        let root = tempfile::tempdir().expect("temporary directory");
        let pulled = Pulled::load(root.path());
        let must = |pulled: &Pulled, logins: &[Login]| pulled.must_pull(IMAGE, NAME, ID, logins);
        assert!(!must(&pulled, &[]), "it lay here before");
        pulled.begin(IMAGE).expect("recorded");
        assert!(must(&pulled, &[]), "being pulled: nobody knows with what");
        pulled.record(NAME, ID, &With::Login(login("a", "right"))).expect("recorded");
        pulled.end(IMAGE);
        for again in [&pulled, &Pulled::load(root.path())] {
            assert!(must(again, &[]), "without a login");
            assert!(must(again, &[login("b", "wrong")]));
            assert!(!must(again, &[login("b", "right")]), "the same login in another secret");
            assert!(!must(again, &[login("a", "changed")]), "the same secret with another login");
            assert!(again.must_pull("r.io/other:1", "r.io/other", ID, &[login("a", "right")]), "by another name");
        }
        pulled.record(NAME, ID, &With::Node).expect("recorded");
        assert!(!must(&pulled, &[]), "anyone can pull it");
        assert!(!must(&Pulled::load(root.path()), &[]));
    }

    #[test]
    fn a_pull_that_an_agent_did_not_live_to_see_is_not_trusted() {
        let root = tempfile::tempdir().expect("temporary directory");
        Pulled::load(root.path()).begin(IMAGE).expect("recorded");
        let pulled = Pulled::load(root.path());
        assert!(pulled.must_pull(IMAGE, NAME, ID, &[]));
        pulled.begin(IMAGE).expect("recorded");
        pulled.record(NAME, ID, &With::Node).expect("recorded");
        pulled.end(IMAGE);
        pulled.end(IMAGE);
        assert!(!Pulled::load(root.path()).must_pull(IMAGE, NAME, ID, &[]));
    }

    #[test]
    fn records_of_images_that_are_gone_go_too() {
        let root = tempfile::tempdir().expect("temporary directory");
        let pulled = Pulled::load(root.path());
        pulled.record(NAME, ID, &With::Node).expect("recorded");
        pulled.record(NAME, "sha256:2", &With::Node).expect("recorded");
        pulled.prune(&[ID.to_owned()].into());
        assert_eq!(files(&root.path().join("pulled")).len(), 1);
        let damaged = files(&root.path().join("pulled")).remove(0);
        std::fs::write(damaged, "{").expect("written");
        assert!(Pulled::load(root.path()).must_pull(IMAGE, NAME, ID, &[login("a", "x")]), "a damaged record");
    }
}
