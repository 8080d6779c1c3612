# cluster as a service of systemd, with pods limited by cgroup v2; upgraded, restarted, killed; removed.

deployment='
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {selector: {app: web}, ports: [{port: 80}]}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers:
      - name: web
        image: busybox:1
        command: [httpd, -f, -p, "80", -h, /etc]
        resources:
          requests: {cpu: 100m, memory: 32Mi}
          limits: {cpu: 200m, memory: 64Mi}
        readinessProbe: {exec: {command: [test, -f, /etc/passwd]}, periodSeconds: 1}
'
hungry='
apiVersion: v1
kind: Pod
metadata: {name: hungry}
spec:
  restartPolicy: Never
  containers:
  - name: hungry
    image: busybox:1
    command: [dd, if=/dev/zero, of=/dev/null, bs=100M]
    resources: {limits: {memory: 32Mi}}
---
apiVersion: v1
kind: Pod
metadata: {name: ill}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - name: ill
    image: busybox:1
    command: [sleep, "86401"]
    livenessProbe: {exec: {command: ["false"]}, periodSeconds: 1, failureThreshold: 1}
'

shims() { pgrep -x cluster-shim | sort -n | paste -sd' '; }
shims_are() { [ "$(shims | wc -w)" = "$1" ]; }
# From the machine itself, without the API server.
service_answers() { curl -sS --max-time 3 -o /dev/null --fail "http://$address/passwd"; }
rolled_out() { kubectl rollout status deployment/web --timeout=120s; }
# nslookup and nc: other commands of a static busybox fall over when they look names up.
answers() {
    kubectl exec deployment/web -- nslookup web.default.svc.cluster.local &&
        kubectl exec deployment/web -- sh -c \
            "printf 'GET /passwd HTTP/1.0\\r\\n\\r\\n' | nc -w 3 $address 80 | grep 'HTTP/1.* 200'"
}
limit() { cat "/sys/fs/cgroup/$(sed -n 's/^0:://p' "/proc/${pids%% *}/cgroup")/$1"; }
reason() { kubectl get pod "$1" -o 'jsonpath={.status.containerStatuses[0].state.terminated.reason}'; }
is_oom_killed() { [ "$(reason hungry)" = OOMKilled ]; }
restarts() { kubectl get pods "$@" -o 'jsonpath={.items[*].status.containerStatuses[0].restartCount}'; }
was_restarted() { [ "$(kubectl get pod ill -o 'jsonpath={.status.containerStatuses[0].restartCount}')" -gt 0 ]; }
has_new_pid() { [ "$(main_pid)" != "$1" ] && [ "$(main_pid)" != 0 ] && cluster status; }
goes_on() {
    same "$1: the containers have their processes" "$pids" "$(pids_of httpd)"
    same "$1: and their shims" "$shims" "$(shims)"
    sleep 5
    same "$1: and keep them" "$pids" "$(pids_of httpd)"
    same "$1: nothing was restarted" "0 0" "$(restarts -l app=web)"
    check "$1: a pod finds the Service and reaches it" until_true 20 answers
    check "$1: logs can be read" kubectl logs deployment/web
}

remember_belongings
check "the first installation" install_cluster || return
check "the unit is active" systemctl is-active cluster
check "and enabled" systemctl is-enabled cluster
check "the node is Ready" node_is_ready
pid=$(main_pid)
check "the second installation" install_cluster
same "which changes nothing" "$pid" "$(main_pid)"

check "an image from a file" cluster image import /story/busybox.tar || return
echo "$deployment" >/tmp/deployment.yaml
check "a deployment" kubectl apply -f /tmp/deployment.yaml || return
check "its pods are ready by their exec probes" rolled_out || return
pids=$(pids_of httpd)
same "there are two" 2 "$(echo "$pids" | wc -w)"
same "memory.max" 67108864 "$(limit memory.max)"
same "cpu.max" "20000 100000" "$(limit cpu.max)"
check "pids.max" limit pids.max
same "the pod's memory.max" 67108864 "$(limit ../memory.max)"
address=$(kubectl get service web -o 'jsonpath={.spec.clusterIP}')
check "a pod finds the Service and reaches it" until_true 20 answers
check "the machine reaches it" until_true 20 service_answers
echo "$hungry" >/tmp/hungry.yaml
kubectl apply -f /tmp/hungry.yaml
check "a container with too little memory is OOMKilled" until_true 60 is_oom_killed
check "a container that fails its exec probe is restarted" until_true 60 was_restarted
kubectl delete pod hungry ill
check "there is a shim for each pod" until_true 60 shims_are 2
shims=$(shims)
same "no shim or container is in the unit's cgroup" "$(main_pid)" "$(cat /sys/fs/cgroup/system.slice/cluster.service/cgroup.procs)"

pid=$(main_pid)
check "systemctl restart" systemctl restart cluster
check "the node is Ready again" until_true 60 has_new_pid "$pid"
goes_on "restart"

pid=$(main_pid)
check "systemctl kill -s KILL" systemctl kill -s KILL cluster
same "kill: the containers go on meanwhile" "$pids" "$(pids_of httpd)"
same "kill: and their shims" "$shims" "$(shims)"
check "kill: and the Service" service_answers
check "systemd starts it again, the node is Ready" until_true 60 has_new_pid "$pid"
goes_on "kill"

pid=$(main_pid)
cp /story/cluster /tmp/cluster
echo >>/tmp/cluster
check "an upgrade" env CLUSTER_BINARY=/tmp/cluster CLUSTER_ARGS=--debug sh /story/packaging/install.sh
check "is another process" has_new_pid "$pid"
goes_on "upgrade"
check "with the new flag" grep -qz -e --debug "/proc/$(main_pid)/cmdline"
check "a third installation" env CLUSTER_BINARY=/tmp/cluster sh /story/packaging/install.sh
check "remembers the flag" grep -qz -e --debug "/proc/$(main_pid)/cmdline"

check "systemctl stop" systemctl stop cluster
same "stop: the containers go on" "$pids" "$(pids_of httpd)"
same "stop: and their shims" "$shims" "$(shims)"
check "stop: and the Service" service_answers
check "uninstalling" cluster uninstall
check "nothing is left" nothing_is_left
