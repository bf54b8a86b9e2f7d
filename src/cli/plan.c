/*
 * cli/plan.c: what `run` says before it computes anything: data sets, shards, memory, what
 * interventions cost, how long it may take.
 */
#include "cli/run_args_private.h"

/* What the file holds beside the values of tokens. */
static uint64_t padding_of(const struct lens_dataset_summary *d)
{
	return d->file_bytes > d->data_bytes ? d->file_bytes - d->data_bytes : 0;
}

static void show_dataset(const struct lens_dataset_summary *d)
{
	char data[32], padding[32], shape[96];
	int k, at = 0;

	for (k = 0; k < d->rank; k++)
		at += snprintf(shape + at, sizeof(shape) - (size_t)at, "%s%zu", k ? "×" : "",
			       d->extent[k]);
	/* × is two bytes wide and one column */
	printf("%-44s %-*s %12s %12s\n", d->path, 24 + d->rank - 1, shape,
	       human_bytes((double)d->data_bytes, data),
	       human_bytes((double)padding_of(d), padding));
}

static bool is_stored(const char *path)
{
	return !strncmp(path, "/cache/", 7) || !strncmp(path, "/tokens/", 8);
}

/* "/cache/hook_embed" or "/tokens/hook_embed" → "hook_embed" */
static const char *hook_of(const char *path)
{
	return strchr(path + 1, '/') + 1;
}

/* A hook point of the plan, if it is stored, or stands for another. */
static void show_hook(const struct lens_plan_summary *p, enum lens_hook hook, size_t layer)
{
	char name[LENS_HOOK_NAME];
	size_t i;

	lens_hook_name(hook, layer, name);
	for (i = 0; i < p->n_datasets; i++) {
		if (is_stored(p->dataset[i].path) && !strcmp(hook_of(p->dataset[i].path), name))
			show_dataset(&p->dataset[i]);
	}
	for (i = 0; i < p->n_links; i++) {
		if (!strcmp(hook_of(p->link[i].path), name))
			printf("%-44s is %s\n", p->link[i].path, p->link[i].target);
	}
}

/* In the order in which they arise in a pass: embeddings, block by block, what follows. */
static void show_hooks(const struct lens_plan_summary *p)
{
	size_t h, first, end, layer;

	for (first = 0; first < LENS_HOOK_COUNT; first = end) {
		bool blocks = lens_hook_info((enum lens_hook)first)->per_layer;

		for (end = first; end < LENS_HOOK_COUNT &&
				  lens_hook_info((enum lens_hook)end)->per_layer == blocks;)
			end++;
		for (layer = 0; layer < (blocks ? p->n_layers : 1); layer++) {
			for (h = first; h < end; h++)
				show_hook(p, (enum lens_hook)h, layer);
		}
	}
}

static void show_datasets(const struct lens_plan_summary *p)
{
	size_t i;

	printf("%-44s %-24s %12s %12s\n", "dataset", "shape", "data", "padding");
	show_hooks(p);
	for (i = 0; i < p->n_datasets; i++) {
		if (!is_stored(p->dataset[i].path))
			show_dataset(&p->dataset[i]);
	}
}

static void show_task(const struct lens_share *task, const struct lens_plan_summary *p)
{
	size_t i, n = 0, rows = 0;
	uint64_t bytes = 0;
	char text[32];

	for (i = 0; i < p->cut->n; i++) {
		if (!lens_share_has(task, i))
			continue;
		n++;
		rows += p->cut->first[i + 1] - p->cut->first[i];
		bytes += p->shard_bytes[i];
	}
	printf("task %zu/%zu: %zu prompt%s in %zu shard%s, %s\n", task->task + 1, task->n_tasks,
	       rows, plural(rows), n, plural(n), human_bytes((double)bytes, text));
}

/* What was asked for in vain is told. */
static void show_shards(const struct lens_plan_summary *p)
{
	printf("%zu shards", p->cut->n);
	if (p->cut->grown > 1 && p->asked_prompts)
		printf(" (of %zu prompts, not the %zu of shards.prompts: at most %d are made)",
		       p->cut->grown * p->asked_prompts, p->asked_prompts, LENS_MOST_SHARDS);
	else if (p->cut->grown > 1)
		printf(" (%zu times as large as usual: at most %d are made)", p->cut->grown,
		       LENS_MOST_SHARDS);
	printf("; ");
}

static void show_memory(const struct lens_plan_summary *p)
{
	const struct lens_memory *m = p->memory;
	char a[32], b[32];

	printf("memory: %s of %s (%s%s): ", human_bytes((double)m->total, a),
	       human_bytes((double)m->limit, b),
	       m->from == LENS_MEMORY_GIVEN ? "" : "three quarters of ",
	       lens_memory_name(m->from));
	printf("model %s, ", human_bytes((double)m->model, a));
	if (m->mean)
		printf("means %s, ", human_bytes((double)m->mean, a));
	printf("%zu worker%s of %s, ", m->workers, plural(m->workers),
	       human_bytes((double)m->per_worker, a));
	printf("%zu buffer%s of %s, open chunks %s%s\n", m->buffers, plural(m->buffers),
	       human_bytes((double)m->buffer, a), human_bytes((double)m->shared, b),
	       p->overlap ? "; all but the model twice, while one shard follows another" : "");
}

/* A night's work should be known in the evening. */
static void show_interventions(const struct lens_plan_summary *p)
{
	double cores = (double)(p->memory->workers * p->memory->inner_threads);
	char time[32];

	if (p->interventions.cells <= 0)
		return;
	printf("interventions: %.0f passes from a layer and a position on, %.3g TFLOP; about "
	       "%s on %.0f thread%s at %.0f GFLOP/s each\n",
	       p->interventions.cells, p->interventions.flop / 1e12,
	       human_time(p->interventions.flop / LENS_CORE_FLOPS / cores, time), cores,
	       plural((size_t)cores), LENS_CORE_FLOPS / 1e9);
	if (p->largest.flop > LENS_SHARD_FLOP)
		printf("prompt %zu alone takes %.0f passes, about %s of a thread: a stop before "
		       "it is done loses them\n",
		       p->largest_row, p->largest.cells,
		       human_time(p->largest.flop / LENS_CORE_FLOPS, time));
}

void print_plan(const struct lens_plan_summary *p, bool datasets, const struct lens_share *task)
{
	uint64_t padding = 0;
	char a[32], b[32];
	size_t i;

	for (i = 0; i < p->n_datasets; i++)
		padding += padding_of(&p->dataset[i]);
	if (datasets)
		show_datasets(p);
	printf("plan: %zu prompt%s of up to %zu token%s, ", p->n_prompts, plural(p->n_prompts),
	       p->max_length, plural(p->max_length));
	if (p->cut->n > 1)
		show_shards(p);
	else if (p->sorted)
		printf("batches of up to %zu, sorted by their tokens; ", p->sorted);
	else
		printf("%zu batch%s of %zu; ", p->n_batches, p->n_batches == 1 ? "" : "es",
		       p->batch_rows);
	printf("file%s %s, %s of it padding\n", p->cut->n == 1 ? "" : "s",
	       human_bytes((double)p->file_bytes, a), human_bytes((double)padding, b));
	show_memory(p);
	show_interventions(p);
	if (task)
		show_task(task, p);
	fflush(stdout);
}

void print_estimate(const struct lens_estimate *t)
{
	char time[32];

	if (!(t->seconds > 0))
		return;
	printf("time: about %s for %.3g TFLOP, if each of %zu worker%s is as fast as one was "
	       "just now (%zu prompt%s in %.3g s, %.0f GFLOP/s); writing and other programs "
	       "come on top\n",
	       human_time(t->seconds, time), t->flop / 1e12, t->workers, plural(t->workers),
	       t->sample_rows, plural(t->sample_rows), t->sample_seconds,
	       t->sample_flop / t->sample_seconds / 1e9);
}
