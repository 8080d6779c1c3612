#!/bin/sh
# What network namespaces cannot show: the installed executable on a Debian with systemd and cgroup v2, in a virtual
# machine. Reboots and power cuts are real. Run as root on Debian (amd64); what is missing is installed.
#
#   sh tests/vm.sh             all stories, tests/vm/stories/*.sh
#   sh tests/vm.sh STORY...    these
#
# CLUSTER_BINARY=FILE   the executable to try; the release build of tests/run.sh otherwise
#
# The machine has no way out: qemu's user network is restricted to itself. Disks and logs are in target/vm.
set -eu
cd "$(dirname "$0")/.."
[ "$(id -u)" = 0 ] || { echo "tests/vm.sh: run this as root: a root file system is made" >&2; exit 1; }

story_seconds_max=600
boots_max=3
target=${CARGO_TARGET_DIR:-target}
executable=${CLUSTER_BINARY:-$target/x86_64-unknown-linux-gnu/release/cluster}
[ -x "$executable" ] || { echo "tests/vm.sh: there is no $executable; build it, or set CLUSTER_BINARY" >&2; exit 1; }
mkdir -p "$target/vm"
vm=$(cd "$target/vm" && pwd)
qemu=

# Packages with services must not start them on this machine.
install_missing() {
    missing=
    for need in qemu-system-x86_64:qemu-system-x86 qemu-img:qemu-utils mmdebstrap:mmdebstrap mkfs.ext4:e2fsprogs; do
        command -v "${need%:*}" >/dev/null || missing="$missing ${need#*:}"
    done
    [ -x /bin/busybox ] && /bin/busybox true || missing="$missing busybox-static"
    [ -n "$missing" ] || return 0
    if [ ! -e /usr/sbin/policy-rc.d ]; then
        printf '#!/bin/sh\nexit 101\n' >/usr/sbin/policy-rc.d
        chmod +x /usr/sbin/policy-rc.d
        policy=made
    fi
    apt-get update -qq
    # shellcheck disable=SC2086
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing >/dev/null
    if [ "${policy:-}" = made ]; then rm /usr/sbin/policy-rc.d; fi
}

# The disk that every story begins with, and the kernel that boots it; made again when what it is made of changes.
make_root() {
    mark=$(cat tests/vm/root/* | cksum)
    [ "$(cat "$vm/root.mark" 2>/dev/null)" = "$mark" ] && return
    echo "making the machine's disk; this takes some minutes"
    rm -f "$vm/root.mark"
    sh tests/vm/root/make.sh "$vm"
    echo "$mark" >"$vm/root.mark"
}

# busybox as an OCI layout in a tar file: make_image NAME FILE
make_image() {
    image=$vm/image
    rm -rf "$image"
    mkdir -p "$image/root/bin" "$image/root/etc" "$image/root/tmp" "$image/layout/blobs/sha256"
    cp /bin/busybox "$image/root/bin/busybox"
    for applet in $(/bin/busybox --list); do
        [ "$applet" = busybox ] || ln -s busybox "$image/root/bin/$applet"
    done
    chmod 1777 "$image/root/tmp"
    echo 'root:x:0:0::/:/bin/sh' >"$image/root/etc/passwd"
    tar -C "$image/root" --numeric-owner --owner=0 --group=0 -cf "$image/blob" .
    layer=$(keep_blob)
    printf '{"architecture":"amd64","os":"linux","config":{"Cmd":["sh"],"Env":["PATH=/bin"]},"rootfs":{"type":"layers","diff_ids":["%s"]}}' \
        "${layer% *}" >"$image/blob"
    config=$(keep_blob)
    printf '{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"%s","size":%s},"layers":[{"mediaType":"application/vnd.oci.image.layer.v1.tar","digest":"%s","size":%s}]}' \
        "${config% *}" "${config#* }" "${layer% *}" "${layer#* }" >"$image/blob"
    manifest=$(keep_blob)
    printf '{"schemaVersion":2,"manifests":[{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"%s","size":%s,"annotations":{"io.containerd.image.name":"%s"}}]}' \
        "${manifest% *}" "${manifest#* }" "$1" >"$image/layout/index.json"
    printf '{"imageLayoutVersion":"1.0.0"}' >"$image/layout/oci-layout"
    tar -C "$image/layout" -cf "$2" .
    rm -rf "$image"
}

# Moves the file `blob` to the layout; its digest and size.
keep_blob() {
    digest=$(sha256sum "$image/blob" | cut -d' ' -f1)
    size=$(stat -c %s "$image/blob")
    mv "$image/blob" "$image/layout/blobs/sha256/$digest"
    echo "sha256:$digest $size"
}

# The second disk: what is tried, and what this boot is to do.
make_story_disk() {
    rm -rf "$vm/story" "$vm/$story.img"
    mkdir "$vm/story"
    cp -r packaging systemd tests/vm/stories tests/vm/inside.sh "$vm/busybox.tar" "$vm/story/"
    cp "$executable" "$vm/story/cluster"
    cp "$log" "$vm/story/log"
    printf 'story=%s\nboot=%s\n' "$story" "$boot" >"$vm/story/this"
    truncate -s "$(($(du -sm "$vm/story" | cut -f1) + 32))M" "$vm/$story.img"
    mkfs.ext4 -q -F -d "$vm/story" "$vm/$story.img"
    rm -rf "$vm/story"
}

# Boots the story's disk, and waits until the machine is off or the story asks for a power cut.
boot() {
    make_story_disk
    qemu-system-x86_64 -accel tcg,thread=multi -cpu max -smp 2 -m 2048 -display none -no-reboot \
        -kernel "$vm/vmlinuz" -initrd "$vm/initrd" -append "root=/dev/vda rw console=ttyS0 quiet" \
        -drive "file=$vm/$story.qcow2,if=virtio" -drive "file=$vm/$story.img,if=virtio,format=raw,readonly=on" \
        -netdev user,id=net,restrict=on -device virtio-net-pci,netdev=net,romfile= \
        -chardev "file,id=console,path=$vm/$story.console,append=on" -serial chardev:console \
        -chardev "file,id=story,path=$log,append=on" -serial chardev:story &
    qemu=$!
    while kill -0 "$qemu" 2>/dev/null; do
        if [ "$(date +%s)" -ge "$end" ]; then
            echo "FAIL $story: not over after $story_seconds_max s" >>"$log"
            break
        fi
        [ "$(grep -cx "cut the power" "$log")" -gt "$cuts" ] && break
        sleep 0.2
    done
    cuts=$(grep -cx "cut the power" "$log") || true
    stop
}

stop() {
    [ -n "$qemu" ] || return 0
    kill -KILL "$qemu" 2>/dev/null || true
    wait "$qemu" 2>/dev/null || true
    qemu=
}

# Runs one story, in as many boots as it takes; true if all went well.
tell() {
    story=$1
    log=$vm/$story.log
    : >"$log"
    : >"$vm/$story.console"
    rm -f "$vm/$story.qcow2"
    qemu-img create -q -f qcow2 -b "$vm/root.img" -F raw "$vm/$story.qcow2"
    end=$(($(date +%s) + story_seconds_max))
    cuts=0
    boot=1
    tail -n +1 -f "$log" &
    tail=$!
    until grep -q -e "^the story ends" -e "^FAIL $story: not over" "$log" || [ $boot -gt $boots_max ]; do
        boot
        boot=$((boot + 1))
    done
    sleep 1
    kill $tail
    wait $tail 2>/dev/null || true
    rm -f "$vm/$story.qcow2" "$vm/$story.img"
    grep -q "^the story ends" "$log" && ! grep -q "^FAIL" "$log"
}

trap 'stop; [ -z "${tail:-}" ] || kill "$tail" 2>/dev/null || true' EXIT
trap 'exit 130' INT TERM
install_missing
make_root
make_image docker.io/library/busybox:1 "$vm/busybox.tar"
[ $# -gt 0 ] || set -- tests/vm/stories/*.sh
failed=
for name; do
    name=$(basename "$name" .sh)
    [ -f "tests/vm/stories/$name.sh" ] || { echo "tests/vm.sh: there is no story $name" >&2; exit 2; }
    echo "==== $name"
    tell "$name" || failed="$failed $name"
done
[ -z "$failed" ] || { echo "FAILED:$failed; the logs are in $vm"; exit 1; }
echo "all stories passed"
