//! Containers that misbehave: the node and its other pods go on.

use serde_json::json;

use crate::lab::{IMAGE, Lab, now, wait_for};

fn start(lab: &Lab, name: &str, script: &str, grace: u32) {
    let container = json!({"name": "c", "image": IMAGE, "command": ["/bin/sh", "-c", script],
        "resources": {"limits": {"cpu": "500m"}}});
    lab.apply(
        &json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name},
            "spec": {"restartPolicy": "Never", "terminationGracePeriodSeconds": grace, "containers": [container]}})
        .to_string(),
    );
    wait_for(&format!("{name} to run"), || {
        let phase = lab.json(&["get", "pod", name]).ok()?["status"]["phase"].clone();
        (phase != "Pending").then_some(())
    });
}

/// It ends when its time is over, and not before.
pub fn one_that_ignores_to_be_asked(lab: &Lab) {
    start(lab, "stubborn", "trap '' TERM; while :; do sleep 1; done", 4);
    let asked = now();
    lab.kubectl(&["delete", "pod", "stubborn", "--timeout=60s"]);
    let took = asked.elapsed().as_secs_f64();
    assert!((4.0..8.0).contains(&took), "{took}");
}

/// Its logs stay within their limits, and who follows them is not left behind.
pub fn one_that_logs_without_end(lab: &Lab) {
    // Some 20 MB a second, which is more than a GB a minute.
    let talk = "yes this is one line of many that say nothing at all, and there is no end to them";
    start(lab, "talker", talk, 1);
    let uid = lab.json(&["get", "pod", "talker"]).unwrap()["metadata"]["uid"].as_str().unwrap().to_owned();
    let folder = lab.machines[0].data_dir.join(format!("agent/log/pods/default_talker_{uid}/c"));
    let mut follower = lab.kubectl_command(&["logs", "-f", "--tail=1", "talker"]);
    let mut follower = follower.stdout(std::process::Stdio::piped()).spawn().unwrap();
    let mut output = follower.stdout.take().unwrap();
    let reader = std::thread::spawn(move || {
        let (mut total, mut block) = (0_u64, vec![0; 1 << 16]);
        loop {
            match std::io::Read::read(&mut output, &mut block) {
                Ok(count) if count > 0 => total += count as u64,
                _ => return total,
            }
        }
    });
    let rotated = || std::fs::read_dir(&folder).unwrap().flatten().count();
    wait_for("the logs to be rotated", || (rotated() > 1).then_some(()));
    let begin = now();
    let mut most = 0;
    while begin.elapsed().as_secs() < 15 {
        let files = std::fs::read_dir(&folder).unwrap().flatten();
        most = most.max(files.filter_map(|file| file.metadata().ok()).map(|data| data.len()).sum::<u64>());
        std::thread::sleep(std::time::Duration::from_millis(200));
    }
    let kept = rotated();
    lab.kubectl(&["delete", "pod", "talker", "--now"]);
    let followed = reader.join().unwrap();
    let _ = follower.wait();
    eprintln!("logs: {most} bytes at most in {kept} files, {followed} followed");
    // Three files of 64 KiB as asked; between two looks at them it writes a lot.
    assert!(kept <= 4, "{kept}");
    assert!(most < 1 << 30, "{most}");
    assert!(followed > 10 << 20, "{followed}");
}
