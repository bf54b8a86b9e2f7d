/*
 * status.h: how every function below cli/ reports failure.
 *
 * A function that can fail returns enum lens_status and takes a trailing
 * struct lens_error *, which may be NULL. The error says what went wrong, in
 * which file and where in it. The first error wins: a struct that already
 * holds one is not overwritten, so that clean-up code cannot hide the cause.
 */
#ifndef H5LENS_STATUS_H
#define H5LENS_STATUS_H

enum lens_status {
	LENS_OK = 0,
	LENS_ERR_NOMEM,       /* an allocation failed, or --memory is too little */
	LENS_ERR_IO,          /* the system refused an open, read, write, … */
	LENS_ERR_NOSPACE,     /* the disk is full, or too small for the estimate */
	LENS_ERR_FORMAT,      /* an input file is not what it should be */
	LENS_ERR_INVALID,     /* the caller's request makes no sense (usage) */
	LENS_ERR_UNSUPPORTED, /* understood, but not implemented */
	LENS_ERR_MISMATCH,    /* an output of another experiment is in the way */
	LENS_ERR_BUSY,        /* another run is writing the output */
	LENS_ERR_UNFINISHED,  /* shards are missing: try again later */
	LENS_ERR_INTERRUPTED, /* a signal asked us to stop */
	LENS_ERR_INTERNAL     /* a bug in h5lens or in a library */
};

struct lens_error {
	enum lens_status code;
	char file[512];  /* the file concerned, or "" */
	long row;        /* line or record, 1-based; 0: none */
	long column;     /* 1-based; 0: none */
	char text[1536]; /* what happened, without file, row and column */
};

/* The initial value of a struct lens_error. */
#define LENS_ERROR_INIT                                                                        \
	{                                                                                      \
		.code = LENS_OK                                                                \
	}

/* Sets code and text. Returns code, so that callers can `return` it. */
enum lens_status lens_error_set(struct lens_error *err, enum lens_status code, const char *fmt,
				...) __attribute__((format(printf, 3, 4)));

/* The same with a place; file may be NULL, row and column may be 0. */
enum lens_status lens_error_at(struct lens_error *err, enum lens_status code, const char *file,
			       long row, long column, const char *fmt, ...)
	__attribute__((format(printf, 6, 7)));

/*
 * Copies why to err unless that holds an error already (the first one wins). Returns why's
 * code.
 */
enum lens_status lens_error_pass(struct lens_error *err, const struct lens_error *why);

/* Appends to the text of err, if it holds an error. */
void lens_error_add(struct lens_error *err, const char *fmt, ...)
	__attribute__((format(printf, 2, 3)));

/*
 * "cannot <what>: <strerror(errno_)>" as LENS_ERR_IO; LENS_ERR_NOSPACE for ENOSPC,
 * EDQUOT and EFBIG, LENS_ERR_NOMEM for ENOMEM.
 */
enum lens_status lens_error_sys(struct lens_error *err, int errno_, const char *file,
				const char *what);

/*
 * Writes "file:row:column: text" (the parts that are known) into buf, NUL-terminated
 * and safe for a terminal: UTF-8 without control characters. Returns buf.
 */
const char *lens_error_format(const struct lens_error *err, char *buf, unsigned long size);

#define LENS_TRY(expr)                                                                         \
	do {                                                                                   \
		enum lens_status lens_try_status_ = (expr);                                    \
		if (lens_try_status_ != LENS_OK)                                               \
			return lens_try_status_;                                               \
	} while (0)

#endif
