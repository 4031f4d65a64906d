# In a mount namespace of its own, outside the host: makes its control group, starts its first process and clears away
# when that has ended. It is not stopped by what stops the test, as somebody must clear away.
set -e
trap '' INT TERM HUP
folder=$1 begin=$2 become=$3 packages=$4 whydownd=$5 whydown=$6
mkdir -p "$folder/cgroup"
mount -t cgroup2 lab-cgroup "$folder/cgroup"
cell=$folder/cgroup/lab-${folder##*/}
mkdir -p "$cell"
# libvirt takes a tree without any controller for none at all, and then asks systemd for no scopes. Where version 1 holds
# the usual ones, one that it does not hold (hugetlb) will do.
switched=
for controller in $(cat "$folder/cgroup/cgroup.controllers"); do
    grep -qw "$controller" "$folder/cgroup/cgroup.subtree_control" ||
        { echo "+$controller" >"$folder/cgroup/cgroup.subtree_control" && switched="$switched $controller"; } || :
    echo "+$controller" >"$cell/cgroup.subtree_control" || :
done
host=$cell/host
mkdir -p "$host"
status=0
unshare --pid --fork --kill-child=KILL --uts --ipc --net \
    sh -c "$begin" lab-begin "$folder" "$host" "$become" "$packages" "$whydownd" "$whydown" || status=$?
# Its processes have ended with its first one; the kernel needs a moment to forget them.
for try in 1 2 3 4 5 6 7 8 9 10; do
    find "$cell" -depth -type d -exec rmdir {} + 2>/dev/null && break
    sleep 0.1
done
# Refused while another such host needs it.
for controller in $switched; do
    echo "-$controller" 2>/dev/null >"$folder/cgroup/cgroup.subtree_control" || :
done
umount "$folder/cgroup" || umount -l "$folder/cgroup" || :
exit "$status"
