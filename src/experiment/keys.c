/*
 * experiment/keys.c: the key table. One list (KEYS) is expanded twice: into the public
 * rows, for help and flags, and into the stores, which say where a value goes. A
 * default is text, and is parsed like the user's.
 */
#include "experiment/keys_private.h"

#include <string.h>

#define LENS_TABLE(id, ...) #id,
#define LENS_TABLE_GROUP LENS_TABLE
const char *const lens_table_words[LENS_TABLE_WORDS + 1] = {
#include "h5lens/tables.def"
	NULL
};
#define LENS_TABLE(id, answers, by_default, any) { answers, by_default, LENS_ANY_##any },
#define LENS_TABLE_GROUP LENS_TABLE
const struct lens_table_rule lens_table_rules[LENS_TABLE_WORDS] = {
#include "h5lens/tables.def"
};
#define LENS_TABLE(id, ...) ", " #id
#define LENS_TABLE_GROUP LENS_TABLE
static const char tables_shape[] = "default | all | none | [default"
#include "h5lens/tables.def"
				   "]";

#define LENS_GRID(id, ...) #id,
const char *const lens_grid_words[LENS_GRID_WORDS + 1] = {
#include "h5lens/grids.def"
	NULL
};
#define LENS_GRID(id, ...) " " #id
#define LENS_GRID_EVERY LENS_GRID
static const char grids_shape[] = "none | [a grid, …] of:"
#include "h5lens/grids.def"
	;

/* Integers and sets: a pointer, and behind it how many there are. */
#define COUNTED(pointer, count)                                                                \
	_Static_assert(offsetof(struct lens_experiment, count) ==                              \
			       offsetof(struct lens_experiment, pointer) + sizeof(void *),     \
		       #count)
COUNTED(patch.layer, patch.n_layers);
COUNTED(patch.position, patch.n_positions);
COUNTED(ablate.set, ablate.n_sets);
COUNTED(knockout.layer, knockout.n_layers);
COUNTED(steer.scale, steer.n_scales);
COUNTED(steer.positions.position, steer.positions.n);

static const char *const on_bad_row[] = { "error", "skip", NULL };
static const char *const answer_tokens[] = { "one", "any", NULL };
static const char *const answers_as[] = { "text", "ids", NULL };
static const char *const separators[] = { "comma", "semicolon", "tab", NULL };
static const char *const dtypes[] = { "f32", "f16", NULL };
static const char *const positions[] = { "all", "last", "read", NULL };
static const char *const layouts[] = { "padded", "ragged", NULL };
static const char *const lenses[] = { "recompute", "cached_scale_no_bias", NULL };
static const char *const read_or_all[] = { "read", "all", NULL };
static const char *const cpus[] = { "auto", "avx2", "avx512", NULL };
static const char *const all[] = { "all", NULL };
static const char *const heads[] = { "auto", "tied", "stored", NULL };
static const char *const automatic[] = { "auto", NULL };
static const char *const none[] = { "none", NULL };
static const char *const directions[] = { "denoise", "noise", NULL };
static const char *const metrics[] = { "logit_diff", "answer_logit", "answer_logprob",
				       "kl_divergence", NULL };
static const char *const ablated[] = { "attn_out", "mlp_out", "attn_head_out_all_pos", NULL };
static const char *const ablations[] = { "zero", "mean", "resample", NULL };
static const char *const mean_over[] = { "prompts", "tokens", NULL };
static const char *const drawn[] = { "drawn", NULL };
static const char *const steered[] = { "resid_pre", "resid_mid", "resid_post", "attn_out",
				       "mlp_out",   "z",         NULL };
static const char *const raw[] = { "processed", "raw", NULL };

#define BOOLS "true | false"
#define PLACES "none | [1, -1, …] | {find: text, nth: N} | {find_column: a column, nth: N}"

/* clang-format off */
/* X(name, flag, short flag, what the flag alone sets, shape, default, */
/*   kind, field, words, identity, help) */
#define KEYS(X)                                                                                \
	X("model", "--model", NULL, NULL, "a folder", NULL,                                    \
	  PATH, model, NULL, false, "Hugging Face directory of the model")                     \
	X("weights", "--raw-weights", NULL, "raw", "raw | processed | {fold_ln: …, …}",        \
	  "processed", WEIGHTS, weights, raw, true,                                            \
	  "raw turns every weights.* off; processed is TransformerLens's default (of its own "   \
	  "models: raw)")                                                                     \
	X("weights.fold_ln", NULL, NULL, NULL, BOOLS, "true",                                  \
	  BOOL, weights.fold_ln, NULL, true, "fold the norms' weights into the matrices that follow")  \
	X("weights.center_writing_weights", NULL, NULL, NULL, BOOLS, "true",                   \
	  BOOL, weights.center_writing_weights, NULL, true,                                    \
	  "centre the weights that write to the residual stream (LayerNorm models)")           \
	X("weights.center_unembed", NULL, NULL, NULL, BOOLS, "true",                           \
	  BOOL, weights.center_unembed, NULL, true, "centre W_U over the vocabulary")          \
	X("weights.fold_value_biases", NULL, NULL, NULL, BOOLS, "true",                        \
	  BOOL, weights.fold_value_biases, NULL, true, "fold b_V into b_O")                    \
	X("weights.refactor_factored_attn_matrices", NULL, NULL, NULL, BOOLS, "false",         \
	  BOOL, weights.refactor_factored_attn_matrices, NULL, true,                           \
	  "replace each head's W_Q, W_K, W_V, W_O by the factors of an SVD")                   \
	X("tied_head", "--tied-head", NULL, NULL, "auto | tied | stored", "auto",              \
	  CHOICE, tied_head, heads, true,                                                      \
	  "what W_U is: auto, as config.json says; tied, the embedding; stored, the head")      \
	X("data.csv", "--data", NULL, NULL, "a file", NULL,                                    \
	  PATH, data.csv, NULL, false, "CSV file with a header row")                           \
	X("data.separator", "--separator", NULL, NULL, "comma | semicolon | tab", "comma",     \
	  CHOICE, data.separator, separators, true, "what separates the CSV's fields")         \
	X("data.prompt", "--prompt", NULL, NULL, "a column", "prompt",                         \
	  TEXT, data.prompt, NULL, true, "the column with the prompts")                        \
	X("data.tokens", "--tokens", NULL, NULL, "none | a column", "none",                    \
	  TEXT, data.tokens, none, true,                                                       \
	  "instead of data.prompt: the column with the prompts' token ids, \"1 2 3\" (BOS is put "  \
	  "in front of them, too); other prompts then are ids as well")                        \
	X("data.corrupted", "--corrupted", NULL, NULL, "none | a column", "none",              \
	  TEXT, data.corrupted, none, true,                                                    \
	  "the column with the corrupted prompts, as many tokens long, which patch.grids needs")  \
	X("data.answers", "--answers", NULL, NULL, "a column | [column, …]", "[]",             \
	  LIST, data.answers, NULL, true,                                                      \
	  "the columns with the answers; logit_diff is the first minus each other")            \
	X("data.answer_tokens", "--answer-tokens", NULL, NULL, "one | any", "one",            \
	  CHOICE, data.answer_tokens, answer_tokens, true,                                     \
	  "of how many tokens an answer may be; any: its log probability is the sum of theirs") \
	X("data.answers_as", "--answers-as", NULL, NULL, "text | ids", "text",                 \
	  CHOICE, data.answers_as, answers_as, true, "what the answers' columns hold")         \
	X("data.prepend_bos", NULL, NULL, NULL, BOOLS, "true",                                 \
	  BOOL, data.prepend_bos, NULL, true, "put the BOS token in front of each prompt")     \
	X("data.bos", "--bos-token", NULL, NULL, "auto | an id | \"a token\"", "auto",         \
	  BOS, data.bos, NULL, false, "the BOS token; auto: TransformerLens's choice")         \
	X("data.read_pos", "--read-pos", NULL, NULL,                                             \
	  "an integer | a column | {find: text, nth: N} | {find_column: a column, nth: N}",    \
	  "-1", READ_POS, data.read_pos, NULL, true,                                           \
	  "the token that the tables read, counting BOS, negative from the end; find: where the "  \
	  "N-th such text of the prompt ends (from 0, the default; negative from the last)")                \
	X("data.on_bad_row", "--on-bad-row", NULL, NULL, "error | skip", "error",              \
	  SWITCH, data.skip_bad_rows, on_bad_row, true, "what to do with a bad row")           \
	X("data.limit", "--limit", NULL, NULL, "all | a number of rows from 1", "all",         \
	  COUNT, data.limit, all, true, "how many good rows to use, from the first")           \
	X("cache.hooks", "--hooks", NULL, NULL, "none | name | [name or glob, …]", "[\"*\"]",  \
	  LIST, cache.hooks, none, true, "the activations to store")                           \
	X("cache.positions", "--positions", NULL, NULL, "all | last | read | [0, -2, …]",      \
	  "all", POSITIONS, cache.positions, positions, true, "the tokens at which to store them") \
	X("cache.dtype", "--dtype", NULL, NULL, "f32 | f16", "f32",                            \
	  CHOICE, cache.dtype, dtypes, true, "the number format to store them in")             \
	X("cache.layout", "--layout", NULL, NULL, "padded | ragged", "padded",                 \
	  CHOICE, cache.layout, layouts, LENS_KEY_IF_SET,                                      \
	  "ragged: no padding: [token, …] under /tokens; scores and patterns stay by prompt")  \
	X("tables", "--tables", NULL, NULL, tables_shape, "default",                           \
	  TABLES, tables, lens_table_words, true,                                              \
	  "the result tables; default is those about answers, and top_tokens")                 \
	X("top_k", "--top-k", NULL, NULL, "a number from 1 to 1000", "10",                     \
	  COUNT, top_k, NULL, true, "entries a row in top_tokens, pos_top_tokens and top_neurons") \
	X("lens", "--lens", NULL, NULL, "recompute | cached_scale_no_bias", "recompute",       \
	  CHOICE, lens, lenses, true, "how the logit lens applies the last norm")              \
	X("lens_mid", "--lens-mid", NULL, "true", BOOLS, "false",                              \
	  BOOL, lens_mid, NULL, true,                                                          \
	  "add the stream between attention and MLP to the lens layers: 0_mid, 1_mid, …")      \
	X("lens_positions", "--lens-positions", NULL, NULL, "read | all", "read",              \
	  CHOICE, lens_positions, read_or_all, true,                                           \
	  "where lens_top_token, lens_top_prob and lens_entropy look")                         \
	X("attrs.positions", "--attrs-positions", NULL, NULL, "read | all", "read",            \
	  CHOICE, attrs.positions, read_or_all, true,                                          \
	  "where logit_attrs and head_attrs look (neurons: at the read position)")             \
	X("patch.grids", "--patch", NULL, NULL, grids_shape, "none",                           \
	  GRIDS, patch.grids, lens_grid_words, true,                                           \
	  "patch these activations, one at a time, from the run of one prompt into the other's")  \
	X("patch.direction", NULL, NULL, NULL, "denoise | noise", "denoise",                   \
	  CHOICE, patch.direction, directions, true,                                           \
	  "denoise: the corrupted run with a clean activation; noise: the reverse")            \
	X("patch.metric", NULL, NULL, NULL,                                                    \
	  "logit_diff | answer_logit | answer_logprob | kl_divergence", "logit_diff",          \
	  CHOICE, patch.metric, metrics, true, "what is measured after each patch")            \
	X("patch.normalize", NULL, NULL, NULL, BOOLS, "false",                                 \
	  BOOL, patch.normalize, NULL, true,                                                   \
	  "also write (patched - corrupted) / (clean - corrupted)")                            \
	X("patch.reuse", NULL, NULL, NULL, BOOLS, "true",                                      \
	  BOOL, patch.reuse, NULL, false,                                                      \
	  "false computes each patch as a whole pass; the results are the same")               \
	X("patch.layers", NULL, NULL, NULL, "all | [0, 1, …]", "all",                          \
	  LAYERS, patch.layer, all, true, "patch in these layers only; the others are NaN")    \
	X("patch.heads", NULL, NULL, NULL, "all | [layer.head, …] as in [9.6, 10.0]", "all",   \
	  HEADS, patch.heads, all, true, "patch these heads only")                             \
	X("patch.positions", NULL, NULL, NULL, "all | [0, -1, …]", "all",                      \
	  INTEGERS, patch.position, all, true, "patch at these positions only")                \
	X("ablate.grids", NULL, NULL, NULL,                                                    \
	  "none | [a grid, …] of: attn_out mlp_out attn_head_out_all_pos", "none",            \
	  GRIDS, ablate.grids, ablated, true,                                                  \
	  "replace these activations, one at a time, by ablate.value")                         \
	X("ablate.value", NULL, NULL, NULL, "zero | mean | resample", "zero",                  \
	  CHOICE, ablate.value, ablations, true,                                               \
	  "zero; the mean of the data set; or the activation of another prompt as long")       \
	X("ablate.mean_over", NULL, NULL, NULL, "prompts | tokens", "prompts",                 \
	  CHOICE, ablate.mean_over, mean_over, true,                                           \
	  "prompts: a mean for each position; tokens: one over all positions")                 \
	X("ablate.resample", NULL, NULL, NULL, "drawn | a column", "drawn",                    \
	  TEXT, ablate.resample, drawn, true, "where the other prompt comes from")             \
	X("ablate.seed", NULL, NULL, NULL, "an integer", "0",                                  \
	  INTEGER, ablate.seed, NULL, true, "draws the other prompt")                          \
	X("ablate.heads", NULL, NULL, NULL, "all | [layer.head, …] as in [9.6, 10.0]", "all",  \
	  HEADS, ablate.heads, all, true, "ablate these heads only; the others are NaN")       \
	X("ablate.sets", NULL, NULL, NULL, "{a name: [layer.head, …], …}", "{}",               \
	  SETS, ablate.set, NULL, true, "heads to ablate together, under a name of yours")     \
	X("path.receivers", NULL, NULL, NULL,                                                  \
	  "none | logits | [layer.head.q, k or v, …] as in [9.9.q, 10.0.k]", "none",           \
	  LIST, path.receivers, none, true,                                                    \
	  "path patching: what a head's change reaches, everything else being held")           \
	X("path.senders", NULL, NULL, NULL, "all | [layer.head, …] as in [9.6, 10.0]", "all",  \
	  HEADS, path.senders, all, true, "the heads that are changed, one at a time")         \
	X("knockout.from", NULL, NULL, NULL, PLACES, "none",                                   \
	  PLACES, knockout.from, none, true,                                                   \
	  "cut attention to these keys (find as in data.read_pos) …")                          \
	X("knockout.to", NULL, NULL, NULL, PLACES, "none",                                     \
	  PLACES, knockout.to, none, true, "… from these queries: their scores become -inf")   \
	X("knockout.layers", NULL, NULL, NULL, "all | [0, 1, …]", "all",                       \
	  LAYERS, knockout.layer, all, true, "cut in these layers, all at once")               \
	X("knockout.heads", NULL, NULL, NULL, "all | [layer.head, …] as in [9.6, 10.0]", "all", \
	  HEADS, knockout.heads, all, true, "cut in these heads, all at once")                 \
	X("steer.vector", NULL, NULL, NULL, "none | file.h5:/path/in/it | file.npy", "none",   \
	  PATH, steer.vector, none, false, "add multiples of this vector to an activation")    \
	X("steer.hook", NULL, NULL, NULL,                                                      \
	  "resid_pre | resid_mid | resid_post | attn_out | mlp_out | z", "resid_post",         \
	  CHOICE, steer.hook, steered, true, "what it is added to")                            \
	X("steer.layer", NULL, NULL, NULL, "none | a layer from 0", "none",                    \
	  LAYER, steer.layer, none, true, "in this layer")                                     \
	X("steer.scale", NULL, NULL, NULL, "a number | [-4, 0, 4, …]", "1",                    \
	  REALS, steer.scale, NULL, true, "times each of these")                               \
	X("steer.positions", NULL, NULL, NULL, "all | [0, -1, …]", "all",                      \
	  INTEGERS, steer.positions.position, all, true, "at these positions only")            \
	X("share_prefixes", NULL, NULL, NULL, BOOLS, "true",                                   \
	  BOOL, share_prefixes, NULL, false,                                                   \
	  "false computes what several prompts begin with for each of them, in the file's "      \
	  "order; the results are the same")                                                                          \
	X("cpu", "--cpu", NULL, NULL, "auto | avx2 | avx512", "auto",                          \
	  CHOICE, cpu, cpus, false, "the CPU level, which fixes the bits of the results")      \
	X("output", "--output", "-o", NULL, "a file", NULL,                                    \
	  PATH, output, NULL, false, "the HDF5 file to write")                                 \
	X("shards.bytes", NULL, NULL, NULL, "a size with its unit (4GiB, 800M)", "1GiB",       \
	  BYTES, shards.bytes, NULL, true, "a shard ends at about this size, …")               \
	X("shards.prompts", NULL, NULL, NULL, "auto | a number from 1", "auto",                \
	  COUNT, shards.prompts, automatic, true,                                              \
	  "… at so many prompts (auto: no limit), or after minutes of compute; all three "       \
	  "are doubled until there are at most 500 shards")                \
	X("threads", "--threads", NULL, NULL, "auto | a number from 1", "auto",                \
	  COUNT, threads, automatic, false,                                                    \
	  "worker threads; auto: SLURM_CPUS_PER_TASK, else the CPUs that the process may use") \
	X("memory", "--memory", NULL, NULL, "auto | a size with its unit (4GiB, 800M)",        \
	  "auto", BYTES, memory, automatic, false,                                             \
	  "the memory limit; auto: three quarters of the least of what is free, the "       \
	  "cgroup's limit and Slurm's")
/* clang-format on */

#define ROW(name_, flag_, short_, value_, shape_, default_, kind_, field_, words_, id_, help_) \
	{ .name = name_,                                                                       \
	  .flag = flag_,                                                                       \
	  .shape = shape_,                                                                     \
	  .deflt = default_,                                                                   \
	  .help = help_,                                                                       \
	  .short_flag = short_,                                                                \
	  .flag_value = value_ },
#define STORE(name_, flag_, short_, value_, shape_, default_, kind_, field_, words_, id_,      \
	      help_)                                                                           \
	{ LENS_KEY_##kind_, offsetof(struct lens_experiment, field_), words_, id_ },

static const struct lens_key keys[] = { KEYS(ROW) };
static const struct lens_key_store stores[] = { KEYS(STORE) };
enum { N_KEYS = sizeof(keys) / sizeof(keys[0]) };

const struct lens_key *lens_keys(size_t *n)
{
	*n = N_KEYS;
	return keys;
}

const struct lens_key_store *lens_key_store(const struct lens_key *key)
{
	return &stores[key - keys];
}

const struct lens_key *lens_key_of_flag(const char *flag)
{
	size_t i;

	for (i = 0; i < N_KEYS; i++) {
		if ((keys[i].flag && !strcmp(keys[i].flag, flag)) ||
		    (keys[i].short_flag && !strcmp(keys[i].short_flag, flag)))
			return &keys[i];
	}
	return NULL;
}

const struct lens_key *lens_key_find(const char *name)
{
	size_t i;

	for (i = 0; i < N_KEYS; i++) {
		if (!strcmp(keys[i].name, name))
			return &keys[i];
	}
	return NULL;
}

bool lens_key_is_group(const char *name)
{
	size_t i, n = strlen(name);

	for (i = 0; i < N_KEYS; i++) {
		if (!strncmp(keys[i].name, name, n) && keys[i].name[n] == '.')
			return true;
	}
	return false;
}

static const char *leaf(const char *name)
{
	const char *dot = strrchr(name, '.');

	return dot ? dot + 1 : name;
}

/* Finds cache.hooks for "hooks" and data.prompt for "promt", at whatever level. */
const char *lens_key_nearest(const char *name)
{
	const char *full[N_KEYS], *last[N_KEYS], *near;
	size_t i;

	for (i = 0; i < N_KEYS; i++) {
		full[i] = keys[i].name;
		last[i] = leaf(full[i]);
		if (!strcmp(last[i], leaf(name)))
			return full[i];
	}
	near = lens_nearest(name, full, N_KEYS);
	if (near)
		return near;
	near = lens_nearest(leaf(name), last, N_KEYS);
	for (i = 0; i < N_KEYS; i++) {
		if (near == last[i])
			return full[i];
	}
	return NULL;
}
