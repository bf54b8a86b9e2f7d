/*
 * cli/tokens.c: `h5lens tokens DIR TEXT`: ids and pieces, one per line.
 */
#include "cli/cli_private.h"

static enum lens_status print_pieces(const struct lens_tokenizer *tok,
				     const struct lens_ids *ids, struct lens_error *err)
{
	struct lens_buf b = LENS_BUF_INIT;
	enum lens_status st = LENS_OK;
	size_t i;

	for (i = 0; st == LENS_OK && i < ids->n; i++) {
		b.len = 0;
		st = lens_tokenizer_decode_continuation(tok, &ids->v[i], 1, &b, err);
		if (st == LENS_OK)
			printf("%6d  |%s|\n", ids->v[i], b.data ? visible(b.data, b.len) : "");
	}
	lens_buf_release(&b);
	return st;
}

static void print_ids(const struct lens_ids *ids)
{
	size_t i;

	for (i = 0; i < ids->n; i++)
		printf("%s%d", i ? " " : "", ids->v[i]);
	printf("\n");
}

struct tokens_args {
	const char *dir, *text, *bos_token;
	bool bos, ids_only;
};

static int print_tokens(const struct tokens_args *a)
{
	struct lens_error err = LENS_ERROR_INIT;
	struct lens_ids ids = LENS_IDS_INIT;
	struct lens_tokenizer *tok = NULL;
	enum lens_status st = lens_tokenizer_open(a->dir, &tok, &err);

	if (st == LENS_OK && a->bos)
		st = push_bos(tok, a->bos_token, &ids, &err);
	if (st == LENS_OK)
		st = lens_tokenizer_encode(tok, a->text, strlen(a->text), &ids, &err);
	if (st == LENS_OK && a->ids_only)
		print_ids(&ids);
	else if (st == LENS_OK)
		st = print_pieces(tok, &ids, &err);
	lens_ids_release(&ids);
	lens_tokenizer_destroy(tok);
	return st == LENS_OK ? EXIT_DONE : fail(&err);
}

int cmd_tokens(int argc, char **argv)
{
	struct tokens_args a = { .bos_token = "auto" };
	const struct option_row options[] = {
		{ "--bos", &a.bos, NULL, NULL, "prepend the BOS token, as a run does" },
		{ "--bos-token", NULL, &a.bos_token, "WHICH",
		  "… namely this one, given as for data.bos" },
		{ "--ids", &a.ids_only, NULL, NULL, "the ids alone, on one line" },
	};
	const struct usage u = {
		.synopsis = "h5lens tokens DIR TEXT [--bos] [--ids] [--bos-token WHICH]",
		.description = "The tokens of a text: ids and the text each stands for. A "
			       "token that is\n"
			       "part of a character shows as U+FFFD.",
		.option = options,
		.n_options = 3,
		.least = 2,
		.most = 2,
	};
	const char *plain[2];
	int n, code = parse_args(&u, argc, argv, plain, &n);

	if (code < 0)
		code = check_kind(&u, plain[0], true);
	if (code >= 0)
		return code;
	a.dir = plain[0];
	a.text = plain[1];
	return print_tokens(&a);
}
