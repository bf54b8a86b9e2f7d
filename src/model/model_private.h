/* model_private.h: what the files of model/ share. */
#ifndef LENS_MODEL_PRIVATE_H
#define LENS_MODEL_PRIVATE_H

#include "core/json.h"
#include "h5lens/model.h"

#include <time.h>

/* --- JSON files (json.c) ---------------------------------------------------- */

/* Reads a file that is a JSON object. */
enum lens_status lens_json_load(const char *path, size_t max_bytes, json_t **out,
				struct lens_error *err);

/* A config.json and its name, for messages. */
struct lens_config_file {
	const char *path;
	const json_t *root;
	json_t *asked; /* an object that is given the keys that are looked up, or NULL */
	const char *rope_part; /* which part of rope_parameters counts; NULL: it has none */
};
/* What stands under a key; NULL: nothing. */
const json_t *lens_config_value(const struct lens_config_file *f, const char *key);
/* "key" <what>, and what it holds if that is not JSON. */
enum lens_status lens_config_wrong(const struct lens_config_file *f, const char *key,
				   const char *what, struct lens_error *err);
/*
 * A size from 1 to 2^31 − 1; deflt if the key is absent or null; with deflt 0 it is
 * required.
 */
enum lens_status lens_config_size(const struct lens_config_file *f, const char *key,
				  size_t deflt, size_t *out, struct lens_error *err);
/* A size that has two names; deflt as above. */
enum lens_status lens_config_either(const struct lens_config_file *f, const char *key,
				    const char *other, size_t deflt, size_t *out,
				    struct lens_error *err);
enum lens_status lens_config_bool(const struct lens_config_file *f, const char *key, bool deflt,
				  bool *out, struct lens_error *err);
enum lens_status lens_config_real(const struct lens_config_file *f, const char *key,
				  double deflt, double *out, struct lens_error *err);
/* The text of a key, or NULL if it is absent or null; another type is an error. */
enum lens_status lens_config_text(const struct lens_config_file *f, const char *key,
				  const char **out, struct lens_error *err);

/* --- tensors (tensors.c, values.c, safetensors.c, torchbin.c) ------------------ */

#define LENS_TENSOR_RANK 8
#define LENS_NAME 96 /* size of the names that W_E and W_U have in files */

enum lens_tensor_type { LENS_T_F64, LENS_T_F32, LENS_T_F16, LENS_T_BF16, LENS_T_OTHER };

/* One tensor of a mapped file. */
struct lens_tensor {
	char *name;
	enum lens_tensor_type type;
	char type_name[16];
	int rank;
	size_t shape[LENS_TENSOR_RANK];
	size_t n_elements;
	bool strided;                    /* not in row-major order: use stride */
	size_t stride[LENS_TENSOR_RANK]; /* in elements; every element lies in the file */
	const unsigned char *data;       /* little endian, any alignment */
	size_t file;                     /* index into lens_tensors.file */
	bool used;
};

struct lens_mapped_file {
	char *path;
	unsigned char *data;
	size_t size;
	struct timespec changed;
};

/* Every tensor of a directory. */
struct lens_tensors {
	struct lens_tensor *tensor; /* sorted by name once complete */
	size_t n, cap;
	struct lens_mapped_file *file;
	size_t n_files;
	bool list; /* a list of what would be used: lens_tensors_use adds to it */
};

/* Are there weight files in dir? any_name: as in lens_weight_file, too. */
bool lens_tensors_there(const char *dir, bool any_name);
/* Opens the weight files of dir and hashes them into sha, if it is not NULL. */
enum lens_status lens_tensors_open(const char *dir, bool any_name, struct lens_tensors *t,
				   struct lens_sha256 *sha, struct lens_error *err);
#define LENS_FILE_NAME 256
/*
 * model.pth, state_dict.pth, or the only file of weights, whatever its name; "" if there is
 * none (weightfile.c).
 */
enum lens_status lens_weight_file(const char *dir, char name[LENS_FILE_NAME],
				  struct lens_error *err);
/* The files are read twice, for the digest and for the values. Have they changed since? */
enum lens_status lens_tensors_unchanged(const struct lens_tensors *t, struct lens_error *err);
void lens_tensors_release(struct lens_tensors *t);
/* Sorts a list, each name once. */
void lens_tensors_sort_list(struct lens_tensors *t);
/* Add the tensors of a mapped file: safetensors, or one that torch.save wrote. */
enum lens_status lens_safetensors_parse(struct lens_tensors *t, size_t file,
					struct lens_error *err);
enum lens_status lens_torchbin_parse(struct lens_tensors *t, size_t file,
				     struct lens_error *err);
/* Do both have the same shape and hold the same numbers? */
bool lens_tensors_equal(const struct lens_tensor *a, const struct lens_tensor *b);
/* Appends an empty tensor; NULL if out of memory. */
struct lens_tensor *lens_tensors_add(struct lens_tensors *t);
struct lens_tensor *lens_tensors_find(const struct lens_tensors *t, const char *name);
/*
 * The tensor of this name. It must exist and have this shape and a type that we read, else
 * an error names file and tensor.
 */
enum lens_status lens_tensors_use(struct lens_tensors *t, const char *name, int rank,
				  const size_t *shape, const struct lens_tensor **out,
				  struct lens_error *err);
/*
 * Reads such a tensor into out as float64; its numbers must be finite in float32, too. If out
 * is NULL, only name, shape and type are checked.
 */
enum lens_status lens_tensors_read(struct lens_tensors *t, const char *name, int rank,
				   const size_t *shape, double *out, struct lens_error *err);
/* Elements of a tensor: n from element `at` of the file's, `step` apart. */
struct lens_run_of {
	size_t at, step, n;
};
/* To out, out_step apart. False if one of them is not finite, or is not in float32. */
bool lens_tensor_values(const struct lens_tensor *t, const struct lens_run_of *r, double *out,
			size_t out_step);
/* Names the first element that is a NaN or an infinity, or is one in float32. */
enum lens_status lens_tensor_not_finite(const struct lens_tensors *ts,
					const struct lens_tensor *t, struct lens_error *err);
/* Every tensor must have been used, except those that ignore() accepts; NULL: none. */
enum lens_status lens_tensors_all_used(const struct lens_tensors *t,
				       bool (*ignore)(const char *name),
				       struct lens_error *err);

/* --- matrices in files (matrix.c) ---------------------------------------------- */

/*
 * TransformerLens stores heads apart. ACROSS: [heads, rows, columns / heads], the heads side
 * by side in the matrix; DOWN: [heads, rows / heads, columns], one below the other.
 */
enum lens_heads { LENS_NO_HEADS, LENS_HEADS_ACROSS, LENS_HEADS_DOWN };

/* Columns of a matrix that are in one tensor, side by side. */
struct lens_matrix_part {
	bool transposed; /* in the file [columns, rows], as torch's Linear has it */
	size_t columns;
	/* Column i is the file's first + i / group * stride + i % group. */
	size_t first, group, stride;
	size_t first_row;      /* of the file: those before are not in the matrix */
	enum lens_heads heads; /* if there are any, columns is all that is to be said */
	const struct lens_tensor *t;
	/* In elements of the file (lens_matrix_add): from row to row, from column to column …
	 */
	size_t down, across;
	/* … and from group to group of either. */
	size_t row_group, row_step, column_step;
};

/* A matrix that stays in the files and is read by pieces. */
#define LENS_MATRIX_PARTS 3
struct lens_matrix {
	const struct lens_tensors *files;
	size_t rows, columns; /* columns of all parts */
	struct lens_matrix_part part[LENS_MATRIX_PARTS];
	size_t n_parts;
	double scale; /* by which its elements are multiplied; 0: not */
};
/*
 * Adds the columns that part describes, but for its tensor, which is found by name and must
 * have this shape, [2], or [3] if heads are apart.
 */
enum lens_status lens_matrix_add(struct lens_matrix *m, struct lens_tensors *files,
				 const char *name, const size_t *shape,
				 const struct lens_matrix_part *part, struct lens_error *err);

struct lens_piece {
	size_t row, rows, column, columns;
};
/* Reads a piece into out, [rows, columns], as float64. An error names file and tensor. */
enum lens_status lens_matrix_read(const struct lens_matrix *m, const struct lens_piece *p,
				  double *out, struct lens_error *err);

/* --- families ---------------------------------------------------------------- */

/*
 * A block while it is loaded: vectors in float64 (NULL: the model has none), matrices
 * where they are.
 */
struct lens_block64 {
	double *ln1_w, *ln1_b, *ln2_w, *ln2_b;
	double *ln1_post_w, *ln2_post_w, *q_norm_w, *k_norm_w;
	double *b_qkv, *b_o, *b_gate, *b_in, *b_out;
	double *mlp_ln_w, *mlp_ln_b;
	struct lens_matrix w_qkv, w_o, w_gate, w_in, w_out, w_router;
};

/* W_E or W_pos where it is, and the LayerNorm that its rows go through, or NULL. */
struct lens_embed64 {
	struct lens_matrix m;
	double *norm_w, *norm_b;
};

struct lens_head64 {
	double *ln_final_w, *ln_final_b; /* [D]; RMSNorm: no bias, NULL; none: both */
	double *b_u;                     /* [V] */
	struct lens_matrix w_u;          /* [V, D] */
};

struct lens_family;

/* How a family calls its experts' tensors, behind the layer's prefix. */
struct lens_expert_names {
	const char *mlp; /* what holds gate.weight, and the experts */
	const char *gate, *in, *out;
};

/* What config.json says about the files rather than about the model. */
struct lens_layout {
	bool tied_head;   /* W_U is W_E */
	bool attn_biases; /* they have b_Q, b_K, b_V, b_O (if that varies in the family) … */
	bool qkv_biases;  /* … or the first three of them … */
	bool mlp_biases;  /* … and the MLP's */
	bool kv_apart;    /* keys' and values' tensors are _W_K, _b_K, _W_V, _b_V */
	bool gains_less_one;        /* a norm's weight w is stored as w − 1 */
	double residual_multiplier; /* what a block adds is multiplied by it; 0: not */
	double logits_scaling;      /* logits are divided by it; 0: not */
	const struct lens_expert_names *expert_names; /* NULL: there are none */
};

/* A checkpoint's tensors, and their names in it (head.c). */
struct lens_checkpoint {
	struct lens_tensors tensors;
	struct lens_layout layout;
	const char *prefix; /* the family's, or "" if saved as the base model */
	char w_e[LENS_NAME], w_u[LENS_NAME]; /* the tensors from which W_E and W_U are read */
};
/*
 * Finds out how a checkpoint names its tensors, and which of them is W_U. If Hugging
 * Face's versions disagree about that, *warning says so (else NULL; the caller frees
 * it).
 */
enum lens_status lens_checkpoint_names(struct lens_checkpoint *k, const struct lens_family *f,
				       enum lens_tied_head choice, char **warning,
				       struct lens_error *err);

struct lens_family {
	const char *model_type;   /* config.json's */
	const char *architecture; /* config.json's, when it names one … */
	const char *base;         /* … or the same without the head: "GPT2Model" */
	const char *prefix;       /* of all names except the head's; a base model has none */
	const char *embed, *head; /* the names of W_E, after the prefix, and of W_U */
	const char *head_bias;    /* the name of b_U, or NULL */
	bool head_transposed;     /* the head is stored as [D, V] */
	bool any_file_name;       /* of the weights, as people save them themselves */
	enum lens_status (*config)(const struct lens_config_file *f, struct lens_config *out,
				   struct lens_layout *layout, struct lens_error *err);
	/*
	 * Reads the vectors that the config requires, allocated and zeroed (all NULL: checks
	 * only), and finds the matrices.
	 */
	enum lens_status (*load_block)(struct lens_checkpoint *k, const struct lens_config *c,
				       size_t layer, struct lens_block64 *b,
				       struct lens_error *err);
	/* Of experts: w_gate, w_in and w_out of one; load_block leaves them out. */
	enum lens_status (*find_expert)(struct lens_checkpoint *k, const struct lens_config *c,
					size_t layer, size_t expert, struct lens_block64 *b,
					struct lens_error *err);
	/* [n_ctx, D]; NULL: no learned positions */
	enum lens_status (*find_positions)(struct lens_checkpoint *k,
					   const struct lens_config *c,
					   struct lens_matrix *w_pos, struct lens_error *err);
	enum lens_status (*load_final_norm)(struct lens_checkpoint *k,
					    const struct lens_config *c, struct lens_head64 *h,
					    struct lens_error *err);
	/* A LayerNorm that W_E's rows go through, weight and bias [D]; NULL: there is none. */
	enum lens_status (*load_embed_norm)(struct lens_checkpoint *k,
					    const struct lens_config *c, double *w, double *b,
					    struct lens_error *err);
	/* Is it a tensor that checkpoints may hold and the model does not need? */
	bool (*ignore)(const char *name); /* NULL: there is none */
};
extern const struct lens_family lens_family_gpt2, lens_family_gpt_neo, lens_family_gpt_neox,
	lens_family_llama, lens_family_mistral, lens_family_qwen2, lens_family_qwen3,
	lens_family_olmo2, lens_family_granite, lens_family_smollm3, lens_family_phi,
	lens_family_phi3, lens_family_gptj, lens_family_opt, lens_family_bloom,
	lens_family_starcoder2, lens_family_gpt_bigcode, lens_family_stablelm,
	lens_family_gemma, lens_family_gemma2, lens_family_gemma3_text, lens_family_mixtral,
	lens_family_qwen3_moe, lens_family_hooked_transformer;

/* Learned positions and final norm; GPT-Neo uses the same names (family_gpt2.c). */
enum lens_status lens_gpt2_find_positions(struct lens_checkpoint *k,
					  const struct lens_config *c,
					  struct lens_matrix *w_pos, struct lens_error *err);
/* Causal masks in older checkpoints. */
bool lens_gpt2_ignore(const char *name);
enum lens_status lens_gpt2_load_final_norm(struct lens_checkpoint *k,
					   const struct lens_config *c, struct lens_head64 *h,
					   struct lens_error *err);

/* What a family's config has where config.json leaves a key out. */
struct lens_config_defaults {
	size_t n_layers, d_model, n_heads, n_kv_heads, d_head, d_mlp, n_ctx, d_vocab;
	double eps, base, share; /* share: of each head that is rotary; 0: all */
	const char *eps_key, *act_key, *act;
	bool tied;
};
/*
 * Sizes, eps and the tied head under the usual names: hidden_size, … (family.c); the caller
 * finds d_head. n_kv_heads 0: n_heads.
 */
enum lens_status lens_config_shape(const struct lens_config_file *f,
				   const struct lens_config_defaults *deflt,
				   struct lens_config *c, struct lens_layout *layout,
				   struct lens_error *err);
/* The same under GPT-2's: n_embd, …, heads of which divide d_model (family_gpt2.c). */
enum lens_status lens_gpt2_config_shape(const struct lens_config_file *f,
					const struct lens_config_defaults *deflt,
					struct lens_config *c, struct lens_layout *layout,
					struct lens_error *err);
/* GPT-2's config, as GPTBigCode has it too; act: where activation_function is left out. */
enum lens_status lens_gpt2_config(const struct lens_config_file *f, const char *act,
				  struct lens_config *c, struct lens_layout *layout,
				  struct lens_error *err);
/* sliding_window of every layer; null is none; left out it is deflt, 0 for none. */
enum lens_status lens_config_window(const struct lens_config_file *f, size_t deflt,
				    struct lens_config *c, struct lens_error *err);
/* rope_theta, partial_rotary_factor, and how they are scaled. */
enum lens_status lens_config_partly_rotary(const struct lens_config_file *f,
					   const struct lens_config_defaults *deflt,
					   struct lens_config *c, struct lens_error *err);

/* What is named as Llama names it (family_llama.c). */
enum lens_status lens_llama_config(const struct lens_config_file *f,
				   const struct lens_config_defaults *deflt,
				   struct lens_config *c, struct lens_layout *layout,
				   struct lens_error *err);
enum lens_status lens_llama_load_block(struct lens_checkpoint *k, const struct lens_config *c,
				       size_t layer, struct lens_block64 *b,
				       struct lens_error *err);
enum lens_status lens_llama_load_final_norm(struct lens_checkpoint *k,
					    const struct lens_config *c, struct lens_head64 *h,
					    struct lens_error *err);
bool lens_llama_ignore(const char *name);
#define LENS_LLAMA_LIKE(type, class, read_config)                                              \
	{                                                                                      \
		.model_type = type, .architecture = class "ForCausalLM",                       \
		.base = class "Model", .prefix = "model.", .embed = "embed_tokens.weight",     \
		.head = "lm_head.weight", .config = read_config,                               \
		.load_block = lens_llama_load_block,                                           \
		.load_final_norm = lens_llama_load_final_norm, .ignore = lens_llama_ignore,    \
	}
/* layer_types: which layers are local. */
enum lens_status lens_config_layer_types(const struct lens_config_file *f, const json_t *types,
					 struct lens_config *c, struct lens_error *err);

/* As many experts as we run, of which a token has no more than there are (family_moe.c). */
enum lens_status lens_config_experts(const struct lens_config_file *f, const char *experts,
				     const char *per_token, const struct lens_config *c,
				     struct lens_error *err);

/* The final LayerNorm as StarCoder2 and StableLM name it (family_starcoder.c). */
enum lens_status lens_load_final_layer_norm(struct lens_checkpoint *k,
					    const struct lens_config *c, struct lens_head64 *h,
					    struct lens_error *err);

/* --- what families share (family.c) ------------------------------------------ */

/* Tensors whose names begin alike: "transformer.h.3." */
struct lens_tensors_at {
	struct lens_tensors *t;
	const struct lens_layout *layout;
	struct lens_error *err;
	char prefix[96];
};
/* The checkpoint's prefix, then fmt: "h.%zu." */
struct lens_tensors_at lens_tensors_at(struct lens_checkpoint *k, struct lens_error *err,
				       const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));
/* Reads prefix + name as float64; out NULL: checks only. */
enum lens_status lens_load_vector(const struct lens_tensors_at *at, const char *name, size_t n,
				  double *out);
/* A norm's weight and bias: name.weight, name.bias. */
enum lens_status lens_load_norm(const struct lens_tensors_at *at, const char *name, size_t n,
				double *w, double *b);
/* Finds a matrix that is stored as it is. */
enum lens_status lens_find_matrix(const struct lens_tensors_at *at, const char *name,
				  size_t rows, size_t columns, struct lens_matrix *out);
/* Adds a torch Linear's weight [n_out, n_in], transposed: n_out columns to n_in rows. */
enum lens_status lens_find_linear(const struct lens_tensors_at *at, const char *name,
				  size_t n_out, size_t n_in, struct lens_matrix *out);
/* Adds the columns of a matrix of this shape that part describes. */
enum lens_status lens_find_part(const struct lens_tensors_at *at, const char *name,
				const size_t *shape, const struct lens_matrix_part *part,
				struct lens_matrix *out);
/* A Linear, likewise, with its bias: name.weight, name.bias. */
enum lens_status lens_load_affine(const struct lens_tensors_at *at, const char *name,
				  size_t n_out, size_t n_in, struct lens_matrix *w, double *b);
/* q, k and v in one matrix, rows [H, 3, dh]; bias NULL: none (family_gpt_neox.c). */
enum lens_status lens_load_interleaved_qkv(const struct lens_tensors_at *at,
					   const struct lens_config *c, const char *weight,
					   const char *bias, struct lens_block64 *b);
/* Llama's names: self_attn.{q,k,v}_proj, mlp.{gate,up,down}_proj (family_llama.c). */
enum lens_status lens_llama_load_qkv(const struct lens_tensors_at *at,
				     const struct lens_config *c, struct lens_block64 *b);
enum lens_status lens_llama_load_mlp(const struct lens_tensors_at *at,
				     const struct lens_config *c, struct lens_block64 *b);
/* A block's norms and attention: all but the MLP. */
enum lens_status lens_llama_load_attention(const struct lens_tensors_at *at,
					   const struct lens_config *c, struct lens_block64 *b);
/* Finds an expert's matrices, torch Linears (family_moe.c). */
enum lens_status lens_find_expert(const struct lens_tensors_at *at, const struct lens_config *c,
				  const struct lens_expert_names *names,
				  struct lens_block64 *b);
/* out + n, or NULL if out is NULL */
static inline double *lens_at64(double *out, size_t n)
{
	return out ? out + n : NULL;
}
/* Does name end with `end`? For lens_family.ignore. */
bool lens_name_ends(const char *name, const char *end);

/* n_layers, at most LENS_MAX_LAYERS */
enum lens_status lens_config_layers(const struct lens_config_file *f, const char *key,
				    size_t deflt, struct lens_config *c,
				    struct lens_error *err);
/* tie_word_embeddings; null is false, as in transformers 4. */
enum lens_status lens_config_tied(const struct lens_config_file *f, bool deflt, bool *out,
				  struct lens_error *err);
/* d_head = d_model / n_heads, which must be an integer; n_kv_heads = n_heads. */
enum lens_status lens_config_heads(const struct lens_config_file *f, const char *d_model,
				   const char *n_heads, struct lens_config *c,
				   struct lens_error *err);
/* d_head = d_model / n_heads, which must be an integer. */
enum lens_status lens_config_d_head(const struct lens_config_file *f, const char *d_model,
				    const char *n_heads, struct lens_config *c,
				    struct lens_error *err);
/* head_dim if it is given, else d_model / n_heads. */
enum lens_status lens_config_own_d_head(const struct lens_config_file *f, struct lens_config *c,
					struct lens_error *err);
/* n_heads must be a multiple of n_kv_heads. */
enum lens_status lens_config_kv_heads(const struct lens_config_file *f,
				      const struct lens_config *c, struct lens_error *err);
/* A switch that must have the value that we run; what: what it would be instead. */
enum lens_status lens_config_must_be(const struct lens_config_file *f, const char *key,
				     bool value, const char *what, struct lens_error *err);
/* The activation function, by its name in Hugging Face. */
enum lens_status lens_config_activation(const struct lens_config_file *f, const char *key,
					const char *deflt, struct lens_config *c,
					struct lens_error *err);
/* A norm's eps: not below 0. */
enum lens_status lens_config_eps(const struct lens_config_file *f, const char *key,
				 double deflt, double *out, struct lens_error *err);
/* rope_scaling or rope_parameters (family_rotary.c); base and share: the family's defaults. */
enum lens_status lens_config_rotary(const struct lens_config_file *f, double base, double share,
				    struct lens_config *c, struct lens_error *err);
/* Has it a part for each kind of layers, full_attention and sliding_attention? */
bool lens_rope_parts(const json_t *rope_parameters);

/* --- arrays (block.c) ------------------------------------------------------------ */

/* n zeros; rows·columns that are to be filled; n rounded. */
enum lens_status lens_make64(size_t n, double **out, struct lens_error *err);
enum lens_status lens_make32(size_t rows, size_t columns, float **out, struct lens_error *err);
enum lens_status lens_round32(const double *x, size_t n, float **out, struct lens_error *err);
/* A block's vectors of zeros in float64, and out's matrices. Release b after an error too. */
enum lens_status lens_block_make(const struct lens_config *c, struct lens_block64 *b,
				 struct lens_block *out, struct lens_error *err);
/* Rounds the vectors to out's; folded: without the norms'. */
enum lens_status lens_block_round(const struct lens_config *c, bool folded,
				  struct lens_block64 *b, struct lens_block *out,
				  struct lens_error *err);
void lens_block64_release(struct lens_block64 *b);
void lens_block_release(struct lens_block *b);

/* --- each.c -------------------------------------------------------------------- */

/* Calls load for 0 … n − 1; the error is that of the first which has one. */
struct lens_load_parts {
	size_t n, threads;
	enum lens_status (*load)(void *ctx, size_t i, struct lens_error *err);
	void *ctx;
};
enum lens_status lens_load_each(const struct lens_load_parts *parts, struct lens_error *err);

/* --- weight processing (process.c, process_embed.c) --------------------------- */

/* Columns or rows that are processed at a time. */
#define LENS_STRIP ((size_t)64)
/* Room for n of them, [n, length]. */
enum lens_status lens_make_strip(size_t n, size_t length, double **out, struct lens_error *err);
/* rows of width d, each minus its mean */
void lens_center_rows(size_t rows, size_t d, double *w);
/* Are weights that write to the stream centred? Where LayerNorm alone reads it. */
bool lens_center_writing(const struct lens_config *c, const struct lens_processing *p);
/* Rounds a piece to its place in a matrix, whose rows are ld apart. */
void lens_round_piece(const struct lens_piece *p, const double *x, float *out, size_t ld);

/*
 * Reads a block's matrices by pieces, processes them in float64, and rounds them to out's,
 * which are allocated. b's vectors are processed in place.
 */
enum lens_status lens_process_block(const struct lens_config *c,
				    const struct lens_processing *p, struct lens_block64 *b,
				    struct lens_block *out, struct lens_error *err);
/* One expert's matrices, which no processing changes. */
enum lens_status lens_process_expert(const struct lens_config *c, size_t expert,
				     const struct lens_block64 *b, struct lens_block *out,
				     struct lens_error *err);
/* Rows of W_E or W_pos, likewise. */
enum lens_status lens_process_embed(const struct lens_config *c,
				    const struct lens_processing *p,
				    const struct lens_embed64 *e, size_t threads, float *out,
				    struct lens_error *err);
/* W_U, and h's b_U in place. */
enum lens_status lens_process_head(const struct lens_config *c, const struct lens_processing *p,
				   struct lens_head64 *h, size_t threads, float *w_u,
				   struct lens_error *err);

/* Bytes that these hold at a time, in each thread. */
size_t lens_process_bytes(const struct lens_config *c, const struct lens_processing *p);

/* --- refactor.c ---------------------------------------------------------------- */

/* Can the attention be refactored? If not, the error says why. */
enum lens_status lens_refactor_check(const struct lens_config *c, struct lens_error *err);
/* One head in float64: W_Q, W_K, W_V [D, dh], b_Q, b_K [dh], W_O [dh, D]. */
struct lens_head_factors {
	double *q, *k, *v, *b_q, *b_k, *o;
};
/* refactor_factored_attn_matrices, TransformerLens's last step. */
enum lens_status lens_refactor_head(const struct lens_config *c,
				    const struct lens_head_factors *h, struct lens_error *err);
/* Bytes that it takes beside the head's. */
size_t lens_refactor_bytes(const struct lens_config *c);

#endif
