#!/bin/sh
# Runs every tests/cli/check_*.{sh,py} on the program. Each ends with 'N passed, N
# failed' and exits with 0 when all is well; 'skipped: WHAT: WHY' is a line for
# each check that could not be made. The last line counts checks.
set -u
bin=$1
passed=0 failed=0
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export H5LENS="$bin" WORK="$work"

run() {
	name=$1
	shift
	"$@" > "$work/log" 2>&1
	code=$?
	good=$(sed -n '$s/^\([0-9]*\) passed, [0-9]* failed.*/\1/p' "$work/log")
	bad=$(sed -n '$s/^[0-9]* passed, \([0-9]*\) failed.*/\1/p' "$work/log")
	if [ $code = 0 ] && [ "${bad:-0}" = 0 ]; then
		echo "ok: $name: $(tail -n 1 "$work/log")"
		good=${good:-1} bad=0 # the program itself counts nothing: it is one check
	else
		echo "FAILED: $name: exit code $code"
		cat "$work/log"
		[ "${bad:-0}" -gt 0 ] || bad=1
	fi
	grep '^skipped: ' "$work/log" | sort -u | sed "s|$| ($name)|" >> "$work/skipped"
	passed=$((passed + ${good:-0})) failed=$((failed + bad))
}
for t in tests/cli/check_*; do
	case $t in
	*check_reader.py) ;; # below, on real outputs
	*.py) run "$t" "$PYTHON" "$t" ;;
	*.sh) run "$t" sh "$t" ;;
	esac
done
run "tests/cli/check_reader.py, itself" "$PYTHON" tests/cli/check_reader.py --self-test
for how in "" "--dtype f16" "--positions [0,-1] --set tables=all --attrs-positions all" \
	"--layout ragged" "--layout ragged --positions [0,-1,21] --dtype f16 --set shards.prompts=9"; do
	# shellcheck disable=SC2086  # words
	run "h5lens run $how" "$bin" run experiments/ioi.yaml -o "$work/out.h5" --limit 40 --overwrite $how
	run "reading it with h5py, xarray, h5dump" "$PYTHON" tests/cli/check_reader.py "$work/out.h5" experiments/demo-gpt2
done
# A grid of the patterns is larger than what a joined output holds itself.
run "h5lens run, interventions in shards" "$bin" run experiments/ioi-patching.yaml -o "$work/patch.h5" --limit 8 --patch \
	resid_pre,attn_head_out_all_pos,attn_head_pattern_dest_src_pos --set shards.prompts=3 \
	--set 'ablate.grids=[attn_head_out_all_pos,mlp_out]' --set 'ablate.sets={a: [3.3, 3.2], b: [0.1]}'
run "reading them" "$PYTHON" tests/cli/check_reader.py "$work/patch.h5"
cat "$work/skipped"
echo "$passed passed, $failed failed, $(wc -l < "$work/skipped") skipped"
[ $failed = 0 ]
