#!/usr/bin/env python3
"""Checks /prompts/corrupted_text and corrupted_tokens of a run on pairs of prompts.

In: H5LENS, the program; experiments/ioi-patching.yaml, in whose CSV rows 2k and 2k+1 are each other's corrupted
prompt. The output of one file, of shards, of shards made by two tasks, and the packed one must all say so.
"""

from __future__ import annotations

import csv
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import h5py
import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "scripts"))

import h5lens  # noqa: E402
from check_shards import Checks  # noqa: E402

PROGRAM = os.environ.get("H5LENS", str(ROOT / "build/h5lens"))
EXPERIMENT = str(ROOT / "experiments/ioi-patching.yaml")
ROWS = 40


def ran(*words: str) -> str:
    """What the program says; it must succeed."""
    done = subprocess.run([PROGRAM, *words], capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{words}: exit code {done.returncode}: {done.stderr}\n0 passed, 1 failed")
    return done.stdout


def outputs(folder: Path) -> list[Path]:
    """The same run as one file, in shards, by two tasks, packed."""
    one, many, tasks, packed = (folder / f"{n}.h5" for n in ("one", "many", "tasks", "packed"))
    base = ["run", EXPERIMENT, "--limit", str(ROWS), "--quiet"]
    ran(*base, "-o", str(one))
    ran(*base, "-o", str(many), "--set", "shards.prompts=8")
    for task in ("2/2", "1/2"):
        ran(*base, "-o", str(tasks), "--set", "shards.prompts=8", "--task", task)
    ran("pack", str(many), "-o", str(packed))
    return [one, many, tasks, packed]


def check(c: Checks, path: Path, rows: list[dict[str, str]]) -> None:
    name = path.name
    with h5lens.open_run(path) as run:
        clean, corrupted = run.tokens(), run.corrupted_tokens()
        c.that(corrupted.shape == clean.shape and corrupted.dtype == np.int32, f"{name}: shape and type")
        c.that(h5py_dims(run, "corrupted_tokens") == ["prompt", "pos"], f"{name}: dimensions")
        c.that(list(run.text()) == [r["prompt"] for r in rows], f"{name}: text")
        c.that(list(run.corrupted_text()) == [r["corrupted"] for r in rows], f"{name}: corrupted_text")
        partner = np.arange(len(rows)) ^ 1
        c.that(np.array_equal(corrupted, clean[partner]), f"{name}: each other's tokens")
        c.that(bool(((corrupted != clean).sum(1) == 1).all()), f"{name}: one token apart")
        c.that("corrupted" not in run.columns and "template" in run.columns, f"{name}: no copy among the columns")
        c.that(bool(run.verify()), f"{name}: verify")


def h5py_dims(run: h5lens.Run, name: str) -> list[str]:
    d: h5py.Dataset = run.prompts.dataset(name)
    return [dim[0].name.rsplit("/", 1)[-1] for dim in d.dims]


def main() -> int:
    c = Checks()
    with (ROOT / "experiments/ioi-pairs.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))[:ROWS]
    with tempfile.TemporaryDirectory() as tmp:
        for path in outputs(Path(tmp)):
            check(c, path, rows)
    print(f"{c.passed} passed, {c.failed} failed")
    return int(c.failed > 0 or c.passed == 0)


if __name__ == "__main__":
    sys.exit(main())
