//! What a pod can be made of.

use super::{SOON, stage};
use crate::support::{run, until};

const MANIFEST: &str = r#"
apiVersion: v1
kind: ConfigMap
metadata: {name: settings}
data: {colour: blue, size: large}
---
apiVersion: v1
kind: Secret
metadata: {name: login}
stringData: {password: open-sesame}
---
apiVersion: v1
kind: Pod
metadata:
  name: everything
  labels: {app: everything}
  annotations: {note: hello}
spec:
  terminationGracePeriodSeconds: 2
  securityContext: {runAsUser: 1000, runAsGroup: 2000, fsGroup: 3000}
  initContainers:
  - name: prepare
    image: busybox:1
    command: [sh, -c, 'echo prepared > /shared/state']
    volumeMounts: [{name: shared, mountPath: /shared}]
  containers:
  - name: main
    image: busybox:1
    command: [sh, -c]
    args: ["echo '$(COLOUR) $(POD) $(NOT_THERE)'; trap 'exit 0' TERM; while true; do sleep 0.1; done"]
    env:
    - {name: COLOUR, valueFrom: {configMapKeyRef: {name: settings, key: colour}}}
    - {name: POD, valueFrom: {fieldRef: {fieldPath: metadata.name}}}
    - {name: LIMIT, valueFrom: {resourceFieldRef: {resource: limits.memory, divisor: 1Mi}}}
    envFrom:
    - {prefix: FROM_, configMapRef: {name: settings}}
    - {secretRef: {name: login}}
    resources:
      requests: {cpu: 50m, memory: 16Mi}
      limits: {cpu: 500m, memory: 64Mi}
    securityContext: {readOnlyRootFilesystem: true, capabilities: {drop: [ALL]}}
    readinessProbe: {exec: {command: [test, -f, /shared/state]}, periodSeconds: 1}
    lifecycle: {preStop: {exec: {command: [sh, -c, 'echo bye > /host/bye']}}}
    volumeMounts:
    - {name: shared, mountPath: /shared}
    - {name: settings, mountPath: /settings}
    - {name: login, mountPath: /login}
    - {name: about, mountPath: /about}
    - {name: host, mountPath: /host}
    - {name: memory, mountPath: /memory}
  volumes:
  - {name: shared, emptyDir: {}}
  - {name: memory, emptyDir: {medium: Memory}}
  - {name: settings, configMap: {name: settings, items: [{key: size, path: how/large}]}}
  - {name: login, secret: {secretName: login, defaultMode: 0440}}
  - {name: host, hostPath: {path: HOST_DIR, type: DirectoryOrCreate}}
  - name: about
    projected:
      sources:
      - downwardAPI: {items: [{path: labels, fieldRef: {fieldPath: metadata.labels}}]}
      - serviceAccountToken: {path: token, expirationSeconds: 3600}
"#;

#[test]
fn volumes_variables_limits_and_identity() {
    let stage = stage();
    let server = &stage.server;
    let host_dir = server.path("host");
    std::fs::create_dir(&host_dir).unwrap();
    std::os::unix::fs::chown(&host_dir, Some(1000), Some(2000)).unwrap();
    server.apply(&MANIFEST.replace("HOST_DIR", host_dir.to_str().unwrap()));
    server.kubectl(&["wait", "--for=condition=Ready", "pod/everything", "--timeout=60s"]);
    let sh = |script: &str| server.kubectl(&["exec", "everything", "--", "sh", "-c", script]);
    assert_eq!(server.kubectl(&["logs", "everything"]), "blue everything $(NOT_THERE)\n");
    assert_eq!(sh("echo $FROM_size $password $LIMIT"), "large open-sesame 64\n");
    assert_eq!(sh("id -u; id -g; id -G"), "1000\n2000\n2000 3000\n");
    assert_eq!(sh("cat /shared/state /settings/how/large"), "prepared\nlarge");
    assert_eq!(sh("cat /login/password; stat -L -c ' %a %g' /login/password"), "open-sesame 440 3000\n");
    assert_eq!(sh("cat /about/labels"), "app=\"everything\"");
    assert_eq!(sh("cut -d. -f1 /about/token | head -c 3"), "eyJ");
    assert!(sh("mount | grep ' /memory '").contains("tmpfs"));
    assert!(sh("touch /x 2>&1 || true").contains("Read-only file system"));
    assert_eq!(sh("grep CapEff /proc/self/status").split_whitespace().last(), Some("0000000000000000"));
    assert_eq!(server.kubectl(&["get", "pod", "everything", "-o", "jsonpath={.status.qosClass}"]), "Burstable");

    // A ConfigMap that changes reaches the volume.
    server.kubectl(&["patch", "configmap", "settings", "-p", r#"{"data":{"size":"huge"}}"#]);
    until("the volume follows the ConfigMap", SOON, || sh("cat /settings/how/large") == "huge");

    // The pod's token is good for the API, and only for what its account may do.
    let token = sh("cat /var/run/secrets/kubernetes.io/serviceaccount/token");
    let asks = |path: &str| {
        let header = format!("Authorization: Bearer {token}");
        let url = format!("https://127.0.0.1:6443{path}");
        run(server.host.command("curl").args(["-sk", "-o", "/dev/null", "-w", "%{http_code}", "-H", &header, &url]))
    };
    assert_eq!(asks("/api"), "200");
    assert_eq!(asks("/api/v1/namespaces/default/secrets"), "403");

    server.kubectl(&["delete", "pod", "everything"]);
    assert_eq!(std::fs::read_to_string(host_dir.join("bye")).unwrap(), "bye\n");
}

#[test]
fn restarts_probes_and_back_off() {
    let stage = stage();
    let server = &stage.server;
    server.apply(
        r#"
apiVersion: v1
kind: Pod
metadata: {name: crashing}
spec:
  containers: [{name: main, image: 'busybox:1', command: [sh, -c, 'echo try; exit 3']}]
---
apiVersion: v1
kind: Pod
metadata: {name: once}
spec:
  restartPolicy: Never
  containers: [{name: main, image: 'busybox:1', command: [sh, -c, 'exit 3']}]
---
apiVersion: v1
kind: Pod
metadata: {name: sick}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - name: main
    image: busybox:1
    command: [sh, -c, 'touch /tmp/well; sleep 3; rm /tmp/well; sleep 3600']
    livenessProbe: {exec: {command: [test, -f, /tmp/well]}, periodSeconds: 1, failureThreshold: 1}
---
apiVersion: v1
kind: Pod
metadata: {name: web}
spec:
  containers:
  - name: main
    image: busybox:1
    command: [sh, -c, 'sleep 1; httpd -f -p 8080 -h /etc']
    startupProbe: {tcpSocket: {port: 8080}, periodSeconds: 1, failureThreshold: 30}
    readinessProbe: {httpGet: {path: /passwd, port: 8080}, periodSeconds: 1}
---
apiVersion: v1
kind: Pod
metadata: {name: greedy}
spec:
  restartPolicy: Never
  containers:
  - name: main
    image: busybox:1
    command: [sh, -c, 'dd if=/dev/zero of=/dev/null bs=200M count=1; echo survived']
    resources: {limits: {memory: 32Mi}}
"#,
    );
    let status =
        |pod: &str, path: &str| server.kubectl(&["get", "pod", pod, "-o", &format!("jsonpath={{.status{path}}}")]);
    until("a container that fails is restarted with back-off", SOON, || {
        status("crashing", ".containerStatuses[0].state.waiting.reason") == "CrashLoopBackOff"
            && status("crashing", ".containerStatuses[0].lastState.terminated.exitCode") == "3"
    });
    until("a pod that is not to be restarted fails", SOON, || status("once", ".phase") == "Failed");
    assert_eq!(status("once", ".containerStatuses[0].restartCount"), "0");
    until("a container whose liveness probe fails is restarted", SOON, || {
        status("sick", ".containerStatuses[0].restartCount").parse::<u32>().unwrap_or(0) >= 1
    });
    server.kubectl(&["wait", "--for=condition=Ready", "pod/web", "--timeout=60s"]);
    until("a container that takes too much memory is killed", SOON, || {
        status("greedy", ".containerStatuses[0].state.terminated.reason") == "OOMKilled"
    });
    let events = server.kubectl(&["events"]);
    assert!(events.contains("BackOff") && events.contains("Unhealthy") && events.contains("Killing"), "{events}");
}
