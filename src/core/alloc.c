/*
 * core/alloc.c: all of the program's memory comes from here, so that a test can make
 * the k-th allocation fail.
 */
#include "h5lens/core.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

static atomic_long fail_countdown;

void lens_alloc_fail_at(unsigned long k)
{
	atomic_store(&fail_countdown, (long)k);
}

static bool must_fail(void)
{
	if (atomic_load_explicit(&fail_countdown, memory_order_relaxed) <= 0)
		return false;
	return atomic_fetch_sub(&fail_countdown, 1) == 1;
}

void *lens_calloc(size_t n, size_t size)
{
	size_t bytes;

	if (!lens_size_mul(n, size, &bytes) || must_fail())
		return NULL;
	return calloc(1, bytes ? bytes : 1);
}

void *lens_realloc(void *p, size_t n, size_t size)
{
	size_t bytes;

	if (!lens_size_mul(n, size, &bytes) || must_fail())
		return NULL;
	return realloc(p, bytes ? bytes : 1);
}

static void *alloc_on(size_t boundary, size_t bytes)
{
	void *p;

	if (must_fail() || posix_memalign(&p, boundary, bytes ? bytes : 1))
		return NULL;
	return p;
}

void *lens_alloc_aligned(size_t n, size_t size)
{
	size_t bytes;

	return lens_size_mul(n, size, &bytes) ? alloc_on(64, bytes) : NULL;
}

void *lens_alloc_pages(size_t bytes)
{
	return alloc_on(LENS_PAGE, bytes);
}

void lens_free(void *p)
{
	free(p);
}

char *lens_strdup(const char *s)
{
	char *copy;
	size_t n;

	if (!s)
		return NULL;
	n = strlen(s) + 1;
	copy = lens_calloc(n, 1);
	if (copy)
		memcpy(copy, s, n);
	return copy;
}

enum lens_status lens_error_nomem(struct lens_error *err, size_t n, size_t size)
{
	return lens_error_set(err, LENS_ERR_NOMEM, "out of memory: %zu × %zu bytes asked for",
			      n, size);
}

void *lens_grow(void *list, size_t n, size_t *cap, size_t size, struct lens_error *err)
{
	size_t more = *cap ? *cap * 2 : 16;

	if (n < *cap)
		return list;
	list = lens_realloc(list, more, size);
	if (list)
		*cap = more;
	else
		lens_error_nomem(err, more, size);
	return list;
}
