/*
 * store/store.c: the life of a file that is being written: create, commit or abandon. In:
 * a final name. Out: a complete file of that name, or none.
 */
#include <pthread.h>
#include <string.h>

#include "h5lens/sys.h"
#include "store/store_private.h"

static pthread_mutex_t hdf5 = PTHREAD_MUTEX_INITIALIZER;

void lens_store_lock(void)
{
	pthread_mutex_lock(&hdf5);
}

void lens_store_unlock(void)
{
	pthread_mutex_unlock(&hdf5);
}

static enum lens_status create_file(struct lens_store *s, struct lens_error *err)
{
	hid_t fcpl = H5Pcreate(H5P_FILE_CREATE), fapl = lens_h5_fapl(s->io);
	enum lens_status st = LENS_OK;

	if (fcpl >= 0 && fapl >= 0 && H5Pset_obj_track_times(fcpl, 0) >= 0)
		s->file = H5Fcreate(s->io->path, H5F_ACC_TRUNC, fcpl, fapl);
	if (s->file < 0)
		st = lens_h5_fail(s->io, err, "create the file");
	H5Pclose(fcpl);
	H5Pclose(fapl);
	return st;
}

enum lens_status lens_store_create(const char *final, struct lens_store **out,
				   struct lens_error *err)
{
	struct lens_store *s = lens_calloc(1, sizeof(*s));
	enum lens_status st = LENS_OK;

	lens_h5_begin();
	*out = NULL;
	if (!s)
		return lens_error_nomem(err, 1, sizeof(*s));
	s->file = H5I_INVALID_HID;
	s->final = lens_strdup(final);
	s->dir = lens_path_folder(final);
	if (!s->final || !s->dir)
		st = lens_error_nomem(err, strlen(final) + 1, 1);
	if (st == LENS_OK)
		st = lens_io_create(final, &s->io, err);
	if (st == LENS_OK)
		st = lens_store_keep(s, create_file(s, err), err);
	if (st == LENS_OK)
		*out = s;
	else
		lens_store_destroy(s);
	return st;
}

/*
 * Closes every handle of the store, each once even if that fails: HDF5 may have freed what
 * it could not close.
 */
static bool close_all(struct lens_store *s)
{
	bool ok = true;
	size_t i;

	for (i = 0; i < s->n_datasets; i++) {
		if (s->datasets[i].id >= 0)
			ok = H5Dclose(s->datasets[i].id) >= 0 && ok;
		s->datasets[i].id = H5I_INVALID_HID;
	}
	for (i = 0; i < s->n_dims; i++) {
		if (s->dims[i].id >= 0)
			ok = H5Dclose(s->dims[i].id) >= 0 && ok;
		s->dims[i].id = H5I_INVALID_HID;
	}
	if (s->file >= 0)
		ok = H5Fclose(s->file) >= 0 && ok;
	s->file = H5I_INVALID_HID;
	return ok;
}

static enum lens_status close_file(struct lens_store *s, struct lens_error *err)
{
	if (!close_all(s))
		return lens_h5_fail(s->io, err, "write the end of the file");
	LENS_TRY(lens_store_keep(s, LENS_OK, err));
	if (s->io->n_open)
		return lens_error_at(err, LENS_ERR_INTERNAL, s->io->path, 0, 0,
				     "HDF5 did not close the file");
	return LENS_OK;
}

enum lens_status lens_store_keep(struct lens_store *s, enum lens_status st,
				 struct lens_error *err)
{
	/* Only the driver knows of failed writes (io_private.h). */
	if (st == LENS_OK && s->io->err)
		st = lens_error_sys(err, s->io->err, s->io->path, s->io->op);
	s->failed = s->failed || st != LENS_OK;
	return st;
}

static enum lens_status finish(struct lens_store *s, struct lens_error *err)
{
	LENS_TRY(lens_store_attach_scales(s, err));
	LENS_TRY(lens_store_write_digests(s, err));
	LENS_TRY(close_file(s, err));
	s->finished = true;
	return LENS_OK;
}

enum lens_status lens_store_finish(struct lens_store *s, struct lens_error *err)
{
	lens_h5_begin();
	return lens_store_keep(s, finish(s, err), err);
}

static enum lens_status commit(struct lens_store *s, struct lens_error *err)
{
	if (s->committed || s->failed || (s->file < 0 && !s->finished))
		return lens_error_at(err, LENS_ERR_INTERNAL, s->final, 0, 0,
				     "commit of a file that is finished or failed");
	if (!s->finished)
		LENS_TRY(lens_store_finish(s, err));
	LENS_TRY(lens_io_finish(s->io, err));
	LENS_TRY(lens_io_rename(s->io->path, s->final, err));
	s->committed = true;
	return lens_dir_sync(s->dir, err);
}

enum lens_status lens_store_commit(struct lens_store *s, struct lens_error *err)
{
	return lens_store_keep(s, commit(s, err), err);
}

void lens_store_destroy(struct lens_store *s)
{
	size_t i;

	if (!s)
		return;
	lens_h5_begin();
	if (!s->committed) {
		if (s->io)
			s->io->abandoned = true;
		close_all(s);
		if (s->io)
			lens_sys_unlink(s->io->path);
	}
	for (i = 0; i < s->n_datasets; i++)
		lens_store_dataset_release(&s->datasets[i]);
	for (i = 0; i < s->n_dims; i++)
		lens_store_dim_release(&s->dims[i]);
	lens_free(s->datasets);
	lens_free(s->dims);
	lens_io_release(s->io);
	lens_free(s->final);
	lens_free(s->dir);
	lens_free(s);
}
