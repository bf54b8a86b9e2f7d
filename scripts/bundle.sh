#!/bin/sh
# Makes a tar file that runs on any Linux with a glibc as new as this machine's libraries ask for: the program, linked so
# that it looks for libraries in ../lib, all of them but glibc's, OpenBLAS included, which it opens with dlopen; reader, man
# page, licences. Arguments: the program, its version, a folder to work in, the tar file. Called by `make bundle`.
set -eu
bin=$1 version=$2 out=$4
name=h5lens-$version-linux-x86_64
top=$3/$name
fail() { echo "bundle.sh: $*" >&2 && exit 1; }

rm -rf "$top"
make -s --no-print-directory install DESTDIR="$top" PREFIX=
install -s -m 755 "$bin" "$top/bin/h5lens"
mkdir -p "$top/lib" "$top/share/doc/h5lens/licenses"
cp README.md LICENSE "$top/share/doc/h5lens"

# Where the loader finds what the program needs, and libopenblas.so.0, of which only dlopen knows.
loads() { LD_TRACE_LOADED_OBJECTS=1 LD_PRELOAD=libopenblas.so.0 "$1" | sed -n 's/^\t\(.* => \)\?\(\/[^ ]*\) (0x.*/\2/p;/not found/p' | sort -u; }
loads "$bin" > "$3/loads"
grep 'not found' "$3/loads" && fail "not here, so it cannot go along"
grep -q libopenblas "$3/loads" || fail "libopenblas.so.0 is not here, so it cannot go along"

# glibc is the machine's own: another one with its loader would not work.
glibc='^(ld-linux.*|libc|libm|libpthread|libdl|librt|libresolv|libutil|libmvec|libanl|libnsl|libnss_.*|libBrokenLocale|libthread_db)\.so'
while read -r lib; do
	so=$(basename "$lib")
	echo "$so" | grep -Eq "$glibc" && continue
	cp -L "$lib" "$top/lib/$so"
	strip --strip-unneeded "$top/lib/$so"
	real=$(readlink -f "$lib")
	pkg=$(dpkg-query -S "$lib" "$real" "$(echo "$real" | sed 's|^/usr||')" 2>/dev/null | head -n 1 | cut -d: -f1) || true
	if [ -n "$pkg" ] && [ -e "/usr/share/doc/$pkg/copyright" ]; then
		cp -L "/usr/share/doc/$pkg/copyright" "$top/share/doc/h5lens/licenses/$pkg"
		printf '%s\t%s\t%s\n' "$so" "$pkg" "$(dpkg-query -W -f='${Version}' "$pkg")" >> "$top/share/doc/h5lens/licenses/libraries.tsv"
	else
		echo "bundle.sh: warning: whose $lib is, and its licence, is not known here (no Debian package)" >&2
	fi
done < "$3/loads"

# Not one may be found outside the folder.
loads "$top/bin/h5lens" | grep -Ev "^$top/|/bin/\.\./lib/|/$(echo "$glibc" | cut -c2-)" && fail "found outside the bundle"
glibc_version=$(objdump -T "$top/bin/h5lens" "$top"/lib/*.so* | grep -o 'GLIBC_[0-9.]*' | sort -Vu | tail -n 1 | cut -d_ -f2)
cat > "$top/README" <<END
h5lens $version for Linux on x86_64 with AVX2 (Haswell, Zen or later; AVX-512 is used where it is there),
glibc $glibc_version or later (\`ldd --version\`). Unpack it anywhere and run bin/h5lens; nothing has to be installed. It may be moved
as a whole. The libraries in lib/ are found through the program's own path, before LD_LIBRARY_PATH.

  bin/h5lens --help
  MANPATH=\$PWD/share/man: man h5lens
  PYTHONPATH=\$PWD/share/h5lens/python python3 -c 'import h5lens'     (needs numpy and h5py)

share/doc/h5lens has the manual (README.md), the licence, and in licenses/ those of the libraries.
END
tar -C "$3" --sort=name --owner=0 --group=0 --numeric-owner --mtime="@${SOURCE_DATE_EPOCH:-$(date +%s)}" -czf "$out" "$name"
echo "$out: $(du -h "$out" | cut -f1), $(ls "$top/lib" | wc -l) libraries, glibc $glibc_version or later"
