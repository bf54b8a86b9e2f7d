/*
 * plan/memory.c: how much memory a plan takes, and how many workers fit in what there
 * is. In: the plan, the threads, the bytes that may be taken; out: the numbers.
 */
#include "plan/plan_private.h"

#include <string.h>

/* Of a dataset whose chunks batches share: as many as the rows in hand may be of. */
static size_t open_chunks(const struct lens_plan *p, const struct lens_planned *d,
			  size_t workers)
{
	size_t rows = lens_rows_in_hand(p, workers), chunk = d->chunk[0];
	size_t open = lens_min(rows / chunk + 2, (d->extent[0] + chunk - 1) / chunk);

	if (d->from == LENS_FROM_HOOK && !p->capture.spec[d->source].by_rows)
		return 0;
	if (p->sort_rows)
		return open;
	/* Chunks that a batch holds whole are not gathered. */
	if (d->from == LENS_FROM_HOOK && p->batch_rows % chunk == 0)
		return 0;
	/* In file order each unfinished batch has rows of one, or ends amid two. */
	return lens_min(open, chunk % p->batch_rows ? 2 * workers + 1 : workers + 1);
}

/*
 * Without padding, a batch ends within a chunk: both ends of each batch in hand are open.
 * Chunks of many batches are fewer: those that the window reaches over.
 */
static size_t open_of_tokens(const struct lens_plan *p, const struct lens_planned *d,
			     size_t workers)
{
	size_t ahead = (LENS_BATCH_WINDOW * workers + 1) * p->max_packed / d->chunk[0] + 2;
	size_t all = (d->extent[0] + d->chunk[0] - 1) / d->chunk[0];

	return lens_min(lens_min(ahead, 2 * workers + 1), all);
}

/* Chunks that batches share are gathered by the writer. */
static size_t shared_bytes(const struct lens_plan *p, size_t workers)
{
	size_t i, sum = lens_order_bytes(p);
	int k;

	for (i = 0; i < p->n_datasets; i++) {
		const struct lens_planned *d = &p->dataset[i];
		size_t n = lens_dtype_size(d->dtype);

		for (k = 0; k < d->rank; k++)
			n *= d->chunk[k];
		sum += n * (lens_by_token(d) ? open_of_tokens(p, d, workers)
					     : open_chunks(p, d, workers));
	}
	return sum;
}

static size_t largest_buffer(const struct lens_plan *p)
{
	size_t i, n = lens_capture_buffer_bytes(&p->capture);

	for (i = 0; i < p->n_datasets; i++) {
		const struct lens_planned *d = &p->dataset[i];

		if (d->from != LENS_FROM_HOOK)
			n = lens_max(n, lens_min(p->batch_rows, d->chunk[0]) *
						lens_row_bytes(d, &p->sizes));
	}
	return n;
}

#define LEAST_BUFFERS 2 /* one being filled, one being written */
#define SPARE_BUFFERS 8 /* a worker, where memory allows … */
/* … and up to four times as many: what a block shows at once of a full cache. */
#define BURST_BYTES ((size_t)64 << 20)

/* Buffers that keep `workers` workers from waiting for the writer. */
static size_t enough_buffers(const struct lens_memory *m)
{
	size_t burst = BURST_BYTES / lens_max(m->buffer, 1);

	burst = lens_max(lens_min(burst, 4 * SPARE_BUFFERS), SPARE_BUFFERS);
	return (1 + m->workers) * SPARE_BUFFERS + m->workers * (burst - SPARE_BUFFERS);
}

/* What `workers` workers need at the least. */
static size_t least_memory(const struct lens_plan *p, const struct lens_memory *m,
			   size_t workers)
{
	return m->model + m->mean + shared_bytes(p, workers) + LEAST_BUFFERS * m->buffer +
	       workers * (m->per_worker + m->buffer);
}

/* What is needed, so that what is as much would do. */
static size_t mib(size_t bytes)
{
	return (bytes >> 20) + (bytes % (1 << 20) != 0);
}

/* What there is: the end of an error that says what is needed. */
static enum lens_status too_little(const struct lens_memory *m, struct lens_error *err)
{
	bool given = m->from == LENS_MEMORY_GIVEN;

	lens_error_add(err, "; %s%s %s %zu MiB", given ? "" : "three quarters of ",
		       lens_memory_name(m->from), given ? "gives" : "are", m->limit >> 20);
	return LENS_ERR_NOMEM;
}

static enum lens_status too_little_for_workers(const struct lens_memory *m, size_t needed,
					       struct lens_error *err)
{
	lens_error_set(err, LENS_ERR_NOMEM,
		       "memory: one worker needs %zu MiB (model %zu, worker %zu, buffers "
		       "and open chunks %zu%s",
		       mib(needed), m->model >> 20, m->per_worker >> 20,
		       (needed - m->model - m->mean - m->per_worker) >> 20, m->mean ? "" : ")");
	if (m->mean)
		lens_error_add(err, ", means %zu)", m->mean >> 20);
	return too_little(m, err);
}

/* --- the first pass, for ablate.value: mean -------------------------------------------- */

/*
 * What it takes beside model and means: the sweep's sums, and the workers' forwards, or
 * another shard's sums to be added.
 */
static size_t first_pass_bytes(const struct lens_plan *p, size_t longest,
			       const struct lens_memory *m)
{
	const struct lens_visitors none = { NULL, 0 };
	const struct lens_forward_size size = { .visitors = &none,
						.max_rows = p->max_packed,
						.max_length = p->prompts->max_length,
						.threads = (int)m->inner_threads };
	size_t sums = lens_sums_bytes(&p->study, longest);
	size_t pass = lens_batch_bytes(p->batch_rows, p->max_packed, p->max_packed) +
		      lens_forward_bytes(p->model, &size);

	return sums + lens_max(sums, m->workers * pass);
}

/* The first pass is over before the workers begin; of it only the means stay. */
static enum lens_status plan_first_pass(const struct lens_plan *p, struct lens_memory *m,
					struct lens_error *err)
{
	size_t longest = (p->whole ? p->whole : p)->prompts->max_length, needed;

	if (!m->mean)
		return LENS_OK;
	needed = m->model + m->mean + first_pass_bytes(p, longest, m);
	m->total = lens_max(m->total, needed);
	if (needed <= m->limit)
		return LENS_OK;
	lens_error_set(err, LENS_ERR_NOMEM,
		       "memory: the first pass, for ablate.value: mean, needs %zu MiB (model "
		       "%zu, means %zu; with ablate.mean_over: tokens, less)",
		       mib(needed), m->model >> 20, m->mean >> 20);
	return too_little(m, err);
}

struct lens_forward_size lens_plan_pass(const struct lens_plan *p,
					const struct lens_visitors *visitors, size_t threads)
{
	size_t second = lens_tables_second_rows(&p->tables);
	size_t continued = second ? p->tables.max_continued : 0;

	return (struct lens_forward_size){
		.visitors = visitors,
		.max_rows = lens_max(p->max_packed, second),
		.max_length = lens_max(p->prompts->max_length, continued),
		.threads = (int)threads,
	};
}

/* A worker that uses so many threads, and in attention at most so many. */
static size_t worker_bytes(const struct lens_plan *p, size_t threads, size_t most)
{
	const struct lens_visitor of[] = { { .hooks = &p->hooks },
					   { .hooks = &p->table_hooks } };
	const struct lens_visitors both = { of, 2 };
	struct lens_forward_size size = lens_plan_pass(p, &both, threads);
	const struct lens_interventions_options interventions =
		lens_plan_interventions(p, threads);

	size.most_threads = (int)most;
	return lens_batch_bytes(p->most_prompts, p->most_tokens, p->max_packed) +
	       (p->study.n_outcomes ? lens_interventions_bytes(&interventions) : 0) +
	       lens_forward_bytes(p->model, &size) + lens_capture_bytes(&p->capture) +
	       (p->any_table ? lens_tables_bytes(p->model, &p->tables) : 0);
}

static void size_workers(const struct lens_plan *p, size_t workers, size_t inner_threads,
			 struct lens_memory *m)
{
	m->workers = workers;
	m->inner_threads = inner_threads;
	m->most_threads = inner_threads;
	m->per_worker = worker_bytes(p, inner_threads, inner_threads);
}

#define MOST_HELPED ((size_t)8) /* threads in one worker's attention */

/* Where memory allows, room for threads that other workers have left. */
static void size_help(const struct lens_plan *p, size_t threads, struct lens_memory *m)
{
	size_t t, bytes;

	for (t = lens_min(threads, MOST_HELPED); t > m->inner_threads; t--) {
		bytes = worker_bytes(p, m->inner_threads, t);
		if (m->total + m->workers * (bytes - m->per_worker) > m->limit)
			continue;
		m->total += m->workers * (bytes - m->per_worker);
		m->per_worker = bytes;
		m->most_threads = t;
		return;
	}
}

/* --- the loading of the weights, before all else ----------------------------------------- */

static struct lens_memory limits(const struct lens_config *c, const struct lens_available *is)
{
	return (struct lens_memory){
		.from = is->from,
		.limit = is->from == LENS_MEMORY_GIVEN ? is->bytes : is->bytes / 4 * 3,
		.model = sizeof(float) * lens_model_weights(c),
	};
}

enum lens_status lens_plan_loading(const struct lens_config *c, const struct lens_processing *p,
				   const struct lens_available *is, size_t *threads,
				   struct lens_error *err)
{
	const struct lens_memory m = limits(c, is);
	size_t each = lens_model_loading_bytes(c, p), needed = m.model + each;

	if (needed > m.limit) {
		lens_error_set(err, LENS_ERR_NOMEM,
			       "memory: the loading of the weights needs %zu MiB (weights %zu)",
			       mib(needed), m.model >> 20);
		return too_little(&m, err);
	}
	*threads = lens_min(*threads, (m.limit - m.model) / each);
	return LENS_OK;
}

/* The loading is over before the workers begin. */
static enum lens_status add_loading(const struct lens_plan *p, size_t threads,
				    const struct lens_available *is, struct lens_memory *m,
				    struct lens_error *err)
{
	const struct lens_model *model = p->model;
	size_t each = lens_model_loading_bytes(&model->config, &model->processing);

	LENS_TRY(lens_plan_loading(&model->config, &model->processing, is, &threads, err));
	m->total = lens_max(m->total, m->model + threads * each);
	return LENS_OK;
}

enum lens_status lens_plan_memory(const struct lens_plan *p, size_t threads,
				  const struct lens_available *is, struct lens_memory *m,
				  struct lens_error *err)
{
	size_t n;

	*m = limits(&p->model->config, is);
	m->mean = lens_mean_bytes(&p->study, (p->whole ? p->whole : p)->prompts->max_length);
	m->buffer = largest_buffer(p);
	n = lens_min(threads, p->n_batches);
	size_workers(p, n, threads / n, m);
	/* Fewer workers use more threads each; the last one, fewer of them. */
	while (m->workers > 1 && least_memory(p, m, m->workers) > m->limit)
		size_workers(p, m->workers - 1, threads / (m->workers - 1), m);
	while (m->inner_threads > 1 && least_memory(p, m, m->workers) > m->limit)
		size_workers(p, m->workers, m->inner_threads - 1, m);
	if (least_memory(p, m, m->workers) > m->limit)
		return too_little_for_workers(m, least_memory(p, m, m->workers), err);
	m->shared = shared_bytes(p, m->workers);
	m->buffers = LEAST_BUFFERS + m->workers;
	m->total = least_memory(p, m, m->workers);
	while (m->buffers < enough_buffers(m) && m->total + m->buffer <= m->limit) {
		m->buffers++;
		m->total += m->buffer;
	}
	size_help(p, threads, m);
	LENS_TRY(add_loading(p, threads, is, m, err));
	return plan_first_pass(p, m, err);
}
