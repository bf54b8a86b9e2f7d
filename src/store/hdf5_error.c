/*
 * store/hdf5_error.c: sets HDF5 up, and turns its error stack into the text of a struct
 * lens_error.
 */
#include <stdarg.h>
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>

#include "store/store_private.h"

/*
 * We close all files; at exit HDF5 could only stumble over those that it failed to close.
 */
static void setup(void)
{
	H5dont_atexit();
	H5open();
}

/* --- lack of memory --------------------------------------------------------------- */

/* HDF5 reports it in its error stack only, which the next call clears. */
static bool out_of_memory;

static bool is_memory(const H5E_error2_t *e)
{
	return e->maj_num == H5E_RESOURCE &&
	       (e->min_num == H5E_NOSPACE || e->min_num == H5E_CANTALLOC);
}

static herr_t find_memory(unsigned n, const H5E_error2_t *e, void *ctx)
{
	(void)n, (void)ctx;
	out_of_memory = out_of_memory || is_memory(e);
	return 0;
}

/* HDF5 calls this for each of its functions that fails. */
static herr_t see_failure(hid_t stack, void *ctx)
{
	return H5Ewalk2(stack, H5E_WALK_DOWNWARD, find_memory, ctx);
}

void lens_h5_begin(void)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;

	pthread_once(&once, setup);
	out_of_memory = false;
	H5Eset_auto2(H5E_DEFAULT, see_failure, NULL);
}

bool lens_h5_system_failed(struct lens_io *io)
{
	if (out_of_memory)
		lens_io_fail(io, ENOMEM, io->writable ? "write the file" : "read the file");
	return io->err != 0;
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

/* --- the error stack as text -------------------------------------------------------- */

/* The outermost and the innermost reason; those between are internal to HDF5. */
struct stack {
	char outer[160], inner[160];
};

static herr_t collect(unsigned n, const H5E_error2_t *e, void *ctx)
{
	struct stack *s = ctx;

	if (n == 0)
		snprintf(s->outer, sizeof(s->outer), "%s", e->desc ? e->desc : "");
	snprintf(s->inner, sizeof(s->inner), "%s", e->desc ? e->desc : "");
	return 0;
}

enum lens_status lens_h5_fail(struct lens_io *io, struct lens_error *err, const char *fmt, ...)
{
	struct stack stack = { .outer = "" };
	enum lens_status code = io->writable ? LENS_ERR_INTERNAL : LENS_ERR_FORMAT;
	char what[700];
	va_list ap;

	H5Ewalk2(H5E_DEFAULT, H5E_WALK_DOWNWARD, collect, &stack);
	va_start(ap, fmt);
	vsnprintf(what, sizeof(what), fmt, ap);
	va_end(ap);
	if (lens_h5_system_failed(io))
		return lens_error_sys(err, io->err, io->path, io->op);
	if (!strcmp(stack.outer, stack.inner))
		stack.inner[0] = '\0';
	return lens_error_at(err, code, io->path, 0, 0, "cannot %s: HDF5: %s%s%s", what,
			     stack.outer[0] ? stack.outer : "no reason given",
			     stack.inner[0] ? ": " : "", stack.inner);
}
