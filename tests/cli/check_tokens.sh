#!/bin/sh
# Which tokens: BOS and who else has which, whose rules a tokenizer is read by, and
# the folders that transformers saves, at the command line. H5LENS is the program,
# WORK a folder of our own.
set -u
h5lens=${H5LENS:-build/h5lens}
work=$(mktemp -d "${WORK:-/tmp}/tokens.XXXXXX")
trap 'rm -rf "$work"' EXIT
saved=tests/unit/data/saved

. tests/cli/said.sh
silent() { # the last command warned of nothing
	if grep -q 'warning' "$work/said"; then
		failed=$((failed + 1))
		echo "FAILED: $name: a warning: $(grep warning "$work/said")"
	else
		passed=$((passed + 1))
	fi
}
attribute() { h5dump -a "$1" "$work/o.h5"; }
run() { "$h5lens" run --data "$work/p.csv" -o "$work/o.h5" --overwrite "$@"; }
printf 'prompt\nthe cat\nIn the\n' > "$work/p.csv"

qwen=$saved/tf4/qwen2 gpt2=$saved/tf4/gpt2
differs='warning: BOS is the token 290 "<\|im_end\|>", as TransformerLens chooses it; transformers. tokenizer.bos_token is none'
t "BOS is TransformerLens's, and that is said" 0 "$differs: choose with --bos-token" \
	"$h5lens" tokens $qwen "a" --bos --ids
t "the id" 0 '^290 65$' "$h5lens" tokens $qwen "a" --bos --ids
t "prompt says it too" 0 "$differs" "$h5lens" prompt $qwen "a" --top 1
t "a run says it, also when quiet" 0 "$differs.*: data.bos chooses, data.prepend_bos: false does" \
	run --model $qwen --quiet
t "the id is in the file" 0 '\(0\): 290$' attribute bos
t "whose rules, too" 0 'transformers 4.56, Qwen2Tokenizer' attribute tokenizer_rules
t "all agree" 0 '^0 65$' "$h5lens" tokens $gpt2 "a" --bos --ids
silent
t "chosen, a token" 0 '^0 65$' "$h5lens" tokens $qwen "a" --bos --ids --bos-token '<|endoftext|>'
silent
t "chosen in a run, an id" 0 '2 prompts in' run --model $qwen --set data.bos=7
silent
t "it is in the file" 0 '\(0\): 7$' attribute bos
t "chosen, a token of digits" 0 '2 prompts in' run --model $qwen --set 'data.bos="7"'
t "its id is in the file" 0 '\(0\): 23$' attribute bos
t "without, nothing is said" 0 '2 prompts in' run --model $qwen --set data.prepend_bos=false
silent
t "none is in the file" 0 '"none"' attribute bos
t "no such token" 2 'data.bos: "<nix>" is not a token of the tokenizer' \
	run --model $qwen --set 'data.bos=<nix>'
t "no such id" 2 "data.bos: the id 999 is not below the tokenizer's 293" \
	run --model $qwen --set data.bos=999

for folder in "$saved"/tf?/*; do
	if [ -e "$folder/refused" ]; then
		t "$folder" 1 "$(cat "$folder/refused")" run --model "$folder"
	else
		t "$folder" 0 '2 prompts in' run --model "$folder"
	fi
done

# NFC and Qwen2's own pattern, though there is no tokenizer.json.
t "e and an accent are one" 0 '^128 103$' "$h5lens" tokens $saved/tf4/qwen2-slow "$(printf 'e\314\201')" --ids
t "not with GPT-2's rules" 0 '^69 137 224$' "$h5lens" tokens $saved/tf4/gpt2-slow "$(printf 'e\314\201')" --ids
cp -r $saved/tf4/gpt2-slow "$work/other"
sed -i 's/GPT2Tokenizer/CodeGenTokenizer/' "$work/other/tokenizer_config.json"
t "another class's files" 1 'vocab.json and merges.txt of a CodeGenTokenizer' "$h5lens" tokens "$work/other" a
sed -i 's/CodeGenTokenizer/BertTokenizer/' "$work/other/tokenizer_config.json"
t "a class that we do not have" 1 'tokenizer_class "BertTokenizer" has rules that we do not know' "$h5lens" tokens "$work/other" a

echo "$passed passed, $failed failed"
[ $failed = 0 ]
