/*
 * cli/info_file.c: what `h5lens info` prints of a file's data sets. In: the walk over them;
 * out: a line each, but one for a run of layers whose data sets are alike, in the order in
 * which numbers count.
 */
#include "cli/info_private.h"

#define PATTERN 640

/* A path's part before and after its layer; layer −1: it has none. */
struct split {
	int before;
	long layer;
	const char *after;
};

static struct split split_path(const char *path)
{
	const char *at = strstr(path, "/blocks."), *end;
	struct split s = { .before = (int)strlen(path), .layer = -1, .after = "" };
	char *rest;

	if (!at || at[8] < '0' || at[8] > '9')
		return s;
	s.layer = strtol(at + 8, &rest, 10);
	end = rest;
	s.before = (int)(at + 8 - path);
	s.after = end;
	return s;
}

static bool same_family(const char *a, const char *b, long *step)
{
	struct split x = split_path(a), y = split_path(b);

	*step = y.layer - x.layer;
	return x.layer >= 0 && y.layer >= 0 && x.before == y.before &&
	       !strncmp(a, b, (size_t)x.before) && !strcmp(x.after, y.after);
}

/* Is b what a is, of a later layer? */
static bool alike(const struct info_dataset *a, const struct info_dataset *b, long step)
{
	long there, own;

	if (!same_family(a->path, b->path, &own) || own != step || !a->link_to != !b->link_to)
		return false;
	if (a->link_to)
		return same_family(a->link_to, b->link_to, &there) && there == step;
	return !strcmp(a->type, b->type) && a->is_virtual == b->is_virtual;
}

enum lens_status keep_dataset(struct info_list *l, const struct lens_dataset_info *d,
			      struct lens_error *err)
{
	struct info_dataset *v = lens_grow(l->v, l->n, &l->cap, sizeof(*v), err);
	struct lens_buf type = LENS_BUF_INIT;
	int i;

	if (!v)
		return LENS_ERR_NOMEM;
	l->v = v;
	v += l->n;
	*v = (struct info_dataset){ .bytes = d->stored_bytes, .is_virtual = d->is_virtual };
	LENS_TRY(lens_buf_printf(&type, err, "%s [", d->dtype));
	for (i = 0; i < d->rank; i++)
		LENS_TRY(lens_buf_printf(&type, err, "%s%.40s %zu", i ? ", " : "",
					 d->dim[i] ? d->dim[i] : "?", d->extent[i]));
	LENS_TRY(lens_buf_printf(&type, err, "]"));
	v->type = type.data;
	v->path = lens_strdup(d->path);
	v->link_to = lens_strdup(d->link_to);
	if (!v->path || (d->link_to && !v->link_to))
		return lens_error_nomem(err, strlen(d->path) + 1, 1);
	l->n++;
	return LENS_OK;
}

void release_datasets(struct info_list *l)
{
	while (l->n) {
		l->n--;
		lens_free(l->v[l->n].path);
		lens_free(l->v[l->n].type);
		lens_free(l->v[l->n].link_to);
	}
	lens_free(l->v);
	l->v = NULL;
}

static int by_number(const void *a, const void *b)
{
	return strverscmp(((const struct info_dataset *)a)->path,
			  ((const struct info_dataset *)b)->path);
}

/* Everything that has e's target for its path has e's from now on. */
static void relink(struct info_list *l, struct info_dataset *e)
{
	char *old = e->link_to;
	size_t i;

	e->link_to = NULL;
	for (i = 0; i < l->n; i++) {
		if (!l->v[i].link_to || strcmp(l->v[i].link_to, old) != 0)
			continue;
		lens_free(l->v[i].link_to);
		l->v[i].link_to = lens_strdup(e->path);
	}
	lens_free(old);
}

/*
 * Of the names of one object the first is its path, and the others link to it: the first as
 * numbers count, so that blocks.10.hook_resid_pre is blocks.9.hook_resid_post.
 */
static void choose_names(struct info_list *l)
{
	size_t i, k;

	for (i = 0; i < l->n; i++) {
		struct info_dataset *e = &l->v[i];

		/* What e links to stands behind it: they change places. */
		for (k = i + 1; e->link_to && k < l->n; k++) {
			if (strcmp(l->v[k].path, e->link_to) != 0)
				continue;
			l->v[k].link_to = lens_strdup(e->path);
			e->bytes = l->v[k].bytes;
			e->is_virtual = l->v[k].is_virtual;
			relink(l, e);
			break;
		}
	}
}

/* "/cache/blocks.{0…11}.hook_q" for layers first to last. */
static const char *fold(const char *path, long first, long last, char out[PATTERN])
{
	struct split s = split_path(path);

	if (first == last || s.layer < 0)
		snprintf(out, PATTERN, "%s", path);
	else
		snprintf(out, PATTERN, "%.*s{%ld…%ld}%s", s.before, path, first, last, s.after);
	return out;
}

/* n data sets, e the first of them, bytes altogether. */
static void print_run(const struct info_dataset *e, size_t n, uint64_t bytes)
{
	long first = split_path(e->path).layer, last = first + (long)n - 1, target;
	char name[PATTERN], to[PATTERN], text[32];

	fold(e->path, first, last, name);
	/* … takes three bytes and one column */
	printf("  %-*s ", n > 1 ? 46 : 44, visible(name, strlen(name)));
	if (e->link_to) {
		target = split_path(e->link_to).layer;
		fold(e->link_to, target, target + (long)n - 1, to);
		printf("= %s\n", visible(to, strlen(to)));
		return;
	}
	printf("%s ", visible(e->type, strlen(e->type)));
	if (e->is_virtual)
		printf("in the shards\n");
	else
		printf("%s%s\n", human_bytes((double)bytes, text), n > 1 ? " together" : "");
}

void print_datasets(struct info_list *l)
{
	size_t i, k, n;
	uint64_t bytes;

	qsort(l->v, l->n, sizeof(*l->v), by_number);
	choose_names(l);
	for (i = 0; i < l->n; i++) {
		if (l->v[i].printed)
			continue;
		bytes = l->v[i].bytes;
		for (n = 1, k = i + 1; k < l->n; k++) {
			if (l->v[k].printed || !alike(&l->v[i], &l->v[k], (long)n))
				continue;
			l->v[k].printed = true;
			bytes += l->v[k].bytes;
			n++;
		}
		print_run(&l->v[i], n, bytes);
	}
}
