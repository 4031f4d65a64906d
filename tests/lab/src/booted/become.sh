# The first process of the host, with its own control groups and mounts: builds the file system and becomes systemd.
set -e
folder=$1 packages=$2 whydownd=$3 whydown=$4
root=$folder/root

mount --bind "$root" "$root"
cd "$root"
# What the machine has, what Debian's packages would add to it, and whydown's own files.
mount -t overlay -o "ro,lowerdir=$folder/usr:$packages/usr:/usr" lab-usr usr
mount --bind "$whydownd" usr/bin/whydownd
mount --bind "$whydown" usr/bin/whydown

mount -t proc proc proc
# The machine's own settings are not for this host to change.
mount --bind proc/sys proc/sys
mount -o remount,bind,ro proc/sys
mount --bind "$folder/boot-id" proc/sys/kernel/random/boot_id
mount -t sysfs -o ro sysfs sys
mount -t cgroup2 cgroup2 sys/fs/cgroup
mount -t tracefs tracefs sys/kernel/tracing

mount -t tmpfs -o mode=755 lab-dev dev
mkdir dev/pts dev/shm
mknod -m 666 dev/null c 1 3
mknod -m 666 dev/zero c 1 5
mknod -m 666 dev/full c 1 7
mknod -m 666 dev/random c 1 8
mknod -m 666 dev/urandom c 1 9
mknod -m 644 dev/kmsg c 1 11
mknod -m 666 dev/tty c 5 0
ln -s /proc/self/fd dev/fd
ln -s fd/0 dev/stdin
ln -s fd/1 dev/stdout
ln -s fd/2 dev/stderr
ln -s pts/ptmx dev/ptmx
mount -t devpts -o newinstance,mode=620,ptmxmode=666 devpts dev/pts
mount -t tmpfs lab-shm dev/shm
mount -t tmpfs -o mode=755 lab-run run
cp "$folder/boot-id" run/boot-id
# The files of the guests have the same names inside and outside.
mkdir -p ".$folder/guests"
mount --bind "$folder/guests" ".$folder/guests"

mkdir -p .machine
pivot_root . .machine
umount -l .machine
# Not for a guest on somebody's machine: its clock, its kernel's modules, its raw devices, its reboot.
exec setpriv --bounding-set -sys_time,-sys_module,-sys_rawio,-sys_boot \
    env -i container=whydown-lab PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin LANG=C.UTF-8 \
    /lib/systemd/systemd --system --log-target=journal --show-status=false "systemd.setenv=LAB=$folder/"
