#!/bin/sh
# Runs cmocka programs, each on both CPU levels if it asks for that by reading
# H5LENS_TEST_CPU (golden tests, kernels): OpenBLAS's kernels are chosen once per
# process. WRAP goes in front (valgrind).
set -u
failed=0 count=0
levels=avx2
grep -qw avx512f /proc/cpuinfo && levels="avx2 avx512"
[ -n "${H5LENS_TEST_CPU:-}" ] && levels=$H5LENS_TEST_CPU

for t in "$@"; do
	src=$(echo "$t" | sed "s|^${BUILD:-build}/||").c
	if grep -q H5LENS_TEST_CPU "$src"; then runs=$levels; else runs=any; fi
	for level in $runs; do
		count=$((count + 1))
		if ! H5LENS_TEST_CPU=$level ${WRAP:-} "$t" > "$t.$level.log" 2>&1; then
			failed=$((failed + 1))
			echo "FAILED: $t ($level)"
			cat "$t.$level.log"
		else
			echo "ok: $t ($level): $(grep -c '^\[       OK' "$t.$level.log") tests"
		fi
	done
done
echo "$((count - failed)) passed, $failed failed"
[ $failed = 0 ]
