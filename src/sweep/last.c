/*
 * sweep/last.c: how tasks end. The one that finds every shard done joins them;
 * which one that is, they settle by the claim on all of the shards, for which each
 * gives up its own: so the last to come gets it, and nobody waits for another's
 * computing.
 */
#include "sweep/sweep_private.h"

#include <time.h>
#include <unistd.h>

/* Where locks do not reach, two that try at once keep each other out: so often. */
#define TRIES 20

bool lens_all_shards_there(const struct lens_folder *f)
{
	bool all = true;
	size_t i;

	for (i = 0; all && i < f->n_shards; i++) {
		char *path = lens_shard_path(f, i);

		all = path && lens_file_exists(path);
		lens_free(path);
	}
	return all;
}

/* Has another joined them? A damaged output is none: a run gets past it to mend it. */
static enum lens_status is_joined(const struct lens_folder *f, bool *is, struct lens_error *err)
{
	struct lens_error why = LENS_ERROR_INIT;
	enum lens_output_kind kind;
	enum lens_status st = lens_identity_check(f->output, f->identity, is, &why);

	if (st == LENS_ERR_MISMATCH)
		return lens_error_pass(err, &why);
	*is = *is && st == LENS_OK;
	if (!*is)
		return LENS_OK;
	LENS_TRY(lens_output_look(f->output, &kind, err));
	*is = kind == LENS_OUTPUT_JOINED || kind == LENS_OUTPUT_WHOLE;
	return LENS_OK;
}

/* 50 to 300 ms, other ones in each process and each time. */
void lens_sweep_nap(void)
{
	struct timespec t;

	clock_gettime(CLOCK_REALTIME, &t);
	t.tv_nsec = 50000000 + (t.tv_nsec / 1000 * 7919 + getpid() * 104729L) % 250000 * 1000;
	t.tv_sec = 0;
	nanosleep(&t, NULL);
}

enum lens_status lens_join_if_last(struct lens_sweep *s, const struct lens_join_options *join,
				   bool *joined, struct lens_error *err)
{
	const struct lens_share all = { 0, 1 };
	const struct lens_folder *f = &s->folder;
	const atomic_int *stop = s->options.stop;
	int tries;

	*joined = false;
	if (!lens_all_shards_there(f))
		return LENS_OK;
	lens_claim_release(s->claim);
	s->claim = NULL;
	for (tries = 0; tries < TRIES && !(stop && atomic_load(stop)); tries++) {
		struct lens_error busy = LENS_ERROR_INIT;
		enum lens_status st = lens_claim_take(f->path, &all, &s->claim, &busy);
		bool done;

		if (st != LENS_OK && st != LENS_ERR_BUSY)
			return lens_error_pass(err, &busy);
		LENS_TRY(is_joined(f, &done, err));
		if (done && !s->options.repair)
			return LENS_OK;
		if (st == LENS_OK) {
			lens_sweep_note(s, "all %zu shards are done: this task joins them",
					f->n_shards);
			lens_store_drop_parts(f->output);
			LENS_TRY(lens_join(f, f->output, LENS_JOIN_VIRTUAL, join, err));
			*joined = true;
			return LENS_OK;
		}
		lens_sweep_nap();
	}
	/* Whoever is there still will find that it is the last. */
	return LENS_OK;
}
