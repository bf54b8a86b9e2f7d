#!/bin/sh
# Whether a bundle runs where nothing is installed: in a chroot that debootstrap made, of another release if you like.
#
#     debootstrap --variant=minbase trixie /srv/trixie http://deb.debian.org/debian
#     sh scripts/check_bundle.sh build/h5lens-VERSION-linux-x86_64.tar.gz /srv/trixie [PYTHON [PROMPTS]]
#
# Unpacks it there and, inside: ldd; --version; the demo's experiment on the shipped model, with both CPU levels where the
# machine has both; verify. Then every dataset's digest is held against the ordinary program's (build/h5lens). As root.
set -eu
tar=$1 root=$2 python=${3:-build/venv/bin/python} prompts=${4:-100}
h5lens=${H5LENS:-build/h5lens}
name=$(basename "$tar" .tar.gz)
work=$(mktemp -d)
mounted=
trap '[ -z "$mounted" ] || umount "$root/proc"; rm -rf "$work" "$root/opt/$name" "$root/opt/experiments" "$root/opt/out"' EXIT

echo "chroot: $(. "$root/etc/os-release" && echo "$PRETTY_NAME"), glibc $(chroot "$root" ldd --version | sed -n '1s/.* //p')"
mkdir -p "$root/opt/out"
[ -e "$root/proc/self" ] || { mount -t proc proc "$root/proc" && mounted=1; } # where the loader learns in which folder the program is
tar -C "$root/opt" -xzf "$tar"
cp -r experiments "$root/opt"
inside() { chroot "$root" env -i PATH=/usr/bin:/bin "$@"; }
for lib in $(inside find "/opt/$name/lib" -name '*.so*'); do
	inside sh -c "LD_LIBRARY_PATH=/opt/$name/lib ldd $lib" | grep 'not found' && exit 1
done
inside ldd "/opt/$name/bin/h5lens" | sed "s|/opt/$name/bin/../||" | awk '{print "  " $1, $2, $3}'
inside "/opt/$name/bin/h5lens" --version
levels=avx2
! grep -q avx512bw /proc/cpuinfo || levels="avx2 avx512"
for level in $levels; do
	inside "/opt/$name/bin/h5lens" run /opt/experiments/ioi.yaml -o /opt/out/$level.h5 --limit "$prompts" --cpu $level > "$work/log" 2>&1 ||
		{ echo "exit code $?" && cat "$work/log" && exit 1; }
	inside "/opt/$name/bin/h5lens" verify /opt/out/$level.h5 | tail -n 1
	"$h5lens" run experiments/ioi.yaml -o "$work/$level.h5" --limit "$prompts" --cpu $level > "$work/log" 2>&1
	PYTHONPATH=scripts "$python" - "$root/opt/out/$level.h5" "$work/$level.h5" $level <<-'END'
	import sys, h5lens
	def digests(path):  # but for shards/sha256, of attributes, too: paths are among them
	    with h5lens.open_run(path) as run:
	        files = [(str(s.name), s) for s in run.shards] or [("", path)]
	    found = {}
	    for name, file in [("", path), *files]:
	        with h5lens.files._open_hdf5(h5lens.Path(file)) as f:
	            found |= {f"{name}{n}": d.attrs["sha256"] for n, d in h5lens.datasets._datasets(f) if "sha256" in d.attrs and not n.startswith("shards/")}
	    return found
	a, b = digests(sys.argv[1]), digests(sys.argv[2])
	if a != b or not a:
	    sys.exit(f"{sys.argv[3]}: digests differ: {[k for k in {*a, *b} if a.get(k) != b.get(k)][:5]}")
	print(f"{sys.argv[3]}: all {len(a)} digests equal those of the ordinary build")
	END
done
