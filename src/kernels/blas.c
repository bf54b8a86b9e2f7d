/*
 * kernels/blas.c: opens OpenBLAS with kernels of our choice.
 *
 * OpenBLAS picks its kernels when it is loaded, and knows no processor newer than
 * itself. So it is not linked: the core is set in the environment, the library is
 * opened with dlopen, and the core that it chose is checked.
 */
#include "kernels/kernels_private.h"

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <strings.h>

lens_sgemm_fn lens_sgemm;

static void *library; /* once open */
static bool is_open;
static enum lens_cpu_level open_level;
static char description[160];

enum lens_cpu_level lens_open_level(void)
{
	return open_level;
}

const char *lens_blas_description(void)
{
	return description;
}

/* dlsym returns an object pointer, which POSIX lets us use as a function pointer. */
static void *symbol(void *lib, const char *name, struct lens_error *err)
{
	void *p = dlsym(lib, name);

	if (!p)
		lens_error_set(err, LENS_ERR_UNSUPPORTED, "OpenBLAS has no %s", name);
	return p;
}

enum lens_status lens_blas_symbol(const char *name, void **out, struct lens_error *err)
{
	*out = NULL;
	if (!library)
		return lens_error_set(err, LENS_ERR_INTERNAL, "%s before OpenBLAS is open",
				      name);
	*out = symbol(library, name, err);
	return *out ? LENS_OK : LENS_ERR_UNSUPPORTED;
}

static enum lens_status check_core(void *lib, const char *core, struct lens_error *err)
{
	char *(*corename)(void);
	char *(*config)(void);
	void (*set_threads)(int);
	char version[32] = "?";

	*(void **)&corename = symbol(lib, "openblas_get_corename", err);
	*(void **)&config = symbol(lib, "openblas_get_config", err);
	*(void **)&set_threads = symbol(lib, "openblas_set_num_threads", err);
	*(void **)&lens_sgemm = symbol(lib, "sgemm_", err);
	if (!corename || !config || !set_threads || !lens_sgemm)
		return LENS_ERR_UNSUPPORTED;
	set_threads(1); /* two threads change bits */
	if (strcasecmp(corename(), core) != 0)
		return lens_error_set(
			err, LENS_ERR_UNSUPPORTED,
			"OpenBLAS uses its %s kernels although %s was asked for; is "
			"it a build with DYNAMIC_ARCH?",
			corename(), core);
	sscanf(config(), "OpenBLAS %31s", version);
	snprintf(description, sizeof(description), "OpenBLAS %s %s", version, corename());
	return LENS_OK;
}

enum lens_status lens_kernels_open(enum lens_cpu_level level, struct lens_error *err)
{
	const char *core = level == LENS_LEVEL_AVX512 ? "SKYLAKEX" : "HASWELL";
	enum lens_cpu_level best;
	void *lib;

	if (is_open && level == open_level)
		return LENS_OK;
	if (is_open)
		return lens_error_set(err, LENS_ERR_INVALID,
				      "kernels for %s are open already in this process",
				      lens_cpu_level_name(open_level));
	LENS_TRY(lens_cpu_detect(&best, err));
	if (level > best)
		return lens_error_set(err, LENS_ERR_UNSUPPORTED,
				      "this processor cannot run %s; the best it can is %s",
				      lens_cpu_level_name(level), lens_cpu_level_name(best));
	if (setenv("OPENBLAS_CORETYPE", core, 1) || setenv("OPENBLAS_NUM_THREADS", "1", 1))
		return lens_error_nomem(err, 1, 1);
	lib = dlopen("libopenblas.so.0", RTLD_NOW | RTLD_LOCAL);
	if (!lib)
		return lens_error_set(err, LENS_ERR_UNSUPPORTED, "cannot open OpenBLAS: %s",
				      dlerror());
	LENS_TRY(check_core(lib, core, err));
	lens_vec_select(level);
	library = lib;
	open_level = level;
	is_open = true;
	return LENS_OK;
}
