"""The Python client against a cluster: python client.py (KUBECONFIG names it; IMAGE is one that sleeps).

Typed and dynamic, with watches that go on where they ended, server-side apply, custom resources, logs and exec.
"""

import os

from kubernetes import client, config, dynamic, watch
from kubernetes.client.rest import ApiException
from kubernetes.dynamic.exceptions import ConflictError
from kubernetes.stream import stream

NAMESPACE = "python"

config.load_kube_config()
core, apps = client.CoreV1Api(), client.AppsV1Api()


def refused(code, reason, call):
    try:
        call()
    except ApiException as error:
        assert (error.status, f'"reason":"{reason}"' in error.body.replace(" ", "")) == (code, True), error
        return
    raise AssertionError(f"not refused with {code} {reason}")


def typed():
    assert client.VersionApi().get_code().git_version.startswith("v1.36.")
    core.create_namespace({"metadata": {"name": NAMESPACE}})
    for i in range(7):
        body = client.V1ConfigMap(metadata=client.V1ObjectMeta(name=f"map-{i}", labels={"n": str(i)}), data={"k": "v"})
        made = core.create_namespaced_config_map(NAMESPACE, body)
        assert made.metadata.uid and made.metadata.creation_timestamp.tzinfo
    refused(409, "AlreadyExists", lambda: core.create_namespaced_config_map(NAMESPACE, body))
    refused(404, "NotFound", lambda: core.read_namespaced_config_map("none", NAMESPACE))
    refused(422, "Invalid", lambda: core.create_namespaced_config_map(NAMESPACE, {"metadata": {"name": "A_b"}}))

    names, token = [], None
    while True:
        page = core.list_namespaced_config_map(NAMESPACE, limit=3, _continue=token, label_selector="n")
        names += [item.metadata.name for item in page.items]
        token = page.metadata._continue
        if not token:
            break
    assert names == [f"map-{i}" for i in range(7)], names

    made = core.patch_namespaced_config_map("map-0", NAMESPACE, {"data": {"k": None, "more": "x"}})
    assert made.data == {"more": "x"}, made.data
    made.data["again"] = "y"
    old = made.metadata.resource_version
    made = core.replace_namespaced_config_map("map-0", NAMESPACE, made)
    assert made.metadata.resource_version != old
    made.metadata.resource_version = old
    refused(409, "Conflict", lambda: core.replace_namespaced_config_map("map-0", NAMESPACE, made))


def watched():
    """A watch that ends goes on where it was; one from before what is known says so."""
    listed = core.list_namespaced_config_map(NAMESPACE)
    watcher, seen = watch.Watch(), []
    core.delete_namespaced_config_map("map-6", NAMESPACE)
    start = listed.metadata.resource_version
    for event in watcher.stream(
        core.list_namespaced_config_map, NAMESPACE, resource_version=start, timeout_seconds=30, allow_watch_bookmarks=True
    ):
        seen.append((event["type"], event["object"].metadata.name))
        break
    watcher.stop()
    core.create_namespaced_config_map(NAMESPACE, {"metadata": {"name": "late"}})
    again = watch.Watch()
    for event in again.stream(
        core.list_namespaced_config_map, NAMESPACE, resource_version=watcher.resource_version, timeout_seconds=30
    ):
        seen.append((event["type"], event["object"].metadata.name))
        break
    assert seen == [("DELETED", "map-6"), ("ADDED", "late")], seen


def applied():
    """By the dynamic client, which learns of kinds by discovery."""
    cluster = dynamic.DynamicClient(client.ApiClient())
    deployments = cluster.resources.get(api_version="apps/v1", kind="Deployment")
    container = {"name": "web", "image": os.environ["IMAGE"], "command": ["sh", "-c", "echo hello; sleep 100000"]}
    document = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "web", "namespace": NAMESPACE},
        "spec": {
            "replicas": 1,
            "selector": {"matchLabels": {"app": "web"}},
            "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [container]}},
        },
    }
    made = deployments.server_side_apply(body=document, field_manager="python")
    assert made.metadata.managedFields[0].manager == "python"
    document["spec"]["template"]["metadata"]["labels"]["tier"] = "front"
    made = deployments.server_side_apply(body=document, field_manager="python")
    assert made.spec.template.metadata.labels.tier == "front"
    other = {**document, "spec": {**document["spec"], "replicas": 2}}
    try:
        deployments.server_side_apply(body=other, field_manager="other")
        raise AssertionError("no conflict")
    except ConflictError as error:
        assert ".spec.replicas" in str(error.body), error.body
    deployments.server_side_apply(body=other, field_manager="other", force_conflicts=True)
    scale = apps.read_namespaced_deployment_scale("web", NAMESPACE)
    assert scale.spec.replicas == 2, scale

    for event in watch.Watch().stream(apps.list_namespaced_deployment, NAMESPACE, timeout_seconds=60):
        status, wanted = event["object"].status, event["object"].metadata.generation
        # As long as one of before is left, what is available may be that one.
        counts = (status.replicas, status.updated_replicas, status.available_replicas)
        if status.observed_generation == wanted and counts == (2, 2, 2):
            break
    else:
        raise AssertionError("the deployment is not available")


def custom():
    names = {"plural": "gadgets", "singular": "gadget", "kind": "Gadget"}
    spec = {"type": "object", "properties": {"size": {"type": "integer", "minimum": 1}}}
    schema = {"openAPIV3Schema": {"type": "object", "properties": {"spec": spec, "status": {
        "type": "object", "properties": {"ready": {"type": "boolean"}}}}}}
    version = {"name": "v1", "served": True, "storage": True, "schema": schema, "subresources": {"status": {}}}
    definitions = client.ApiextensionsV1Api()
    definitions.create_custom_resource_definition({
        "metadata": {"name": "gadgets.python.example"},
        "spec": {"group": "python.example", "scope": "Namespaced", "names": names, "versions": [version]},
    })
    for event in watch.Watch().stream(definitions.list_custom_resource_definition, timeout_seconds=30):
        conditions = event["object"].status and event["object"].status.conditions or []
        if event["object"].metadata.name == "gadgets.python.example" and any(
            c.type == "Established" and c.status == "True" for c in conditions
        ):
            break
    objects = client.CustomObjectsApi()
    where = ("python.example", "v1", NAMESPACE, "gadgets")
    body = {"apiVersion": "python.example/v1", "kind": "Gadget", "metadata": {"name": "g"}, "spec": {"size": 1}}
    objects.create_namespaced_custom_object(*where, body)
    objects.patch_namespaced_custom_object_status(*where, "g", {"status": {"ready": True}})
    found = objects.get_namespaced_custom_object(*where, "g")
    assert (found["spec"], found["status"]) == ({"size": 1}, {"ready": True}), found
    refused(422, "Invalid", lambda: objects.patch_namespaced_custom_object(*where, "g", {"spec": {"size": 0}}))
    definitions.delete_custom_resource_definition("gadgets.python.example")


def inside():
    pod = core.list_namespaced_pod(NAMESPACE, label_selector="tier=front").items[0].metadata.name
    said = stream(
        core.connect_get_namespaced_pod_exec, pod, NAMESPACE, command=["sh", "-c", "echo out; echo err >&2"],
        stdout=True, stderr=True, stdin=False, tty=False,
    )
    assert sorted(said.split()) == ["err", "out"], said
    # As text this client would give what Python shows of bytes.
    log = core.read_namespaced_pod_log(pod, NAMESPACE, _preload_content=False).data
    assert log == b"hello\n", log
    followed = core.read_namespaced_pod_log(pod, NAMESPACE, follow=True, _preload_content=False)
    assert next(followed.stream()) == b"hello\n"
    followed.close()


for story in (typed, watched, applied, custom, inside):
    story()
    print(story.__name__, flush=True)
core.delete_namespace(NAMESPACE)
