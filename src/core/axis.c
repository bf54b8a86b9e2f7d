/*
 * core/axis.c: element types, and the axes of axis.def: names, extents, labels.
 */
#include "h5lens/axis.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "h5lens/core.h"

size_t lens_dtype_size(enum lens_dtype t)
{
	static const size_t size[] = {
		[LENS_F16] = 2, [LENS_F32] = 4, [LENS_F64] = 8, [LENS_I32] = 4,
		[LENS_I64] = 8, [LENS_U8] = 1,  [LENS_STR] = 0,
	};

	return (unsigned)t <= LENS_STR ? size[t] : 0;
}

void lens_fill(enum lens_dtype t, void *buf, size_t n)
{
	static const uint16_t nan16 = 0x7e00;
	static const uint32_t nan32 = 0x7fc00000;
	static const uint64_t nan64 = 0x7ff8000000000000;
	const void *value = t == LENS_F16   ? (const void *)&nan16
			    : t == LENS_F32 ? (const void *)&nan32
					    : (const void *)&nan64;
	size_t size = lens_dtype_size(t), total = n * size, done = size;

	if (!total)
		return;
	if (t == LENS_I32 || t == LENS_I64 || t == LENS_U8) {
		memset(buf, t == LENS_U8 ? 0 : 0xff, total);
		return;
	}
	memcpy(buf, value, size);
	for (; done < total; done *= 2)
		memcpy((char *)buf + done, buf, lens_min(done, total - done));
}

/* --- axes ---------------------------------------------------------------------- */

/* The stream before each layer, perhaps in its middle, and after the last one. */
static const char *lens_layer_label(const struct lens_sizes *s, size_t i, char *text)
{
	size_t each = s->lens_mid ? 2 : 1;

	if (i / each < s->n_layers)
		snprintf(text, LENS_LABEL, "%zu_%s", i / each, i % each ? "mid" : "pre");
	else
		snprintf(text, LENS_LABEL, "final_post");
	return text;
}

/* As TransformerLens's decompose_resid calls them, and what is not in the stream. */
static const char *lens_component_label(const struct lens_sizes *s, size_t i, char *text)
{
	size_t first = 1 + s->n_pos_embeds; /* of the layers' */
	size_t each = s->attn_only ? 1 : 2;

	if (i < first)
		return i ? "pos_embed" : "embed";
	if (i - first == each * s->n_layers)
		return "unembed_bias";
	snprintf(text, LENS_LABEL, "%zu_%s_out", (i - first) / each,
		 (i - first) % each ? "mlp" : "attn");
	return text;
}

/* The shortest text that reads back to the same number. */
static const char *lens_scale_label(const struct lens_sizes *s, size_t i, char *text)
{
	int digits = 1;

	do {
		snprintf(text, LENS_LABEL, "%.*g", digits, s->scale[i]);
	} while (strtod(text, NULL) != s->scale[i] && digits++ < 17);
	return text;
}

#define LABELS(...) ((const char *const[]){ __VA_ARGS__ })

const char *lens_axis_name(enum lens_axis axis)
{
	static const char *const names[] = {
#define LENS_AXIS(id, name, ...) name,
#define LENS_AXIS_OF LENS_AXIS
#define LENS_AXIS_LIST LENS_AXIS
#include "h5lens/axis.def"
	};

	return names[axis];
}

size_t lens_axis_extent(enum lens_axis axis, const struct lens_sizes *s)
{
	switch (axis) {
#define LENS_AXIS(id, name, extent)                                                            \
	case LENS_AXIS_##id:                                                                   \
		return extent;
#define LENS_AXIS_OF(id, name, extent, label) LENS_AXIS(id, name, extent)
#define LENS_AXIS_LIST(id, name, ...)                                                          \
	case LENS_AXIS_##id:                                                                   \
		return sizeof(LABELS(__VA_ARGS__)) / sizeof(char *);
#include "h5lens/axis.def"
	default:
		return 0;
	}
}

const char *lens_axis_label(enum lens_axis axis, const struct lens_sizes *s, size_t i,
			    char text[LENS_LABEL])
{
	switch (axis) {
#define LENS_AXIS(id, ...)                                                                     \
	case LENS_AXIS_##id:                                                                   \
		return NULL;
#define LENS_AXIS_OF(id, name, extent, label)                                                  \
	case LENS_AXIS_##id:                                                                   \
		return label;
#define LENS_AXIS_LIST(id, name, ...)                                                          \
	case LENS_AXIS_##id:                                                                   \
		return LABELS(__VA_ARGS__)[i];
#include "h5lens/axis.def"
	default:
		return NULL;
	}
}
