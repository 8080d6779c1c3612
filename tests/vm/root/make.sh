#!/bin/sh
# Makes what the virtual machine boots, in a directory: root.img, vmlinuz, initrd. See tests/vm.sh.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
cd "$1"

packages=systemd,systemd-sysv,udev,dbus,kmod,iproute2,nftables,procps,util-linux,curl,ca-certificates,busybox-static
packages=$packages,linux-image-cloud-amd64

rm -rf root root.img kubectl
# In a mount namespace, so that nothing stays mounted whatever happens.
debian() { unshare -m mmdebstrap --quiet --mode=root --aptopt='APT::Install-Recommends "false"' "$@"; }
debian --variant=minbase --include="$packages" bookworm root
# bookworm's own is of 2021.
debian --variant=extract --include=kubernetes-client trixie kubectl
cp kubectl/usr/bin/kubectl root/usr/local/bin/
rm -rf kubectl
cp root/boot/vmlinuz-* vmlinuz
cp root/boot/initrd.img-* initrd
cp "$here/story.service" root/etc/systemd/system/
cp "$here/ether.network" root/etc/systemd/network/
echo shed >root/etc/hostname
echo "127.0.0.1 localhost shed" >root/etc/hosts
echo "/dev/vda / ext4 defaults 0 1" >root/etc/fstab
mkdir root/story
chroot root systemctl -q enable story.service systemd-networkd.service
chroot root systemctl -q mask serial-getty@ttyS0.service getty@tty1.service apt-daily.timer apt-daily-upgrade.timer \
    dpkg-db-backup.timer e2scrub_all.timer fstrim.timer
truncate -s 3G root.img
mkfs.ext4 -q -F -d root root.img
rm -rf root
