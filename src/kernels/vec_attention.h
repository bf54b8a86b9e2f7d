/*
 * kernels/vec_attention.h: attention for one head of one prompt: scores, pattern, and
 * the values mixed by it. Part of vec_impl.h.
 */
static void transpose_keys(size_t n_pos, size_t d_head, const float *k, size_t ld, float *kt,
			   size_t ldk)
{
	size_t d, j;

	for (d = 0; d < d_head; d++) {
		for (j = 0; j < n_pos; j++)
			kt[d * ldk + j] = k[j * ld + d];
		for (; j < ldk; j++)
			kt[d * ldk + j] = 0;
	}
}

#define QB 4       /* queries at a time */
#define D_BLOCK 16 /* products summed before they are added to the total, to round less */

/* The scores of queries q[0..QB) with `vectors`·VL keys; vectors is a constant. */
static inline __attribute__((always_inline)) void score_block(
	const struct lens_attention_args *a, const float *const *q, const float *kt,
	const int vectors, vf out[QB][2])
{
	size_t d0, d;
	int i, c;

	for (i = 0; i < QB; i++) {
		for (c = 0; c < vectors; c++)
			out[i][c] = (vf){ 0 };
	}
	for (d0 = 0; d0 < a->d_head; d0 += D_BLOCK) {
		size_t end = lens_min(d0 + D_BLOCK, a->d_head);
		vf part[QB][2] = { { { 0 } } };

		for (d = d0; d < end; d++) {
			vf keys[2];

			for (c = 0; c < vectors; c++)
				keys[c] = load(kt + d * a->ldk + c * VL);
			for (i = 0; i < QB; i++) {
				for (c = 0; c < vectors; c++)
					part[i][c] += q[i][d] * keys[c];
			}
		}
		for (i = 0; i < QB; i++) {
			for (c = 0; c < vectors; c++)
				out[i][c] += part[i][c];
		}
	}
}

/* key − query, of VL keys from one on */
static inline vf distance(size_t key, size_t query)
{
	vf d = { 0 };
	int i;

	for (i = 0; i < VL; i++)
		d[i] = (float)((long)key + i - (long)query);
	return d;
}

/* What is stored of a product: divided, with ALiBi's bias, behind the soft cap. */
static inline vf score_of(const struct lens_attention_args *a, vf product, size_t key,
			  size_t query)
{
	vf x = product / a->scale;

	if (a->slope > 0)
		x += a->slope * distance(key, query);
	return a->cap > 0 ? soft_cap_of(x, a->cap) : x;
}

/* Of n queries, which are rows i0 … of the scores, with keys j …. */
static inline __attribute__((always_inline)) void put_scores(
	const struct lens_attention_args *a, const float *const *q, size_t i0, size_t n,
	size_t j, const int vectors)
{
	vf s[QB][2];
	size_t i;
	int c;

	score_block(a, q, a->kt + j, vectors, s);
	for (i = 0; i < n; i++) {
		for (c = 0; c < vectors; c++)
			store(a->scores + (i0 + i) * a->ldk + j + c * VL,
			      score_of(a, s[i][c], j + (size_t)c * VL, a->q0 + i0 + i));
	}
}

/* The first key that a query sees. */
static size_t first_key(const struct lens_attention_args *a, size_t query)
{
	return a->window && query + 1 > a->window ? query + 1 - a->window : 0;
}

static void mask_row(const struct lens_attention_args *a, size_t pos, float *row)
{
	size_t j, first = first_key(a, pos);

	for (j = 0; j < first; j++)
		row[j] = -INFINITY;
	for (j = pos + 1; j < a->ldk; j++)
		row[j] = -INFINITY;
}

static void attention_scores(const struct lens_attention_args *a)
{
	size_t i0, i, j;

	for (i0 = 0; i0 < a->nq; i0 += QB) {
		size_t n = lens_min(a->nq - i0, QB), last = a->q0 + i0 + n - 1;
		const float *q[QB];

		for (i = 0; i < QB; i++)
			q[i] = a->q + (a->q0 + i0 + (i < n ? i : 0)) * a->ld;
		j = first_key(a, a->q0 + i0) / VL * VL;
		for (; j + VL <= last; j += 2 * VL)
			put_scores(a, q, i0, n, j, 2);
		if (j <= last)
			put_scores(a, q, i0, n, j, 1);
		for (i = 0; i < n; i++)
			mask_row(a, a->q0 + i0 + i, a->scores + (i0 + i) * a->ldk);
	}
}

/* NaN aside; n is a multiple of VL. */
static float row_max(size_t n, const float *x)
{
	vf m = -INFINITY - (vf){ 0 };
	size_t i;

	for (i = 0; i < n; i += VL)
		m = larger(load(x + i), m);
	return largest(m);
}

/* Rows are ldk wide, a multiple of VL; keys after the query are −inf. */
static void attention_softmax(const struct lens_attention_args *a)
{
	size_t i, j;

	for (i = 0; i < a->nq; i++) {
		float *row = a->scores + i * a->ldk;
		size_t n = (a->q0 + i + VL) / VL * VL;
		float max = row_max(n, row), inverse;
		vd sum = { 0 };

		for (j = 0; j < n; j += VL) {
			vf e = vexp(load(row + j) - max);

			store(row + j, e);
			sum += low(e) + high(e);
		}
		inverse = (float)(1.0 / sum_d(sum));
		for (j = 0; j < n; j += VL)
			store(row + j, load(row + j) * inverse);
		memset(row + n, 0, (a->ldk - n) * sizeof(*row));
	}
}

#define KEY_BLOCK 32
/* Vectors of columns at a time: as many sums as hide the time that each addition takes. */
#define COLUMNS (VL == 16 ? 4 : 2)

/* What queries i0 … of a block see of the keys: from < to of them see key k. */
struct seen {
	size_t from, to;
};

/*
 * Keys after the first query, or before the last query's window, are not seen by all:
 * 0·∞ must not reach the queries that do not see them.
 */
static inline struct seen queries_of(const struct lens_attention_args *a, size_t base, size_t k)
{
	struct seen s = { k > base ? k - base : 0, QB };

	if (a->window && k + a->window < base + QB)
		s.to = k + a->window > base ? k + a->window - base : 0;
	return s;
}

/*
 * z of up to QB queries, in `columns` vectors from `column` on; n floats of the last are
 * there. columns is a constant where this is called, so that the sums stay in registers.
 */
static inline __attribute__((always_inline)) void mix_columns(
	const struct lens_attention_args *a, size_t i0, size_t queries, size_t column,
	const int columns, size_t n)
{
	size_t k0, k, base = a->q0 + i0, last = base + queries - 1;
	const float *p[QB];
	vf total[QB][COLUMNS] = { { { 0 } } };
	int i, c;

	for (i = 0; i < QB; i++)
		p[i] = a->scores + (i0 + ((size_t)i < queries ? (size_t)i : 0)) * a->ldk;
	for (k0 = first_key(a, base) / KEY_BLOCK * KEY_BLOCK; k0 <= last; k0 += KEY_BLOCK) {
		size_t end = lens_min(k0 + KEY_BLOCK, last + 1);
		vf part[QB][COLUMNS] = { { { 0 } } };

		for (k = k0; k < end; k++) {
			const float *v = a->v + k * a->ld + column;
			struct seen s = queries_of(a, base, k);
			bool by_all = s.from == 0 && s.to == QB;
			vf values[COLUMNS];

			for (c = 0; c < columns; c++)
				values[c] = c + 1 < columns || n == VL
						    ? load(v + c * VL)
						    : load_part(v + c * VL, n, 0);
			for (i = 0; i < QB; i++) {
				if (!by_all && ((size_t)i < s.from || (size_t)i >= s.to))
					continue;
				for (c = 0; c < columns; c++)
					part[i][c] += p[i][k] * values[c];
			}
		}
		for (i = 0; i < QB; i++) {
			for (c = 0; c < columns; c++)
				total[i][c] += part[i][c];
		}
	}
	for (i = 0; (size_t)i < queries; i++) {
		float *z = a->z + (a->q0 + i0 + (size_t)i) * a->ldz + column;

		for (c = 0; c < columns; c++)
			store_part(z + c * VL, total[i][c], c + 1 < columns ? VL : n);
	}
}

static void attention_mix(const struct lens_attention_args *a)
{
	size_t i0, c;

	for (i0 = 0; i0 < a->nq; i0 += QB) {
		size_t queries = lens_min(a->nq - i0, QB);

		for (c = 0; c + COLUMNS * VL <= a->d_head; c += COLUMNS * VL)
			mix_columns(a, i0, queries, c, COLUMNS, VL);
		for (; c < a->d_head; c += VL)
			mix_columns(a, i0, queries, c, 1, lens_min(a->d_head - c, VL));
	}
}
