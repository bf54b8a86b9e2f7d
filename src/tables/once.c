/*
 * tables/once.c: the tables of a few prompts, in one call. In: their tokens; out: rows.
 */
#include "tables/tables_private.h"

/* Everything that one batch needs; released in one place. */
struct once {
	const struct lens_tables_prompts *in;
	struct lens_tables *tables;
	struct lens_hook_set hooks;
	struct lens_batch batch;
	struct lens_forward *forward;
};

static enum lens_status pack(struct once *o, struct lens_error *err)
{
	struct lens_row_count c = { { 0 } };
	size_t i, rows, tokens = 0;

	for (i = 0; i < o->in->n; i++) {
		lens_batch_count(&c, o->in->length[i], 0);
		tokens += o->in->length[i];
	}
	rows = (lens_row_places(&c) + 11) / 12 * 12;
	LENS_TRY(lens_batch_init(&o->batch, o->in->n, tokens, rows, err));
	for (i = 0; i < o->in->n; i++)
		lens_batch_pack(&o->batch, o->in->tokens[i], o->in->length[i],
				(int32_t)o->in->length[i] - 1, 0);
	return LENS_OK;
}

static enum lens_status run(struct once *o, const struct lens_model *m,
			    const struct lens_tables_options *opt, struct lens_error *err)
{
	const struct lens_tables_batch batch = { .batch = &o->batch,
						 .answers = o->in->answers };
	struct lens_visitor visitor = { .hooks = &o->hooks, .visit = lens_tables_visit };
	const struct lens_visitors all = { &visitor, 1 };
	struct lens_forward_size size = { .visitors = &all, .threads = opt->threads };
	size_t i, flagged = 0;

	LENS_TRY(lens_tables_create(m, opt, &o->tables, err));
	LENS_TRY(lens_hook_set_init(&o->hooks, &m->config, NULL, 0, err));
	lens_tables_hooks(m, opt, &o->hooks);
	LENS_TRY(pack(o, err));
	visitor.ctx = o->tables;
	size.max_rows = o->batch.max_rows;
	for (i = 0; i < o->in->n; i++)
		size.max_length = lens_max(size.max_length, o->in->length[i]);
	LENS_TRY(lens_forward_create(m, &size, &o->forward, err));
	lens_tables_begin(o->tables, &batch);
	LENS_TRY(lens_forward_run(o->forward, &o->batch, &all, err));
	lens_tables_finish(o->tables, &flagged);
	return flagged ? lens_error_set(err, LENS_ERR_FORMAT, "the logits are not finite")
		       : LENS_OK;
}

enum lens_status lens_tables_once(const struct lens_model *m,
				  const struct lens_tables_options *opt,
				  const struct lens_tables_prompts *in,
				  struct lens_tables **out, struct lens_error *err)
{
	struct once o = { .in = in };
	enum lens_status st = run(&o, m, opt, err);

	lens_forward_destroy(o.forward);
	lens_batch_release(&o.batch);
	lens_hook_set_release(&o.hooks);
	if (st != LENS_OK) {
		lens_tables_destroy(o.tables);
		o.tables = NULL;
	}
	*out = o.tables;
	return st;
}
