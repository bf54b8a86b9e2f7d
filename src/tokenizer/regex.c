/*
 * tokenizer/regex.c: PCRE2, with our allocator. In: a pattern in PCRE2's own
 * syntax and valid UTF-8; out: match positions.
 */
#define PCRE2_CODE_UNIT_WIDTH 8
#include "tokenizer/regex_private.h"

#include <pcre2.h>

/* How much heap the interpreter may use for one match. */
#define HEAP_LIMIT_KIB (256 * 1024)

struct lens_regex {
	pcre2_code *code;
	bool jit;
};

struct lens_regex_match {
	pcre2_match_data *data;
	pcre2_match_context *context;
};

static void *pcre_malloc(size_t n, void *unused)
{
	(void)unused;
	return lens_realloc(NULL, n, 1);
}

static void pcre_free(void *p, void *unused)
{
	(void)unused;
	lens_free(p);
}

static enum lens_status pcre_error(struct lens_error *err, int code, const char *what)
{
	PCRE2_UCHAR text[200] = "";

	if (code == PCRE2_ERROR_NOMEMORY || code == PCRE2_ERROR_HEAP_FAILED)
		return lens_error_set(err, LENS_ERR_NOMEM,
				      "out of memory in a regular expression");
	pcre2_get_error_message(code, text, sizeof(text));
	return lens_error_set(err, LENS_ERR_UNSUPPORTED, "%s: %s", what, (const char *)text);
}

static enum lens_status check_not_empty(const struct lens_regex *re, const char *pcre,
					size_t len, struct lens_error *err)
{
	uint32_t empty = 0;

	pcre2_pattern_info(re->code, PCRE2_INFO_MATCHEMPTY, &empty);
	if (!empty)
		return LENS_OK;
	return lens_error_set(err, LENS_ERR_UNSUPPORTED,
			      "the pattern %.*s can match the empty string, which is not "
			      "supported",
			      (int)lens_min(len, 300), pcre);
}

enum lens_status lens_regex_compile(const char *pcre, size_t len, struct lens_regex **out,
				    struct lens_error *err)
{
	pcre2_general_context *general =
		pcre2_general_context_create(pcre_malloc, pcre_free, NULL);
	pcre2_compile_context *context = general ? pcre2_compile_context_create(general) : NULL;
	struct lens_regex *re = lens_calloc(1, sizeof(*re));
	enum lens_status st = LENS_OK;
	int code = 0;
	size_t at = 0;

	*out = NULL;
	if (!context || !re) {
		st = lens_error_nomem(err, 1, sizeof(*re));
		goto done;
	}
	pcre2_set_newline(context, PCRE2_NEWLINE_LF);
	re->code = pcre2_compile((PCRE2_SPTR)pcre, len, PCRE2_UTF | PCRE2_UCP, &code, &at,
				 context);
	if (!re->code) {
		st = pcre_error(err, code, "the pattern does not compile");
		goto done;
	}
	st = check_not_empty(re, pcre, len, err);
	/* Without JIT, the interpreter gives the same matches. */
	re->jit = st == LENS_OK && !pcre2_jit_compile(re->code, PCRE2_JIT_COMPLETE);
done:
	pcre2_compile_context_free(context);
	pcre2_general_context_free(general);
	if (st == LENS_OK)
		*out = re;
	else
		lens_regex_destroy(re);
	return st;
}

void lens_regex_destroy(struct lens_regex *re)
{
	if (!re)
		return;
	pcre2_code_free(re->code);
	lens_free(re);
}

enum lens_status lens_regex_match_create(struct lens_regex_match **out, struct lens_error *err)
{
	pcre2_general_context *general =
		pcre2_general_context_create(pcre_malloc, pcre_free, NULL);
	struct lens_regex_match *m = lens_calloc(1, sizeof(*m));

	*out = NULL;
	if (general && m) {
		m->data = pcre2_match_data_create(1, general);
		m->context = pcre2_match_context_create(general);
	}
	pcre2_general_context_free(general);
	if (!m || !m->data || !m->context) {
		lens_regex_match_destroy(m);
		return lens_error_nomem(err, 1, sizeof(*m));
	}
	pcre2_set_heap_limit(m->context, HEAP_LIMIT_KIB);
	*out = m;
	return LENS_OK;
}

void lens_regex_match_destroy(struct lens_regex_match *m)
{
	if (!m)
		return;
	pcre2_match_data_free(m->data);
	pcre2_match_context_free(m->context);
	lens_free(m);
}

enum lens_status lens_regex_next(const struct lens_regex *re, struct lens_regex_match *m,
				 struct lens_text text, size_t from, struct lens_hit *hit,
				 struct lens_error *err)
{
	const PCRE2_SIZE *ovector = pcre2_get_ovector_pointer(m->data);
	uint32_t options = PCRE2_NO_UTF_CHECK | (re->jit ? 0 : PCRE2_NO_JIT);
	int rc;

	rc = pcre2_match(re->code, (PCRE2_SPTR)text.s, text.len, from, options, m->data,
			 m->context);
	if (rc == PCRE2_ERROR_JIT_STACKLIMIT) /* the interpreter uses the heap instead */
		rc = pcre2_match(re->code, (PCRE2_SPTR)text.s, text.len, from,
				 options | PCRE2_NO_JIT, m->data, m->context);
	hit->found = rc >= 0;
	if (rc == PCRE2_ERROR_NOMATCH)
		return LENS_OK;
	if (rc < 0)
		return pcre_error(err, rc, "the tokenizer's pattern gave up on this text");
	/* Patterns with lookarounds or \K cannot cause this, so PCRE2 would be at fault. */
	if (ovector[0] < from || ovector[1] <= ovector[0] || ovector[1] > text.len)
		return lens_error_set(err, LENS_ERR_INTERNAL, "PCRE2 gave an impossible match");
	hit->start = ovector[0];
	hit->end = ovector[1];
	return LENS_OK;
}
