#!/bin/sh
# A guest agent that answers every question in form, and with nothing that can be true: thousands of interfaces, names
# of many kilobytes with control characters, numbers out of all bounds.
many() { awk -v item="$1" -v count="$2" 'BEGIN { for (i = 0; i < count; i++) { one = item; sub(/#/, i, one); printf "%s%s", i ? "," : "", one } }'; }
long=$(awk 'BEGIN { for (i = 0; i < 3000; i++) printf "x\\u0007\\u202e<&]]>" }')
name=$(printf '{"return":{"host-name":"%s"}}' "$long")
system=$(printf '{"return":{"id":"%s","pretty-name":"%s","kernel-release":"\\u001b[31m"}}' "$long" "$long")
zone=$(printf '{"return":{"zone":"%s","offset":2147483647}}' "$long")
users=$(printf '{"return":[%s]}' "$(many '{"user":"\\u001bu","domain":"d","login-time":1e300}' 600)")
disks=$(printf '{"return":[%s]}' "$(many '{"name":"n","mountpoint":"/\\u0008","type":"t","used-bytes":9223372036854775807,"total-bytes":1,"disk":[]}' 300)")
cards=$(printf '{"return":[%s]}' "$(many '{"name":"e#\\u0001","hardware-address":"no address","ip-addresses":[{"ip-address-type":"ipv4","ip-address":"999.1.1.1","prefix":99},{"ip-address-type":"ipv4","ip-address":"192.0.2.1","prefix":24}]}' 1500)")
while read -r line; do
    case $line in
    *'"guest-sync'*)
        id=${line##*\"id\":}
        printf '{"return":%s}\n' "${id%%\}*}"
        ;;
    *'"guest-get-host-name"'*) printf '%s\n' "$name" ;;
    *'"guest-get-osinfo"'*) printf '%s\n' "$system" ;;
    *'"guest-get-timezone"'*) printf '%s\n' "$zone" ;;
    *'"guest-get-users"'*) printf '%s\n' "$users" ;;
    *'"guest-get-fsinfo"'*) printf '%s\n' "$disks" ;;
    *'"guest-network-get-interfaces"'*) printf '%s\n' "$cards" ;;
    *) printf '{"return":{}}\n' ;;
    esac
done
