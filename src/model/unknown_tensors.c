/*
 * model/unknown_tensors.c: the tensors of a model whose model_type we do not have. In: its
 * folder, and the family that is nearest; out: the names that only one of them has, layers
 * and experts folded into one.
 */
#include "model/config_private.h"

/* "model.layers.3.mlp.up.weight" → "model.layers.*.mlp.up.weight" */
static void fold_numbers(const char *name, char *out, size_t size)
{
	size_t at = 0;

	while (*name && at + 1 < size) {
		bool number = *name >= '0' && *name <= '9' && at && out[at - 1] == '.';

		out[at++] = number ? '*' : *name++;
		while (number && *name >= '0' && *name <= '9')
			name++;
	}
	out[at] = '\0';
}

/* The names, folded: an object of true. */
static json_t *kinds_of(const struct lens_tensors *t, bool (*ignore)(const char *name))
{
	json_t *kinds = json_object();
	char folded[256];
	size_t i;

	for (i = 0; kinds && i < t->n; i++) {
		if (ignore && ignore(t->tensor[i].name))
			continue;
		fold_numbers(t->tensor[i].name, folded, sizeof(folded));
		json_object_set_new(kinds, folded, json_true());
	}
	return kinds;
}

/* Those of a that b has not, one a line. */
static enum lens_status tell_difference(json_t *a, const json_t *b, struct lens_buf *out,
					struct lens_error *err)
{
	const char *kind;
	size_t n = 0;
	json_t *v;

	json_object_foreach (a, kind, v) {
		if (json_object_get(b, kind) || n++ >= LENS_MOST_TOLD)
			continue;
		LENS_TRY(lens_buf_printf(out, err, "%s\n", kind));
	}
	return n <= LENS_MOST_TOLD
		       ? LENS_OK
		       : lens_buf_printf(out, err, "… and %zu more\n", n - LENS_MOST_TOLD);
}

static enum lens_status compare_tensors(const struct lens_family *family,
					const struct lens_tensors *theirs,
					const struct lens_tensors *ours,
					struct lens_unknown_model *u, struct lens_error *err)
{
	json_t *has = kinds_of(theirs, family->ignore), *wants = kinds_of(ours, NULL);
	enum lens_status st = has && wants ? LENS_OK : lens_error_nomem(err, 1, 1);

	if (st == LENS_OK)
		st = tell_difference(has, wants, &u->added, err);
	if (st == LENS_OK)
		st = tell_difference(wants, has, &u->lacking, err);
	json_decref(has);
	json_decref(wants);
	return st;
}

/* As the nearest family reads this config.json; where it refuses to, that is told instead. */
enum lens_status lens_unknown_tensors(const char *dir, const struct lens_config_file *f,
				      const struct lens_family *family,
				      struct lens_unknown_model *u, struct lens_error *err)
{
	struct lens_tensors theirs = { .n = 0 }, ours = { .n = 0 };
	struct lens_config *c = lens_calloc(1, sizeof(*c));
	struct lens_error refusal = LENS_ERROR_INIT;
	struct lens_layout layout;
	enum lens_status st = LENS_OK;

	if (!c)
		return lens_error_nomem(err, 1, sizeof(*c));
	if (lens_config_as(f, family, c, &layout, &refusal) != LENS_OK)
		st = lens_buf_printf(&u->refusal, err, "%s", refusal.text);
	else if (lens_tensors_there(dir, family->any_file_name)) {
		u->weights = true;
		st = lens_tensors_open(dir, family->any_file_name, &theirs, NULL, err);
		if (st == LENS_OK)
			st = lens_list_tensors(family, c, &layout, &ours, err);
		if (st == LENS_OK)
			st = compare_tensors(family, &theirs, &ours, u, err);
	}
	lens_tensors_release(&theirs);
	lens_tensors_release(&ours);
	lens_free(c);
	return st;
}
