"""Checks `h5lens export` and `show`: what pandas reads back is the file, bit for bit; texts survive; what is
asked for in vain is named; a terminal's table counts wide characters."""

from __future__ import annotations

import csv
import os
import shutil
import subprocess
import sys
import tempfile
import unicodedata
from pathlib import Path

import h5py
import numpy as np
import pandas as pd

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "scripts"))

import checks  # noqa: E402
import h5lens  # noqa: E402

PROGRAM = os.environ.get("H5LENS", str(ROOT / "build/h5lens"))
MODEL = ROOT / "experiments/demo-gpt2"

# Quotes, commas, newlines, wide and combining characters, spaces at the ends, names that collide.
ROWS = [
    ("When John and Mary went to the shops, John gave the bag to", " Mary", " John", 'a "b", c', "0.5", "x"),
    ("The king said, \"Go\".\nThen Tom and Sophie met, and Tom saw", " Sophie", " Tom", "日本語", "", "y"),
    ("While Nina and Eva slept, Nina dreamt of", " Eva", " Nina", " e\u0301 ", "1e-3", "x"),
    ("Tom", " Sophie", " Tom", "line\r\nend", "3", "y"),
    ("Lucy and Eva ran. Lucy called", " Eva", " Lucy", "", "-0.0", "x"),
]
COLUMNS = ["prompt", "correct", "incorrect", "note", "number", "logit_diff"]


class Checks(checks.Checks):
    def fails(self, code: int, part: str, *args: object) -> None:
        r = call(*args)
        self.that(r.returncode == code and part in r.stderr, f"{args}: {r.returncode}, '{part}' in: {r.stderr}")


def call(*args: object, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([PROGRAM, *map(str, args)], capture_output=True, encoding="utf-8", env={**os.environ, **env},
                          check=False)


def run(out: Path, data: Path, *args: object) -> Path:
    r = call("run", "--model", MODEL, "--data", data, "--answers", "correct,incorrect", "-o", out, *args)
    if r.returncode:
        raise SystemExit(f"run: {r.stderr}")
    return out


def frame(path: Path) -> pd.DataFrame:
    return pd.read_csv(path)


def same_bits(read: pd.Series, want: np.ndarray) -> bool:
    """NaN is the same whatever its bits."""
    got = read.to_numpy().astype(want.dtype)
    bits = f"u{want.dtype.itemsize}"
    return got.shape == want.shape and bool(np.all((got.view(bits) == want.view(bits)) | ((got != got) & (want != want))))


def check_plain(c: Checks, out: Path, work: Path) -> None:
    """A row a prompt."""
    path = work / "plain.csv"
    c.that(call("export", out, "-o", path).returncode == 0, "export")
    with h5lens.open_run(out) as r, open(path, encoding="utf-8", newline="") as f:
        rows = list(csv.DictReader(f))
        d = frame(path)
        results = r.results
        for name, col, k in (("logit_diff", "logit_diff", 0), ("answer_logit", "answer_logit_incorrect", 1),
                             ("answer_prob", "answer_prob_correct", 0), ("answer_rank", "answer_rank_incorrect", 1)):
            c.that(same_bits(d[col], results[name][:, k]), f"{out.name}: {col}")
        c.that([x["text"] for x in rows] == [x[0] for x in ROWS], "texts")
        c.that([x["note"] for x in rows] == [x[3] for x in ROWS], "texts of a column")
        c.that([x["correct"] for x in rows] == [x[1] for x in ROWS], "answers")
        c.that([x["logit_diff.1"] for x in rows] == [x[5] for x in ROWS], "a column named as a table")
        c.that(same_bits(d["number"], np.array([0.5, np.nan, 1e-3, 3, -0.0])), "a column of numbers")
        c.that(list(d["prompt"]) == list(range(len(ROWS))), "prompts are counted from 0")
    c.that(call("export", out).stdout == path.read_text(encoding="utf-8").replace("\r\n", "\n"), "to standard output")
    c.fails(2, "--overwrite replaces it", "export", out, "-o", path)
    c.that(call("export", out, "-o", path, "--overwrite", "--rows", "1:3", "--columns", "none").returncode == 0, "rows")
    c.that(list(frame(path)["prompt"]) == [1, 2] and "text" not in frame(path), "rows 1:3, no columns")
    c.that(not list(work.glob("*.part")), "nothing half written is left")


def long_form(run_: h5lens.Run, name: str, pos: bool) -> np.ndarray:
    """The cells of a table in order, without those past a prompt's end."""
    v = np.asarray(run_.results[name][:])
    if not pos:
        return v.ravel()
    return np.concatenate([x[:n].ravel() for x, n in zip(v, run_.prompts["length"][:])])


def check_long(c: Checks, out: Path, work: Path) -> None:
    """A row a cell, virtual tables too."""
    path = work / "long.csv"
    with h5lens.open_run(out) as r:
        for name, pos in (("rank_per_layer", False), ("head_scores", False), ("neuron_attrs", False), ("token_logprobs", True),
                          ("pos_top_logits", True), ("pos_top_tokens", True)):
            c.that(call("export", out, "--tables", name, "-o", path, "--overwrite").returncode == 0, name)
            d = frame(path)
            c.that(same_bits(d["value"], long_form(r, name, pos)), f"{out.name}: {name}")
        labels = r.labels("score")
    call("export", out, "--tables", "head_scores", "--columns", "correct", "-o", path, "--overwrite")
    d = frame(path)
    c.that(list(d.columns) == ["prompt", "correct", "layer", "head", "score", "value"], "axes are columns")
    c.that(list(d["score"][: len(labels)]) == list(labels), "labels")


def check_folder(c: Checks, out: Path, work: Path) -> None:
    c.that(call("export", out, "-o", f"{work}/all/").returncode == 0, "a folder")
    with h5py.File(out) as f:
        names: list[str] = []
        f["results"].visititems(lambda n, d: names.append(n) if isinstance(d, h5py.Dataset) else None)
    alone = {p.stem for p in (work / "all").iterdir()} - {"prompts"}
    together = {n for n in names if n in frame(work / "all/prompts.csv") or f"{n}_correct" in frame(work / "all/prompts.csv")}
    c.that(alone | together == set(names) and not alone & together and "head_scores" in alone, "each table has its place")
    c.that("answer_rank_correct" in frame(work / "all/prompts.csv"), "what has a row a prompt is together")


def check_activations(c: Checks, work: Path, data: Path) -> None:
    """By path or by name; what has a row a token is refused."""
    hook = "blocks.0.hook_resid_post"
    padded = run(work / "padded.h5", data, "--hooks", hook)
    ragged = run(work / "ragged.h5", data, "--hooks", hook, "--layout", "ragged")
    said = [call("export", padded, "--tables", name, "-o", "-") for name in (hook, f"cache/{hook}", f"/cache/{hook}")]
    c.that(all(s.returncode == 0 and s.stdout == said[0].stdout for s in said) and len(said[0].stdout) > 1000,
           f"an activation's names: {said[1].stderr}")
    for name in (hook, f"tokens/{hook}", f"/tokens/{hook}"):
        c.fails(2, f"'{name}' has a row a token (cache.layout: ragged)", "export", ragged, "--tables", name)
    c.fails(2, "no table 'cache/x'", "export", ragged, "--tables", "cache/x")


def check_bad(c: Checks, out: Path, work: Path) -> None:
    c.fails(2, "did you mean 'logit_diff'", "export", out, "--tables", "logit_dif")
    c.fails(2, "did you mean 'note'", "export", out, "--columns", "noet")
    c.fails(2, "no such row; there are 5", "export", out, "--rows", "5:")
    c.fails(2, "no such row", "export", out, "--rows", "3:3")
    c.fails(2, "not 'x'", "export", out, "--rows", "x")
    c.fails(2, "ask for it alone", "export", out, "--tables", "logit_diff,rank_per_layer")
    c.fails(1, "not an HDF5 file", "export", ROOT / "README.md")
    c.fails(2, "is not overwritten", "export", out, "-o", out, "--overwrite")
    foreign = work / "foreign.h5"
    with h5py.File(foreign, "w") as f:
        f["x"] = [1, 2]
    c.fails(1, "not an output of h5lens run", "export", foreign)
    c.fails(2, "did you mean 'note'", "show", out, "--by", "noet")
    c.fails(2, "no such row", "show", out, "--rows", "9")
    c.fails(1, "cannot open", "show", work / "none.h5")
    moved = work / "moved"
    shutil.copytree(work / "sharded.shards", moved / "sharded.shards")
    shutil.copy(work / "sharded.h5", moved / "sharded.h5")
    (moved / "sharded.shards/00001.h5").unlink()
    c.fails(1, "00001.h5", "export", moved / "sharded.h5", "--tables", "pos_top_logits")
    (moved / "sharded.h5").unlink()
    c.fails(1, "it is not finished", "export", moved / "sharded.h5")
    c.that(call("export", moved / "sharded.shards/00000.h5").stdout.count("prompt,") == 1, "a shard by itself")


def width(text: str) -> int:
    return sum(0 if unicodedata.combining(x) else 2 if unicodedata.east_asian_width(x) in "WF" else 1 for x in text)


def check_show(c: Checks, out: Path) -> None:
    said = call("show", out, "--by", "logit_diff", COLUMNS="90").stdout
    c.that("mean logit difference" in said, "the summary")
    c.that(all(width(line) <= 90 for line in said.split("results")[0].splitlines()), "no line is wider than the terminal")
    with h5lens.open_run(out) as r:
        diff, rank = r.results["logit_diff"][:, 0].astype("f8"), r.results["answer_rank"][:, 0]
        for value, t in (("x", 4.302653), ("y", 12.706205)):  # Student's t, 2 and 1 degrees of freedom
            at = [i for i, x in enumerate(ROWS) if x[5] == value]
            half = t * diff[at].std(ddof=1) / len(at) ** 0.5
            line = next(x for x in said.splitlines() if x.startswith(value + " "))
            want = f"{len(at)} {100 * (diff[at] > 0).mean():.1f} % {diff[at].mean():.3f} ± {half:.3f} " \
                   f"{100 * (rank[at] == 0).mean():.1f} % {np.median(rank[at]):.10g}"
            # The half width from a table of t to four digits.
            got, expected = line.split()[1:], want.split()
            c.that(got[:5] == expected[:5] and abs(float(got[5]) - half) < 2e-4 * half + 1e-3 and got[6:] == expected[6:],
                   f"by a column: {line} / {want}")
    notes = call("show", out, "--by", "note", COLUMNS="90").stdout.split("by note\n")[1].splitlines()[:6]
    c.that(len({width(line) for line in notes}) == 1, f"columns stand below each other: {notes}")
    c.that("prompts 3 to 3 of 5" in call("show", out, "--rows", "3").stdout, "a row")


def main() -> int:
    c = Checks()
    with tempfile.TemporaryDirectory(dir=os.environ.get("WORK")) as tmp:
        work = Path(tmp)
        data = work / "data.csv"
        with open(data, "w", encoding="utf-8", newline="") as f:
            csv.writer(f).writerows([COLUMNS, *ROWS])
        whole = run(work / "whole.h5", data, "--tables", "all", "--hooks", "none")
        # 1,000 tokens a position: more than 64 KiB a prompt, so virtual.
        sharded = run(work / "sharded.h5", data, "--tables", "all", "--hooks", "none", "--top-k", 1000, "--set", "shards.prompts=2")
        half = run(work / "half.h5", data, "--tables", "all", "--dtype", "f16", "--hooks", "none")
        with h5py.File(sharded) as f:
            c.that(f["/results/pos_top_logits"].is_virtual, "a table that is virtual")
        with h5py.File(half) as f:
            c.that(f["/results/neuron_attrs"].dtype == np.float16, "a table of halves")
        for out in (whole, sharded, half):
            for path in work.glob("*.csv"):
                path.unlink() if path != data else None
            check_plain(c, out, work)
            check_long(c, out, work)
        check_folder(c, whole, work)
        check_activations(c, work, data)
        check_bad(c, whole, work)
        check_show(c, whole)
    return c.end()


if __name__ == "__main__":
    sys.exit(main())
