#!/bin/sh
# A guest agent that obeys and never answers: it goes first, as in a machine that ends its services in a hurry, and
# libvirt's connection to it breaks before the machine is off. While nobody is at the other end, the port reads as ended.
obey() {
    (usleep 300000 && sync && "$1" -f) </dev/null >/dev/null 2>&1 &
    exit
}
while true; do
    while read -r line; do
        case $line in
        *'"guest-sync'*)
            id=${line##*\"id\":}
            printf '{"return":%s}\n' "${id%%\}*}"
            ;;
        *'"guest-get-time"'*) printf '{"return":0}\n' ;;
        *'"guest-shutdown"'*reboot*) obey reboot ;;
        *'"guest-shutdown"'*) obey poweroff ;;
        *) printf '{"return":{}}\n' ;;
        esac
    done
    usleep 100000
done
