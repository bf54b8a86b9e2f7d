/*
 * model/block.c: the arrays of a block. In: a config; out: their sizes, and memory for
 * them in both forms, float64 while they are loaded (vectors only) and float32.
 */
#include "model/model_private.h"

#include <stddef.h>

enum lens_status lens_make64(size_t n, double **out, struct lens_error *err)
{
	*out = lens_calloc(n, sizeof(**out));
	return *out ? LENS_OK : lens_error_nomem(err, n, sizeof(**out));
}

enum lens_status lens_make32(size_t rows, size_t columns, float **out, struct lens_error *err)
{
	size_t n;

	*out = lens_size_mul(rows, columns, &n) ? lens_alloc_aligned(n, sizeof(**out)) : NULL;
	return *out ? LENS_OK : lens_error_nomem(err, rows, columns * sizeof(**out));
}

enum lens_status lens_round32(const double *x, size_t n, float **out, struct lens_error *err)
{
	size_t i;

	LENS_TRY(lens_make32(n, 1, out, err));
	for (i = 0; i < n; i++)
		(*out)[i] = (float)x[i];
	return LENS_OK;
}

/* The arrays of a block: where they are, vectors in both forms, and their shapes. */
enum extent {
	ONE,
	D_MODEL,
	D_MLP,
	QKV,
	HEADS,
	Q_NORM,
	K_NORM,
	EXPERTS,
	EACH_D_MODEL, /* of each expert, or of the one MLP */
	EACH_D_MLP,
	N_EXTENTS
};

/*
 * WEIGHT: in every model; MLP: if there is one; MLP_BIAS: if it is no experts'; GATE and
 * GATE_BIAS: if it is gated; ROUTER: of experts; NORM and NORM_BIAS (LayerNorm's), of the MLP
 * MLP_…: gone once folded; INNER: of the norm within the MLP; QK_NORM: if queries and keys
 * are normalised; POST, MLP_POST: if what is added to the stream is.
 */
enum kind {
	WEIGHT,
	MLP,
	MLP_BIAS,
	GATE,
	GATE_BIAS,
	ROUTER,
	NORM,
	NORM_BIAS,
	MLP_NORM,
	MLP_NORM_BIAS,
	INNER,
	QK_NORM,
	POST,
	MLP_POST
};

static const struct block_array {
	size_t at64, at32;
	enum extent rows, columns;
	enum kind kind;
} block_arrays[] = {
#define VECTOR(name, columns, kind)                                                            \
	{                                                                                      \
		offsetof(struct lens_block64, name), offsetof(struct lens_block, name), ONE,   \
			columns, kind                                                          \
	}
#define MATRIX(name, rows, columns, kind)                                                      \
	{                                                                                      \
		0, offsetof(struct lens_block, name), rows, columns, kind                      \
	}
	VECTOR(ln1_w, D_MODEL, NORM),
	VECTOR(ln1_b, D_MODEL, NORM_BIAS),
	VECTOR(ln2_w, D_MODEL, MLP_NORM),
	VECTOR(ln2_b, D_MODEL, MLP_NORM_BIAS),
	MATRIX(w_qkv, D_MODEL, QKV, WEIGHT),
	VECTOR(b_qkv, QKV, WEIGHT),
	VECTOR(q_norm_w, Q_NORM, QK_NORM),
	VECTOR(k_norm_w, K_NORM, QK_NORM),
	VECTOR(ln1_post_w, D_MODEL, POST),
	VECTOR(ln2_post_w, D_MODEL, MLP_POST),
	MATRIX(w_o, HEADS, D_MODEL, WEIGHT),
	VECTOR(b_o, D_MODEL, WEIGHT),
	MATRIX(w_router, EXPERTS, D_MODEL, ROUTER),
	MATRIX(w_gate, EACH_D_MODEL, D_MLP, GATE),
	VECTOR(b_gate, D_MLP, GATE_BIAS),
	MATRIX(w_in, EACH_D_MODEL, D_MLP, MLP),
	VECTOR(b_in, D_MLP, MLP_BIAS),
	MATRIX(w_out, EACH_D_MLP, D_MODEL, MLP),
	VECTOR(b_out, D_MODEL, MLP_BIAS),
	VECTOR(mlp_ln_w, D_MLP, INNER),
	VECTOR(mlp_ln_b, D_MLP, INNER),
#undef VECTOR
#undef MATRIX
};
#define N_ARRAYS (sizeof(block_arrays) / sizeof(*block_arrays))

static bool is_vector(size_t i)
{
	return block_arrays[i].rows == ONE;
}

static double **array64(struct lens_block64 *b, size_t i)
{
	return (double **)(void *)((char *)b + block_arrays[i].at64);
}

static float **array32(struct lens_block *b, size_t i)
{
	return (float **)(void *)((char *)b + block_arrays[i].at32);
}

static size_t extent_of(const struct lens_config *c, enum extent e)
{
	size_t each = lens_max(c->n_experts, 1);
	const size_t extent[N_EXTENTS] = {
		[ONE] = 1,
		[D_MODEL] = c->d_model,
		[D_MLP] = c->d_mlp,
		[QKV] = (c->n_heads + 2 * c->n_kv_heads) * c->d_head,
		[HEADS] = c->n_heads * c->d_head,
		[Q_NORM] = c->d_head * (c->qk_norm == LENS_QK_NORM_ALL ? c->n_heads : 1),
		[K_NORM] = c->d_head * (c->qk_norm == LENS_QK_NORM_ALL ? c->n_kv_heads : 1),
		[EXPERTS] = c->n_experts,
		[EACH_D_MODEL] = each * c->d_model,
		[EACH_D_MLP] = each * c->d_mlp,
	};

	return extent[e];
}

static bool has_array(const struct lens_config *c, size_t i)
{
	bool norms = c->norms_before && !c->norms_folded, mlp = !c->attn_only;

	switch (block_arrays[i].kind) {
	case MLP:
		return mlp;
	case MLP_BIAS:
		return mlp && !c->n_experts;
	case GATE:
		return c->gated_mlp;
	case GATE_BIAS:
		return c->gated_mlp && !c->n_experts;
	case ROUTER:
		return c->n_experts;
	case NORM:
		return norms;
	case NORM_BIAS:
		return norms && c->norm == LENS_NORM_LN;
	case MLP_NORM:
		return norms && mlp;
	case MLP_NORM_BIAS:
		return norms && mlp && c->norm == LENS_NORM_LN;
	case INNER: /* TransformerLens's LayerNorm has weights here if the others have */
		return c->mlp_norm && norms && c->norm == LENS_NORM_LN;
	case POST:
		return c->norms_after;
	case MLP_POST:
		return c->norms_after && mlp;
	case QK_NORM:
		return c->qk_norm;
	default:
		return true;
	}
}

static bool is_folded(size_t i)
{
	enum kind kind = block_arrays[i].kind;

	return kind >= NORM && kind <= INNER;
}

static size_t elements(const struct lens_config *c, size_t i)
{
	return extent_of(c, block_arrays[i].rows) * extent_of(c, block_arrays[i].columns);
}

static size_t block_weights(const struct lens_config *c)
{
	size_t i, n = 0;

	for (i = 0; i < N_ARRAYS; i++)
		n += has_array(c, i) && !is_vector(i) ? elements(c, i) : 0;
	return n;
}

size_t lens_block_products(const struct lens_config *c)
{
	size_t i, n = 0;

	for (i = 0; i < N_ARRAYS; i++) {
		enum extent rows = block_arrays[i].rows;
		bool each = c->n_experts && (rows == EACH_D_MODEL || rows == EACH_D_MLP);

		if (has_array(c, i) && !is_vector(i))
			n += each ? elements(c, i) / c->n_experts * c->experts_per_token
				  : elements(c, i);
	}
	return n;
}

size_t lens_model_weights(const struct lens_config *c)
{
	size_t positions = lens_has_w_pos(c) ? c->n_ctx : 0;

	return c->n_layers * block_weights(c) +
	       (c->d_vocab + lens_n_logits(c) + positions) * c->d_model;
}

size_t lens_model_loading_bytes(const struct lens_config *c, const struct lens_processing *p)
{
	size_t i, vectors = 0;

	for (i = 0; i < N_ARRAYS; i++) {
		if (has_array(c, i) && is_vector(i))
			vectors += extent_of(c, block_arrays[i].columns);
	}
	/* b_U, and a block's. */
	return (lens_max(vectors, lens_n_logits(c)) + c->d_model) * sizeof(double) +
	       lens_process_bytes(c, p);
}

void lens_block64_release(struct lens_block64 *b)
{
	size_t i;

	for (i = 0; i < N_ARRAYS; i++) {
		if (is_vector(i))
			lens_free(*array64(b, i));
	}
}

enum lens_status lens_block_make(const struct lens_config *c, struct lens_block64 *b,
				 struct lens_block *out, struct lens_error *err)
{
	size_t i;

	for (i = 0; i < N_ARRAYS; i++) {
		size_t rows = extent_of(c, block_arrays[i].rows);
		size_t columns = extent_of(c, block_arrays[i].columns);

		if (!has_array(c, i))
			continue;
		if (is_vector(i))
			LENS_TRY(lens_make64(columns, array64(b, i), err));
		else
			LENS_TRY(lens_make32(rows, columns, array32(out, i), err));
	}
	return LENS_OK;
}

enum lens_status lens_block_round(const struct lens_config *c, bool folded,
				  struct lens_block64 *b, struct lens_block *out,
				  struct lens_error *err)
{
	size_t i;

	for (i = 0; i < N_ARRAYS; i++) {
		if (!has_array(c, i) || !is_vector(i) || (folded && is_folded(i)))
			continue;
		LENS_TRY(lens_round32(*array64(b, i), extent_of(c, block_arrays[i].columns),
				      array32(out, i), err));
	}
	return LENS_OK;
}

void lens_block_release(struct lens_block *b)
{
	size_t i;

	for (i = 0; i < N_ARRAYS; i++)
		lens_free(*array32(b, i));
}
