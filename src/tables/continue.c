/*
 * tables/continue.c: answers of several tokens. In: a batch's prompts and answers; out:
 * the logits that say how probable each token of an answer is, shown as LENS_AT_ANSWER.
 *
 * Those of the first token are the read position's, from the batch's own pass (logits.c).
 * For the others a second pass runs each prompt up to its read position with the answer
 * behind it, but for its last token: a sequence for each answer of more than one. As many
 * are run together as the room has rows for; a row's bits are its own, and its way in the
 * product is that of a read position, so that each token's logits are those of a prompt
 * that ends before it.
 */
#include "tables/tables_private.h"

#include <string.h>

static bool needed(const struct lens_tables_options *opt)
{
	return opt->max_continued && lens_tables_logits(opt) & LENS_AT_ANSWER;
}

size_t lens_tables_second_rows(const struct lens_tables_options *opt)
{
	size_t rows = (lens_batch_rows(1, opt->max_continued) + 11) / 12 * 12;

	return needed(opt) ? lens_max(rows, opt->max_rows) : 0;
}

/* The shortest has a token of its prompt and one of its answer. */
static size_t most_sequences(size_t rows)
{
	return rows / 2;
}

size_t lens_continue_bytes(const struct lens_tables_options *opt)
{
	size_t rows = lens_tables_second_rows(opt), n = most_sequences(rows);

	return rows ? lens_batch_bytes(n, rows, rows) + rows * sizeof(int32_t) +
			       n * sizeof(struct lens_continued)
		    : 0;
}

enum lens_status lens_continue_create(struct lens_tables *t, struct lens_error *err)
{
	size_t rows = lens_tables_second_rows(&t->opt), n = most_sequences(rows);
	struct lens_second_pass *s = &t->second;

	if (!rows)
		return LENS_OK;
	LENS_TRY(lens_batch_init(&s->batch, n, rows, rows, err));
	s->batch.share = t->opt.share_prefixes;
	LENS_TRY(lens_hook_set_init(&s->hooks, &t->model->config, NULL, 0, err));
	lens_hook_want(&s->hooks, LENS_HOOK_RESID_POST, t->model->config.n_layers - 1,
		       LENS_WANT_ALL);
	s->tokens = lens_calloc(rows, sizeof(*s->tokens));
	s->of = lens_calloc(n, sizeof(*s->of));
	return s->tokens && s->of ? LENS_OK : lens_error_nomem(err, rows, sizeof(*s->tokens));
}

void lens_continue_destroy(struct lens_tables *t)
{
	lens_batch_release(&t->second.batch);
	lens_hook_set_release(&t->second.hooks);
	lens_free(t->second.tokens);
	lens_free(t->second.of);
}

/* --- the answers' first tokens --------------------------------------------------------- */

static struct lens_continued answer_of(const struct lens_tables *t, size_t prompt,
				       size_t answer)
{
	size_t row = lens_row_of(&t->in, prompt);
	const uint64_t *offset = t->in.answer_offset + row * t->opt.sizes.n_answers + answer;

	return (struct lens_continued){ .prompt = prompt,
					.answer = answer,
					.token = t->in.answers + offset[0],
					.n = (size_t)(offset[1] - offset[0]) };
}

void lens_first_tokens(struct lens_tables *t, struct lens_logits *l)
{
	size_t i;

	if (!(t->logits & LENS_AT_ANSWER))
		return;
	for (i = 0; i < t->opt.sizes.n_answers; i++) {
		l->of_answer = i;
		l->next = answer_of(t, l->prompt, i).token[0];
		lens_show_logits(t, LENS_AT_ANSWER, l);
	}
	l->next = -1;
}

/* --- the second pass -------------------------------------------------------------------- */

/* The last layer's stream of all sequences. */
static enum lens_status visit(void *ctx, const struct lens_batch *b,
			      const struct lens_activation *a, struct lens_error *err)
{
	struct lens_tables *t = ctx;
	struct lens_tile tile = { .at = LENS_AT_ANSWER, .bias = true };
	size_t i, k;

	(void)err;
	for (i = 0; i < b->n_prompts; i++) {
		const struct lens_continued *c = &t->second.of[i];

		for (k = 1; k < c->n; k++) {
			size_t pos = (size_t)b->read_pos[i] + k;
			size_t row = (size_t)lens_batch_row(b, i, pos);

			const struct lens_place place = { .prompt = c->prompt,
							  .of_answer = c->answer,
							  .pos = k,
							  .next = c->token[k] };

			lens_norm_row(t, a->data + row * a->stride, NULL,
				      lens_tile_add(t, &tile, lens_logits_way(t, 0, pos),
						    &place));
		}
	}
	lens_tile_flush(t, &tile);
	return LENS_OK;
}

static enum lens_status run(struct lens_tables *t, struct lens_forward *f,
			    struct lens_error *err)
{
	struct lens_second_pass *s = &t->second;
	const struct lens_visitor visitor = { .hooks = &s->hooks, .visit = visit, .ctx = t };
	const struct lens_visitors one = { &visitor, 1 };

	if (!s->batch.n_prompts)
		return LENS_OK;
	LENS_TRY(lens_forward_run(f, &s->batch, &one, err));
	lens_batch_clear(&s->batch);
	return LENS_OK;
}

static void pack(struct lens_tables *t, const struct lens_continued *c)
{
	struct lens_second_pass *s = &t->second;
	const struct lens_batch *b = t->in.batch;
	int32_t *tokens = s->tokens + s->batch.n_tokens;
	size_t read = (size_t)b->read_pos[c->prompt];

	memcpy(tokens, b->tokens[c->prompt], (read + 1) * sizeof(*tokens));
	memcpy(tokens + read + 1, c->token, (c->n - 1) * sizeof(*tokens));
	s->of[s->batch.n_prompts] = *c;
	lens_batch_pack(&s->batch, tokens, read + c->n, (int32_t)read, 0);
}

enum lens_status lens_tables_continue(struct lens_tables *t, struct lens_forward *f,
				      struct lens_error *err)
{
	struct lens_batch *b = &t->second.batch;
	size_t i, k;

	if (!b->max_rows)
		return LENS_OK;
	lens_batch_clear(b);
	for (i = 0; i < t->in.batch->n_prompts; i++) {
		for (k = 0; k < t->opt.sizes.n_answers; k++) {
			struct lens_continued c = answer_of(t, i, k);
			size_t length = (size_t)t->in.batch->read_pos[i] + c.n;

			if (c.n == 1)
				continue;
			if (!lens_batch_has_room(b, 1, length, 0))
				LENS_TRY(run(t, f, err));
			pack(t, &c);
		}
	}
	return run(t, f, err);
}
