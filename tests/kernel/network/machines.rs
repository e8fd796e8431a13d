//! Machines and pods as network namespaces, and small servers and clients in them.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use skiff::config::Cidr;
use skiff::net::netlink::{Namespace, Socket};
use skiff::net::{cni, overlay};

use crate::support::skip;

static NEXT: AtomicU32 = AtomicU32::new(0);

/// Nothing here takes longer unless it is broken.
pub const PATIENCE: Duration = Duration::from_secs(5);
pub const CLUSTER: Cidr = Cidr { address: Ipv4Addr::new(10, 42, 0, 0), prefix: 16 };
pub const SERVICES: Cidr = Cidr { address: Ipv4Addr::new(10, 43, 0, 0), prefix: 16 };

/// Whether namespaces can be made here.
pub fn possible() -> bool {
    let made = Machine::try_new("probe");
    if made.is_none() {
        skip("network namespaces cannot be made (root and iproute2 are needed)");
    }
    made.is_some()
}

/// A network namespace with a name. Gone when dropped.
pub struct Machine {
    pub name: String,
    namespace: Namespace,
}

impl Machine {
    pub fn new(role: &str) -> Self {
        Self::try_new(role).expect("a network namespace")
    }

    fn try_new(role: &str) -> Option<Self> {
        let name = format!("skt{}-{}-{role}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let made = Command::new("ip").args(["netns", "add", &name]).output().ok()?;
        if !made.status.success() {
            return None;
        }
        let namespace = Namespace::open(&PathBuf::from(format!("/run/netns/{name}"))).ok()??;
        let machine = Self { name, namespace };
        machine.run(|| Socket::open().unwrap().set_up("lo").unwrap());
        Some(machine)
    }

    pub fn path(&self) -> String {
        format!("/run/netns/{}", self.name)
    }

    /// Runs something in the namespace.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        self.namespace.run(work).expect("the namespace can be entered")
    }

    /// `ip` with these words in the namespace; its output.
    pub fn ip(&self, words: &str) -> String {
        let output = Command::new("ip").args(["-n", &self.name]).args(words.split(' ')).output().unwrap();
        assert!(output.status.success(), "ip {words}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// Any program in the namespace; whether it succeeded, and its output.
    pub fn exec(&self, words: &str) -> (bool, String) {
        let output = Command::new("ip").args(["netns", "exec", &self.name]).args(words.split(' ')).output().unwrap();
        let text = [output.stdout, output.stderr].concat();
        (output.status.success(), String::from_utf8_lossy(&text).into_owned())
    }

    pub fn pings(&self, address: Ipv4Addr) -> bool {
        self.exec(&format!("ping -c1 -W2 {address}")).0
    }

    /// A server that says its name and who asks, on all addresses, by TCP and UDP.
    pub fn serve(&self, port: u16) {
        let any = (Ipv4Addr::UNSPECIFIED, port);
        let (tcp, udp) = self.run(|| (TcpListener::bind(any).unwrap(), UdpSocket::bind(any).unwrap()));
        let name = self.name.clone();
        // The threads end with the test's process; nothing can stop a blocking accept.
        std::thread::spawn(move || {
            for stream in tcp.incoming().flatten() {
                let name = name.clone();
                std::thread::spawn(move || greet(stream, &name));
            }
        });
        let name = self.name.clone();
        std::thread::spawn(move || {
            let mut buffer = [0; 64];
            while let Ok((_, client)) = udp.recv_from(&mut buffer) {
                let _ = udp.send_to(format!("{name} {}", client.ip()).as_bytes(), client);
            }
        });
    }

    pub fn connect(&self, to: (Ipv4Addr, u16)) -> std::io::Result<TcpStream> {
        self.run(|| TcpStream::connect_timeout(&SocketAddr::from(to), PATIENCE))
    }

    /// What the server says by TCP: its name and our address.
    pub fn ask(&self, to: (Ipv4Addr, u16)) -> std::io::Result<String> {
        let mut stream = self.connect(to)?;
        question(&mut stream)
    }

    pub fn ask_udp(&self, to: (Ipv4Addr, u16)) -> std::io::Result<String> {
        let socket = self.run(|| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap());
        question_udp(&socket, to)
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "del", &self.name]).output();
    }
}

fn greet(mut stream: TcpStream, name: &str) {
    let peer = stream.peer_addr().map(|a| a.ip().to_string()).unwrap_or_default();
    let mut byte = [0];
    while matches!(stream.read(&mut byte), Ok(1)) {
        if stream.write_all(format!("{name} {peer}\n").as_bytes()).is_err() {
            return;
        }
    }
}

/// One question over a connection that may be asked more.
pub fn question(stream: &mut TcpStream) -> std::io::Result<String> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(b"?")?;
    let mut answer = String::new();
    let mut byte = [0];
    loop {
        stream.read_exact(&mut byte)?;
        if byte[0] == b'\n' {
            return Ok(answer);
        }
        answer.push(char::from(byte[0]));
    }
}

pub fn question_udp(socket: &UdpSocket, to: (Ipv4Addr, u16)) -> std::io::Result<String> {
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.send_to(b"?", SocketAddr::from(to))?;
    let mut buffer = [0; 256];
    let length = socket.recv(&mut buffer)?;
    Ok(String::from_utf8_lossy(&buffer[..length]).into_owned())
}

/// Connects two machines by a cable.
pub fn cable(a: (&Machine, &str, &str), b: (&Machine, &str, &str)) {
    a.0.ip(&format!("link add {} type veth peer name {} netns {}", a.1, b.1, b.0.name));
    for (machine, device, address) in [a, b] {
        machine.ip(&format!("address add {address}/24 dev {device}"));
        machine.ip(&format!("link set {device} up"));
    }
}

/// A node: a machine with a data directory, a pod network, and everything but proxy and DNS.
pub struct Node {
    pub machine: Machine,
    pub data: tempfile::TempDir,
    pub settings: overlay::Settings,
    pub pod_cidr: Cidr,
}

impl Node {
    pub fn new(role: &str, node_ip: Ipv4Addr, third: u8) -> Self {
        let data = tempfile::tempdir().unwrap();
        let settings = overlay::Settings {
            data_dir: data.path().to_owned(),
            node_name: role.to_owned(),
            node_ip,
            cluster_cidr: CLUSTER,
            service_cidr: SERVICES,
        };
        let pod_cidr = Cidr { address: Ipv4Addr::new(10, 42, third, 0), prefix: 24 };
        Self { machine: Machine::new(role), data, settings, pod_cidr }
    }

    pub fn converge(&self, peers: &[overlay::plan::Peer]) {
        self.machine
            .run(|| overlay::converge(&self.settings, self.pod_cidr, peers).map_err(|e| e.to_string()))
            .unwrap();
    }

    /// As the container runtime does: the plugin's part of the configuration, with what the runtime adds.
    pub fn conf(&self, ports: &str) -> String {
        plugin_conf(self.data.path(), ports)
    }

    pub fn cni(&self, command: &str, pod: &Machine, ports: &str) -> Result<String, String> {
        let conf = self.conf(ports);
        let (id, path) = (pod.name.clone(), pod.path());
        let environment = move |name: &str| match name {
            "CNI_COMMAND" => Some(command.to_owned()),
            "CNI_CONTAINERID" => Some(id.clone()),
            "CNI_NETNS" => Some(path.clone()),
            "CNI_IFNAME" => Some("eth0".to_owned()),
            _ => None,
        };
        self.machine.run(|| cni::request(&environment, conf.as_bytes()))
    }

    /// A new pod and its address.
    pub fn pod(&self, role: &str) -> (Machine, Ipv4Addr) {
        let pod = Machine::new(role);
        let result = self.cni("ADD", &pod, "[]").unwrap();
        let address = address_of(&result);
        (pod, address)
    }
}

pub fn address_of(result: &str) -> Ipv4Addr {
    let result: serde_json::Value = serde_json::from_str(result).unwrap();
    let text = result["ips"][0]["address"].as_str().unwrap();
    text.strip_suffix("/32").unwrap().parse().unwrap()
}

fn plugin_conf(data_dir: &Path, ports: &str) -> String {
    let path = data_dir.join("agent/etc/cni/net.d/10-skiff.conflist");
    let list: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let mut plugin = list["plugins"][0].clone();
    plugin["cniVersion"] = list["cniVersion"].clone();
    plugin["name"] = list["name"].clone();
    plugin["runtimeConfig"] =
        serde_json::json!({ "portMappings": serde_json::from_str::<serde_json::Value>(ports).unwrap() });
    plugin.to_string()
}
