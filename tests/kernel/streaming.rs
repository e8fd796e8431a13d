//! Commands in a real container, from a WebSocket through our SPDY client to containerd's streaming server.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use skiff::agent::streaming::log_line::Options;
use skiff::agent::streaming::{exec, log_file};
use skiff::api::query::Query;
use skiff::cri::client::Client;
use skiff::cri::image_import::Importer;
use skiff::cri::{Images as _, Runtime, StreamOptions};
use tokio::task::JoinSet;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::Role;

use crate::containerd::{DEADLINE, Daemon, PATH, container_config, sandbox_config, wait_for};
use crate::support::{images, skip};

const IMAGE: &str = "test.local/streaming:1";

#[test]
fn commands_stream_both_ways_and_logs_follow() {
    if !nix::unistd::geteuid().is_root() || skiff::cri::containerd::find("containerd", PATH).is_none() {
        return skip("needs root and containerd");
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let data = tempfile::tempdir().unwrap();
        let mut daemon = Daemon::start(data.path());
        let client = daemon.ready().await;
        let archive = data.path().join("b.tar");
        std::fs::write(&archive, images::busybox(IMAGE, &json!({"Cmd": ["/bin/sh"]}), &[])).unwrap();
        Importer::new(&daemon.supervised.socket).archive(&archive).await.unwrap();
        wait_for(async || client.image(IMAGE).await.unwrap().is_some()).await;
        let told = tokio::time::timeout(DEADLINE * 3, story(&client, data.path())).await;
        daemon.stop().await;
        told.expect("ends in time");
    });
}

async fn story(client: &Client, directory: &Path) {
    let mut config = sandbox_config("streaming");
    config.log_directory = directory.display().to_string();
    let sandbox = client.run_sandbox(&config, "").await.unwrap();
    let mut container = container_config(
        "c",
        IMAGE,
        &[
            "/bin/sh",
            "-c",
            "echo up; until [ -s /tmp/said ]; do sleep 0.05; done; read line </tmp/said; echo $line; exit 4",
        ],
    );
    container.log_path = "c.log".into();
    let id = client.create_container(&sandbox, &container, &config).await.unwrap();
    client.start_container(&id).await.unwrap();
    let all = StreamOptions { stdin: true, stdout: true, stderr: true, tty: false };

    // Input ends at a close signal, the two outputs stay apart, and the exit code comes through the error channel.
    let mut session = Session::open(client, &id, &["/bin/sh", "-c", "cat; echo oops >&2; exit 7"], all).await;
    session.send(0, b"hello ").await;
    session.send(0, b"there\n").await;
    session.send(255, &[0]).await;
    let ended = session.rest().await;
    assert_eq!((ended.stdout.as_str(), ended.stderr.as_str()), ("hello there\n", "oops\n"));
    assert_eq!(ended.status["status"], "Failure");
    assert_eq!(ended.status["reason"], "NonZeroExitCode");
    assert_eq!(ended.status["details"]["causes"], json!([{"reason": "ExitCode", "message": "7"}]));

    // More than any buffer holds, in both directions at once.
    let session = Session::open(client, &id, &["/bin/cat"], all).await;
    let (mut sender, mut receiver) = session.socket.split();
    let fill = async {
        let block = [vec![0], vec![b'x'; 32 * 1024]].concat();
        for _ in 0..64 {
            sender.send(Message::binary(block.clone())).await.unwrap();
        }
        sender.send(Message::binary(vec![255, 0])).await.unwrap();
    };
    let drain = async {
        let mut received = 0;
        while let Some(Ok(Message::Binary(data))) = receiver.next().await {
            received += if data[0] == 1 { data.len() - 1 } else { 0 };
        }
        received
    };
    assert_eq!(tokio::join!(fill, drain).1, 64 * 32 * 1024);

    // A terminal has the size that it was given.
    let tty = StreamOptions { stdin: true, stdout: true, stderr: false, tty: true };
    let mut session = Session::open(client, &id, &["/bin/sh"], tty).await;
    session.send(4, br#"{"Width":100,"Height":40}"#).await;
    // The size arrives on its own stream: asked until it is there.
    session.send(0, b"until [ \"$(stty size)\" = '40 100' ]; do sleep 0.05; done; echo si''zed; exit 0\n").await;
    let ended = session.rest().await;
    assert!(ended.stdout.contains("sized"), "{}", ended.stdout);
    assert_eq!(ended.status["status"], "Success");

    // A command that does not exist is an error of the session, not of the connection.
    let out = StreamOptions { stdout: true, ..StreamOptions::default() };
    let ended = Session::open(client, &id, &["/bin/nothing"], out).await.rest().await;
    assert_eq!(ended.status["status"], "Failure");
    assert!(ended.status["message"].as_str().unwrap().contains("no such file"), "{}", ended.status);

    // The log is followed until the container ends.
    let options = Options::parse(&Query::parse("follow=true"), skiff::clock::now()).unwrap();
    let status = client.container_status(&id).await.unwrap();
    let source = log_file::Container { id: id.clone(), runtime: Arc::new(client.clone()) };
    let mut log = Box::pin(log_file::stream(status.log_path.as_ref(), &options, source).await.unwrap());
    assert_eq!(log.next().await.unwrap().unwrap(), "up\n");
    let write = ["/bin/sh", "-c", "echo done > /tmp/said"].map(str::to_owned);
    client.exec(&id, &write, Duration::from_secs(10)).await.unwrap();
    let mut rest = String::new();
    while let Some(piece) = log.next().await {
        rest.push_str(std::str::from_utf8(&piece.unwrap()).unwrap());
    }
    assert_eq!(rest, "done\n");
    assert_eq!(client.container_status(&id).await.unwrap().exit_code, 4);
    client.stop_sandbox(&sandbox).await.unwrap();
    client.remove_sandbox(&sandbox).await.unwrap();
}

/// The client's end of one command.
struct Session {
    socket: WebSocketStream<tokio::io::DuplexStream>,
    bridge: JoinSet<Result<(), exec::Error>>,
}

#[derive(Default)]
struct Ended {
    stdout: String,
    stderr: String,
    status: Value,
}

impl Session {
    async fn open(client: &Client, id: &str, command: &[&str], options: StreamOptions) -> Self {
        let command: Vec<String> = command.iter().map(|c| (*c).to_owned()).collect();
        let url = client.exec_url(id, &command, options).await.unwrap();
        let runtime = exec::connect(&url, options).await.unwrap();
        let (ours, theirs) = tokio::io::duplex(8 * 1024);
        let mut bridge = JoinSet::new();
        bridge.spawn(exec::bridge(theirs, exec::PROTOCOLS[0], runtime));
        let socket = WebSocketStream::from_raw_socket(ours, Role::Client, None).await;
        Self { socket, bridge }
    }

    async fn send(&mut self, channel: u8, data: &[u8]) {
        self.socket.send(Message::binary([&[channel], data].concat())).await.unwrap();
    }

    async fn rest(mut self) -> Ended {
        let mut ended = Ended::default();
        while let Some(message) = self.socket.next().await {
            let data = match message.unwrap() {
                Message::Binary(data) => data,
                // A close is answered by reading on.
                _ => continue,
            };
            let text = String::from_utf8_lossy(&data[1..]);
            match data[0] {
                1 => ended.stdout.push_str(&text),
                2 => ended.stderr.push_str(&text),
                3 => ended.status = serde_json::from_str(&text).unwrap(),
                other => panic!("channel {other}"),
            }
        }
        self.bridge.join_next().await.unwrap().unwrap().unwrap();
        ended
    }
}
