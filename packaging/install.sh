#!/bin/sh
# Installs cluster on this machine and starts it.
#
#   sh install.sh                                      a control plane and a node
#   CLUSTER_SERVER=https://10.0.0.1:6443 CLUSTER_TOKEN=K10… sh install.sh
#                                                      one more node, which joins that server
#
# CLUSTER_BINARY=FILE   installs this executable; without it one is built from the checkout around this script
# CLUSTER_ARGS="..."    further flags for `cluster server` or `cluster agent`, separated by spaces
#
# Run again it changes nothing, or brings the installation up to date: server, token and flags are remembered, and only
# what is to change has to be said again. `cluster uninstall` removes everything.
set -eu
umask 022

bin=/usr/local/bin/cluster
unit_dir=/etc/systemd/system
environment=/etc/cluster/environment
log=/var/log/cluster.log
pid_file=/run/cluster/cluster.pid
stop_seconds_max=60
ready_seconds_max=120
lifeless_max=10
changed=no
staged=
started=none
trap 'rm -f "$staged"' EXIT
here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)

say() { printf '%s\n' "$*"; }
fail() { printf 'install: %s\n' "$*" >&2; exit 1; }

# True where PID 1 is systemd, so that a service can be left to it.
has_systemd() { [ -d /run/systemd/system ]; }

# What the earlier installation was told: remembered CLUSTER_ARGS
remembered() {
    sed -n "s/^$1=//p" "$environment" 2>/dev/null | sed 's/^"\(.*\)"$/\1/; s/\\\(["$`\\]\)/\1/g'
}

# A line of the environment file, in the quotes that systemd knows too; nothing for a setting that is empty.
setting() {
    [ -z "$2" ] || printf '%s="%s"\n' "$1" "$(printf %s "$2" | tr '\n' ' ' | sed 's/["$`\\]/\\&/g')"
}

face_for() { if [ -n "$1" ]; then say agent; else say server; fi; }

# The executable to install.
binary() {
    if [ -n "${CLUSTER_BINARY:-}" ]; then
        [ -f "$CLUSTER_BINARY" ] || fail "CLUSTER_BINARY=$CLUSTER_BINARY is not a file"
        say "$CLUSTER_BINARY"
        return
    fi
    [ -f "$here/../Cargo.toml" ] || fail "set CLUSTER_BINARY to the executable to install, or run this in a checkout"
    cd "$here/.."
    # Under sudo, with the toolchain of the user whose checkout it is.
    home=$(getent passwd "${SUDO_USER:-root}" | cut -d: -f6)
    PATH=$PATH:${home:-/root}/.cargo/bin
    command -v cargo >/dev/null || fail "cargo is missing: install Rust (https://rustup.rs), or set CLUSTER_BINARY"
    target=$(as_user rustc -vV | sed -n 's/^host: //p')
    say "building cluster; this takes some minutes" >&2
    as_user RUSTFLAGS="-C target-feature=+crt-static" cargo build --release --target "$target" >&2 ||
        fail "the build failed; its messages are above"
    dir=$(as_user cargo metadata --format-version 1 --no-deps | sed 's/.*"target_directory":"\([^"]*\)".*/\1/')
    say "$dir/$target/release/cluster"
}

as_user() {
    if [ -n "${SUDO_USER:-}" ]; then sudo -Hu "$SUDO_USER" env PATH="$PATH" "$@"; else env "$@"; fi
}

# The units lie beside this script in a checkout and in a release.
unit_file() {
    for dir in "$here/../systemd" "$here/systemd" "$here"; do
        if [ -f "$dir/$1" ]; then
            say "$dir/$1"
            return
        fi
    done
    fail "$1 is missing beside this script"
}

# Puts a file in its place and notes the change, unless the same is there already: put FILE PLACE MODE
put() {
    if [ -f "$2" ] && [ "$(cksum <"$1")" = "$(cksum <"$2")" ]; then return; fi
    # Beside it and then in its place: what runs is not written to, and what is there is whole.
    mkdir -p "$(dirname "$2")"
    staged=$2.new
    cp "$1" "$staged"
    chmod "$3" "$staged"
    if [ "$3" = 755 ] && ! "$staged" --version >/dev/null; then
        fail "$1 does not run on this machine: is it for $(uname -m)?"
    fi
    mv "$staged" "$2"
    changed=yes
}

# Lines of the environment file that are not ours are the administrator's and stay.
put_environment() {
    text=$(mktemp)
    {
        sed '/^CLUSTER_SERVER=/d; /^CLUSTER_TOKEN=/d; /^CLUSTER_ARGS=/d' "$environment" 2>/dev/null ||
            say "# Environment of cluster's service; install.sh keeps here what it was told."
        setting CLUSTER_SERVER "$CLUSTER_SERVER"
        setting CLUSTER_TOKEN "$CLUSTER_TOKEN"
        setting CLUSTER_ARGS "$CLUSTER_ARGS"
    } >"$text"
    put "$text" "$environment" 600
    rm "$text"
}

start_with_systemd() {
    systemctl daemon-reload
    systemctl enable -q "$unit"
    if [ $changed = yes ]; then systemctl restart "$unit"; else systemctl start "$unit"; fi
}

# True if a server or agent that was started without systemd runs, be its executable replaced or not.
runs() {
    pid=$(cat "$pid_file" 2>/dev/null) || return 1
    case $(readlink "/proc/$pid/exe" 2>/dev/null) in
        "$bin" | "$bin (deleted)") return 0 ;;
        *) return 1 ;;
    esac
}

start_plain() {
    if runs && [ $changed = no ]; then return; fi
    if runs; then
        kill "$pid"
        wait_for $stop_seconds_max ended || fail "process $pid does not stop; end it with \`kill -9 $pid\` and run this again"
    fi
    say "systemd does not run here: cluster is started as a plain background process; after a reboot run this again"
    say "  log: $log    process id: $pid_file"
    # An empty variable is not the same as none.
    if [ -n "$CLUSTER_SERVER" ]; then export CLUSTER_SERVER; else unset CLUSTER_SERVER; fi
    if [ -n "$CLUSTER_TOKEN" ]; then export CLUSTER_TOKEN; else unset CLUSTER_TOKEN; fi
    # shellcheck disable=SC2086
    setsid "$bin" "$face" $CLUSTER_ARGS </dev/null >>"$log" 2>&1 &
    started=$!
}

# Tries a command twice a second until it succeeds: wait_for SECONDS COMMAND
wait_for() {
    tries=$(($1 * 2))
    until "$2"; do
        tries=$((tries - 1))
        [ $tries -gt 0 ] || return 1
        sleep 0.5
    done
}

ended() { ! runs; }

wait_until_ready() {
    say "waiting until the node is Ready"
    lifeless=0
    restarts_before=$(restarts)
    wait_for $ready_seconds_max ready_or_dead || give_up "the node is not Ready after $ready_seconds_max seconds"
    [ $lifeless -le $lifeless_max ] || give_up "cluster has ended"
}

ready() { "$bin" status >/dev/null 2>&1; }

# Dead is what is not seen alive for some seconds.
ready_or_dead() {
    if ready; then return 0; fi
    if alive; then lifeless=0; else lifeless=$((lifeless + 1)); fi
    [ $lifeless -gt $lifeless_max ]
}

# What systemd starts again and again is not alive, though a process is often seen.
alive() {
    if has_systemd; then
        ! systemctl is-failed -q "$unit" && [ $(($(restarts) - restarts_before)) -lt 2 ]
    else
        # A slow machine takes its time until the process id is written.
        runs || readlink "/proc/$started/exe" >/dev/null
    fi
}

# How often systemd had to start it again.
restarts() {
    if has_systemd; then systemctl show --value -p NRestarts "$unit"; else say 0; fi
}

give_up() {
    if has_systemd; then
        show="journalctl -u ${unit%.service}"
        journalctl -q -u "$unit" -n 10 -o cat --no-pager >&2
    else
        show="tail $log"
        tail -n 10 "$log" >&2
    fi
    fail "$1; its log says why: $show"
}

# The address that others reach this machine at, as far as can be told.
address() {
    found=$(ip -4 route get 192.0.2.1 2>/dev/null | sed -n 's/.* src \([^ ]*\).*/\1/p')
    say "${found:-ADDRESS-OF-THIS-MACHINE}"
}

[ "$(id -u)" = 0 ] || fail "run this as root, with sudo"
before=$(remembered CLUSTER_SERVER)
: "${CLUSTER_SERVER=$before}" "${CLUSTER_TOKEN=$(remembered CLUSTER_TOKEN)}" "${CLUSTER_ARGS=$(remembered CLUSTER_ARGS)}"
face=$(face_for "$CLUSTER_SERVER")
if [ -e "$bin" ] && [ -e "$environment" ] && [ "$face" != "$(face_for "$before")" ]; then
    fail "this machine is a $(face_for "$before") already; \`cluster uninstall\` comes before it can be anything else"
fi
if [ "$face" = agent ] && [ -z "$CLUSTER_TOKEN" ]; then
    fail "CLUSTER_TOKEN is missing: \`cluster token\` on the server prints it"
fi
unit=cluster.service
[ "$face" = server ] || unit=cluster-agent.service

source=$(binary)
if has_systemd; then unit_source=$(unit_file "$unit"); fi
put "$source" "$bin" 755
put_environment
if has_systemd; then
    put "$unit_source" "$unit_dir/$unit" 644
    start_with_systemd
else
    start_plain
fi
wait_until_ready

if [ "$face" = agent ]; then
    say "This machine is a node now: \`kubectl get nodes\` on the server shows it."
else
    cat <<END
The cluster is ready.

  export KUBECONFIG=/etc/cluster/kubeconfig.yaml
  kubectl get nodes

To add a machine, run this there:
  CLUSTER_SERVER=https://$(address):6443 CLUSTER_TOKEN=$("$bin" token) sh install.sh

To remove everything: cluster uninstall
END
fi
