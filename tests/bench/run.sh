#!/bin/sh
# Measures whydownd beside Python's XML-RPC server and beside nginx with the same bytes in a file, by plain text and by
# TLS; what sampling costs; memory; how long it takes until an ending is seen and on disk; and what it costs. Prints
# tables in Markdown for docs/internals/performance.md. Installs what is missing (Debian 12; with sudo where not root).
# Nothing is left running.
#
#   tests/bench/run.sh            half an hour, more on a machine that does other work: it waits for quiet, in bounds
#   tests/bench/run.sh --quick    about a minute: only to see that all pieces still run
#
#   --daemon FILE    measure this whydownd instead of building one
#   --only PART      throughput, pollers, sampling, memory, endings or evidence; may be repeated
#   --rounds N       how often each measurement is made
#   --seconds N      how long each lasts
set -eu
cd "$(dirname "$0")/../.."

daemon=
previous=
for argument in "$@"; do
    case $argument in
    -h | --help) sed -n '2,16s/^# \{0,1\}//p' "$0"; exit 0 ;;
    --daemon=*) daemon=given ;;
    esac
    [ "$previous" != --daemon ] || daemon=given
    previous=$argument
done

PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin
missing=
command -v nginx >/dev/null || missing="$missing nginx-light"
command -v wrk >/dev/null || missing="$missing wrk"
command -v openssl >/dev/null || missing="$missing openssl"
if [ -n "$missing" ]; then
    command -v apt-get >/dev/null || { echo "bench: install by other means:$missing" >&2; exit 1; }
    sudo=
    [ "$(id -u)" = 0 ] || sudo=sudo
    policy=/usr/sbin/policy-rc.d
    placed=no
    if [ ! -e "$policy" ]; then
        # nginx's package would start a service; 101 means no.
        printf '#!/bin/sh\nexit 101\n' | $sudo tee "$policy" >/dev/null
        $sudo chmod 755 "$policy"
        placed=yes
        trap '$sudo rm -f "$policy"' EXIT
        trap 'exit 1' INT TERM HUP
    fi
    echo "bench: installing$missing"
    $sudo apt-get -q update
    # shellcheck disable=SC2086 # words are wanted
    $sudo env DEBIAN_FRONTEND=noninteractive apt-get -q install --yes --no-install-recommends $missing
    if [ "$placed" = yes ]; then
        $sudo rm -f "$policy"
        trap - EXIT INT TERM HUP
    fi
fi

# A compiler and libvirt's headers, for what is loaded into wrk and whydownd; QEMU, Python and tini.
tests/setup.sh try

if [ -z "$daemon" ]; then
    echo "bench: building (some minutes the first time)"
    cargo build --locked --quiet --release --package whydown --bin whydownd
    target=$(cargo metadata --locked --format-version 1 --no-deps | sed -n 's/.*"target_directory":"\([^"]*\)".*/\1/p')
    set -- --daemon "$target/release/whydownd" "$@"
fi
# tini reaps what QEMU leaves behind; without it libvirt waits 40 seconds for a machine in some containers.
exec tini -s -- python3 -B tests/bench/bench.py "$@"
