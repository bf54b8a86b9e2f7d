/* analysis_private.h: what a table sees. */
#ifndef ANALYSIS_PRIVATE_H
#define ANALYSIS_PRIVATE_H

#include "h5lens/analysis.h"

/* The logits of one prompt at its read position (of one lens layer). */
struct lens_logits {
	const float *logit; /* [d_vocab] */
	size_t d_vocab;
	const int32_t *answer; /* [n_answers] */
	size_t n_answers, top_k;
	bool finite;
	float max;      /* if finite */
	double sum_exp; /* Σ exp(logit − max), if finite and of the model itself */
};

/* Writes one prompt's values (of one lens layer) to out. */
typedef void (*lens_table_fn)(const struct lens_logits *l, void *out);

struct lens_table_row {
	struct lens_table table;
	lens_table_fn fill;
};
/* [LENS_TABLES] */
const struct lens_table_row *lens_table_rows(void);

void lens_fill_logit_diff(const struct lens_logits *l, void *out);
void lens_fill_answer_logit(const struct lens_logits *l, void *out);
void lens_fill_answer_prob(const struct lens_logits *l, void *out);
void lens_fill_answer_rank(const struct lens_logits *l, void *out);
void lens_fill_top_tokens(const struct lens_logits *l, void *out);
void lens_fill_top_logits(const struct lens_logits *l, void *out);
void lens_fill_top_probs(const struct lens_logits *l, void *out);
void lens_fill_flags(const struct lens_logits *l, void *out);

#endif
