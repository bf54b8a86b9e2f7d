/*
 * sweep/mean.c: the files of a first pass over the data (pipeline/mean.c): which of them
 * are there and can be trusted. They are treated as shards are.
 */
#include "sweep/sweep_private.h"

#include <stdio.h>
#include <string.h>

char *lens_sweep_mean_path(const struct lens_sweep *s, size_t shard)
{
	return lens_mean_path(&s->folder, shard);
}

const char *lens_first_pass_name(size_t shard)
{
	return shard == LENS_ALL_SHARDS ? "means" : "sums of a shard";
}

/* A whole file of another kind, or of another shard's, under this name is damage too. */
static enum lens_status is_what_it_should(const struct lens_sweep *s, const char *path,
					  size_t shard, const struct lens_shard_facts *is,
					  char damage[512], struct lens_error *err)
{
	const struct lens_folder *f = &s->folder;
	const char *name = lens_first_pass_name(shard);
	bool right = shard == LENS_ALL_SHARDS ||
		     (is->shard == (int64_t)shard && is->n_shards == (int64_t)f->n_shards &&
		      is->first_row == (int64_t)f->first[shard]);
	char *says;

	LENS_TRY(lens_store_read_attr(path, "/", LENS_FIRST_PASS, &says, err));
	if (!right || !says || strcmp(says, name) != 0)
		snprintf(damage, 512, "it is not the %s", name);
	lens_free(says);
	return LENS_OK;
}

static enum lens_status find(const struct lens_sweep *s, size_t shard, const char *path,
			     bool *there, struct lens_error *err)
{
	const struct lens_sweep_options *opt = &s->options;
	bool mine = shard == LENS_ALL_SHARDS || lens_share_has(&s->share, shard);
	const struct lens_file_question q = { .path = path,
					      .identity = s->identity,
					      .may_remake =
						      mine && (opt->repair || opt->overwrite),
					      .stop = opt->stop };
	struct lens_shard_facts facts;
	char damage[512];

	if (!lens_file_exists(path))
		return LENS_OK;
	LENS_TRY(lens_file_look(&q, damage, &facts, err));
	if (!damage[0])
		LENS_TRY(is_what_it_should(s, path, shard, &facts, damage, err));
	*there = !damage[0];
	return *there ? LENS_OK : lens_file_damaged(s, path, damage, q.may_remake, err);
}

enum lens_status lens_sweep_find_mean(const struct lens_sweep *s, size_t shard, bool *there,
				      struct lens_error *err)
{
	char *path = lens_mean_path(&s->folder, shard);
	enum lens_status st;

	*there = false;
	st = path ? find(s, shard, path, there, err)
		  : lens_error_nomem(err, strlen(s->output), 1);
	lens_free(path);
	return st;
}
