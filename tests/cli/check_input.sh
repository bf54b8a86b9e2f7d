#!/bin/sh
# Data that are no file of texts: --text, standard input, token ids. What they are, what is
# said of bad ones, and that the same again goes on.
set -u
h5lens=${H5LENS:-build/h5lens}
work=$(mktemp -d "${WORK:-/tmp}/input.XXXXXX")
trap 'rm -rf "$work"' EXIT
model=experiments/demo-gpt2
. tests/cli/said.sh

run() { "$h5lens" run --model $model --hooks none "$@"; }
from() { # CSV: on standard input
	printf "$1" > "$work/in.csv"
	shift
	run --data - "$@" < "$work/in.csv"
}
ioi="When John and Mary went to the shops, John gave the bag to"

# --text
t "texts" 0 'text.h5: 2 prompts in' run --text "$ioi" --answer Mary --answer John \
	--text 'Tom said "hi",
then Sophie' --answer Sophie --answer Tom -o "$work/text.h5"
t "texts, again" 0 'text.h5 is finished: the same' run --text "$ioi" --answer Mary --answer John \
	--text 'Tom said "hi",
then Sophie' --answer " Sophie" --answer " Tom" -o "$work/text.h5"
t "texts, others" 1 'data content' run --text "$ioi" --answer Mary --answer John -o "$work/text.h5"
t "texts, shown" 0 '0  When John.*  " Mary"  +" John"  ' "$h5lens" show "$work/text.h5"
t "texts, quotes and newlines" 0 '^then Sophie"," Sophie"," Tom"' "$h5lens" export "$work/text.h5" --tables none
t "texts, where they were" 0 'path_data +--text$' "$h5lens" info "$work/text.h5"
t "an answer as it is" 1 "answer 'Mary' .* is 2 tokens" run --text a --answer Mary --no-space -o "$work/x.h5"
t "a bad text" 1 'h5lens: --text:2: record 1: the prompt .column .prompt.. is empty' run --text "" -o "$work/x.h5"
t "an answer without a text" 2 'its --text comes before it' run --answer a --text b -o "$work/x.h5"
t "answers, not as many" 2 "'b' has 0, not 1" run --text a --answer b --text b -o "$work/x.h5"
t "texts and a file" 2 'not both' run --text a --data "$work/in.csv" -o "$work/x.h5"

# Standard input; shards, so that a second run finds some of them.
head -n 41 experiments/ioi.csv > "$work/ioi.csv"
stdin() { run --data - --answers correct,incorrect --set shards.prompts=8 "$@" < "$work/ioi.csv"; }
t "standard input" 0 '40 prompts in .* in 5 shards' stdin -o "$work/in.h5"
run --data "$work/ioi.csv" --answers correct,incorrect --set shards.prompts=8 -o "$work/file.h5" > "$work/said" 2>&1
same() { "$h5lens" export "$1" > "$work/a.csv" && "$h5lens" export "$2" | cmp - "$work/a.csv" && echo same; }
t "the file's results" 0 '^same$' same "$work/in.h5" "$work/file.h5"
t "the file's identity" 0 'in.h5 is finished: the same' run --data "$work/ioi.csv" --answers correct,incorrect \
	--set shards.prompts=8 -o "$work/in.h5"
rm "$work/in.h5" "$work/in.shards/00002.h5"
t "it goes on" 0 '8 prompts in .*; 32 prompts were there already' stdin -o "$work/in.h5"
t "two tasks" 0 'joined' sh -c "
	'$h5lens' run --model $model --hooks none --data - --set shards.prompts=8 --task 1/2 -o '$work/task.h5' < '$work/ioi.csv' &&
	'$h5lens' run --model $model --hooks none --data - --set shards.prompts=8 --task 2/2 -o '$work/task.h5' < '$work/ioi.csv'"
t "empty standard input" 1 'standard input: the file is empty' from '' -o "$work/x.h5"
t "no rows" 1 'standard input: no rows' from 'prompt\n' -o "$work/x.h5"
t "a bad row" 1 'standard input:2: record 1: the prompt' from 'prompt\n""\n' -o "$work/x.h5"
t "no temporary folder" 1 'No such file' env TMPDIR="$work/none" sh -c "echo prompt | '$h5lens' run --model $model --data - -o '$work/x.h5'"

# Token ids. Of the same ids as a text's, the same results.
ids=$("$h5lens" tokens $model "$ioi" --ids)
mary=$("$h5lens" tokens $model " Mary" --ids)
john=$("$h5lens" tokens $model " John" --ids)
printf 'prompt,a,b\n"%s", Mary, John\n' "$ioi" > "$work/words.csv"
printf 'ids,a,b\n%s,%s,%s\n' "$ids" "$mary" "$john" > "$work/ids.csv"
run --data "$work/words.csv" --answers a,b -o "$work/words.h5" > "$work/said" 2>&1
t "ids" 0 '1 prompt in' run --data "$work/ids.csv" --tokens ids --answers a,b --answers-as ids -o "$work/ids.h5"
cells() { "$h5lens" export "$1" --columns none > "$work/a.csv" && "$h5lens" export "$2" --columns none | cmp - "$work/a.csv" && echo same; }
t "ids, a text's results" 0 '^same$' cells "$work/words.h5" "$work/ids.h5"
t "ids, answers as text" 0 '1 prompt in' from "ids,a,b\n$ids, Mary, John\n" --tokens ids --answers a,b -o "$work/mixed.h5"
t "ids, answers as text, the same" 0 '^same$' cells "$work/words.h5" "$work/mixed.h5"
bad() { from "ids,a\n$1\n" --tokens ids --answers a --answers-as ids -o "$work/x.h5"; }
t "an id that is none" 1 "input:2: record 1: column 'ids' has 'x', which is no token id" bad '1 x,1'
t "an id past the vocabulary" 1 "has token 2048, number 2 of '1 2048'; the model's vocabulary has 2048" bad '1 2048,1'
t "an answer of two ids" 1 "answer '1 2' .column 'a'. is 2 token ids, not one" bad '1 2,1 2'
t "no ids" 1 "the prompt .column 'ids'. is empty" bad ',1'
t "no column of ids" 1 "no column 'id' .did you mean 'ids'" from 'ids\n1\n' --tokens id -o "$work/x.h5"
t "a text looked for in ids" 2 'data.read_pos looks for a text in the prompts, and data.tokens' \
	from 'ids\n1\n' --tokens ids --read-pos '{find: a}' -o "$work/x.h5"
cp -r $model "$work/bare" && rm "$work"/bare/tokenizer*.json
bare() { "$h5lens" run --model "$work/bare" --hooks none --data "$work/ids.csv" --tokens ids --answers a,b "$@"; }
# $1 must not be in what the others say.
without() { unsaid=$1; shift; "$@" > "$work/told" 2>&1 && ! grep "$unsaid" "$work/told" && echo "not said"; }
t "no tokenizer, and none is needed: nothing to warn of" 0 '^not said$' \
	without warning bare --answers-as ids --set data.prepend_bos=false -o "$work/bare.h5"
echo '{' > "$work/bare/tokenizer.json"
t "a broken tokenizer, and none is needed" 0 'warning: no tokenizer is read, and none is needed: .*tokenizer.json' \
	bare --answers-as ids --set data.prepend_bos=false -o "$work/broken.h5"
rm "$work/bare/tokenizer.json"
t "again" 0 'is finished: the same' bare --answers-as ids --set data.prepend_bos=false -o "$work/bare.h5"
t "no tokenizer, and BOS" 1 'ids need a tokenizer for BOS, see data.prepend_bos' bare --answers-as ids -o "$work/x.h5"
t "verified" 0 ' 0 bad' "$h5lens" verify "$work/bare.h5"
t "the induction experiment's data" 0 '^as written$' sh -c "'${PYTHON:-python3}' scripts/make_induction.py --check && echo as written"

if [ -e "$work/x.h5" ]; then
	failed=$((failed + 1))
	echo "FAILED: a bad run left a file"
fi
echo "$passed passed, $failed failed"
[ $failed = 0 ]
