/*
 * interventions/grids.c: the list of grids, from grids.def.
 */
#include "interventions/interventions_private.h"

/* The axes behind a name, as many as there are. */
#define AXES_1(a)                                                                              \
	1,                                                                                     \
	{                                                                                      \
		LENS_AXIS_##a                                                                  \
	}
#define AXES_2(a, b)                                                                           \
	2,                                                                                     \
	{                                                                                      \
		LENS_AXIS_##a, LENS_AXIS_##b                                                   \
	}
#define AXES_3(a, b, c)                                                                        \
	3,                                                                                     \
	{                                                                                      \
		LENS_AXIS_##a, LENS_AXIS_##b, LENS_AXIS_##c                                    \
	}
#define AXES_4(a, b, c, d)                                                                     \
	4,                                                                                     \
	{                                                                                      \
		LENS_AXIS_##a, LENS_AXIS_##b, LENS_AXIS_##c, LENS_AXIS_##d                     \
	}
#define PICK(a, b, c, d, macro, ...) macro
#define AXES(...) PICK(__VA_ARGS__, AXES_4, AXES_3, AXES_2, AXES_1)(__VA_ARGS__)

const struct lens_grid_info *lens_grid_info(enum lens_grid g)
{
	static const struct lens_grid_info info[] = {
#define LENS_GRID(id, hook, ...) { #id, LENS_HOOK_##hook, AXES(__VA_ARGS__) },
#include "h5lens/grids.def"
	};

	return &info[g];
}
