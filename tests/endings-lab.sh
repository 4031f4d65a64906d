#!/bin/sh
# Ends real VMs in every known way, and shows what whydown tells of it beside what VDSM, Nova and Masakari would say.
# Exits with 1 if an answer was wrong. Installs what is missing (Debian 12; with sudo where not root); needs root.
#
#   tests/endings-lab.sh                  the quick selection
#   tests/endings-lab.sh --full           every case, some minutes
#   tests/endings-lab.sh --only PATTERN   cases whose name contains this; may be given often
#   tests/endings-lab.sh --except PATTERN and none of these
#   tests/endings-lab.sh --list           says which cases there are, the quick ones with a star
#
#   --jobs N          so many VMs at once on the shared stage (3)
#   --json FILE       writes all that was found, with libvirt's events
#   --markdown FILE   writes the page; docs/reference/endings.md is that of a full run
set -eu
for argument in "$@"; do
    case $argument in
    -h | --help) sed -n '2,14s/^# \{0,1\}//p' "$0"; exit 0 ;;
    esac
done
top=$(cd "$(dirname "$0")/.." && pwd)
"$top/tests/setup.sh" test
cargo build --manifest-path "$top/Cargo.toml" --locked --quiet --bins -p whydown -p whydown-endings-lab
target=$(cargo metadata --manifest-path "$top/Cargo.toml" --format-version 1 --no-deps |
    sed -n 's/.*"target_directory":"\([^"]*\)".*/\1/p')
# tini reaps what QEMU leaves behind; without it libvirt waits 40 seconds for every machine in some containers.
exec tini -s -- "$target/debug/endings-lab" "$@"
