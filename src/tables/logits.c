/*
 * tables/logits.c: from the residual stream at the read positions to logits, which are
 * shown to the tables that read them.
 *
 * Rows are unembedded many at a time (prompts × lens layers), because a product
 * with W_U of few rows wastes the machine; the tile's size does not matter to
 * a row's bits, of what the row is only its way does (lens_logits_way). Rows that are the same
 * are unembedded once: those of a layer 0_pre at equal last tokens, all of equal prompts.
 * Sources: resid_pre of each layer, with lens_mid resid_mid behind it, then resid_post of the
 * last.
 */
#include "tables/tables_private.h"

#include <math.h>
#include <string.h>

#define TILE_SLOTS 384
#define TILE_BYTES ((size_t)64 << 20)
#define OWN_SHARE 4 /* of a tile, for the model's own logits beside it: a quarter */

static size_t lens_layers(const struct lens_tables_options *opt)
{
	return lens_axis_extent(LENS_AXIS_LENS_LAYER, &opt->sizes);
}

static size_t sources(const struct lens_tables_options *opt, unsigned logits)
{
	return logits & LENS_AT_LENS_LAYER ? lens_layers(opt) : 1;
}

/* Rows of the batch's streams that are kept: their scale comes last. */
static size_t stream_rows(const struct lens_tables_options *opt, unsigned logits)
{
	bool kept = logits & LENS_AT_LENS_POS && opt->lens == LENS_LENS_CACHED_SCALE_NO_BIAS;

	return kept ? lens_layers(opt) * opt->max_rows : 0;
}

static size_t tile_slots(const struct lens_model *m)
{
	size_t n = TILE_BYTES / sizeof(float) / lens_n_logits(&m->config) / 12 * 12;

	return n < 12 ? 12 : lens_min(n, TILE_SLOTS);
}

/* Prompts whose own logits are kept beside those of their lens layers. */
static size_t own_prompts(const struct lens_model *m, const struct lens_tables_options *opt,
			  unsigned logits)
{
	size_t n = logits & LENS_BESIDE_MODEL ? tile_slots(m) / OWN_SHARE : 0;

	return lens_min(n, opt->batch_rows);
}

static bool has_places(unsigned logits)
{
	return logits & (LENS_AT_ALL_POS | LENS_AT_LENS_POS | LENS_AT_ANSWER);
}

size_t lens_logits_bytes(const struct lens_model *m, const struct lens_tables_options *opt)
{
	size_t d = m->config.d_model, v = lens_n_logits(&m->config), tile = tile_slots(m);
	unsigned logits = lens_tables_logits(opt);
	size_t own = own_prompts(m, opt, logits);
	size_t floats =
		(sources(opt, logits) * opt->batch_rows + stream_rows(opt, logits)) * d +
		tile * (d + 1 + v) + own * v + lens_unembed_pad_floats(&m->config);

	if (logits & LENS_AT_OTHER_POS)
		floats += opt->sizes.n_answers * sizeof(double) / sizeof(float);
	return floats * sizeof(float) + own * sizeof(struct lens_logits) +
	       sources(opt, logits) * opt->batch_rows * sizeof(struct lens_alike) +
	       (has_places(logits) ? tile * sizeof(struct lens_place) : 0);
}

/* What only some tables need. */
static bool create_rest(struct lens_tables *t)
{
	const struct lens_model *m = t->model;
	size_t rows = stream_rows(&t->opt, t->logits);

	t->n_own = own_prompts(m, &t->opt, t->logits);
	if (has_places(t->logits))
		t->place = lens_calloc(t->tile, sizeof(*t->place));
	if (t->logits & LENS_AT_OTHER_POS)
		t->answer_logit = lens_calloc(t->opt.sizes.n_answers, sizeof(double));
	if (rows)
		t->stream = lens_alloc_aligned(rows * m->config.d_model, sizeof(float));
	if (t->n_own) {
		t->own = lens_calloc(t->n_own, sizeof(*t->own));
		t->own_logit =
			lens_alloc_aligned(t->n_own * lens_n_logits(&m->config), sizeof(float));
	}
	return (t->place || !has_places(t->logits)) &&
	       (t->answer_logit || !(t->logits & LENS_AT_OTHER_POS)) && (t->stream || !rows) &&
	       ((t->own && t->own_logit) || !t->n_own);
}

enum lens_status lens_logits_create(struct lens_tables *t, struct lens_error *err)
{
	const struct lens_model *m = t->model;
	size_t d = m->config.d_model;

	t->n_sources = sources(&t->opt, t->logits);
	t->tile = tile_slots(m);
	t->alike = lens_calloc(t->n_sources * t->opt.batch_rows, sizeof(*t->alike));
	t->resid = lens_alloc_aligned(t->n_sources * t->opt.batch_rows * d, sizeof(float));
	t->normed = lens_alloc_aligned(t->tile * d, sizeof(float));
	t->scale = lens_alloc_aligned(t->tile, sizeof(float));
	t->logit = lens_alloc_aligned(t->tile * lens_n_logits(&m->config), sizeof(float));
	t->pad = lens_alloc_aligned(lens_unembed_pad_floats(&m->config), sizeof(float));
	if (t->alike && t->resid && t->normed && t->scale && t->logit && t->pad &&
	    create_rest(t))
		return LENS_OK;
	return lens_error_nomem(err, lens_logits_bytes(m, &t->opt), 1);
}

void lens_logits_destroy(struct lens_tables *t)
{
	lens_free(t->alike);
	lens_free(t->resid);
	lens_free(t->stream);
	lens_free(t->own);
	lens_free(t->own_logit);
	lens_free(t->normed);
	lens_free(t->scale);
	lens_free(t->logit);
	lens_free(t->pad);
	lens_free(t->place);
	lens_free(t->answer_logit);
}

void lens_logits_hooks(const struct lens_model *m, const struct lens_tables_options *opt,
		       struct lens_hook_set *hooks)
{
	unsigned logits = lens_tables_logits(opt);
	enum lens_want want = logits & LENS_AT_LENS_POS ? LENS_WANT_ALL : LENS_WANT_READ_POS;
	size_t i, n = m->config.n_layers;

	if (logits & (LENS_AT_LENS_LAYER | LENS_AT_LENS_POS)) {
		for (i = 0; i < n; i++) {
			lens_hook_want(hooks, LENS_HOOK_RESID_PRE, i, want);
			if (opt->sizes.lens_mid)
				lens_hook_want(hooks, LENS_HOOK_RESID_MID, i, want);
		}
	}
	if (logits & LENS_AT_OTHER_POS)
		want = LENS_WANT_ALL;
	lens_hook_want(hooks, LENS_HOOK_RESID_POST, n - 1, want);
	if (logits & LENS_AT_ALL_POS)
		lens_hook_want(hooks, LENS_HOOK_LN_FINAL_NORMALIZED, 0, LENS_WANT_ALL);
}

bool lens_layer_of(const struct lens_tables *t, const struct lens_activation *a, size_t *out)
{
	const struct lens_sizes *s = &t->opt.sizes;

	*out = a->layer * (s->lens_mid ? 2 : 1);
	if (a->hook == LENS_HOOK_RESID_PRE)
		return true;
	if (a->hook == LENS_HOOK_RESID_MID)
		++*out;
	else
		*out = lens_layers(&t->opt) - 1;
	return a->hook == LENS_HOOK_RESID_MID
		       ? s->lens_mid
		       : a->hook == LENS_HOOK_RESID_POST && a->layer == s->n_layers - 1;
}

void lens_logits_visit(struct lens_tables *t, const struct lens_batch *b,
		       const struct lens_activation *a)
{
	size_t i, layer, source, d = t->model->config.d_model;

	if (a->hook == LENS_HOOK_LN_FINAL_NORMALIZED && t->logits & LENS_AT_ALL_POS)
		lens_every_pos_read(t, b, a);
	if (!lens_layer_of(t, a, &layer))
		return;
	if (t->logits & LENS_AT_LENS_POS)
		lens_every_pos_lens(t, b, a, layer);
	if (t->logits & LENS_AT_OTHER_POS && a->hook == LENS_HOOK_RESID_POST)
		lens_other_pos_read(t, b, a);
	if (a->hook != LENS_HOOK_RESID_POST && t->n_sources == 1)
		return;
	source = a->hook == LENS_HOOK_RESID_POST ? t->n_sources - 1 : layer;
	for (i = 0; i < b->n_prompts; i++) {
		size_t row = (size_t)lens_batch_row(b, i, (size_t)b->read_pos[i]);

		memcpy(t->resid + (source * t->opt.batch_rows + i) * d,
		       a->data + row * a->stride, d * sizeof(float));
	}
}

/* --- unembedding -------------------------------------------------------------- */

static struct lens_logits logits_of(struct lens_tables *t, size_t prompt, size_t slot)
{
	size_t v = lens_n_logits(&t->model->config), n = t->opt.sizes.n_answers;
	const float *logit = t->logit + slot * v;
	float max = lens_vec()->max_finite(v, logit);

	return (struct lens_logits){ .prompt = prompt,
				     .next = -1,
				     .logit = logit,
				     .d_vocab = v,
				     .answer = n && !t->in.answer_offset
						       ? lens_answers_of(&t->in, n, prompt)
						       : NULL,
				     .n_answers = n,
				     .finite = !isnan(max),
				     .max = max,
				     .scale = t->scale[slot],
				     .top = t->top };
}

/* --- the read positions ------------------------------------------------------- */

/* What the rows of a pass are read as. Row i: prompt i / n_sources, source i % n_sources. */
struct reading {
	size_t prompt, n_prompts; /* the first, and how many */
	size_t source, n_sources;
	bool cached_scale; /* else ln_final, with b_U */
	bool model_itself; /* the last source is read as the model's own logits */
	bool lens;         /* the sources are read as lens layers */
};

static const float *stream_of(const struct lens_tables *t, size_t source, size_t prompt)
{
	return t->resid + (source * t->opt.batch_rows + prompt) * t->model->config.d_model;
}

static struct lens_alike *alike_of(const struct lens_tables *t, const struct reading *r,
				   size_t i)
{
	return t->alike + (r->source + i % r->n_sources) * t->opt.batch_rows + r->prompt +
	       i / r->n_sources;
}

/* Have two prompts the same logits of a source? */
static bool are_alike(const struct lens_tables *t, const struct reading *r, size_t source,
		      size_t a, size_t b)
{
	size_t bytes = t->model->config.d_model * sizeof(float), last = t->n_sources - 1;

	return t->in.batch->read_pos[a] == t->in.batch->read_pos[b] &&
	       !memcmp(stream_of(t, source, a), stream_of(t, source, b), bytes) &&
	       (!r->cached_scale ||
		!memcmp(stream_of(t, last, a), stream_of(t, last, b), bytes));
}

/* Row i of a reading: is it that of an earlier prompt? Each has the next one like it. */
static void find_alike(struct lens_tables *t, const struct reading *r, size_t i)
{
	struct lens_alike *alike = alike_of(t, r, i), *before = alike;
	size_t source = r->source + i % r->n_sources, prompt = i / r->n_sources, other = prompt;

	*alike = (struct lens_alike){ .repeats = false };
	while (other-- > 0) {
		before--;
		if (!are_alike(t, r, source, r->prompt + prompt, r->prompt + other))
			continue;
		alike->repeats = true;
		before->next = prompt - other;
		return;
	}
}

static size_t way_of(const struct lens_tables *t, const struct reading *r, size_t i)
{
	size_t source = r->source + i % r->n_sources, prompt = r->prompt + i / r->n_sources;

	return lens_logits_way(t, t->n_sources - 1 - source,
			       (size_t)t->in.batch->read_pos[prompt]);
}

static void prepare_row(struct lens_tables *t, const struct reading *r, size_t i, size_t slot)
{
	size_t source = r->source + i % r->n_sources, prompt = r->prompt + i / r->n_sources;
	const float *last = stream_of(t, t->n_sources - 1, prompt);

	lens_norm_row(t, stream_of(t, source, prompt), r->cached_scale ? last : NULL, slot);
}

static void keep_own(struct lens_tables *t, const struct lens_logits *l, size_t i)
{
	float *logit = t->own_logit + i * l->d_vocab;

	memcpy(logit, l->logit, l->d_vocab * sizeof(*logit));
	t->own[i] = *l;
	t->own[i].logit = logit;
}

static void show_row(struct lens_tables *t, const struct reading *r, size_t i, size_t slot)
{
	size_t source = r->source + i % r->n_sources, prompt = i / r->n_sources;
	bool model_itself = r->model_itself && source == t->n_sources - 1;
	struct lens_logits l = logits_of(t, r->prompt + prompt, slot);

	if (model_itself && t->own)
		keep_own(t, &l, prompt);
	if (model_itself) {
		lens_show_logits(t, LENS_AT_READ_POS, &l);
		lens_first_tokens(t, &l);
	}
	l.layer = source;
	l.model = t->own ? &t->own[prompt] : NULL;
	if (r->lens)
		lens_show_logits(t, LENS_AT_LENS_LAYER, &l);
}

/* Row i, and those that repeat it. */
static void show_alike(struct lens_tables *t, const struct reading *r, size_t i, size_t slot)
{
	size_t next = i;

	do {
		i = next;
		show_row(t, r, i, slot);
		next += alike_of(t, r, i)->next * r->n_sources;
	} while (next != i);
}

/* Rows i … go into a tile until it is full; returns the one past the last. */
static size_t fill_tile(struct lens_tables *t, const struct reading *r, size_t i,
			struct lens_row_count *used)
{
	for (; i < r->n_sources * r->n_prompts; i++) {
		size_t way = way_of(t, r, i);

		if (alike_of(t, r, i)->repeats)
			continue;
		if (lens_tile_is_full(t, used, way))
			break;
		prepare_row(t, r, i, lens_row_place(way, used->n[way]++));
	}
	return i;
}

static void read_sources(struct lens_tables *t, const struct reading *r)
{
	size_t i, end, way, total = r->n_sources * r->n_prompts;

	for (i = 0; i < total; i++)
		find_alike(t, r, i);
	for (i = 0; i < total;) {
		struct lens_row_count used = { { 0 } }, shown = { { 0 } };

		end = fill_tile(t, r, i, &used);
		lens_unembed_tile(t, &used, !r->cached_scale);
		for (; i < end; i++) {
			way = way_of(t, r, i);
			if (!alike_of(t, r, i)->repeats)
				show_alike(t, r, i, lens_row_place(way, shown.n[way]++));
		}
	}
}

/* The model itself, which is the recomputed lens's last row; then the other layers. */
static void read_group(struct lens_tables *t, size_t prompt, size_t n)
{
	bool lens = t->n_sources > 1, cached = lens_cached_scale(t);
	struct reading r = { .prompt = prompt,
			     .n_prompts = n,
			     .source = t->n_sources - 1,
			     .n_sources = 1,
			     .model_itself = true,
			     .lens = lens && !cached };

	/* In one pass, where nothing is read beside the model's own. */
	if (lens && !cached && !t->own) {
		r.source = 0;
		r.n_sources = t->n_sources;
	}
	read_sources(t, &r);
	if (!lens || !r.source)
		return;
	r = (struct reading){ .prompt = prompt,
			      .n_prompts = n,
			      .n_sources = t->n_sources - (cached ? 0 : 1),
			      .cached_scale = cached,
			      .lens = true };
	read_sources(t, &r);
}

void lens_logits_read(struct lens_tables *t)
{
	size_t i, n = t->in.batch->n_prompts, group = t->own ? t->n_own : n;

	for (i = 0; i < n; i += group)
		read_group(t, i, lens_min(group, n - i));
}
