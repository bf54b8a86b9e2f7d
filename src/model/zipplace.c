/*
 * model/zipplace.c: where in a zip archive its entries' bytes are, which libzip does not
 * tell. In: a mapped archive, of which libzip has read the directory; out: a place an
 * entry. Every number is checked against the file's size; whether the bytes are the right
 * ones, torchzip.c finds by comparing.
 *
 * Format (PKWARE's APPNOTE, 4.3): local headers, each before its entry's bytes; a directory
 * of records that say where the headers are; at the end a record that says where the
 * directory is. Numbers that do not fit in 32 bits are elsewhere ("zip64").
 */
#include "model/torchbin_private.h"

#include <string.h>

#define LOCAL_HEADER 30
#define RECORD 46
#define END 22
#define LOCATOR 20 /* of END64 */
#define END64 56
#define ELSEWHERE 0xffffffff

static uint64_t number(const unsigned char *p, size_t bytes)
{
	uint64_t n = 0;

	while (bytes--)
		n = n << 8 | p[bytes];
	return n;
}

/* Is there, at that place, such a piece, and does it begin with that signature? */
static bool is_there(const struct lens_zip_places *z, uint64_t at, size_t bytes,
		     const char *signature)
{
	return z->size >= bytes && at <= z->size - bytes && !memcmp(z->data + at, signature, 4);
}

/* The last place where the end can be: what follows it is its comment. */
static bool find_directory(struct lens_zip_places *z)
{
	size_t at = z->size < END ? 0 : z->size - END, back;
	uint64_t directory, end64;

	for (back = 0; back <= 0xffff && back <= at; back++) {
		if (is_there(z, at - back, END, "PK\5\6") &&
		    number(z->data + at - back + 20, 2) == back)
			break;
	}
	if (back > 0xffff || back > at)
		return false;
	at -= back;
	directory = number(z->data + at + 16, 4);
	if (directory == ELSEWHERE) {
		if (at < LOCATOR || !is_there(z, at - LOCATOR, LOCATOR, "PK\6\7"))
			return false;
		end64 = number(z->data + at - LOCATOR + 8, 8);
		if (!is_there(z, end64, END64, "PK\6\6"))
			return false;
		directory = number(z->data + end64 + 48, 8);
	}
	z->next = (size_t)directory;
	return true;
}

/* From the zip64 field of a record: 8 bytes for each of its numbers that is elsewhere. */
static bool header_elsewhere(const unsigned char *record, uint64_t *header)
{
	const unsigned char *field = record + RECORD + number(record + 28, 2);
	const unsigned char *end = field + number(record + 30, 2);
	size_t before = number(record + 24, 4) == ELSEWHERE ? 8 : 0;

	before += number(record + 20, 4) == ELSEWHERE ? 8 : 0;
	while (end - field >= 4) {
		size_t bytes = number(field + 2, 2);

		if (bytes > (size_t)(end - field) - 4)
			return false;
		if (number(field, 2) == 1 && bytes >= before + 8) {
			*header = number(field + 4 + before, 8);
			return true;
		}
		field += 4 + bytes;
	}
	return false;
}

bool lens_zip_next_place(struct lens_zip_places *z, size_t *place)
{
	const unsigned char *record;
	uint64_t header;
	size_t bytes;

	if (!z->next && !find_directory(z))
		return false;
	if (!is_there(z, z->next, RECORD, "PK\1\2"))
		return false;
	record = z->data + z->next;
	bytes = RECORD + number(record + 28, 2) + number(record + 30, 2) +
		number(record + 32, 2);
	if (bytes > z->size - z->next)
		return false;
	header = number(record + 42, 4);
	if (header == ELSEWHERE && !header_elsewhere(record, &header))
		return false;
	if (!is_there(z, header, LOCAL_HEADER, "PK\3\4"))
		return false;
	*place = header + LOCAL_HEADER + number(z->data + header + 26, 2) +
		 number(z->data + header + 28, 2);
	z->next += bytes;
	return *place <= z->size;
}
