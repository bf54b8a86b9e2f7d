#!/bin/sh
# The manual page is what the program says of itself now; what bash and zsh complete.
set -u
h5lens=${H5LENS:-build/h5lens}
work=$(mktemp -d "${WORK:-/tmp}/completion.XXXXXX")
trap 'rm -rf "$work"' EXIT
. tests/cli/said.sh

"$h5lens" help --man > "$work/h5lens.1"
t "the manual page is current (make man)" 0 '^same$' sh -c "cmp '$work/h5lens.1' scripts/h5lens.1 && echo same"
for c in run prompt tokens info weights show export status merge pack verify completion; do
	t "$c is in it" 0 "^.SS h5lens $c\$" cat scripts/h5lens.1
done
"$h5lens" run --help | sed -n '/^keys/,$p' | grep -oE '(^  |: )[a-z_]+(\.[a-z_]+)*$' | sed 's/^[: ]*//' > "$work/keys"
for k in $(cat "$work/keys"); do
	grep -qF "\\fB$k\\fR" scripts/h5lens.1 || { failed=$((failed + 1)); echo "FAILED: the key $k is not in the manual page"; }
done
t "keys were found" 0 '^[5-9][0-9] ' sh -c "wc -l < '$work/keys' | sed 's/\$/ /'"
if command -v groff > /dev/null; then
	t "roff without warnings" 0 '^fine$' sh -c "[ -z \"\$(groff -man -Tutf8 -ww scripts/h5lens.1 2>&1 > /dev/null)\" ] && echo fine"
else
	echo "skipped: roff without warnings: no groff"
fi

t "no such shell" 2 "bash or zsh, not 'fish'" "$h5lens" completion fish
if command -v bash > /dev/null; then
	"$h5lens" completion bash > "$work/c.bash"
	cat > "$work/try.bash" <<'END'
source "$1"; shift
COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _h5lens; echo "|${COMPREPLY[*]}|"
END
	b() { # EXPECTED WORD…
		want=$1
		shift
		t "bash: $*" 0 "$want" bash "$work/try.bash" "$work/c.bash" "$@"
	}
	b '^\|show\|$' h5lens sh
	b '^\|--dry-run\|$' h5lens run --dr
	b '^\|data.prompt= data.prepend_bos=\|$' h5lens run --set data.pr
	b '^\|avx2 avx512\|$' h5lens run --set cpu = av
	b '^\|avx2 avx512\|$' h5lens run --cpu = av
	b '^\|avx2 avx512\|$' h5lens prompt --cpu av
	b '^\|blocks.\*.attn.hook_pattern\|$' h5lens run --hooks 'blocks.*.attn.hook_pa'
	b '^\|blocks.\*.hook_resid_mid\|$' h5lens run --set cache.hooks = 'blocks.*.hook_resid_m'
	b '^\|loss,entropy\|$' h5lens run --tables loss,ent
	b '^\|resid_pre,attn_head_pattern_by_pos\|$' h5lens run --patch resid_pre,attn_head_pattern_b
	b '^\|--columns\|$' h5lens export --co
	b '^\|hooked_transformer\|$' h5lens weights --format hoo
	b '^\|experiments\|$' h5lens tokens exp
	b '^\|README.md\|$' h5lens run READ
else
	echo "skipped: bash: not installed"
fi
if command -v zsh > /dev/null; then
	"$h5lens" completion zsh > "$work/_h5lens"
	t "zsh, syntax" 0 '^fine$' sh -c "zsh -n '$work/_h5lens' && echo fine"
	t "zsh, at work" 0 '^6 of 6$' "${PYTHON:-python3}" tests/cli/zsh_terminal.py "$work"
else
	echo "skipped: zsh: not installed"
fi
echo "$passed passed, $failed failed"
[ $failed = 0 ]
