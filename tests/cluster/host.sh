#!/usr/bin/env bash
# The first process of a host, in namespaces of its own (network, processes, mounts, names, shared memory):
#   host.sh NAME DISK SHARED PYTHON LENT HIDDEN...
# DISK keeps what the host writes over the files of this machine, SHARED is the folder that all hosts see, PYTHON the
# folder of the interpreter, LENT an environment that the host may read, HIDDEN folders that it does not see.
set -euo pipefail
name=$1 disk=$2 shared=$3 python=$4 lent=$5
shift 5

mount --make-rprivate /
mkdir -p "$disk/upper" "$disk/scratch" "$disk/root"
mount -t overlay -o "lowerdir=/,upperdir=$disk/upper,workdir=$disk/scratch" "$name" "$disk/root"
cd "$disk/root"
mount -t proc proc proc
mount --rbind /sys sys
mount --rbind /dev dev
mount -t tmpfs -o size=2g shm dev/shm
mount -t tmpfs -o size=2g,mode=1777 tmp tmp
mount -t tmpfs run run
mkdir -p run/sshd mnt/shared mnt/lent .before
mount --bind "$shared" mnt/shared
mount --bind "$lent" mnt/lent
mount -o remount,bind,ro mnt/lent
for hidden in "$@"; do
	mkdir -p "${hidden#/}"
	mount -t tmpfs -o size=1m hidden "${hidden#/}"
done
hostname "$name"
[ ! -e /etc/resolv.conf ] || cp -L /etc/resolv.conf run/resolv.conf
if [ ! -e etc/lab ]; then # the first start: nothing of whoever started it
	rm -rf root/.ssh root/.ray root/.bashrc root/.config root/.cache
	mkdir -p -m 700 etc/lab root/.ssh root/.config/pip
	printf '127.0.0.1 localhost\n127.0.1.1 %s\n%s\n' "$name" "$(cat "$shared/hosts")" >etc/hosts # as Debian's installer does
	printf '[global]\nno-index = true\nfind-links = /mnt/shared/wheels\nno-compile = no\n' >root/.config/pip/pip.conf
	printf 'export PATH=%s:$PATH\n' "$python" >etc/profile.d/python.sh
	cp "$shared/key.pub" root/.ssh/authorized_keys
	ssh-keygen -q -t ed25519 -N '' -f etc/lab/key
fi
pivot_root . .before
cd /
umount -l /.before
exec env -i PATH="$python:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin" /usr/sbin/sshd -D -e -f /dev/null \
	-h /etc/lab/key -o UsePAM=no -o StrictModes=no -o PidFile=none -o PasswordAuthentication=no \
	-o MaxStartups=100 -o MaxSessions=100 -o UseDNS=no
