//! Where pods go by what CSI drivers say: how many volumes a node takes, and how much room is left.

use super::volumes::{bound, claim, plain, volume, why, with, world};
use super::*;

const LATER: Duration = Duration::from_secs(30);
const FULL: &str = "node(s) exceed max volume count";
const NO_ROOM: &str = "node(s) did not have enough free storage";

impl World {
    /// So many volumes of the driver can be attached to a node.
    fn limit(&mut self, node: &str, count: Value) {
        let drivers = json!([{ "name": "x.io/driver", "nodeID": node, "allocatable": { "count": count } }]);
        let node = json!({ "metadata": { "name": node }, "spec": { "drivers": drivers } });
        if self.state.snapshot.csi.set_node(serde_json::from_value(node).unwrap()) {
            self.state.limits_changed(self.now);
        }
    }

    fn attach(&mut self, volume: &str, node: &str) {
        let spec = json!({ "attacher": "x.io/driver", "nodeName": node, "source": { "persistentVolumeName": volume } });
        let attachment = json!({ "metadata": { "name": format!("{volume}-{node}") }, "spec": spec });
        self.state.snapshot.csi.set_attachment(serde_json::from_value(attachment).unwrap());
    }

    fn detached(&mut self, name: &str) {
        self.state.snapshot.csi.forget_attachment(name);
        self.state.limits_changed(self.now);
    }

    /// A claim bound to a volume of its name, which every node reaches.
    fn stored(&mut self, name: &str) {
        let mut of_driver = volume(name, "");
        of_driver["spec"]["nodeAffinity"] = Value::Null;
        of_driver["spec"]["csi"] = json!({ "driver": "x.io/driver", "volumeHandle": name });
        self.volume(of_driver);
        self.claim(both(claim(bound(name)), &json!({ "metadata": { "name": name, "uid": name } })));
    }

    /// The driver says how much room there is, or that it does not.
    fn tracks(&mut self, tracks: bool) {
        let driver = json!({ "metadata": { "name": "x.io/driver" }, "spec": { "storageCapacity": tracks } });
        if self.state.snapshot.csi.set_driver(serde_json::from_value(driver).unwrap()) {
            self.state.volumes_changed(self.now);
        }
    }

    /// Room for the class on a node.
    fn room(&mut self, node: &str, more: Value) {
        let base = json!({ "metadata": { "name": node, "namespace": "kube-system" }, "storageClassName": "late",
            "nodeTopology": { "matchLabels": { "kubernetes.io/hostname": node } } });
        if self.state.snapshot.csi.set_capacity(serde_json::from_value(both(base, &more)).unwrap()) {
            self.state.volumes_changed(self.now);
        }
    }
}

/// One node that takes one volume, and has it.
fn full() -> World {
    let mut world = World::new(&[plain("n1")], &[]);
    world.limit("n1", json!(1));
    world.stored("a");
    world.stored("b");
    world.pod(on_n1("there", "a"));
    world
}

fn on_n1(name: &str, claim: &str) -> Pod {
    let mut pod = with(claim, name);
    pod.spec.as_mut().unwrap().node_name = Some("n1".into());
    pod
}

#[test]
fn a_node_takes_so_many_volumes_each_counted_once() {
    let check = |what: &str, happens: &dyn Fn(&mut World), claim: &str, fits: bool| {
        let mut world = full();
        happens(&mut world);
        world.pod(with(claim, "p"));
        let outcome = world.outcome().unwrap();
        match outcome {
            Err(said) if !fits => assert!(said.contains(&format!("1 {FULL}")), "{what}: {said}"),
            outcome => assert_eq!(outcome.is_ok(), fits, "{what}: {outcome:?}"),
        }
    };
    check("another volume", &|_| {}, "b", false);
    check("the same volume", &|_| {}, "a", true);
    check("no limit", &|w| w.limit("n1", Value::Null), "b", true);
    check("room for two", &|w| w.limit("n1", json!(2)), "b", true);
    check("none at all", &|w| w.limit("n1", json!(0)), "b", false);
    let two = |w: &mut World| w.limit("n1", json!(2));
    let attached = |volume: &'static str| {
        move |w: &mut World| {
            two(w);
            w.stored("c");
            w.attach(volume, "n1");
        }
    };
    check("attached for a pod that is gone", &attached("c"), "b", false);
    check("attached for a pod that is there", &attached("a"), "b", true);
    check("attached already", &attached("b"), "b", true);
    check(
        "attached elsewhere",
        &|w| {
            two(w);
            w.stored("c");
            w.attach("c", "n2");
        },
        "b",
        true,
    );
    let of_another = |w: &mut World| {
        let mut other = volume("b", "");
        other["spec"]["nodeAffinity"] = Value::Null;
        other["spec"]["csi"] = json!({ "driver": "y.io/driver", "volumeHandle": "b" });
        w.volume(other);
    };
    check("of another driver", &of_another, "b", true);
}

#[test]
fn volumes_that_are_to_be_made_count_too() {
    let mut world = world();
    world.limit("n1", json!(0));
    world.limit("n2", json!(1));
    world.claim(claim(json!({})));
    assert_eq!(world.promises().0, "n2");
    world.claim(both(claim(json!({})), &json!({ "metadata": { "name": "other", "uid": "o" } })));
    world.pod(with("other", "q"));
    assert!(why(&mut world).contains(&format!("2 {FULL}")), "the pod that waits for its volume counts");
    world.pod(with("data", "r"));
    assert_eq!(world.outcome(), Some(Ok("n2 after 0".into())), "the same claim");
}

#[test]
fn a_pod_whose_volumes_are_too_many_is_woken_when_there_may_be_room() {
    let check = |what: &str, happens: &dyn Fn(&mut World), want: bool| {
        let mut world = full();
        world.attach("a", "n1");
        world.pod(with("b", "p"));
        assert!(why(&mut world).contains(FULL), "{what}");
        world.later(LATER);
        happens(&mut world);
        assert_eq!(world.attempt().is_some(), want, "{what}");
    };
    check("a pod with a volume is gone", &|w| w.state.forget_pod("there", w.now), true);
    check("a volume is detached", &|w| w.detached("a-n1"), true);
    check("a larger limit", &|w| w.limit("n1", json!(2)), true);
    check("a smaller limit", &|w| w.limit("n1", json!(0)), false);
    check("the same limit", &|w| w.limit("n1", json!(1)), false);
    check("another node's driver", &|w| w.limit("n2", json!(1)), true);
    check("a pod without volumes comes", &|w| w.pod(pod("q", on("n1", json!({})))), false);
    check("another claim", &|w| w.stored("c"), false);
}

#[test]
fn a_volume_is_made_where_there_is_room() {
    let check = |what: &str, happens: &dyn Fn(&mut World), want: Result<&str, &str>| {
        let mut world = world();
        world.tracks(true);
        world.claim(claim(json!({})));
        happens(&mut world);
        match (world.outcome().unwrap(), want) {
            (Ok(node), Ok(want)) => assert_eq!(node, format!("{want} after 1"), "{what}"),
            (Err(said), Err(want)) => assert!(said.contains(want), "{what}: {said}"),
            (outcome, _) => panic!("{what}: {outcome:?}"),
        }
    };
    let none = format!("2 {NO_ROOM}");
    let has = |capacity: &'static str| move |w: &mut World| w.room("n2", json!({ "capacity": capacity }));
    check("nothing said", &|_| {}, Err(&none));
    check("enough", &has("1Gi"), Ok("n2"));
    check("too little", &has("1023Mi"), Err(&none));
    check(
        "the largest volume counts",
        &|w| w.room("n2", json!({ "capacity": "9Gi", "maximumVolumeSize": "1Mi" })),
        Err(&none),
    );
    check("and alone suffices", &|w| w.room("n2", json!({ "maximumVolumeSize": "1Gi" })), Ok("n2"));
    check("of another class", &|w| w.room("n2", json!({ "capacity": "9Gi", "storageClassName": "x" })), Err(&none));
    check("nowhere", &|w| w.room("n2", json!({ "capacity": "9Gi", "nodeTopology": null })), Err(&none));
    let conflict = "2 node(s) didn't find available persistent volumes to bind";
    check("made by nobody", &|w| w.class(json!({ "provisioner": "kubernetes.io/no-provisioner" })), Err(conflict));
    // A volume that is there needs no room.
    check("there already", &|w| w.volume(volume("v", "n1")), Ok("n1"));
    let mut world = world();
    world.claim(claim(json!({})));
    assert_eq!(world.promises().1.len(), 1, "a driver that does not say");
    // The room of the node that was chosen is looked at again.
    let mut world = self::world();
    world.tracks(true);
    world.claim(claim(json!({ "metadata": { "annotations": { "volume.kubernetes.io/selected-node": "n1" } } })));
    assert!(why(&mut world).contains(&format!("1 {NO_ROOM}")));
}

#[test]
fn a_pod_without_room_for_its_volume_is_woken_when_there_is_more() {
    let check = |what: &str, happens: &dyn Fn(&mut World), want: bool| {
        let mut world = world();
        world.tracks(true);
        world.claim(claim(json!({})));
        world.room("n2", json!({ "capacity": "5Mi" }));
        assert!(why(&mut world).contains(NO_ROOM), "{what}");
        world.later(LATER);
        happens(&mut world);
        assert_eq!(world.attempt().is_some(), want, "{what}");
    };
    check("more", &|w| w.room("n2", json!({ "capacity": "6Mi" })), true);
    check("less", &|w| w.room("n2", json!({ "capacity": "4Mi" })), false);
    check("the same", &|w| w.room("n2", json!({ "capacity": "5Mi" })), false);
    check("elsewhere", &|w| w.room("n1", json!({ "capacity": "1Mi" })), true);
    check("the driver says no more", &|w| w.tracks(false), true);
    check("the driver says again", &|w| w.tracks(true), false);
}
