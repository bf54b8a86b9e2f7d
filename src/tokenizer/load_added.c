/*
 * tokenizer/load_added.c: the added tokens that the small files name. In:
 * tokenizer_config.json's added_tokens_decoder, the special tokens of the files and the
 * class, and the tokenizer with the tokens that its own file adds; out: all of them as
 * added tokens, in transformers 4.56's order: those of the decoder by id, then the
 * special ones that are still missing. One that the vocabulary lacks gets the next id,
 * which is beyond the model's own unless the model was enlarged for it.
 */
#include "tokenizer/tokenizer_private.h"

#include <stdlib.h>
#include <string.h>

struct adding {
	const struct lens_tokenizer_load *l;
	int32_t next_id;
};

static size_t size_of(const json_t *list)
{
	return json_array_size(list) + json_object_size(list);
}

/* A token that exists already stays as it is. */
static enum lens_status add(struct adding *a, struct lens_added_token *t,
			    struct lens_error *err)
{
	struct lens_tokenizer *tok = a->l->tok;

	if (!t->len || lens_added_find(&tok->added, t->content, t->len))
		return LENS_OK;
	t->id = lens_vocab_find(&tok->vocab, t->content, t->len);
	if (t->id < 0)
		t->id = a->next_id++;
	return lens_added_push(&tok->added, t, err);
}

/* --- added_tokens_decoder ------------------------------------------------------------ */

static int by_id(const void *a, const void *b)
{
	int32_t x = ((const struct lens_added_token *)a)->id;
	int32_t y = ((const struct lens_added_token *)b)->id;

	return (x > y) - (x < y);
}

/* The entries of the decoder, {"id": {"content": …}}, sorted by id. */
static enum lens_status decoder_tokens(const struct lens_tokenizer_load *l, json_t *list,
				       struct lens_added_token *token, struct lens_error *err)
{
	struct lens_json at = { NULL, l->config_path, "added_tokens_decoder" };
	const char *key;
	size_t n = 0;

	json_object_foreach (list, key, at.value) {
		struct lens_added_token *t = &token[n++];

		LENS_TRY(lens_load_added_flags(at, t, err));
		if (strspn(key, "0123456789") != strlen(key) || strlen(key) > 7)
			return lens_json_wrong(at, key, "under a token id", err);
		t->id = (int32_t)atol(key);
	}
	qsort(token, n, sizeof(*token), by_id);
	return LENS_OK;
}

/* An existing token gets these flags; the stated id must be the token's. */
static enum lens_status add_of_decoder(struct adding *a, struct lens_added_token *t,
				       struct lens_error *err)
{
	struct lens_added *added = &a->l->tok->added;
	const struct lens_added_token *same = lens_added_find(added, t->content, t->len);
	int32_t id = t->id;

	if (same) {
		struct lens_added_token *mine = &added->token[same - added->token];

		mine->single_word = t->single_word;
		mine->lstrip = t->lstrip;
		mine->rstrip = t->rstrip;
		mine->normalized = t->normalized;
		t->id = mine->id;
	} else {
		LENS_TRY(add(a, t, err));
	}
	if (t->id == id)
		return LENS_OK;
	return lens_error_at(err, LENS_ERR_FORMAT, a->l->config_path, 0, 0,
			     "added_tokens_decoder: \"%.100s\" has the id %d; by the tokenizer "
			     "it is %d",
			     t->content, (int)id, (int)t->id);
}

static enum lens_status add_decoder(struct adding *a, json_t *list, struct lens_error *err)
{
	struct lens_json config = { a->l->config, a->l->config_path, "" };
	size_t i, n = json_object_size(list);
	struct lens_added_token *token;
	enum lens_status st;

	if (list && (!json_is_object(list) || lens_json_unusable(list)))
		return lens_json_wrong(config, "added_tokens_decoder", "an object", err);
	token = lens_calloc(n, sizeof(*token));
	if (!token)
		return lens_error_nomem(err, n, sizeof(*token));
	st = decoder_tokens(a->l, list, token, err);
	for (i = 0; st == LENS_OK && i < n; i++)
		st = add_of_decoder(a, &token[i], err);
	lens_free(token);
	return st;
}

/* --- special tokens ------------------------------------------------------------------- */

/* value: an object with flags, or anything else (no flags). */
static enum lens_status add_special(struct adding *a, const char *content, const json_t *value,
				    struct lens_error *err)
{
	struct lens_added_token t = { .content = content };

	t.len = content ? strlen(content) : 0;
	t.single_word = json_is_true(json_object_get(value, "single_word"));
	t.lstrip = json_is_true(json_object_get(value, "lstrip"));
	t.rstrip = json_is_true(json_object_get(value, "rstrip"));
	t.normalized = json_is_true(json_object_get(value, "normalized"));
	t.made = lens_vocab_find(&a->l->tok->vocab, content ? content : "", t.len) < 0;
	return add(a, &t, err);
}

/* A list of special tokens, or an object of named ones. */
static enum lens_status list_of(const struct lens_tokenizer_load *l, const char *key,
				json_t **list, struct lens_error *err)
{
	const char *path;

	*list = lens_special_value(l, key, &path);
	if (!*list || json_is_null(*list))
		return LENS_OK;
	if (lens_json_unusable(*list) || (!json_is_array(*list) && !json_is_object(*list)))
		return lens_json_wrong((struct lens_json){ *list, path, key }, "",
				       "a list of tokens", err);
	return LENS_OK;
}

static enum lens_status add_list(struct adding *a, json_t *list, struct lens_error *err)
{
	const char *name;
	json_t *v;
	size_t i;

	json_array_foreach (list, i, v)
		LENS_TRY(add_special(a, lens_special_content(v), v, err));
	json_object_foreach (list, name, v)
		LENS_TRY(add_special(a, lens_special_content(v), v, err));
	return LENS_OK;
}

static enum lens_status add_specials(struct adding *a, json_t *additional, json_t *extra,
				     struct lens_error *err)
{
	const struct lens_tokenizer_class *c = a->l->class;
	size_t i;

	for (i = 0; i < LENS_N_SPECIAL; i++) {
		struct lens_special s;

		LENS_TRY(lens_special_token(a->l, i, &s, err));
		LENS_TRY(add_special(a, s.content, s.value, err));
	}
	LENS_TRY(add_list(a, additional, err));
	for (i = 0; i < sizeof(c->extra) / sizeof(*c->extra); i++)
		LENS_TRY(add_special(a, c->extra[i], NULL, err));
	return add_list(a, extra, err);
}

enum lens_status lens_load_added(const struct lens_tokenizer_load *l, int32_t next_id,
				 struct lens_error *err)
{
	json_t *decoder = json_object_get(l->config, "added_tokens_decoder");
	struct adding a = { l, next_id };
	json_t *additional, *extra;
	size_t most = LENS_N_SPECIAL + sizeof(l->class->extra) / sizeof(*l->class->extra);

	LENS_TRY(list_of(l, "additional_special_tokens", &additional, err));
	LENS_TRY(list_of(l, "extra_special_tokens", &extra, err));
	most += size_of(decoder) + size_of(additional) + size_of(extra);
	LENS_TRY(lens_added_reserve(&l->tok->added, most, err));
	LENS_TRY(add_decoder(&a, decoder, err));
	LENS_TRY(add_specials(&a, additional, extra, err));
	return lens_added_finish(&l->tok->added, &l->tok->normalizer, err);
}
