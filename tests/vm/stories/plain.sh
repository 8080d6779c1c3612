# cluster where PID 1 is not systemd: the same machine, with systemd's directory out of sight.

mount -t tmpfs none /run/systemd
plain_pid() { cat /run/cluster/cluster.pid; }
says() {
    expected=$1
    shift
    "$@" >/tmp/answer 2>&1
    cat /tmp/answer
    grep -q -e "$expected" /tmp/answer
}

remember_belongings
check "an executable of another machine is refused" says "does not run on this machine" \
    env CLUSTER_BINARY=/etc/passwd sh /story/packaging/install.sh
check "an agent needs a token" says "CLUSTER_TOKEN is missing" env CLUSTER_SERVER=https://10.0.2.2:6443 sh /story/packaging/install.sh
check "refusals leave nothing" nothing_is_left
check "a wrong flag" says "no-such-flag" env CLUSTER_ARGS=--no-such-flag sh /story/packaging/install.sh
check "and none" env CLUSTER_ARGS= sh /story/packaging/install.sh || return
check "the node is Ready" node_is_ready
pid=$(plain_pid)
check "the second installation" install_cluster
same "which changes nothing" "$pid" "$(plain_pid)"
check "a server becomes no agent" says "is a server already" \
    env CLUSTER_SERVER=https://10.0.2.2:6443 CLUSTER_TOKEN=x sh /story/packaging/install.sh

check "an image from a file" cluster image import /story/busybox.tar || return
check "a pod" kubectl run idle --image=busybox:1 -- sleep 86400
check "it is Ready" kubectl wait pod/idle --for=condition=Ready --timeout=60s || return
pids=$(pids_of "sleep 86400")
cp /story/cluster /tmp/cluster
echo >>/tmp/cluster
check "an upgrade" env CLUSTER_BINARY=/tmp/cluster sh /story/packaging/install.sh
check "is another process" [ "$pid" != "$(plain_pid)" ]
same "the container goes on" "$pids" "$(pids_of "sleep 86400")"
check "exec works in it" kubectl exec idle -- true
check "uninstalling" cluster uninstall
check "nothing is left" nothing_is_left
