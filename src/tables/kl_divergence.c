/*
 * tables/kl_divergence.c: how far a run's distribution is from another run's. In: its
 * logits at the read position, and those of the other run, which were kept when that one
 * was read; out: KL(other || this) = sum p*(log p - log q), p the other's.
 */
#include "tables/tables_private.h"

#include <math.h>
#include <string.h>

static void read_divergence(struct lens_table_view *v, struct lens_logits *l)
{
	struct lens_logits other = { .d_vocab = l->d_vocab };

	if (v->in->keep[l->prompt])
		memcpy(v->in->reference[l->prompt], l->logit, l->d_vocab * sizeof(*l->logit));
	other.logit = v->in->reference[l->prompt];
	other.max = lens_vec()->max_finite(l->d_vocab, other.logit);
	other.finite = !isnan(other.max);
	*(float *)lens_table_row(v, l->prompt) = (float)lens_divergence(&other, l);
}

static const struct lens_table_ops divergence = { .read = read_divergence };

const struct lens_table_type lens_table_kl_divergence = {
	.dtype = LENS_F32,
	.long_name = "KL divergence of a run's distribution from another run's",
	.units = "nats",
	.logits = LENS_AT_READ_POS,
	.ops = &divergence,
};
