//! Real pulls, from registries on loopback of the machine: by policy, with logins, through mirrors; and `skiff images`.

use std::path::Path;
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};

use crate::lab::{Lab, binary, wait_for};
use crate::support::{images, skip};

const REGISTRY: &str = "/usr/bin/docker-registry";
const IMAGE: &str = "127.0.0.1:5000/team/busybox:1";
/// The same images behind a login.
const PRIVATE: &str = "127.0.0.1:5001/team/busybox:1";
const LOGIN: [&str; 2] = ["pia", "geheim"];
/// bcrypt of the password.
const HASH: &str = "$2b$05$abcdefghijklmnopqrstuuVWu8RjbNovPZWAMRdd7iqaaG0mI53Uu";

/// A registry that ends with this.
struct Registry(Child);

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn registry(lab: &Lab, port: u16, more: &str) -> Registry {
    let config = lab.dir.join(format!("registry-{port}.yml"));
    let storage = lab.dir.join("registry");
    let text = format!(
        "version: 0.1\nstorage:\n  filesystem:\n    rootdirectory: {}\n  delete:\n    enabled: true\nhttp:\n  addr: 127.0.0.1:{port}\n{more}",
        storage.display()
    );
    std::fs::write(&config, text).unwrap();
    let mut registry = lab.machines[0].command(REGISTRY.as_ref());
    registry.arg("serve").arg(&config).stdout(Stdio::null()).stderr(Stdio::null());
    Registry(registry.spawn().unwrap())
}

#[test]
fn an_image_is_pulled_from_a_registry() {
    if !nix::unistd::geteuid().is_root() || !Path::new(REGISTRY).exists() {
        return skip("needs root and docker-registry");
    }
    let mut lab = Lab::new(1);
    let registries = lab.dir.join("registries.yaml");
    let flag = format!("--private-registry={}", registries.display());
    lab.server(&[&flag]);
    let _open = registry(&lab, 5000, "");
    let users = lab.dir.join("users");
    std::fs::write(&users, format!("{}:{HASH}\n", LOGIN[0])).unwrap();
    let _private =
        registry(&lab, 5001, &format!("auth:\n  htpasswd:\n    realm: team\n    path: {}\n", users.display()));
    push(&lab);

    lab.kubectl(&["run", "pulled", &format!("--image={IMAGE}"), "--image-pull-policy=Always"]);
    running(&lab, "pulled");
    let events = lab.kubectl(&["get", "events", "--field-selector", "involvedObject.name=pulled"]);
    for part in [format!("Pulling image \"{IMAGE}\""), format!("Successfully pulled image \"{IMAGE}\" in ")] {
        assert!(events.contains(&part), "{part} is not in:\n{events}");
    }
    let pod = lab.json(&["get", "pod", "pulled"]).unwrap();
    let id = pod["status"]["containerStatuses"][0]["imageID"].as_str().unwrap().to_owned();
    assert!(id.starts_with("127.0.0.1:5000/team/busybox@sha256:"), "{id}");
    // A tag beside a digest says nothing.
    let digest = id.split_once('@').unwrap().1;
    let image = format!("--image=127.0.0.1:5000/team/busybox:whatever@{digest}");
    lab.kubectl(&["run", "digest", &image, "--image-pull-policy=Always"]);
    running(&lab, "digest");

    logins(&lab);
    lab.kubectl(&["delete", "pod", "--all", "--now"]);
    from_the_command_line(&lab);
    mirrors(&mut lab, &registries);
}

/// Pushed by containerd's own client, from an archive that is imported under the registry's name.
fn push(lab: &Lab) {
    let archive = lab.dir.join("pushed.tar");
    std::fs::write(&archive, images::busybox(IMAGE, &json!({"Cmd": ["/bin/sleep", "1000"]}), &[])).unwrap();
    let socket = lab.machines[0].data_dir.join("agent/run/containerd/containerd.sock");
    let ctr = |arguments: &[&str]| {
        let mut command: Command = lab.machines[0].command("ctr".as_ref());
        command.arg("--address").arg(&socket).args(["--namespace", "k8s.io", "images"]).args(arguments);
        let output = command.output().unwrap();
        output.status.success().then_some(()).ok_or_else(|| format!("{output:?}"))
    };
    ctr(&["import", &archive.display().to_string()]).unwrap();
    wait_for("the push", || ctr(&["push", "--plain-http", IMAGE]).ok());
    ctr(&["rm", "--sync", IMAGE]).unwrap();
}

fn running(lab: &Lab, name: &str) {
    wait_for(&format!("pod {name}"), || {
        let pod = lab.json(&["get", "pod", name]).ok()?;
        (pod["status"]["phase"] == "Running").then_some(())
    });
}

/// Waits until the container waits for this reason; returns its message.
fn waits_for(lab: &Lab, name: &str, reasons: &[&str]) -> String {
    wait_for(&format!("pod {name} to wait for {reasons:?}"), || {
        let pod = lab.json(&["get", "pod", name]).ok()?;
        let waiting = &pod["status"]["containerStatuses"][0]["state"]["waiting"];
        let reason = waiting["reason"].as_str()?;
        reasons.contains(&reason).then(|| waiting["message"].as_str().unwrap_or_default().to_owned())
    })
}

fn logins(lab: &Lab) {
    let image = format!("--image={PRIVATE}");
    // A pull that fails says so, waits, and says that.
    lab.kubectl(&["run", "stranger", &image]);
    waits_for(lab, "stranger", &["ErrImagePull", "ImagePullBackOff"]);
    let message = waits_for(lab, "stranger", &["ImagePullBackOff"]);
    assert!(message.starts_with(&format!("Back-off pulling image \"{PRIVATE}\": ErrImagePull: ")), "{message}");
    lab.kubectl(&["delete", "pod", "stranger", "--now"]);

    let (user, password) = (format!("--docker-username={}", LOGIN[0]), format!("--docker-password={}", LOGIN[1]));
    lab.kubectl(&["create", "secret", "docker-registry", "pia", "--docker-server=127.0.0.1:5001", &user, &password]);
    // The account's secrets are the pod's.
    lab.kubectl(&["create", "serviceaccount", "member"]);
    lab.kubectl(&["patch", "serviceaccount", "member", "-p", r#"{"imagePullSecrets":[{"name":"pia"}]}"#]);
    let member = r#"{"spec":{"serviceAccountName":"member"}}"#;
    lab.kubectl(&["run", "member", &image, "--overrides", member]);
    running(lab, "member");
    // The image is here now, and still not for those who could not have pulled it.
    lab.kubectl(&["run", "thief", &image, "--image-pull-policy=IfNotPresent"]);
    waits_for(lab, "thief", &["ErrImagePull", "ImagePullBackOff"]);
    lab.kubectl(&["run", "never", &image, "--image-pull-policy=Never"]);
    let message = waits_for(lab, "never", &["ErrImageNeverPull"]);
    assert_eq!(message, format!("Container image \"{PRIVATE}\" is not present with pull policy of Never"));
    lab.kubectl(&["run", "again", &image, "--image-pull-policy=IfNotPresent", "--overrides", member]);
    running(lab, "again");
    let events = lab.kubectl(&["get", "events", "--field-selector", "involvedObject.name=again"]);
    assert!(events.contains("already present on machine and can be accessed by the pod"), "{events}");
    for bad in ["Upper/Case:1", "a b"] {
        let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "bad"},
            "spec": {"containers": [{"name": "c", "image": bad}]}});
        lab.apply(&pod.to_string());
        waits_for(lab, "bad", &["InvalidImageName"]);
        lab.kubectl(&["delete", "pod", "bad", "--now"]);
    }
}

/// `skiff images …`; what it said, or complained of.
pub fn skiff(lab: &Lab, arguments: &[&str], input: Option<&Path>) -> Result<String, String> {
    let mut command = lab.machines[0].command(&binary());
    command.arg("images").args(arguments).arg(format!("--data-dir={}", lab.machines[0].data_dir.display()));
    command.stdin(input.map_or_else(Stdio::null, |path| std::fs::File::open(path).unwrap().into()));
    let output = command.output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
}

fn from_the_command_line(lab: &Lab) {
    wait_for("the pods' end", || (lab.json(&["get", "pods"]).ok()?["items"] == json!([])).then_some(()));
    let archive = lab.dir.join("more.tar");
    std::fs::write(&archive, images::busybox("test.local/more:1", &json!({}), &[])).unwrap();
    assert_eq!(skiff(lab, &["import", "-"], Some(&archive)).unwrap(), "imported test.local/more:1\n");
    assert_eq!(skiff(lab, &["import", &archive.display().to_string()], None).unwrap(), "imported test.local/more:1\n");
    let table =
        wait_for("the new image", || skiff(lab, &["list"], None).ok().filter(|t| t.contains("test.local/more")));
    assert!(table.starts_with("IMAGE "), "{table}");
    let line = table.lines().find(|line| line.starts_with("test.local/more ")).unwrap();
    let fields: Vec<&str> = line.split_whitespace().collect();
    assert!(fields[1] == "1" && fields[2].len() == 13 && fields[3].ends_with("MB"), "{line}");
    let all: Value = serde_json::from_str(&skiff(lab, &["list", "-o", "json"], None).unwrap()).unwrap();
    let more =
        all["images"].as_array().unwrap().iter().find(|i| i["repoTags"] == json!(["test.local/more:1"])).unwrap();
    assert!(more["id"].as_str().unwrap().starts_with("sha256:"), "{more}");

    assert!(skiff(lab, &["rm", "test.local/more:1"], None).unwrap().contains("deleted test.local/more:1"));
    let missing = skiff(lab, &["rm", "test.local/more:1"], None).unwrap_err();
    assert!(missing.contains("no image test.local/more:1 is here"), "{missing}");

    let refused = skiff(lab, &["pull", PRIVATE], None).unwrap_err();
    assert!(refused.contains(&format!("cannot pull {PRIVATE}")), "{refused}");
    let creds = format!("--creds={}:{}", LOGIN[0], LOGIN[1]);
    assert!(skiff(lab, &["pull", PRIVATE, &creds], None).unwrap().starts_with(&format!("pulled {PRIVATE} (sha256:")));
    let pruned = skiff(lab, &["prune"], None).unwrap();
    assert!(pruned.contains("deleted 127.0.0.1:500") && pruned.contains(" images removed, "), "{pruned}");
    let table = skiff(lab, &["list"], None).unwrap();
    assert!(!table.contains("team/busybox") && table.contains("pause"), "{table}");

    let nowhere = format!("--container-runtime-endpoint={}", lab.dir.join("no.sock").display());
    let silent = skiff(lab, &["list", &nowhere], None).unwrap_err();
    assert!(silent.contains("no container runtime answers at"), "{silent}");
}

fn mirrors(lab: &mut Lab, registries: &Path) {
    let text = format!(
        "mirrors:\n  plain.test:\n    endpoint: ['http://127.0.0.1:5001']\n  renamed.test:\n    endpoint: ['http://127.0.0.1:5001']\n    \
         rewrite: {{'^apps/(.*)$': 'team/$1'}}\nconfigs:\n  '127.0.0.1:5001':\n    auth: {{username: {}, password: {}}}\n",
        LOGIN[0], LOGIN[1]
    );
    std::fs::write(registries, text).unwrap();
    lab.machines[0].stop();
    lab.machines[0].restart();
    lab.node_ready("m1");
    let config = lab.machines[0].data_dir.join("agent/etc/containerd/config.toml");
    let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&config).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600, "there are passwords in it");
    for (name, image) in [("plain", "plain.test/team/busybox:1"), ("renamed", "renamed.test/apps/busybox:1")] {
        lab.kubectl(&["run", name, &format!("--image={image}")]);
        running(lab, name);
        let all = skiff(lab, &["list", "-o", "json"], None).unwrap();
        assert!(all.contains(&format!("\"{image}\"")), "{all}");
    }
    let all = skiff(lab, &["list"], None).unwrap();
    assert!(!all.contains("127.0.0.1:5001/team"), "the mirror's own name is not left:\n{all}");
    let log = std::fs::read_to_string(lab.machines[0].data_dir.join("agent/containerd.log")).unwrap();
    assert!(!log.contains("hosts.toml"), "containerd reads what it is given:\n{log}");
    // What is wrong is told where an administrator looks.
    std::fs::write(registries, "mirrors: [geheim]\n").unwrap();
    lab.machines[0].stop();
    lab.machines[0].restart();
    wait_for("the complaint", || {
        let log = std::fs::read_to_string(lab.machines[0].log()).unwrap();
        log.contains("is not what registries.yaml must be").then_some(())
    });
    std::fs::remove_file(registries).unwrap();
    lab.node_ready("m1");
    let left = std::fs::read_dir(lab.machines[0].data_dir.join("agent/etc/containerd/certs.d")).unwrap().count();
    wait_for("mirrors to be gone", || {
        (left == 0 || !skiff(lab, &["list"], None).unwrap_or_default().is_empty()).then_some(())
    });
}
