#!/bin/sh
# The command line as a user meets it: output, messages, exit codes, what is
# left on the disk. H5LENS is the program, WORK a folder of our own.
set -u
h5lens=${H5LENS:-build/h5lens}
work=$(mktemp -d "${WORK:-/tmp}/cli.XXXXXX")
trap 'umount "$work/small" 2>/dev/null; rm -rf "$work"' EXIT
model=experiments/demo-gpt2
skipped=0

. tests/cli/said.sh
absent() { # no output, no temporary file
	if [ -n "$(find "$work" -name "$1*")" ]; then
		failed=$((failed + 1))
		echo "FAILED: left behind: $(find "$work" -name "$1*")"
	else
		passed=$((passed + 1))
	fi
}
skip() { # NAME WHY
	skipped=$((skipped + 1))
	echo "skipped: $1: $2"
}
run() { "$h5lens" run --model $model --data "$csv" --answers correct,incorrect "$@"; }

csv=$work/ioi.csv
head -n 41 experiments/ioi.csv > "$csv"
mkdir "$work/far"

t "no command" 2 'usage: h5lens COMMAND' "$h5lens"
t "help" 0 'run .*run an experiment' "$h5lens" --help
t "help of a command" 0 'usage: h5lens run' "$h5lens" help run
t "help of no command" 2 "did you mean 'prompt'" "$h5lens" help promt
t "version" 0 'OpenBLAS [0-9.]+ ' "$h5lens" --version
t "unknown command" 2 "did you mean 'prompt'" "$h5lens" promt
t "unknown option" 2 "unknown option '--hook'" run --hook x
t "option without value" 2 'needs a value' run --set
t "unknown key" 2 'cache.hooks' run -o "$work/x.h5" --set cache.hoks=a
t "no output named" 2 'output' run
for c in run prompt tokens info weights show export verify status merge pack report plot; do
	t "$c --help" 0 "usage: h5lens $c" "$h5lens" $c --help
done

t "tokens" 0 '^[0-9]+( [0-9]+)*$' "$h5lens" tokens $model "a b" --ids
t "tokens, pieces" 0 '\| Mary\|' "$h5lens" tokens $model "and Mary"
t "tokens, invalid UTF-8" 1 'UTF-8' "$h5lens" tokens $model "$(printf 'a\377')"
t "prompt" 0 'answer token \| Mary\|: rank [0-9]+' "$h5lens" prompt $model \
	"When John and Mary went to the shops, John gave the bag to" --answer " Mary"
t "prompt, several answer tokens" 0 'answer tokens: \|.*\| \|' "$h5lens" prompt $model "John" \
	--answer " Mary went"
t "prompt, bad model" 1 'nowhere' "$h5lens" prompt nowhere "a"
t "prompt, too long" 2 'context' "$h5lens" prompt $model "$(yes ' Mary' | head -n 400 | tr -d '\n')"
t "info of a model" 0 'blocks.*hook_pattern .*\[head 4, query, key\]' "$h5lens" info $model
t "info of nothing" 1 'cannot open' "$h5lens" info "$work/none.h5"

t "dry run" 0 'plan: 40 prompts' run -o "$work/a.h5" --dry-run
t "dry run, its time" 0 'time: about [0-9]+ s for 0.00[0-9]+ TFLOP, if each of .* .[0-9]+ prompts? in .* GFLOP/s.; writing' \
	run -o "$work/a.h5" --dry-run
t "dry run, a task's time" 0 'time: about' run -o "$work/a.h5" --dry-run --task 1/2 --set shards.prompts=8
t "dry run, a task without a share" 0 'task 9/9: 0 prompts' run -o "$work/a.h5" --dry-run --task 9/9 --set shards.prompts=8
"$h5lens" run --model $model --data "$csv" -o "$work/a.h5" --dry-run 2>&1 | grep -n '^/cache' | cut -d' ' -f1 > "$work/hooks"
before() { # is the first hook listed before the second?
	t "$1 before $2" 0 '^yes$' sh -c "[ \$(grep -n '$1\$' '$work/hooks' | cut -d: -f1) -lt \$(grep -n '$2\$' '$work/hooks' | cut -d: -f1) ] && echo yes"
}
before hook_pos_embed blocks.0.hook_resid_pre
before blocks.0.hook_resid_post blocks.1.hook_resid_pre
before blocks.1.hook_resid_pre blocks.1.ln1.hook_scale
before blocks.3.hook_resid_post ln_final.hook_scale
absent a.h5

# Reading at a word.
t "read at a text" 0 'plan: 40 prompts' run -o "$work/m.h5" --read-pos '{find: " to", nth: 0}' --dry-run
t "read at a column's text" 0 'plan: 40 prompts' run -o "$work/m.h5" --dry-run \
	--set 'data.read_pos={find_column: correct, nth: -1}'
t "read at a text that is not there" 1 "ioi.csv:2: record 1: the text ' Zoe' is not in the prompt" \
	run -o "$work/m.h5" --read-pos '{find: " Zoe"}'
t "read at a second text" 1 "in the prompt, but only 1 of it: there is no nth 1" \
	run -o "$work/m.h5" --read-pos '{find_column: correct, nth: 1}'
t "read at a column that is not there" 1 "no column 'corect' .did you mean 'correct'" \
	run -o "$work/m.h5" --read-pos '{find_column: corect}'
t "read at a text, misspelt" 2 "unknown key 'data.read_pos.fnd'; expected an integer" \
	run -o "$work/m.h5" --read-pos '{fnd: a}'
absent m.h5

# The wrong kind of thing, or one word too many: what to type.
a_file='is a folder, and a file is needed here' a_folder='is a file; a model is named by its folder'
t "a folder as data" 2 "far $a_file" "$h5lens" run --model $model --data "$work/far" -o "$work/m.h5"
t "a folder as an experiment" 2 "far $a_file" "$h5lens" run "$work/far"
for c in verify status merge pack show export; do
	t "a folder for $c" 2 "far $a_file" "$h5lens" $c "$work/far" $([ $c = pack ] && echo -o "$work/one.h5")
done
t "a file as a model" 2 "config.json $a_folder" "$h5lens" run --model $model/config.json --data "$csv" -o "$work/m.h5"
t "prompt, a file as a model" 2 "config.json $a_folder" "$h5lens" prompt $model/config.json a
t "tokens, a file as a model" 2 "config.json $a_folder" "$h5lens" tokens $model/config.json a
t "a CSV as an experiment" 2 'is a CSV file, not an experiment: h5lens run --data .*ioi.csv --model DIR -o' "$h5lens" run "$csv"
t "no such experiment" 2 'no experiment file .*none.yaml$' "$h5lens" run "$work/none.yaml"
printf 'model: ~/gpt2\ndata: {csv: ioi.csv}\noutput: x.h5\n' > "$work/home.yaml"
t "~ in an experiment" 1 'home.yaml:1:8: model: ~ is expanded by a shell only, .*~/gpt2' "$h5lens" run "$work/home.yaml"
t "a list in two words" 2 "no experiment file incorrect; a list is written without spaces, A,B" \
	"$h5lens" run --model $model --data "$csv" --answers correct, incorrect -o "$work/m.h5"
t "a list in two words, and an experiment" 2 "not 'incorrect'; a list is written without spaces" \
	"$h5lens" run experiments/ioi.yaml --answers correct, incorrect -o "$work/m.h5"
t "a list with a space, quoted" 0 'plan: 40 prompts' "$h5lens" run --model $model --data "$csv" \
	--answers "correct, incorrect" -o "$work/m.h5" --dry-run
t "no rows" 2 "data.limit: expected all . a number of rows from 1, not '0'" run -o "$work/m.h5" --limit 0
t "no threads" 2 "threads: expected auto . a number from 1, not '0'" run -o "$work/m.h5" --threads 0
t "a size without its unit" 2 "memory: expected auto . a size with its unit .*, not '4'" run -o "$work/m.h5" --memory 4
for cpus in abc 0 -1 4x ''; do
	export SLURM_CPUS_PER_TASK="$cpus"
	t "Slurm's CPUs: '$cpus'" 0 "warning: SLURM_CPUS_PER_TASK is '$cpus', not a number" run -o "$work/m.h5" --dry-run
	t "Slurm's CPUs: '$cpus', ignored" 0 "threads $(env -u OMP_NUM_THREADS nproc)$" "$h5lens" --version
done
SLURM_CPUS_PER_TASK=3
t "Slurm's CPUs" 0 'threads 3$' "$h5lens" --version
unset SLURM_CPUS_PER_TASK
absent m.h5

t "run" 0 'mean logit difference' run -o "$work/a.h5"
t "again: finished" 0 'is finished' run -o "$work/a.h5"
t "another experiment" 1 'cache.dtype: "f32" there, "f16" here' run -o "$work/a.h5" --dtype f16
t "other data" 1 'data content' "$h5lens" run --model $model --data experiments/ioi_classic.csv \
	--answers correct,incorrect -o "$work/a.h5"
t "another list, in the user's words" 1 'cache.hooks: [*] there, hook_embed,hook_pos_embed here.; choose' \
	run -o "$work/a.h5" --hooks hook_embed,hook_pos_embed
t "no hook, on an existing output" 2 "no hook point matches 'hook_embd'; did you mean 'hook_embed'" \
	run -o "$work/a.h5" --hooks hook_embd

# config.json and the tokenizer are enough for a plan.
mkdir "$work/shapes"
cp tests/golden/data/qwen3/*.json "$work/shapes/"
shapes() { "$h5lens" run --model "$work/shapes" --data tests/golden/data/qwen3/prompts.csv \
	--answers correct,incorrect -o "$work/shapes.h5" "$@"; }
t "dry run without weights" 0 'holds no weights: its plan is that of config.json' shapes --dry-run
t "dry run without weights, its plan" 0 'blocks.1.attn.q_norm.hook_scale +6.36.4.1' shapes --dry-run
t "run without weights" 1 'holds no weights: model.safetensors' shapes

# What version 0.1.0 wrote (schema 1): tests/golden/schema1, of this model and CSV.
cp -r tests/golden/schema1/. "$work/"
old=tests/golden/data/gpt2_gelu_new
old() { "$h5lens" run --model $old --data $old/prompts.csv --answers correct,incorrect --cpu avx2 "$@"; }
# AVX2's numbers have had other bits since: numerics 2.
other='results have other bits .numerics: 1 there, 2 here.'
t "schema 1, finished" 1 "of the same experiment, by a version of h5lens whose $other" old -o "$work/finished.h5" --hooks none
t "schema 1, finished, in shards" 1 "$other" old -o "$work/sweep.h5" \
	--hooks ln_final.hook_scale --set shards.prompts=2
t "schema 1, another experiment" 1 'another experiment .top_k: 10 there, 3 here; numerics: 1 there, 2 here.;' \
	old -o "$work/finished.h5" --hooks none --top-k 3
# AVX-512's have not: the same file, as if it were of that level.
if grep -qw avx512f /proc/cpuinfo; then
	cp "$work/finished.h5" "$work/finished512.h5"
	"${PYTHON:-python3}" -c 'import h5py, sys
with h5py.File(sys.argv[1], "r+") as f:
    f.attrs["identity"] = f.attrs["identity"].replace("avx2", "avx512")' "$work/finished512.h5"
	t "schema 1, finished, numerics 1" 0 'is finished: the same' \
		old -o "$work/finished512.h5" --hooks none --cpu avx512
	t "schema 1, another experiment, numerics 1" 1 'another experiment .top_k: 10 there, 3 here.;' \
		old -o "$work/finished512.h5" --hooks none --cpu avx512 --top-k 3
fi
t "schema 1, verified" 0 ' 0 bad' "$h5lens" verify "$work/finished.h5"
t "schema 1, verified in shards" 0 ' 0 bad' "$h5lens" verify "$work/sweep.h5"
t "schema 1, looked at" 0 'logit difference > 0' "$h5lens" info "$work/sweep.h5"
t "schema 1, packed" 0 'schema1.h5: packed from' "$h5lens" pack "$work/sweep.h5" -o "$work/schema1.h5"
t "schema 1, packed, verified" 0 ' 0 bad' "$h5lens" verify "$work/schema1.h5"
t "schema 1, repaired" 1 "$other" \
	old -o "$work/sweep.h5" --hooks ln_final.hook_scale --set shards.prompts=2 --repair
t "schema 1, begun, with nothing done" 0 'prompts in' old -o "$work/begun.h5" --hooks none --set shards.prompts=2
t "schema 1, begun, overwritten" 0 'prompts in' \
	old -o "$work/begun.h5" --hooks none --set shards.prompts=2 --overwrite
t "schema 2, verified" 0 ' 0 bad' "$h5lens" verify "$work/begun.h5"
t "overwrite" 0 'prompts in' run -o "$work/a.h5" --dtype f16 --overwrite
t "verify" 0 ' 0 bad' "$h5lens" verify "$work/a.h5"
t "info of a file, layers on one line" 0 \
	'^  /cache/blocks.\{0…3\}.attn.hook_pattern +float16 \[prompt 40, head 4, query 54, key 54\] 3.6 MiB together$' "$h5lens" info "$work/a.h5"
t "info of a file, links" 0 '/cache/blocks.\{1…3\}.hook_resid_pre +. /cache/blocks.\{0…2\}.hook_resid_post$' "$h5lens" info "$work/a.h5"
t "info of a file, its experiment" 0 '^\{"ablate".*"weights":\{.*\}\}$' "$h5lens" info "$work/a.h5" --experiment
t "the experiment, run again" 0 'a.h5 is finished: the same' sh -c "
	'$h5lens' info '$work/a.h5' --experiment > '$work/again.yaml' &&
	'$h5lens' run '$work/again.yaml' --model $model --data '$csv' -o '$work/a.h5'"
ablated() { run -o "$work/ablated.h5" --hooks none --limit 3 --set 'ablate.sets={a: [3.3]}' --overwrite "$@"; }
t "ablation" 0 'prompts in' ablated
t "info of ablated heads" 0 'hook_z lacks b_V, which is folded into b_O' "$h5lens" info "$work/ablated.h5"
t "ablation, b_V in z" 0 'prompts in' ablated --set weights.fold_value_biases=false
t "info of ablated heads, b_V in z" 0 'no note' \
	sh -c "\"$h5lens\" info \"$work/ablated.h5\" | grep 'lacks b_V' || echo no note"
t "output on the input" 2 'are the same file' run -o "$csv"
echo data > "$work/foreign.h5"
t "a foreign file in the way" 1 'not an output of h5lens' run -o "$work/foreign.h5"
t "folder missing" 1 'No such file' run -o "$work/none/a.h5"
t "overwriting what is not ours" 2 'not overwritten' run -o "$work/foreign.h5" --overwrite
t "a folder as output" 2 'is a folder' run -o "$work"
t "dry run, folder missing" 1 'No such file' run -o "$work/none/a.h5" --dry-run
ln -s far/real.h5 "$work/link.h5"
t "through a link" 0 'prompts in' run -o "$work/link.h5" --limit 4
t "the link stays" 0 '^yes$' sh -c "[ -L '$work/link.h5' ] && [ -f '$work/far/real.h5' ] && echo yes"
t "too many top tokens" 2 'more than 1000' run -o "$work/m.h5" --set top_k=2000
t "one of each" 0 'plan: 1 prompt of up to [0-9]+ tokens, 1 batch of .*1 worker of' sh -c "
	'$h5lens' run --model $model --data '$csv' -o '$work/m.h5' --limit 1 --dry-run | tr '\n' ' '"
t "one prompt" 0 'o.h5: 1 prompt in ' run -o "$work/o.h5" --limit 1 --hooks none
for notes in m.h5.part m.h5.part-0123abcd; do
	echo notes > "$work/$notes"
	t "a foreign file under a temporary name" 0 'plan: ' run -o "$work/m.h5" --limit 1
	t "it is still there" 0 notes cat "$work/$notes"
	rm "$work/$notes" "$work/m.h5"
done

# Weights of 8e37: the logits overflow. Told, flagged, exit code 1, also the second time.
cp -r $model "$work/huge"
size=$(stat -c %s "$work/huge/model.safetensors")
head -c 2000000 /dev/zero | tr '\0' '\176' |
	dd of="$work/huge/model.safetensors" bs=4096 seek=$(((size - 2000000) / 4096)) conv=notrunc 2>/dev/null
truncate -s "$size" "$work/huge/model.safetensors"
for time in first second; do
	t "logits that are not finite, the $time time" 1 'have logits that are not finite' \
		"$h5lens" run --model "$work/huge" --data "$csv" --answers correct,incorrect -o "$work/huge.h5"
done
t "verbose" 0 '^workers, [0-9.]+ s: compute [0-9.]+ %, convert [0-9.]+ %, .*wait [0-9.]+ %$' \
	run -o "$work/verbose.h5" --verbose
t "verbose, of the writer" 0 '^writer, [0-9.]+ s: convert [0-9.]+ %, .*write [0-9.]+ %, wait [0-9.]+ %$' \
	run -o "$work/verbose.h5" --verbose --overwrite
t "verbose, nothing to do" 0 'is finished: the same' run -o "$work/verbose.h5" --verbose
t "verbose and quiet" 2 'not both' run -o "$work/verbose.h5" --verbose --quiet
t "quiet" 0 '^$' sh -c "'$h5lens' run --model $model --data '$csv' -o '$work/q.h5' --quiet; echo"
t "shards that were doubled" 0 'plan: 1200 prompts .* 300 shards .of 4 prompts, not the 1 of shards.prompts: at most 500' \
	run -o "$work/m.h5" --data experiments/ioi.csv --set shards.prompts=1 --dry-run
t "memory, given" 0 'memory: .* of 512.0 MiB .--memory.: model' run -o "$work/m.h5" --memory 512M --dry-run
t "memory, of the job" 0 'memory: .* of 300.0 MiB .three quarters of SLURM_MEM_PER_NODE.: model' env \
	SLURM_MEM_PER_NODE=400 "$h5lens" run --model $model --data "$csv" -o "$work/m.h5" --dry-run
t "memory, of the job's CPUs" 0 'memory: .* of 300.0 MiB .three quarters of SLURM_MEM_PER_CPU for' env \
	SLURM_MEM_PER_CPU=100 SLURM_CPUS_ON_NODE=4 "$h5lens" run --model $model --data "$csv" -o "$work/m.h5" --dry-run
t "too little memory" 1 '--memory gives 1 MiB' run -o "$work/m.h5" --memory 1M
t "hook that is none" 2 "did you mean 'blocks.0.hook_resid_pre'" run -o "$work/m.h5" \
	--hooks blocks.0.hook_resid_pr
t "layer that is none" 2 'the model has' run -o "$work/m.h5" --hooks blocks.99.hook_resid_pre
t "hook for interventions" 1 'repeated once per head' run -o "$work/m.h5" --hooks blocks.0.hook_q_input
t "position that is none" 2 'no prompt has a position 1000' run -o "$work/m.h5" --positions '[1000]'
t "missing column" 1 "ioi.csv:1: no column 'wrong'; the columns are: prompt, correct, incorrect, template, " run -o "$work/m.h5" --set data.answers=wrong
t "a list given twice" 2 'with commas' run -o "$work/m.h5" --answers wrong
absent m.h5

printf 'prompt,correct,incorrect\nGood one, Mary, John\nBad one, Mary Ann, John\n,\n' > "$work/bad.csv"
csv=$work/bad.csv
t "bad rows are listed" 1 'bad.csv:3: .*Mary Ann' run -o "$work/b.h5"
absent b.h5
t "bad rows can be skipped" 0 'prompts +1$' run -o "$work/b.h5" --set data.on_bad_row=skip
csv=experiments/ioi.csv

# Pairs of prompts, and the keys of patching.
patch() { "$h5lens" run experiments/ioi-patching.yaml -o "$work/p.h5" "$@"; }
t "pairs: dry run" 0 'plan: 480 prompts' patch --dry-run
t "pairs: no such grid" 2 "patch.grids: there is no grid 'resid_per'; did you mean 'resid_pre'" patch --patch resid_per
t "pairs: a hook point" 2 "'hook_v_input' is no grid: attn_head_v_all_pos and" patch --patch attn_out,hook_v_input
t "pairs: nothing uses them" 2 'data.corrupted is set, but nothing uses it: list what to patch in patch.grids' \
	run -o "$work/p.h5" --corrupted corrupted
t "pairs: no pairs" 2 'patch.grids needs corrupted prompts: name their column in data.corrupted' run -o "$work/p.h5" --patch resid_pre
t "pairs: keys without grids" 2 'patch.metric is set, but patch.grids lists nothing to patch' \
	run -o "$work/p.h5" --set patch.metric=answer_logit
t "pairs: too few answers" 2 'patch.grids measures logit_diff, which needs 2 answer columns; data.answers names 1' \
	patch --answers correct --tables default
t "pairs: no such column" 1 "no column 'corupted' .did you mean 'corrupted'" patch --corrupted corupted
t "pairs: a set of heads" 2 "ablate.sets measures logit_diff, which needs 2 answer" \
	"$h5lens" run experiments/ioi.yaml -o "$work/p.h5" --set 'ablate.sets={a: [9.9, 10.0]}' --answers correct --tables none
t "pairs: not a head" 2 "ablate.sets: '9' is not a head" patch --set 'ablate.sets={a: [9]}'
printf 'prompt,corrupted,correct,incorrect\nthe Mary went,the John, Mary, John\na,a, Mary, John\n' > "$work/pairs.csv"
t "pairs: bad ones" 1 "pairs.csv:2: record 1: the prompt has 4 tokens and the corrupted one [(]column 'corrupted'[)] 3 [(]BOS included[)]; they must be as many. They part at token 2: ' Mary' and ' John'" \
	patch --data "$work/pairs.csv"
t "pairs: all bad ones" 1 "pairs.csv:3: record 2: the corrupted prompt [(]column 'corrupted'[)] has the prompt's tokens" \
	patch --data "$work/pairs.csv"
absent p.h5

# A file that was changed after it was written.
cp "$work/a.h5" "$work/damaged.h5"
size=$(stat -c %s "$work/damaged.h5")
printf 'XXXXXXXX' | dd of="$work/damaged.h5" bs=1 seek=$((size / 2)) conv=notrunc 2>/dev/null
t "verify of a damaged file" 1 '^/cache/[^ ]*: chunk \[[0-9,]*\] does not match its digest$' "$h5lens" verify "$work/damaged.h5"
head -c $((size / 2)) "$work/a.h5" > "$work/cut.h5"
t "verify of a truncated file" 1 'cut.h5: cannot open it as an HDF5 file: .*truncated file' "$h5lens" verify "$work/cut.h5"

# Two runs at once on one output: the second is refused, the first is whole.
"$h5lens" run --model $model --data experiments/ioi.csv -o "$work/two.h5" --quiet --threads 1 &
pid=$!
i=0
while ! ls "$work"/two.shards/*.run > "$work/said" 2>&1 && [ $i -lt 500 ]; do sleep 0.01; i=$((i + 1)); done
t "a second run at once" 75 "process $pid on .* is at work on this output" run -o "$work/two.h5" --limit 8 --overwrite
wait $pid
t "the first is whole" 0 ' 0 bad' "$h5lens" verify "$work/two.h5"
rm -rf "$work/two.h5" "$work/two.shards"

# A sweep in shards, in tasks and joined, as a user types it. Moments: check_kills.py.
csv=$work/ioi.csv
sharded() { run -o "$work/sh.h5" --hooks '*resid_post' --set shards.prompts=16 "$@"; }
t "status of nothing" 1 'cannot find it or its shards: nothing was begun under this name' "$h5lens" status "$work/sh.h5"
t "merge of nothing" 1 'cannot find it or its shards' "$h5lens" merge "$work/sh.h5"
t "pack of nothing" 1 'cannot find it or its shards' "$h5lens" pack "$work/sh.h5" -o "$work/one.h5"
t "shards, dry run" 0 'plan: 40 prompts.*, 3 shards; files ' sharded --dry-run
absent sh.h5
absent sh.shards
for bad in 0/3 4/3 3 a/b 1/0 -1/3 1/3/5 '1 /3' ''; do
	t "a task that is none: '$bad'" 2 '[-][-]task needs I/N, 1 to N of N' sharded --task "$bad"
	t "a task that is none: ='$bad'" 2 '[-][-]task needs I/N, 1 to N of N' sharded "--task=$bad"
done
t "a task without its number" 2 '[-][-]task needs a value: I/N' sharded --task
t "tasks that overwrite" 2 'tasks cannot overwrite' sharded --task 1/3 --overwrite
t "shards of nothing" 2 'shards.bytes' sharded --set shards.bytes=0
t "a task, dry run" 0 '^task 3/3: 8 prompts in 1 shard, [0-9.]+ .iB$' sharded --dry-run --task 3/3
t "task 2 of 3" 0 "share is done: 16 prompts in .*the last task joins them all .or h5lens merge" sharded --task 2/3
t "status" 75 'sh.h5: 1 of 3 shards done, 16 of 40 prompts' "$h5lens" status "$work/sh.h5"
t "status, what is missing" 75 'missing: 00000, 00002$' "$h5lens" status "$work/sh.h5"
t "status, who" 75 'no run is at work on it' "$h5lens" status "$work/sh.h5"
t "merge too early" 75 '2 of 3 shards are missing: 00000.h5, 00002.h5' "$h5lens" merge "$work/sh.h5"
t "pack too early" 75 '2 of 3 shards are missing: 00000.h5, 00002.h5' "$h5lens" pack "$work/sh.h5" -o "$work/one.h5"
absent one.h5
for c in verify:1 info:1 merge:75; do
	t "${c%:*} of what is not finished" ${c#*:} 'it is not finished: see h5lens status .*sh.h5' "$h5lens" "${c%:*}" "$work/sh.h5"
done
t "another experiment's tasks" 1 'top_k: 10 there, 3 here' sharded --task 1/3 --set top_k=3
t "a task of a Slurm array" 0 "share is done: 16 prompts" env SLURM_ARRAY_TASK_ID=4 SLURM_ARRAY_TASK_MIN=4 \
	SLURM_ARRAY_TASK_MAX=8 SLURM_ARRAY_TASK_STEP=2 "$h5lens" run --model $model --data "$csv" \
	--answers correct,incorrect -o "$work/sh.h5" --hooks '*resid_post' --set shards.prompts=16
t "a Slurm array that makes no task" 2 'use --task I/N' env SLURM_ARRAY_TASK_ID=4 "$h5lens" run \
	--model $model --data "$csv" -o "$work/sh2.h5"
t "a Slurm array, and a task named" 0 "share is done: 0 prompts .* 16 were there already" \
	env SLURM_ARRAY_TASK_ID=4 "$h5lens" run --model $model --data "$csv" --answers correct,incorrect \
	-o "$work/sh.h5" --hooks '*resid_post' --set shards.prompts=16 --task 1/3
step() { # TASKS TASK-FROM-0 …
	n=$1 i=$2
	shift 2
	env SLURM_STEP_NUM_TASKS="$n" SLURM_PROCID="$i" "$@" "$h5lens" run --model $model --data "$csv" \
		--answers correct,incorrect -o "$work/sh.h5" --hooks '*resid_post' --set shards.prompts=16 --dry-run
}
t "a task of srun" 0 '^task 3/4: 8 prompts in 1 shard' step 4 2
t "a task of srun in a job array" 0 '^task 6/8: 0 prompts' step 4 1 SLURM_ARRAY_TASK_ID=6 \
	SLURM_ARRAY_TASK_MIN=5 SLURM_ARRAY_TASK_MAX=6
t "srun of one in a job array" 0 '^task 2/3: 16 prompts' step 1 0 SLURM_ARRAY_TASK_ID=6 \
	SLURM_ARRAY_TASK_MIN=5 SLURM_ARRAY_TASK_MAX=7
t "srun of one is the whole" 1 '^task: none' sh -c "SLURM_STEP_NUM_TASKS=1 SLURM_PROCID=0 \
	'$h5lens' run --model $model --data '$csv' -o '$work/sh2.h5' --dry-run | grep '^task' || { echo task: none; exit 1; }"
t "sbatch -n4 is the whole" 1 '^task: none' sh -c "SLURM_NTASKS=4 SLURM_PROCID=0 \
	'$h5lens' run --model $model --data '$csv' -o '$work/sh2.h5' --dry-run | grep '^task' || { echo task: none; exit 1; }"
for bad in '4 4' 'x 0' '4 x' '0 0' '4 -1'; do
	# shellcheck disable=SC2086  # two words
	t "srun that makes no task: $bad" 2 'SLURM_PROCID and SLURM_STEP_NUM_TASKS do not make a task' step $bad
done
t "a task, quiet" 0 '^$' sh -c "'$h5lens' run --model $model --data '$csv' --answers correct,incorrect \
	-o '$work/sh.h5' --hooks '*resid_post' --set shards.prompts=16 --task 3/3 --quiet; echo"
t "it was the last, and joined them" 0 ' 0 bad' "$h5lens" verify "$work/sh.h5"
rm "$work/sh.h5"
t "status, all there" 75 '3 of 3 shards done, 40 of 40 prompts, .*; h5lens merge' "$h5lens" status "$work/sh.h5"
t "merge" 0 'mean logit difference' "$h5lens" merge "$work/sh.h5"
t "merge again" 0 'sh.h5: 40 prompts' "$h5lens" merge "$work/sh.h5"
t "status, finished" 0 '3 of 3 shards done, 40 of 40 prompts, .*; finished' "$h5lens" status "$work/sh.h5"
t "the same command" 0 'is finished' sharded
t "verify of all shards" 0 ' 0 bad' "$h5lens" verify "$work/sh.h5"
t "verify with threads" 0 ' 0 bad' "$h5lens" verify "$work/sh.h5" --threads 2
t "verify, threads that are none" 2 'takes a number' "$h5lens" verify "$work/sh.h5" --threads none
for c in merge 'pack -o "$work/one.h5"'; do
	t "$c, threads that are none" 2 'takes a number' eval "\"$h5lens\" $c \"$work/sh.h5\" --threads 0"
	t "$c with threads" 0 'sh.h5' eval "\"$h5lens\" $c \"$work/sh.h5\" --threads 2"
done
rm "$work/one.h5"
t "verify, too many threads" 2 "from 1 to 1024, not '2000'" "$h5lens" verify "$work/sh.h5" --threads 2000
t "info of a joined file" 0 '/cache/blocks.\{0…3\}.hook_resid_post .* in the shards' "$h5lens" info "$work/sh.h5"
size=$(cat "$work"/sh.shards/*.h5 | wc -c | awk '{printf "%.1f MiB", $1 / 1048576}')
t "info, the shards" 0 "^  3 files, $size together: sh.shards/00000.h5" "$h5lens" info "$work/sh.h5"
t "pack without a name" 2 '-o ONE.h5 is missing' "$h5lens" pack "$work/sh.h5"
t "pack over itself" 2 'is the output itself' "$h5lens" pack "$work/sh.h5" -o "$work/sh.h5"
t "pack over a shard" 2 "00001.h5: is in the folder of another output's shards$" "$h5lens" pack "$work/sh.h5" -o "$work/sh.shards/00001.h5" --overwrite
t "pack" 0 'one.h5: packed from' "$h5lens" pack "$work/sh.h5" -o "$work/one.h5"
t "pack over a file" 2 'exists; choose another name, or --overwrite' "$h5lens" pack "$work/sh.h5" -o "$work/one.h5"
t "pack over a file, as asked" 0 'packed' "$h5lens" pack "$work/sh.h5" -o "$work/one.h5" --overwrite
t "verify of a packed file" 0 ' 0 bad' "$h5lens" verify "$work/one.h5"
t "status of a packed file" 0 'one.h5: finished' "$h5lens" status "$work/one.h5"
t "merge of a packed file" 0 'one.h5: 40 prompts' "$h5lens" merge "$work/one.h5"
printf x >> "$work/sh.shards/00001.h5"
t "verify names the shard" 1 'sh.shards/00001.h5' "$h5lens" verify "$work/sh.h5"
t "merge names the shard" 1 '00001.h5' "$h5lens" merge "$work/sh.h5"
t "repair" 0 'sh.shards/00001.h5 is damaged .*: it is computed again' sharded --repair
t "repaired" 0 ' 0 bad' "$h5lens" verify "$work/sh.h5"
rm "$work/sh.shards/00002.h5"
t "a shard is missing" 1 '1 of 3 shards is missing: 00002.h5; .run --repair' sharded
t "status, a shard is missing" 1 'finished, but shards .* gone: h5lens run .* --repair' "$h5lens" status "$work/sh.h5"
t "pack, a shard is missing" 1 'missing: 00002.h5' "$h5lens" pack "$work/sh.h5" -o "$work/one.h5" --overwrite
t "it is repaired too" 0 '8 prompts in .* 32 prompts were there already' sharded --repair
cp "$work/sh.h5" "$work/kept.h5"
truncate -s 9000 "$work/sh.h5"
t "status of a damaged output" 1 'the output is damaged: h5lens run .* --repair' "$h5lens" status "$work/sh.h5"
t "merge over a damaged output" 1 'run --repair. makes it again' "$h5lens" merge "$work/sh.h5"
mv "$work/kept.h5" "$work/sh.h5"
t "another list" 1 'cache.hooks: [*]resid_post there, [*]resid_post,hook_embed here' sharded --set cache.hooks='*resid_post,hook_embed'
t "another order" 1 'answers: in another order.; choose another output, or --overwrite' \
	sharded --set data.answers=incorrect,correct
rm "$work/sh.h5"
t "another sweep" 0 '40 prompts in' sharded -o "$work/other.h5" --set top_k=3
cp "$work/other.shards/00001.h5" "$work/sh.shards/"
t "a shard of another sweep" 1 '00001.h5: is of another experiment .top_k: 3 there, 10 here.; .run --repair' sharded
t "merge of two sweeps" 1 '00001.h5: is of another experiment; .run --repair' "$h5lens" merge "$work/sh.h5"
t "it is computed again" 0 '16 prompts in .* 24 prompts were there already' sharded --repair
rm -r "$work/other.h5" "$work/other.shards"
t "overwrite" 0 '3 shards of an earlier run were removed' sharded --overwrite --dtype f16
t "overwrite by one file" 0 '40 prompts in' run -o "$work/sh.h5" --overwrite
absent sh.shards
rm -f "$work/sh.h5" "$work/one.h5"
csv=experiments/ioi.csv

t "too little address space" 1 'ulimit -v.: OpenBLAS takes 128 MiB' sh -c "ulimit -v 250000
	exec '$h5lens' run --model $model --data '$csv' -o '$work/s.h5' --threads 2"

# A signal: exit code 75, and nothing under the output's name.
i=0
while [ $i -lt 5 ]; do
	"$h5lens" run --model $model --data experiments/ioi.csv -o "$work/s.h5" --threads 1 \
		> "$work/stopped" 2>&1 &
	pid=$!
	sleep 0.$((i + 2))
	kill -TERM $pid 2>/dev/null
	wait $pid
	got=$?
	[ $got = 75 ] && break
	rm -f "$work/s.h5" # it was done before the signal came
	i=$((i + 1))
done
t "SIGTERM" 0 'stopped by a signal' sh -c "cat '$work/stopped'; [ $got = 75 ]"
absent s.h5

# A small disk: refused before the first batch, with both numbers.
mkdir "$work/small"
if [ "$(id -u)" = 0 ] && mount -t tmpfs -o size=2m none "$work/small" 2>/dev/null; then
	t "disk too small" 75 'will take .* MiB and .* has 2.0 MiB free' run -o "$work/small/d.h5"
	absent d.h5
else
	skip "disk too small" "no file system can be mounted"
fi
if [ "$(id -u)" != 0 ]; then
	chmod 500 "$work/small"
	t "read-only folder" 1 'Permission denied' run -o "$work/small/d.h5" --limit 8
else
	skip "read-only folder" "root may write to it"
fi

echo "$passed passed, $failed failed, $skipped skipped"
[ $failed = 0 ]
