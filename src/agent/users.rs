//! Decides and effects: which users of the machine a pod's own users are (`hostUsers: false`, `pkg/kubelet/userns`). Each
//! such pod has as many ids as others, and none that another has; what it has is remembered in its folder.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use serde::{Deserialize, Serialize};
use tokio::sync::OnceCell;

use crate::cri::{Handler, v1};
use crate::pki::files;

/// In the pod's folder.
const FILE: &str = "userns";
/// The user whose subordinate ids pods get, where there is one.
const KUBELET: &str = "kubelet";
const ALL_IDS: u64 = 1 << 32;

/// Which pod has which ids. Nothing is read or asked before the first pod comes that wants some.
pub struct Users {
    ids_per_pod: u32,
    max_pods: u32,
    pods: PathBuf,
    search_path: String,
    slots: OnceCell<Slots>,
    used: Mutex<BTreeMap<String, u32>>,
}

/// Ids by so many for each pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Slots {
    /// The id that the first one begins with.
    first: u32,
    count: u32,
}

/// What upstream writes, so that pods keep their users whichever kubelet comes.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Record {
    uid_mappings: Vec<Ids>,
    gid_mappings: Vec<Ids>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Ids {
    host_id: u32,
    container_id: u32,
    length: u32,
}

impl Users {
    #[must_use]
    pub fn new(pods: &Path, ids_per_pod: u32, max_pods: u32, search_path: &str) -> Users {
        Users {
            ids_per_pod,
            max_pods,
            pods: pods.to_owned(),
            search_path: search_path.to_owned(),
            slots: OnceCell::new(),
            used: Mutex::default(),
        }
    }

    /// What the pod has, or gets now.
    ///
    /// # Errors
    /// As the event words it: no ids are free, or what is remembered makes no sense.
    pub async fn of(&self, pod_uid: &str) -> Result<v1::UserNamespace, String> {
        let slots =
            self.slots.get_or_try_init(|| self.begin()).await.map_err(|why| format!("kubelet mappings: {why}"))?;
        let ids = match self.read(pod_uid)? {
            Some(ids) => self.record(slots, pod_uid, ids).map_err(|why| format!("user namespace: {why}"))?,
            None => self.allocate(slots, pod_uid).map_err(|why| format!("create user namespace: {why}"))?,
        };
        Ok(options(ids))
    }

    /// The pod is gone, with its folder.
    pub fn release(&self, pod_uid: &str) {
        self.used.lock().unwrap_or_else(PoisonError::into_inner).remove(pod_uid);
    }

    /// Finds out which ids there are, and which pods have some already.
    async fn begin(&self) -> Result<Slots, String> {
        let passwd = tokio::fs::read_to_string("/etc/passwd").await.unwrap_or_default();
        let range = match passwd.lines().any(|line| line.split(':').next() == Some(KUBELET)) {
            true => self.subordinate().await?,
            false => None,
        };
        let slots = slots(range, self.ids_per_pod, self.max_pods)?;
        for entry in std::fs::read_dir(&self.pods).into_iter().flatten().flatten() {
            let uid = entry.file_name().to_string_lossy().into_owned();
            if let Some(ids) = self.read(&uid)? {
                self.record(&slots, &uid, ids)
                    .map_err(|why| format!("record pod mappings for existing pod {uid:?}: {why}"))?;
            }
        }
        Ok(slots)
    }

    /// What `getsubids` says of the kubelet's user, and of its group: one range, the same for both.
    async fn subordinate(&self) -> Result<Option<(u32, u32)>, String> {
        let Some(program) = crate::cri::containerd::find("getsubids", &self.search_path) else {
            tracing::warn!("there is a user kubelet, but no getsubids: pods' users are any above 65535");
            return Ok(None);
        };
        let ask = |arguments: &'static [&'static str]| {
            let mut command = tokio::process::Command::new(&program);
            async move {
                let output = command.args(arguments).output().await.map_err(|error| format!("getsubids: {error}"))?;
                Ok::<_, String>(String::from_utf8_lossy(&output.stdout).trim().to_owned())
            }
        };
        let (users, groups) = tokio::try_join!(ask(&[KUBELET]), ask(&["-g", KUBELET]))?;
        if users != groups {
            return Err(format!("mapping for user {users:?} and group {groups:?} are not the same"));
        }
        subordinate(&users)
    }

    fn read(&self, pod_uid: &str) -> Result<Option<Ids>, String> {
        let invalid = |why: &str| format!("invalid user namespace configuration: {why}");
        let path = self.pods.join(pod_uid).join(FILE);
        let Some(text) = files::read(&path).map_err(|error| crate::supervisor::chain(&error))? else { return Ok(None) };
        let record: Record =
            serde_json::from_str(&text).map_err(|error| format!("invalid user namespace mappings file: {error}"))?;
        match (record.uid_mappings.as_slice(), record.gid_mappings.as_slice()) {
            ([users], [groups]) if users != groups => Err(invalid("GID and UID mapping should be identical")),
            ([users], [_]) if users.container_id != 0 => Err(invalid("UID 0 must be mapped")),
            ([users], [_]) => Ok(Some(*users)),
            _ => Err(invalid("no more than one mapping allowed.")),
        }
    }

    fn record(&self, slots: &Slots, pod_uid: &str, ids: Ids) -> Result<Ids, String> {
        if ids.length != self.ids_per_pod {
            return Err(format!("wrong user namespace length {}", ids.length));
        }
        let at = ids.host_id.checked_sub(slots.first).filter(|at| at % ids.length == 0).map(|at| at / ids.length);
        let Some(slot) = at.filter(|slot| *slot < slots.count) else {
            return Err(format!("id {} is out of range", ids.host_id));
        };
        let mut used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        if used.iter().any(|(other, taken)| *taken == slot && other != pod_uid) {
            return Err(format!("range picked for pod {pod_uid:?} already taken"));
        }
        used.insert(pod_uid.to_owned(), slot);
        Ok(ids)
    }

    fn allocate(&self, slots: &Slots, pod_uid: &str) -> Result<Ids, String> {
        let slot = {
            let mut used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
            let taken: std::collections::BTreeSet<u32> = used.values().copied().collect();
            let free = (0..slots.count).find(|slot| !taken.contains(slot));
            let slot = free.ok_or("could not find an empty slot to allocate a user namespace")?;
            used.insert(pod_uid.to_owned(), slot);
            slot
        };
        let ids = Ids { host_id: slots.first + slot * self.ids_per_pod, container_id: 0, length: self.ids_per_pod };
        self.write(pod_uid, ids).inspect_err(|_| self.release(pod_uid))?;
        Ok(ids)
    }

    fn write(&self, pod_uid: &str, ids: Ids) -> Result<(), String> {
        let folder = self.pods.join(pod_uid);
        std::fs::create_dir_all(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
        let record = Record { uid_mappings: vec![ids], gid_mappings: vec![ids] };
        let bytes = serde_json::to_vec(&record).map_err(|error| error.to_string())?;
        files::replace(&folder.join(FILE), &bytes, 0o600).map_err(|error| crate::supervisor::chain(&error))
    }
}

/// `range` is what is to be used, as first id and number; else all but the ones that the machine itself may have.
fn slots(range: Option<(u32, u32)>, ids_per_pod: u32, max_pods: u32) -> Result<Slots, String> {
    let (first, length) =
        range.map_or((ids_per_pod, ALL_IDS - u64::from(ids_per_pod)), |(first, length)| (first, length.into()));
    if first % ids_per_pod != 0 {
        return Err(format!("kubelet user assigned ID {first} is not a multiple of {ids_per_pod}"));
    }
    if first < ids_per_pod {
        return Err(format!("kubelet user assigned ID {first} must be greater or equal to {ids_per_pod}"));
    }
    if range.is_some() && length % u64::from(ids_per_pod) != 0 {
        return Err(format!("kubelet user assigned IDs length {length} is not a multiple of {ids_per_pod}"));
    }
    let count = u32::try_from(length / u64::from(ids_per_pod)).unwrap_or(u32::MAX);
    if count < max_pods {
        return Err(format!("kubelet user assigned IDs are not enough to support {max_pods} pods"));
    }
    Ok(Slots { first, count })
}

/// `0: kubelet 65536 7208960`; nothing when there are none.
fn subordinate(text: &str) -> Result<Option<(u32, u32)>, String> {
    if text.is_empty() {
        return Ok(None);
    }
    let words: Vec<&str> = text.split_whitespace().collect();
    match (text.lines().count(), words.as_slice()) {
        (1, [_, _, first, length]) => {
            let number = |word: &str| word.parse().map_err(|error| format!("error parsing line {text:?}: {error}"));
            Ok(Some((number(first)?, number(length)?)))
        }
        (1, _) => Err(format!("invalid line {text:?}")),
        _ => Err(format!("error parsing line {text:?}: it must contain only one line")),
    }
}

fn options(ids: Ids) -> v1::UserNamespace {
    let one = vec![v1::IdMapping { host_id: ids.host_id, container_id: ids.container_id, length: ids.length }];
    v1::UserNamespace { mode: v1::NamespaceMode::Pod as i32, uids: one.clone(), gids: one }
}

/// Whether the handler can do it.
///
/// # Errors
/// It cannot, as the kubelet says so.
pub fn supported(handlers: &[Handler], name: &str) -> Result<(), String> {
    let why = match handlers.iter().find(|handler| handler.name == name) {
        Some(handler) if handler.user_namespaces => return Ok(()),
        Some(_) => String::new(),
        None if handlers.is_empty() => ": runtime handlers are not set".to_owned(),
        None => format!(": the handler {name:?} is not known"),
    };
    let who = match name {
        "" => "runtime".to_owned(),
        name => format!("RuntimeClass handler {name:?}"),
    };
    Err(format!("can't set `spec.hostUsers: false`, {who} does not support user namespaces{why}"))
}

/// Lets users of pods pass through folders that were root's alone, to where the runtime has their containers. Nobody can
/// look around there.
///
/// # Errors
/// The file system says no.
pub fn let_through(from: &Path, to: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    for folder in to.ancestors().take_while(|folder| folder.starts_with(from)) {
        let mut mode = std::fs::metadata(folder)?.permissions();
        if mode.mode() & 0o001 == 0 {
            mode.set_mode(mode.mode() | 0o011);
            std::fs::set_permissions(folder, mode)?;
        }
    }
    Ok(())
}

/// Gives a sandbox users of its own.
pub fn give(config: &mut v1::PodSandboxConfig, users: Option<v1::UserNamespace>) {
    let context = config.linux.as_mut().and_then(|linux| linux.security_context.as_mut());
    if let (Some(context), Some(users)) = (context, users) {
        context.namespace_options.get_or_insert_default().userns_options = Some(users);
    }
}

/// Gives a container the users of its sandbox; what it sees of volumes is theirs.
pub fn share(config: &mut v1::ContainerConfig, sandbox: &v1::PodSandboxConfig) {
    let of_sandbox = sandbox.linux.as_ref().and_then(|linux| linux.security_context.as_ref());
    let Some(users) = of_sandbox.and_then(|context| context.namespace_options.as_ref()?.userns_options.clone()) else {
        return;
    };
    for mount in config.mounts.iter_mut().filter(|mount| mount.image.is_none()) {
        (mount.uid_mappings, mount.gid_mappings) = (users.uids.clone(), users.gids.clone());
    }
    let context = config.linux.as_mut().and_then(|linux| linux.security_context.as_mut());
    if let Some(context) = context {
        context.namespace_options.get_or_insert_default().userns_options = Some(users);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn first(users: &v1::UserNamespace) -> (u32, u32) {
        (users.uids[0].host_id, users.uids[0].length)
    }

    #[tokio::test]
    async fn no_two_pods_have_the_same_ids() {
        let pods = tempfile::tempdir().unwrap();
        let users = |ids| Users::new(pods.path(), ids, 110, "/nonexistent");
        let node = users(65536);
        for (pod, expect) in [("a", 65536), ("b", 131_072), ("a", 65536)] {
            assert_eq!(first(&node.of(pod).await.unwrap()), (expect, 65536), "{pod}");
        }
        // Another agent finds what they have.
        let node = users(65536);
        assert_eq!(first(&node.of("c").await.unwrap()).0, 196_608);
        assert_eq!(first(&node.of("b").await.unwrap()).0, 131_072);
        std::fs::remove_dir_all(pods.path().join("a")).unwrap();
        node.release("a");
        assert_eq!(first(&node.of("d").await.unwrap()).0, 65536, "they are free again");
        let error = users(131_072).of("e").await.unwrap_err();
        assert!(error.ends_with("wrong user namespace length 65536"), "{error}");
        let file = pods.path().join("b").join(FILE);
        let text = std::fs::read_to_string(&file).unwrap();
        assert!(
            text.starts_with(r#"{"uidMappings":[{"hostId":131072,"containerId":0,"length":65536}],"gidMappings""#),
            "{text}"
        );
        for (damaged, expect) in [
            ("{".to_owned(), "invalid user namespace mappings file"),
            (text.replace("131072", "65536"), "range picked for pod \"b\" already taken"),
            (text.replace("131072", "7"), "id 7 is out of range"),
            (text.replace("\"containerId\":0", "\"containerId\":1"), "UID 0 must be mapped"),
        ] {
            std::fs::write(&file, damaged).unwrap();
            let error = node.of("b").await.unwrap_err();
            assert!(error.contains(expect), "{error}");
        }
    }

    #[test]
    fn users_pass_through_and_see_nothing() {
        use std::os::unix::fs::PermissionsExt as _;
        let root = tempfile::tempdir().unwrap();
        let inner = root.path().join("agent/run");
        std::fs::create_dir_all(&inner).unwrap();
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        let set = |path: &Path, mode| std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
        for path in [root.path(), &root.path().join("agent")] {
            set(path, 0o700);
        }
        set(&inner, 0o755);
        let_through(&root.path().join("agent"), &inner).unwrap();
        assert_eq!([mode(root.path()), mode(&root.path().join("agent")), mode(&inner)], [0o700, 0o711, 0o755]);
    }

    #[test]
    fn ids_of_the_kubelets_user() {
        assert_eq!(subordinate("0: kubelet 65536 7208960"), Ok(Some((65536, 7_208_960))));
        assert_eq!(subordinate(""), Ok(None));
        for wrong in ["kubelet 1", "0: kubelet 65536 x", "0: kubelet 65536 65536\n1: kubelet 196608 65536"] {
            assert!(subordinate(wrong).is_err(), "{wrong}");
        }
        assert_eq!(slots(None, 65536, 110), Ok(Slots { first: 65536, count: 65535 }));
        assert_eq!(slots(Some((131_072, 7_208_960)), 65536, 110), Ok(Slots { first: 131_072, count: 110 }));
        let check = |range, expect: &str| assert_eq!(slots(Some(range), 65536, 110), Err(expect.to_owned()));
        check((65537, 7_208_960), "kubelet user assigned ID 65537 is not a multiple of 65536");
        check((0, 7_208_960), "kubelet user assigned ID 0 must be greater or equal to 65536");
        check((65536, 65537), "kubelet user assigned IDs length 65537 is not a multiple of 65536");
        check((65536, 65536), "kubelet user assigned IDs are not enough to support 110 pods");
    }

    #[test]
    fn what_the_runtime_cannot_do_is_refused() {
        let handler =
            |name: &str, user_namespaces| Handler { name: name.into(), user_namespaces, ..Handler::default() };
        let handlers = [handler("", true), handler("old", false)];
        let text = "does not support user namespaces";
        let no = |who: &str, why: &str| Err(format!("can't set `spec.hostUsers: false`, {who} {text}{why}"));
        assert_eq!(supported(&handlers, ""), Ok(()));
        assert_eq!(supported(&handlers, "old"), no("RuntimeClass handler \"old\"", ""));
        assert_eq!(
            supported(&handlers, "none"),
            no("RuntimeClass handler \"none\"", ": the handler \"none\" is not known")
        );
        assert_eq!(supported(&[], ""), no("runtime", ": runtime handlers are not set"));
    }
}
