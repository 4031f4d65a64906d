#!/bin/sh
# Writes what checks only compare: formatting and generated files.
set -eu
cd "$(dirname "$0")/.."
WHYDOWN_FIX=1 cargo test --quiet --test tidy causes
WHYDOWN_FIX=1 cargo test --quiet --test tidy parameters
WHYDOWN_FIX=1 cargo test --quiet --lib config
WHYDOWN_FIX=1 cargo test --quiet --test clients page
cargo fmt --all
