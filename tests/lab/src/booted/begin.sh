# The first process of the host, before it has its own control group and mounts.
set -e
folder=$1 cell=$2 become=$3
shift 3
# /proc is still that of the machine: this is our number there.
read -r pid rest </proc/self/stat
echo "$pid" >"$folder/main.pid"
echo 0 >"$cell/cgroup.procs"
exec unshare --cgroup --mount --propagation private sh -c "$become" lab-become "$folder" "$@"
