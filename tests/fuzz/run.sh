#!/bin/sh
# Looks for inputs that break the readers of what strangers send: fuzzing with coverage guidance, on stable Rust.
#
#   tests/fuzz/run.sh [SECONDS] [TARGET...]   each target for a fair part of SECONDS (30); all by default
#   tests/fuzz/run.sh --keep                  adds what was found since to the corpus, as little of it as covers the most
#
# Targets: call, reply, document, audit. What breaks one is left in target/fuzz/found, and its path is printed.
# What covers something new is kept in target/fuzz/corpus, from which later runs go on.
set -eu
cd "$(dirname "$0")/../.."
all="call reply document audit"
keep=no
seconds=30
case "${1:-}" in
--keep) keep=yes; shift ;;
-h | --help) sed -n '2,8s/^# \{0,1\}//p' "$0"; exit 0 ;;
*[!0-9]*) ;;
?*) seconds=$1; shift ;;
esac
targets=${*:-$all}

# What cargo-fuzz passes, without what needs a nightly compiler: libFuzzer's hooks in every crate, but no sanitizer.
# Naming the host as a target keeps them out of build scripts.
host=$(rustc -vV | sed -n 's/^host: //p')
export RUSTFLAGS="--cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
-Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
-Cllvm-args=-sanitizer-coverage-trace-compares"
cargo build --locked --quiet --profile fuzz --package whydown-fuzz --bins --target "$host" --target-dir target/fuzz

# What --keep takes at most, of one input.
SHORT_BYTES=256
count=0
for target in $targets; do count=$((count + 1)); done
part=$(((seconds + count - 1) / count))
failed=
for target in $targets; do
    program=target/fuzz/$host/fuzz/fuzz-$target
    ours=tests/fuzz/corpus/$target
    new=target/fuzz/corpus/$target
    found=target/fuzz/found/$target
    mkdir -p "$new" "$found"
    limits="-max_len=16384 -rss_limit_mb=1024 -timeout=10 -verbosity=0"
    if [ "$keep" = yes ]; then
        # Merging takes only what our own files do not cover; of that, short inputs say it best.
        short=target/fuzz/short/$target
        rm -rf "$short"
        mkdir -p "$short"
        find "$new" -type f -size -"$SHORT_BYTES"c -exec cp {} "$short" ';'
        "$program" -merge=1 $limits "$ours" "$short" 2>&1 | grep MERGE-OUTER
        continue
    fi
    log=target/fuzz/$target.log
    printf 'fuzzing %s for %s s\n' "$target" "$part"
    # The first folder is the one that libFuzzer writes to.
    if "$program" $limits -max_total_time="$part" -print_final_stats=1 -dict=tests/fuzz/xmlrpc.dict \
        -artifact_prefix="$found/" "$new" "$ours" >"$log" 2>&1; then
        sed -n 's/^stat::number_of_executed_units: */  inputs: /p' "$log"
    else
        failed="$failed $target"
        tail -n 40 "$log"
        echo "$target: broken by the input $(sed -n 's/^.*Test unit written to //p' "$log" | tail -n 1)" >&2
        echo "  see it again: cargo run -p whydown-fuzz --bin fuzz-$target -- PATH" >&2
    fi
done
[ -z "$failed" ]
