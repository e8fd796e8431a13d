use super::*;
use crate::api::encode::Draft;
use crate::api::key::Key;

fn put(name: &str, revision: u64) -> Change {
    let value = serde_json::json!({"apiVersion": "v1", "kind": "X", "metadata": {"name": name}});
    Change::Put(Arc::new(Draft::new(Key::new("pods", "ns", name), &value, &[]).at(Revision(revision))))
}

#[test]
fn a_list_is_the_state_of_its_revision() {
    let cache = Cache::new();
    cache.load(Vec::new(), Revision(5));
    assert_eq!(cache.list("pods", None).1, Revision(5));
    cache.publish(vec![put("a", 6), put("b", 8)]);
    let (items, revision) = cache.list("pods", Some("ns"));
    assert_eq!((items.len(), revision), (2, Revision(8)));
    assert_eq!(cache.list_at("pods", None, Revision(6)).unwrap().len(), 1);
    assert_eq!(cache.list_at("pods", None, Revision(4)), None);
    assert_eq!((cache.changed("pods"), cache.changed("nodes")), (Revision(8), Revision(5)));
}
