#!/bin/sh
# Installs cluster on this machine and starts it.
#
#   sh install.sh                                      a control plane and a node
#   CLUSTER_SERVER=https://10.0.0.1:6443 CLUSTER_TOKEN=K10… sh install.sh
#                                                      one more node, which joins that server
#
# CLUSTER_BINARY=FILE   installs this executable; without it one is built from the checkout around this script
# CLUSTER_ARGS="..."    further flags for `cluster server` or `cluster agent`
#
# Run again it changes nothing, or brings the installation up to date. `cluster uninstall` removes everything.
set -eu

bin=/usr/local/bin/cluster
unit_dir=/etc/systemd/system
log=/var/log/cluster.log
here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
face=server
[ -n "${CLUSTER_SERVER:-}" ] && face=agent
unit=cluster.service
[ "$face" = agent ] && unit=cluster-agent.service

say() { printf '%s\n' "$*"; }
fail() { printf 'install: %s\n' "$*" >&2; exit 1; }

# True where PID 1 is systemd, so that a service can be left to it.
has_systemd() { [ -d /run/systemd/system ]; }

binary() {
    if [ -n "${CLUSTER_BINARY:-}" ]; then
        [ -f "$CLUSTER_BINARY" ] || fail "CLUSTER_BINARY=$CLUSTER_BINARY is not a file"
        say "$CLUSTER_BINARY"
        return
    fi
    [ -f "$here/../Cargo.toml" ] || fail "set CLUSTER_BINARY to the executable to install, or run this in a checkout"
    command -v cargo >/dev/null || fail "cargo is missing: install Rust (https://rustup.rs), or set CLUSTER_BINARY"
    target="$(uname -m)-unknown-linux-gnu"
    say "building cluster; this takes some minutes" >&2
    (cd "$here/.." && RUSTFLAGS="-C target-feature=+crt-static" cargo build --release --target "$target" >&2) ||
        fail "the build failed; its messages are above"
    dir=$(cd "$here/.." && cargo metadata --format-version 1 --no-deps | sed 's/.*"target_directory":"\([^"]*\)".*/\1/')
    say "$dir/$target/release/cluster"
}

# Copies a file unless it is there already; true if it was copied.
put() {
    cmp -s "$1" "$2" 2>/dev/null && return 1
    mkdir -p "$(dirname "$2")"
    # Beside it and then in its place: the one that runs is not written to.
    cp "$1" "$2.new"
    chmod "$3" "$2.new"
    mv "$2.new" "$2"
}

start_with_systemd() {
    changed=$1
    environment=$(settings)
    file=/etc/default/${unit%.service}
    if [ -n "$environment" ] && [ "$environment" != "$(cat "$file" 2>/dev/null || true)" ]; then
        (umask 077 && printf '%s\n' "$environment" >"$file")
        changed=yes
    fi
    for name in cluster.service cluster-agent.service; do
        put "$(unit_file "$name")" "$unit_dir/$name" 644 && changed=yes
    done
    systemctl daemon-reload
    systemctl enable -q "$unit"
    if [ "$changed" = yes ]; then systemctl restart "$unit"; else systemctl start "$unit"; fi
}

# The units lie beside this script in a checkout and in a release.
unit_file() {
    for dir in "$here/../systemd" "$here/systemd" "$here"; do
        [ -f "$dir/$1" ] && { say "$dir/$1"; return; }
    done
    fail "$1 is missing beside this script"
}

settings() {
    [ -n "${CLUSTER_SERVER:-}" ] && say "CLUSTER_SERVER=$CLUSTER_SERVER"
    [ -n "${CLUSTER_TOKEN:-}" ] && say "CLUSTER_TOKEN=$CLUSTER_TOKEN"
    [ -n "${CLUSTER_ARGS:-}" ] && say "CLUSTER_ARGS=$CLUSTER_ARGS"
    return 0
}

runs() {
    pid=$(cat /run/cluster/cluster.pid 2>/dev/null || true)
    [ -n "$pid" ] && [ -d "/proc/$pid" ] && [ "$(readlink "/proc/$pid/exe" 2>/dev/null)" = "$bin" ]
}

start_plain() {
    if runs && [ "$1" = no ]; then
        return
    fi
    if runs; then
        kill "$(cat /run/cluster/cluster.pid)"
        while runs; do sleep 0.2; done
    fi
    say "systemd does not run here: cluster is started as a plain background process"
    say "  log: $log    process id: /run/cluster/cluster.pid"
    # shellcheck disable=SC2086
    setsid "$bin" "$face" --log "$log" ${CLUSTER_ARGS:-} </dev/null >/dev/null 2>>"$log" &
}

wait_until_ready() {
    say "waiting until the node is Ready"
    tries=0
    until ready; do
        tries=$((tries + 1))
        if [ $tries -gt 240 ]; then
            fail "the node is not Ready after two minutes; the log says why: $(log_command)"
        fi
        if [ $tries -gt 4 ] && ! alive; then
            fail "cluster has ended; the log says why: $(log_command)"
        fi
        sleep 0.5
    done
}

alive() {
    if has_systemd; then systemctl is-active -q "$unit"; else runs; fi
}

ready() { "$bin" status >/dev/null 2>&1; }

log_command() {
    if has_systemd; then say "journalctl -u $unit"; else say "tail $log"; fi
}

[ "$(id -u)" = 0 ] || fail "run this as root: sudo sh $0"
source=$(binary)
changed=no
put "$source" "$bin" 755 && changed=yes
if has_systemd; then start_with_systemd "$changed"; else start_plain "$changed"; fi
wait_until_ready

if [ "$face" = agent ]; then
    say "This machine is a node now: \`kubectl get nodes\` on the server shows it."
else
    cat <<END
The cluster is ready.

  export KUBECONFIG=/etc/cluster/kubeconfig.yaml
  kubectl get nodes

To add a machine, run this there:
  CLUSTER_SERVER=https://$(hostname -I 2>/dev/null | cut -d' ' -f1):6443 CLUSTER_TOKEN=$("$bin" token) sh install.sh

To remove everything: cluster uninstall
END
fi
