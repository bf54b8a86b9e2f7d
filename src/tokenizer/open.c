/*
 * tokenizer/open.c: opens a directory. In: its path; out: a tokenizer. First reads
 * tokenizer_config.json, special_tokens_map.json and config.json, if they exist, which
 * say whose rules apply; then tokenizer.json or vocab.json + merges.txt; then decides on
 * the BOS token.
 */
#include "tokenizer/tokenizer_private.h"

#include <string.h>

static void set_n_vocab(struct lens_tokenizer *tok)
{
	size_t i;

	tok->n_vocab = tok->vocab.n_ids;
	for (i = 0; i < tok->added.n; i++)
		tok->n_vocab = lens_max(tok->n_vocab, (size_t)tok->added.token[i].id + 1);
}

static enum lens_status load_any(struct lens_tokenizer_load *l, const char *json,
				 const char *vocab, const char *merges, const char *spm,
				 struct lens_error *err)
{
	LENS_TRY(lens_load_configs(l, err));
	LENS_TRY(lens_load_class(l, err));
	if (lens_file_exists(json)) {
		LENS_TRY(lens_load_tokenizer_json(l, json, err));
	} else if (lens_file_exists(vocab) && lens_file_exists(merges)) {
		LENS_TRY(lens_load_files(l, vocab, merges, err));
	} else if (lens_file_exists(spm)) {
		return lens_error_at(
			err, LENS_ERR_UNSUPPORTED, l->dir, 0, 0,
			"tokenizer.model without a tokenizer.json is not supported: "
			"transformers writes one, "
			"AutoTokenizer.from_pretrained(DIR).save_pretrained(DIR)");
	} else {
		return lens_model_folder_error(l->dir,
					       "no tokenizer here: neither tokenizer.json nor "
					       "vocab.json with merges.txt",
					       false, err);
	}
	set_n_vocab(l->tok);
	LENS_TRY(lens_load_bos(l, err));
	return lens_sha256_final(l->sha, l->tok->sha256, err);
}

static enum lens_status load(struct lens_tokenizer_load *l, struct lens_error *err)
{
	char *json = lens_path_join(l->dir, "tokenizer.json");
	char *vocab = lens_path_join(l->dir, "vocab.json");
	char *merges = lens_path_join(l->dir, "merges.txt");
	char *spm = lens_path_join(l->dir, "tokenizer.model");
	enum lens_status st;

	if (!json || !vocab || !merges || !spm)
		st = lens_error_nomem(err, 3, strlen(l->dir));
	else
		st = load_any(l, json, vocab, merges, spm, err);
	lens_free(json);
	lens_free(vocab);
	lens_free(merges);
	lens_free(spm);
	return st;
}

enum lens_status lens_tokenizer_open(const char *dir, struct lens_tokenizer **out,
				     struct lens_error *err)
{
	struct lens_tokenizer_load l = { .dir = dir };
	enum lens_status st;

	*out = NULL;
	l.tok = lens_calloc(1, sizeof(*l.tok));
	if (!l.tok)
		return lens_error_nomem(err, 1, sizeof(*l.tok));
	lens_bytelevel_init(&l.tok->bytes);
	l.tok->unk = l.tok->post_first = -1;
	st = lens_sha256_create(&l.sha, err);
	if (st == LENS_OK)
		st = load(&l, err);
	lens_sha256_destroy(l.sha);
	json_decref(l.config);
	json_decref(l.special);
	json_decref(l.model);
	lens_free(l.config_path);
	lens_free(l.model_path);
	lens_free(l.special_path);
	if (st == LENS_OK)
		*out = l.tok;
	else
		lens_tokenizer_destroy(l.tok);
	return st;
}
