#!/bin/sh
# Fuzzes with the stable compiler: `sh fuzz/run.sh SECONDS [TARGET]...`; without targets, all of them in turn. What is
# learnt stays in fuzz/corpus, what is found is in fuzz/artifacts. A finding is run again with its file in the place of
# the seconds: `sh fuzz/run.sh fuzz/artifacts/cel/crash-… cel`. `cargo +nightly fuzz run TARGET` does the same.
set -eu
cd "$(dirname "$0")"
what=$1
shift
[ $# -gt 0 ] || set -- $(sed -n 's/^path = "fuzz_targets\/\(.*\)\.rs"$/\1/p' Cargo.toml)
target="$(uname -m)-unknown-linux-gnu"
flags="--cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4"
flags="$flags -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table"
flags="$flags -Cllvm-args=-sanitizer-coverage-trace-compares"
bins=
for name in "$@"; do bins="$bins --bin $name"; done
# shellcheck disable=SC2086
RUSTFLAGS="$flags" cargo build --release --target "$target" $bins
case $what in
    *[!0-9]*) exec "${CARGO_TARGET_DIR:-target}/$target/release/$1" "$(cd .. && realpath "$what")" ;;
esac
failed=
for name in "$@"; do
    mkdir -p "corpus/$name" "artifacts/$name"
    [ ! -d "seeds/$name" ] || cp -n "seeds/$name"/* "corpus/$name/"
    # Five seconds are an eternity for a decoder, and 1 GiB is memory without bounds.
    "${CARGO_TARGET_DIR:-target}/$target/release/$name" -max_total_time="$what" -timeout=5 -rss_limit_mb=1024 \
        -max_len=8192 -artifact_prefix="artifacts/$name/" -print_final_stats=1 "corpus/$name" || failed="$failed $name"
done
[ -z "$failed" ] || { echo "findings:$failed" >&2; exit 1; }
