#!/bin/sh
# Kills whydownd, libvirtd and both at random moments, so many times: `tests/kills.sh [ROUNDS [SEED]]`.
# Half of the rounds have real guests and take some seconds each; the others have libvirt's test driver.
set -eu
cd "$(dirname "$0")/.."
KILLS_ROUNDS=${1:-1000}
export KILLS_ROUNDS
if [ $# -gt 1 ]; then
    KILLS_SEED=$2
    export KILLS_SEED
fi
exec nice -n 10 tini -s -- cargo test --locked --quiet --test kills -- --nocapture
