/*
 * tables/tables.c: one worker's tables. In: activations of a pass, and the batch's
 * answers; out: rows of each selected table. What a table does is in its own file;
 * logits come from logits.c and positions.c.
 */
#include "tables/tables_private.h"

#include <string.h>

size_t lens_table_row_bytes(enum lens_table table, const struct lens_tables_options *opt)
{
	const struct lens_table_type *t = lens_table_type(table, opt);
	size_t n = lens_dtype_size(t->dtype);
	int i;

	for (i = 0; i < t->n_axes; i++)
		n *= lens_axis_extent(t->axis[i], &opt->sizes);
	return n;
}

unsigned lens_tables_logits(const struct lens_tables_options *opt)
{
	unsigned at = 0;
	int i;

	for (i = 0; i < LENS_TABLE_COUNT; i++) {
		if (opt->wanted[i])
			at |= lens_table_type((enum lens_table)i, opt)->logits;
	}
	return at;
}

static size_t state_bytes(const struct lens_table_type *t,
			  const struct lens_tables_options *opt)
{
	return t->ops->state_bytes ? t->ops->state_bytes(opt) : 0;
}

size_t lens_tables_bytes(const struct lens_model *m, const struct lens_tables_options *opt)
{
	size_t bytes =
		lens_logits_bytes(m, opt) + lens_attrs_bytes(opt) + lens_continue_bytes(opt);
	int i;

	for (i = 0; i < LENS_TABLE_COUNT; i++) {
		enum lens_table t = (enum lens_table)i;

		if (opt->wanted[i])
			bytes += opt->batch_rows * lens_table_row_bytes(t, opt) +
				 state_bytes(lens_table_type(t, opt), opt);
	}
	return bytes;
}

static void *state_of(const struct lens_tables *t, const struct lens_table_type *type)
{
	size_t i;

	for (i = 0; i < t->n; i++) {
		if (t->view[i].type == type)
			return t->view[i].state;
	}
	return NULL;
}

static enum lens_status add_view(struct lens_tables *t, enum lens_table table,
				 struct lens_error *err)
{
	struct lens_table_view *v = &t->view[t->n++];

	v->model = t->model;
	v->opt = &t->opt;
	v->table = table;
	v->type = lens_table_type(table, &t->opt);
	v->in = &t->in;
	v->row_bytes = lens_table_row_bytes(table, &t->opt);
	v->rows = lens_calloc(t->opt.batch_rows, v->row_bytes);
	v->state = v->type->state_of ? state_of(t, v->type->state_of)
				     : lens_alloc_aligned(state_bytes(v->type, &t->opt), 1);
	return v->rows && v->state ? LENS_OK
				   : lens_error_nomem(err, t->opt.batch_rows, v->row_bytes);
}

enum lens_status lens_tables_create(const struct lens_model *m,
				    const struct lens_tables_options *opt,
				    struct lens_tables **out, struct lens_error *err)
{
	struct lens_tables *t = lens_calloc(1, sizeof(*t));
	enum lens_status st;
	int i;

	*out = NULL;
	if (!t)
		return lens_error_nomem(err, 1, sizeof(*t));
	t->model = m;
	t->opt = *opt;
	t->logits = lens_tables_logits(opt);
	t->view = lens_calloc(LENS_TABLE_COUNT, sizeof(*t->view));
	st = t->view ? lens_logits_create(t, err)
		     : lens_error_nomem(err, LENS_TABLE_COUNT, sizeof(*t->view));
	if (st == LENS_OK)
		st = lens_attrs_create(t, err);
	if (st == LENS_OK)
		st = lens_continue_create(t, err);
	for (i = 0; st == LENS_OK && i < LENS_TABLE_COUNT; i++) {
		if (opt->wanted[i])
			st = add_view(t, (enum lens_table)i, err);
	}
	if (st == LENS_OK)
		*out = t;
	else
		lens_tables_destroy(t);
	return st;
}

void lens_tables_destroy(struct lens_tables *t)
{
	size_t i;

	if (!t)
		return;
	for (i = 0; i < t->n; i++) {
		lens_free(t->view[i].rows);
		if (!t->view[i].type->state_of)
			lens_free(t->view[i].state);
	}
	lens_free(t->view);
	lens_logits_destroy(t);
	lens_attrs_destroy(t);
	lens_continue_destroy(t);
	lens_free(t);
}

void lens_tables_hooks(const struct lens_model *m, const struct lens_tables_options *opt,
		       struct lens_hook_set *hooks)
{
	int i;

	lens_logits_hooks(m, opt, hooks);
	lens_attrs_hooks(m, opt, hooks);
	for (i = 0; i < LENS_TABLE_COUNT; i++) {
		const struct lens_table_ops *ops =
			lens_table_type((enum lens_table)i, opt)->ops;

		if (opt->wanted[i] && ops->hooks)
			ops->hooks(m, hooks);
	}
}

void lens_tables_begin(struct lens_tables *t, const struct lens_tables_batch *in)
{
	size_t i;

	t->in = *in;
	lens_attrs_begin(t);
	for (i = 0; i < t->n; i++) {
		struct lens_table_view *v = &t->view[i];

		lens_fill(v->type->dtype, v->rows,
			  in->batch->n_prompts * v->row_bytes /
				  lens_dtype_size(v->type->dtype));
		memset(v->state, 0, state_bytes(v->type, &t->opt));
		if (v->type->ops->begin)
			v->type->ops->begin(v);
	}
}

enum lens_status lens_tables_visit(void *ctx, const struct lens_batch *b,
				   const struct lens_activation *a, struct lens_error *err)
{
	struct lens_tables *t = ctx;
	size_t i;

	(void)err;
	lens_logits_visit(t, b, a);
	lens_attrs_visit(t, b, a);
	for (i = 0; i < t->n; i++) {
		if (t->view[i].type->ops->visit)
			t->view[i].type->ops->visit(&t->view[i], b, a);
	}
	return LENS_OK;
}

void lens_show_logits(struct lens_tables *t, enum lens_logits_at at, struct lens_logits *l)
{
	size_t i;

	l->at = at;
	for (i = 0; i < t->n; i++) {
		const struct lens_table_type *type = t->view[i].type;

		if ((type->logits | type->logits_if_made) & (unsigned)at)
			type->ops->read(&t->view[i], l);
	}
}

void lens_tables_finish(struct lens_tables *t, size_t *n_flagged)
{
	const uint8_t *flags;
	size_t i;

	lens_logits_read(t);
	for (i = 0; i < t->n; i++) {
		if (t->view[i].type->ops->finish)
			t->view[i].type->ops->finish(&t->view[i]);
	}
	flags = lens_tables_rows(t, LENS_TABLE_flags);
	if (!flags)
		return;
	for (i = 0; i < t->in.batch->n_prompts; i++)
		*n_flagged += (flags[i] & LENS_FLAGS_NONFINITE) != 0;
}

static const struct lens_table_view *find(const struct lens_tables *t, enum lens_table table)
{
	size_t i;

	for (i = 0; i < t->n; i++) {
		if (t->view[i].table == table)
			return &t->view[i];
	}
	return NULL;
}

double lens_tables_deviation(const struct lens_tables *t, enum lens_table table)
{
	const struct lens_table_view *v = find(t, table);

	return v ? v->deviation : 0;
}

const void *lens_tables_rows(const struct lens_tables *t, enum lens_table table)
{
	const struct lens_table_view *v = find(t, table);

	return v ? v->rows : NULL;
}
