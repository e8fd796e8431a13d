//! A lab: machines as namespaces, joined by a switch, with no route to anywhere else. Each machine runs at most one
//! skiff, with a data directory of its own. Everything goes away with the lab, also when the test fails.

use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::images;

/// Long enough for a slow machine; a test that waits this long has failed.
pub const DEADLINE: Duration = Duration::from_secs(90);
const STEP: Duration = Duration::from_millis(50);

/// Labs share the kernel's cgroups and the processor: one at a time.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// Busybox, which sleeps unless it is told otherwise.
pub const IMAGE: &str = "test.local/busybox:1";

pub struct Lab {
    id: String,
    pub dir: PathBuf,
    pub machines: Vec<Machine>,
    _turn: MutexGuard<'static, ()>,
}

pub struct Machine {
    pub name: String,
    pub ip: Ipv4Addr,
    netns: String,
    /// Holds the mount and UTS namespace while skiff is away.
    anchor: Child,
    pub data_dir: PathBuf,
    pub skiff: Option<Child>,
    /// What skiff is started with: the binary, an emulator before it where it needs one.
    pub program: Vec<PathBuf>,
    /// The command line of the last start.
    arguments: Vec<String>,
    /// It is not told its address.
    pub finds_its_address: bool,
    /// Where its containerd and runc are, before all others.
    pub runtime: Option<PathBuf>,
}

pub fn variable(name: &str) -> Option<PathBuf> {
    #[allow(clippy::disallowed_methods, reason = "tests have no configuration")]
    std::env::var_os(name).map(PathBuf::from)
}

/// The binary under test: the static one of `tests/run.sh`, else what cargo built beside the test.
pub fn binary() -> PathBuf {
    variable("SKIFF_TEST_BINARY").unwrap_or_else(|| PathBuf::from(env!("CARGO_BIN_EXE_skiff")))
}

fn run(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|e| panic!("{command:?}: {e}"));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success(),
        "{command:?}: {}\n{text}{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    text
}

fn ip(arguments: &str) -> String {
    run(Command::new("ip").args(arguments.split(' ')))
}

/// Polls a condition of the outside world.
#[track_caller]
pub fn wait_for<T>(what: &str, condition: impl FnMut() -> Option<T>) -> T {
    wait_within(DEADLINE, what, condition)
}

/// For what is looked after only now and then.
#[track_caller]
pub fn wait_within<T>(limit: Duration, what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let start = now();
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(start.elapsed() < limit, "{what}: not within {}s", limit.as_secs());
        std::thread::sleep(STEP);
    }
}

#[allow(clippy::disallowed_methods, reason = "tests measure the outside world")]
pub fn now() -> Instant {
    Instant::now()
}

impl Lab {
    /// A lab with `count` machines, 10.88.0.1 and up, named `m1`….
    pub fn new(count: u8) -> Self {
        let turn = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
        let id = format!("sk{}", std::process::id());
        let dir = PathBuf::from(format!("/tmp/{id}"));
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir_all(&dir).unwrap();
        let mut lab = Self { id, dir, machines: Vec::new(), _turn: turn };
        let switch = format!("{}-sw", lab.id);
        ip(&format!("netns add {switch}"));
        ip(&format!("-n {switch} link add br0 type bridge"));
        ip(&format!("-n {switch} link set br0 up"));
        for n in 1..=count {
            lab.add_machine(n);
        }
        lab
    }

    /// As [`Lab::new`], with [`IMAGE`] on every machine.
    pub fn with_image(count: u8) -> Self {
        let lab = Self::new(count);
        lab.image("busybox.tar", &images::busybox(IMAGE, &json!({"Cmd": ["/bin/sleep", "100000"]}), &[]));
        lab
    }

    /// As [`Lab::with_image`], with a cluster on the first machine that takes pods.
    pub fn with_server(count: u8) -> Self {
        let mut lab = Self::with_image(count);
        lab.server(&[]);
        wait_for("the default service account", || lab.json(&["get", "serviceaccount", "default"]).ok());
        lab
    }

    fn add_machine(&mut self, n: u8) {
        let (name, switch) = (format!("m{n}"), format!("{}-sw", self.id));
        let netns = format!("{}-{name}", self.id);
        ip(&format!("netns add {netns}"));
        ip(&format!("-n {switch} link add port{n} type veth peer name eth0 netns {netns}"));
        ip(&format!("-n {switch} link set port{n} master br0 up"));
        ip(&format!("-n {netns} addr add 10.88.0.{n}/24 dev eth0"));
        ip(&format!("-n {netns} link set eth0 up"));
        ip(&format!("-n {netns} link set lo up"));
        // Mounts of pods stay inside; what the host mounted is seen.
        let script = format!("hostname {name}; echo ready; exec sleep infinity");
        let mut anchor = Command::new("nsenter")
            .arg(format!("--net=/run/netns/{netns}"))
            .args(["unshare", "--mount", "--uts", "--propagation", "private", "sh", "-c", &script])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = [0; 6];
        std::io::Read::read_exact(anchor.stdout.as_mut().unwrap(), &mut line).unwrap();
        let data_dir = self.dir.join(&name);
        fs::create_dir_all(&data_dir).unwrap();
        let ip = Ipv4Addr::new(10, 88, 0, n);
        self.machines.push(Machine {
            name,
            ip,
            netns,
            anchor,
            data_dir,
            skiff: None,
            program: vec![binary()],
            arguments: Vec::new(),
            finds_its_address: false,
            runtime: None,
        });
    }

    pub fn kubeconfig(&self) -> PathBuf {
        self.dir.join("kubeconfig.yaml")
    }

    /// Drops an image archive into the images directory of every machine, started or not.
    pub fn image(&self, file: &str, archive: &[u8]) {
        for machine in &self.machines {
            crate::support::images::drop_into(&machine.data_dir.join("agent/images"), file, archive);
        }
    }

    /// Starts `skiff server` on the first machine and waits until its node is Ready.
    pub fn server(&mut self, extra: &[&str]) {
        self.launch_server_with(extra);
        self.node_ready("m1");
    }

    /// Starts `skiff server` on the first machine and waits for nothing.
    pub fn launch_server(&mut self) {
        self.launch_server_with(&[]);
    }

    pub fn launch_server_with(&mut self, extra: &[&str]) {
        let kubeconfig = self.kubeconfig().display().to_string();
        let machine = &mut self.machines[0];
        let mut arguments = vec!["server".to_owned(), format!("--write-kubeconfig={kubeconfig}")];
        arguments.extend(extra.iter().map(|a| (*a).to_owned()));
        machine.start(arguments);
    }

    /// Joins machine `n` (counted from 1) to the cluster and waits until its node is Ready.
    pub fn join(&mut self, n: usize) {
        let token = fs::read_to_string(self.machines[0].data_dir.join("server/node-token")).unwrap();
        let url = format!("https://{}:6443", self.machines[0].ip);
        let machine = &mut self.machines[n - 1];
        let name = machine.name.clone();
        machine.start(vec!["agent".into(), format!("--server={url}"), format!("--token={}", token.trim())]);
        self.node_ready(&name);
    }

    /// Plugs machine `n` (counted from 1) into the switch, or pulls its cable.
    pub fn cable(&self, n: usize, plugged: bool) {
        ip(&format!("-n {}-sw link set port{n} {}", self.id, if plugged { "up" } else { "down" }));
    }

    pub fn node_ready(&self, name: &str) {
        wait_for(&format!("node {name} Ready"), || {
            let node = self.json(&["get", "node", name]).ok()?;
            condition(&node, "Ready").is_some_and(|s| s == "True").then_some(())
        });
    }

    /// Runs kubectl on the first machine.
    pub fn kubectl_output(&self, arguments: &[&str]) -> Output {
        self.kubectl_command(arguments).stdin(Stdio::null()).output().unwrap()
    }

    pub fn kubectl_command(&self, arguments: &[&str]) -> Command {
        let mut command = self.kubectl_program(&variable("SKIFF_TEST_KUBECTL").unwrap_or_else(|| "kubectl".into()));
        command.args(arguments);
        command
    }

    /// Any kubectl, on the first machine.
    pub fn kubectl_program(&self, program: &Path) -> Command {
        let mut command = self.machines[0].command(program);
        command
            .env("KUBECONFIG", self.kubeconfig())
            .arg(format!("--cache-dir={}", self.dir.join("kubectl-cache").display()));
        command
    }

    /// Runs kubectl, which must succeed without a word on stderr; returns its output.
    #[track_caller]
    pub fn kubectl(&self, arguments: &[&str]) -> String {
        let output = self.kubectl_output(arguments);
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(
            output.status.success(),
            "kubectl {}: {}\n{out}{err}{}",
            arguments.join(" "),
            output.status,
            self.logs()
        );
        assert!(!err.contains("Warning"), "kubectl {}: {err}", arguments.join(" "));
        out.into_owned()
    }

    /// `kubectl … -o json`, or what it said on stderr.
    pub fn json(&self, arguments: &[&str]) -> Result<Value, String> {
        let mut all = arguments.to_vec();
        all.extend(["-o", "json"]);
        let output = self.kubectl_output(&all);
        if !output.status.success() {
            return Err(String::from_utf8_lossy(&output.stderr).into_owned());
        }
        serde_json::from_slice(&output.stdout).map_err(|e| e.to_string())
    }

    /// Applies a manifest by `kubectl apply -f -`.
    #[track_caller]
    pub fn apply(&self, manifest: &str) -> String {
        let path = self.dir.join("manifest.yaml");
        fs::write(&path, manifest).unwrap();
        self.kubectl(&["apply", "-f", &path.display().to_string()])
    }

    /// The ends of the logs of all machines, for the message of a failed test.
    pub fn logs(&self) -> String {
        let tail = |m: &Machine| {
            let text = fs::read_to_string(m.log()).unwrap_or_default();
            let lines: Vec<_> = text.lines().collect();
            format!("\n--- {} ---\n{}", m.name, lines[lines.len().saturating_sub(40)..].join("\n"))
        };
        self.machines.iter().map(tail).collect()
    }
}

/// Sets the fields of one object in another.
pub fn merge(into: &mut Value, from: &Value) {
    for (key, value) in from.as_object().into_iter().flatten() {
        into[key] = value.clone();
    }
}

/// The status of a condition of an object.
pub fn condition(object: &Value, name: &str) -> Option<String> {
    let conditions = object["status"]["conditions"].as_array()?;
    conditions.iter().find(|c| c["type"] == name)?["status"].as_str().map(str::to_owned)
}

impl Machine {
    /// A command inside this machine.
    pub fn command(&self, program: &Path) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--target={}", self.anchor.id())).args(["--mount", "--uts", "--net"]).arg(program);
        command
    }

    pub fn log(&self) -> PathBuf {
        self.data_dir.with_extension("log")
    }

    fn start(&mut self, mut arguments: Vec<String>) {
        // How full this machine's disk is, is no part of a story; one that is about that says so after this.
        let thresholds = "memory.available<10Mi,nodefs.available<1%,nodefs.inodesFree<1%";
        arguments.insert(1, format!("--kubelet-arg=eviction-hard={thresholds}"));
        arguments.push(format!("--data-dir={}", self.data_dir.display()));
        if !self.finds_its_address {
            arguments.push(format!("--node-ip={}", self.ip));
        }
        self.arguments = arguments;
        self.restart();
    }

    /// Starts skiff again with the flags it had.
    pub fn restart(&mut self) {
        let log = fs::OpenOptions::new().create(true).append(true).open(self.log()).unwrap();
        let mut command = self.command(&self.program[0]);
        if let Some(runtime) = &self.runtime {
            let path = variable("PATH").unwrap_or_default();
            command.env("PATH", format!("{}:{}", runtime.display(), path.display()));
        }
        command
            .args(&self.program[1..])
            .args(&self.arguments)
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log);
        self.skiff = Some(command.spawn().unwrap());
    }

    /// SIGKILL: the power is cut, for the process.
    pub fn kill(&mut self) {
        if let Some(mut skiff) = self.skiff.take() {
            let _ = skiff.kill();
            let _ = skiff.wait();
        }
    }

    /// SIGTERM, and waits.
    pub fn stop(&mut self) {
        let Some(mut skiff) = self.skiff.take() else { return };
        let pid = nix::unistd::Pid::from_raw(i32::try_from(skiff.id()).unwrap());
        let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM);
        let start = now();
        while skiff.try_wait().unwrap().is_none() {
            assert!(start.elapsed() < DEADLINE, "skiff on {} does not stop", self.name);
            std::thread::sleep(STEP);
        }
    }

    /// Runs `work` on a thread inside this machine's network.
    pub fn in_network<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> std::thread::JoinHandle<T> {
        let netns = fs::File::open(format!("/run/netns/{}", self.netns)).unwrap();
        std::thread::spawn(move || {
            nix::sched::setns(netns, nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
            work()
        })
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.logs());
        }
        for machine in &mut self.machines {
            machine.kill();
            let data_dir = format!("--data-dir={}", machine.data_dir.display());
            let kubeconfig = format!("--write-kubeconfig={}", self.dir.join("kubeconfig.yaml").display());
            let _ = machine.command(&binary()).args(["uninstall", &data_dir, &kubeconfig]).output();
            let _ = machine.anchor.kill();
            let _ = machine.anchor.wait();
            let _ = Command::new("ip").args(["netns", "del", &machine.netns]).output();
        }
        let _ = Command::new("ip").args(["netns", "del", &format!("{}-sw", self.id)]).output();
        let _ = fs::remove_dir_all(&self.dir);
    }
}
