#!/bin/sh
# Runs all tests and checks, as CI does. Installs what they need (Debian 12; with sudo where not root).
set -eu
cd "$(dirname "$0")/.."
tests/setup.sh test
say() { printf '\n== %s\n' "$*"; }
say "format"
cargo fmt --all --check
say "clippy"
cargo clippy --locked --quiet --workspace --all-targets -- -D warnings
say "build"
cargo build --locked --quiet --workspace --bins
say "tests"
# tini reaps what QEMU leaves behind; without it libvirt waits 40 seconds for every machine in some containers.
tini -s -- cargo test --locked --workspace --no-fail-fast
say "fuzzing"
tests/fuzz/run.sh 30
say "documentation"
RUSTDOCFLAGS="-D warnings" cargo doc --locked --quiet --workspace --no-deps
say "all is well"
