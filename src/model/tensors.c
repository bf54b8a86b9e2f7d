/*
 * model/tensors.c: all tensors of a model directory, in whatever files they are, by name.
 */
#include "h5lens/sys.h"
#include "model/model_private.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

#define MAX_INDEX ((size_t)64 << 20)

/* The files that a directory may hold, in the order in which transformers looks. */
static const struct weight_files {
	const char *single, *index;
	enum lens_status (*parse)(struct lens_tensors *t, size_t file, struct lens_error *err);
} weight_files[] = {
	{ "model.safetensors", "model.safetensors.index.json", lens_safetensors_parse },
	{ "pytorch_model.bin", "pytorch_model.bin.index.json", lens_torchbin_parse },
};

/* A directory while its files are added. */
struct opening {
	struct lens_tensors *t;
	const char *dir;
	const struct weight_files *files;
	struct lens_sha256 *sha;
};

struct lens_tensor *lens_tensors_add(struct lens_tensors *t)
{
	struct lens_tensor *grown = lens_grow(t->tensor, t->n, &t->cap, sizeof(*grown), NULL);

	if (!grown)
		return NULL;
	t->tensor = grown;
	memset(&t->tensor[t->n], 0, sizeof(*t->tensor));
	return &t->tensor[t->n++];
}

static enum lens_status map_file(struct lens_mapped_file *f, struct lens_error *err)
{
	enum lens_status st = LENS_OK;
	struct stat sb;
	int fd = lens_sys_open(f->path, O_RDONLY | O_CLOEXEC | O_NONBLOCK, 0);

	if (fd < 0)
		return lens_error_sys(err, errno, f->path, "open");
	if (fstat(fd, &sb)) {
		st = lens_error_sys(err, errno, f->path, "stat");
	} else if (!S_ISREG(sb.st_mode) || sb.st_size <= 0) {
		st = lens_error_at(err, LENS_ERR_FORMAT, f->path, 0, 0,
				   "not a regular file, or empty");
	} else {
		void *p = mmap(NULL, (size_t)sb.st_size, PROT_READ, MAP_PRIVATE, fd, 0);

		if (p == MAP_FAILED)
			st = lens_error_sys(err, errno, f->path, "map");
		else
			f->data = p;
		f->size = f->data ? (size_t)sb.st_size : 0;
		f->changed = sb.st_mtim;
	}
	lens_sys_close(fd); /* nothing is lost with it */
	return st;
}

/* A clone made without git-lfs has such a note in place of each large file. */
static bool is_lfs_pointer(const struct lens_mapped_file *f)
{
	static const char note[] = "version https://git-lfs";

	return f->size >= sizeof(note) && !memcmp(f->data, note, sizeof(note) - 1);
}

static enum lens_status add_file(const struct opening *o, const char *name,
				 struct lens_error *err)
{
	struct lens_tensors *t = o->t;
	struct lens_mapped_file *f = lens_realloc(t->file, t->n_files + 1, sizeof(*t->file));

	if (!f)
		return lens_error_nomem(err, t->n_files + 1, sizeof(*t->file));
	t->file = f;
	f += t->n_files;
	memset(f, 0, sizeof(*f));
	f->path = lens_path_join(o->dir, name);
	if (!f->path)
		return lens_error_nomem(err, strlen(o->dir) + strlen(name), 1);
	t->n_files++;
	LENS_TRY(map_file(f, err));
	if (is_lfs_pointer(f))
		return lens_error_at(err, LENS_ERR_FORMAT, f->path, 0, 0,
				     "only a git-lfs pointer, not the file itself: get it "
				     "with `git lfs pull`");
	if (o->sha)
		LENS_TRY(lens_sha256_update(o->sha, f->data, f->size, err));
	return o->files->parse(t, t->n_files - 1, err);
}

static int by_string(const void *a, const void *b)
{
	return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* Adds each file that the index names, once, in the order of their names. */
static enum lens_status add_shards(const struct opening *o, const char *index, json_t *map,
				   struct lens_error *err)
{
	size_t i, n = 0, total = json_object_size(map);
	const char **name = lens_calloc(total, sizeof(char *)), *key;
	enum lens_status st = LENS_OK;
	json_t *value;

	if (!name)
		return lens_error_nomem(err, total, sizeof(char *));
	json_object_foreach (map, key, value) {
		const char *file = json_string_value(value);

		/* The index must not point outside the directory. */
		if (!file || !*file || strchr(file, '/') || !strcmp(file, "..")) {
			st = lens_error_at(
				err, LENS_ERR_FORMAT, index, 0, 0,
				"tensor \"%.200s\": its file is not a plain file name", key);
			break;
		}
		name[n++] = file;
	}
	qsort(name, n, sizeof(char *), by_string);
	for (i = 0; st == LENS_OK && i < n; i++) {
		if (i && !strcmp(name[i], name[i - 1]))
			continue;
		st = add_file(o, name[i], err);
		if (st == LENS_ERR_IO)
			lens_error_add(err, "; %s names it: is the download complete?",
				       strrchr(index, '/') ? strrchr(index, '/') + 1 : index);
	}
	lens_free(name);
	return st;
}

static enum lens_status add_indexed(const struct opening *o, const char *index,
				    struct lens_error *err)
{
	json_t *root, *map;
	enum lens_status st;

	LENS_TRY(lens_json_load(index, MAX_INDEX, &root, err));
	map = json_object_get(root, "weight_map");
	if (!json_is_object(map) || !json_object_size(map) || lens_json_unusable(map))
		st = lens_error_at(err, LENS_ERR_FORMAT, index, 0, 0, "has no weight_map%s%s",
				   lens_json_unusable(map) ? ": it " : "",
				   lens_json_unusable(map) ? lens_json_unusable(map) : "");
	else
		st = add_shards(o, index, map, err);
	json_decref(root);
	return st;
}

static int by_name(const void *a, const void *b)
{
	return strcmp(((const struct lens_tensor *)a)->name,
		      ((const struct lens_tensor *)b)->name);
}

static enum lens_status sort_tensors(struct lens_tensors *t, struct lens_error *err)
{
	size_t i;

	if (!t->n)
		return LENS_OK;
	qsort(t->tensor, t->n, sizeof(*t->tensor), by_name);
	for (i = 1; i < t->n; i++) {
		if (!strcmp(t->tensor[i].name, t->tensor[i - 1].name))
			return lens_error_at(err, LENS_ERR_FORMAT,
					     t->file[t->tensor[i].file].path, 0, 0,
					     "tensor \"%.200s\" %s", t->tensor[i].name,
					     t->tensor[i].file == t->tensor[i - 1].file
						     ? "appears twice"
						     : "is in two files");
	}
	return LENS_OK;
}

/* Adds the files of one kind; *found says whether there are any. */
static enum lens_status add_kind(const struct opening *o, bool *found, struct lens_error *err)
{
	char *single = lens_path_join(o->dir, o->files->single);
	char *index = lens_path_join(o->dir, o->files->index);
	enum lens_status st = LENS_OK;

	*found = false;
	if (!single || !index) {
		st = lens_error_nomem(err, strlen(o->dir), 1);
	} else if (lens_file_exists(single)) {
		*found = true;
		st = add_file(o, o->files->single, err);
	} else if (lens_file_exists(index)) {
		*found = true;
		st = add_indexed(o, index, err);
	}
	lens_free(single);
	lens_free(index);
	return st;
}

static bool is_there(const char *dir, const char *name)
{
	char *path = lens_path_join(dir, name);
	bool there = path && lens_file_exists(path);

	lens_free(path);
	return there;
}

bool lens_tensors_there(const char *dir, bool any_name)
{
	char name[LENS_FILE_NAME] = "";
	size_t i;

	for (i = 0; i < sizeof(weight_files) / sizeof(*weight_files); i++) {
		if (is_there(dir, weight_files[i].single) ||
		    is_there(dir, weight_files[i].index))
			return true;
	}
	return any_name && (lens_weight_file(dir, name, NULL) != LENS_OK || *name);
}

/* A folder that people saved themselves. */
static enum lens_status add_any(const struct opening *o, bool *found, struct lens_error *err)
{
	char name[LENS_FILE_NAME];
	struct opening any = *o;

	LENS_TRY(lens_weight_file(o->dir, name, err));
	*found = *name;
	if (!*found)
		return LENS_OK;
	any.files = &weight_files[!lens_name_ends(name, ".safetensors")];
	return add_file(&any, name, err);
}

static const char no_weights[] = "holds no weights: model.safetensors, pytorch_model.bin, or "
				 "either one's .index.json";
static const char no_own_weights[] =
	"holds no weights: model.safetensors, pytorch_model.bin, model.pth, state_dict.pth, or "
	"one other file that ends with .safetensors, .pth, .pt or .bin";

enum lens_status lens_tensors_open(const char *dir, bool any_name, struct lens_tensors *t,
				   struct lens_sha256 *sha, struct lens_error *err)
{
	struct opening o = { .t = t, .dir = dir, .sha = sha };
	bool found = false;
	size_t i;

	memset(t, 0, sizeof(*t));
	for (i = 0; !found && i < sizeof(weight_files) / sizeof(*weight_files); i++) {
		o.files = &weight_files[i];
		LENS_TRY(add_kind(&o, &found, err));
	}
	if (!found && any_name)
		LENS_TRY(add_any(&o, &found, err));
	if (found)
		return sort_tensors(t, err);
	return lens_model_folder_error(dir, any_name ? no_own_weights : no_weights, true, err);
}

enum lens_status lens_tensors_unchanged(const struct lens_tensors *t, struct lens_error *err)
{
	struct stat sb;
	size_t i;

	for (i = 0; i < t->n_files; i++) {
		const struct lens_mapped_file *f = &t->file[i];

		if (stat(f->path, &sb))
			return lens_error_sys(err, errno, f->path, "stat");
		if ((size_t)sb.st_size != f->size || sb.st_mtim.tv_sec != f->changed.tv_sec ||
		    sb.st_mtim.tv_nsec != f->changed.tv_nsec)
			return lens_error_at(err, LENS_ERR_IO, f->path, 0, 0,
					     "was changed while it was read");
	}
	return LENS_OK;
}

void lens_tensors_release(struct lens_tensors *t)
{
	size_t i;

	for (i = 0; i < t->n; i++)
		lens_free(t->tensor[i].name);
	for (i = 0; i < t->n_files; i++) {
		if (t->file[i].data)
			munmap(t->file[i].data, t->file[i].size);
		lens_free(t->file[i].path);
	}
	lens_free(t->tensor);
	lens_free(t->file);
	memset(t, 0, sizeof(*t));
}

static int is_named(const void *name, const void *tensor)
{
	return strcmp(name, ((const struct lens_tensor *)tensor)->name);
}

struct lens_tensor *lens_tensors_find(const struct lens_tensors *t, const char *name)
{
	if (!t->n)
		return NULL;
	return bsearch(name, t->tensor, t->n, sizeof(*t->tensor), is_named);
}

static enum lens_status wrong_shape(const struct lens_tensors *ts, const struct lens_tensor *t,
				    int rank, const size_t *shape, struct lens_error *err)
{
	struct lens_buf has = LENS_BUF_INIT, wants = LENS_BUF_INIT;
	enum lens_status st = LENS_ERR_FORMAT;
	int i;

	for (i = 0; i < t->rank; i++)
		lens_buf_printf(&has, NULL, "%s%zu", i ? ", " : "", t->shape[i]);
	for (i = 0; i < rank; i++)
		lens_buf_printf(&wants, NULL, "%s%zu", i ? ", " : "", shape[i]);
	lens_error_at(err, st, ts->file[t->file].path, 0, 0,
		      "tensor \"%.200s\" has shape [%s]; config.json implies [%s]", t->name,
		      has.data ? has.data : "", wants.data ? wants.data : "");
	lens_buf_release(&has);
	lens_buf_release(&wants);
	return st;
}

/* Puts it on the list; *out is one that holds nothing, as the list's may move. */
static enum lens_status add_to_list(struct lens_tensors *ts, const char *name, int rank,
				    const size_t *shape, const struct lens_tensor **out,
				    struct lens_error *err)
{
	static const struct lens_tensor nothing;
	struct lens_tensor *t = lens_tensors_add(ts);
	int d;

	*out = &nothing;
	if (t)
		t->name = lens_strdup(name);
	if (!t || !t->name)
		return lens_error_nomem(err, 1, sizeof(*t));
	t->rank = rank;
	t->n_elements = 1;
	for (d = 0; d < rank; d++) {
		t->shape[d] = shape[d];
		if (!lens_size_mul(t->n_elements, shape[d], &t->n_elements))
			return lens_error_set(err, LENS_ERR_FORMAT,
					      "tensor \"%s\" would be too large", name);
	}
	return LENS_OK;
}

void lens_tensors_sort_list(struct lens_tensors *t)
{
	size_t i, n = 0;

	if (t->n)
		qsort(t->tensor, t->n, sizeof(*t->tensor), by_name);
	for (i = 0; i < t->n; i++) {
		if (n && !strcmp(t->tensor[i].name, t->tensor[n - 1].name))
			lens_free(t->tensor[i].name);
		else
			t->tensor[n++] = t->tensor[i];
	}
	t->n = n;
}

enum lens_status lens_tensors_use(struct lens_tensors *ts, const char *name, int rank,
				  const size_t *shape, const struct lens_tensor **out,
				  struct lens_error *err)
{
	struct lens_tensor *t;
	int d;

	if (ts->list)
		return add_to_list(ts, name, rank, shape, out, err);
	t = lens_tensors_find(ts, name);
	if (!t)
		return lens_error_at(err, LENS_ERR_FORMAT,
				     ts->n_files ? ts->file[0].path : NULL, 0, 0,
				     "tensor \"%s\" is missing", name);
	for (d = 0; d < rank && d < t->rank && t->shape[d] == shape[d]; d++)
		;
	if (rank != t->rank || d != rank)
		return wrong_shape(ts, t, rank, shape, err);
	if (t->type == LENS_T_OTHER)
		return lens_error_at(err, LENS_ERR_UNSUPPORTED, ts->file[t->file].path, 0, 0,
				     "tensor \"%s\" is of type %s; we read F64, F32, F16, BF16",
				     name, t->type_name);
	t->used = true;
	*out = t;
	return LENS_OK;
}

enum lens_status lens_tensors_all_used(const struct lens_tensors *t,
				       bool (*ignore)(const char *name), struct lens_error *err)
{
	size_t i;

	for (i = 0; i < t->n; i++) {
		if (!t->tensor[i].used && !(ignore && ignore(t->tensor[i].name)))
			return lens_error_at(
				err, LENS_ERR_FORMAT, t->file[t->tensor[i].file].path, 0, 0,
				"tensor \"%.200s\" is unknown: this is not quite the "
				"architecture that config.json names",
				t->tensor[i].name);
	}
	return LENS_OK;
}
