/*
 * cli/info_model.c: `h5lens info DIR`: a model's shapes, what is its own, its hook points; what
 * can be told of one that is not run; and with --tensors what its files must hold.
 */
#include "cli/info_private.h"

static void print_hook(const struct lens_config *c, enum lens_hook hook)
{
	const struct lens_hook_info *h = lens_hook_info(hook);
	const struct lens_sizes sizes = lens_model_sizes(c);
	char name[LENS_HOOK_NAME], shape[96] = "";
	int i, at = 0;

	if (h->per_layer) /* one line for all layers */
		snprintf(name, sizeof(name), "blocks.{0…%zu}.%s", c->n_layers - 1,
			 strchr(h->name + strlen("blocks."), '.') + 1);
	else
		lens_hook_name(hook, 0, name);
	for (i = 0; i < h->n_axes; i++) {
		size_t n = lens_axis_extent(h->axis[i], &sizes);

		at += snprintf(shape + at, sizeof(shape) - (size_t)at, "%s%s", i ? ", " : "",
			       lens_axis_name(h->axis[i]));
		if (n)
			at += snprintf(shape + at, sizeof(shape) - (size_t)at, " %zu", n);
	}
	/* … takes three bytes and one column */
	printf("  %-*s [%s]%s\n", h->per_layer ? 46 : 44, name, shape,
	       h->by_default ? "" : "  (only when named)");
}

static void print_positions(const struct lens_config *c)
{
	static const char *const scaling[] = { "", ", scaled: linear", ", scaled: llama3",
					       ", scaled: yarn", ", scaled: longrope" };

	if (c->rotary.dim)
		printf("  rotary positions: rotary_dim %zu, rotary_base %g%s", c->rotary.dim,
		       c->rotary.base, scaling[c->rotary.type]);
	if (c->rotary.type != LENS_ROPE_DEFAULT)
		printf(" by %g", c->rotary.factor);
	if (c->rotary.dim)
		printf("\n");
	if (c->local_rotary.dim)
		printf("  rotary_base %g in local layers\n", c->local_rotary.base);
	if (c->shortformer)
		printf("  positions: shortformer, W_pos is added to what queries and keys are "
		       "made of\n");
	if (c->alibi)
		printf("  positions: ALiBi, scores have slope * (key - query) added\n");
}

static void print_attention(const struct lens_config *c)
{
	size_t i, n_local = 0;

	for (i = 0; i < c->n_layers; i++)
		n_local += c->local[i];
	if (c->n_kv_heads != c->n_heads)
		printf("  grouped-query attention: n_key_value_heads %zu\n", c->n_kv_heads);
	if (c->qk_norm)
		printf("  use_qk_norm: RMSNorm of %s queries and keys\n",
		       c->qk_norm == LENS_QK_NORM_ALL ? "all heads'" : "each head's");
	if (c->window && n_local)
		printf("  local attention: window_size %zu in %zu of %zu layers\n", c->window,
		       n_local, c->n_layers);
	if (c->attn_scale > 0)
		printf("  attn_scale %g\n", c->attn_scale);
	if (!c->scale_attn)
		printf("  attention scores are not divided by sqrt(d_head)\n");
	if (c->score_cap > 0)
		printf("  attn_scores_soft_cap %g\n", c->score_cap);
}

/* Prints what differs from GPT-2. */
static void print_kinds(const struct lens_config *c)
{
	print_positions(c);
	print_attention(c);
	if (c->parallel_block)
		printf("  parallel_attn_mlp: attention and MLP both read resid_pre\n");
	if (c->n_experts)
		printf("  MLPs of %zu experts, each token goes through %zu (whose weights are %s); "
		       "each is gated: %s(gate) * in\n",
		       c->n_experts, c->experts_per_token,
		       c->norm_expert_weights ? "made to add up to 1" : "those of all",
		       c->act_name);
	else if (c->gated_mlp)
		printf("  gated_mlp: hook_post = %s(hook_pre) * hook_pre_linear\n",
		       c->act_name);
	if (c->attn_only)
		printf("  attn_only: no MLPs\n");
	if (c->mlp_norm)
		printf("  mlp.ln: LayerNorm of what the activation gives\n");
	if (c->final_rms)
		printf("  final_rms: ln_final is RMSNorm\n");
	if (c->d_vocab_out && c->d_vocab_out != c->d_vocab)
		printf("  d_vocab_out %zu: logits\n", c->d_vocab_out);
	if (lens_weights_as_stored(c))
		printf("  weights are used as they are stored, unless weights.* says "
		       "otherwise\n");
	if (c->norms_after)
		printf("  ln1_post, ln2_post: norms of what attention and MLP add%s\n",
		       c->norms_before ? "" : "; none before them");
	if (c->embed_norm)
		printf("  W_E holds the norm of the embedding\n");
	if (c->embed_scale > 0)
		printf("  W_E holds the factor %g of the embedding\n", c->embed_scale);
	if (c->logit_cap > 0)
		printf("  output_logits_soft_cap %g (so W_U is not centred)\n", c->logit_cap);
}

static void print_functions(const struct lens_config *c)
{
	const char *norm = lens_normalization_type(c, false);

	printf("  ");
	if (!c->attn_only)
		printf("act_fn %s, ", c->act_name);
	printf("normalization_type %s", norm ? norm : "none");
	if (norm && !c->norms_folded && !c->n_experts)
		printf(" (%s once folded)", lens_normalization_type(c, true));
	if (norm)
		printf(", eps %g", c->eps);
	printf("\n");
}

static void print_lines(const char *heading, const struct lens_buf *lines)
{
	const char *at = lines->data, *end;

	if (!lines->len)
		return;
	printf("%s\n", heading);
	for (; *at; at = end + 1) {
		end = strchr(at, '\n');
		printf("  %s\n", visible(at, (size_t)(end - at)));
	}
}

static void print_nearest(const struct lens_unknown_model *u)
{
	char heading[160];

	if (!*u->nearest) {
		print_lines("keys that no family reads", &u->new_keys);
		return;
	}
	printf("nearest family: %s, which reads %zu of the %zu keys that matter\n", u->nearest,
	       u->n_known, u->n_keys);
	print_lines("keys that no family reads", &u->new_keys);
	snprintf(heading, sizeof(heading), "keys that %s does not read", u->nearest);
	print_lines(heading, &u->others_keys);
	if (u->refusal.len)
		printf("%s would refuse this config: %s\n", u->nearest,
		       visible(u->refusal.data, u->refusal.len));
	if (u->weights && !u->added.len && !u->lacking.len)
		printf("its tensors have the names that %s's have\n", u->nearest);
	snprintf(heading, sizeof(heading), "tensors that %s does not have", u->nearest);
	print_lines(heading, &u->added);
	snprintf(heading, sizeof(heading), "tensors of %s that are missing", u->nearest);
	print_lines(heading, &u->lacking);
}

/* What is known of an architecture that we do not run. */
static enum lens_status print_unknown(const char *dir, struct lens_error *err)
{
	struct lens_unknown_model u;
	enum lens_status st = lens_unknown_look(dir, &u, err);

	if (st == LENS_OK && *u.model_type) {
		printf("%s: model_type %s, which is not run\n", dir,
		       visible(u.model_type, strlen(u.model_type)));
		if (*u.text_model)
			printf("  its text_config is of model_type %s, which is run: save the "
			       "text model as a folder of its own\n",
			       u.text_model);
		else if (u.shapes.len)
			printf("  %s%s\n", u.of_text ? "text_config: " : "", u.shapes.data);
		if (!*u.text_model)
			print_nearest(&u);
	}
	lens_unknown_release(&u);
	return st;
}

struct count {
	size_t tensors, parameters;
};

static enum lens_status count_tensor(void *ctx, const char *name, int rank, const size_t *shape,
				     struct lens_error *err)
{
	struct count *c = ctx;
	size_t n = 1;
	int i;

	for (i = 0; i < rank; i++) /* fits, else it were not listed */
		n *= shape[i];
	c->tensors++;
	return lens_size_add(c->parameters, n, &c->parameters)
		       ? LENS_OK
		       : lens_error_set(err, LENS_ERR_FORMAT, "\"%s\": too many parameters",
					name);
}

static enum lens_status print_tensor(void *ctx, const char *name, int rank, const size_t *shape,
				     struct lens_error *err)
{
	int i;

	(void)ctx;
	(void)err;
	printf("%s [", name);
	for (i = 0; i < rank; i++)
		printf("%s%zu", i ? ", " : "", shape[i]);
	printf("]\n");
	return LENS_OK;
}

static int print_tensors(const char *dir)
{
	struct lens_error err = LENS_ERROR_INIT;

	return lens_checkpoint_each(dir, print_tensor, NULL, &err) == LENS_OK ? EXIT_DONE
									      : fail(&err);
}

/* Without what points to this command. */
static int fail_without_hint(struct lens_error *err)
{
	char *hint = strstr(err->text, "; h5lens info ");

	if (hint)
		*hint = '\0';
	return fail(err);
}

int info_model(const char *dir, bool tensors)
{
	struct lens_error err = LENS_ERROR_INIT, looking = LENS_ERROR_INIT;
	struct count count = { 0 };
	struct lens_config c;
	int h;

	if (tensors)
		return print_tensors(dir);
	if (lens_config_load(dir, &c, &err) != LENS_OK) {
		if (err.code == LENS_ERR_UNSUPPORTED && print_unknown(dir, &looking) != LENS_OK)
			fail(&looking);
		return fail_without_hint(&err);
	}
	if (lens_checkpoint_each(dir, count_tensor, &count, &err) != LENS_OK)
		return fail(&err);
	printf("%s: %s (%s)\n", dir, c.architecture, c.family);
	printf("  n_layers %zu, d_model %zu, n_heads %zu, d_head %zu, d_mlp %zu, d_vocab %zu, "
	       "n_ctx %zu\n",
	       c.n_layers, c.d_model, c.n_heads, c.d_head, c.d_mlp, c.d_vocab, c.n_ctx);
	print_functions(&c);
	printf("  %zu parameters in %zu tensors\n", count.parameters, count.tensors);
	print_kinds(&c);
	printf("hook points, and their dimensions after prompt\n");
	for (h = 0; h < LENS_HOOK_COUNT; h++) {
		if (lens_hook_exists(&c, (enum lens_hook)h))
			print_hook(&c, (enum lens_hook)h);
	}
	return EXIT_DONE;
}
