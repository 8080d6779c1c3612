# Runs in the virtual machine: does what the second disk asks for. What it prints is the story's log.
# A story has $boot, the number of this boot, and the functions below; it returns where going on makes no sense.

. /story/this
export HOME=/tmp KUBECONFIG=/etc/cluster/kubeconfig.yaml CLUSTER_BINARY=/story/cluster
PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin
bad=0

# check WHAT COMMAND...: says whether the command succeeds, and what it printed if not.
check() {
    what=$1
    shift
    if "$@" >/tmp/said 2>&1; then
        echo "PASS $what"
    else
        bad=$((bad + 1))
        echo "FAIL $what: $*"
        uniq /tmp/said | tail -n 15 | sed 's/^/     | /'
        return 1
    fi
}

# until_true SECONDS COMMAND...: tries again until it succeeds.
until_true() {
    limit=$(($(date +%s) + $1))
    shift
    until "$@"; do
        [ "$(date +%s)" -lt "$limit" ] || return 1
        sleep 0.5
    done
}

# same WHAT EXPECTED FOUND
same() {
    if [ "$2" = "$3" ]; then
        echo "PASS $1"
    else
        bad=$((bad + 1))
        printf 'FAIL %s: expected\n%s\nfound\n%s\n' "$1" "$2" "$3"
        return 1
    fi
}

install_cluster() { sh /story/packaging/install.sh; }
main_pid() { systemctl show -P MainPID cluster; }
node_is_ready() { kubectl wait node --all --for=condition=Ready --timeout=60s; }

# The process ids of the containers whose command line has TEXT, on one line.
pids_of() { pgrep -f "^$1" | sort -n | paste -sd' '; }

# What an installation can leave behind: files, mounts, links, routes, packet-filter rules, cgroups, processes, units.
belongings() {
    find / -xdev \( -path /tmp -o -path /var/log/journal -o -path /var/lib/systemd -o -path /var/tmp \) -prune -o -print
    find /run /dev/shm \( -path /run/systemd -o -path /run/udev -o -path /run/log \) -prune -o -print
    cut -d' ' -f5 /proc/self/mountinfo
    ip -o link | cut -d: -f2
    ip route show table all
    ip rule
    nft list ruleset
    ls /run/netns 2>/dev/null
    find /sys/fs/cgroup -type d ! -path '*/systemd-*' ! -path '*/user.slice/*'
    ps --ppid 2 -p 2 --deselect -o args= | grep -v -e '^ps ' -e '^sh ' -e '^find' -e udev-worker -e systemd-timedated -e systemd-hostnamed
    systemctl list-unit-files --no-legend | cut -d' ' -f1
}

# Looking changes some things at the first time, such as what systemd mounts on demand.
remember_belongings() { belongings >/dev/null 2>&1; belongings | sort -u >/tmp/belongings; }

# Fails, and says which, if something has come since then.
nothing_is_left() {
    belongings | sort -u >/tmp/belongings.now
    comm -13 /tmp/belongings /tmp/belongings.now >/tmp/left
    cat /tmp/left
    [ ! -s /tmp/left ]
}

until_true 60 systemctl is-active -q multi-user.target
echo "boot $boot of $story: Linux $(uname -r), $(systemctl --version | head -n 1)"
. "/story/stories/$story.sh"
if [ $bad -gt 0 ]; then
    echo "---- the end of cluster's log"
    journalctl -q --no-hostname -o short-monotonic -u cluster -u cluster-agent -n 80
    tail -n 40 /var/log/cluster.log 2>/dev/null
    echo "----"
fi
echo "the story ends with $bad failures"
sync
systemctl poweroff -ff
