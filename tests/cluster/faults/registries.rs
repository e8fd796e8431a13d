//! Registries that misbehave: those that break off, one that says nothing, one that sends something else than it says.
//! The pod waits and says why, and runs once the registry is well.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::json;
use sha2::{Digest as _, Sha256};

use crate::lab::{Lab, wait_for};
use crate::support::images;

const PORT: u16 = 5009;

#[derive(Clone, Copy, PartialEq)]
enum Mood {
    Well,
    /// Takes requests for layers and answers none.
    Hangs,
    /// Sends half of a layer and breaks off.
    Truncates,
    /// Sends another layer of the same size.
    Lies,
    /// Is not there.
    Refuses,
}

/// One image for each mood: a layer that the runtime has it does not ask for again.
const IMAGES: [&str; 4] = ["refuses", "truncates", "lies", "hangs"];

/// What is served, by digest, and the digests of the manifests of [`IMAGES`].
struct Content {
    blobs: Vec<(String, Vec<u8>)>,
    manifests: Vec<String>,
}

/// A registry on the machine's loopback.
struct Registry {
    mood: Arc<Mutex<Mood>>,
}

impl Registry {
    fn start(lab: &Lab) -> Registry {
        let mood = Arc::new(Mutex::new(Mood::Well));
        let content = Arc::new(content());
        let current = mood.clone();
        lab.machines[0]
            .in_network(move || {
                let listener = TcpListener::bind(("127.0.0.1", PORT)).unwrap();
                // Threads are in the network of the one that starts them. They end with the test.
                std::thread::spawn(move || {
                    for stream in listener.incoming().flatten() {
                        let (content, mood) = (content.clone(), current.clone());
                        std::thread::spawn(move || serve(&stream, &content, &mood));
                    }
                });
            })
            .join()
            .unwrap();
        Registry { mood }
    }

    fn be(&self, mood: Mood) {
        *self.mood.lock().unwrap() = mood;
    }
}

fn digest(data: &[u8]) -> String {
    let hash = Sha256::digest(data);
    format!("sha256:{}", hash.iter().map(|b| format!("{b:02x}")).collect::<String>())
}

/// An image is an archive of blobs with an index.
fn content() -> Content {
    let (mut blobs, mut manifests) = (Vec::new(), Vec::new());
    for name in IMAGES {
        let own = ("etc/name", 0o644, name.as_bytes());
        let archive = images::busybox(name, &json!({"Cmd": ["/bin/sleep", "1000"]}), &[own]);
        for entry in tar::Archive::new(archive.as_slice()).entries().unwrap() {
            let mut entry = entry.unwrap();
            let path = entry.path().unwrap().display().to_string();
            let mut data = Vec::new();
            std::io::Read::read_to_end(&mut entry, &mut data).unwrap();
            if path == "index.json" {
                let index: serde_json::Value = serde_json::from_slice(&data).unwrap();
                manifests.push(index["manifests"][0]["digest"].as_str().unwrap().to_owned());
            } else if path.starts_with("blobs/") {
                blobs.push((digest(&data), data));
            }
        }
    }
    Content { blobs, manifests }
}

fn serve(stream: &TcpStream, content: &Content, mood: &Mutex<Mood>) {
    let mut reader = BufReader::new(stream);
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).unwrap_or(0) == 0 {
            return;
        }
        let mut words = line.split(' ');
        let (method, path) = (words.next().unwrap_or_default().to_owned(), words.next().unwrap_or_default().to_owned());
        loop {
            let mut header = String::new();
            if reader.read_line(&mut header).unwrap_or(0) <= 2 {
                break;
            }
        }
        let mood = *mood.lock().unwrap();
        if mood == Mood::Refuses || answer(stream, content, mood, &method, &path).is_none() {
            let _ = stream.shutdown(std::net::Shutdown::Both);
            return;
        }
    }
}

/// `None` when the connection is of no more use.
fn answer(mut stream: &TcpStream, content: &Content, mood: Mood, method: &str, path: &str) -> Option<()> {
    let wanted = match path.rsplit('/').next()? {
        "" => "",
        tag if !tag.contains(':') => {
            let at = IMAGES.iter().position(|name| path.contains(&format!("/{name}/")))?;
            &content.manifests[at]
        }
        digest => digest,
    };
    let (kind, data) = match content.blobs.iter().find(|(digest, _)| digest == wanted) {
        Some((_, data)) if path.contains("/manifests/") => ("application/vnd.oci.image.manifest.v1+json", data.clone()),
        Some((_, data)) => ("application/octet-stream", data.clone()),
        None => ("text/plain", Vec::new()),
    };
    // Layers are large.
    let is_layer = path.contains("/blobs/") && data.len() > 100_000;
    let status = if wanted.is_empty() || !data.is_empty() { "200 OK" } else { "404 Not Found" };
    let sent = match mood {
        Mood::Hangs if is_layer => {
            std::thread::sleep(Duration::from_secs(3600));
            return None;
        }
        Mood::Truncates if is_layer => data[..data.len() / 2].to_vec(),
        Mood::Lies if is_layer => data.iter().map(|byte| byte ^ 1).collect(),
        _ => data.clone(),
    };
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\nDocker-Content-Digest: {wanted}\r\n\r\n",
        data.len()
    );
    stream.write_all(head.as_bytes()).ok()?;
    if method != "HEAD" {
        stream.write_all(&sent).ok()?;
    }
    (sent.len() == data.len()).then_some(())
}

pub fn a_registry_that_misbehaves(lab: &Lab) {
    let registry = Registry::start(lab);
    let image = |name: &str| format!("127.0.0.1:{PORT}/team/{name}:1");
    for (mood, name, cause) in [
        (Mood::Refuses, "refuses", "EOF"),
        (Mood::Truncates, "truncates", "unexpected EOF"),
        (Mood::Lies, "lies", "unexpected commit digest"),
    ] {
        registry.be(mood);
        lab.kubectl(&["run", name, &format!("--image={}", image(name))]);
        let message = wait_for(&format!("{name} to be told"), || {
            let pod = lab.json(&["get", "pod", name]).ok()?;
            let waiting = &pod["status"]["containerStatuses"][0]["state"]["waiting"];
            let message = waiting["message"].as_str()?.to_owned();
            (waiting["reason"] == "ImagePullBackOff").then_some(message)
        });
        let start = format!("Back-off pulling image \"{}\": ErrImagePull: ", image(name));
        assert!(message.starts_with(&start) && message.contains(cause), "{message}");
        let events = lab.kubectl(&["get", "events", "--field-selector", &format!("involvedObject.name={name}")]);
        assert!(events.contains(&format!("Failed to pull image \"{}\": ", image(name))), "{events}");
        registry.be(Mood::Well);
        running(lab, name);
        lab.kubectl(&["delete", "pod", name, "--now"]);
    }
    // One that says nothing keeps nobody but its own pod waiting, for as long as the runtime has patience (containerd
    // from 1.7 on: `image_pull_progress_timeout`, 5 min); the pod can be deleted meanwhile.
    registry.be(Mood::Hangs);
    lab.kubectl(&["run", "hangs", &format!("--image={}", image("hangs"))]);
    wait_for("the pull", || {
        let events = lab.kubectl(&["get", "events", "--field-selector", "involvedObject.name=hangs"]);
        events.contains("Pulling image").then_some(())
    });
    lab.kubectl(&["run", "other", &format!("--image={}", crate::lab::IMAGE)]);
    running(lab, "other");
    let pod = lab.json(&["get", "pod", "hangs"]).unwrap();
    assert_eq!(pod["status"]["containerStatuses"][0]["state"]["waiting"]["reason"], "ContainerCreating");
    lab.kubectl(&["delete", "pod", "hangs", "other", "--now", "--timeout=20s"]);
    registry.be(Mood::Well);
    lab.kubectl(&["run", "hangs", &format!("--image={}", image("hangs"))]);
    running(lab, "hangs");
    lab.kubectl(&["delete", "pod", "hangs", "--now"]);
}

fn running(lab: &Lab, name: &str) {
    wait_for(&format!("pod {name} to run"), || {
        (lab.json(&["get", "pod", name]).ok()?["status"]["phase"] == "Running").then_some(())
    });
}
