/*
 * pipeline/stopped.c: what a run that was stopped tells: what is kept, and of one that
 * finished no shard how long one takes, and what would help. In: how far it came.
 */
#include "pipeline/pipeline_private.h"

/* 95 → "95 s", 300 → "5 min", 9000 → "2.5 h"; a static buffer of four. */
static const char *duration(double s)
{
	static char ring[4][32];
	static unsigned turn;
	char *out = ring[turn++ % 4];

	if (s < 120)
		snprintf(out, sizeof(ring[0]), "%.0f s", s > 1 ? s : 1);
	else if (s < 7200)
		snprintf(out, sizeof(ring[0]), "%.0f min", s / 60);
	else
		snprintf(out, sizeof(ring[0]), "%.1f h", s / 3600);
	return out;
}

/* How many prompts a shard may have to be finished in that time, with a quarter to spare. */
static void tell_fitting(const struct lens_stopped *s, size_t rows, struct lens_error *err)
{
	size_t fits = rows * 3 / 4 ? rows * 3 / 4 : 1, all = s->cut->first[s->cut->n];

	if (s->n_kept)
		lens_error_add(err, " (what is kept fixes shards.prompts)");
	else if (all / fits >= LENS_MOST_SHARDS)
		lens_error_add(
			err, " (shards that fit in it, of %zu prompts, would be more than %d)",
			fits, LENS_MOST_SHARDS);
	else
		lens_error_add(err, "; --set shards.prompts=%zu fits in the time that it had",
			       fits);
}

/* The progress is that of the shard in hand. */
static void tell_no_shard(const struct lens_stopped *s, struct lens_error *err)
{
	const struct lens_progress *p = s->progress;
	size_t rows = p->rows_done - p->rows_kept;
	size_t first = s->cut->first[p->shard], end = s->cut->first[p->shard + 1];
	double tokens = (double)(s->prompts->offset[end] - s->prompts->offset[first]);

	if (!rows) {
		lens_error_add(
			err,
			"; in %s it did not finish one batch of a shard of %zu prompts: set a "
			"longer time, more threads, or fewer shards.prompts",
			duration(p->seconds), end - first);
		return;
	}
	lens_error_add(
		err,
		"; it finished no shard: one of %zu prompts takes about %s here (%zu took "
		"%s): set a longer time or more threads",
		end - first, duration(p->seconds * tokens / (double)p->tokens_done), rows,
		duration(p->seconds));
	tell_fitting(s, rows, err);
}

void lens_tell_stopped(const struct lens_stopped *s, struct lens_error *err)
{
	if (err->code != LENS_ERR_INTERRUPTED && err->code != LENS_ERR_NOSPACE)
		return;
	if (s->cut->n > 1)
		lens_error_add(err,
			       "; %zu of %zu shards are kept, and the same command goes on",
			       s->n_kept, s->cut->n);
	else if (s->cut->n)
		lens_error_add(err, "; nothing is kept, and the same command starts anew");
	else
		lens_error_add(err, "; nothing was changed, and the same command goes on");
	if (err->code == LENS_ERR_INTERRUPTED && !s->n_committed && s->progress->seconds > 0)
		tell_no_shard(s, err);
}
