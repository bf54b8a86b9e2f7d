/*
 * tokenizer/replace.c: what normalisers and decoders replace. In: a text; out:
 * the same with another text for each match.
 */
#include "tokenizer/replace.h"

enum lens_status lens_replace_run(const struct lens_replace *r, struct lens_regex_match *m,
				  const char *text, size_t len, size_t most,
				  struct lens_buf *out, struct lens_error *err)
{
	size_t at = 0, start, end;
	bool found;

	while (at < len) {
		LENS_TRY(lens_regex_next(r->re, m, text, len, at, &start, &end, &found, err));
		if (!found)
			break;
		LENS_TRY(lens_buf_append(out, text + at, start - at, err));
		LENS_TRY(lens_buf_append(out, r->text, r->len, err));
		if (out->len > most)
			return lens_error_set(err, LENS_ERR_INVALID,
					      "the normalised text is longer than %zu bytes",
					      most);
		at = end;
	}
	return lens_buf_append(out, text + at, len - at, err);
}

void lens_replace_release(struct lens_replace *r)
{
	lens_regex_destroy(r->re);
	lens_free(r->text);
	*r = (struct lens_replace){ NULL, NULL, 0 };
}
