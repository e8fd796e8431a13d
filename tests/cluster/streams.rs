//! Streams into pods with the real kubectl, over WebSocket and over SPDY/3.1: commands, ports, files. Rates are printed.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::process::{Child, Command, Output, Stdio};

use serde_json::json;

use crate::lab::{IMAGE, Lab, now, wait_for};
use crate::support::skip;

const LARGE: usize = 100 << 20;

/// How kubectl streams.
const WAYS: [(&str, &str); 2] = [("WebSocket", "true"), ("SPDY", "false")];

#[test]
fn commands_ports_and_files_stream_both_ways() {
    if !nix::unistd::geteuid().is_root() {
        return skip("needs root");
    }
    let lab = Lab::with_server(1);
    let script = "mkdir /www; echo one >/www/a; httpd -p 127.0.0.1:8080 -h /www; mkdir /two; echo two >/two/a; \
                  httpd -p 127.0.0.1:8081 -h /two; while read line; do echo \"heard $line\"; done; sleep 100000";
    let pod = |name: &str, host: bool| {
        json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name},
            "spec": {
                "terminationGracePeriodSeconds": 0, "hostNetwork": host,
                "containers": [{
                    "name": "c", "image": IMAGE, "stdin": true,
                    "command": ["/bin/sh", "-c", if host { script.replace("808", "818") } else { script.to_owned() }],
                    "volumeMounts": [{"name": "files", "mountPath": "/files"}],
                }],
                "volumes": [{"name": "files", "emptyDir": {}}],
            },
        })
    };
    for (name, host) in [("web", false), ("host", true)] {
        lab.apply(&pod(name, host).to_string());
        lab.kubectl(&["wait", "--for=condition=Ready", &format!("pod/{name}"), "--timeout=60s"]);
    }
    for (way, websockets) in WAYS {
        println!("-- {way}");
        commands(&lab, websockets);
        large_streams(&lab, way, websockets);
        attach(&lab, way, websockets);
        ports(&lab, "web", websockets, [8080, 8081]);
        ports(&lab, "host", websockets, [8180, 8181]);
    }
    many_at_once(&lab);
    a_directory_is_copied(&lab);
    the_end_of_a_client_ends_its_command(&lab);
}

fn kubectl(lab: &Lab, websockets: &str, arguments: &[&str]) -> Command {
    let mut command = lab.kubectl_command(arguments);
    command.env("KUBECTL_REMOTE_COMMAND_WEBSOCKETS", websockets).env("KUBECTL_PORT_FORWARD_WEBSOCKETS", websockets);
    command
}

fn output(mut command: Command) -> (i32, String, String) {
    let Output { status, stdout, stderr } = command.stdin(Stdio::null()).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    (status.code().unwrap_or(-1), text(stdout), text(stderr))
}

fn commands(lab: &Lab, websockets: &str) {
    let exec = |script: &str| output(kubectl(lab, websockets, &["exec", "web", "--", "/bin/sh", "-c", script]));
    assert_eq!(exec("echo out; echo err >&2"), (0, "out\n".into(), "err\n".into()));
    let (code, out, err) = exec("echo before; exit 7");
    assert_eq!((code, out.as_str(), err.trim()), (7, "before\n", "command terminated with exit code 7"));
    let (code, _, err) = output(kubectl(lab, websockets, &["exec", "web", "--", "/bin/nothing"]));
    assert!(code != 0 && err.contains("no such file or directory"), "{err}");
    let (code, _, err) = output(kubectl(lab, websockets, &["exec", "web", "-c", "nobody", "--", "true"]));
    assert!(code != 0 && err.contains("container nobody is not valid for pod web"), "{err}");

    // The command sees the end of its input, and what it says after that arrives.
    let mut command = kubectl(lab, websockets, &["exec", "-i", "web", "--", "/bin/sh", "-c", "wc -c; echo after"]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"12345").unwrap();
    let said = child.wait_with_output().unwrap();
    assert_eq!(String::from_utf8_lossy(&said.stdout), "5\nafter\n");
}

#[allow(clippy::cast_precision_loss, reason = "printed")]
fn rate(what: &str, bytes: usize, seconds: f64) {
    println!("{what}: {:.0} MB/s", bytes as f64 / 1e6 / seconds);
}

fn large_streams(lab: &Lab, way: &str, websockets: &str) {
    let count = format!("count={}", LARGE >> 20);
    let begin = now();
    let mut command = kubectl(lab, websockets, &["exec", "web", "--", "dd", "if=/dev/zero", "bs=1M", &count]);
    let out = command.stdin(Stdio::null()).stderr(Stdio::null()).output().unwrap();
    assert_eq!(out.stdout.len(), LARGE, "nothing is lost on the way out by {way}");
    rate(&format!("exec, out, {way}"), LARGE, begin.elapsed().as_secs_f64());

    let begin = now();
    let mut command = kubectl(lab, websockets, &["exec", "-i", "web", "--", "wc", "-c"]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut input = child.stdin.take().unwrap();
    let block = vec![b'x'; 1 << 20];
    for _ in 0..LARGE >> 20 {
        input.write_all(&block).unwrap();
    }
    drop(input);
    let said = child.wait_with_output().unwrap();
    assert_eq!(
        String::from_utf8_lossy(&said.stdout).trim(),
        LARGE.to_string(),
        "nothing is lost on the way in by {way}"
    );
    rate(&format!("exec, in, {way}"), LARGE, begin.elapsed().as_secs_f64());

    // A reader that takes its time gets everything.
    let script = "for i in 1 2 3 4 5 6; do dd if=/dev/zero bs=1M count=1 2>/dev/null; sleep 0.2; done";
    let mut command = kubectl(lab, websockets, &["exec", "web", "--", "/bin/sh", "-c", script]);
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
    let (mut out, mut total, mut block) = (child.stdout.take().unwrap(), 0, vec![0; 64 << 10]);
    loop {
        let count = out.read(&mut block).unwrap();
        if count == 0 {
            break;
        }
        total += count;
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    assert_eq!(total, 6 << 20);
    child.wait().unwrap();
}

fn attach(lab: &Lab, way: &str, websockets: &str) {
    let mut command = kubectl(lab, websockets, &["attach", "-i", "web"]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut input = child.stdin.take().unwrap();
    writeln!(input, "{way}").unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
    let expect = format!("heard {way}");
    assert!(lines.any(|line| line == expect), "{expect}");
    let _ = child.kill();
    let _ = child.wait();
}

/// Forwards two ports of a pod at once; the kubectl that does ends with this.
struct Forward(Child);

impl Drop for Forward {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn forward(
    lab: &Lab,
    websockets: &str,
    pod: &str,
    ports: &[String],
) -> (Forward, BufReader<std::process::ChildStderr>) {
    let mut arguments = vec!["port-forward", pod];
    arguments.extend(ports.iter().map(String::as_str));
    let mut command = kubectl(lab, websockets, &arguments);
    // kubectl is behind nsenter, which becomes it.
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    for _ in ports {
        let line = lines.find(|line| line.as_ref().is_ok_and(|line| line.contains("127.0.0.1:")));
        assert!(line.is_some(), "kubectl port-forward tells its ports");
    }
    std::thread::spawn(move || lines.for_each(drop));
    let errors = BufReader::new(child.stderr.take().unwrap());
    (Forward(child), errors)
}

fn curl(lab: &Lab, url: &str) -> (i32, String) {
    let mut command = lab.machines[0].command("curl".as_ref());
    let (code, out, _) = output({
        command.args(["-s", "--max-time", "10", url]);
        command
    });
    (code, out)
}

fn ports(lab: &Lab, pod: &str, websockets: &str, [one, two]: [u16; 2]) {
    let wanted = [format!("9001:{one}"), format!("9002:{two}"), "9003:1".to_owned()];
    let (forward, mut errors) = forward(lab, websockets, pod, &wanted);
    for (port, expect) in [(9001, "one\n"), (9002, "two\n"), (9001, "one\n")] {
        assert_eq!(curl(lab, &format!("http://127.0.0.1:{port}/a")), (0, expect.into()), "{pod} {port}");
    }
    // Nobody listens there: the connection ends, the reason is told, and the others go on.
    assert_ne!(curl(lab, "http://127.0.0.1:9003/").0, 0);
    let mut line = String::new();
    errors.read_line(&mut line).unwrap();
    assert!(line.contains("an error occurred forwarding 9003 -> 1") && line.contains("onnect"), "{line}");
    if pod == "web" {
        // As upstream's kubectl has it: after a lost connection of a stream it starts anew.
        drop(forward);
        let (_forward, _errors) = self::forward(lab, websockets, pod, &wanted[..1]);
        let all: Vec<_> = (0..8).map(|_| curl(lab, "http://127.0.0.1:9001/a")).collect();
        assert!(all.iter().all(|(code, text)| (*code, text.as_str()) == (0, "one\n")), "{all:?}");
    }
}

fn many_at_once(lab: &Lab) {
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..12)
            .map(|n| {
                scope.spawn(move || {
                    let script = format!("sleep 1; echo {n}");
                    output(kubectl(lab, "true", &["exec", "web", "--", "/bin/sh", "-c", &script]))
                })
            })
            .collect();
        for (n, thread) in threads.into_iter().enumerate() {
            assert_eq!(thread.join().unwrap(), (0, format!("{n}\n"), String::new()));
        }
    });
}

fn a_directory_is_copied(lab: &Lab) {
    const FILES: usize = 200;
    let from = lab.dir.join("copied");
    std::fs::create_dir_all(from.join("deep/er")).unwrap();
    let mut state = 1_u64;
    for n in 0..FILES {
        let mut block = Vec::with_capacity(1 << 20);
        while block.len() < 1 << 20 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            block.extend_from_slice(&(state >> 16).to_le_bytes());
        }
        let folder = if n % 2 == 0 { from.join("deep/er") } else { from.clone() };
        std::fs::write(folder.join(format!("{n}.bin")), block).unwrap();
    }
    let (source, back) = (from.display().to_string(), lab.dir.join("back").display().to_string());
    let begin = now();
    lab.kubectl(&["cp", &source, "web:/files/there"]);
    rate("cp of a directory into a pod", FILES << 20, begin.elapsed().as_secs_f64());
    let begin = now();
    let (code, _, err) = output(lab.kubectl_command(&["cp", "web:/files/there", &back]));
    assert_eq!(code, 0, "{err}");
    rate("cp of a directory out of a pod", FILES << 20, begin.elapsed().as_secs_f64());
    let same = Command::new("diff").args(["-r", &source, &back]).status().unwrap();
    assert!(same.success(), "every byte is there");
}

fn the_end_of_a_client_ends_its_command(lab: &Lab) {
    let mut command =
        lab.kubectl_command(&["exec", "-i", "web", "--", "/bin/sh", "-c", "cat > /dev/null; touch /tmp/ended"]);
    let mut child = command.stdin(Stdio::piped()).spawn().unwrap();
    wait_for("the command", || lab.kubectl(&["exec", "web", "--", "ps"]).contains("touch /tmp/ended").then_some(()));
    let _ = child.kill();
    let _ = child.wait();
    wait_for("its end", || {
        output(lab.kubectl_command(&["exec", "web", "--", "test", "-e", "/tmp/ended"])).0.eq(&0).then_some(())
    });
}
