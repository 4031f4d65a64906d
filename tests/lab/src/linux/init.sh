#!/bin/sh
# The first process of the lab's Linux guest. It makes the machine ready, says so on the serial line, and then obeys
# one word a line there; each is echoed as "lab: WORD" before the deed. On the kernel's command line:
#
#   lab.agent=real|liar|hasty|none   who speaks on the agent's channel
#   lab.do=WORD                the first word, obeyed when everything is ready
#   lab.after=SECONDS          how long that waits
#   lab.kernel=DISK lab.initramfs=DISK lab.then=WORD
#                              what takes over when the kernel panics, once it is loaded, and its first word
#   lab.swap=DISK              for swap; an image of a suspended machine on it is resumed
export PATH=/bin:/sbin
/bin/busybox mount -t proc proc /proc
/bin/busybox --install -s /bin
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mount -t tmpfs run /run
exec </dev/ttyS0 >/dev/ttyS0 2>&1
stty -echo -icrnl
agent=none do= after= swap= kernel= initramfs= next=
for word in $(cat /proc/cmdline); do
    case $word in
    lab.agent=*) agent=${word#*=} ;;
    lab.do=*) do=${word#*=} ;;
    lab.after=*) after=${word#*=} ;;
    lab.swap=*) swap=${word#*=} ;;
    lab.kernel=*) kernel=${word#*=} ;;
    lab.initramfs=*) initramfs=${word#*=} ;;
    lab.then=*) next=${word#*=} ;;
    esac
done
[ ! -c /dev/ttyS1 ] || stty -F /dev/ttyS1 -opost 2>/dev/null

# Each module behind those that it needs.
for module in virtio_ring virtio virtio_pci_legacy_dev virtio_pci_modern_dev virtio_pci virtio_console virtio_blk \
    virtio_balloon failover net_failover virtio_net button evdev pvpanic pvpanic-mmio pvpanic-pci; do
    insmod /modules/$module.ko
done
if [ -n "$swap" ]; then
    # Where there is an image, this is the end of this boot: the machine goes on where it was suspended.
    cat "/sys/block/$swap/dev" >/sys/power/resume 2>/dev/null
    mkswap "/dev/$swap" >/dev/null
    swapon "/dev/$swap"
fi
hostname -F /etc/hostname
ip link set lo up
ip addr add 10.0.2.15/24 dev eth0
ip link set eth0 up
cp /etc/utmp /run/utmp
# The power button.
acpid -c /etc/acpi -l /dev/null

# A real file system, where there is a disk.
if [ -b /dev/vda ] && [ -z "$swap$kernel" ]; then
    mke2fs /dev/vda >/dev/null
    mkdir -p /data
    mount -t ext2 /dev/vda /data
fi

# Ports appear when the host has named them.
tries=0
until [ -e /dev/virtio-ports/agent ] || [ $tries = 50 ]; do
    for port in /sys/class/virtio-ports/*; do
        if [ "$(cat "$port/name" 2>/dev/null)" = org.qemu.guest_agent.0 ]; then
            mkdir -p /dev/virtio-ports
            ln -s "/dev/${port##*/}" /dev/virtio-ports/agent
        fi
    done
    tries=$((tries + 1))
    [ -e /dev/virtio-ports/agent ] || usleep 50000
done
start_agent() {
    case $agent in
    real) TZ=CET-1 LD_LIBRARY_PATH=/lib qemu-ga -m virtio-serial -p /dev/virtio-ports/agent -t /run -l /run/agent.log & ;;
    liar | hasty) "$agent" <>/dev/virtio-ports/agent >&0 2>/dev/null & ;;
    esac
    pid=$!
}
start_agent

load_crash_kernel() {
    cat "/dev/$kernel" >/tmp/kernel && cat "/dev/$initramfs" >/tmp/initramfs
    load-crash-kernel /tmp/kernel /tmp/initramfs "console=ttyS0 rdinit=/init nokaslr mitigations=off \
        random.trust_cpu=on cryptomgr.notests tsc=reliable reset_devices lab.kernel=none lab.do=$next"
}

obey() {
    echo "lab: $1"
    case $1 in
    poweroff) sync && poweroff -f ;;
    reboot) sync && reboot -f ;;
    halt) halt -f ;;
    panic) echo c >/proc/sysrq-trigger ;;
    oom) tail /dev/zero && echo "lab: was not killed" || echo "lab: was killed" ;;
    oom-panic) echo 1 >/proc/sys/vm/panic_on_oom && tail /dev/zero ;;
    load-crash-kernel) load_crash_kernel && echo "lab: loaded" ;;
    suspend) echo mem >/sys/power/state && echo "lab: awake" ;;
    hibernate) cat "/sys/block/$swap/dev" >/sys/power/resume; echo disk >/sys/power/state && echo "lab: awake" ;;
    ignore-button) killall acpid ;;
    stop-agent) kill -STOP $pid ;;
    continue-agent) kill -CONT $pid ;;
    end-agent) kill -9 $pid ;;
    start-agent) start_agent ;;
    # All lines up to one of a dot alone, on the second serial line.
    say-there) while read -r line && [ "$line" != . ]; do echo "$line"; done >/dev/ttyS1; echo "lab: said" ;;
    ping) ;;
    *) echo "lab: no such word" ;;
    esac
}

echo "lab: ready"
if [ -n "$do" ]; then
    [ -z "$after" ] || sleep "$after"
    obey "$do"
fi
while read -r word; do
    obey "$word"
done
# Nobody listens: the machine goes on.
while true; do sleep 3600; done
