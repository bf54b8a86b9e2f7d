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

/* The scores of queries q[0..QB) with VL keys. */
static inline void score_block(const struct lens_attention_args *a, const float *const *q,
			       const float *kt, vf *out)
{
	size_t d0, d;
	int i;

	for (i = 0; i < QB; i++)
		out[i] = (vf){ 0 };
	for (d0 = 0; d0 < a->d_head; d0 += D_BLOCK) {
		size_t end = lens_min(d0 + D_BLOCK, a->d_head);
		vf part[QB] = { { 0 } };

		for (d = d0; d < end; d++) {
			vf keys = load(kt + d * a->ldk);

			for (i = 0; i < QB; i++)
				part[i] += q[i][d] * keys;
		}
		for (i = 0; i < QB; i++)
			out[i] += part[i];
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

/* key − query, of VL keys from one on */
static inline vf distance(size_t key, size_t query)
{
	vf d;
	int i;

	for (i = 0; i < VL; i++)
		d[i] = (float)((long)key + i - (long)query);
	return d;
}

static void attention_scores(const struct lens_attention_args *a)
{
	size_t i0, i, j;

	for (i0 = 0; i0 < a->nq; i0 += QB) {
		size_t n = lens_min(a->nq - i0, QB), last = a->q0 + i0 + n - 1;
		const float *q[QB];
		vf s[QB];

		for (i = 0; i < QB; i++)
			q[i] = a->q + (a->q0 + i0 + (i < n ? i : 0)) * a->ld;
		for (j = first_key(a, a->q0 + i0) / VL * VL; j <= last; j += VL) {
			score_block(a, q, a->kt + j, s);
			for (i = 0; i < n; i++) {
				vf x = s[i] / a->scale;

				if (a->slope > 0)
					x += a->slope * distance(j, a->q0 + i0 + i);
				store(a->scores + (i0 + i) * a->ldk + j,
				      a->cap > 0 ? soft_cap_of(x, a->cap) : x);
			}
		}
		for (i = 0; i < n; i++)
			mask_row(a, a->q0 + i0 + i, a->scores + (i0 + i) * a->ldk);
	}
}

static float row_max(size_t n, const float *x)
{
	vf m = -INFINITY - (vf){ 0 };
	float best = -INFINITY;
	size_t i;

	for (i = 0; i < n; i += VL) {
		vf v = load(x + i);

		m = pick(v > m, v, m);
	}
	for (i = 0; i < VL; i++)
		best = m[i] > best ? m[i] : best;
	return best;
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

static inline vf values_of(const struct lens_attention_args *a, size_t key, size_t column,
			   size_t n)
{
	const float *v = a->v + key * a->ld + column;

	return n == VL ? load(v) : load_part(v, n, 0);
}

/* n <= VL columns of z for up to QB queries. */
static void mix_columns(const struct lens_attention_args *a, size_t i0, size_t queries,
			size_t column, size_t n)
{
	size_t k0, k, i, base = a->q0 + i0, last = base + queries - 1;
	const float *p[QB];
	vf total[QB] = { { 0 } };

	for (i = 0; i < QB; i++)
		p[i] = a->scores + (i0 + (i < queries ? i : 0)) * a->ldk;
	for (k0 = first_key(a, base) / KEY_BLOCK * KEY_BLOCK; k0 <= last; k0 += KEY_BLOCK) {
		size_t end = lens_min(k0 + KEY_BLOCK, last + 1);
		vf part[QB] = { { 0 } };

		/*
		 * Keys after the first query, or before the last query's window, are
		 * not seen by all: 0·∞ must not reach the queries that do not see them.
		 */
		for (k = k0; k < end; k++) {
			vf values = values_of(a, k, column, n);
			size_t from = k > base ? k - base : 0, to = QB;

			if (a->window && k + a->window < base + QB)
				to = k + a->window > base ? k + a->window - base : 0;
			if (from == 0 && to == QB) {
				for (i = 0; i < QB; i++)
					part[i] += p[i][k] * values;
				continue;
			}
			for (i = from; i < to; i++)
				part[i] += p[i][k] * values;
		}
		for (i = 0; i < QB; i++)
			total[i] += part[i];
	}
	for (i = 0; i < queries; i++)
		store_part(a->z + (a->q0 + i0 + i) * a->ldz + column, total[i], n);
}

static void attention_mix(const struct lens_attention_args *a)
{
	size_t i0, c;

	for (i0 = 0; i0 < a->nq; i0 += QB) {
		size_t queries = lens_min(a->nq - i0, QB);

		for (c = 0; c < a->d_head; c += VL)
			mix_columns(a, i0, queries, c, lens_min(a->d_head - c, VL));
	}
}
