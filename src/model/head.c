/*
 * model/head.c: what a checkpoint calls its tensors, and which of them is W_U. In: the
 * tensors, the family, the user's choice; out: the names from which W_E and W_U are
 * read.
 *
 * If config.json ties the head (tie_word_embeddings) and the files have a separate head
 * all the same, Hugging Face's versions disagree: transformers 4 (and with it
 * TransformerLens 2.16) ties it, transformers 5 does not if the two differ.
 */
#include "model/model_private.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

struct lens_tensors_at lens_tensors_at(struct lens_checkpoint *k, struct lens_error *err,
				       const char *fmt, ...)
{
	struct lens_tensors_at at = { .t = &k->tensors, .layout = &k->layout, .err = err };
	size_t n = (size_t)snprintf(at.prefix, sizeof(at.prefix), "%s", k->prefix);
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(at.prefix + n, sizeof(at.prefix) - n, fmt, ap);
	va_end(ap);
	return at;
}

/* A base model is saved without the prefix that it has in a model with a head. */
static const char *find_prefix(const struct lens_tensors *t, const struct lens_family *f)
{
	size_t i, n = strlen(f->prefix);

	for (i = 0; i < t->n; i++) {
		if (!strncmp(t->tensor[i].name, f->prefix, n))
			return f->prefix;
	}
	return lens_tensors_find(t, f->embed) ? "" : f->prefix;
}

static enum lens_status no_head(const struct lens_checkpoint *k, const struct lens_family *f,
				enum lens_tied_head choice, struct lens_error *err)
{
	const struct lens_tensors *t = &k->tensors;

	return lens_error_at(
		err, LENS_ERR_FORMAT, t->n_files ? t->file[0].path : NULL, 0, 0,
		"tensor \"%s\" is missing%s", f->head,
		choice == LENS_HEAD_STORED
			? ", and tied_head is stored"
			: ": the model was saved without its head, which config.json "
			  "does not tie to the embedding; the whole model is needed "
			  "(tied_head: tied would take the embedding: another model)");
}

static enum lens_status disagreement(const struct lens_checkpoint *k,
				     const struct lens_family *f, char **warning,
				     struct lens_error *err)
{
	struct lens_buf b = LENS_BUF_INIT;
	enum lens_status st = lens_buf_printf(
		&b, err,
		"the head is tied to the embedding (tie_word_embeddings of config.json, or its "
		"default), but \"%s\" is stored and differs from \"%s\": transformers 4 and "
		"TransformerLens 2.16 use the embedding for both, transformers 5 uses the "
		"stored head; here the embedding is used (tied_head: stored uses the head)",
		f->head, k->w_e);

	if (st == LENS_OK)
		*warning = b.data;
	else
		lens_buf_release(&b);
	return st;
}

enum lens_status lens_checkpoint_names(struct lens_checkpoint *k, const struct lens_family *f,
				       enum lens_tied_head choice, char **warning,
				       struct lens_error *err)
{
	bool tied =
		choice == LENS_HEAD_TIED || (choice == LENS_HEAD_AUTO && k->layout.tied_head);
	struct lens_tensor *embed, *head;

	*warning = NULL;
	k->prefix = find_prefix(&k->tensors, f);
	snprintf(k->w_e, sizeof(k->w_e), "%s%s", k->prefix, f->embed);
	snprintf(k->w_u, sizeof(k->w_u), "%s", f->head);
	embed = lens_tensors_find(&k->tensors, k->w_e);
	head = lens_tensors_find(&k->tensors, k->w_u);
	if (!tied) /* a missing embedding is reported when it is read */
		return head || !embed ? LENS_OK : no_head(k, f, choice, err);
	/* A shared tensor may be stored under either name. */
	if (embed || !head)
		memcpy(k->w_u, k->w_e, sizeof(k->w_u));
	else
		memcpy(k->w_e, k->w_u, sizeof(k->w_e));
	if (!embed || !head)
		return LENS_OK;
	head->used = true; /* known, though not needed */
	return choice == LENS_HEAD_AUTO && !lens_tensors_equal(embed, head)
		       ? disagreement(k, f, warning, err)
		       : LENS_OK;
}
