#!/bin/sh
# Feeds the editors of the boot files millions of inputs: fuzz/run.sh [EXECUTIONS], each target that many (default: six
# million, about half an hour on one slow core). New inputs that reach new code go to fuzz/corpus; `fuzz/run.sh 0` only
# minimises that. Needs a nightly toolchain and cargo-fuzz.
set -eu
cd "$(dirname "$0")/.."
executions=${1:-6000000}
for target in boot_line config_txt; do
	mkdir -p "fuzz/corpus/$target"
	if [ "$executions" -gt 0 ]; then
		nice -n 19 cargo +nightly fuzz run --release --sanitizer none "$target" \
			"fuzz/corpus/$target" tests/fixtures/boot -- \
			-runs="$executions" -max_len=256 -dict="fuzz/$target.dict" -print_final_stats=1 -verbosity=0
	fi
	nice -n 19 cargo +nightly fuzz cmin --release --sanitizer none "$target" "fuzz/corpus/$target" -- -verbosity=0
done
