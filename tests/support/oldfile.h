/*
 * support/oldfile.h: makes a file what versions up to 0.3 wrote.
 */
#ifndef LENS_TEST_OLDFILE_H
#define LENS_TEST_OLDFILE_H

/* Its chunks are hashed with SHA-256, and every digest is right. */
void test_as_sha256(const char *path);

#endif
