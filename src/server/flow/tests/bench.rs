//! Benchmark: what a request pays for its turn. `cargo test --release --lib flow::tests::bench -- --ignored
//! --nocapture`

use futures::FutureExt;

use super::classify::{asked, bootstrapped, fairness};
use crate::api::user::User;
use crate::clock;
use crate::server::flow::work::Work;

const TURNS: u32 = 1_000_000;

#[test]
#[ignore = "prints figures"]
fn an_uncontended_turn() {
    let fairness = fairness(&bootstrapped(), 600);
    for (name, groups, what) in [
        ("admin", &["system:masters"][..], "get v1/pods x"),
        (
            "system:node:a",
            &["system:nodes", "system:authenticated"],
            "update coordination.k8s.io/leases kube-node-lease",
        ),
        ("ann", &["system:authenticated"], "get v1/pods x"),
    ] {
        let user = User::new(name, groups);
        let started = clock::instant();
        for _ in 0..TURNS {
            let asked = asked(&user, what);
            let schema = fairness.classify(&asked);
            let turn = fairness.turn(&schema, &asked, started, std::time::Duration::ZERO, |_| Work::ONE).now_or_never();
            assert!(turn.flatten().is_some());
        }
        let schema = fairness.classify(&asked(&user, what)).name.clone();
        println!("{schema}: {} ns", (clock::instant() - started).as_nanos() / u128::from(TURNS));
    }
}
