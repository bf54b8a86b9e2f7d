/*
 * tokenizer/load_bos.c: the token that prepend_bos puts in front, chosen as by
 * TransformerLens 2.16, and the choices of others. In: the loaded tokenizer, its class,
 * the special tokens, config.json; out: the BOS token, and whether the tokenizer adds
 * it by itself.
 *
 * TransformerLens asks the tokenizer for special tokens (with add_bos_token) and takes
 * the one that then comes first. If there is none, it takes bos_token, else eos_token,
 * else the text <|endoftext|>.
 */
#include "tokenizer/tokenizer_private.h"

#include <stdlib.h>
#include <string.h>

static int32_t id_of(const struct lens_tokenizer *tok, const char *content)
{
	size_t len = content ? strlen(content) : 0;
	const struct lens_added_token *added;

	if (!content)
		return -1;
	added = lens_added_find(&tok->added, content, len);
	if (added && added->made)
		return -1; /* the model was not trained with it */
	return added ? added->id : lens_vocab_find(&tok->vocab, content, len);
}

/* bos_token_id of config.json, unless the tokenizer has no such token. */
static void set_config_bos(struct lens_tokenizer_load *l)
{
	int32_t id;

	l->tok->config_bos = -1;
	if (lens_json_id(json_object_get(l->model, "bos_token_id"), &id) &&
	    (size_t)id < l->tok->n_vocab)
		l->tok->config_bos = id;
}

/*
 * Some classes build their post-processor from add_bos_token; all others take it from
 * tokenizer.json.
 */
static enum lens_status set_adds_bos(struct lens_tokenizer_load *l, struct lens_error *err)
{
	struct lens_json at = { l->config, l->config_path, "" };
	struct lens_tokenizer *tok = l->tok;

	tok->adds_bos = tok->hf_bos >= 0 && tok->post_first == tok->hf_bos;
	if (!l->class->made_anew)
		return LENS_OK;
	tok->adds_bos = l->class->adds_bos;
	LENS_TRY(lens_json_bool(at, "add_bos_token", false, &tok->adds_bos, err));
	tok->adds_bos = tok->adds_bos && tok->hf_bos >= 0;
	return LENS_OK;
}

/* Says why there is no BOS, and what to do. */
static enum lens_status tell_no_bos(const struct lens_tokenizer_load *l,
				    const struct lens_special *s, struct lens_buf *b,
				    struct lens_error *err)
{
	const char *path = s->of_class || !s->value ? l->dir : s->path;

	if (s->content)
		LENS_TRY(lens_buf_printf(b, err,
					 "%s: %s \"%.100s\"%s%s is not a token of the "
					 "tokenizer",
					 path, s->key, s->content, s->of_class ? " of " : "",
					 s->of_class ? l->class->name : ""));
	else
		LENS_TRY(lens_buf_printf(b, err, "%s: no BOS token: no bos_token, no eos_token",
					 l->dir));
	LENS_TRY(lens_buf_printf(b, err, "; set data.bos to choose one"));
	if (l->tok->config_bos >= 0)
		LENS_TRY(lens_buf_printf(b, err, " (config.json: %d)", l->tok->config_bos));
	return lens_buf_printf(b, err, ", or data.prepend_bos: false to do without");
}

static enum lens_status set_no_bos(struct lens_tokenizer_load *l, const struct lens_special *s,
				   struct lens_error *err)
{
	struct lens_buf b = LENS_BUF_INIT;
	enum lens_status st = tell_no_bos(l, s, &b, err);

	if (st == LENS_OK)
		l->tok->no_bos = b.data;
	else
		lens_buf_release(&b);
	return st;
}

/*
 * Older versions hashed config.json if no other file had a bos_token; digests must not
 * change.
 */
static enum lens_status digest_config(struct lens_tokenizer_load *l, struct lens_error *err)
{
	const json_t *c = json_object_get(l->config, "bos_token");
	const json_t *s = json_object_get(l->special, "bos_token");
	struct lens_buf b = LENS_BUF_INIT;
	enum lens_status st;

	if (!l->model || (c && !json_is_null(c)) || (s && !json_is_null(s)))
		return LENS_OK;
	st = lens_file_read(l->model_path, LENS_TOKENIZER_MAX_FILE, &b, err);
	if (st == LENS_OK)
		st = lens_digest_file(l->sha, "config.json", &b, err);
	lens_buf_release(&b);
	return st;
}

enum lens_status lens_load_bos(struct lens_tokenizer_load *l, struct lens_error *err)
{
	struct lens_tokenizer *tok = l->tok;
	struct lens_special bos, eos;

	LENS_TRY(lens_special_token(l, LENS_BOS, &bos, err));
	LENS_TRY(lens_special_token(l, LENS_EOS, &eos, err));
	tok->hf_bos = id_of(tok, bos.content);
	set_config_bos(l);
	LENS_TRY(set_adds_bos(l, err));
	if (!l->class->made_anew && tok->post_first >= 0)
		tok->bos = tok->post_first;
	else if (bos.content)
		tok->bos = tok->hf_bos;
	else
		tok->bos = id_of(tok, eos.content ? eos.content : "<|endoftext|>");
	if (tok->bos < 0)
		LENS_TRY(set_no_bos(l, bos.content ? &bos : &eos, err));
	return digest_config(l, err);
}

/* --- the user's choice ------------------------------------------------------------------ */

enum lens_status lens_tokenizer_choose_bos(struct lens_tokenizer *tok, const char *choice,
					   struct lens_error *err)
{
	static const char digits[] = "0123456789";
	size_t n = strlen(choice);
	char *text;

	if (!strcmp(choice, "auto"))
		return LENS_OK;
	if (n && strspn(choice, digits) == n) {
		if (n > 9 || (size_t)atol(choice) >= tok->n_vocab)
			return lens_error_set(err, LENS_ERR_INVALID,
					      "data.bos: the id %s is not below the "
					      "tokenizer's %zu; put a token in quotes",
					      choice, tok->n_vocab);
		tok->bos = (int32_t)atol(choice);
		tok->bos_chosen = true;
		return LENS_OK;
	}
	text = lens_strdup(choice);
	if (!text)
		return lens_error_nomem(err, n, 1);
	if (n >= 2 && choice[0] == '"' && choice[n - 1] == '"') {
		memmove(text, text + 1, n - 2);
		text[n - 2] = '\0';
	}
	tok->bos = id_of(tok, text);
	tok->bos_chosen = true;
	lens_free(text);
	return tok->bos >= 0
		       ? LENS_OK
		       : lens_error_set(err, LENS_ERR_INVALID,
					"data.bos: %s is not a token of the tokenizer", choice);
}

/* "5 "<s>"", or "none". */
static enum lens_status put_token(const struct lens_tokenizer *tok, int32_t id,
				  struct lens_buf *out, struct lens_error *err)
{
	const struct lens_added_token *added = lens_added_by_id(&tok->added, id);
	size_t len = added ? added->len : 0;
	const char *text = added ? added->content : NULL;

	if (id < 0)
		return lens_buf_printf(out, err, "none");
	if (!text)
		text = lens_vocab_text(&tok->vocab, id, &len);
	return lens_buf_printf(out, err, "%d \"%.*s\"", id, (int)lens_min(len, 60),
			       text ? text : "");
}

enum lens_status lens_tokenizer_bos_doubt(const struct lens_tokenizer *tok,
					  struct lens_buf *out, struct lens_error *err)
{
	if (tok->bos_chosen || tok->bos < 0 ||
	    (tok->bos == tok->hf_bos && (tok->config_bos < 0 || tok->config_bos == tok->bos)))
		return LENS_OK;
	LENS_TRY(lens_buf_printf(out, err, "BOS is the token "));
	LENS_TRY(put_token(tok, tok->bos, out, err));
	LENS_TRY(lens_buf_printf(out, err,
				 ", as TransformerLens chooses it; transformers' "
				 "tokenizer.bos_token is "));
	LENS_TRY(put_token(tok, tok->hf_bos, out, err));
	if (tok->config_bos >= 0) {
		LENS_TRY(lens_buf_printf(out, err, ", config.json's bos_token_id "));
		LENS_TRY(put_token(tok, tok->config_bos, out, err));
	}
	return LENS_OK;
}
