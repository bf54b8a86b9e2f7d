#!/bin/sh
# Runs cmocka programs, each on both CPU levels if it asks for that by reading
# H5LENS_TEST_CPU (golden tests, kernels): OpenBLAS's kernels are chosen once per
# process. As many run side by side as there are cores. WRAP goes in front (valgrind).
# The last line counts tests. ONE_LEVEL names programs that run on the highest one alone.
set -u
passed=0 failed=0
skips=$(mktemp) runs=$(mktemp)
trap 'rm -f "$skips" "$runs"' EXIT
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
	if grep -q H5LENS_TEST_CPU "$src"; then set -- $levels; else set -- any; fi
	case " ${ONE_LEVEL:-} " in *" $(basename "$t") "*) eval "set -- \${$#}" ;; esac
	for level in "$@"; do echo "$t $level"; done
done > "$runs"

# Threads that wait for others sleep, since other programs want the cores.
OMP_WAIT_POLICY=passive xargs -P "$(nproc)" -n 2 sh -c '
	H5LENS_TEST_CPU=$2 ${WRAP:-} "$1" > "$1.$2.log" 2>&1
	echo $? > "$1.$2.code"
	echo "ran: $1 ($2)"' run-unit < "$runs"

while read -r t level; do
	log=$t.$level.log
	code=$(cat "$t.$level.code")
	n=$(ended '       OK ' "$log" | wc -l)
	bad=$(ended '  FAILED  ' "$log" | wc -l)
	[ "$code" = 0 ] || [ "$bad" -gt 0 ] || bad=1 # it crashed, or a set-up failed
	if [ "$bad" -gt 0 ]; then
		echo "FAILED: $t ($level): exit code $code"
		cat "$log"
	else
		echo "ok: $t ($level): $n tests"
	fi
	passed=$((passed + n)) failed=$((failed + bad))
	ended '  SKIPPED ' "$log" | sed "s|.*|skipped: &, of $t ($level)|" >> "$skips"
done < "$runs"
cat "$skips"
echo "$passed passed, $failed failed, $(wc -l < "$skips") skipped"
[ $failed = 0 ]
