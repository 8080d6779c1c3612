"""An operator as people write them: leader election, a custom resource with finalizer and status, owned objects, and
admission webhooks.

boats_operator.py KUBECONFIG NAME ADDRESS CERTIFICATE KEY

Boats (boats.sea.example.com) get a crew: a ConfigMap that they own. Boats without a captain are given one, and those
with more than ten seats are refused. Whoever leads says so in the Lease default/boats, serves the webhooks at
https://ADDRESS:9443 and does the work; the others wait.
"""

import base64
import json
import ssl
import sys
import threading
import time
from datetime import datetime, timezone
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from kubernetes import client, config, watch
from kubernetes.client.rest import ApiException

KUBECONFIG, NAME, ADDRESS, CERTIFICATE, KEY = sys.argv[1:]
GROUP, VERSION, PLURAL = "sea.example.com", "v1", "boats"
FINALIZER = "sea.example.com/harbour"
PORT = 9443
LEASE_SECONDS = 3
SEATS_MAX = 10

DEFINITION = {
    "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
    "metadata": {"name": f"{PLURAL}.{GROUP}"},
    "spec": {
        "group": GROUP, "scope": "Namespaced",
        "names": {"plural": PLURAL, "singular": "boat", "kind": "Boat"},
        "versions": [{
            "name": VERSION, "served": True, "storage": True,
            "subresources": {"status": {}},
            "additionalPrinterColumns": [
                {"name": "Captain", "type": "string", "jsonPath": ".spec.captain"},
                {"name": "Phase", "type": "string", "jsonPath": ".status.phase"},
            ],
            "schema": {"openAPIV3Schema": {
                "type": "object",
                "properties": {
                    "spec": {
                        "type": "object",
                        "properties": {"captain": {"type": "string"}, "seats": {"type": "integer", "default": 2}},
                        "x-kubernetes-validations": [
                            {"rule": "self.seats > 0", "message": "a boat has seats"},
                            {"rule": "self.seats >= oldSelf.seats", "message": "a boat never shrinks"},
                        ],
                    },
                    "status": {
                        "type": "object",
                        "properties": {"phase": {"type": "string"}, "observedGeneration": {"type": "integer"}},
                    },
                },
            }},
        }],
    },
}


class Webhooks(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        review = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        request = review["request"]
        response = {"uid": request["uid"], "allowed": True}
        spec = request["object"]["spec"]
        if self.path.startswith("/mutate") and not spec.get("captain"):
            patch = [{"op": "add", "path": "/spec/captain", "value": request["userInfo"]["username"]}]
            response |= {"patchType": "JSONPatch", "patch": base64.b64encode(json.dumps(patch).encode()).decode()}
        if self.path.startswith("/validate") and spec["seats"] > SEATS_MAX:
            message = f"no more than {SEATS_MAX} seats"
            response |= {"allowed": False, "status": {"code": 403, "message": message}}
        body = json.dumps({"apiVersion": review["apiVersion"], "kind": review["kind"], "response": response}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


def lead(leases):
    """Waits until this process leads, then keeps the Lease for as long as it lives."""
    while not renew(leases):
        time.sleep(0.5)
    print("leading", flush=True)

    def keep():
        while renew(leases):
            time.sleep(LEASE_SECONDS / 3)
        sys.exit("the Lease was lost")

    threading.Thread(target=keep, daemon=True).start()


def renew(leases):
    now = datetime.now(timezone.utc)
    spec = client.V1LeaseSpec(holder_identity=NAME, lease_duration_seconds=LEASE_SECONDS, renew_time=now)
    try:
        held = leases.read_namespaced_lease("boats", "default")
        age = (now - held.spec.renew_time).total_seconds()
        if held.spec.holder_identity != NAME and age < LEASE_SECONDS:
            return False
        held.spec = spec
        leases.replace_namespaced_lease("boats", "default", held)
    except ApiException as error:
        if error.status == 409:
            return False
        if error.status != 404:
            raise
        lease = client.V1Lease(metadata=client.V1ObjectMeta(name="boats"), spec=spec)
        leases.create_namespaced_lease("default", lease)
    return True


def set_up(api):
    """The definition, and the webhooks that lead here."""
    extensions, admission = client.ApiextensionsV1Api(api), client.AdmissionregistrationV1Api(api)
    there(extensions.create_custom_resource_definition, DEFINITION)
    while not established(extensions):
        time.sleep(0.1)
    bundle = base64.b64encode(open(CERTIFICATE, "rb").read()).decode()

    def hook(path, **more):
        return {
            "name": f"{path}.{GROUP}", "admissionReviewVersions": ["v1"], "sideEffects": "None", "timeoutSeconds": 5,
            "clientConfig": {"url": f"https://{ADDRESS}:{PORT}/{path}", "caBundle": bundle},
            "rules": [{
                "apiGroups": [GROUP], "apiVersions": ["*"], "resources": [PLURAL], "operations": ["CREATE", "UPDATE"],
            }],
            "matchConditions": [{"name": "living", "expression": "!has(object.metadata.deletionTimestamp)"}],
        } | more

    for kind, create, webhook in [
        ("MutatingWebhookConfiguration", admission.create_mutating_webhook_configuration, hook("mutate")),
        ("ValidatingWebhookConfiguration", admission.create_validating_webhook_configuration, hook("validate")),
    ]:
        there(create, {
            "apiVersion": "admissionregistration.k8s.io/v1", "kind": kind,
            "metadata": {"name": PLURAL}, "webhooks": [webhook],
        })


def there(create, body):
    try:
        create(body)
    except ApiException as error:
        if error.status != 409:
            raise


def established(extensions):
    conditions = extensions.read_custom_resource_definition(f"{PLURAL}.{GROUP}").status.conditions or []
    return any(one.type == "Established" and one.status == "True" for one in conditions)


def reconcile(api, boat):
    objects, core = client.CustomObjectsApi(api), client.CoreV1Api(api)
    metadata = boat["metadata"]
    of = (GROUP, VERSION, metadata["namespace"], PLURAL, metadata["name"])
    finalizers = metadata.get("finalizers", [])
    if "deletionTimestamp" in metadata:
        if FINALIZER in finalizers:
            print("harboured", metadata["name"], flush=True)
            rest = [one for one in finalizers if one != FINALIZER]
            objects.patch_namespaced_custom_object(*of, {"metadata": {"finalizers": rest}})
        return
    if FINALIZER not in finalizers:
        objects.patch_namespaced_custom_object(*of, {"metadata": {"finalizers": finalizers + [FINALIZER]}})
        return
    owner = client.V1OwnerReference(
        api_version=boat["apiVersion"], kind=boat["kind"], name=metadata["name"], uid=metadata["uid"], controller=True,
        block_owner_deletion=True,
    )
    crew = client.V1ConfigMap(
        metadata=client.V1ObjectMeta(name=f"crew-{metadata['name']}", owner_references=[owner]),
        data={"captain": boat["spec"].get("captain", "")},
    )
    there(lambda body: core.create_namespaced_config_map(metadata["namespace"], body), crew)
    status = {"phase": "Afloat", "observedGeneration": metadata["generation"]}
    if boat.get("status") != status:
        objects.patch_namespaced_custom_object_status(*of, {"status": status})


def main():
    config.load_kube_config(KUBECONFIG)
    api = client.ApiClient()
    lead(client.CoordinationV1Api(api))
    server = ThreadingHTTPServer((ADDRESS, PORT), Webhooks)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(CERTIFICATE, KEY)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    set_up(api)
    print("at work", flush=True)
    objects = client.CustomObjectsApi(api)
    while True:
        for event in watch.Watch().stream(
            objects.list_cluster_custom_object, GROUP, VERSION, PLURAL, timeout_seconds=60
        ):
            if event["type"] in ("ADDED", "MODIFIED"):
                try:
                    reconcile(api, event["object"])
                except ApiException as error:
                    # Changed or gone meanwhile: what it is now comes next.
                    if error.status not in (404, 409):
                        raise


main()
