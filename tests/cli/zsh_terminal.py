"""Types beginnings of commands and a tab into zsh, in a terminal of its own; FOLDER has the file _h5lens."""

from __future__ import annotations

import os
import pty
import re
import select
import sys
import time

WANT = {"h5lens sho": "show", "h5lens run --dry": "run --dry-run", "h5lens run --set cpu=avx5": "run --set cpu=avx512",
        "h5lens run --hooks blocks.*.attn.hook_pat": "run --hooks blocks.*.attn.hook_pattern",
        "h5lens run --tables loss,ent": "run --tables loss,entropy", "h5lens export --tab": "export --tables"}


def read(fd: int, until: str, seconds: float = 20) -> str:
    out, end = "", time.monotonic() + seconds
    while not re.search(until, out) and time.monotonic() < end:
        if select.select([fd], [], [], 0.1)[0]:
            try:
                out += os.read(fd, 65536).decode(errors="replace")
            except OSError:
                break
    return out


def main(folder: str) -> None:
    pid, fd = pty.fork()
    if not pid:
        os.environ["TERM"] = "dumb"
        os.execvp("zsh", ["zsh", "-f", "-i"])
    # Split, so that what is typed does not look like what is printed.
    os.write(fd, (f"PS1=''; fpath=({folder} $fpath); autoload -U compinit; compinit -u -D; setopt no_nomatch; "
                  "h5lens() { print -r -- \"GO\"\"T<$*>\" }; print REA\"\"DY\n").encode())
    read(fd, "READY")
    good = 0
    for typed, want in WANT.items():
        os.write(fd, f"{typed}\t".encode())
        read(fd, "nothing", 1.5)
        os.write(fd, b"\n")
        got = re.findall("GOT<(.*)>", read(fd, "GOT<.*>"))
        good += got == [want]
        if got != [want]:
            print(f"{typed}: {got}, not {want}")
    os.write(fd, b"exit\n")
    print(f"{good} of {len(WANT)}")


if __name__ == "__main__":
    main(sys.argv[1])
