"""What a user of the Python client does: lists, watches, changes and deletes, and runs commands in a pod.

python_client.py KUBECONFIG, with the pod default/shell running. Ends with an exception at the first thing that goes wrong.
"""

import sys
import threading
import time

from kubernetes import client, config, dynamic, watch
from kubernetes.client.rest import ApiException
from kubernetes.stream import portforward, stream

NAMESPACE = "python"
WAIT_SECONDS_MAX = 30


def eventually(what, holds):
    end = time.monotonic() + WAIT_SECONDS_MAX
    while not holds():
        if time.monotonic() > end:
            raise AssertionError(f"not within {WAIT_SECONDS_MAX} s: {what}")
        time.sleep(0.1)


def refused(status, call, *args, **kwargs):
    try:
        call(*args, **kwargs)
    except ApiException as error:
        assert error.status == status, f"{error.status} {error.body}"
        return error.body
    raise AssertionError(f"{call.__name__} should have failed with {status}")


def config_map(name, value="0", labels=None):
    return client.V1ConfigMap(metadata=client.V1ObjectMeta(name=name, labels=labels or {}), data={"value": value})


def objects(core):
    core.create_namespace(client.V1Namespace(metadata=client.V1ObjectMeta(name=NAMESPACE)))
    created = core.create_namespaced_config_map(NAMESPACE, config_map("a", labels={"round": "1"}))
    assert created.metadata.uid and created.metadata.resource_version
    assert created.metadata.managed_fields[0].operation == "Update"
    refused(409, core.create_namespaced_config_map, NAMESPACE, config_map("a"))
    refused(422, core.create_namespaced_config_map, NAMESPACE, config_map("Not a name"))
    refused(404, core.read_namespaced_config_map, "b", NAMESPACE)

    patched = core.patch_namespaced_config_map("a", NAMESPACE, {"data": {"value": "1"}})
    assert patched.data == {"value": "1"}
    stale = config_map("a", "2")
    stale.metadata.resource_version = created.metadata.resource_version
    assert "the object has been modified" in refused(409, core.replace_namespaced_config_map, "a", NAMESPACE, stale)
    replaced = core.replace_namespaced_config_map("a", NAMESPACE, config_map("a", "2"))
    assert replaced.data == {"value": "2"}
    dry = core.create_namespaced_config_map(NAMESPACE, config_map("dry"), dry_run="All")
    assert dry.metadata.uid
    refused(404, core.read_namespaced_config_map, "dry", NAMESPACE)


def pages(core):
    for number in range(25):
        core.create_namespaced_config_map(NAMESPACE, config_map(f"page-{number:02}", labels={"page": "yes"}))
    names, token, requests = [], None, 0
    while True:
        page = core.list_namespaced_config_map(NAMESPACE, label_selector="page=yes", limit=10, _continue=token)
        names += [item.metadata.name for item in page.items]
        requests += 1
        token = page.metadata._continue
        if not token:
            break
    assert names == [f"page-{number:02}" for number in range(25)] and requests == 3, names
    one = core.list_namespaced_config_map(NAMESPACE, field_selector="metadata.name=page-07")
    assert [item.metadata.name for item in one.items] == ["page-07"]
    core.delete_collection_namespaced_config_map(NAMESPACE, label_selector="page=yes")
    assert not core.list_namespaced_config_map(NAMESPACE, label_selector="page=yes").items


def watching(core):
    start = core.list_namespaced_config_map(NAMESPACE).metadata.resource_version

    def change():
        core.create_namespaced_config_map(NAMESPACE, config_map("seen"))
        for value in range(5):
            core.patch_namespaced_config_map("seen", NAMESPACE, {"data": {"value": str(value + 1)}})
        core.delete_namespaced_config_map("seen", NAMESPACE)

    changing = threading.Thread(target=change)
    changing.start()
    events = []
    for event in watch.Watch().stream(
        core.list_namespaced_config_map, NAMESPACE, resource_version=start, timeout_seconds=WAIT_SECONDS_MAX
    ):
        if event["object"].metadata.name == "seen":
            events.append((event["type"], event["object"].data["value"]))
            if event["type"] == "DELETED":
                break
    changing.join()
    expected = [("ADDED", "0")] + [("MODIFIED", str(value)) for value in range(1, 6)] + [("DELETED", "5")]
    assert events == expected, events


def running(core):
    said = stream(
        core.connect_get_namespaced_pod_exec, "shell", "default", command=["sh", "-c", "echo out; echo err >&2"],
        stdout=True, stderr=True, stdin=False, tty=False,
    )
    assert sorted(said.split()) == ["err", "out"], said
    shell = stream(
        core.connect_get_namespaced_pod_exec, "shell", "default", command=["sh", "-c", "read line; echo got $line; exit 3"],
        stdout=True, stderr=True, stdin=True, tty=False, _preload_content=False,
    )
    shell.write_stdin("this\n")
    said = ""
    while shell.is_open():
        shell.update(timeout=1)
        if shell.peek_stdout():
            said += shell.read_stdout()
    assert said == "got this\n" and shell.returncode == 3, (said, shell.returncode)
    assert "started" in core.read_namespaced_pod_log("shell", "default")


def forwarding(core):
    forward = portforward(core.connect_get_namespaced_pod_portforward, "shell", "default", ports="8080")
    socket = forward.socket(8080)
    socket.sendall(b"GET / HTTP/1.0\r\n\r\n")
    answer = b""
    while True:
        data = socket.recv(4096)
        if not data:
            break
        answer += data
    assert b"200 OK" in answer, answer


def dynamically(api):
    """Resources by discovery, server-side apply, scale and status."""
    resources = dynamic.DynamicClient(api)
    deployments = resources.resources.get(api_version="apps/v1", kind="Deployment")
    manifest = {
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "applied", "namespace": NAMESPACE},
        "spec": {
            "replicas": 0, "selector": {"matchLabels": {"app": "applied"}},
            "template": {
                "metadata": {"labels": {"app": "applied"}},
                "spec": {"containers": [{"name": "main", "image": "busybox:1"}]},
            },
        },
    }
    applied = deployments.server_side_apply(body=manifest, field_manager="python")
    assert applied.spec.replicas == 0 and applied.metadata.generation == 1
    manifest["spec"]["replicas"] = 1
    try:
        deployments.server_side_apply(body=manifest, field_manager="other")
        raise AssertionError("a conflict was expected")
    except dynamic.exceptions.ConflictError as error:
        assert ".spec.replicas" in error.body, error.body
    scaled = client.AppsV1Api(api).patch_namespaced_deployment_scale("applied", NAMESPACE, {"spec": {"replicas": 2}})
    assert scaled.spec.replicas == 2
    eventually(
        "the controller saw the new size",
        lambda: (deployments.get("applied", NAMESPACE).status.observedGeneration or 0) >= 2,
    )


def custom(api):
    """A custom resource: made, used by name, and gone with its definition."""
    extensions, objects = client.ApiextensionsV1Api(api), client.CustomObjectsApi(api)
    schema = {
        "type": "object",
        "properties": {"spec": {"type": "object", "properties": {"size": {"type": "integer", "minimum": 1, "default": 3}}}},
    }
    names = {"plural": "boats", "singular": "boat", "kind": "Boat", "shortNames": ["bt"]}
    extensions.create_custom_resource_definition({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "boats.sea.example.com"},
        "spec": {
            "group": "sea.example.com", "scope": "Namespaced", "names": names,
            "versions": [{"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}}],
        },
    })

    def established():
        conditions = extensions.read_custom_resource_definition("boats.sea.example.com").status.conditions or []
        return any(one.type == "Established" and one.status == "True" for one in conditions)

    eventually("the definition is established", established)
    of = ("sea.example.com", "v1", NAMESPACE, "boats")
    boat = {"apiVersion": "sea.example.com/v1", "kind": "Boat", "metadata": {"name": "one"}, "spec": {"sail": 1}}
    made = objects.create_namespaced_custom_object(*of, boat)
    assert made["spec"] == {"size": 3}, made
    boat["metadata"]["name"], boat["spec"] = "two", {"size": 0}
    assert "should be greater than or equal to 1" in refused(422, objects.create_namespaced_custom_object, *of, boat)
    assert len(objects.list_namespaced_custom_object(*of)["items"]) == 1
    extensions.delete_custom_resource_definition("boats.sea.example.com")
    eventually("its objects are gone", lambda: not has(lambda: objects.list_namespaced_custom_object(*of)))


def has(call):
    try:
        return bool(call())
    except ApiException as error:
        assert error.status == 404, error
        return False


def leaving(core):
    core.delete_namespace(NAMESPACE)
    eventually("the namespace is gone", lambda: not has(lambda: core.read_namespace(NAMESPACE)))


def main():
    config.load_kube_config(sys.argv[1])
    api = client.ApiClient()
    core = client.CoreV1Api(api)
    assert client.VersionApi(api).get_code().minor == "36"
    for part, argument in [
        (objects, core), (pages, core), (watching, core), (running, core), (forwarding, core),
        (dynamically, api), (custom, api), (leaving, core),
    ]:
        part(argument)
        print("ok", part.__name__, flush=True)


main()
