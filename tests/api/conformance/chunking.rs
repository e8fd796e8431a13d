//! Lists of many objects in pages, also when the state that the first page showed is no more.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use super::names;
use crate::Server;

const TEMPLATES: &str = "/api/v1/namespaces/default/podtemplates";
const TOTAL: usize = 400;

async fn with_templates() -> Server {
    let server = Server::new().await;
    for i in 0..TOTAL {
        let template = json!({"apiVersion": "v1", "kind": "PodTemplate", "metadata": {"name": format!("template-{i:04}")},
            "template": {"spec": {"containers": [{"name": "test", "image": "test2"}]}}});
        server.made(TEMPLATES, &template).await;
    }
    server
}

/// Checks one page, of which `before` items are already known, and adds to them.
fn check(list: &Value, limit: usize, before: &mut usize) {
    let items = list["items"].as_array().unwrap();
    assert!(items.len() <= limit);
    let expect: Vec<String> = (*before..*before + items.len()).map(|i| format!("template-{i:04}")).collect();
    assert_eq!(names(items), expect);
    *before += items.len();
    let remaining = &list["metadata"]["remainingItemCount"];
    match list["metadata"]["continue"].as_str() {
        Some(_) => assert_eq!(*remaining, json!(TOTAL - *before)),
        None => assert_eq!(*remaining, Value::Null),
    }
}

async fn page(server: &Server, limit: usize, token: &str) -> Value {
    let answer = server.get(&format!("{TEMPLATES}?limit={limit}&continue={token}")).await;
    assert_eq!(answer.code, 200, "{}", answer.text);
    answer.json()
}

/// The pages that follow a list; all of them are of its revision.
async fn check_rest(server: &Server, list: &Value, limit: impl Fn(usize) -> usize, mut found: usize) {
    let mut token = list["metadata"]["continue"].clone();
    while let Some(next) = token.as_str() {
        let limit = limit(found);
        let next = page(server, limit, next).await;
        assert_eq!(next["metadata"]["resourceVersion"], list["metadata"]["resourceVersion"]);
        check(&next, limit, &mut found);
        token = next["metadata"]["continue"].clone();
    }
    assert_eq!(found, TOTAL);
}

#[tokio::test]
async fn a_long_list_comes_in_pages_of_one_revision() {
    let server = with_templates().await;
    for step in [1, 7, 13] {
        let limit = |found: usize| (found * step) % (TOTAL / 10) + 1;
        let (first, mut found) = (page(&server, limit(step), "").await, 0);
        check(&first, limit(step), &mut found);
        check_rest(&server, &first, limit, found).await;
    }
    let all = server.get(&format!("{TEMPLATES}?limit={}", TOTAL + 1)).await.json();
    assert_eq!(all["items"].as_array().unwrap().len(), TOTAL);
}

/// Nothing but time has to pass: a list that nobody changes expires as well.
#[tokio::test]
async fn a_list_goes_on_after_its_state_was_forgotten() {
    const TENTH: usize = TOTAL / 10;
    let server = with_templates().await;
    let (first, mut found) = (page(&server, TENTH, "").await, 0);
    check(&first, TENTH, &mut found);
    let token = first["metadata"]["continue"].as_str().unwrap();
    assert_eq!(page(&server, TENTH, token).await["metadata"]["resourceVersion"], first["metadata"]["resourceVersion"]);

    // As if five minutes had passed since: the token says when its list began.
    let mut begun: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(token).unwrap()).unwrap();
    begun["at"] = (begun["at"].as_i64().unwrap() - 301).into();
    let old = URL_SAFE_NO_PAD.encode(begun.to_string());
    let expired = server.get(&format!("{TEMPLATES}?limit={TENTH}&continue={old}")).await;
    assert_eq!((expired.code, &expired.json()["reason"]), (410, &json!("Expired")), "{}", expired.text);
    let token = expired.json()["metadata"]["continue"].as_str().unwrap().to_owned();

    server.made("/api/v1/namespaces/default/configmaps", &super::map("m")).await;
    let second = page(&server, TENTH, &token).await;
    assert_ne!(second["metadata"]["resourceVersion"], first["metadata"]["resourceVersion"]);
    assert_eq!(second["items"].as_array().unwrap().len(), TENTH);
    check(&second, TENTH, &mut found);
    check_rest(&server, &second, |_| TENTH, found).await;
}
