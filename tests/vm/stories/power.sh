# The machine is rebooted, then its power is cut: pods come back, and every acknowledged write is there. The reboot ends
# containers in order and waits for none.

# systemd waits this long for processes that do not end by themselves, before it kills them.
held_up_seconds=90

api=https://127.0.0.1:6443/api/v1/namespaces/default/configmaps

# The administrator's certificate, for curl.
credentials() {
    for name in certificate-authority client-certificate client-key; do
        sed -n "s/^ *$name-data: //p" "$KUBECONFIG" | base64 -d >"/tmp/$name" || return 1
    done
}
request() {
    curl -sS --max-time 10 --fail-with-body --cacert /tmp/certificate-authority --cert /tmp/client-certificate \
        --key /tmp/client-key "$@"
}
create() {
    request -o /tmp/said -H 'Content-Type: application/json' "$api" \
        -d "{\"apiVersion\":\"v1\",\"kind\":\"ConfigMap\",\"metadata\":{\"name\":\"$1\"},\"data\":{\"at\":\"$(date +%s.%N)\"}}"
}
write_on() {
    number=0
    while create "written-$boot-$number"; do
        echo "acknowledged written-$boot-$number"
        number=$((number + 1))
        # What comes after this is written while the power goes.
        [ $number -ne 30 ] || echo "cut the power"
        [ $number -lt 3000 ] || break
    done
}
every_acknowledged_write_is_there() {
    request "$api" >/tmp/configmaps || return 1
    sed -n 's/^acknowledged //p' /story/log >/tmp/acknowledged
    [ -s /tmp/acknowledged ] || return 1
    while read -r name; do
        grep -q "\"name\": *\"$name\"" /tmp/configmaps || { echo "$name is lost"; return 1; }
    done </tmp/acknowledged
    echo "$(wc -l </tmp/acknowledged) writes"
}
uptime_seconds() { cut -d. -f1 /proc/uptime; }
# The seconds from one line of the earlier boot to another.
seconds_between() { echo $(($(said "$2") - $(said "$1"))); }
said() { tr -d '\r' </story/log | sed -n "s/^$1 at //p" | tail -n 1; }
ready() { kubectl rollout status deployment/keeper --timeout=5s; }
came_back() {
    check "the unit is active after $1" until_true 60 systemctl is-active cluster
    check "the node is Ready after $1" until_true 120 cluster status
    credentials
    check "the pod is back after $1" until_true 120 ready
    check "with its file on the host" kubectl exec deployment/keeper -- grep kept /data/file
    check "and its network" until_true 30 kubectl exec deployment/keeper -- nslookup kubernetes.default.svc.cluster.local
}

case $boot in
1)
    check "the installation" install_cluster || return
    mkdir -p /var/lib/cluster/agent/images /srv/keeper
    check "an image from a file" cluster image import /story/busybox.tar || return
    cat >/tmp/keeper.yaml <<END
apiVersion: apps/v1
kind: Deployment
metadata: {name: keeper}
spec:
  selector: {matchLabels: {app: keeper}}
  template:
    metadata: {labels: {app: keeper}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - name: keeper
        image: busybox:1
        command:
        - sh
        - -c
        - |
          [ -e /data/file ] || { echo kept >/data/file; sync; }
          trap 'sleep 2; echo in order >/data/ended; sync; exit 0' TERM
          while :; do sleep 1; done
        volumeMounts: [{name: data, mountPath: /data}]
      # As the first process of its container it takes no notice of SIGTERM.
      - name: deaf
        image: busybox:1
        command: [sleep, "86400"]
      volumes: [{name: data, hostPath: {path: /srv/keeper}}]
END
    check "a deployment" kubectl apply -f /tmp/keeper.yaml || return
    check "its pod runs" until_true 60 ready || return
    credentials
    check "a write" create written-1-0 && echo "acknowledged written-1-0"
    # Run when all processes are gone and nothing can be written any more.
    cat >/usr/lib/systemd/system-shutdown/story <<'END'
#!/bin/sh
echo "all processes were gone at $(cut -d. -f1 /proc/uptime)" >/dev/ttyS1
END
    chmod +x /usr/lib/systemd/system-shutdown/story
    sync
    [ "$bad" -gt 0 ] || { echo "the reboot began at $(uptime_seconds)"; systemctl reboot; sleep 300; }
    ;;
2)
    took=$(seconds_between "the reboot began" "all processes were gone")
    echo "going down took $took s"
    check "the reboot was not held up" [ "$took" -lt $held_up_seconds ]
    check "the container ended in order" grep "in order" /srv/keeper/ended
    came_back "a reboot"
    check "every acknowledged write is there" every_acknowledged_write_is_there
    [ "$bad" -gt 0 ] || write_on
    check "the power was cut" false
    ;;
3)
    came_back "a power cut"
    check "every acknowledged write is there" every_acknowledged_write_is_there
    tail -n 1 /tmp/acknowledged
    check "uninstalling" cluster uninstall
    ;;
esac
