#!/bin/sh
# The rules of the layers (src/README.md): HDF5 only in store/, BLAS and the
# loading of it only in kernels/, printing only in cli/, and no stage includes a
# later one.
set -u
status=0
order="core experiment tokenizer dataset kernels model hooks forward capture tables interventions plan store sweep pipeline cli"

complain() {
	if [ -n "$2" ]; then
		echo "$1:"
		echo "$2" | sed 's/^/  /'
		status=1
	fi
}

complain "hdf5.h outside src/store" \
	"$(grep -rnE '#include *[<"]hdf5' src include | grep -v '^src/store/')"
complain "BLAS outside src/kernels" \
	"$(grep -rniE 'cblas|sgemm_|openblas_|dlopen\(' src include | grep -v '^src/kernels/')"
complain "printing outside src/cli" \
	"$(grep -rnE '\b(printf|puts|putchar|perror|vprintf|fputs)\(|\bf?printf\((stdout|stderr)|(stdout|stderr)' src include |
		grep -vE '^src/cli/' | grep -vE '_printf\(|snprintf\(|format\(printf')"
complain "exit or abort below src/cli" \
	"$(grep -rnE '\b(exit|abort|_exit)\(' src include | grep -vE '^src/(cli/|core/child.c)')"

# The public headers are named after the stage that implements them.
stage_of() {
	case $1 in
	status | core | sys | axis) echo core ;;
	*) echo "$1" ;;
	esac
}
later() { # is stage $2 later than stage $1?
	seen=0
	for s in $order; do
		[ "$s" = "$1" ] && seen=1
		[ "$s" = "$2" ] && { [ $seen = 1 ] && [ "$1" != "$2" ]; return; }
	done
	return 1
}
for f in src/*/*.[ch] include/h5lens/*.h; do
	case $f in
	src/*) from=$(basename "$(dirname "$f")") ;;
	*) from=$(stage_of "$(basename "$f" .h)") ;;
	esac
	grep -oE '#include "[a-z0-9_]+/[a-z0-9_]+\.h"' "$f" | sed 's/.*"\(.*\)"/\1/' | while read -r h; do
		case $h in
		h5lens/*) to=$(stage_of "$(basename "$h" .h)") ;;
		*) to=${h%%/*} ;;
		esac
		later "$from" "$to" && echo "$f includes $h"
	done
done > "${TMPDIR:-/tmp}/layers.$$"
complain "a stage includes a later one" "$(cat "${TMPDIR:-/tmp}/layers.$$")"
rm -f "${TMPDIR:-/tmp}/layers.$$"
[ $status = 0 ] && echo "layers: in order"
exit $status
