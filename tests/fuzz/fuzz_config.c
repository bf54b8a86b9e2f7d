/*
 * fuzz/fuzz_config.c: bytes as config.json. One that is accepted has sizes that
 * fit, is written as JSON, and must not make the weights' reader do more than the
 * weights call for. Of one whose model_type is unknown it is told what can be.
 */
#include "fuzz/fuzz.h"

#include "h5lens/model.h"

#include <stdio.h>
#include <string.h>

static void check_sizes(const struct lens_config *c)
{
	fuzz_hold(c->n_layers && c->n_layers <= LENS_MAX_LAYERS, "layers");
	fuzz_hold(c->d_model && c->n_heads && c->d_head, "widths");
	fuzz_hold(c->attn_only ? !c->d_mlp : c->d_mlp, "neurons");
	fuzz_hold(c->d_vocab && c->n_ctx && c->n_kv_heads, "sizes");
	fuzz_hold(c->n_heads % c->n_kv_heads == 0, "heads share keys evenly");
	fuzz_hold(c->rotary.dim <= c->d_head && c->rotary.dim % 2 == 0, "rotary pairs");
	fuzz_hold(c->eps >= 0, "eps");
}

static void write_json(const struct lens_config *c, bool fold)
{
	const struct lens_processing p = { .fold_ln = fold };
	struct lens_error err = LENS_ERROR_INIT;
	char *text;

	fuzz_check(lens_config_json(c, &p, &text, &err), &err);
	lens_free(text);
}

/* Beside the weights of a small model of the family. */
static void open_model(const struct lens_config *c, const uint8_t *data, size_t n)
{
	static struct {
		const char *family, *from;
		bool there;
	} model[] = {
		{ "gpt2", "tests/unit/data/model/plain/model.safetensors", false },
		{ "gpt_neo", "tests/golden/data/gpt_neo_local/model.safetensors", false },
		{ "gpt_neox", "tests/golden/data/gpt_neox/model.safetensors", false },
		{ LENS_HOOKED_TRANSFORMER, "tests/golden/data/own_solu_ln/model.safetensors",
		  false },
		{ "mistral", "tests/golden/data/mistral/model.safetensors", false },
	};
	const struct lens_model_options p = { .processing = { true, true, true, true, false } };
	struct lens_error err = LENS_ERROR_INIT;
	struct lens_model *m = NULL;
	char name[64];
	size_t i;

	for (i = 0; i + 1 < sizeof(model) / sizeof(*model); i++) {
		if (!strcmp(c->family, model[i].family))
			break;
	}
	snprintf(name, sizeof(name), "%s/model.safetensors", model[i].family);
	fuzz_make_folder(model[i].family);
	if (!model[i].there)
		fuzz_copy(model[i].from, name);
	model[i].there = true;
	snprintf(name, sizeof(name), "%s/config.json", model[i].family);
	fuzz_write(name, data, n);
	fuzz_check(lens_model_open(fuzz_path(model[i].family), &p, &m, &err), &err);
	lens_model_destroy(m);
}

static enum lens_status see_tensor(void *ctx, const char *name, int rank, const size_t *shape,
				   struct lens_error *err)
{
	size_t *n = ctx;

	(void)err;
	fuzz_hold(*name && rank >= 1 && rank <= 3 && shape[0] && shape[rank - 1], "a tensor");
	++*n;
	return LENS_OK;
}

static void list_tensors(void)
{
	struct lens_error err = LENS_ERROR_INIT;
	size_t n = 0;
	enum lens_status st = lens_checkpoint_each(fuzz_folder(), see_tensor, &n, &err);

	fuzz_check(st, &err);
	fuzz_hold(st != LENS_OK || n > 3, "a model has tensors");
}

static void look_at_unknown(void)
{
	struct lens_error err = LENS_ERROR_INIT;
	struct lens_unknown_model u;

	fuzz_check(lens_unknown_look(fuzz_folder(), &u, &err), &err);
	lens_unknown_release(&u);
}

void fuzz_one(const uint8_t *data, size_t n)
{
	struct lens_error err = LENS_ERROR_INIT;
	struct lens_config c;
	enum lens_status st;

	fuzz_write("config.json", data, n);
	st = lens_config_load(fuzz_folder(), &c, &err);
	fuzz_check(st, &err);
	look_at_unknown();
	if (st != LENS_OK)
		return;
	list_tensors();
	check_sizes(&c);
	write_json(&c, false);
	write_json(&c, true);
	open_model(&c, data, n);
}
