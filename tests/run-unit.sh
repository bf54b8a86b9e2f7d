#!/bin/sh
# Runs cmocka programs, each on both CPU levels if it asks for that by reading
# H5LENS_TEST_CPU (golden tests, kernels): OpenBLAS's kernels are chosen once per
# process. WRAP goes in front (valgrind). The last line counts tests.
set -u
passed=0 failed=0
skips=$(mktemp)
trap 'rm -f "$skips"' EXIT
levels=avx2
grep -qw avx512f /proc/cpuinfo && levels="avx2 avx512"
[ -n "${H5LENS_TEST_CPU:-}" ] && levels=$H5LENS_TEST_CPU

# The tests of a log that ended like this, a line each. (cmocka names some of them twice.)
ended() {
	awk -v how="[$1] " '
		/^\[ RUN / { test = substr($0, 14) }
		test != "" && $0 == how test { print test; test = "" }' "$2"
}

for t in "$@"; do
	src=$(echo "$t" | sed "s|^${BUILD:-build}/||").c
	if grep -q H5LENS_TEST_CPU "$src"; then runs=$levels; else runs=any; fi
	for level in $runs; do
		log=$t.$level.log
		H5LENS_TEST_CPU=$level ${WRAP:-} "$t" > "$log" 2>&1
		code=$?
		n=$(ended '       OK ' "$log" | wc -l)
		bad=$(ended '  FAILED  ' "$log" | wc -l)
		[ $code = 0 ] || [ "$bad" -gt 0 ] || bad=1 # it crashed, or a set-up failed
		if [ "$bad" -gt 0 ]; then
			echo "FAILED: $t ($level): exit code $code"
			cat "$log"
		else
			echo "ok: $t ($level): $n tests"
		fi
		passed=$((passed + n)) failed=$((failed + bad))
		ended '  SKIPPED ' "$log" | sed "s|.*|skipped: &, of $t ($level)|" >> "$skips"
	done
done
cat "$skips"
echo "$passed passed, $failed failed, $(wc -l < "$skips") skipped"
[ $failed = 0 ]
