#!/bin/sh
# How many places a table takes (src/README.md, "To add"): its one file, a line a
# table in the list of tables, a line for each axis that it brings. Prints them, and
# fails when a table of that file, or an axis, is named anywhere else in the program.
#
#   check_seams.sh [TABLES [AXES [LABELS [SHARED]]]]    by default those of head_scores.c
#
# TABLES are the tables of one file, the first gives the file's name; AXES are what no
# other table has; LABELS are words of an axis's labels that stand for nothing else; SHARED
# are axes that these tables brought and other ones have by now.
# The manual page is made from the program; READMEs, tests, the checks that are run by hand and
# the pictures of plot.py and report.py, and who asks for them, may name all of them. ROOT=DIR is another tree.
set -u
tables=${1-head_scores head_scores_mean}
axes=${2-score}
labels=${3-previous_token duplicate_token}
shared=${4-layer}

first=${tables%% *}
own_file=src/tables/$first.c
table_list=include/h5lens/tables.def
axis_list=include/h5lens/axis.def

cd "${ROOT:-$(dirname "$0")/..}" || exit 2
status=0
lines=0

complain() {
	echo "seams: $*" >&2
	status=1
}
upper() {
	echo "$1" | tr '[:lower:]' '[:upper:]'
}
# one_line FILE PATTERN WHAT: just one line of the file has the pattern.
one_line() {
	n=$(grep -cE "$2" "$1" 2> /dev/null)
	if [ "${n:-0}" = 1 ]; then
		echo "  $1:$(grep -nE "$2" "$1")"
		lines=$((lines + 1))
	else
		complain "$1 has ${n:-0} lines for $3, not one"
	fi
}
# elsewhere PATTERN FILE …: the lines of other files that have it.
elsewhere() {
	pattern=$1
	shift
	grep -nE "$pattern" /dev/null "$@" 2> /dev/null | grep -vE "^($own_file|$table_list|$axis_list):"
}

if [ -f "$own_file" ]; then
	echo "$first: $own_file, $(grep -c '' "$own_file") lines; and"
else
	complain "there is no $own_file"
fi
names=
for t in $tables; do
	one_line $table_list "\\b($t|$(upper "$t"))\\b" "the table $t"
	names="$names${names:+|}(_|\\b)($t|$(upper "$t"))"
done
# An axis that others have by now was a line, too.
for a in $shared; do
	one_line $axis_list "^LENS_AXIS[A-Z_]*\\($(upper "$a")," "the axis $a"
done
for l in $labels; do
	names="$names|\\b$l\\b"
done
in_c=
for a in $axes; do
	one_line $axis_list "^LENS_AXIS[A-Z_]*\\($(upper "$a")," "the axis $a"
	in_c="$in_c${in_c:+|}\\bLENS_AXIS_$(upper "$a")\\b|\"$a\""
done

program=$(find src include -name '*.[ch]' -o -name '*.def')
others=$(ls Makefile scripts/*.py | grep -vE '^scripts/(check_|plot|report|truth|fidelity|make_golden|golden_models)')
found=$(
	elsewhere "$names" $program $others | grep -vE '^Makefile:[0-9]+:.*\$\(BIN\) plot '
	[ -n "$in_c" ] && elsewhere "$in_c" $program
	find src include -name "*$first*" ! -path "$own_file"
)
if [ -n "$found" ]; then
	complain "named in other places too:"
	echo "$found" | sed 's/^/  /' >&2
fi
[ $status = 0 ] && echo "seams: a new file and $lines lines"
exit $status
