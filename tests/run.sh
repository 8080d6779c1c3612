#!/bin/sh
# Sets up what the tests need on a fresh Debian machine, and runs all of them: unit tests, then the real executable in
# network namespaces. Run as root. `sh tests/run.sh STORY` runs the stories whose names contain STORY, and no unit tests.
set -eu
cd "$(dirname "$0")/.."
[ "$(id -u)" = 0 ] || { echo "tests/run.sh: run this as root: network namespaces and containers need it" >&2; exit 1; }

# Trixie's is the oldest kubectl that the stories were told with; bookworm's own is of 2021.
kubectl_minor_min=32
tools=${CARGO_TARGET_DIR:-target}/tools
mkdir -p "$tools"
tools=$(cd "$tools" && pwd)
PATH=$tools:$PATH
recent_kubectl() {
    minor=$(kubectl version --client -o json 2>/dev/null | sed -n 's/.*"minor": *"\([0-9]*\).*/\1/p')
    [ "${minor:-0}" -ge $kubectl_minor_min ]
}

missing=
need() { command -v "$1" >/dev/null 2>&1 || missing="$missing $2"; }
recent_kubectl || need mmdebstrap mmdebstrap
need docker-registry docker-registry
need ip iproute2
need nsenter util-linux
need curl curl
need gcc gcc
need dpkg-deb dpkg
need socat socat
need script bsdutils
need pgrep procps
need nft nftables
need openssl openssl
need etcdctl etcd-client
need python3 python3
python3 -m venv -h >/dev/null 2>&1 && python3 -m ensurepip --version >/dev/null 2>&1 || missing="$missing python3-venv"
[ -x /bin/busybox ] && /bin/busybox true || missing="$missing busybox-static"
if [ -n "$missing" ]; then
    # Packages with services must not start them in the machine's own network.
    if [ ! -e /usr/sbin/policy-rc.d ]; then
        printf '#!/bin/sh\nexit 101\n' >/usr/sbin/policy-rc.d
        chmod +x /usr/sbin/policy-rc.d
        trap 'rm -f /usr/sbin/policy-rc.d' EXIT
    fi
    apt-get update -qq
    # shellcheck disable=SC2086
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing >/dev/null
fi

# Unpacked, not installed; in a mount namespace, so that nothing stays mounted whatever happens.
if ! recent_kubectl; then
    rm -rf "$tools/trixie"
    unshare -m mmdebstrap --quiet --mode=root --variant=extract --include=kubernetes-client trixie "$tools/trixie"
    mv "$tools/trixie/usr/bin/kubectl" "$tools/"
    rm -rf "$tools/trixie"
    hash -r
    recent_kubectl || { echo "tests/run.sh: trixie's kubectl does not run here" >&2; exit 1; }
fi

# Upstream's Python client, of the Kubernetes that this is.
if ! "$tools/python/bin/python3" -c 'import kubernetes' 2>/dev/null; then
    rm -rf "$tools/python"
    python3 -m venv "$tools/python"
    "$tools/python/bin/pip" install --quiet --disable-pip-version-check 'kubernetes==36.0.3'
fi

# What nginx is made of, for an image: unpacked, not installed.
debs=${CARGO_TARGET_DIR:-target}/debs
mkdir -p "$debs"
debs=$(cd "$debs" && pwd)
if ! ls "$debs"/nginx_*.deb >/dev/null 2>&1; then
    apt-get update -qq
    (cd "$debs" && apt-get download -qq nginx nginx-common libc6 libcrypt1 libpcre2-8-0 libssl3 zlib1g)
fi

target="$(uname -m)-unknown-linux-gnu"
if [ $# -eq 0 ]; then
    cargo test --workspace --exclude cluster
    cargo test -p cluster --bins
fi
RUSTFLAGS="-C target-feature=+crt-static" CLUSTER_TEST_DEBS="$debs" CLUSTER_TEST_PYTHON="$tools/python/bin/python3" \
    cargo test --release --target "$target" -p cluster --test main -- --test-threads=1 "$@"
