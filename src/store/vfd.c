/*
 * store/vfd.c: the HDF5 file driver over struct lens_io. It has no lock callbacks: some
 * cluster file systems refuse locks, and we lock elsewhere.
 */
#include <errno.h>
#include <pthread.h>
#include <string.h>

#include "store/gheap_private.h"
#include "store/store_private.h"

#define MAX_ADDR ((haddr_t)INT64_MAX)

struct handle {
	H5FD_t pub; /* must be first; HDF5's */
	struct lens_io *io;
	haddr_t eoa;
};

struct driver_info { /* HDF5 copies it with the access list */
	struct lens_io *io;
};

static H5FD_t *driver_open(const char *name, unsigned flags, hid_t fapl, haddr_t maxaddr)
{
	const struct driver_info *info = H5Pget_driver_info(fapl);
	struct handle *h;

	(void)flags, (void)maxaddr;
	/* Refuses the sources of virtual datasets: this file must not open another. */
	if (!info || info->io->fd < 0 || strcmp(name, info->io->path) != 0)
		return NULL;
	h = lens_calloc(1, sizeof(*h));
	if (!h) {
		lens_io_fail(info->io, ENOMEM, "open the file");
		return NULL;
	}
	h->io = info->io;
	h->io->n_open++;
	return &h->pub;
}

static herr_t driver_close(H5FD_t *file)
{
	struct handle *h = (struct handle *)file;

	h->io->n_open--;
	if (h->io->orphaned)
		lens_io_release(h->io);
	lens_free(h);
	return 0;
}

/* HDF5 must never treat two opens as the same file. */
static int driver_cmp(const H5FD_t *a, const H5FD_t *b)
{
	uintptr_t x = (uintptr_t)((const struct handle *)a)->io;
	uintptr_t y = (uintptr_t)((const struct handle *)b)->io;

	return (x > y) - (x < y);
}

static herr_t driver_query(const H5FD_t *file, unsigned long *flags)
{
	(void)file;
	*flags = H5FD_FEAT_AGGREGATE_METADATA | H5FD_FEAT_ACCUMULATE_METADATA |
		 H5FD_FEAT_DATA_SIEVE | H5FD_FEAT_AGGREGATE_SMALLDATA |
		 H5FD_FEAT_DEFAULT_VFD_COMPATIBLE;
	return 0;
}

static haddr_t driver_get_eoa(const H5FD_t *file, H5FD_mem_t type)
{
	(void)type;
	return ((const struct handle *)file)->eoa;
}

static herr_t driver_set_eoa(H5FD_t *file, H5FD_mem_t type, haddr_t addr)
{
	(void)type;
	((struct handle *)file)->eoa = addr;
	((struct handle *)file)->io->end = addr;
	return 0;
}

static haddr_t driver_get_eof(const H5FD_t *file, H5FD_mem_t type)
{
	(void)type;
	return (haddr_t)((const struct handle *)file)->io->size;
}

static herr_t driver_read(H5FD_t *file, H5FD_mem_t type, hid_t dxpl, haddr_t addr, size_t n,
			  void *buf)
{
	struct lens_io *io = ((struct handle *)file)->io;

	(void)dxpl;
	/* HDF5 trusts the size of a chunk in old chunk indexes. */
	if (type == H5FD_MEM_DRAW && !io->writable &&
	    (io->chunk_max ? n > io->chunk_max : !lens_gheap_admit(io, addr, n)))
		return -1;
	return lens_io_read(io, addr, buf, n) ? 0 : -1;
}

static herr_t driver_write(H5FD_t *file, H5FD_mem_t type, hid_t dxpl, haddr_t addr, size_t n,
			   const void *buf)
{
	(void)type, (void)dxpl;
	lens_io_write(((struct handle *)file)->io, addr, buf, n);
	return 0; /* see io_private.h */
}

static herr_t driver_truncate(H5FD_t *file, hid_t dxpl, hbool_t closing)
{
	struct handle *h = (struct handle *)file;

	(void)dxpl, (void)closing;
	lens_io_truncate(h->io, h->eoa);
	return 0;
}

static hid_t driver_id = H5I_INVALID_HID;

static void driver_register(void)
{
	static const H5FD_class_t driver = {
#if H5_VERSION_GE(1, 13, 0)
		.version = H5FD_CLASS_VERSION,
		.value = (H5FD_class_value_t)600, /* outside the library's range */
#endif
		.name = "h5lens",
		.maxaddr = MAX_ADDR,
		.fc_degree = H5F_CLOSE_STRONG,
		.fapl_size = sizeof(struct driver_info),
		.open = driver_open,
		.close = driver_close,
		.cmp = driver_cmp,
		.query = driver_query,
		.get_eoa = driver_get_eoa,
		.set_eoa = driver_set_eoa,
		.get_eof = driver_get_eof,
		.read = driver_read,
		.write = driver_write,
		.truncate = driver_truncate,
		.fl_map = H5FD_FLMAP_DICHOTOMY,
	};

	driver_id = H5FDregister(&driver);
}

hid_t lens_h5_fapl(struct lens_io *io)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;
	struct driver_info info = { .io = io };
	hid_t fapl = H5Pcreate(H5P_FILE_ACCESS);

	pthread_once(&once, driver_register);
	/*
	 * V110: chunk indexes have checksums and, since extents are fixed, are
	 * arrays. Chunks begin on pages, so that they can be written past the page cache
	 * (io.c), and write-back of one does not affect the next; metadata comes in large
	 * blocks, so that it is not between them.
	 */
	if (fapl < 0 || H5Pset_driver(fapl, driver_id, &info) < 0 ||
	    H5Pset_fclose_degree(fapl, H5F_CLOSE_STRONG) < 0 ||
	    H5Pset_libver_bounds(fapl, H5F_LIBVER_V110, H5F_LIBVER_V110) < 0 ||
	    H5Pset_alignment(fapl, 64 << 10, 4096) < 0 ||
	    H5Pset_meta_block_size(fapl, 64 << 10) < 0) {
		H5Pclose(fapl);
		return H5I_INVALID_HID;
	}
	return fapl;
}
