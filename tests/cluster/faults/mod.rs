//! What goes wrong on real nodes: programs that are killed, disks that are full or cannot be written, containers and
//! registries that misbehave. A node recovers by itself, loses nothing, and keeps nothing that nobody uses.

mod attached;
mod away;
mod belongings;
mod disks;
mod forks;
mod kills;
mod misbehaving;
mod registries;
mod steps;

use crate::lab::{Lab, wait_for};
use crate::support::skip;

#[test]
fn a_node_bears_containers_and_registries_that_misbehave() {
    if !nix::unistd::geteuid().is_root() {
        return skip("needs root");
    }
    let mut lab = Lab::with_image(1);
    lab.server(&[
        "--kubelet-arg=container-log-max-size=64Ki",
        "--kubelet-arg=container-log-max-files=3",
        &format!("--kubelet-arg=pod-max-pids={}", forks::OF_POD),
    ]);
    wait_for("the default service account", || lab.json(&["get", "serviceaccount", "default"]).ok());
    attached::last_words_arrive(&lab);
    misbehaving::one_that_ignores_to_be_asked(&lab);
    misbehaving::one_that_logs_without_end(&lab);
    registries::a_registry_that_misbehaves(&lab);
    forks::one_with_a_limit_of_its_own(&lab);
    forks::one_without_a_limit_of_its_own(&mut lab);
}
