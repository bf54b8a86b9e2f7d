/*
 * store/hdf5_error.c: HDF5's set-up, and its error stack as text of a struct
 * lens_error.
 */
#include <pthread.h>
#include <stdio.h>
#include <string.h>

#include "store_private.h"

/*
 * All files are closed by us; at exit HDF5 could only stumble over what it
 * failed to close.
 */
static void setup(void)
{
	H5dont_atexit();
	H5open();
}

void lens_h5_begin(void)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;

	pthread_once(&once, setup);
	H5Eset_auto2(H5E_DEFAULT, NULL, NULL);
}

const char *lens_store_hdf5_version(void)
{
	static char text[32];
	unsigned major = 0, minor = 0, release = 0;

	lens_h5_begin();
	H5get_libversion(&major, &minor, &release);
	snprintf(text, sizeof(text), "%u.%u.%u", major, minor, release);
	return text;
}

/* The outermost and the innermost reason; those between are HDF5's own path. */
struct stack {
	char outer[160], inner[160];
	bool memory;
};

static herr_t collect(unsigned n, const H5E_error2_t *e, void *ctx)
{
	struct stack *s = ctx;

	if (n == 0)
		snprintf(s->outer, sizeof(s->outer), "%s", e->desc ? e->desc : "");
	snprintf(s->inner, sizeof(s->inner), "%s", e->desc ? e->desc : "");
	s->memory = e->maj_num == H5E_RESOURCE && e->min_num == H5E_NOSPACE;
	return 0;
}

enum lens_status lens_h5_fail(const struct lens_io *io, struct lens_error *err, const char *fmt,
			      ...)
{
	struct stack stack = { .memory = false };
	enum lens_status code = io->writable ? LENS_ERR_INTERNAL : LENS_ERR_FORMAT;
	char what[700];
	va_list ap;

	H5Ewalk2(H5E_DEFAULT, H5E_WALK_DOWNWARD, collect, &stack);
	va_start(ap, fmt);
	vsnprintf(what, sizeof(what), fmt, ap);
	va_end(ap);
	if (io->err)
		return lens_error_sys(err, io->err, io->path, io->op);
	if (stack.memory && io->writable)
		code = LENS_ERR_NOMEM;
	if (!strcmp(stack.outer, stack.inner))
		stack.inner[0] = '\0';
	return lens_error_at(err, code, io->path, 0, 0, "cannot %s: HDF5: %s%s%s", what,
			     stack.outer[0] ? stack.outer : "no reason given",
			     stack.inner[0] ? ": " : "", stack.inner);
}
