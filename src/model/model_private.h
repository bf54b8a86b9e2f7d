/* model_private.h: what the files of model/ share. */
#ifndef MODEL_PRIVATE_H
#define MODEL_PRIVATE_H

#include "core/json.h"
#include "h5lens/model.h"

/* --- JSON files (json.c) ---------------------------------------------------- */

/* Reads a file that is a JSON object. */
enum lens_status lens_json_load(const char *path, size_t max_bytes, json_t **out,
				struct lens_error *err);

/* A config.json and its name, for messages. */
struct lens_config_file {
	const char *path;
	const json_t *root;
};
/* A size of 1 … 2^31; deflt stands for an absent or null key, 0 makes it required. */
enum lens_status lens_config_size(const struct lens_config_file *f, const char *key,
				  size_t deflt, size_t *out, struct lens_error *err);
enum lens_status lens_config_bool(const struct lens_config_file *f, const char *key, bool deflt,
				  bool *out, struct lens_error *err);
enum lens_status lens_config_real(const struct lens_config_file *f, const char *key,
				  double deflt, double *out, struct lens_error *err);
/* The text of a key, or NULL when it is absent or null; another type is an error. */
enum lens_status lens_config_text(const struct lens_config_file *f, const char *key,
				  const char **out, struct lens_error *err);

/* --- tensors (tensors.c, safetensors.c) ------------------------------------- */

#define LENS_TENSOR_RANK 8

enum lens_tensor_type { LENS_T_F64, LENS_T_F32, LENS_T_F16, LENS_T_BF16, LENS_T_OTHER };

/* One tensor of a mapped file. */
struct lens_tensor {
	char *name;
	enum lens_tensor_type type;
	char type_name[16];
	int rank;
	size_t shape[LENS_TENSOR_RANK];
	size_t n_elements;
	const unsigned char *data; /* little endian, any alignment */
	size_t file;               /* index into lens_tensors.file */
	bool used;
};

struct lens_mapped_file {
	char *path;
	unsigned char *data;
	size_t size;
};

/* Every tensor of a directory. */
struct lens_tensors {
	struct lens_tensor *tensor; /* sorted by name once complete */
	size_t n, cap;
	struct lens_mapped_file *file;
	size_t n_files;
};

/* Opens the weight files of dir and hashes them into sha. */
enum lens_status lens_tensors_open(const char *dir, struct lens_tensors *t,
				   struct lens_sha256 *sha, struct lens_error *err);
void lens_tensors_release(struct lens_tensors *t);
/* Adds the tensors of one mapped safetensors file. */
enum lens_status lens_safetensors_parse(struct lens_tensors *t, size_t file,
					struct lens_error *err);
/* Appends an empty tensor; NULL when memory is out. */
struct lens_tensor *lens_tensors_add(struct lens_tensors *t);
struct lens_tensor *lens_tensors_find(const struct lens_tensors *t, const char *name);
/*
 * Reads a tensor into out as float64. It must be there, have this shape and
 * hold finite numbers; else an error that names file and tensor. With out NULL
 * only name, shape and type are checked.
 */
enum lens_status lens_tensors_read(struct lens_tensors *t, const char *name, int rank,
				   const size_t *shape, double *out, struct lens_error *err);
/* Every tensor must have been read, but for those that ignore() accepts. */
enum lens_status lens_tensors_all_used(const struct lens_tensors *t,
				       bool (*ignore)(const char *name),
				       struct lens_error *err);

/* --- families ---------------------------------------------------------------- */

/* A block in float64 while it is loaded and processed. NULL: has none. */
struct lens_block64 {
	double *ln1_w, *ln1_b, *ln2_w, *ln2_b;
	double *w_qkv, *b_qkv, *w_o, *b_o, *w_in, *b_in, *w_out, *b_out;
};

struct lens_head64 {
	double *ln_final_w, *ln_final_b; /* [D] */
	double *w_u, *b_u;               /* [V, D], [V] */
};

struct lens_family {
	const char *model_type;   /* config.json's */
	const char *architecture; /* config.json's, when it names one */
	enum lens_status (*config)(const struct lens_config_file *f, struct lens_config *out,
				   struct lens_error *err);
	/* Fill the arrays, which are allocated and zeroed; all NULL: check only. */
	enum lens_status (*load_block)(struct lens_tensors *t, const struct lens_config *c,
				       size_t layer, struct lens_block64 *b,
				       struct lens_error *err);
	enum lens_status (*load_embed)(struct lens_tensors *t, const struct lens_config *c,
				       double *w_e, double *w_pos, struct lens_error *err);
	enum lens_status (*load_head)(struct lens_tensors *t, const struct lens_config *c,
				      struct lens_head64 *h, struct lens_error *err);
	/* Tensors that checkpoints carry and a model does not need. */
	bool (*ignore)(const char *name);
};
extern const struct lens_family lens_family_gpt2;

/* --- weight processing (process.c) ------------------------------------------ */

void lens_process_block(const struct lens_config *c, const struct lens_processing *p,
			struct lens_block64 *b);
/* rows of width d, each minus its mean */
void lens_center_rows(size_t rows, size_t d, double *w);
void lens_process_head(const struct lens_config *c, const struct lens_processing *p,
		       struct lens_head64 *h);

#endif
