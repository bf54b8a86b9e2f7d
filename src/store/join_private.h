/*
 * store/join_private.h: what a file joined from shards consists of, which follows from
 * the shards' shapes and attributes alone.
 */
#ifndef LENS_STORE_JOIN_PRIVATE_H
#define LENS_STORE_JOIN_PRIVATE_H

#include "store/store_private.h"

struct lens_join_attr {
	char *name;
	bool is_integer;
	int64_t integer;
	struct lens_buf text;
};

struct lens_join_attrs {
	struct lens_join_attr *v;
	size_t n, cap;
};

struct lens_join_dim {
	char *name;
	size_t extent;
	size_t *part; /* [n_shards] */
	bool summed;  /* "prompt" or "token": the shards' follow each other */
	bool labelled;
	struct lens_buf labels; /* each with its NUL */
	int64_t order;          /* in which the dimensions were added */
};

struct lens_join_dataset {
	char *path;
	enum lens_dtype dtype;
	int rank;
	size_t dim[LENS_MAX_RANK];
	hsize_t chunk[LENS_MAX_RANK]; /* the first shard's; of strings too */
	bool along;                   /* its first axis, and no other, is summed */
	bool counts_tokens;           /* its values number them, from the shard's first */
	bool virtual;                 /* in a file joined with LENS_JOIN_VIRTUAL */
	char *sha256;                 /* the first shard's */
	struct lens_join_attrs attrs;
	int id; /* in the file being written */
};

/* One path of the first shard; the others must have the same paths. */
struct lens_join_entry {
	char *path;
	enum { LENS_JOIN_DIM, LENS_JOIN_LINK, LENS_JOIN_DATASET } kind;
	size_t index;  /* of the dataset */
	size_t target; /* a link's: the entry */
};

struct lens_joined {
	const struct lens_shard_file *shard;
	size_t n_shards;
	struct lens_shard_facts *state; /* [n_shards] */
	size_t prompt, token;           /* indices into dim; token n_dims: there is none */
	struct lens_join_dim *dim;
	size_t n_dims, cap_dims;
	struct lens_join_dataset *dataset;
	size_t n_datasets, cap_datasets;
	struct lens_join_entry *entry;
	size_t n_entries;
	struct lens_join_attrs attrs; /* of "/" */
};

/*
 * Reads the shards one after another. All must have this identity; NULL: the first
 * one's.
 */
enum lens_status lens_join_survey(const struct lens_shard_file *shard, size_t n,
				  const char *identity, struct lens_joined *j,
				  struct lens_error *err);
void lens_joined_release(struct lens_joined *j);

/* The extent of a dataset's axis in the joined file, and in one shard. */
size_t lens_join_extent(const struct lens_joined *j, const struct lens_join_dataset *d,
			int axis);
size_t lens_join_part(const struct lens_joined *j, const struct lens_join_dataset *d,
		      size_t shard, int axis);
/* Where a shard's rows, or tokens, begin in a dimension that is summed. */
size_t lens_join_first(const struct lens_joined *j, size_t dim, size_t shard);
/* What is to be added to its values, of a dataset that counts_tokens. */
size_t lens_join_first_token(const struct lens_joined *j, size_t shard);
/* The mapping of a shard; false if it has no element of the dataset. */
bool lens_join_mapping(const struct lens_joined *j, const struct lens_join_dataset *d,
		       size_t shard, struct lens_store_part *part);

/* Adds the attributes of an object in a shard to those that the joined file will have. */
enum lens_status lens_join_take_attrs(const struct lens_h5_file *f, hid_t obj, bool first,
				      struct lens_join_attrs *attrs, struct lens_error *err);
enum lens_status lens_join_put_attrs(struct lens_store *s, const char *path,
				     const struct lens_join_attrs *attrs,
				     struct lens_error *err);
void lens_join_attrs_release(struct lens_join_attrs *attrs);

/* What an open file says about itself as a shard. */
enum lens_status lens_h5_shard_state(const struct lens_h5_file *f, struct lens_shard_facts *out,
				     struct lens_error *err);

/* --- copying data: join_copy.c, join_strings.c ---------------------------------- */

struct lens_join_progress {
	const struct lens_join_options *opt;
	uint64_t done, total;
};
/* Reports progress; LENS_ERR_INTERRUPTED if it should stop. */
enum lens_status lens_join_advance(struct lens_join_progress *p, uint64_t bytes,
				   struct lens_error *err);

/* The chunk shape of the joined dataset: at most 4 MiB. */
void lens_join_chunk(const struct lens_joined *j, const struct lens_join_dataset *d,
		     size_t *chunk);
/* Keeps its buffers from one dataset to the next, so as not to fragment memory. */
struct lens_copier;
enum lens_status lens_copier_create(const struct lens_joined *j, struct lens_copier **out,
				    struct lens_error *err);
void lens_copier_destroy(struct lens_copier *c);
enum lens_status lens_join_copy(struct lens_copier *c, struct lens_store *s,
				const struct lens_join_dataset *d, const size_t *chunk,
				struct lens_join_progress *p, struct lens_error *err);
enum lens_status lens_join_copy_strings(struct lens_store *s, const struct lens_joined *j,
					const struct lens_join_dataset *d,
					struct lens_join_progress *p, struct lens_error *err);

#endif
