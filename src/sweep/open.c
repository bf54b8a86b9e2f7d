/*
 * sweep/open.c: a run takes its share of the shards: nobody else is at work on it,
 * the plan beside them is this one, what earlier runs left half done is gone, and
 * what they finished is verified.
 */
#include "sweep/sweep_private.h"

#include <errno.h>
#include <string.h>

#include "h5lens/sys.h"

static void note_removed(const struct lens_sweep *s, const char *kind, size_t n,
			 const char *why)
{
	if (n)
		lens_sweep_note(s, "%zu %sshard%s of an earlier run %s removed%s", n, kind,
				n == 1 ? "" : "s", n == 1 ? "was" : "were", why);
}

/*
 * --overwrite of an output that is there, or of another sweep's shards. Not of what the
 * same command began and did not finish: it goes on.
 */
static enum lens_status clear(struct lens_sweep *s, struct lens_error *err)
{
	bool plan = lens_file_exists(s->folder.plan);
	size_t n;

	if (!lens_file_exists(s->output) && lens_folder_is_of(s->output, s->identity))
		return LENS_OK;
	/* First the file that shows them. One file replaces another at its end. */
	if (lens_file_exists(s->output) && (plan || s->folder.n_shards > 1) &&
	    lens_sys_unlink(s->output))
		return lens_error_sys(err, errno, s->output, "remove");
	LENS_TRY(lens_folder_clean(&s->folder, LENS_CLEAN_EVERYTHING, &n, err));
	note_removed(s, "", n, " (--overwrite)");
	return LENS_OK;
}

/* Another run that ends may remove the folder, empty by then, before we are in it. */
static enum lens_status enter(struct lens_sweep *s, struct lens_error *err)
{
	struct lens_error why = LENS_ERROR_INIT;
	enum lens_status st = LENS_OK;
	int tries;

	for (tries = 0; tries < 3; tries++) {
		LENS_TRY(lens_folder_make(&s->folder, err));
		why.code = LENS_OK;
		st = lens_claim_take(s->folder.path, &s->share, &s->claim, &why);
		if (st == LENS_OK || lens_folder_exists(s->output))
			break;
	}
	if (st != LENS_OK)
		lens_error_pass(err, &why);
	return st;
}

/* --- the plan ------------------------------------------------------------------------ */

static void count_alive(void *ctx, const struct lens_running *r)
{
	*(size_t *)ctx += r->alive;
}

/* A plan of which nothing was made, and nobody but us is at work on anything. */
static bool is_idle_plan(const struct lens_sweep *s)
{
	size_t n = 0;

	return lens_folder_is_bare(&s->folder) &&
	       lens_claim_list(s->folder.path, count_alive, &n, NULL) == LENS_OK && n == 1;
}

/* Every shard says itself what it is of: the plan can be written anew. */
static enum lens_status keep_plan(const struct lens_sweep *s, struct lens_error *err)
{
	struct lens_error why = LENS_ERROR_INIT;
	enum lens_status st = lens_folder_keep_plan(&s->folder, &why);

	if (st == LENS_ERR_MISMATCH && is_idle_plan(s)) {
		lens_sys_unlink(s->folder.plan);
		return lens_folder_keep_plan(&s->folder, err);
	}
	if (st == LENS_ERR_FORMAT && s->options.repair) {
		lens_sweep_note(s, "the plan is damaged: it is written anew");
		if (lens_sys_unlink(s->folder.plan))
			return lens_error_sys(err, errno, s->folder.plan, "remove");
		return lens_folder_keep_plan(&s->folder, err);
	}
	if (st != LENS_OK)
		lens_error_pass(err, &why);
	return st == LENS_ERR_MISMATCH ? lens_sweep_in_the_way(s, st, err) : st;
}

/* --- who is at work -------------------------------------------------------------------- */

static void note_no_locks(const struct lens_sweep *s)
{
	int e = lens_claim_no_lock(s->claim);

	if (e)
		lens_sweep_note(
			s,
			"%s: this file system has no locks (%s): runs are known by their files "
			"there, and one that died on another machine keeps its place for two "
			"minutes",
			s->folder.path, strerror(e));
}

/* A task that starts late, while another joins the finished shards, has nothing to do. */
static bool others_finish(const struct lens_sweep *s)
{
	return !lens_share_is_all(&s->share) && !s->options.repair && s->folder.n_shards > 1 &&
	       lens_folder_is_of(s->output, s->identity) && lens_all_shards_there(&s->folder);
}

static void leave_to_others(const struct lens_sweep *s, struct lens_progress *p)
{
	const struct lens_folder *f = &s->folder;
	size_t i;

	for (i = 0; i < f->n_shards; i++) {
		if (lens_share_has(&s->share, i))
			p->rows_kept += f->first[i + 1] - f->first[i];
	}
	p->rows_total = p->rows_done = p->rows_kept;
}

/* SHARE_DONE: nothing is left to be done but what another run is doing. */
static enum lens_status claim(struct lens_sweep *s, struct lens_progress *progress,
			      enum lens_sweep_state *state, struct lens_error *err)
{
	struct lens_error why = LENS_ERROR_INIT;
	enum lens_status st = enter(s, &why);
	size_t n;

	if (st == LENS_ERR_BUSY && others_finish(s)) {
		*state = LENS_SWEEP_SHARE_DONE;
		leave_to_others(s, progress);
		return LENS_OK;
	}
	if (st != LENS_OK)
		return lens_error_pass(err, &why);
	note_no_locks(s);
	if (s->options.overwrite)
		LENS_TRY(clear(s, err));
	LENS_TRY(keep_plan(s, err));
	LENS_TRY(lens_folder_clean(&s->folder,
				   lens_share_is_all(&s->share) ? LENS_CLEAN_HALF_DONE
								: LENS_CLEAN_SHARE,
				   &n, err));
	note_removed(s, "half-done ", n, "");
	return LENS_OK;
}

/* Under repair: is a finished output one file, of what would be shards, and whole? */
static enum lens_status look_at_packed(const struct lens_sweep *s, enum lens_sweep_state *state,
				       struct lens_error *err)
{
	bool whole;

	if (!s->finished || s->kind != LENS_OUTPUT_WHOLE || s->folder.n_shards == 1)
		return LENS_OK;
	LENS_TRY(lens_packed_look(s, &whole, err));
	if (whole)
		*state = LENS_SWEEP_FINISHED;
	return LENS_OK;
}

enum lens_status lens_sweep_open(struct lens_sweep *s, size_t n, const size_t *first,
				 struct lens_progress *progress, enum lens_sweep_state *state,
				 struct lens_error *err)
{
	*state = LENS_SWEEP_OPEN;
	LENS_TRY(lens_folder_init(&s->folder, s->output, s->identity, n, first, err));
	s->folder.share = s->share;
	LENS_TRY(claim(s, progress, state, err));
	if (*state == LENS_SWEEP_OPEN)
		LENS_TRY(look_at_packed(s, state, err));
	if (*state != LENS_SWEEP_OPEN)
		return LENS_OK;
	LENS_TRY(lens_shards_look(s, progress, err));
	lens_sweep_update(s, progress);
	return LENS_OK;
}
