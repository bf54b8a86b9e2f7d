/*
 * model/unknown.c: what can be told of a model whose model_type we do not have. In: its
 * folder, of which config.json is enough; out: the shapes that stand under usual names, the
 * family that reads most of its keys, the keys that this family does not read, and
 * (unknown_tensors.c) the tensors that it names otherwise.
 */
#include "model/config_private.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* --- keys ------------------------------------------------------------------------ */

/* Keys that change no number of a pass: training, generation, other heads, bookkeeping. */
static const char *const idle[] = {
	"_attn_implementation_autoset",
	"_name_or_path",
	"architectures",
	"auto_map",
	"bad_words_ids",
	"chunk_size_feed_forward",
	"diversity_penalty",
	"do_sample",
	"dtype",
	"early_stopping",
	"encoder_no_repeat_ngram_size",
	"exponential_decay_length_penalty",
	"finetuning_task",
	"gradient_checkpointing",
	"id2label",
	"is_decoder",
	"is_encoder_decoder",
	"label2id",
	"length_penalty",
	"max_length",
	"min_length",
	"model_type",
	"no_repeat_ngram_size",
	"num_beam_groups",
	"num_beams",
	"num_labels",
	"num_return_sequences",
	"prefix",
	"pretraining_tp",
	"problem_type",
	"pruned_heads",
	"remove_invalid_values",
	"repetition_penalty",
	"return_dict",
	"return_dict_in_generate",
	"sep_token_id",
	"suppress_tokens",
	"task_specific_params",
	"temperature",
	"tf_legacy_loss",
	"tie_encoder_decoder",
	"tokenizer_class",
	"top_k",
	"top_p",
	"torch_dtype",
	"torchscript",
	"transformers_version",
	"typical_p",
	"use_bfloat16",
	"use_cache",
};
static const char *const idle_within[] = {
	"dropout",   "pdrop",   "init_",           "initializer",        "summary_",
	"_token_id", "output_", "router_aux_loss", "attn_implementation"
};

static bool is_idle(const char *key)
{
	size_t i;

	for (i = 0; i < sizeof(idle) / sizeof(*idle); i++) {
		if (!strcmp(key, idle[i]))
			return true;
	}
	for (i = 0; i < sizeof(idle_within) / sizeof(*idle_within); i++) {
		if (strstr(key, idle_within[i]))
			return true;
	}
	return false;
}

/* The keys that a family looks up: of an empty config.json, and of this one. */
static enum lens_status asked_by(const struct lens_family *family, const json_t *root,
				 json_t *asked, struct lens_error *err)
{
	struct lens_config_file f = { .path = "", .asked = asked };
	struct lens_config *c = lens_calloc(1, sizeof(*c));
	json_t *empty = json_object();
	struct lens_layout layout;
	bool made = c && empty;

	f.root = empty;
	if (made)
		lens_config_as(&f, family, c, &layout, NULL);
	f.root = root;
	if (made)
		lens_config_as(&f, family, c, &layout, NULL);
	json_decref(empty);
	lens_free(c);
	return made ? LENS_OK : lens_error_nomem(err, 1, sizeof(*c));
}

/* Names of a shape in published configs; it is read under the first that is a number. */
static const struct usual {
	const char *name;
	const char *key[6];
} usual[] = {
	{ "n_layers", { "num_hidden_layers", "n_layer", "n_layers", "num_layers" } },
	{ "d_model", { "hidden_size", "n_embd", "n_embed", "d_model", "model_dim" } },
	{ "n_heads", { "num_attention_heads", "n_head", "n_heads", "num_heads" } },
	{ "n_key_value_heads",
	  { "num_key_value_heads", "n_head_kv", "num_kv_heads", "multi_query_group_num" } },
	{ "d_head", { "head_dim", "kv_channels", "attention_head_dim" } },
	{ "d_mlp", { "intermediate_size", "n_inner", "ffn_dim", "ffn_hidden_size", "d_ff" } },
	{ "d_vocab", { "vocab_size", "padded_vocab_size", "n_vocab" } },
	{ "n_ctx",
	  { "max_position_embeddings", "n_positions", "seq_length", "max_seq_len",
	    "max_sequence_length", "n_ctx" } },
};
#define N_NEEDED ((size_t)3) /* of them, layers, width and heads, a family must read itself */

/* The key under which a shape stands; NULL: under none. */
static const char *key_of(const struct usual *u, const json_t *root)
{
	size_t i;

	for (i = 0; i < 6 && u->key[i]; i++) {
		if (json_is_integer(json_object_get(root, u->key[i])))
			return u->key[i];
	}
	return NULL;
}

static enum lens_status tell_shapes(const json_t *root, struct lens_buf *out,
				    struct lens_error *err)
{
	size_t i;

	for (i = 0; i < sizeof(usual) / sizeof(*usual); i++) {
		const char *key = key_of(&usual[i], root);

		if (key)
			LENS_TRY(lens_buf_printf(out, err, "%s%s %lld (%s)",
						 out->len ? ", " : "", usual[i].name,
						 (long long)json_integer_value(
							 json_object_get(root, key)),
						 key));
	}
	return LENS_OK;
}

static bool reads_shapes(const json_t *asked, const json_t *root)
{
	size_t i;

	for (i = 0; i < N_NEEDED; i++) {
		const char *key = key_of(&usual[i], root);

		if (!key || !json_object_get(asked, key))
			return false;
	}
	return true;
}

/* How many of the keys that matter are among those asked. */
static size_t count_known(const json_t *root, const json_t *asked, size_t *all)
{
	const char *key;
	json_t *v;
	size_t n = 0;

	*all = 0;
	json_object_foreach ((json_t *)root, key, v) {
		if (is_idle(key))
			continue;
		++*all;
		n += json_object_get(asked, key) != NULL;
	}
	return n;
}

/* What each family asks for, in their order; the nearest is the first that reads most. */
struct families {
	json_t *asked; /* an array of objects */
	const struct lens_family *nearest;
	size_t nearest_at;
};

static enum lens_status ask_families(const json_t *root, struct families *a,
				     struct lens_unknown_model *u, struct lens_error *err)
{
	const struct lens_family *family;
	size_t i, n;

	for (i = 0; (family = lens_family_at(i)); i++) {
		json_t *asked = json_object();

		if (!asked || json_array_append_new(a->asked, asked))
			return lens_error_nomem(err, 1, sizeof(*asked));
		LENS_TRY(asked_by(family, root, asked, err));
		n = count_known(root, asked, &u->n_keys);
		if (!reads_shapes(asked, root) || n <= u->n_known)
			continue;
		u->n_known = n;
		a->nearest = family;
		a->nearest_at = i;
	}
	if (a->nearest)
		snprintf(u->nearest, sizeof(u->nearest), "%s", a->nearest->model_type);
	return LENS_OK;
}

/* The first family that reads a key, "" if none does. */
static const char *reader_of(const struct families *a, const char *key)
{
	size_t i;

	for (i = 0; i < json_array_size(a->asked); i++) {
		if (json_object_get(json_array_get(a->asked, i), key))
			return lens_family_at(i)->model_type;
	}
	return "";
}

#define MOST_TEXT ((size_t)60) /* bytes of a key, and of its value */

/* Its beginning, if it is long; no character is cut. */
static enum lens_status append_cut(struct lens_buf *out, const char *text,
				   struct lens_error *err)
{
	size_t n = strlen(text), kept = lens_min(n, MOST_TEXT);

	while (kept && kept < n && ((unsigned char)text[kept] & 0xc0) == 0x80)
		kept--;
	return lens_buf_printf(out, err, "%.*s%s", (int)kept, text, kept < n ? "…" : "");
}

static enum lens_status tell_value(const json_t *v, struct lens_buf *out,
				   struct lens_error *err)
{
	const char *unusable = lens_json_unusable(v);
	char *text = unusable ? NULL
			      : json_dumps(v, JSON_COMPACT | JSON_ENCODE_ANY |
						      JSON_REAL_PRECISION(15));
	enum lens_status st;

	if (!unusable && !text)
		return lens_error_nomem(err, 1, 1);
	st = append_cut(out, unusable ? unusable : text, err);
	free(text);
	return st;
}

/* Is it told as a shape? */
static bool is_shape(const json_t *root, const char *key)
{
	const char *shape;
	size_t i;

	for (i = 0; i < sizeof(usual) / sizeof(*usual); i++) {
		shape = key_of(&usual[i], root);
		if (shape && !strcmp(shape, key))
			return true;
	}
	return false;
}

/*
 * Keys that the nearest family does not read, one a line: those that others read, or those
 * that none does.
 */
static enum lens_status tell_keys(const json_t *root, const struct families *a, bool others,
				  struct lens_buf *out, struct lens_error *err)
{
	const json_t *nearest = json_array_get(a->asked, a->nearest_at);
	const char *key;
	size_t n = 0;
	json_t *v;

	json_object_foreach ((json_t *)root, key, v) {
		const char *reader = reader_of(a, key);

		if (is_idle(key) || !*reader == others ||
		    (others ? json_object_get(nearest, key) != NULL : is_shape(root, key)) ||
		    n++ >= LENS_MOST_TOLD)
			continue;
		LENS_TRY(append_cut(out, key, err));
		LENS_TRY(lens_buf_append(out, " ", 1, err));
		LENS_TRY(tell_value(v, out, err));
		if (others)
			LENS_TRY(lens_buf_printf(out, err, " (%s reads it)", reader));
		LENS_TRY(lens_buf_append(out, "\n", 1, err));
	}
	return n <= LENS_MOST_TOLD
		       ? LENS_OK
		       : lens_buf_printf(out, err, "… and %zu more\n", n - LENS_MOST_TOLD);
}

/* --- all of it ------------------------------------------------------------------------- */

static enum lens_status look(const char *dir, struct lens_config_file *f,
			     struct lens_unknown_model *u, struct lens_error *err)
{
	struct families a = { .asked = json_array() };
	enum lens_status st = a.asked ? LENS_OK : lens_error_nomem(err, 1, 1);

	if (st == LENS_OK)
		st = tell_shapes(f->root, &u->shapes, err);
	if (st == LENS_OK)
		st = ask_families(f->root, &a, u, err);
	if (st == LENS_OK)
		st = tell_keys(f->root, &a, false, &u->new_keys, err);
	if (st == LENS_OK && a.nearest)
		st = tell_keys(f->root, &a, true, &u->others_keys, err);
	if (st == LENS_OK && a.nearest)
		st = lens_unknown_tensors(dir, f, a.nearest, u, err);
	json_decref(a.asked);
	return st;
}

enum lens_status lens_unknown_look(const char *dir, struct lens_unknown_model *u,
				   struct lens_error *err)
{
	struct lens_config_file f;
	const char *type = NULL, *text_type;
	const json_t *text;
	enum lens_status st;

	memset(u, 0, sizeof(*u));
	st = lens_config_open(dir, NULL, &f, err);
	type = json_string_value(json_object_get(f.root, "model_type"));
	if (st == LENS_OK && type && !lens_family_named(type)) {
		snprintf(u->model_type, sizeof(u->model_type), "%s", type);
		text = json_object_get(f.root, "text_config");
		text_type = json_string_value(json_object_get(text, "model_type"));
		if (text_type && lens_family_named(text_type))
			snprintf(u->text_model, sizeof(u->text_model), "%s", text_type);
		else if (json_is_object(text) && !lens_json_unusable(text)) {
			struct lens_config_file inner = { .path = f.path, .root = text };

			u->of_text = true;
			st = look(dir, &inner, u, err);
		} else {
			st = look(dir, &f, u, err);
		}
	}
	lens_config_close(&f);
	return st;
}

void lens_unknown_release(struct lens_unknown_model *u)
{
	lens_buf_release(&u->shapes);
	lens_buf_release(&u->new_keys);
	lens_buf_release(&u->others_keys);
	lens_buf_release(&u->refusal);
	lens_buf_release(&u->added);
	lens_buf_release(&u->lacking);
}
