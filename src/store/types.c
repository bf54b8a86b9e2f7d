/*
 * store/types.c: enum lens_dtype and HDF5's types; names.
 */
#include <pthread.h>
#include <string.h>

#include "store/store_private.h"

static hid_t half_type = H5I_INVALID_HID, string_type = H5I_INVALID_HID;

const char *lens_dtype_name(int t)
{
	static const char *const name[] = {
		[LENS_F16] = "float16", [LENS_F32] = "float32", [LENS_F64] = "float64",
		[LENS_I32] = "int32",   [LENS_I64] = "int64",   [LENS_U8] = "uint8",
		[LENS_STR] = "string",
	};

	return t >= 0 && t <= LENS_STR ? name[t] : "other";
}

/* IEEE 754 binary16: sign 15, exponent 10..14 with bias 15, mantissa 0..9. */
static void make_types(void)
{
	half_type = H5Tcopy(H5T_IEEE_F32LE);
	if (H5Tset_fields(half_type, 15, 10, 5, 0, 10) < 0 || H5Tset_size(half_type, 2) < 0 ||
	    H5Tset_ebias(half_type, 15) < 0)
		half_type = H5I_INVALID_HID;
	string_type = H5Tcopy(H5T_C_S1);
	if (H5Tset_size(string_type, H5T_VARIABLE) < 0 ||
	    H5Tset_cset(string_type, H5T_CSET_UTF8) < 0)
		string_type = H5I_INVALID_HID;
}

hid_t lens_h5_type(enum lens_dtype t)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;

	pthread_once(&once, make_types);
	switch (t) {
	case LENS_F16:
		return half_type;
	case LENS_F32:
		return H5T_IEEE_F32LE;
	case LENS_F64:
		return H5T_IEEE_F64LE;
	case LENS_I32:
		return H5T_STD_I32LE;
	case LENS_I64:
		return H5T_STD_I64LE;
	case LENS_U8:
		return H5T_STD_U8LE;
	case LENS_STR:
		return string_type;
	}
	return H5I_INVALID_HID;
}

int lens_h5_dtype(hid_t type)
{
	enum lens_dtype t;

	if (H5Tis_variable_str(type) > 0)
		return LENS_STR;
	for (t = LENS_F16; t < LENS_STR; t++) {
		if (H5Tequal(type, lens_h5_type(t)) > 0)
			return (int)t;
	}
	return -1;
}
