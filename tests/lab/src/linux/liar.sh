#!/bin/sh
# A guest agent that answers every question in form, and with nothing that can be true: thousands of interfaces, names
# of many kilobytes with control characters, numbers out of all bounds.
long=$(awk 'BEGIN { for (i = 0; i < 3000; i++) printf "\\u0007\\u0000\\u202e<&]]>x" }')
many() { awk -v item="$1" -v count="$2" 'BEGIN { for (i = 0; i < count; i++) { one = item; gsub(/#/, i, one); printf "%s%s", i ? "," : "", one } }'; }
while read -r line; do
    case $line in
    *'"guest-sync'*)
        id=${line##*\"id\":}
        id=${id%%\}*}
        printf '{"return":%s}\n' "$id"
        ;;
    *'"guest-get-host-name"'*) printf '{"return":{"host-name":"%s"}}\n' "$long" ;;
    *'"guest-get-osinfo"'*) printf '{"return":{"id":"%s","pretty-name":"%s","kernel-release":"\\u001b[31m"}}\n' "$long" "$long" ;;
    *'"guest-get-timezone"'*) printf '{"return":{"zone":"%s","offset":2147483647}}\n' "$long" ;;
    *'"guest-get-users"'*)
        printf '{"return":[%s]}\n' "$(many '{"user":"\\u0000u\\u001b","domain":"d","login-time":1e300}' 600)"
        ;;
    *'"guest-get-fsinfo"'*)
        printf '{"return":[%s]}\n' "$(many '{"name":"n","mountpoint":"/\\u0008","type":"t","used-bytes":9223372036854775807,"total-bytes":1,"disk":[]}' 500)"
        ;;
    *'"guest-network-get-interfaces"'*)
        printf '{"return":[%s]}\n' "$(many '{"name":"e#\\u0001","hardware-address":"no address","ip-addresses":[{"ip-address-type":"ipv4","ip-address":"999.1.1.1","prefix":99},{"ip-address-type":"ipv4","ip-address":"192.0.2.1","prefix":24}]}' 1500)"
        ;;
    *) printf '{"return":{}}\n' ;;
    esac
done
