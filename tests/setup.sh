#!/bin/sh
# Installs what whydown needs from Debian 12, and nothing that is there already.
#
#   tests/setup.sh build    to compile
#   tests/setup.sh run      to run the daemon with real machines on this host
#   tests/setup.sh try      both, and what the demonstration uses besides
#   tests/setup.sh test     both, and what the tests use besides
#
# With -n before the mode it only says what it would do. It starts no service and asks no questions.
# It does not install Rust; it says how to get it.
set -eu

say() { printf 'setup: %s\n' "$*"; }
fail() { printf 'setup: %s\n' "$*" >&2; exit 1; }
usage() { sed -n '2,10s/^# \{0,1\}//p' "$0"; }

dry=no
if [ "${1:-}" = -n ]; then
    dry=yes
    shift
fi
case "${1:-}" in
build | run | try | test) mode=$1 ;;
-h | --help) usage; exit 0 ;;
*) usage >&2; exit 2 ;;
esac

# System programs are not on every user's path.
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin
missing=

# need PACKAGE [PROGRAM]: a package that must be installed, or a program that may also come from elsewhere.
need() {
    if [ -n "${2:-}" ]; then
        command -v "$2" >/dev/null 2>&1 && return 0
    elif command -v dpkg-query >/dev/null 2>&1; then
        [ "$(dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null)" = installed ] && return 0
    fi
    missing="$missing $1"
}

needs_build() {
    need gcc cc                     # the ledger's SQLite is compiled in
    need libc6-dev
    need pkg-config pkg-config
    need libvirt-dev
}
needs_run() {
    need libvirt0
    need libvirt-daemon-driver-qemu # qemu:///embed needs no libvirtd,
    need libvirt-daemon             # but its libvirt_iohelper, through which VMs are saved; it brings no service
    need qemu-system-x86 qemu-system-x86_64
}
needs_try() {
    need python3 python3
    need tini tini
}
needs_test() {
    need libvirt-clients virsh
    need systemd systemd-analyze    # checks the units; nothing is started
    need binutils as
    need qemu-utils qemu-img        # snapshots of machines that are off
    need util-linux unshare         # and nsenter, setpriv, pivot_root
    need iproute2 ip                # networks of a daemon's own
    need mount mount                # tracefs, for a daemon of its own
    need procps                     # /bin/kill: the shell has one of its own, and the unit wants this one
    need g++ g++                    # libFuzzer is compiled
    need dpkg dpkg-deb              # unpacks the Linux guest, and what the host in a box has besides
    need dbus dbus-daemon           # the host in a box: its bus
    need gettext-base gettext.sh    # libvirt-guests speaks through it
    need sysvinit-utils             # and /lib/lsb/init-functions
    need chromium chromium          # pages of strangers (tests/hostile): 300 MB
    need nginx-light nginx          # a proxy that still speaks TLS 1.0 (tests/daemon/tls); it is not started
    needs_peers
}
# XML-RPC clients of other languages, which read what the daemon writes (tests/clients/peers): 600 MB, nearly all of it Java and Go.
peers=$(dirname "$0")/../target/peers
needs_peers() {
    need default-jdk-headless javac
    need libcommons-httpclient-java # the HTTP of oVirt's engine; its XML library is no package of Debian's
    need libaxmlrpc-java
    need librpc-xml-perl
    need libfrontier-rpc-perl
    need ruby ruby
    need ruby-xmlrpc
    need php8.2-cli php
    need php8.2-xmlrpc
    need gccgo gccgo                # half of what golang-go takes
    need golang-github-kolo-xmlrpc-dev
    need libxmlrpc-core-c3-dev
    need nodejs node
    [ -e "$peers/node_modules/xmlrpc" ] || need npm npm
}

case $mode in
build) needs_build ;;
run) needs_run ;;
try) needs_build; needs_run; needs_try ;;
test) needs_build; needs_run; needs_try; needs_test ;;
esac

user=
if [ "$mode" != build ] && ! getent passwd libvirt-qemu >/dev/null; then
    # libvirt looks this user up whenever root opens it, even if it is told to run machines as root.
    # Debian's libvirt-daemon-system makes it with these numbers.
    user=yes
fi

sudo=
if [ "$(id -u)" != 0 ] && [ -n "$missing$user" ]; then
    if command -v sudo >/dev/null 2>&1; then
        sudo=sudo
    elif [ "$dry" = no ]; then
        fail "must install$missing but is not root and there is no sudo: run it as root"
    fi
fi

act() {
    say "$*"
    [ "$dry" = yes ] || "$@"
}

if [ -n "$missing" ]; then
    command -v apt-get >/dev/null 2>&1 ||
        fail "knows Debian and its children only; install by other means what Debian 12 calls:$missing"
    say "missing:$missing"
    policy=/usr/sbin/policy-rc.d
    if [ ! -e "$policy" ] && [ "$dry" = no ]; then
        # Asked by every package that would start a service; 101 means no.
        printf '#!/bin/sh\nexit 101\n' | $sudo tee "$policy" >/dev/null
        $sudo chmod 755 "$policy"
        trap '$sudo rm -f "$policy"' EXIT
        trap 'exit 1' INT TERM HUP
    fi
    act $sudo apt-get -q update
    # shellcheck disable=SC2086 # words are wanted
    act $sudo env DEBIAN_FRONTEND=noninteractive apt-get -q install --yes --no-install-recommends $missing
else
    say "all packages to $mode are installed"
fi

if [ -n "$user" ]; then
    getent group libvirt-qemu >/dev/null || act $sudo groupadd --system --gid 64055 libvirt-qemu
    act $sudo useradd --system --uid 64055 --gid libvirt-qemu -K SYS_UID_MAX=64055 \
        --no-create-home --home-dir /var/lib/libvirt \
        --shell /usr/sbin/nologin --comment 'Libvirt Qemu' libvirt-qemu
fi

if [ "$mode" = test ] && [ ! -e "$peers/node_modules/xmlrpc" ]; then
    # No package of Debian's; this lays it down in target/ and leaves the rest of the machine alone.
    act npm install --prefix "$peers" --no-save --ignore-scripts --no-audit --no-fund --loglevel=error xmlrpc@1.3.2
fi
# The Linux guest of the tests: Debian's kernel, a shell and QEMU's guest agent, unpacked and not installed.
linux_guest() {
    case "$(uname -m)" in x86_64) ;; *) fail "the Linux guest of the tests is for x86_64" ;; esac
    guest=${CARGO_TARGET_DIR:-$(cd "$(dirname "$0")/.." && pwd)/target}/lab-linux
    if [ -e "$guest/complete" ] && [ -e "$guest/load-crash-kernel" ]; then
        say "the Linux guest is in $guest"
        return 0
    fi
    command -v apt-get >/dev/null 2>&1 || fail "fetches the Linux guest with apt-get, from Debian's archive"
    say "fetching the Linux guest (28 MB) to $guest"
    [ "$dry" = no ] || return 0
    kernel=$(apt-cache depends linux-image-cloud-amd64 2>/dev/null | sed -n 's/^ *Depends: \(linux-image-.*\)/\1/p')
    if [ -z "$kernel" ]; then
        $sudo apt-get -q update
        kernel=$(apt-cache depends linux-image-cloud-amd64 | sed -n 's/^ *Depends: \(linux-image-.*\)/\1/p')
    fi
    [ -n "$kernel" ] || fail "apt knows no linux-image-cloud-amd64; its sources must have Debian's archive"
    rm -rf "$guest"
    mkdir -p "$guest/unpack" "$guest/modules" "$guest/lib"
    fetch() { (cd "$guest/unpack" && apt-get -q -o APT::Sandbox::User=root download "$kernel" busybox-static qemu-guest-agent); }
    # The lists may be older than the archive.
    fetch || { $sudo apt-get -q update && fetch; } || fail "cannot fetch the Linux guest"
    for package in "$guest"/unpack/*.deb; do
        dpkg-deb -x "$package" "$guest/unpack"
    done
    find "$guest/unpack/boot" -name 'vmlinuz-*' -exec cp {} "$guest/vmlinuz" \;
    for module in virtio virtio_ring virtio_pci_legacy_dev virtio_pci_modern_dev virtio_pci virtio_console virtio_blk \
        virtio_balloon failover net_failover virtio_net button evdev pvpanic pvpanic-mmio pvpanic-pci; do
        find "$guest/unpack" -path '*/kernel/*' -name "$module.ko" -exec cp {} "$guest/modules" \;
        [ -e "$guest/modules/$module.ko" ] || fail "$kernel has no module $module"
    done
    cp "$guest/unpack/bin/busybox" "$guest/unpack/usr/sbin/qemu-ga" "$guest"
    cc -O -static -o "$guest/load-crash-kernel" "$(dirname "$0")/lab/src/linux/load-crash-kernel.c"
    # The agent's libraries are those that QEMU and libvirt have brought to this host.
    libraries=$(ldd "$guest/qemu-ga")
    case $libraries in *'not found'*) fail "qemu-ga needs libraries that this host has not: $libraries" ;; esac
    printf '%s\n' "$libraries" | sed -n 's/^[^/]*\(\/[^ ]*\) .*/\1/p' | xargs -I{} cp -L {} "$guest/lib"
    rm -rf "$guest/unpack"
    echo "$kernel" >"$guest/complete"
}
[ "$mode" != test ] || linux_guest
# auditctl, for rules of the kernel's audit that go with their test: unpacked only, as the package would start the audit's daemon with every boot.
audit_tools() {
    tools=${CARGO_TARGET_DIR:-$(cd "$(dirname "$0")/.." && pwd)/target}/lab-audit
    if [ -e "$tools/complete" ]; then
        say "auditctl is in $tools"
        return 0
    fi
    say "fetching auditctl (0.3 MB) to $tools"
    [ "$dry" = no ] || return 0
    rm -rf "$tools"
    mkdir -p "$tools/unpack" "$tools/lib"
    fetch() { (cd "$tools/unpack" && apt-get -q -o APT::Sandbox::User=root download auditd libauparse0 libaudit1 libcap-ng0); }
    fetch || { $sudo apt-get -q update && fetch; } || fail "cannot fetch auditctl"
    for package in "$tools"/unpack/*.deb; do
        dpkg-deb -x "$package" "$tools/unpack"
    done
    find "$tools/unpack" -name auditctl -type f -exec cp {} "$tools" \;
    find "$tools/unpack" -name 'lib*.so.*' -exec cp -P {} "$tools/lib" \;
    rm -rf "$tools/unpack"
    LD_LIBRARY_PATH="$tools/lib" "$tools/auditctl" -v >/dev/null || fail "auditctl does not run"
    touch "$tools/complete"
}
[ "$mode" != test ] || audit_tools
# The host in a box (tests/host) shares this machine's /usr. The units of libvirt and of systemd-machined are laid over it,
# unpacked and not installed: installing them would make this machine a host of VMs.
booted_host() {
    host=${CARGO_TARGET_DIR:-$(cd "$(dirname "$0")/.." && pwd)/target}/lab-host
    if [ -e "$host/complete" ]; then
        say "the packages of the host in a box are in $host"
        return 0
    fi
    command -v apt-get >/dev/null 2>&1 || fail "fetches the host in a box with apt-get, from Debian's archive"
    say "fetching libvirt's units and systemd-machined (1 MB) to $host"
    [ "$dry" = no ] || return 0
    rm -rf "$host"
    mkdir -p "$host/fetched" "$host/unpacked"
    # PACKAGE BESIDE: the version of another that is installed, if the archive has it.
    fetch_beside() {
        beside=$(dpkg-query -W -f '${Version}' "$2")
        (cd "$host/fetched" && {
            apt-get -q -o APT::Sandbox::User=root download "$1=$beside" ||
            apt-get -q -o APT::Sandbox::User=root download "$1"; })
    }
    fetch_all() {
        fetch_beside libvirt-daemon-system libvirt-daemon && fetch_beside libvirt-daemon-system-systemd libvirt-daemon &&
            fetch_beside systemd-container systemd
    }
    fetch_all || { $sudo apt-get -q update && fetch_all; } || fail "cannot fetch the packages of the host in a box"
    for package in "$host"/fetched/*.deb; do
        dpkg-deb -x "$package" "$host/unpacked"
    done
    # As it lies on a host whose /lib is in /usr.
    if [ -d "$host/unpacked/lib" ]; then
        mkdir -p "$host/unpacked/usr/lib"
        cp -a "$host/unpacked/lib/." "$host/unpacked/usr/lib/"
    fi
    mkdir "$host/usr"
    for part in bin sbin lib share; do
        [ ! -d "$host/unpacked/usr/$part" ] || mv "$host/unpacked/usr/$part" "$host/usr/$part"
    done
    mv "$host/unpacked/etc" "$host/etc"
    rm -rf "$host/unpacked" "$host/fetched" "$host/usr/share/doc" "$host/usr/share/man"
    date >"$host/complete"
}
[ "$mode" != test ] || booted_host

[ "$mode" = run ] && exit 0
want=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' "$(dirname "$0")/../Cargo.toml")
if ! have=$(cargo --version 2>/dev/null); then
    fail "there is no cargo; get Rust $want or newer from https://rustup.rs (Debian's own is too old)"
fi
have=$(printf '%s\n' "$have" | cut -d ' ' -f 2)
if [ "$(printf '%s\n%s\n' "$want" "$have" | sort -V | head -n 1)" != "$want" ]; then
    fail "cargo $have is older than $want; run 'rustup update stable', or see https://rustup.rs"
fi
say "cargo $have is new enough"
