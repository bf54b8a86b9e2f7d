"""Checks that scripts/h5lens gives the same arrays of a run with padding and of one without (cache.layout: ragged).

The program makes both, in one file, in shards and packed. Damage is found, a missing shard told, and what a user types
about the layout answered: a wrong word, another layout over a finished output, verify, info and --dry-run.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import h5py
import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "scripts"))

import checks  # noqa: E402
import h5lens  # noqa: E402

H5LENS = os.environ.get("H5LENS", str(ROOT / "build" / "h5lens"))
HOOKS = "*resid_pre,*resid_post,blocks.0.*,ln_final*,logits"
ROWS, SHARD = 30, 7
WAYS: tuple[tuple[str, ...], ...] = (
    (), ("--dtype", "f16"), ("--positions", "last"), ("--positions", "[0,-2,18,-30]"), ("--read-pos", "3", "--positions", "read"))


class Checks(checks.Checks):
    def same(self, a: Any, b: Any, what: str) -> None:
        a, b = np.ascontiguousarray(a), np.ascontiguousarray(b)
        same = a.shape == b.shape and a.dtype == b.dtype and np.array_equal(a.view("u1"), b.view("u1"))
        self.that(same, f"{what}: {a.dtype} {a.shape} and {b.dtype} {b.shape}")


def h5lens_run(*args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([H5LENS, *args], capture_output=True, text=True, check=False)


def make(out: Path, *args: str) -> Path:
    done = h5lens_run("run", str(ROOT / "experiments" / "ioi.yaml"), "-o", str(out), "--limit", str(ROWS), "--hooks", HOOKS,
                      "--overwrite", *args)
    if done.returncode:
        raise RuntimeError(done.stderr)
    return out


# --- the same arrays -----------------------------------------------------------------

def compare_hook(c: Checks, a: h5lens.Run, b: h5lens.Run, hook: str) -> None:
    x, y = a.dataset(hook), b.dataset(hook)
    c.that(a.dims(hook) == b.dims(hook) and x.shape == y.shape and x.ndim == y.ndim and x.size == y.size
           and len(x) == len(y), f"{hook}: dimensions {b.dims(hook)} {y.shape}")
    c.same(a.cache(hook), b.cache(hook), f"{hook}, all")
    for rows in (3, -1, slice(0, 5), slice(-3, None), slice(1, None, 6), [5, 2, 2, 9], np.arange(ROWS) % 4 == 1, []):
        c.same(a.cache(hook, rows=rows), b.cache(hook, rows=rows), f"{hook}, rows {rows}")
    for key in (np.s_[3], np.s_[0:9, 0], np.s_[2:4, ..., 0], np.s_[..., -1], np.s_[5:8, :, 0:1], np.s_[[1, 4], -1:]):
        c.same(x[key], y[key], f"{hook}[{key}]")
    c.same(a.cache(hook, rows=4, dtype="f8"), b.cache(hook, rows=4, dtype="f8"), f"{hook}, float64")
    into = np.zeros(y[2:5].shape, y.dtype)
    y.read_direct(into, np.s_[2:5])
    c.same(x[2:5], into, f"{hook}, read_direct")


def compare_tokens(c: Checks, a: h5lens.Run, b: h5lens.Run, hook: str) -> None:
    """[token, …], as it is in the file, and made of what has padding."""
    for rows in (None, slice(3, 11), [7, 1, 1], 4):
        x, y = a.by_token(hook, rows=rows), b.by_token(hook, rows=rows)
        c.same(x, y, f"{hook} by token, rows {rows}")
        row, pos = b.token_places(rows)
        c.that(len(row) == len(pos) == len(y), f"{hook}: places of rows {rows}")
        at = b.positions(rows if rows is None else h5lens.datasets._index(rows, len(b)))
        c.that(np.array_equal(pos, at[at >= 0]), f"{hook}: positions of rows {rows}")
        whole = [np.flatnonzero(b.positions(int(r)) == p)[0] for r, p in zip(row, pos)]
        c.same(y, b.cache(hook)[row, whole], f"{hook}: rows {rows} of the padded array")


def compare(c: Checks, padded: Path, ragged: Path) -> None:
    with h5lens.open_run(padded) as a, h5lens.open_run(ragged) as b:
        c.that(a.hooks == b.hooks and a.aliases == b.aliases and a.hooks, f"hooks: {b.hooks}")
        for hook in a.hooks:
            compare_hook(c, a, b, hook)
            if "pattern" not in hook and "scores" not in hook:
                compare_tokens(c, a, b, hook)
        rows = [0, ROWS - 1, 5]
        for how in ({}, {"pos": -1}, {"pos": "read"}, {"pos": slice(1, -1)}, {"fill": 0.0}):
            got = []
            for run in (a, b):
                try:
                    got.append(run.activation_cache(rows, **how))
                except IndexError as e:
                    got.append({"error": np.frombuffer(str(e).encode(), "u1")})
            c.that(list(got[0]) == list(got[1]), f"activation_cache: {how}")
            for name in got[0]:
                c.same(got[0][name], got[1][name], f"activation_cache({how})[{name}]")
        c.same(a.accumulated_resid(rows, apply_ln=True), b.accumulated_resid(rows, apply_ln=True), "accumulated_resid")
        for hook in ("blocks.0.attn.hook_pattern", "blocks.0.attn.hook_attn_scores"):
            try:
                b.by_token(hook)
                c.that(False, f"{hook} by token")
            except ValueError as e:
                c.that("not one array for each token" in str(e), f"{hook} by token: {e}")
        found = b.verify()
        c.that(found and any("tokens/" in name for name in found.matched), f"verify: {found.wrong}")


def check_same(c: Checks, work: Path) -> None:
    for i, way in enumerate(WAYS):
        padded = make(work / "padded.h5", *way)
        ragged = make(work / "ragged.h5", "--layout", "ragged", *way)
        compare(c, padded, ragged)
        if i not in (0, 3):
            continue
        shards = make(work / "sharded.h5", "--layout", "ragged", "--set", f"shards.prompts={SHARD}", *way)
        compare(c, padded, shards)
        done = h5lens_run("pack", str(shards), "-o", str(work / "packed.h5"), "--overwrite")
        c.that(done.returncode == 0, f"pack: {done.stderr}")
        compare(c, padded, work / "packed.h5")


# --- no padding ------------------------------------------------------------------------

def check_bytes(c: Checks, work: Path) -> None:
    """What --dry-run says is what is written, and of token-wise activations there is no padding."""
    out = make(work / "ragged.h5", "--layout", "ragged")
    with h5py.File(out) as f:
        first, tokens = f["prompts/first_token"], f["prompts/length"][...].sum()
        c.that(first.dtype == np.int64 and first.shape == (ROWS,), "first_token")
        c.that(f["token"].shape == (tokens,) and f["tokens/logits"].shape[0] == tokens, "/token")
        c.that(not any("resid" in name for name in f["cache"]), f"/cache: {list(f['cache'])}")
        stored = {name: (d.id.get_storage_size(), d.size * d.dtype.itemsize) for name, d in f["tokens"].items()}
    c.that(all(file == data for file, data in stored.values()), f"padding: {stored}")
    said = h5lens_run("run", str(ROOT / "experiments" / "ioi.yaml"), "-o", str(work / "new.h5"), "--limit", str(ROWS), "--hooks",
                      HOOKS, "--layout", "ragged", "--dry-run").stdout
    lines = [line for line in said.splitlines() if line.startswith("/tokens/") and "×" in line]
    c.that(len(lines) > 10 and all(line.endswith(" 0 B") for line in lines), f"--dry-run: {said[:400]}")
    c.that(re.search(rf"/tokens/logits +{tokens}×2048 ", said), "--dry-run: the shape of logits")
    info = h5lens_run("info", str(out)).stdout
    c.that(re.search(rf"/tokens/logits +float32 \[token {tokens}, d_vocab 2048\]", info), "info")


# --- what goes wrong ---------------------------------------------------------------------

def check_damage(c: Checks, work: Path) -> None:
    out = make(work / "sharded.h5", "--layout", "ragged", "--set", f"shards.prompts={SHARD}")
    shard = work / "sharded.shards" / "00001.h5"
    kept = shard.read_bytes()
    with h5py.File(shard) as f:
        place = f["tokens/blocks.0.hook_resid_pre"].id.get_chunk_info(0).byte_offset
    shard.write_bytes(kept[:place + 9] + bytes([kept[place + 9] ^ 1]) + kept[place + 10:])
    done = h5lens_run("verify", str(out))
    c.that(done.returncode == 1 and "00001.h5: /tokens/blocks.0.hook_resid_pre: chunk [0,0]" in done.stderr,
           f"verify of a damaged shard: {done.stderr}")
    with h5lens.open_run(out) as run:
        c.that(any("tokens/blocks.0.hook_resid_pre" in name for name in run.verify().wrong), "the reader finds it")
    shard.write_bytes(kept)
    done = h5lens_run("verify", str(out))
    c.that(done.returncode == 0, f"verify: {done.stdout}")
    shard.unlink()
    try:
        h5lens.open_run(out).close()
        c.that(False, "a missing shard")
    except h5lens.H5LensError as e:
        c.that("00001.h5 is missing" in str(e), f"a missing shard: {e}")


def check_typed(c: Checks, work: Path) -> None:
    out = make(work / "padded.h5")
    run = "run", str(ROOT / "experiments" / "ioi.yaml"), "-o", str(out), "--limit", str(ROWS), "--hooks", HOOKS
    for args, said in ((("--layout", "rugged"), "cache.layout: expected padded | ragged, not 'rugged'"),
                       (("--set", "cache.layout=[ragged]"), "cache.layout: "),
                       (("--layout", "ragged"), 'cache.layout: "padded" there, "ragged" here')):
        done = h5lens_run(*run, *args)
        c.that(done.returncode and said in done.stderr, f"{args}: {done.stderr}")
    done = h5lens_run(*run, "--layout", "padded")
    c.that(done.returncode == 0, f"padded, as if nothing were said: {done.stderr}")


def main() -> int:
    c = Checks()
    with tempfile.TemporaryDirectory() as folder:
        for check in (check_same, check_bytes, check_damage, check_typed):
            check(c, Path(folder))
    return c.end()


if __name__ == "__main__":
    sys.exit(main())
