/*
 * tokenizer/replace.c: the replacements of normalisers and decoders. In: a text; out:
 * the same with each match replaced.
 */
#include "tokenizer/replace_private.h"

enum lens_status lens_replace_run(const struct lens_replace *r, struct lens_regex_match *m,
				  struct lens_text text, size_t most, struct lens_buf *out,
				  struct lens_error *err)
{
	struct lens_hit hit;
	size_t at = 0;

	while (at < text.len) {
		LENS_TRY(lens_regex_next(r->re, m, text, at, &hit, err));
		if (!hit.found)
			break;
		LENS_TRY(lens_buf_append(out, text.s + at, hit.start - at, err));
		LENS_TRY(lens_buf_append(out, r->text, r->len, err));
		if (out->len > most)
			return lens_error_set(err, LENS_ERR_INVALID,
					      "the normalised text is longer than %zu bytes",
					      most);
		at = hit.end;
	}
	return lens_buf_append(out, text.s + at, text.len - at, err);
}

void lens_replace_release(struct lens_replace *r)
{
	lens_regex_destroy(r->re);
	lens_free(r->text);
	*r = (struct lens_replace){ NULL, NULL, 0 };
}
