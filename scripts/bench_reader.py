#!/usr/bin/env python3
"""Prints how fast the reader is: rows of a whole cache, tokens in batches, one layer at the read position, a DataLoader.

    python scripts/bench_reader.py [OUT.h5] [--hook NAME] [--repeats N] [--cold]

OUT.h5 is an output with all positions, by default the demo's (build/demo/ioi.h5). Warm is with the file in the system's
page cache, as after the first of the repeats; --cold drops the files of the run from it before each epoch. Each figure is the
best of the repeats, in wall and in CPU time: on a machine that does other things the second says more.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from pathlib import Path

import h5lens
import numpy as np

ROOT = Path(__file__).resolve().parents[1]


def best(repeats: int, use: Callable[[], object], before: Callable[[], None] = lambda: None) -> tuple[float, float]:
    """Seconds of wall time and of CPU time."""
    found = []
    for _ in range(repeats):
        before()
        wall, cpu = time.perf_counter(), time.process_time()
        use()
        found.append((time.perf_counter() - wall, time.process_time() - cpu))
    return min(f[0] for f in found), min(f[1] for f in found)


def drop(run: h5lens.Run) -> None:
    for path in [run.path, *run.shards]:
        fd = os.open(path, os.O_RDONLY)
        os.fsync(fd)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(fd)


def say(what: str, seconds: tuple[float, float], amount: float, unit: str) -> None:
    wall, cpu = seconds
    print(f"{what:52} {1e3 * wall:7.1f} ms, {1e3 * cpu:7.1f} ms of CPU; {amount / wall / 1e6:.2f} {unit}, "
          f"by CPU {amount / cpu / 1e6:.2f}")


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("file", nargs="?", type=Path, default=ROOT / "build/demo/ioi.h5")
    p.add_argument("--hook", default="", help="by default the last layer's resid_post")
    p.add_argument("--repeats", type=int, default=7)
    p.add_argument("--cold", action="store_true")
    args = p.parse_args()
    with h5lens.open_run(args.file) as run:
        hook = args.hook or run.name("resid_post", -1)
        tokens, rng = len(run.cache(hook, pos="tokens").row), np.random.default_rng(0)
        rows = rng.choice(len(run), min(64, len(run)), replace=False)
        got = run.activation_cache(rows)
        size = sum({id(x): x.nbytes for x in got.values()}.values())
        print(f"{args.file}: {len(run)} prompts, {tokens} tokens of {hook}, {len(run.shards)} shards")
        say(f"activation_cache of {len(rows)} random rows, {size / 1e6:.0f} MB",
            best(args.repeats, lambda: run.activation_cache(rows)), size, "MB/s")
        say("cache(pos=\"read\")", best(args.repeats, lambda: run.cache(hook, pos="read")), len(run), "M prompts/s")
        say("cache(pos=\"tokens\")", best(args.repeats, lambda: run.cache(hook, pos="tokens")), tokens, "M tokens/s")
        for what, more in (("shuffled", {}), ("in the file's order", {"shuffle": False}),
                           ("shuffled, a buffer of 8 MiB", {"buffer_bytes": 8 << 20})):
            say(f"batches of 4,096 tokens, {what}",
                best(args.repeats, lambda more=more: sum(1 for _ in run.batches(hook, 4096, **more))), tokens, "M tokens/s")
        if args.cold:
            say("batches of 4,096 tokens, shuffled, cold",
                best(args.repeats, lambda: sum(1 for _ in run.batches(hook, 4096)), lambda: drop(run)), tokens, "M tokens/s")
    try:
        from h5lens.torch import TokenDataset
        from torch.utils.data import DataLoader
    except ImportError:
        print("skipped: DataLoader: torch is not installed")
        return
    loader = DataLoader(TokenDataset(args.file, hook, 4096), batch_size=None, num_workers=2, persistent_workers=True)
    say("DataLoader, 2 workers that live on", best(args.repeats, lambda: sum(1 for _ in loader)), tokens, "M tokens/s")


if __name__ == "__main__":
    main()
