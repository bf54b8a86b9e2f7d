/*
 * fuzz/fuzz_index.c: bytes as the index of a model in several files: the first
 * says of which kind, the rest is the JSON. The folder holds two good files, one
 * that is a link to a good one (as in Hugging Face's cache), a folder and a pipe;
 * beside the folder is a file that no index may reach.
 */
#include "fuzz/tensors.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define ZERO "\0\0\0\0"

/* A safetensors file of one tensor, F32 [1]; its header is shorter than 256 bytes. */
static void write_weights(const char *file, const char *tensor)
{
	struct lens_buf b = LENS_BUF_INIT;
	char head[96];
	int n = snprintf(head, sizeof(head),
			 "{\"%s\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}",
			 tensor);
	unsigned char size[8] = { (unsigned char)n };

	lens_buf_append(&b, size, sizeof(size), NULL);
	lens_buf_append(&b, head, (size_t)n, NULL);
	lens_buf_append(&b, ZERO, 4, NULL);
	fuzz_write(file, b.data, b.len);
	lens_buf_release(&b);
}

static void make_files(void)
{
	fuzz_make_folder("dir");
	fuzz_make_folder("dir/sub");
	write_weights("outside", "outside");
	write_weights("linked", "linked");
	write_weights("dir/a", "a");
	write_weights("dir/b", "b");
	write_weights("dir/sub/c", "outside");
	fuzz_copy("tests/unit/data/model/torch/pytorch_model.bin", "dir/t");
	fuzz_hold(!symlink("../linked", fuzz_path("dir/link")) || errno == EEXIST, "a link");
	fuzz_hold(!symlink("self", fuzz_path("dir/self")) || errno == EEXIST, "a loop");
	fuzz_hold(!mkfifo(fuzz_path("dir/pipe"), 0600) || errno == EEXIST, "a pipe");
}

static void check(const struct lens_tensors *t)
{
	size_t i;

	for (i = 0; i < t->n; i++) {
		fuzz_hold(strcmp(t->tensor[i].name, "outside") != 0,
			  "an index stays in its folder");
		fuzz_hold(!i || strcmp(t->tensor[i - 1].name, t->tensor[i].name) < 0,
			  "tensors are sorted");
		fuzz_hold(lens_tensors_find(t, t->tensor[i].name) == &t->tensor[i],
			  "a tensor is found");
	}
}

void fuzz_one(const uint8_t *data, size_t n)
{
	static const char *const index[] = { "dir/model.safetensors.index.json",
					     "dir/pytorch_model.bin.index.json" };
	static bool made;
	struct lens_error err = LENS_ERROR_INIT;
	struct lens_sha256 *sha;
	struct lens_tensors t;
	enum lens_status st;

	if (!n || lens_sha256_create(&sha, NULL) != LENS_OK)
		return;
	if (!made)
		make_files();
	made = true;
	fuzz_remove(index[data[0] != 'b']);
	fuzz_write(index[data[0] == 'b'], data + 1, n - 1);
	st = lens_tensors_open(fuzz_path("dir"), false, &t, sha, &err);
	fuzz_check(st, &err);
	if (st == LENS_OK)
		check(&t);
	lens_tensors_release(&t);
	lens_sha256_destroy(sha);
}
