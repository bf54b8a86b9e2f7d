/*
 * pipeline/mean_sums.c: one shard's sums. In: its rows; out: sums in float64. Workers run
 * the batches side by side, and at each hook point they add them in their order, so that
 * the sums are those of one worker.
 */
#include "pipeline/pipeline_private.h"

#include <omp.h>
#include <pthread.h>

struct pass {
	const struct lens_mean_job *job;
	const struct lens_memory *memory;
	struct lens_plan plan; /* of the shard */
	struct lens_sums *sums;
	pthread_mutex_t mutex; /* of all that follows, and of sums->count */
	pthread_cond_t moved;
	size_t next;             /* batch to be handed out */
	size_t *added;           /* [n_layers, LENS_HOOK_COUNT] batches that are in the sums */
	struct lens_error first; /* of any worker: all end */
};

struct worker {
	struct pass *pass;
	size_t batch; /* in hand */
	struct lens_batch rows;
	struct lens_forward *forward;
	struct lens_visitor adds, in_turn;
	struct lens_visitors visitors;
};

enum lens_status lens_mean_go_on(const struct lens_mean_job *job, struct lens_error *err)
{
	if (job->stop && atomic_load(job->stop))
		return lens_error_set(err, LENS_ERR_INTERRUPTED,
				      "stopped by a signal in the first pass over the data "
				      "(ablate.value: mean)");
	return LENS_OK;
}

/* A batch waits for those before it, which others have in hand: never for a later one. */
static enum lens_status visit_in_turn(void *ctx, const struct lens_batch *b,
				      const struct lens_activation *a, struct lens_error *err)
{
	const struct worker *w = ctx;
	struct pass *p = w->pass;
	size_t *added = &p->added[a->layer * LENS_HOOK_COUNT + (size_t)a->hook];
	enum lens_status st;

	pthread_mutex_lock(&p->mutex);
	while (*added != w->batch && p->first.code == LENS_OK)
		pthread_cond_wait(&p->moved, &p->mutex);
	st = p->first.code;
	pthread_mutex_unlock(&p->mutex);
	LENS_TRY(st);
	LENS_TRY(w->adds.visit(w->adds.ctx, b, a, err));
	pthread_mutex_lock(&p->mutex);
	++*added;
	pthread_cond_broadcast(&p->moved);
	pthread_mutex_unlock(&p->mutex);
	return LENS_OK;
}

static enum lens_status worker_init(struct worker *w, struct pass *p, struct lens_error *err)
{
	const struct lens_forward_size size = { .visitors = &w->visitors,
						.max_rows = p->plan.max_packed,
						.max_length = p->plan.prompts->max_length,
						.threads = (int)p->memory->inner_threads };

	w->pass = p;
	w->adds = lens_sums_visitor(p->sums);
	w->in_turn = (struct lens_visitor){ .hooks = w->adds.hooks,
					    .visit = visit_in_turn,
					    .ctx = w };
	w->visitors = (struct lens_visitors){ &w->in_turn, 1 };
	LENS_TRY(lens_batch_init(&w->rows, p->plan.batch_rows, size.max_rows, size.max_rows,
				 err));
	w->rows.share = p->plan.experiment->share_prefixes;
	return lens_forward_create(p->plan.model, &size, &w->forward, err);
}

static bool next_batch(struct worker *w)
{
	struct pass *p = w->pass;
	bool given;

	pthread_mutex_lock(&p->mutex);
	given = p->first.code == LENS_OK && p->next < p->plan.n_batches;
	if (given)
		w->batch = p->next++;
	pthread_mutex_unlock(&p->mutex);
	return given;
}

static enum lens_status run_batch(struct worker *w, struct lens_error *err)
{
	struct pass *p = w->pass;
	const struct lens_prompts *q = p->plan.prompts;
	size_t row = w->batch * p->plan.batch_rows;
	size_t end = lens_min(row + p->plan.batch_rows, q->n_rows);

	LENS_TRY(lens_mean_go_on(p->job, err));
	lens_batch_clear(&w->rows);
	for (; row < end; row++)
		lens_pack_row(&w->rows, q, row);
	/* Whole numbers: in any order. */
	pthread_mutex_lock(&p->mutex);
	lens_sums_count(p->sums, &w->rows);
	pthread_mutex_unlock(&p->mutex);
	return lens_forward_run(w->forward, &w->rows, &w->visitors, err);
}

static void one_worker(struct pass *p)
{
	struct lens_error e = LENS_ERROR_INIT;
	struct worker w = { .batch = 0 };
	enum lens_status st = worker_init(&w, p, &e);

	while (st == LENS_OK && next_batch(&w))
		st = run_batch(&w, &e);
	if (st != LENS_OK) {
		pthread_mutex_lock(&p->mutex);
		if (p->first.code == LENS_OK)
			p->first = e;
		pthread_cond_broadcast(&p->moved);
		pthread_mutex_unlock(&p->mutex);
	}
	lens_forward_destroy(w.forward);
	lens_batch_release(&w.rows);
}

static enum lens_status run_batches(struct pass *p, struct lens_error *err)
{
	size_t n = p->sums->shape.n_layers * LENS_HOOK_COUNT;

	p->added = lens_calloc(n, sizeof(*p->added));
	if (!p->added)
		return lens_error_nomem(err, n, sizeof(*p->added));
	omp_set_max_active_levels(2);
#pragma omp parallel num_threads((int)p->memory->workers)
	one_worker(p);
	return lens_error_pass(err, &p->first);
}

enum lens_status lens_shard_sums(const struct lens_mean_job *job, size_t shard,
				 struct lens_sums *sums, struct lens_error *err)
{
	struct pass p = { .job = job,
			  .memory = lens_parts_memory(job->parts, shard),
			  .sums = sums,
			  .mutex = PTHREAD_MUTEX_INITIALIZER,
			  .moved = PTHREAD_COND_INITIALIZER };
	enum lens_status st = lens_parts_plan(job->parts, shard, &p.plan, err);

	if (st == LENS_OK)
		st = lens_sums_init(sums, &job->parts->whole->study, p.plan.prompts->max_length,
				    err);
	if (st == LENS_OK)
		st = run_batches(&p, err);
	lens_free(p.added);
	lens_plan_release(&p.plan);
	return st;
}
