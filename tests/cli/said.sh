# Sourced by the checks in shell: $work is a folder of theirs.
passed=0 failed=0

# t NAME EXIT-CODE PATTERN COMMAND…: does it exit so and say that?
t() {
	name=$1 code=$2 pattern=$3
	shift 3
	"$@" > "$work/said" 2>&1
	got=$?
	if [ $got = "$code" ] && grep -qE -e "$pattern" "$work/said"; then
		passed=$((passed + 1))
	else
		failed=$((failed + 1))
		echo "FAILED: $name: exit code $got, not $code, or no '$pattern' in:"
		sed 's/^/    /' "$work/said" | head -20
	fi
}
