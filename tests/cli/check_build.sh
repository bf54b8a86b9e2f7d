#!/bin/sh
# Checks what `make` would call, without calling it: that flags given on the command line are there and the program's own
# are not lost, which HDF5 is taken, and what it says when pkg-config has not found everything.
set -u
cd "$(dirname "$0")/../.." || exit 1
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
. tests/cli/said.sh

# plan WORD…: the lines that make would run, in a folder where nothing is built, with an environment of our own.
plan() { env -u CFLAGS -u CPPFLAGS -u LDFLAGS -u CC -u MAKEFLAGS -u MFLAGS make -n BUILD="$work/b" "$@" > "$work/out" 2>&1; }
# has WHAT LINE WORD…: the line that has LINE has each word, those of one argument beside each other.
has() {
	what=$1 line=$(grep -F -- "$2" "$work/out" | grep -v '^echo' | head -n 1)
	shift 2
	for word; do
		case " $line " in
		*" $word "*) passed=$((passed + 1)) ;;
		*) failed=$((failed + 1)) && echo "FAIL $what: no '$word' in: $line" ;;
		esac
	done
}

mkdir "$work/pc"
for p in hdf5 jansson yaml-0.1 libpcre2-8 libutf8proc libcrypto libzip libxxhash; do
	printf 'Name: %s\nDescription: x\nVersion: 1\nCflags: -I/private/%s\nLibs: -L/private/lib -l%s\n' $p $p $p > "$work/pc/$p.pc"
done
own='-std=c11 -fopenmp -ffp-contract=off -Wall -D_GNU_SOURCE -Iinclude'
plan
# shellcheck disable=SC2086  # words
has "as it is" src/core/alloc.c cc -O2 $own
plan CC=other CFLAGS='-O1 -march=native' CPPFLAGS=-I/mine LDFLAGS=-L/mine/lib
# shellcheck disable=SC2086
has "with flags" src/core/alloc.c other -I/mine '-O2 -g -O1 -march=native -std=c11' $own
has "kernels with flags" src/kernels/vec_avx2.c other '-mavx2 -mfma -mf16c -O3 -ffp-contract=fast'
has "kernels with flags" src/kernels/vec_avx512.c other '-mavx512f -mavx512bw'
has "linking with flags" "-o $work/b/h5lens " other -L/mine/lib -fopenmp -lcsv
PKG_CONFIG_LIBDIR=$work/pc plan
has "another HDF5" "-o $work/b/h5lens " -lhdf5 -lhdf5_hl -L/private/lib
has "another HDF5" src/core/alloc.c -I/private/hdf5
cp "$work/pc/hdf5.pc" "$work/pc/hdf5-serial.pc"
PKG_CONFIG_LIBDIR=$work/pc plan
has "the serial HDF5 first" "-o $work/b/h5lens " -lhdf5_serial_hl
rm "$work/pc/libzip.pc"
stops() { plan "$@" && return; rc=$? && grep -e '\*\*\*' -e '^Package' "$work/out" && return $rc; }
PKG_CONFIG_LIBDIR=$work/pc t "one library is missing: its name" 2 "^Package.*libzip" stops
PKG_CONFIG_LIBDIR=$work/pc t "and what to do" 2 'has not found all.*libzip.*make deps.*PKG_CONFIG_PATH' stops
t "no pkg-config" 2 'no-such-program has not found all' stops PKG_CONFIG="$work/no-such-program"
echo "$passed passed, $failed failed"
[ $failed = 0 ]
