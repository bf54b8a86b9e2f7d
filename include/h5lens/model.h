/*
 * model.h: Hugging Face directory → canonical weights.
 *
 * Each family maps Hugging Face's tensors to one canonical description, for which
 * there is one forward pass. Weight processing works on it once, at load, in float64,
 * with the meaning and order of TransformerLens 2.x
 * (HookedTransformer.load_and_process_state_dict). Once open, a model is immutable and
 * shared by all threads.
 */
#ifndef H5LENS_MODEL_H
#define H5LENS_MODEL_H

#include <string.h>

#include "h5lens/core.h"
#include "h5lens/kernels.h"

enum lens_norm { LENS_NORM_LN, LENS_NORM_RMS, LENS_NORM_NONE };

/* How rotary angles are scaled for a longer context, under Hugging Face's rope_type names. */
enum lens_rope_type {
	LENS_ROPE_DEFAULT,
	LENS_ROPE_LINEAR,
	LENS_ROPE_LLAMA3,
	LENS_ROPE_YARN,
	LENS_ROPE_LONGROPE
};
#define LENS_MOST_LONGROPE 256 /* factors: pairs of a head */

/* Rotary positions, rotate-half pairing unless adjacent: frequency i is base^(−2i/dim), then
 * scaled. */
struct lens_rotary {
	size_t dim;  /* the first dim of d_head are rotated; 0: no rotary positions */
	double base; /* rope_theta */
	enum lens_rope_type type;
	double factor; /* linear, llama3: frequencies are divided by it … */
	/* … in llama3 only those of long wavelength, compared with the original context. */
	double low_freq_factor, high_freq_factor, original_ctx;
	double beta_fast, beta_slow; /* yarn: turns in the original context */
	bool truncate;               /* yarn: the pairs that they stand for are whole numbers */
	double attention_factor; /* yarn, longrope: cosines and sines are multiplied by it */
	double short_factor[LENS_MOST_LONGROPE]; /* longrope: frequencies are divided by them */
	bool adjacent; /* pairs are (2i, 2i + 1) instead of (i, i + dim/2) */
};

/* RMSNorm of queries and keys, before the rotation: of each head by itself, or of all together.
 */
enum lens_qk_norm { LENS_QK_NORM_NONE, LENS_QK_NORM_HEAD, LENS_QK_NORM_ALL };

#define LENS_MAX_LAYERS 1024
#define LENS_MAX_EXPERTS 1024

/* The model_type of TransformerLens's own models. */
#define LENS_HOOKED_TRANSFORMER "hooked_transformer"

/* Shapes and kinds, under HookedTransformerConfig's names. */
struct lens_config {
	char family[32];       /* Hugging Face's model_type: "gpt2" */
	char architecture[64]; /* "GPT2LMHeadModel" */
	size_t n_layers, d_model, n_heads, n_kv_heads, d_head, d_mlp, d_vocab, n_ctx;
	size_t d_vocab_out; /* of the logits; 0: d_vocab */
	enum lens_norm norm;
	bool norms_folded; /* LNPre, RMSPre: they have no weights of their own */
	bool final_rms;    /* ln_final is RMSNorm, whatever norm is */
	double eps;
	enum lens_act act;
	char act_name[24];      /* as config.json has it: "gelu_pytorch_tanh" */
	bool learned_positions; /* W_pos is added to the embedding … */
	bool shortformer; /* … or to what queries and keys are made of, in every block */
	bool alibi;       /* scores have slope·(key − query) added (Press et al. 2021) */
	bool alibi_even;  /* slopes are 2^(−8k/n) where n is no power of two, too */
	bool embed_norm;  /* W_E holds LayerNorm of each row, and is not centred */
	struct lens_rotary rotary;
	bool no_rotary[LENS_MAX_LAYERS]; /* layers that are not turned: hook_rot_q is hook_q */
	struct lens_rotary
		local_rotary; /* dim > 0: that of local layers, rotary of the others */
	double embed_scale;   /* hook_embed is W_E's row times this, which W_E holds */
	enum lens_qk_norm qk_norm;
	bool norms_before; /* ln1 and ln2, of what attention and MLP read */
	bool norms_after;  /* ln1_post and ln2_post, RMSNorm of what they add to the stream */
	double score_cap;  /* scores become cap·tanh(scores/cap); 0: none */
	double logit_cap;  /* likewise logits */
	bool attn_only;    /* no MLP: resid_post is resid_pre and attn_out */
	bool mlp_norm;     /* LayerNorm of what the activation gives (solu_ln) */
	bool gated_mlp;
	bool mlp_bias_after; /* a gated MLP's b_in is added to the product */
	bool gate_bias;      /* a gated MLP's b_gate, which TransformerLens does not have */
	size_t n_experts; /* the MLP is so many gated ones without biases, of d_mlp each … */
	size_t experts_per_token; /* … of which each token goes through so many; 0: one MLP … */
	bool norm_expert_weights; /* … whose weights are made to add up to 1 */
	bool parallel_block;      /* attention and MLP both read resid_pre */
	bool scale_attn;          /* divide scores by √d_head … */
	double attn_scale;        /* … or by this, if it is not 0 … */
	bool scale_attn_by_layer; /* … and by layer + 1 */
	size_t window; /* keys seen in local layers, the query's own included; 0: none local */
	bool local[LENS_MAX_LAYERS]; /* which layers are local */
};

/* Which processing to apply; the switches are independent. */
struct lens_processing {
	bool fold_ln, center_writing_weights, center_unembed, fold_value_biases,
		refactor_factored_attn_matrices;
};

/*
 * Leaves out what has nothing to do in a model of this config; a step that would make
 * another model of it is refused.
 */
enum lens_status lens_processing_fit(const struct lens_config *c, struct lens_processing *p,
				     struct lens_error *err);

/* Which tensor of the files is W_U. */
enum lens_tied_head {
	LENS_HEAD_AUTO,  /* what config.json says (tie_word_embeddings), like
			    TransformerLens 2.16 */
	LENS_HEAD_TIED,  /* the embedding */
	LENS_HEAD_STORED /* the stored head, which must exist */
};

struct lens_model_options {
	struct lens_processing processing;
	enum lens_tied_head tied_head;
	size_t threads; /* to load with; 0: from the environment. No bit depends on it */
	/*
	 * Asked when the files are known to hold tensors of these shapes, before memory is
	 * taken for them: may lower *threads, or refuse. NULL: all is admitted.
	 */
	enum lens_status (*admit)(void *ctx, const struct lens_config *c,
				  const struct lens_processing *p, size_t *threads,
				  struct lens_error *err);
	void *ctx;
	/* A folder without weight files gives a model without weights, for a plan: w_e NULL. */
	bool config_will_do;
};

/* One block. Row-major; the columns of QKV are [q heads | k heads | v heads]. */
struct lens_block {
	float *ln1_w, *ln1_b, *ln2_w, *ln2_b; /* [D]; NULL once folded, b also for RMSNorm */
	float *w_qkv, *b_qkv;                 /* [D, (H + 2 Hkv) dh] */
	float *q_norm_w, *k_norm_w;     /* [dh], or [H dh] and [Hkv dh]; NULL unless qk_norm */
	float *ln1_post_w, *ln2_post_w; /* [D]; NULL unless norms_after */
	float *w_o, *b_o;               /* [H dh, D], [D] */
	float *w_gate, *b_gate;         /* [D, F], [F]; NULL unless the MLP is gated */
	float *w_in, *b_in;             /* [D, F], [F] */
	float *w_out, *b_out;           /* [F, D], [D] */
	float *mlp_ln_w, *mlp_ln_b;     /* [F]; NULL unless mlp_norm, and once folded */
	/* Of experts: those three are [E][D, F], [E][D, F] and [E][F, D], without biases. */
	float *w_router;  /* [E, D], or NULL */
	float attn_scale; /* scores are q·k / attn_scale */
	size_t window;    /* keys that a query sees; 0: all earlier ones */
};

struct lens_model {
	struct lens_config config;
	struct lens_processing processing;
	float *w_e;                     /* [V, D] */
	float *w_pos;                   /* [n_ctx, D], or NULL */
	struct lens_block *block;       /* [n_layers] */
	float *ln_final_w, *ln_final_b; /* [D]; NULL once folded */
	float *w_u; /* [d_vocab_out, D]: the transpose of TransformerLens's W_U */
	float *b_u; /* [d_vocab_out]; zeros where the model has none */
	char tensor_w_e[96], tensor_w_u[96]; /* their names in the files */
	char *warning;                       /* what other programs read differently, or NULL */
	uint8_t sha256[LENS_SHA256_BYTES];   /* config.json and the weight files, in order */
};

/* Of ln_final. */
static inline enum lens_norm lens_final_norm_kind(const struct lens_config *c)
{
	return c->final_rms ? LENS_NORM_RMS : c->norm;
}

/* Tokens that have a logit. */
static inline size_t lens_n_logits(const struct lens_config *c)
{
	return c->d_vocab_out ? c->d_vocab_out : c->d_vocab;
}

/* Has it W_pos? */
static inline bool lens_has_w_pos(const struct lens_config *c)
{
	return c->learned_positions || c->shortformer;
}

/* TransformerLens's own: is no weight to be processed unless it is asked for by name? */
static inline bool lens_weights_as_stored(const struct lens_config *c)
{
	return !strcmp(c->family, LENS_HOOKED_TRANSFORMER);
}

/* Reads config.json only: shapes for `info` and --dry-run. */
enum lens_status lens_config_load(const char *dir, struct lens_config *out,
				  struct lens_error *err);

/*
 * Calls each for every tensor that a checkpoint with this config.json holds, in the order of
 * their names: a tied head is the embedding.
 */
typedef enum lens_status lens_each_tensor(void *ctx, const char *name, int rank,
					  const size_t *shape, struct lens_error *err);
enum lens_status lens_checkpoint_each(const char *dir, lens_each_tensor *each, void *ctx,
				      struct lens_error *err);

/* What can be told of a model whose model_type we do not have (unknown.c). */
struct lens_unknown_model {
	char model_type[64]; /* "": we have it, there is nothing to tell */
	char text_model[32]; /* of text_config, if it is one that we have; nothing else is told
			      */
	bool of_text;        /* what follows is of text_config */
	char nearest[32];    /* the family that reads most of the keys; "": none is near */
	size_t n_known, n_keys; /* how many of how many that matter */
	bool weights;           /* were there any, so that tensors could be compared? */
	struct lens_buf shapes; /* "n_layers 32 (num_hidden_layers), …" */
	/* Lines: keys that no family reads, those that only others read; … */
	struct lens_buf new_keys, others_keys;
	struct lens_buf refusal; /* … why the nearest family would refuse the config; … */
	struct lens_buf added,
		lacking; /* … tensors beside the nearest family's, without numbers */
};
enum lens_status lens_unknown_look(const char *dir, struct lens_unknown_model *u,
				   struct lens_error *err);
void lens_unknown_release(struct lens_unknown_model *u);

/* Elements of matrices, biases and norms left out: of all blocks, W_E, W_U and W_pos. */
size_t lens_model_weights(const struct lens_config *c);
/* The multiplications of a token that goes through a block: of its experts' as many as it has.
 */
size_t lens_block_products(const struct lens_config *c);
/* Bytes that each thread holds beside the weights while it loads some of them. */
size_t lens_model_loading_bytes(const struct lens_config *c, const struct lens_processing *p);

/*
 * Loads and processes the weights: config.json with the first that is there of
 * model.safetensors, model.safetensors.index.json and its shards,
 * pytorch_model.bin, pytorch_model.bin.index.json and its shards. Errors name
 * file and tensor. The caller destroys *out, and shows its warning.
 */
enum lens_status lens_model_open(const char *dir, const struct lens_model_options *opt,
				 struct lens_model **out, struct lens_error *err);
void lens_model_destroy(struct lens_model *m);

/* The config as JSON with HookedTransformerConfig's key names; the caller frees it. */
enum lens_status lens_config_json(const struct lens_config *c, const struct lens_processing *p,
				  char **out, struct lens_error *err);

/*
 * config.json of a folder in TransformerLens's own form. What HookedTransformerConfig has no
 * key for is LENS_ERR_UNSUPPORTED, by name. The caller frees *out.
 */
enum lens_status lens_config_transformer_lens(const struct lens_config *c,
					      const struct lens_processing *p, char **out,
					      struct lens_error *err);

/*
 * n_ctx in it. A HookedTransformer holds a mask of n_ctx² a layer, and TransformerLens limits
 * the contexts of Hugging Face's models where no weight depends on them.
 */
size_t lens_transformer_lens_ctx(const struct lens_config *c);

/* "LN", "LNPre", "RMS", "RMSPre", TransformerLens's normalization_type; NULL: none. */
const char *lens_normalization_type(const struct lens_config *c, bool fold_ln);

#endif
