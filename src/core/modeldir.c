/*
 * core/modeldir.c: explains why a path is not a model's folder. In: the path, and what
 * was not found there; out: an error that names what is there instead, and what to do
 * about it.
 */
#include "core/json.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>

/* A file name that tells what the folder is. */
static const struct sign {
	const char *begins, *ends;
	bool is_weights;  /* matters only if the weights are missing */
	const char *text; /* %s: the name that was found */
} signs[] = {
	{ "adapter_config.json", "", false,
	  "is the folder of an adapter (LoRA, PEFT), not of a model%s" },
	{ "adapter_model", "", false,
	  "holds an adapter's weights (%s), not a model's: merge them into their base model "
	  "first" },
	{ "", ".gguf", false,
	  "holds GGUF (%s), llama.cpp's format, which is not read: use the model's original "
	  "folder, with config.json and safetensors" },
	{ "snapshots", "", false,
	  "is the hub's cache of a model; the model's folder is in %s/" },
	{ "hub", "hub", false, "is a cache; models are in %s/models--…/snapshots/…" },
	{ "models--", "", false,
	  "is the hub's cache; the folder of a model in it is %s/snapshots/…" },
	{ "model-", ".safetensors", true,
	  "holds shards of weights (%s) without their index, model.safetensors.index.json" },
	{ "pytorch_model-", ".bin", true,
	  "holds shards of weights (%s) without their index, pytorch_model.bin.index.json" },
	{ "consolidated.", "", false,
	  "holds weights in their makers' own format (%s): use the folder for transformers, "
	  "with model.safetensors" },
	{ "tf_model.h5", "", true, "holds TensorFlow's weights only (%s), which are not read" },
	{ "flax_model", "", true, "holds Flax's weights only (%s), which are not read" },
	{ "", ".onnx", true, "holds ONNX only (%s), which is not read" },
	{ "model_index.json", "", false, "is the folder of a diffusion pipeline (%s)" },
	{ "checkpoint-", "", false,
	  "is the folder of a training run; a model's folder in it "
	  "is %s" },
};
#define N_SIGNS (sizeof(signs) / sizeof(*signs))

static bool matches(const struct sign *s, const char *name)
{
	size_t n = strlen(name), m = strlen(s->ends);

	return !strncmp(name, s->begins, strlen(s->begins)) && n >= m &&
	       !strcasecmp(name + n - m, s->ends);
}

/* The first sign that the folder shows, and the name that shows it. */
static const struct sign *find_sign(const char *dir, bool weights, char name[256])
{
	const struct dirent *entry;
	size_t best = N_SIGNS, i;
	DIR *d = opendir(dir);

	if (!d)
		return NULL;
	while ((entry = readdir(d))) {
		for (i = 0; i < N_SIGNS; i++) {
			if ((signs[i].is_weights && !weights) ||
			    !matches(&signs[i], entry->d_name))
				continue;
			/* The first of several names, in whatever order they come. */
			if (i > best || (i == best && strcmp(entry->d_name, name) >= 0))
				continue;
			best = i;
			snprintf(name, 256, "%s", entry->d_name);
		}
	}
	closedir(d);
	return best < N_SIGNS ? &signs[best] : NULL;
}

/* ": merge it into its base model, …", which adapter_config.json names. */
static void adapter_remedy(const char *dir, char out[256])
{
	char *path = lens_path_join(dir, "adapter_config.json");
	struct lens_buf text = LENS_BUF_INIT;
	json_t *root = NULL;
	const char *base;

	if (path && lens_file_read(path, (size_t)1 << 20, &text, NULL) == LENS_OK)
		lens_json_parse(path, text.data, text.len, &root, NULL);
	base = json_string_value(json_object_get(root, "base_model_name_or_path"));
	snprintf(out, 256,
		 ": merge it into its base model%s%.120s%s first (merge_and_unload, then "
		 "save_pretrained)",
		 base ? " (" : "", base ? base : "", base ? ")" : "");
	json_decref(root);
	lens_buf_release(&text);
	lens_free(path);
}

/* The first name in the folder, "" without one. */
static void first_entry(const char *dir, char out[200])
{
	const struct dirent *entry;
	DIR *d = opendir(dir);

	out[0] = '\0';
	if (!d)
		return;
	while ((entry = readdir(d))) {
		if (entry->d_name[0] != '.' && (!*out || strcmp(entry->d_name, out) < 0))
			snprintf(out, 200, "%.199s", entry->d_name);
	}
	closedir(d);
}

/* "snapshots/<the one that refs/main names, or the first>" */
static void snapshot_name(const char *dir, char name[256])
{
	char *path = lens_path_join(dir, "refs/main"), *snapshots = NULL;
	struct lens_buf text = LENS_BUF_INIT;
	char which[200] = "";

	if (path && lens_file_read(path, sizeof(which) - 1, &text, NULL) == LENS_OK)
		snprintf(which, sizeof(which), "%.*s", (int)strcspn(text.data, "\r\n"),
			 text.data);
	else if ((snapshots = lens_path_join(dir, "snapshots")))
		first_entry(snapshots, which);
	snprintf(name, 256, "snapshots/%s", *which ? which : "…");
	lens_buf_release(&text);
	lens_free(snapshots);
	lens_free(path);
}

/* "gpt2", "openai-community/gpt2": one name, or two with a slash between them. */
static bool could_be_hub_id(const char *path)
{
	size_t i, slashes = 0;

	for (i = 0; path[i]; i++) {
		slashes += path[i] == '/';
		if (!isalnum((unsigned char)path[i]) && !strchr("._-/", path[i]))
			return false;
	}
	return i && slashes <= 1 && isalnum((unsigned char)path[0]) && path[i - 1] != '/';
}

static bool is_there(const char *path, size_t n, bool folder)
{
	char *cut = lens_strdup(path);
	struct stat sb;
	bool is;

	if (!cut)
		return false;
	cut[n] = '\0';
	is = !stat(cut, &sb) && (!folder || S_ISDIR(sb.st_mode));
	lens_free(cut);
	return is;
}

/*
 * The part of a path that may be a hub id: a URL without its host, or what follows the
 * folders that exist, since the experiment's own folder may precede it. NULL: none.
 */
static const char *hub_id(const char *path)
{
	static const char *const hosts[] = { "https://huggingface.co/", "https://hf.co/",
					     "huggingface.co/", "hf.co/" };
	const char *id = path, *slash;
	size_t i;

	for (i = 0; i < sizeof(hosts) / sizeof(*hosts); i++) {
		const char *at = strstr(path, hosts[i]);

		if (at)
			return could_be_hub_id(at + strlen(hosts[i])) ? at + strlen(hosts[i])
								      : NULL;
	}
	for (slash = strchr(path, '/'); slash; slash = strchr(slash + 1, '/')) {
		if (slash > path && is_there(path, (size_t)(slash - path), true))
			id = slash + 1;
	}
	if (!could_be_hub_id(id) ||
	    is_there(path, (size_t)(id - path) + strcspn(id, "/"), false))
		return NULL;
	return id;
}

enum lens_status lens_model_folder_error(const char *dir, const char *missing, bool weights,
					 struct lens_error *err)
{
	const struct sign *s;
	const char *id;
	char name[256] = "", shown[300];
	struct stat sb;

	if (stat(dir, &sb) && errno != ENOENT && errno != ENOTDIR)
		return lens_error_sys(err, errno, dir, "look at");
	if (stat(dir, &sb)) {
		id = hub_id(dir);
		return lens_error_at(err, LENS_ERR_IO, dir, 0, 0,
				     "there is no such folder%s%s%s",
				     id ? "; a model of the Hugging Face hub is fetched first: "
					  "scripts/get_model.py "
					: "",
				     id ? id : "", id ? " DIR" : "");
	}
	s = find_sign(dir, weights, name);
	if (!s)
		return lens_error_at(err, LENS_ERR_IO, dir, 0, 0, "%s", missing);
	if (s == &signs[0])
		adapter_remedy(dir, name);
	if (!strcmp(name, "snapshots"))
		snapshot_name(dir, name);
	snprintf(shown, sizeof(shown), "%s", name);
	return lens_error_at(err, LENS_ERR_UNSUPPORTED, dir, 0, 0, s->text, shown);
}
