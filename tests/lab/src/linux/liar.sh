#!/bin/sh
# A guest agent that answers every question in form, and with nothing that can be true: thousands of interfaces, names
# of many kilobytes with control characters, numbers out of all bounds.
many() { awk -v item="$1" -v count="$2" 'BEGIN { for (i = 0; i < count; i++) { one = item; sub(/#/, i, one); printf "%s%s", i ? "," : "", one } }'; }
long=$(awk 'BEGIN { for (i = 0; i < 3000; i++) printf "x\\u0007\\u202e<&]]>" }')
mkdir -p /run/lies
printf '{"return":{"host-name":"%s"}}\n' "$long" >/run/lies/name
printf '{"return":{"id":"%s","pretty-name":"%s","kernel-release":"\\u001b[31m"}}\n' "$long" "$long" >/run/lies/system
printf '{"return":{"zone":"%s","offset":2147483647}}\n' "$long" >/run/lies/zone
printf '{"return":[%s]}\n' "$(many '{"user":"\\u001bu","domain":"d","login-time":1e300}' 600)" >/run/lies/users
printf '{"return":[%s]}\n' "$(many '{"name":"n","mountpoint":"/\\u0008","type":"t","used-bytes":9223372036854775807,"total-bytes":1,"disk":[]}' 300)" >/run/lies/disks
printf '{"return":[%s]}\n' "$(many '{"name":"e#\\u0001","hardware-address":"no address","ip-addresses":[{"ip-address-type":"ipv4","ip-address":"999.1.1.1","prefix":99},{"ip-address-type":"ipv4","ip-address":"192.0.2.1","prefix":24}]}' 1500)" >/run/lies/cards
# From here on it is heard.
exec <>/dev/virtio-ports/agent >&0
while read -r line; do
    case $line in
    *'"guest-sync'*)
        id=${line##*\"id\":}
        printf '{"return":%s}\n' "${id%%\}*}"
        ;;
    *'"guest-get-host-name"'*) cat /run/lies/name ;;
    *'"guest-get-osinfo"'*) cat /run/lies/system ;;
    *'"guest-get-timezone"'*) cat /run/lies/zone ;;
    *'"guest-get-users"'*) cat /run/lies/users ;;
    *'"guest-get-fsinfo"'*) cat /run/lies/disks ;;
    *'"guest-network-get-interfaces"'*) cat /run/lies/cards ;;
    *) printf '{"return":{}}\n' ;;
    esac
done
