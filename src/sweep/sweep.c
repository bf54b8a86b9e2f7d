/*
 * sweep/sweep.c: a sweep as the run that makes it holds it, from its output's name
 * to the joined file. look.c tells what lies there already, open.c takes it.
 */
#include "sweep/sweep_private.h"

#include <stdarg.h>
#include <stdio.h>

#include "h5lens/sys.h"

void lens_sweep_note(const struct lens_sweep *s, const char *fmt, ...)
{
	char text[1024];
	va_list ap;

	if (!s->options.note)
		return;
	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	s->options.note(s->options.ctx, text);
}

/* Tasks may begin at any time: one that removes shards removes others' work. */
static enum lens_status check_options(const struct lens_sweep *s, const char *output,
				      struct lens_error *err)
{
	if (!s->options.overwrite || lens_share_is_all(&s->share))
		return LENS_OK;
	return lens_error_at(err, LENS_ERR_INVALID, output, 0, 0,
			     "tasks cannot overwrite: each would remove the others' shards; "
			     "remove the output and its shards first");
}

enum lens_status lens_sweep_create(const char *output, const struct lens_sweep_options *opt,
				   struct lens_sweep **out, struct lens_error *err)
{
	struct lens_sweep *s = lens_calloc(1, sizeof(*s));
	enum lens_status st;

	*out = NULL;
	if (!s)
		return lens_error_nomem(err, 1, sizeof(*s));
	s->options = *opt;
	s->share = opt->task ? *opt->task : (struct lens_share){ 0, 1 };
	st = check_options(s, output, err);
	if (st == LENS_OK)
		st = lens_output_resolve(output, opt->overwrite, &s->output, err);
	if (st == LENS_OK)
		*out = s;
	else
		lens_sweep_close(s);
	return st;
}

const char *lens_sweep_identity(const struct lens_sweep *s)
{
	return s->identity;
}

enum lens_status lens_sweep_check_disk(const struct lens_sweep *s, uint64_t bytes,
				       struct lens_error *err)
{
	return lens_output_check_disk(s->output, bytes, err);
}

/* --- its shards ------------------------------------------------------------------------- */

bool lens_sweep_is_mine(const struct lens_sweep *s, size_t shard)
{
	return lens_share_has(&s->share, shard);
}

bool lens_sweep_is_missing(const struct lens_sweep *s, size_t shard)
{
	return lens_sweep_is_mine(s, shard) && !s->done[shard];
}

char *lens_sweep_shard_path(const struct lens_sweep *s, size_t shard)
{
	return lens_shard_path(&s->folder, shard);
}

void lens_sweep_mark_done(struct lens_sweep *s, size_t shard)
{
	s->done[shard] = true;
}

void lens_sweep_update(struct lens_sweep *s, const struct lens_progress *p)
{
	lens_claim_update(s->claim, p);
}

size_t lens_sweep_count_done(const struct lens_sweep *s)
{
	size_t i, n = 0;

	if (!s->done)
		return 0;
	for (i = 0; i < s->folder.n_shards; i++)
		n += s->done[i];
	return n;
}

size_t lens_sweep_count_kept(const struct lens_sweep *s)
{
	size_t i, n = 0;

	for (i = 0; i < s->folder.n_shards; i++) {
		char *path = lens_shard_path(&s->folder, i);

		n += path && lens_file_exists(path);
		lens_free(path);
	}
	return n;
}

/* --- the end ---------------------------------------------------------------------------- */

enum lens_status lens_sweep_finish(struct lens_sweep *s, size_t n_processes,
				   enum lens_sweep_state *state, struct lens_error *err)
{
	/* A run that had all shards verified each when it found it, or wrote it. */
	const struct lens_join_options join = {
		.stop = s->options.stop,
		.identity = s->identity,
		.quick = lens_share_is_all(&s->share),
		.n_processes = n_processes,
	};
	size_t n = s->folder.n_shards;
	bool last;

	if (s->options.task && (n > 1 || !lens_share_has(&s->share, 0))) {
		*state = LENS_SWEEP_SHARE_DONE;
		if (n == 1)
			return LENS_OK;
		LENS_TRY(lens_join_if_last(s, &join, &last, err));
		*state = last ? LENS_SWEEP_LAST_DONE : LENS_SWEEP_SHARE_DONE;
		return LENS_OK;
	}
	*state = LENS_SWEEP_FINISHED;
	return n > 1 ? lens_join(&s->folder, s->output, LENS_JOIN_VIRTUAL, &join, err)
		     : LENS_OK;
}

/* A plan of which nothing was made would only stand in another's way. */
static void forget_plan(const struct lens_sweep *s)
{
	if (s->claim && lens_share_is_all(&s->share) && lens_folder_is_bare(&s->folder) &&
	    lens_folder_is_of(s->output, s->identity))
		lens_sys_unlink(s->folder.plan);
}

void lens_sweep_close(struct lens_sweep *s)
{
	if (!s)
		return;
	forget_plan(s);
	lens_claim_release(s->claim);
	if (s->folder.path)
		lens_folder_remove(&s->folder);
	lens_folder_release(&s->folder);
	lens_free(s->output);
	lens_free(s->identity);
	lens_free(s->done);
	lens_free(s);
}
