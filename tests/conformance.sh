#!/bin/sh
# Runs upstream's end-to-end tests against the real executable: a server and an agent, each in a network namespace of its
# own. Run as root, after tests/run.sh has set up what the tests need.
#
#   E2E_TEST=… AGNHOST=… sh tests/conformance.sh [FOCUS]     all of it: starts a cluster, runs, removes the cluster
#   E2E_TEST=… AGNHOST=… sh tests/conformance.sh up|run [FOCUS]|down     the same in steps
#
# FOCUS is a regular expression on the tests' names; by default it is all conformance tests. E2E_TEST and AGNHOST are
# built from Kubernetes' own tree of the version that this is, with CGO_ENABLED=0:
#
#   go test -c -o e2e.test ./test/e2e && go build -o agnhost ./test/images/agnhost
#
# Further programs are put into their images if they are given: SAMPLE_APISERVER (staging/src/k8s.io/sample-apiserver),
# ETCD, NNP (test/images/nonewprivs, static). CLUSTER is the executable, the release build by default. Images, logs and
# results are kept in CONFORMANCE_DIR.
set -eu
cd "$(dirname "$0")/.."
[ "$(id -u)" = 0 ] || { echo "tests/conformance.sh: run this as root: network namespaces and containers need it" >&2; exit 1; }
: "${E2E_TEST:?is upstream\'s e2e.test; the head of tests/conformance.sh says how it is built}"
: "${AGNHOST:?is upstream\'s agnhost; the head of tests/conformance.sh says how it is built}"
target=${CARGO_TARGET_DIR:-target}
CLUSTER=${CLUSTER:-$target/$(uname -m)-unknown-linux-gnu/release/cluster}
dir=${CONFORMANCE_DIR:-$target/conformance}
mkdir -p "$dir"
dir=$(cd "$dir" && pwd)
lan=conformance-lan
export KUBECONFIG="$dir/kubeconfig.yaml"

# What upstream's images have beside agnhost: a shell, and tools that tests call.
tools=busybox-static,dash,bash,coreutils,curl,netcat-openbsd,bind9-dnsutils,iproute2,iperf,util-linux,perl-base,nginx,procps,hostname,libc-bin,grep,sed,findutils,tar,gzip

# The root directory that most images share.
make_root() {
    root=$1
    rm -rf "$root"
    unshare -m mmdebstrap --quiet --mode=root --variant=extract "--include=$tools" bookworm "$root"
    rm -rf "$root"/usr/share/doc "$root"/usr/share/locale "$root"/usr/share/man "$root"/dev/*
    busybox=$(find "$root/bin" "$root/usr/bin" -name busybox | head -n 1)
    for name in $("$busybox" --list); do
        [ -n "$(find "$root/bin" "$root/sbin" "$root/usr/bin" "$root/usr/sbin" -name "$name" | head -n 1)" ] ||
            ln -s "${busybox#"$root"}" "$root/bin/$name"
    done
    ln -sf nc.openbsd "$root/bin/nc"
    cp "$AGNHOST" "$root/agnhost"
    ln -s agnhost "$root/agnhost-2"
    mkdir -p "$root/uploads" "$root/var/log/nginx" "$root/var/lib/nginx" "$root/usr/share/nginx/html"
    openssl req -x509 -newkey rsa:2048 -nodes -days 3650 -subj /CN=localhost -addext subjectAltName=IP:127.0.0.1 \
        -keyout "$root/localhost.key" -out "$root/localhost.crt" 2>/dev/null
    cat >"$root/etc/passwd" <<'END'
root:x:0:0:root:/root:/bin/sh
nobody:x:65534:65534:nobody:/:/bin/false
user-defined-in-image:x:1000:1000::/home:/bin/sh
END
    cat >"$root/etc/group" <<'END'
root:x:0:
nogroup:x:65534:
user-defined-in-image:x:1000:
group-defined-in-image:x:50000:user-defined-in-image
END
    echo 'Welcome to nginx!' >"$root/usr/share/nginx/html/index.html"
    cat >"$root/etc/nginx/nginx.conf" <<'END'
user root;
error_log stderr;
events {}
http { access_log off; server { listen 80; root /usr/share/nginx/html; } }
END
}

# busybox and nothing else; tests know what its shell says.
make_busybox() {
    root=$1
    rm -rf "$root"
    mkdir -p "$root/bin" "$root/etc" "$root/tmp" "$root/root" "$root/home" "$root/var/www"
    chmod 1777 "$root/tmp"
    cp /bin/busybox "$root/bin/busybox"
    for name in $(/bin/busybox --list); do
        [ "$name" = busybox ] || ln -s busybox "$root/bin/$name"
    done
    cp "$dir/root/etc/passwd" "$dir/root/etc/group" "$root/etc/"
}

# A layer of the archive; its digest.
layer() {
    tar --numeric-owner --owner=0 --group=0 -C "$2" -cf "$archive/$1.tar" .
    sha256sum "$archive/$1.tar" | cut -d ' ' -f 1 >"$archive/$1.sha256"
}

# A directory with one program in it, at the path that its image has it.
program() {
    rm -rf "$dir/program"
    mkdir -p "$dir/program$(dirname "$2")"
    install -m "${3:-0755}" "$1" "$dir/program$2"
}

# An image of the archive: its name, its configuration, its layers.
image() {
    name=$1 config=$2
    shift 2
    ids= files=
    for layer in "$@"; do
        ids="$ids,\"sha256:$(cat "$archive/$layer.sha256")\"" files="$files,\"$layer.tar\""
    done
    file=$(printf %s "$name" | tr '/:' '--').json
    printf '{"architecture":"%s","os":"linux","config":%s,"rootfs":{"type":"layers","diff_ids":[%s]}}' \
        "$(dpkg --print-architecture)" "$config" "${ids#,}" >"$archive/$file"
    entries="$entries,{\"Config\":\"$file\",\"RepoTags\":[\"$name\"],\"Layers\":[${files#,}]}"
}

# One archive of all images that the tests name and that can be made here.
make_images() {
    archive=$dir/archive entries=
    rm -rf "$archive"
    mkdir -p "$archive"
    make_root "$dir/root"
    layer root "$dir/root"
    make_busybox "$dir/program"
    layer busybox "$dir/program"
    for name in kitten nautilus; do
        echo "{\"image\": \"$name.jpg\"}" >"$dir/data.json"
        program "$dir/data.json" /data.json 0644
        layer "$name" "$dir/program"
    done
    given etcd "${ETCD:-}" /usr/local/bin/etcd
    given sample-apiserver "${SAMPLE_APISERVER:-}" /sample-apiserver
    given nonewprivs "${NNP:-}" /usr/local/bin/nnp 4755
    path='"Env":["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],"WorkingDir":"/"'
    for name in $("$E2E_TEST" --list-images); do
        case $name in
        *invalid* | *authenticated*) ;;
        */agnhost:*) image "$name" "{$path,\"Entrypoint\":[\"/agnhost\"],\"Cmd\":[\"pause\"]}" root ;;
        */kitten:*) image "$name" "{$path,\"Entrypoint\":[\"/agnhost\"],\"Cmd\":[\"test-webserver\"]}" root kitten ;;
        */nautilus:*) image "$name" "{$path,\"Entrypoint\":[\"/agnhost\"],\"Cmd\":[\"test-webserver\"]}" root nautilus ;;
        */pause:*) image "$name" "{$path,\"Entrypoint\":[\"/agnhost\",\"pause\"]}" root ;;
        */nginx:*) image "$name" "{$path,\"Cmd\":[\"nginx\",\"-g\",\"daemon off;\"]}" root ;;
        */nonroot:*) image "$name" "{$path,\"Cmd\":[\"sh\"],\"User\":\"1234\"}" busybox ;;
        */busybox:*) image "$name" "{$path,\"Cmd\":[\"sh\"]}" busybox ;;
        */perl:* | */glibc-dns-testing:* | */ipc-utils:*) image "$name" "{$path,\"Cmd\":[\"sh\"]}" root ;;
        */etcd:*) [ -z "${ETCD:-}" ] || image "$name" "{$path,\"Entrypoint\":[\"etcd\"]}" root etcd ;;
        */sample-apiserver:*)
            [ -z "${SAMPLE_APISERVER:-}" ] ||
                image "$name" "{$path,\"Entrypoint\":[\"/sample-apiserver\"]}" root sample-apiserver
            ;;
        */nonewprivs:*) [ -z "${NNP:-}" ] || image "$name" "{$path,\"Cmd\":[\"nnp\"]}" root nonewprivs ;;
        esac
    done
    printf '[%s]' "${entries#,}" >"$archive/manifest.json"
    tar -C "$archive" -cf "$dir/images.tar.part" .
    mv "$dir/images.tar.part" "$dir/images.tar"
    rm -rf "$archive" "$dir/root" "$dir/program"
}

# The layer of a program, where it was given.
given() {
    [ -n "$2" ] || return 0
    program "$2" "$3" "${4:-0755}"
    layer "$1" "$dir/program"
}

on() {
    host=$1
    shift
    nsenter "--net=/run/netns/conformance-$host" -- "$@"
}

# A host on the common link, with the last byte of its address.
make_host() {
    ip netns add "conformance-$1"
    nsenter "--net=/run/netns/$lan" ip link add "port$2" type veth peer name eth0 netns "conformance-$1"
    nsenter "--net=/run/netns/$lan" ip link set "port$2" master switch up
    on "$1" ip link set lo up
    on "$1" ip link set eth0 up
    on "$1" ip addr add "192.168.90.$2/24" dev eth0
    on "$1" ip route add default via 192.168.90.254
}

# The executable on a host, about what runs there.
cluster() {
    on "$1" "$CLUSTER" "$2" --data-dir "$dir/$1/data" --run-dir "$dir/$1/run"
}

# Waits for a command that will succeed soon, unless what runs on the host ends.
wait_for() {
    what=$1 tries=600
    shift
    until "$@" >/dev/null 2>&1; do
        tries=$((tries - 1))
        kill -0 "$(cat "$dir/$node.pid")" 2>/dev/null && [ $tries -gt 0 ] || {
            echo "tests/conformance.sh: $what on $node; the end of its log:" >&2
            tail -n 20 "$dir/$node.log" >&2
            exit 1
        }
        sleep 1
    done
}

has_images() {
    on "$node" "$CLUSTER" image --data-dir "$dir/$node/data" --run-dir "$dir/$node/run" list | grep -q /pause:
}

# A server or an agent on the host of this name; waits until its node is Ready and has the images.
start() {
    node=$1
    shift
    mkdir -p "$dir/$node/data/agent/images"
    ln -f "$dir/images.tar" "$dir/$node/data/agent/images/images.tar"
    : >"$dir/$node/config.yaml"
    : >"$dir/$node/resolv.conf"
    on "$node" "$CLUSTER" "$@" --data-dir "$dir/$node/data" --run-dir "$dir/$node/run" --config "$dir/$node/config.yaml" \
        --resolv-conf "$dir/$node/resolv.conf" --node-name "$node" >>"$dir/$node.log" 2>&1 </dev/null &
    echo $! >"$dir/$node.pid"
    wait_for "the node is not Ready" cluster "$node" status
    wait_for "images are not imported" has_images
}

up() {
    [ -e "$dir/images.tar" ] || make_images
    ip netns add "$lan"
    nsenter "--net=/run/netns/$lan" ip link add switch type bridge
    nsenter "--net=/run/netns/$lan" ip link set switch up
    make_host one 1
    make_host two 2
    start one server --write-kubeconfig "$KUBECONFIG"
    start two agent --server https://192.168.90.1:6443 --token "$(cluster one token)"
}

down() {
    for node in two one; do
        [ -e "/run/netns/conformance-$node" ] || continue
        cluster "$node" uninstall >/dev/null || true
        ip netns del "conformance-$node"
        rm -rf "${dir:?}/$node" "$dir/$node.pid"
    done
    [ ! -e "/run/netns/$lan" ] || ip netns del "$lan"
}

# Prints each test with its outcome, and the counts.
run() {
    on one "$E2E_TEST" --provider=skeleton --kubeconfig="$KUBECONFIG" --ginkgo.focus="${1:-\[Conformance\]}" \
        --ginkgo.timeout="${CONFORMANCE_TIMEOUT:-3h}" --ginkgo.no-color --ginkgo.junit-report="$dir/junit.xml" \
        >"$dir/e2e.log" 2>&1 || true
    python3 - "$dir/junit.xml" <<'END'
import collections, sys, xml.etree.ElementTree as tree
counts = collections.Counter()
for case in tree.parse(sys.argv[1]).iter("testcase"):
    if case.get("status") in ("passed", "failed", "timedout", "panicked", "interrupted") and case.get("name").startswith("[It]"):
        counts["passed" if case.get("status") == "passed" else "failed"] += 1
        print(case.get("status"), case.get("name")[5:], f"({float(case.get('time')):.0f} s)")
print(f"{counts['passed']} passed, {counts['failed']} failed")
sys.exit(counts["failed"] > 0 or counts["passed"] == 0)
END
}

case ${1:-} in
up) up ;;
down) down ;;
run) run "${2:-}" ;;
*)
    trap down EXIT
    up
    run "${1:-}"
    ;;
esac
