#!/bin/sh
# Runs the endings lab with the libvirt and QEMU of another Debian, in a folder that holds one:
#
#   tests/hosts.sh SUITE [ARGUMENT...]     trixie, sid, bullseye, …; what follows goes to the lab (tests/endings-lab.sh --help)
#   tests/hosts.sh SUITE -- COMMAND...     another command in there, such as a test's executable in target/debug/deps
#
# It needs root, debootstrap, and what `tests/setup.sh test` fetches for the Linux guest. The folder is made once (4 minutes,
# 1 GB) in target/hosts/SUITE, or where HOSTS says; it is Debian's newest of that day, and `rm -rf` makes room for a newer.
# The programs are those that were built here; where they do not load, as on Debian 11, they are built there, with the
# cargo of this machine.
set -eu
usage() { sed -n '2,10s/^# \{0,1\}//p' "$0"; }
case ${1:-} in
-h | --help) usage; exit 0 ;;
'' | -*) usage >&2; exit 2 ;;
esac
suite=$1
shift
cd "$(dirname "$0")/.."
top=$PWD
root=${HOSTS:-$top/target/hosts}/$suite

if [ ! -e "$root/complete" ]; then
    command -v debootstrap >/dev/null || { echo "hosts: there is no debootstrap: apt-get install debootstrap" >&2; exit 1; }
    # libpam-systemd is what libvirt-daemon-system takes for a whole systemd; without it both stay unconfigured.
    packages=ca-certificates,libvirt-daemon,libvirt-daemon-driver-qemu,libvirt-daemon-system,libvirt-clients
    packages=$packages,qemu-system-x86,qemu-utils,tini,procps,util-linux,mount,dbus,systemd,systemd-sysv,libpam-systemd
    packages=$packages,binutils,gcc,libc6-dev,pkg-config,libvirt-dev,python3
    # Where it fails it leaves things mounted.
    [ ! -e "$root" ] || { umount -R "$root/proc" "$root/sys" 2>/dev/null || :; rm -rf --one-file-system "$root"; }
    mkdir -p "$(dirname "$root")"
    debootstrap --variant=minbase --include="$packages" "$suite" "$root"
    rm -f "$root"/var/cache/apt/archives/*.deb
    touch "$root/complete"
fi

cargo build --locked --quiet --bins -p whydown -p whydown-endings-lab
target=$(cargo metadata --locked --format-version 1 --no-deps | sed -n 's/.*"target_directory":"\([^"]*\)".*/\1/p')

# chroot is not enough: libvirtd, in a mount namespace of its own, changes how mounts spread, which needs a real root. Its
# processes are this machine's, so that the kernel's log and its traces speak of them.
export ROOT="$root" TOP="$top" TARGET="$target" CARGO="${CARGO_HOME:-$HOME/.cargo}" RUSTUP="${RUSTUP_HOME:-$HOME/.rustup}"
exec unshare --mount --propagation private sh -eu -c '
    mount --bind "$ROOT" "$ROOT"
    mount -t proc proc "$ROOT/proc"
    mount --rbind /sys "$ROOT/sys"
    mount --rbind /dev "$ROOT/dev"
    mount -t tmpfs -o mode=755 run "$ROOT/run"
    # At the same places as here: the lab finds the table of causes and the Linux guest by them.
    for folder in "$TOP" "$TARGET" "$CARGO" "$RUSTUP"; do
        mkdir -p "$ROOT$folder"
        mount --bind "$folder" "$ROOT$folder"
    done
    mkdir -p "$ROOT/.machine"
    cd "$ROOT"
    pivot_root . .machine
    exec sh -eu -c "$0" hosts "$@"
' '
    umount -l /.machine
    cd "$TOP"
    PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:$CARGO/bin
    # In a folder of its own, which looks like one of cargo: builds in between change nothing, and what is built for another
    # C library stays apart.
    mkdir -p /target/debug/.fingerprint
    ln -sfn "$TARGET/lab-linux" /target/lab-linux
    if ldd "$TARGET/debug/whydownd" 2>&1 | grep -q "not found"; then
        echo "hosts: what was built on this machine does not load there, so it is built there" >&2
        CARGO_HOME=$CARGO RUSTUP_HOME=$RUSTUP CARGO_TARGET_DIR=/target \
            cargo build --locked --quiet --bins -p whydown -p whydown-endings-lab
    else
        (cd "$TARGET/debug" && cp whydownd whydown endings-lab /target/debug/)
    fi
    printf "hosts: libvirt %s, %s\n" "$(libvirtd --version | sed "s/.* //")" \
        "$(qemu-system-x86_64 --version | sed -n 1p)"
    if [ "${1:-}" = -- ]; then
        shift
        exec tini -s -- "$@"
    fi
    exec tini -s -- /target/debug/endings-lab "$@"
' "$@"
