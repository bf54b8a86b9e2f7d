/*
 * sweep/look.c: what lies under the output's name before a run touches anything. In:
 * the identity of the run; out: finished, or still to be made, or an error that says
 * what is in the way and what to do about it.
 */
#include "sweep/sweep_private.h"

#include <stdlib.h>
#include <string.h>

enum lens_status lens_sweep_in_the_way(const struct lens_sweep *s, enum lens_status st,
				       struct lens_error *err)
{
	bool ours = !lens_file_exists(s->output) || lens_store_is_hdf5(s->output);
	bool may_overwrite = ours && lens_share_is_all(&s->share);

	if (st == LENS_ERR_MISMATCH || st == LENS_ERR_FORMAT)
		lens_error_add(err, "; choose another output%s",
			       may_overwrite ? ", or --overwrite" : "");
	return st;
}

/* A damaged file that shows this sweep's shards is made again under repair. */
static enum lens_status look_at_output(struct lens_sweep *s, struct lens_error *err)
{
	struct lens_error why = LENS_ERROR_INIT;
	enum lens_status st = lens_identity_check(s->output, s->identity, &s->finished, &why);

	if (st == LENS_OK)
		LENS_TRY(lens_output_look(s->output, &s->kind, err));
	else if (st == LENS_ERR_FORMAT && lens_store_is_hdf5(s->output) &&
		 lens_folder_is_of(s->output, s->identity))
		s->kind = LENS_OUTPUT_DAMAGED;
	else
		return lens_sweep_in_the_way(s, lens_error_pass(err, &why), err);
	if (s->kind == LENS_OUTPUT_DAMAGED && s->options.repair) {
		s->finished = false;
		lens_sweep_note(s, "the output is damaged: it is made again of its shards");
	} else if (st != LENS_OK) {
		lens_error_add(&why, "; `run --repair` makes it again of its shards");
		return lens_error_pass(err, &why);
	} else if (s->kind == LENS_OUTPUT_RENAMED) {
		s->finished = false;
		lens_sweep_note(s, "the output and its shards have another name now: they are "
				   "joined anew");
	}
	return LENS_OK;
}

/* Nothing to do, unless shards that it shows are gone. */
static enum lens_status already_done(struct lens_sweep *s, struct lens_error *err)
{
	if (s->kind != LENS_OUTPUT_WHOLE)
		LENS_TRY(lens_join_check(s->output, err));
	/* A run that was killed at its very end left its file. */
	LENS_TRY(lens_folder_start(&s->folder, s->output, err));
	lens_claim_clean(s->folder.path);
	return LENS_OK;
}

/* Shards of two schemas do not go together. */
static enum lens_status of_another_version(const struct lens_sweep *s, struct lens_error *err)
{
	const char *schema = strstr(s->identity, "\"schema\":");

	return lens_error_at(err, LENS_ERR_MISMATCH, s->output, 0, 0,
			     "was %s by another version of h5lens (its files have schema %d, "
			     "this one's %d): %s with that version, or --overwrite",
			     s->finished ? "made" : "begun",
			     schema ? atoi(schema + strlen("\"schema\":")) : 0, LENS_SCHEMA,
			     s->finished ? "repair it" : "finish it");
}

enum lens_status lens_sweep_look(struct lens_sweep *s, const char *identity,
				 enum lens_sweep_state *state, struct lens_error *err)
{
	bool older;

	*state = LENS_SWEEP_OPEN;
	s->identity = lens_strdup(identity);
	if (!s->identity)
		return lens_error_nomem(err, strlen(identity), 1);
	if (s->options.overwrite)
		return LENS_OK;
	LENS_TRY(lens_identity_adopt(s->output, &s->identity, &older, err));
	LENS_TRY(look_at_output(s, err));
	if (s->finished && !s->options.repair) {
		*state = LENS_SWEEP_FINISHED;
		return already_done(s, err);
	}
	return older ? of_another_version(s, err) : LENS_OK;
}
