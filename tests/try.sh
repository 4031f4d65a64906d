#!/bin/sh
# Builds whydown, starts it on real virtual machines, ends each in a different way, and shows what it tells.
# Installs what that needs (Debian 12; with sudo where not root). Leaves nothing running; with --keep it goes on.
set -eu
cd "$(dirname "$0")/.."
tests/setup.sh try
echo "try: building (some minutes the first time)"
cargo build --locked --quiet --package whydown --package whydown-lab --bins
target=$(cargo metadata --locked --format-version 1 --no-deps | sed -n 's/.*"target_directory":"\([^"]*\)".*/\1/p')
# tini reaps what QEMU leaves behind; without it libvirt waits 40 seconds for every machine in some containers.
exec tini -s -- "$target/debug/lab-demo" "$@"
