#!/usr/bin/env python3
"""Run the experiments that TransformerLens notebooks are made of, and put our figures beside theirs.

    scripts/notebooks.py                              all of experiments/*/figures.json
    scripts/notebooks.py gpt2-ioi --model DIR         one of them, on a model that is elsewhere
    scripts/notebooks.py --refs DIR --models DIR      on random models, beside DIR/NAME.json of scripts/notebook_refs.py

In: experiments/NAME/{experiment.yaml,prompts.csv,figures.json,random.json}; the model's directory, by default
build/models/MODEL; the program. Out: NAME.h5 in --out, and a table on the screen.

Where a model is not there, and the experiment has a random.json, the same lines run on a small random model of the same
family (scripts/random_models.py), and are held against what TransformerLens 2.16 and float64 had on it. That is said.

figures.json: `model` (a name for scripts/get_model.py), `weights` (whether the lines use w), `source`, and `figures`, in
the order in which a notebook would have them. Of each:

    what            what it is; without it, a name for the lines below (`name`)
    line            what a user types: Python, with run = h5lens.open_run(…), w = h5lens.open_weights(…), np and h5lens
    theirs          the same with TransformerLens (scripts/notebook_refs.py has the names that it may use)
    names           labels of its entries: a list, or a line
    figure          what the notebook printed; "blocks.*." in a name stands for each of `layers` layers
    within, relative  by how much ours may differ: in all, and times the figure
    scale           of random models: a value's own scale, where its float64 values' RMS is less (a probability's is 1, that of
                    what is zero but for rounding the scale of what it is left of)
    any_weights     the figure holds whatever the weights are: ids, shapes, labels, identities

Exit status: 0 nothing differs, 1 a figure differs or a run failed, 2 usage, 3 no model was there to run on.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

import h5lens
import random_models

ROOT = Path(__file__).resolve().parent.parent
EXPERIMENTS = ROOT / "experiments"
DONE, DIFFERS, NO_MODEL = 0, 1, 3

# On random models: the largest deviation from float64 over the RMS of a line's float64 values. In float32 each addition to
# the residual stream rounds by 6e-8 of it, of which 12 blocks leave about 5e-7 (RMS) of a value; the largest of some
# thousands is five times that, and a sum of parts that cancel has a few times more.
LIMIT = 1e-5

# One line of the table: what, theirs, ours, and whether they agree (None: nothing to compare).
Line = tuple[str, str, str, bool | None]


class NotebookError(Exception):
    """A failure that is told to the user in one line."""


# --- what a line gives -------------------------------------------------------------------


def plain(value: Any) -> Any:
    """As JSON has it: numbers, strings, lists, and dicts in their order."""
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, str):
        return value
    if hasattr(value, "tolist"):
        return plain(value.tolist())
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    return value


def expanded(figure: Any, layers: int | None) -> Any:
    """A notebook's figure, with the names of every layer where blocks.* stands for them."""
    if not isinstance(figure, dict) or layers is None:
        return figure
    block = {k: v for k, v in figure.items() if k.startswith("blocks.*.")}
    out: dict[str, Any] = {}
    for name, value in figure.items():
        if name not in block:
            out[name] = value
        elif name == next(iter(block)):
            out |= {k.replace("*", str(i)): v for i in range(layers) for k, v in block.items()}
    return out


def evaluated(figures: list[dict[str, Any]], names: dict[str, Any], key: str = "line") -> Iterator[tuple[dict[str, Any], Any]]:
    """Each figure that is shown, and what its line gives. The lines know `names`, and what lines before them named."""
    for figure in figures:
        if key not in figure:
            continue
        names["names"] = figure.get("names")
        try:
            value = eval(figure[key], names)    # a line of figures.json, which is part of the program
        except Exception as error:
            raise NotebookError(f"{figure.get('what', figure.get('name'))}: {figure[key]}: "
                                f"{type(error).__name__}: {error}") from error
        if "name" in figure:
            names[figure["name"]] = value
        else:
            yield figure, plain(value)


def labels_of(figure: dict[str, Any], names: dict[str, Any]) -> list[str] | None:
    given = figure.get("names")
    return [str(n) for n in eval(given, names)] if isinstance(given, str) else given


def floats(value: Any) -> bool:
    """Are these numbers that round?"""
    return isinstance(value, float) or isinstance(value, list) and any(map(floats, value))


def numbers(value: Any) -> bool:
    """Numbers, or lists of such, all of one shape."""
    if isinstance(value, (bool, str, dict)) or value is None:
        return False
    try:
        return np.asarray(value).dtype.kind in "if"
    except ValueError:
        return False


# --- beside a notebook's figures -----------------------------------------------------------


def shown(value: Any, digits: int | None = None) -> str:
    """A value as it is shown: 18.09 stays, 2.7102345 is cut, a token has bars."""
    if isinstance(value, float):
        return f"{value:.6g}" if digits is None else f"{value:.{digits}f}" if abs(value) >= 10 ** -digits else f"{value:.4g}"
    if isinstance(value, str):
        return "|" + value.replace("\n", "\\n") + "|"
    if isinstance(value, list) and len(value) <= 6:
        return "[" + ", ".join(shown(v, digits) for v in value) + "]"
    return f"{len(value)} values" if isinstance(value, (list, dict)) else str(value)


def same(ours: Any, theirs: Any, within: float, relative: float = 0) -> bool:
    if not (numbers(ours) and numbers(theirs)):
        return ours == theirs
    a, b = np.asarray(ours, np.float64), np.asarray(theirs, np.float64)
    return a.shape == b.shape and bool((np.abs(a - b) <= within + relative * np.abs(b)).all())


def beside_notebook(figure: dict[str, Any], ours: Any, labels: list[str] | None) -> Iterator[Line]:
    """A line for each number of a list with labels, else one."""
    what, theirs = figure["what"], expanded(figure.get("figure"), figure.get("layers"))
    within, relative = figure.get("within", 0), figure.get("relative", 0)
    digits = max(0, -math.floor(math.log10(within))) + 1 if within else None
    if theirs is None and labels is None:
        yield what, "", shown(ours, digits), None
    elif labels is not None and isinstance(ours, list):
        known = theirs if isinstance(theirs, list) else []
        for i in range(max(len(ours), len(known))):
            mine = shown(ours[i], digits) if i < len(ours) else "none"
            name = labels[i].replace("\n", "\\n") if i < len(labels) else str(i)
            both = i < len(ours) and i < len(known)
            yield (f"{what}: {name}", shown(known[i], digits) if i < len(known) else "", mine,
                   None if theirs is None else both and same(ours[i], known[i], within, relative))
    elif isinstance(theirs, dict) and isinstance(ours, dict):
        yield from by_name(theirs, ours)
    elif isinstance(theirs, list) and floats(theirs) and isinstance(theirs[0], list) and isinstance(ours, list) and len(ours) == len(theirs):
        for i, row in enumerate(theirs):
            yield from beside_notebook({**figure, "what": f"{what} [{i}]", "figure": row}, ours[i], None)
    else:
        yield what, shown(theirs, digits), shown(ours, digits), same(ours, theirs, within, relative)


def by_name(theirs: dict[str, Any], ours: dict[str, Any]) -> Iterator[Line]:
    """Names and shapes. Equal layers share a line."""
    groups: dict[tuple[str, str, str], list[str]] = {}
    for name in [*theirs, *(n for n in ours if n not in theirs)]:
        words = name.split(".")
        layer, short = (words[1], ".".join(["blocks.*", *words[2:]])) if words[0] == "blocks" else ("", name)
        groups.setdefault((short, str(theirs.get(name, "none")), str(ours.get(name, "none"))), []).append(layer)
    for (short, known, mine), where in groups.items():
        name = short.replace("*", where[0] if len(where) == 1 else f"{{{where[0]}…{where[-1]}}}")
        yield name, known, mine, known == mine
    if list(theirs) != list(ours) and not set(theirs) ^ set(ours):
        yield "their order", "", "", False


# --- beside TransformerLens and float64 ---------------------------------------------------


def deviations(ours: Any, reference: dict[str, Any], scale: float) -> dict[str, float] | None:
    """Largest differences over the RMS of the float64 values, or over scale; None where shapes differ."""
    a, exact, tl = (np.asarray(x, np.float64) for x in (ours, reference["float64"], reference["float32"]))
    if not a.shape == exact.shape == tl.shape or not np.isfinite(a).all():
        return None
    unit = max(float(np.sqrt(np.mean(exact * exact))), scale) or 1.0
    return {name: float(np.abs(x - y).max(initial=0)) / unit
            for name, x, y in (("ours", a, exact), ("theirs", tl, exact), ("apart", a, tl))}


def beside_reference(figure: dict[str, Any], ours: Any, reference: dict[str, Any] | None) -> Line:
    """How far ours and TransformerLens's are from float64, and ours from TransformerLens's."""
    what = figure["what"]
    if reference is None:
        return what, "", shown(ours), None
    if not (numbers(reference["float64"]) and "float32" in reference):
        return what, shown(reference["float64"]), shown(ours), same(ours, reference["float64"], 0)
    off = deviations(ours, reference, figure.get("scale", 0)) if numbers(ours) else None
    if off is None:
        return what, shown(reference["float64"]), shown(ours), False
    few = np.size(ours) <= 3
    return (what, f"{shown(reference['float32']) + ', ' if few else ''}off by {off['theirs']:.1e}",
            f"{shown(ours) + ', ' if few else ''}off by {off['ours']:.1e}, apart {off['apart']:.1e}",
            off["ours"] <= LIMIT)


# --- running one -------------------------------------------------------------------------


def call(*command: object) -> None:
    words = [str(w) for w in command]
    result = subprocess.run(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, check=False)
    if result.returncode:
        raise NotebookError(result.stderr.strip() or f"{words[0]}: exit status {result.returncode}")


def run_program(name: str, model: Path, args: argparse.Namespace) -> Path:
    """The experiment's HDF5 file, made by the program."""
    args.out.mkdir(parents=True, exist_ok=True)
    output = args.out / f"{name}.h5"
    call(args.h5lens, "run", args.experiments / name / "experiment.yaml", "--model", model, "-o", output, "--overwrite",
         "--quiet", *args.option)
    return output


def write_weights(run: h5lens.Run, model: Path, args: argparse.Namespace) -> Path:
    """The weights, processed as the run's."""
    output = args.out / f"{run.path.stem}.weights.h5"
    settings = [x for key, on in run.experiment["weights"].items() for x in ("--set", f"weights.{key}={str(on).lower()}")]
    call(args.h5lens, "weights", model, "-o", output, "--overwrite", *settings)
    return output


def lines_of(known: dict[str, Any], run: h5lens.Run, w: h5lens.Weights | None, refs: dict[str, Any] | None) -> Iterator[Line]:
    names: dict[str, Any] = {"run": run, "w": w, "np": np, "h5lens": h5lens}
    for figure, ours in evaluated(known["figures"], names):
        if refs is None:
            yield from beside_notebook(figure, ours, labels_of(figure, names))
            continue
        if "theirs" in figure:
            yield beside_reference(figure, ours, refs["figures"].get(figure["what"]))
        if figure.get("any_weights") and refs["shape"] == "real":
            theirs = expanded(figure["figure"], figure.get("layers"))
            agree = all(line[3] for line in beside_notebook(figure, ours, None))
            yield f"{figure['what']}: the notebook's", shown(theirs), shown(ours), agree


def print_table(lines: list[Line], who: str) -> bool:
    """The comparison; true if nothing differs."""
    width = max(len(line[0]) for line in lines)
    mid = max(len(who), *(len(line[1]) for line in lines))
    right = max(len("ours"), *(len(line[2]) for line in lines))
    print(f"  {'':{width}}  {who:>{mid}}  {'ours':>{right}}")
    for what, theirs, ours, agree in lines:
        verdict = {True: "same", False: "DIFFERS", None: ""}[agree]
        print(f"  {what:{width}}  {theirs:>{mid}}  {ours:>{right}}  {verdict}".rstrip())
    judged = [line[3] for line in lines if line[3] is not None]
    if not judged:
        print("  nothing to compare with")
    elif all(judged):
        print(f"  compared: {len(judged)}, all the same")
    else:
        print(f"  figures differ: {judged.count(False)} of {len(judged)}")
    return all(judged)


def references(name: str, model: Path, known: dict[str, Any], args: argparse.Namespace) -> tuple[Path, dict[str, Any] | None]:
    """The model to run on, and what to compare with: None for the notebook's figures."""
    if args.refs:
        path = args.refs / f"{name}.json"
    elif (model / "config.json").is_file():
        return model, None
    else:
        path = args.experiments / name / "random.json"
        model = args.out / "random" / known["model"]
        if path.is_file():
            print("  the model is not there (make get-" + known["model"] + " fetches it): the same lines on a small random one")
            random_models.write_small(known["model"], model)
    if not path.is_file() or not (model / "config.json").is_file():
        return model, None
    refs = json.loads(path.read_text(encoding="utf-8"))
    with (model / "model.safetensors").open("rb") as file:
        if hashlib.file_digest(file, "sha256").hexdigest() != refs["sha256_weights"]:
            raise NotebookError(f"{path} is of another model than {model}: scripts/notebook_refs.py makes both anew")
    return model, refs


def notebook(name: str, args: argparse.Namespace) -> int:
    """Run one experiment and compare. One of DONE, DIFFERS, NO_MODEL."""
    known = json.loads((args.experiments / name / "figures.json").read_text(encoding="utf-8"))
    model = args.model or args.models / known["model"]
    if model.is_relative_to(ROOT):
        model = Path(os.path.relpath(model))
    print(f"{name}: {model}")
    model, refs = references(name, model, known, args)
    if not (model / "config.json").is_file():
        print(f"  skipped: no model. To get it: make get-{known['model']}\n"
              f"  (or scripts/get_model.py {known['model']} {model}; see experiments/{name}/README.md)\n")
        return NO_MODEL
    print(f"  figures: {refs['source'] if refs else known['source']}")
    with ExitStack() as stack:
        run = stack.enter_context(h5lens.open_run(run_program(name, model, args)))
        w = stack.enter_context(h5lens.open_weights(write_weights(run, model, args))) if known.get("weights") else None
        lines = list(lines_of(known, run, w, refs))
    agree = print_table(lines, "TransformerLens" if refs else known.get("who", "notebook"))
    if refs:
        print("  off by: the largest deviation from float64, apart: from TransformerLens, over the RMS of the float64 values")
    print(f"  file: {args.out / (name + '.h5')}\n")
    return DONE if agree else DIFFERS


def parse_args() -> argparse.Namespace:
    build = ROOT / os.environ.get("BUILD", "build")
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", nargs="*", help="folders of experiments/ (default: all with a figures.json)")
    parser.add_argument("--model", type=Path, help="the model's directory, for all that are named")
    parser.add_argument("--models", type=Path, default=build / "models",
                        help="where the models are, each in a folder of its name (default: build/models)")
    parser.add_argument("--refs", type=Path, help="where NAME.json of random models are")
    parser.add_argument("--experiments", type=Path, default=EXPERIMENTS, help="where the folders are")
    parser.add_argument("--h5lens", type=Path, default=build / "h5lens", help="the program")
    parser.add_argument("-o", "--out", type=Path, default=build / "notebooks", help="where the HDF5 files go")
    parser.add_argument("--option", action="append", default=[], metavar="ARG", help="one more argument to h5lens run")
    args = parser.parse_args()
    names = sorted(path.parent.name for path in args.experiments.glob("*/figures.json"))
    if unknown := [n for n in args.name if n not in names]:
        parser.error(f"no experiment {unknown[0]!r}; there are {', '.join(names)}")
    args.name = args.name or names
    return args


def main() -> int:
    args = parse_args()
    found = []
    for name in args.name:
        try:
            found.append(notebook(name, args))
        except (NotebookError, h5lens.H5LensError, KeyError, OSError) as error:
            print(f"  failed: {error}\n")
            found.append(DIFFERS)
    if len(found) > 1:
        print(f"{len(found)} notebooks: {found.count(DONE)} as they should be, {found.count(DIFFERS)} differ or "
              f"failed, {found.count(NO_MODEL)} skipped")
    if DIFFERS in found:
        return DIFFERS
    return DONE if DONE in found else NO_MODEL


if __name__ == "__main__":
    sys.exit(main())
