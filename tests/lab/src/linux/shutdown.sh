#!/bin/sh
# What the guest agent calls, with -P, -H or -r; as where an init system does it, the answer comes before the deed.
case "$*" in
*-r*) deed=reboot ;;
*-H*) deed=halt ;;
*) deed=poweroff ;;
esac
(usleep 200000 && sync && $deed -f) </dev/null >/dev/null 2>&1 &
