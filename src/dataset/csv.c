/*
 * dataset/csv.c: CSV records through libcsv.
 *
 * In: a file, read in blocks. Out: records with their number and first
 * physical line. libcsv does not tell lines, so it is fed one line at a time;
 * a line holds the end of one record at most, which makes its callbacks a pull
 * interface. Lines end with LF, CR LF or CR. The digest of the bytes is
 * computed on the way, unless the reader is told to begin elsewhere.
 */
#include "dataset/csv_private.h"
#include "dataset/foreign_private.h"

#include <csv.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define BLOCK 65536

struct lens_csv_reader {
	char *path;
	int fd;
	struct lens_file_stamp stamp;
	bool eof, started;
	struct lens_sha256 *sha; /* NULL after a seek */
	struct csv_parser parser;
	unsigned char block[BLOCK];
	size_t pos, len;
	uint64_t block_at; /* of the file: where the block begins */

	long line;         /* of the next byte */
	size_t line_bytes; /* bytes of that line so far */
	bool after_cr;
	bool in_record, record_done;
	size_t record_bytes;
	int64_t n_records; /* the header included */
	long record_line, field_line;
	uint64_t record_at;

	struct lens_buf text; /* the fields, each with a NUL */
	size_t *start, *length;
	const char **field;
	size_t n_fields, cap;
	enum lens_status callback_status;
	struct lens_error *callback_err;
};

/* Spaces are data: libcsv would trim them. */
static int no_space(unsigned char c)
{
	(void)c;
	return 0;
}

static void *grow_entry(void *p, size_t n)
{
	return lens_realloc(p, n, 1);
}

static int64_t nanoseconds(const struct timespec *t)
{
	return (int64_t)t->tv_sec * 1000000000 + t->tv_nsec;
}

static enum lens_status open_file(struct lens_csv_reader *r, const char *path,
				  struct lens_error *err)
{
	struct stat sb;

	r->fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	if (r->fd < 0)
		return lens_error_sys(err, errno, path, "open");
	if (fstat(r->fd, &sb))
		return lens_error_sys(err, errno, path, "stat");
	if (!S_ISREG(sb.st_mode))
		return lens_error_at(err, LENS_ERR_IO, path, 0, 0,
				     "not a regular file (it is read twice)");
	r->stamp = (struct lens_file_stamp){ .device = sb.st_dev,
					     .inode = sb.st_ino,
					     .bytes = (uint64_t)sb.st_size,
					     .modified = nanoseconds(&sb.st_mtim),
					     .changed = nanoseconds(&sb.st_ctim) };
	r->path = lens_strdup(path);
	if (!r->path)
		return lens_error_nomem(err, strlen(path) + 1, 1);
	return lens_sha256_create(&r->sha, err);
}

enum lens_status lens_csv_open(const char *path, char separator, struct lens_csv_reader **out,
			       struct lens_error *err)
{
	struct lens_csv_reader *r = lens_calloc(1, sizeof(*r));
	enum lens_status st;

	*out = NULL;
	if (!r)
		return lens_error_nomem(err, 1, sizeof(*r));
	csv_init(&r->parser, CSV_STRICT | CSV_STRICT_FINI);
	csv_set_delim(&r->parser, (unsigned char)separator);
	csv_set_space_func(&r->parser, no_space);
	csv_set_realloc_func(&r->parser, grow_entry);
	csv_set_free_func(&r->parser, lens_free);
	csv_set_blk_size(&r->parser, BLOCK);
	r->line = 1;
	st = open_file(r, path, err);
	if (st != LENS_OK) {
		lens_csv_close(r);
		return st;
	}
	*out = r;
	return LENS_OK;
}

void lens_csv_close(struct lens_csv_reader *r)
{
	if (!r)
		return;
	if (r->fd >= 0)
		close(r->fd);
	csv_free(&r->parser);
	lens_sha256_destroy(r->sha);
	lens_buf_release(&r->text);
	lens_free(r->start);
	lens_free(r->length);
	lens_free(r->field);
	lens_free(r->path);
	lens_free(r);
}

static enum lens_status fill(struct lens_csv_reader *r, struct lens_error *err)
{
	r->block_at += r->len;
	r->pos = r->len = 0;
	while (!r->eof && r->len < BLOCK) {
		ssize_t n = read(r->fd, r->block + r->len, BLOCK - r->len);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return lens_error_sys(err, errno, r->path, "read");
		r->eof = n == 0;
		r->len += (size_t)n;
	}
	return r->sha ? lens_sha256_update(r->sha, r->block, r->len, err) : LENS_OK;
}

/* Reads the first block, skips a UTF-8 byte order mark and refuses other kinds of file. */
static enum lens_status start(struct lens_csv_reader *r, struct lens_error *err)
{
	const char *foreign;

	LENS_TRY(fill(r, err));
	r->started = true;
	foreign = lens_foreign_file(r->block, r->len);
	if (foreign)
		return lens_error_at(err, LENS_ERR_FORMAT, r->path, 0, 0,
				     "not CSV in UTF-8: this is %s", foreign);
	if (r->len >= 3 && !memcmp(r->block, "\xef\xbb\xbf", 3))
		r->pos = 3;
	return LENS_OK;
}

static enum lens_status keep_field(struct lens_csv_reader *r, const char *s, size_t n)
{
	struct lens_error *err = r->callback_err;

	if (r->n_fields == r->cap) {
		size_t cap = r->cap ? 2 * r->cap : 16;
		size_t *a = lens_realloc(r->start, cap, sizeof(*a));
		size_t *b = lens_realloc(r->length, cap, sizeof(*b));
		const char **c = lens_realloc(r->field, cap, sizeof(*c));

		r->start = a ? a : r->start;
		r->length = b ? b : r->length;
		r->field = c ? c : r->field;
		if (!a || !b || !c)
			return lens_error_nomem(err, cap, sizeof(*a));
		r->cap = cap;
	}
	r->start[r->n_fields] = r->text.len;
	r->length[r->n_fields] = n;
	LENS_TRY(lens_buf_append(&r->text, s, n, err));
	return lens_buf_append(&r->text, "", 1, err);
}

static void on_field(void *s, size_t n, void *ctx)
{
	struct lens_csv_reader *r = ctx;

	if (r->callback_status == LENS_OK && r->n_fields < LENS_CSV_MAX_FIELDS)
		r->callback_status = keep_field(r, s, n);
	r->n_fields++;
	r->field_line = r->line;
}

static void on_record(int c, void *ctx)
{
	struct lens_csv_reader *r = ctx;

	(void)c;
	r->record_done = true;
	r->in_record = false;
}

/* "record 3", or "header". */
static const char *current(const struct lens_csv_reader *r, char buf[32])
{
	if (r->n_records)
		snprintf(buf, 32, "record %lld", (long long)r->n_records);
	else
		snprintf(buf, 32, "header");
	return buf;
}

static enum lens_status parse_error(struct lens_csv_reader *r, size_t column,
				    struct lens_error *err)
{
	char what[32];

	if (csv_error(&r->parser) == CSV_ENOMEM)
		return lens_error_nomem(err, csv_get_buffer_size(&r->parser), 1);
	if (r->parser.quoted)
		return lens_error_at(err, LENS_ERR_FORMAT, r->path, r->line, (long)column,
				     "%s: a stray quote in field %zu, whose opening "
				     "quote is on line %ld; a quote inside a quoted field is "
				     "written twice",
				     current(r, what), r->n_fields + 1, r->field_line);
	return lens_error_at(err, LENS_ERR_FORMAT, r->path, r->line, (long)column,
			     "%s: a stray quote in field %zu; a field with quotes is "
			     "quoted from its first character (spaces count) to its last, with "
			     "the quotes inside written twice",
			     current(r, what), r->n_fields + 1);
}

static enum lens_status too_long(const struct lens_csv_reader *r, struct lens_error *err)
{
	char what[32];

	return lens_error_at(err, LENS_ERR_FORMAT, r->path, r->record_line, 0,
			     "%s: longer than %zu MiB; field %zu begins on line %ld: is "
			     "its closing quote missing?",
			     current(r, what), LENS_CSV_MAX_RECORD >> 20, r->n_fields + 1,
			     r->field_line);
}

/* How many bytes there are up to the end of the line or of the block. */
static size_t line_length(const unsigned char *s, size_t n)
{
	const unsigned char *lf = memchr(s, '\n', n);
	const unsigned char *cr;

	if (lf)
		n = (size_t)(lf - s) + 1;
	cr = memchr(s, '\r', n);
	return cr ? (size_t)(cr - s) + 1 : n;
}

static void count_line(struct lens_csv_reader *r, const unsigned char *s, size_t n)
{
	bool second_half = r->after_cr && s[0] == '\n'; /* of a CR LF */
	unsigned char last = s[n - 1];

	r->after_cr = last == '\r';
	r->line_bytes += n;
	if (last != '\n' && last != '\r')
		return;
	r->line_bytes = 0;
	r->line += !second_half;
}

static enum lens_status feed(struct lens_csv_reader *r, struct lens_error *err)
{
	const unsigned char *s = r->block + r->pos;
	size_t n = line_length(s, r->len - r->pos), used;

	if (!r->in_record && s[0] != '\n' && s[0] != '\r') {
		r->in_record = true;
		r->record_line = r->field_line = r->line;
		r->record_at = r->block_at + r->pos;
	}
	r->record_bytes += r->in_record ? n : 0;
	if (r->record_bytes > LENS_CSV_MAX_RECORD)
		return too_long(r, err);
	used = csv_parse(&r->parser, s, n, on_field, on_record, r);
	if (r->callback_status == LENS_OK && used != n)
		return parse_error(r, r->line_bytes + used + 1, err);
	count_line(r, s, n);
	r->pos += n;
	return r->callback_status;
}

static enum lens_status finish(struct lens_csv_reader *r, struct lens_error *err)
{
	char what[32];

	if (csv_fini(&r->parser, on_field, on_record, r) && r->callback_status == LENS_OK)
		return lens_error_at(err, LENS_ERR_FORMAT, r->path, r->field_line, 0,
				     "%s: field %zu opens with a quote on line %ld, and "
				     "the file ends before the closing one",
				     current(r, what), r->n_fields + 1, r->field_line);
	return r->callback_status;
}

enum lens_status lens_csv_next(struct lens_csv_reader *r, struct lens_csv_record *rec,
			       bool *got, struct lens_error *err)
{
	size_t i, kept;

	*got = false;
	r->callback_err = err;
	r->record_done = false;
	r->n_fields = r->text.len = r->record_bytes = 0;
	if (!r->started)
		LENS_TRY(start(r, err));
	while (!r->record_done) {
		if (r->pos < r->len) {
			LENS_TRY(feed(r, err));
		} else if (!r->eof) {
			LENS_TRY(fill(r, err));
		} else {
			LENS_TRY(finish(r, err));
			break;
		}
	}
	if (!r->record_done)
		return LENS_OK;
	kept = lens_min(r->n_fields, LENS_CSV_MAX_FIELDS);
	for (i = 0; i < kept; i++)
		r->field[i] = r->text.data + r->start[i];
	*rec = (struct lens_csv_record){ .number = r->n_records++,
					 .offset = r->record_at,
					 .line = r->record_line,
					 .n_fields = r->n_fields,
					 .field = r->field,
					 .length = r->length };
	*got = true;
	return LENS_OK;
}

const struct lens_file_stamp *lens_csv_stamp(const struct lens_csv_reader *r)
{
	return &r->stamp;
}

enum lens_status lens_csv_record_digest(const struct lens_csv_record *rec, uint64_t *out,
					struct lens_error *err)
{
	/* They stand one after the other, each with its NUL. */
	const char *end = rec->field[rec->n_fields - 1] + rec->length[rec->n_fields - 1] + 1;
	uint8_t sha256[LENS_SHA256_BYTES];

	LENS_TRY(lens_sha256(rec->field[0], (size_t)(end - rec->field[0]), sha256, err));
	memcpy(out, sha256, sizeof(*out));
	return LENS_OK;
}

enum lens_status lens_csv_seek(struct lens_csv_reader *r, int64_t number,
			       const struct lens_prompt_place *place, struct lens_error *err)
{
	if (lseek(r->fd, (off_t)place->offset, SEEK_SET) < 0)
		return lens_error_sys(err, errno, r->path, "seek");
	lens_sha256_destroy(r->sha);
	r->sha = NULL;
	r->pos = r->len = 0;
	r->block_at = place->offset;
	r->eof = false;
	r->n_records = number;
	r->line = place->line;
	r->line_bytes = 0;
	r->after_cr = false;
	return LENS_OK;
}

enum lens_status lens_csv_digest(struct lens_csv_reader *r, uint8_t out[LENS_SHA256_BYTES],
				 struct lens_error *err)
{
	while (!r->eof)
		LENS_TRY(fill(r, err));
	return lens_sha256_final(r->sha, out, err);
}
