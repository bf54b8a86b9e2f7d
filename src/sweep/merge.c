/*
 * sweep/merge.c: the files that are made of all shards, asked for from outside the
 * runs that made them: the joined output, and one self-contained file.
 */
#include "sweep/sweep_private.h"

#include <sys/stat.h>

static struct lens_join_options join_options(const struct lens_merge_options *o)
{
	const struct lens_merge_options none = { .threads = 0 };

	o = o ? o : &none;
	return (struct lens_join_options){ .n_processes = lens_thread_count(o->threads),
					   .stop = o->stop,
					   .progress = o->progress,
					   .ctx = o->ctx };
}

static enum lens_status merge(struct lens_folder *f, const char *output,
			      const struct lens_merge_options *options, struct lens_error *err)
{
	struct lens_join_options opt = join_options(options);
	const struct lens_share all = { 0, 1 };
	struct lens_claim *claim = NULL;
	enum lens_status st;
	bool finished;

	LENS_TRY(lens_folder_load(f, output, err));
	opt.identity = f->identity;
	/* What is there must be this sweep's, or nobody's. */
	st = lens_identity_check(output, f->identity, &finished, err);
	if (st == LENS_ERR_FORMAT && lens_store_is_hdf5(output))
		lens_error_add(err, "; `run --repair` makes it again of its shards");
	LENS_TRY(st);
	LENS_TRY(lens_claim_take(f->path, &all, &claim, err));
	lens_store_drop_parts(output);
	st = lens_join(f, output, LENS_JOIN_VIRTUAL, &opt, err);
	lens_claim_release(claim);
	return st;
}

static bool has_plan(const char *output)
{
	struct lens_folder f = { .n_shards = 0 };
	bool has = lens_folder_start(&f, output, NULL) == LENS_OK && lens_file_exists(f.plan);

	lens_folder_release(&f);
	return has;
}

enum lens_status lens_merge(const char *output, const struct lens_merge_options *opt,
			    struct lens_error *err)
{
	struct lens_folder f = { .n_shards = 0 };
	enum lens_status st;
	char *file;

	st = lens_output_resolve(output, false, &file, err);
	if (st == LENS_OK && lens_file_exists(file) && !has_plan(file))
		st = lens_join_check(file, err); /* one file, or joined before */
	else if (st == LENS_OK && !lens_folder_exists(file))
		st = lens_nothing_there(output, err);
	else if (st == LENS_OK)
		st = merge(&f, file, opt, err);
	lens_folder_release(&f);
	lens_free(file);
	return st;
}

static bool same_file(const char *a, const char *b)
{
	struct stat x, y;

	return !stat(a, &x) && !stat(b, &y) && x.st_dev == y.st_dev && x.st_ino == y.st_ino;
}

/* What a finished output shows, wherever its shards are. */
static enum lens_status pack_output(const char *output, const char *final,
				    const struct lens_join_options *opt, struct lens_error *err)
{
	const struct lens_shard_file one = { .file = output, .name = output };
	struct lens_shard_list l;
	enum lens_status st;

	LENS_TRY(lens_join_check(output, err));
	LENS_TRY(lens_joined_shards(output, &l, err));
	st = lens_store_join(l.n ? l.v : &one, lens_max(l.n, 1), final, LENS_JOIN_PACK, opt,
			     err);
	lens_shard_list_release(&l);
	return st;
}

/* Of shards that nobody merged yet. */
static enum lens_status pack_shards(const char *output, const char *final,
				    struct lens_join_options *opt, struct lens_error *err)
{
	struct lens_folder f = { .n_shards = 0 };
	enum lens_status st = lens_folder_load(&f, output, err);

	opt->identity = f.identity;
	if (st == LENS_OK)
		st = lens_join(&f, final, LENS_JOIN_PACK, opt, err);
	lens_folder_release(&f);
	return st;
}

enum lens_status lens_pack(const char *output, const char *final, bool overwrite,
			   const struct lens_merge_options *options, struct lens_error *err)
{
	struct lens_join_options opt = join_options(options);
	char *resolved = NULL, *file;
	enum lens_status st;

	if (same_file(output, final))
		return lens_error_at(err, LENS_ERR_INVALID, final, 0, 0,
				     "is the output itself: pack into another file");
	if (!overwrite && lens_file_exists(final))
		return lens_error_at(err, LENS_ERR_INVALID, final, 0, 0,
				     "exists; choose another name, or --overwrite");
	st = lens_output_follow(output, &file, err);
	if (st == LENS_OK)
		st = lens_output_resolve(final, overwrite, &resolved, err);
	if (st == LENS_OK && !lens_file_exists(file) && !lens_folder_exists(file))
		st = lens_nothing_there(output, err);
	else if (st == LENS_OK && !lens_file_exists(file))
		st = pack_shards(file, resolved, &opt, err);
	else if (st == LENS_OK)
		st = pack_output(file, resolved, &opt, err);
	lens_free(resolved);
	lens_free(file);
	return st;
}
