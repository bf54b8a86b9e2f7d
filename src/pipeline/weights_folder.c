/*
 * pipeline/weights_folder.c: a folder in TransformerLens's own form. In: a model; out:
 * config.json with HookedTransformerConfig's keys, model.safetensors with a
 * HookedTransformer's state dict, and the model's tokenizer.
 *
 * It is made under another name, "<final>.part-<8 hex digits>", and renamed when every
 * file in it is on the disk, so that the final name never stands for half a model.
 */
#include "pipeline/weights_private.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include "h5lens/sys.h"

#define MOST_BYTES ((size_t)128 << 20) /* of a tokenizer's file, as it is read */

static const char weights_name[] = "model.safetensors", config_name[] = "config.json";
/* The tokenizer's, copied where they are there. */
static const char *const copied[] = {
	"tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.json",
	"merges.txt",     "added_tokens.json",
};
#define N_COPIED (sizeof(copied) / sizeof(*copied))

static bool is_name_of_ours(const char *name)
{
	size_t i;

	for (i = 0; i < N_COPIED && strcmp(copied[i], name) != 0; i++)
		;
	return i < N_COPIED || !strcmp(name, weights_name) || !strcmp(name, config_name);
}

/* --- what is there already --------------------------------------------------------------- */

/* Did we write the folder's weights? They say so in their first bytes. */
static bool has_our_weights(const char *folder)
{
	char *path = lens_path_join(folder, weights_name);
	char begin[8 + sizeof(LENS_TENSORS_BEGIN) - 1];
	int fd = path ? open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK) : -1;
	bool is = false;

	if (fd >= 0) {
		is = read(fd, begin, sizeof(begin)) == (ssize_t)sizeof(begin) &&
		     !memcmp(begin + 8, LENS_TENSORS_BEGIN, sizeof(begin) - 8);
		close(fd);
	}
	lens_free(path);
	return is;
}

static bool is_dot(const char *name)
{
	return !strcmp(name, ".") || !strcmp(name, "..");
}

/* The first entry that is not of ours (any: the first of all), or "". */
static enum lens_status find_entry(const char *folder, bool any, char name[256],
				   struct lens_error *err)
{
	const struct dirent *entry;
	DIR *d = opendir(folder);

	name[0] = '\0';
	if (!d)
		return lens_error_sys(err, errno, folder, "read the folder");
	while (!*name && (entry = readdir(d))) {
		if (!is_dot(entry->d_name) && (any || !is_name_of_ours(entry->d_name)))
			snprintf(name, 256, "%s", entry->d_name);
	}
	closedir(d);
	return LENS_OK;
}

/*
 * Only what we wrote is replaced, and only whole: a model that somebody trained, and notes
 * beside it, are not to be had again.
 */
static enum lens_status check_what_is_there(const struct lens_weights_job *job,
					    struct lens_error *err)
{
	const char *name = job->experiment->output;
	char entry[256];
	struct stat a, b;

	if (!lens_file_exists(job->output))
		return LENS_OK;
	if (!stat(job->output, &a) && !stat(job->experiment->model, &b) &&
	    a.st_dev == b.st_dev && a.st_ino == b.st_ino)
		return lens_error_at(err, LENS_ERR_INVALID, name, 0, 0,
				     "is the model's own folder");
	LENS_TRY(find_entry(job->output, true, entry, err));
	if (!*entry)
		return LENS_OK;
	if (!job->options->overwrite)
		return lens_error_at(err, LENS_ERR_INVALID, name, 0, 0,
				     "exists; choose another name, or --overwrite");
	if (!has_our_weights(job->output))
		return lens_error_at(err, LENS_ERR_INVALID, name, 0, 0,
				     "is not a folder that h5lens weights wrote: it is not "
				     "overwritten");
	LENS_TRY(find_entry(job->output, false, entry, err));
	return !*entry ? LENS_OK
		       : lens_error_at(err, LENS_ERR_INVALID, name, 0, 0,
				       "holds %.200s, which would be lost: it is not "
				       "overwritten",
				       entry);
}

enum lens_status lens_weights_check_folder(struct lens_weights_job *job, struct lens_error *err)
{
	LENS_TRY(lens_output_resolve_folder(job->experiment->output, &job->output, err));
	return check_what_is_there(job, err);
}

/* --- making it ---------------------------------------------------------------------------- */

/* "<final>.<what>-<8 hex digits>"; the caller frees it. */
static char *other_name(const struct lens_weights_job *job, const char *what)
{
	size_t size = strlen(job->output) + strlen(what) + 11;
	char *name = lens_calloc(size, 1);
	unsigned random;

	if (getrandom(&random, sizeof(random), 0) != (ssize_t)sizeof(random))
		random = (unsigned)getpid();
	if (name)
		snprintf(name, size, "%s.%s-%08x", job->output, what, random);
	return name;
}

static void tell_context(const struct lens_weights_job *job)
{
	const struct lens_config *c = &job->model->config;
	const size_t n_ctx = lens_transformer_lens_ctx(c);
	char text[200];

	if (n_ctx == c->n_ctx)
		return;
	snprintf(
		text, sizeof(text),
		"n_ctx is %zu in config.json, not %zu: a HookedTransformer holds a mask of n_ctx² "
		"a layer; where prompts are longer, raise it there",
		n_ctx, c->n_ctx);
	lens_weights_warn(job, text);
}

static enum lens_status write_config(const struct lens_weights_job *job, const char *path,
				     struct lens_error *err)
{
	const struct lens_model *m = job->model;
	enum lens_status st;
	char *text;

	LENS_TRY(lens_config_transformer_lens(&m->config, &m->processing, &text, err));
	st = lens_file_replace(path, text, strlen(text), err);
	lens_free(text);
	if (st == LENS_OK)
		tell_context(job);
	return st;
}

static enum lens_status copy(const char *from, const char *to, struct lens_error *err)
{
	struct lens_buf b = LENS_BUF_INIT;
	enum lens_status st = lens_file_read(from, MOST_BYTES, &b, err);

	if (st == LENS_OK)
		st = lens_file_replace(to, b.data, b.len, err);
	lens_buf_release(&b);
	return st;
}

/* One file of the folder: name is one of ours. */
static enum lens_status write_one(struct lens_weights_job *job, const char *folder,
				  const char *name, struct lens_error *err)
{
	char *to = lens_path_join(folder, name);
	char *from = lens_path_join(job->experiment->model, name);
	enum lens_status st = LENS_OK;

	if (!to || !from)
		st = lens_error_nomem(err, strlen(folder) + strlen(name), 1);
	else if (!strcmp(name, weights_name))
		st = lens_weights_tensors(job, to, err);
	else if (!strcmp(name, config_name))
		st = write_config(job, to, err);
	else if (lens_file_exists(from))
		st = copy(from, to, err);
	lens_free(from);
	lens_free(to);
	return st;
}

static enum lens_status fill_folder(struct lens_weights_job *job, const char *folder,
				    struct lens_error *err)
{
	size_t i;

	LENS_TRY(write_one(job, folder, weights_name, err));
	for (i = 0; i < N_COPIED; i++)
		LENS_TRY(write_one(job, folder, copied[i], err));
	LENS_TRY(write_one(job, folder, config_name, err));
	return lens_dir_sync(folder, err);
}

static void remove_folder(const char *folder)
{
	const char *name;
	size_t i;

	for (i = 0; i < N_COPIED + 2; i++) {
		char *path;

		name = i < N_COPIED ? copied[i] : i == N_COPIED ? weights_name : config_name;
		path = lens_path_join(folder, name);
		if (path)
			lens_sys_unlink(path);
		lens_free(path);
	}
	rmdir(folder);
}

/* --- its name ------------------------------------------------------------------------------
 */

static enum lens_status rename_to(const char *from, const char *to, struct lens_error *err)
{
	if (lens_sys_rename(from, to))
		return lens_error_sys(err, errno, to, "rename the folder to");
	return LENS_OK;
}

/* Is there an old folder that is replaced? Then *old is what it is called meanwhile. */
static enum lens_status put_aside(const struct lens_weights_job *job, char **old,
				  struct lens_error *err)
{
	char entry[256] = "";
	enum lens_status st;

	*old = NULL;
	if (lens_file_exists(job->output))
		LENS_TRY(find_entry(job->output, true, entry, err));
	if (!*entry || !job->options->overwrite)
		return LENS_OK;
	*old = other_name(job, "old");
	st = *old ? rename_to(job->output, *old, err)
		  : lens_error_nomem(err, strlen(job->output), 1);
	if (st != LENS_OK) {
		lens_free(*old);
		*old = NULL;
	}
	return st;
}

static enum lens_status sync_parent(const struct lens_weights_job *job, struct lens_error *err)
{
	char *dir = lens_path_folder(job->output);
	enum lens_status st =
		dir ? lens_dir_sync(dir, err) : lens_error_nomem(err, strlen(job->output), 1);

	lens_free(dir);
	return st;
}

static enum lens_status commit(const struct lens_weights_job *job, const char *part,
			       struct lens_error *err)
{
	enum lens_status st;
	char *old;

	LENS_TRY(lens_weights_go_on(job, err));
	LENS_TRY(put_aside(job, &old, err));
	st = rename_to(part, job->output, err);
	if (st != LENS_OK && old) {
		rename(old, job->output);
	} else if (st == LENS_OK) {
		st = sync_parent(job, err);
		if (old)
			remove_folder(old);
	}
	lens_free(old);
	return st;
}

enum lens_status lens_weights_write_folder(struct lens_weights_job *job, struct lens_error *err)
{
	char *part = other_name(job, "part");
	enum lens_status st;

	if (!part)
		return lens_error_nomem(err, strlen(job->output), 1);
	if (lens_sys_mkdir(part, 0777)) {
		st = lens_error_sys(err, errno, part, "create the folder");
	} else {
		st = fill_folder(job, part, err);
		if (st == LENS_OK)
			st = commit(job, part, err);
		if (st != LENS_OK)
			remove_folder(part);
	}
	lens_free(part);
	return st;
}
