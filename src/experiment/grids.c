/*
 * experiment/grids.c: which grids are patched or ablated. In: names of grids.def, or its
 * short words for several; out: the list, in the order of grids.def without repetitions.
 * Names that a user of TransformerLens may expect here are refused with what serves
 * instead.
 */
#include "experiment/value_private.h"

#include <string.h>

enum { MEMBERS_MAX = 8 };

/* The short words and what they stand for. */
static const struct {
	const char *name;
	const char *member[MEMBERS_MAX]; /* ends with NULL */
} every[] = {
#define LENS_GRID_EVERY(id, ...) { #id, { __VA_ARGS__, NULL } },
#include "h5lens/grids.def"
};
enum { EVERY_WORDS = sizeof(every) / sizeof(every[0]) };

/* Hook points that are no grids, and what to patch instead. */
static const struct {
	const char *hook, *instead;
} hooks[] = {
	{ "hook_q_input",
	  "attn_head_q_all_pos and attn_head_q_by_pos replace the queries that are made of it" },
	{ "hook_k_input",
	  "attn_head_k_all_pos and attn_head_k_by_pos replace the keys that are made of it" },
	{ "hook_v_input",
	  "attn_head_v_all_pos and attn_head_v_by_pos replace the values that are made of it" },
	{ "hook_attn_in", "attn_head_q_all_pos, attn_head_k_all_pos and attn_head_v_all_pos "
			  "replace what is made of it" },
	{ "hook_mlp_in", "mlp_out replaces what is made of it" },
	{ "hook_result",
	  "attn_head_out_all_pos and attn_head_out_by_pos replace hook_z, of which "
	  "it is made" },
	{ "hook_z", "it is patched by attn_head_out_all_pos and attn_head_out_by_pos" },
	{ "hook_q", "it is patched by attn_head_q_all_pos and attn_head_q_by_pos" },
	{ "hook_k", "it is patched by attn_head_k_all_pos and attn_head_k_by_pos" },
	{ "hook_v", "it is patched by attn_head_v_all_pos and attn_head_v_by_pos" },
	{ "hook_pattern",
	  "it is patched by attn_head_pattern_all_pos, attn_head_pattern_by_pos "
	  "and attn_head_pattern_dest_src_pos" },
	{ "hook_attn_scores",
	  "attn_head_pattern_all_pos and attn_head_pattern_by_pos replace what is made of it" },
	{ "hook_resid_pre", "it is patched by resid_pre" },
	{ "hook_resid_mid", "it is patched by resid_mid" },
	{ "hook_resid_post", "it is the next layer's resid_pre" },
	{ "resid_post", "it is the next layer's resid_pre" },
	{ "hook_attn_out", "it is patched by attn_out" },
	{ "hook_mlp_out", "it is patched by mlp_out" },
};

/* A name of TransformerLens's: of a function, or of a hook point with its block or not. */
static enum lens_status check_foreign(const struct lens_yaml_source *src,
				      const struct lens_key *key, const yaml_node_t *item,
				      struct lens_error *err)
{
	static const char prefix[] = "get_act_patch_";
	const char *s = lens_yaml_text(item), *dot = strrchr(s, '.'), *last = dot ? dot + 1 : s;
	size_t i;

	if (!strncmp(s, prefix, sizeof(prefix) - 1))
		return lens_yaml_error(src, item, err, "%s: write '%.200s' without %s",
				       key->name, s, prefix);
	for (i = 0; i < sizeof(hooks) / sizeof(hooks[0]); i++) {
		if (!strcmp(last, hooks[i].hook))
			return lens_yaml_error(src, item, err, "%s: '%.200s' is no grid: %s",
					       key->name, s, hooks[i].instead);
	}
	return LENS_OK;
}

static enum lens_status unknown_grid(const struct lens_yaml_source *src,
				     const struct lens_key *key, const yaml_node_t *item,
				     struct lens_error *err)
{
	const char *const *words = lens_key_store(key)->words;
	const char *known[LENS_GRID_WORDS + EVERY_WORDS], *near;
	size_t i, n;

	if (words != lens_grid_words)
		return lens_value_wrong(src, key, item, err);
	LENS_TRY(check_foreign(src, key, item, err));
	for (n = 0; words[n]; n++)
		known[n] = words[n];
	for (i = 0; i < EVERY_WORDS; i++)
		known[n++] = every[i].name;
	near = lens_nearest(lens_yaml_text(item), known, n);
	if (!near)
		return lens_value_wrong(src, key, item, err);
	return lens_yaml_error(src, item, err,
			       "%s: there is no grid '%.200s'; did you mean '%s'?", key->name,
			       lens_yaml_text(item), near);
}

/* Marks what one name stands for; false: this key has no such grid. */
static bool choose(const char *s, const char *const *words, bool *chosen)
{
	int word = lens_find_word(s, words);
	size_t i, k;

	if (word != LENS_NOT_A_WORD) {
		chosen[word] = true;
		return true;
	}
	for (i = 0; i < EVERY_WORDS; i++) {
		if (strcmp(s, every[i].name) != 0)
			continue;
		for (k = 0; every[i].member[k]; k++) {
			if (!choose(every[i].member[k], words, chosen))
				return false;
		}
		return true;
	}
	return false;
}

enum lens_status lens_value_set_grids(struct lens_experiment *e,
				      const struct lens_yaml_source *src,
				      const struct lens_key *key, const yaml_node_t *node,
				      struct lens_error *err)
{
	const struct lens_key_store *store = lens_key_store(key);
	bool chosen[LENS_GRID_WORDS] = { false };
	const char *s = lens_yaml_text(node);
	struct lens_strings list = { 0 };
	const yaml_node_t *item;
	size_t i, n = s && !strcmp(s, "none") ? 0 : lens_yaml_count(node);

	for (i = 0; i < n; i++) {
		LENS_TRY(lens_yaml_item(src, key, node, i, &item, err));
		if (!choose(lens_yaml_text(item), store->words, chosen))
			return unknown_grid(src, key, item, err);
	}
	LENS_TRY(lens_strings_choose(&list, store->words, chosen, err));
	lens_strings_release(lens_key_field(e, store));
	*(struct lens_strings *)lens_key_field(e, store) = list;
	return LENS_OK;
}
