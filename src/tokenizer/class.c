/*
 * tokenizer/class.c: finds the class by whose rules a folder's tokenizer is read: the
 * one that AutoTokenizer of transformers 4.56 would choose. In: tokenizer_config.json,
 * special_tokens_map.json, config.json; out: a row of the table below, and the special
 * tokens that the files and the class name.
 */
#include "tokenizer/tokenizer_private.h"

#include <stdio.h>
#include <string.h>

#define END "<|endoftext|>"

/* Other classes are refused: we do not know what they do to tokenizer.json. */
static const struct lens_tokenizer_class classes[] = {
	{ .name = "GPT2Tokenizer", .special = { END, END, END }, .files = LENS_FILES_GPT2 },
	{ .name = "GPTNeoXTokenizer", .special = { END, END, END }, .made_anew = true },
	{ .name = "Qwen2Tokenizer",
	  .special = { NULL, END, END, NULL, END },
	  .files = LENS_FILES_QWEN2 },
	{ .name = "LlamaTokenizer",
	  .special = { "<s>", "</s>", "<unk>" },
	  .made_anew = true,
	  .adds_bos = true,
	  .from_slow = true },
	{ .name = "CodeLlamaTokenizer",
	  .special = { "<s>", "</s>", "<unk>" },
	  .extra = { "▁<PRE>", "▁<MID>", "▁<SUF>", "▁<EOT>" },
	  .made_anew = true,
	  .adds_bos = true },
	{ .name = "GemmaTokenizer",
	  .special = { "<bos>", "<eos>", "<unk>", NULL, "<pad>" },
	  .made_anew = true,
	  .adds_bos = true },
	{ .name = "CohereTokenizer",
	  .special = { "<BOS_TOKEN>", "<|END_OF_TURN_TOKEN|>", "<UNK>" },
	  .made_anew = true,
	  .adds_bos = true,
	  .inner_prefix = true },
	{ .name = "BloomTokenizer",
	  .special = { "<s>", "</s>", "<unk>" },
	  .inner_prefix = true },
	{ .name = "CodeGenTokenizer", .special = { END, END, END } },
	{ .name = "PreTrainedTokenizer" },             /* tokenizer.json as it stands */
	{ .name = "TokenizersBackend", .of_5 = true }, /* transformers 5's name for it */
};
#define N_CLASSES (sizeof(classes) / sizeof(*classes))

/* In the order in which transformers adds them. */
const char *const lens_special_keys[LENS_N_SPECIAL] = { "bos_token", "eos_token", "unk_token",
							"sep_token", "pad_token", "cls_token",
							"mask_token" };

/* AutoTokenizer's mapping, for the architectures that we run. */
static const char *class_of_model(const char *type)
{
	static const char *const map[][2] = {
		{ "gpt2", "GPT2Tokenizer" },          { "gpt_neo", "GPT2Tokenizer" },
		{ "gpt_neox", "GPTNeoXTokenizer" },   { "llama", "LlamaTokenizer" },
		{ "mistral", "LlamaTokenizer" },      { "qwen2", "Qwen2Tokenizer" },
		{ "qwen3", "Qwen2Tokenizer" },        { "gemma", "GemmaTokenizer" },
		{ "gemma2", "GemmaTokenizer" },       { "gemma3_text", "GemmaTokenizer" },
		{ "olmo2", "GPTNeoXTokenizer" },      { "phi", "CodeGenTokenizer" },
		{ "phi3", "LlamaTokenizer" },         { "opt", "GPT2Tokenizer" },
		{ "bloom", "BloomTokenizer" },        { "gptj", "GPT2Tokenizer" },
		{ "gpt_bigcode", "GPT2Tokenizer" },   { "starcoder2", "GPT2Tokenizer" },
		{ "stablelm", "GPTNeoXTokenizer" },   { "granite", "GPT2Tokenizer" },
		{ "smollm3", "PreTrainedTokenizer" }, { "mixtral", "LlamaTokenizer" },
		{ "qwen3_moe", "Qwen2Tokenizer" },
	};
	size_t i;

	if (!type)
		return NULL;
	for (i = 0; i < sizeof(map) / sizeof(*map); i++) {
		if (!strcmp(map[i][0], type))
			return map[i][1];
	}
	return NULL;
}

static enum lens_status find_class(struct lens_tokenizer_load *l, const char *name,
				   const char *path, struct lens_error *err)
{
	struct lens_buf known = LENS_BUF_INIT;
	size_t i, n = strlen(name);

	if (n > 4 && !strcmp(name + n - 4, "Fast"))
		n -= 4;
	for (i = 0; i < N_CLASSES; i++) {
		if (strlen(classes[i].name) == n && !strncmp(classes[i].name, name, n)) {
			l->class = &classes[i];
			return LENS_OK;
		}
	}
	for (i = 0; i < N_CLASSES; i++)
		lens_buf_printf(&known, NULL, "%s%s", i ? ", " : "", classes[i].name);
	lens_error_at(err, LENS_ERR_UNSUPPORTED, path, 0, 0,
		      "tokenizer_class \"%.100s\" has rules that we do not know (we know: %s)",
		      name, known.data ? known.data : "");
	lens_buf_release(&known);
	return LENS_ERR_UNSUPPORTED;
}

/* The string under key, or NULL if it is absent or null. */
static enum lens_status text_of(json_t *root, const char *path, const char *key,
				const char **out, struct lens_error *err)
{
	const json_t *value = json_object_get(root, key);

	*out = json_string_value(value);
	if (!value || json_is_null(value) || *out)
		return LENS_OK;
	return lens_json_wrong((struct lens_json){ root, path, "" }, key, "a string", err);
}

static enum lens_status choose_class(struct lens_tokenizer_load *l, struct lens_error *err)
{
	static const struct lens_tokenizer_class unknown = { .name = NULL };
	const char *name, *type;

	l->class = &unknown;
	LENS_TRY(text_of(l->config, l->config_path, "tokenizer_class", &name, err));
	if (name)
		return find_class(l, name, l->config_path, err);
	LENS_TRY(text_of(l->model, l->model_path, "tokenizer_class", &name, err));
	if (name)
		return find_class(l, name, l->model_path, err);
	LENS_TRY(text_of(l->model, l->model_path, "model_type", &type, err));
	name = class_of_model(type);
	return name ? find_class(l, name, l->model_path, err) : LENS_OK;
}

enum lens_status lens_load_class(struct lens_tokenizer_load *l, struct lens_error *err)
{
	LENS_TRY(choose_class(l, err));
	snprintf(l->tok->rules, sizeof(l->tok->rules), "transformers %s%s%s",
		 l->class->of_5 ? "5" : "4.56", l->class->name ? ", " : "",
		 l->class->name ? l->class->name : "");
	return LENS_OK;
}

/* --- special tokens ------------------------------------------------------------------ */

const char *lens_special_content(const json_t *value)
{
	return json_string_value(json_is_object(value) ? json_object_get(value, "content")
						       : value);
}

/*
 * special_tokens_map.json counts only with a tokenizer_config.json of the older form,
 * which has no added_tokens_decoder; then it takes precedence.
 */
json_t *lens_special_value(const struct lens_tokenizer_load *l, const char *key,
			   const char **path)
{
	json_t *value = NULL;

	*path = l->special_path;
	if (!json_object_get(l->config, "added_tokens_decoder"))
		value = json_object_get(l->special, key);
	if (value)
		return value;
	*path = l->config_path;
	return json_object_get(l->config, key);
}

enum lens_status lens_special_token(const struct lens_tokenizer_load *l, size_t which,
				    struct lens_special *out, struct lens_error *err)
{
	const char *key = lens_special_keys[which];

	*out = (struct lens_special){ .key = key };
	out->value = lens_special_value(l, key, &out->path);
	if (!out->value) {
		out->content = which < LENS_N_CLASS_SPECIAL ? l->class->special[which] : NULL;
		out->of_class = out->content != NULL;
		return LENS_OK;
	}
	if (json_is_null(out->value))
		return LENS_OK;
	out->content = lens_special_content(out->value);
	if (out->content)
		return LENS_OK;
	return lens_json_wrong((struct lens_json){ out->value, out->path, key }, "",
			       "a string or an object with \"content\"", err);
}
