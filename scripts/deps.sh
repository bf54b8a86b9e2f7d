#!/bin/sh
# Installs the Debian packages that are missing (as root, or through sudo). On
# another system it says by name what to install. Arguments: the packages that
# building, running, reading and plotting need, which must be had; and those of
# tests and analysers. A release may lack one of these: then it says what will be
# skipped, and goes on.
set -eu

if ! command -v dpkg-query >/dev/null || ! command -v apt-get >/dev/null; then
	cat <<-END
	This is not a Debian system: please install, with headers,
	  a C11 compiler with OpenMP (gcc or clang), make, pkg-config
	  HDF5 1.10 or later with its HL library (serial), OpenBLAS (DYNAMIC_ARCH, libopenblas.so.0),
	  libcsv, jansson, libyaml, PCRE2 (8 bit), utf8proc, OpenSSL, libzip, xxHash, Python 3.11 or later with venv
	and for the tests: cmocka, hdf5-tools (h5dump).
	Debian's names are: $1 $2
	END
	exit 0
fi

missing() {
	for p; do
		dpkg-query -W -f='${Status}' "$p" 2>/dev/null | grep -q 'ok installed' || echo "$p"
	done
}
needed_by() {
	case $1 in
	libcmocka-dev) echo "the unit tests; make test fails without it" ;;
	hdf5-tools) echo "make test, which skips h5dump without it" ;;
	clang-format) echo "make format" ;;
	clang-tidy) echo "make tidy" ;;
	clang | libclang-rt-dev | libomp-dev) echo "make fuzz" ;;
	cppcheck) echo "make analyze" ;;
	valgrind) echo "make valgrind" ;;
	slurm-wlm | munge) echo "make slurm-test" ;;
	chromium) echo "make report-test" ;;
	esac
}

# shellcheck disable=SC2086  # lists of words, here and below
must=$(missing $1) tests=$(missing $2)
[ -n "$must$tests" ] || exit 0

root=
[ "$(id -u)" = 0 ] || root=sudo
if [ "$root" ] && ! command -v sudo >/dev/null; then
	echo "run as root: apt-get install" $must $tests >&2
	[ -z "$must" ] || exit 1
	exit 0
fi
install() { $root env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends "$@"; }
$root apt-get update -q || [ -z "$must" ]
if [ -n "$must" ]; then
	echo "installing:" $must
	install $must
fi

# One that cannot be had must not keep the others away.
some=
for p in $tests; do
	if apt-get install -s -q --no-install-recommends $some $p >/dev/null 2>&1; then
		some="$some $p"
	fi
done
if [ -n "$some" ]; then
	echo "installing, for the tests:$some"
	install $some || true # told below
fi
for p in $(missing $tests); do
	echo "warning: $p could not be installed: it is for $(needed_by $p)" >&2
done
