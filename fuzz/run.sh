#!/bin/sh
# Feeds the editors of the boot files millions of inputs: fuzz/run.sh [EXECUTIONS], each target that many (default: five
# million, about five minutes of a core for each). `fuzz/run.sh 0` only makes the corpus as small as it can be and still
# reaches all code. Needs a nightly toolchain and cargo-fuzz.
set -eu
cd "$(dirname "$0")/.."
executions=${1:-5000000}
fuzz() { # TARGET DIRECTORY… -- OPTION…
	nice -n 19 cargo +nightly fuzz run --release --sanitizer none "$@" -max_len=256 -verbosity=0
}
for target in boot_line config_txt; do
	corpus=fuzz/corpus/$target
	mkdir -p "$corpus"
	if [ "$executions" -gt 0 ]; then
		fuzz "$target" "$corpus" tests/fixtures/boot -- -runs="$executions" -dict="fuzz/$target.dict" -print_final_stats=1
	fi
	rm -rf "$corpus.min"
	mkdir "$corpus.min"
	fuzz "$target" "$corpus.min" "$corpus" -- -set_cover_merge=1 -use_counters=0
	rm -rf "$corpus"
	mv "$corpus.min" "$corpus"
done
