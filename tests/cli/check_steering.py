#!/usr/bin/env python3
"""Checks the files of knockout and steering, the vector's files, and what is refused.

In: H5LENS, the program; the demo's model. Values: scripts/check_steering.py. The output of one file, of shards made by two
tasks, and the packed one must be equal; scale 0 is the run itself; another vector is another experiment.
"""

from __future__ import annotations

import json
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
ROWS = 24
CUT = ["--set", "knockout.from={find_column: subject, nth: 0}", "--set", "knockout.to=[-1, 44]"]
TABLES = ("logit_diff", "answer_logit", "answer_prob", "answer_rank", "top_tokens", "top_logits", "top_probs")


def run(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([PROGRAM, "run", str(ROOT / "experiments/ioi.yaml"), "--hooks", "none", "--limit", str(ROWS), "--quiet", *words],
                          capture_output=True, text=True, check=False)


def ran(c: Checks, what: str, *words: str) -> None:
    done = run(*words)
    c.that(done.returncode == 0, f"{what}: exit code {done.returncode}: {done.stderr}")


def refused(c: Checks, what: str, code: int, text: str, *words: str) -> None:
    done = run(*words)
    c.that(done.returncode == code and text in done.stderr, f"{what}: exit code {done.returncode}, not {code} and '{text}': {done.stderr}")


def steer(vector: Path | str, *more: str) -> list[str]:
    return ["--set", f"steer.vector={vector}", "--set", "steer.layer=1", *(x for m in more for x in ("--set", m))]


def make_vectors(tmp: Path, width: int) -> None:
    v = np.random.RandomState(3).standard_normal(width).astype(np.float32)
    np.save(tmp / "v.npy", v)
    np.save(tmp / "other.npy", v * 2)
    np.save(tmp / "short.npy", v[:-1])
    np.save(tmp / "int.npy", np.arange(width))
    np.save(tmp / "nan.npy", np.where(np.arange(width) == 5, np.nan, v))
    np.save(tmp / "large.npy", v.astype(np.float64) * 1e300)
    (tmp / "text.npy").write_text("1 2 3")
    with h5py.File(tmp / "v.h5", "w") as f:
        f["g/direction"] = v[None]
        f.create_dataset("packed", data=v.astype(">f8"), compression="gzip")
        f["ints"], f["matrix"], f["scalar"], f["long"] = np.arange(width), np.zeros((2, width)), 1.0, np.zeros(2**20 + 1, np.float16)
        f.create_dataset("outside", (width,), "f4", external=[(str(tmp / "raw"), 0, 4 * width)])
        layout = h5py.VirtualLayout((width,), "f4")
        layout[:] = h5py.VirtualSource(str(tmp / "v2.h5"), "x", (width,))
        f.create_virtual_dataset("virtual", layout)
        f["hole"] = np.where(np.arange(width) == 7, np.inf, v)
    good = (tmp / "v.h5").read_bytes()
    (tmp / "cut.h5").write_bytes(good[:len(good) // 2])


def check_outputs(c: Checks, tmp: Path) -> None:
    settings = [*CUT, *steer(tmp / "v.npy", "steer.scale=[-4, 0, 1.5]")]
    one, tasks, packed = (tmp / f"{n}.h5" for n in ("one", "tasks", "packed"))
    ran(c, "one file", *settings, "-o", str(one))
    for task in ("2/2", "1/2"):
        ran(c, f"task {task}", *settings, "-o", str(tasks), "--set", "shards.prompts=8", "--task", task)
    done = subprocess.run([PROGRAM, "pack", str(tasks), "-o", str(packed)], capture_output=True, text=True, check=False)
    c.that(done.returncode == 0, f"pack: {done.stderr}")
    with h5py.File(one) as f, h5py.File(tasks) as g, h5py.File(packed) as h:
        c.that(list(f["scale"].asstr()[:]) == ["-4", "0", "1.5"], "labels")
        c.that(list(f["results/steer/logit_diff"].dims[1].keys()) == ["scale"], "the dimension scale")
        for table in TABLES:
            plain, steered, cut = (f[f"results/{x}{table}"] for x in ("", "steer/", "knockout/"))
            c.that(np.array_equal(steered[:, 1], plain[:]) and not np.array_equal(steered[:, 0], plain[:]), f"{table} of scale 0")
            c.that(cut.shape == plain.shape and not np.array_equal(cut[:], plain[:]), f"{table} of knockout")
            for d in (steered, cut):
                fill = np.float32("nan") if d.dtype == np.float32 else np.int32(-1)
                c.that(d.dtype == plain.dtype and np.array_equal(d.fillvalue, fill, equal_nan=d.dtype == np.float32), f"{d.name}: type and fill")
                for joined in (g, h):
                    c.that(joined[d.name][:].tobytes() == d[:].tobytes(), f"{joined.filename}: {d.name}")
        c.that(f.attrs["sha256_steer_vector"] == g.attrs["sha256_steer_vector"] and len(f.attrs["sha256_steer_vector"]) == 64, "its digest")
        c.that(f.attrs["path_steer_vector"] == str((tmp / "v.npy").resolve()), "its path")
    with h5lens.open_run(tasks) as opened, h5py.File(one) as f:
        c.that(np.array_equal(opened.steer["logit_diff"], f["results/steer/logit_diff"]) and opened.labels("scale")[0] == "-4", "run.steer")
        c.that(np.array_equal(opened.knockout["top_tokens"], f["results/knockout/top_tokens"]), "run.knockout")
        c.that(opened.steer.dims("answer_rank") == ("prompt", "scale", "answer"), f"run.steer.dims: {opened.steer.dims('answer_rank')}")
    for out in (one, tasks, packed):
        done = subprocess.run([PROGRAM, "verify", str(out)], capture_output=True, text=True, check=False)
        c.that(done.returncode == 0, f"verify {out.name}: {done.stderr}")


def check_identity(c: Checks, tmp: Path) -> None:
    """The vector's values count, not its file."""
    scales = ("steer.scale=[-4, 0, 1.5]",)
    for same in (tmp / "v.h5:/g/direction", f"{tmp}/v.h5:/packed"):
        ran(c, f"the same vector in {same}", *CUT, *steer(same, *scales), "-o", str(tmp / "one.h5"))
    refused(c, "another vector", 1, "is of another experiment (steer.vector content: ", *CUT, *steer(tmp / "other.npy", *scales), "-o", str(tmp / "one.h5"))
    refused(c, "other scales", 1, "steer.scale: -4,0,1.5 there, -4,0,2.5 here", *CUT, *steer(tmp / "v.npy", "steer.scale=[-4, 0, 2.5]"), "-o", str(tmp / "one.h5"))
    refused(c, "none", 1, "is of another experiment (", *CUT, "-o", str(tmp / "one.h5"))


def check_refused(c: Checks, tmp: Path, width: int) -> None:
    out = ["-o", str(tmp / "no.h5")]
    for vector, text in (("short.npy", f"has {width - 1} numbers; steer.hook is {width} wide"), ("int.npy", "not little-endian float16, float32"),
                         ("nan.npy", "number 5 of "), ("large.npy", "is not finite as float32"), ("text.npy", "is not a NumPy file"),
                         ("none.npy", "No such file"), ("v.h5", "say which data set of this HDF5 file"), ("v.h5:/g", "open the dataset '/g'"),
                         ("v.h5:/nothing", "open the dataset '/nothing'"), ("v.h5:/ints", "not floating-point numbers"),
                         ("v.h5:/matrix", "not a vector: its shape must be [n] or [1, n]"), ("v.h5:/scalar", "not a vector"),
                         ("v.h5:/long", "too long"), ("v.h5:/outside", "in other files"), ("v.h5:/virtual", "in other files"),
                         ("v.h5:/hole", "number 7 of "), ("cut.h5:/packed", "cut.h5: "), ("text.npy:/a", "is not an HDF5 file")):
        done = run(*steer(tmp / vector), *out)
        c.that(done.returncode in (1, 2) and text in done.stderr and "steer" in done.stderr, f"{vector}: {done.returncode}: {done.stderr}")
    refused(c, "z is as wide as the heads together", 2, "steer.hook is", *steer(tmp / "short.npy", "steer.hook=z"), *out)
    refused(c, "a layer", 2, "steer.layer: there is no layer 99; the model has", *steer(tmp / "v.npy", "steer.layer=99"), *out)
    refused(c, "a position", 2, "steer.positions: no prompt has a position 300", *steer(tmp / "v.npy", "steer.positions=[0, 300]"), *out)
    refused(c, "tables", 2, "steer changes tables of the read position", *steer(tmp / "v.npy"), "--tables", "none", *out)
    refused(c, "answers", 2, "steer needs answers of one token", *steer(tmp / "v.npy"), "--answer-tokens", "any", "--tables", "default", *out)
    refused(c, "no vector", 2, "steer.hook is set, but steer.vector names no vector", "--set", "steer.hook=z", *out)
    knock = [("knockout.from=[0]", "knockout.to=[300]", 2, "knockout.to: no prompt has a position 300"),
             ("knockout.from=[0]", "knockout.to=[0]", 1, "nothing to attend to"),
             ("knockout.from={find_column: nobody}", "knockout.to=[-1]", 1, "no column 'nobody'"),
             ("knockout.from={find: Zarathustra}", "knockout.to=[-1]", 1, "knockout.from: the text 'Zarathustra' is not in the prompt"),
             ("knockout.from=[0]", "knockout.layers=[99]", 2, "knockout.from is set, but not knockout.to"),
             ("knockout.to=[0]", "knockout.layers=[0]", 2, "knockout.to is set, but not knockout.from")]
    for a, b, code, text in knock:
        refused(c, f"{a} {b}", code, text, "--set", a, "--set", b, *out)
    refused(c, "layers", 2, "knockout.layers: there is no layer 99", *CUT, "--set", "knockout.layers=[0, 99]", *out)
    refused(c, "heads", 2, "knockout.heads: there is no head 0.99", *CUT, "--set", "knockout.heads=[0.99]", *out)
    refused(c, "heads of other layers", 2, "knockout.heads: none of them is in knockout.layers", *CUT, "--set", "knockout.heads=[0.0]",
            "--set", "knockout.layers=[1]", *out)
    c.that(not (tmp / "no.h5").exists(), "nothing is left")


def main() -> int:
    c = Checks()
    with tempfile.TemporaryDirectory() as folder:
        tmp = Path(folder)
        width = json.loads((ROOT / "experiments/demo-gpt2/config.json").read_text(encoding="utf-8"))["n_embd"]
        make_vectors(tmp, width)
        check_outputs(c, tmp)
        check_identity(c, tmp)
        check_refused(c, tmp, width)
    print(f"{c.passed} passed, {c.failed} failed")
    return int(c.failed > 0 or c.passed == 0)


if __name__ == "__main__":
    sys.exit(main())
