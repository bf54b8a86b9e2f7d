#!/usr/bin/env python3
"""What TransformerLens 2.16, and float64, have for the lines of experiments/*/figures.json on random models.

    notebook_refs.py --small [NAME …]                                    writes experiments/NAME/random.json
    notebook_refs.py --tokenizers DIR --models DIR --out DIR [NAME …]    real shapes: writes OUT/NAME.json

In: figures.json's `theirs`, Python with these names: model, a HookedTransformer with the experiment's weight processing;
of each prompt i alone prompts[i], tokens[i], logits[i] [pos, d_vocab], cache[i] (an ActivationCache with its batch
dimension), read[i] (the read position, from 0), answers[i] (ids); texts(ids); torch, np. The models are made by
scripts/random_models.py with seed 1: small ones, or of the real shapes, for which DIR has gpt2.tokenizer.json.gz and
neox-20B_tokenizer.json.gz. Out: each value by TransformerLens in float32, and in float64: its own code in float64, whose
log probabilities are held against Hugging Face's in float64 first.

scripts/notebooks.py compares ours with them. Needs torch, transformers, transformer_lens 2.16, PyYAML.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import logging
import sys
import tempfile
import warnings
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from transformers import AutoTokenizer

import random_models
from fidelity_refs import load_hf, load_tl, widened
from golden_models import FLAGS, REFACTOR
from notebooks import EXPERIMENTS, evaluated, floats, numbers, plain

SEED = 1
TOKENIZERS = {"gpt2": "gpt2.tokenizer.json.gz", "tiny-stories-1M": "gpt2.tokenizer.json.gz",
              "pythia-70m-deduped": "neox-20B_tokenizer.json.gz"}
SAME = 1e-10  # TransformerLens and Hugging Face in float64: log probabilities, in nats


def inputs(experiment: dict[str, Any], folder: Path, tokenizer: Any) -> dict[str, Any]:
    """What the experiment's CSV holds, as the lines know it."""
    data = experiment["data"]
    with (folder / data["csv"]).open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))

    def encode(text: str) -> list[int]:
        return tokenizer.encode(text, add_special_tokens=False)

    bos = [tokenizer.bos_token_id] if data.get("prepend_bos", True) else []
    tokens = [torch.tensor(bos + encode(row[data["prompt"]])) for row in rows]
    at = [int(row[data["read_pos"]]) if "read_pos" in data else -1 for row in rows]
    answers = [[encode(row[c]) for c in data.get("answers", [])] for row in rows]
    if any(len(a) != 1 for row in answers for a in row):
        sys.exit(f"{folder}: an answer is not one token")
    return {"prompts": [row[data["prompt"]] for row in rows], "tokens": tokens,
            "read": [a % len(t) for a, t in zip(at, tokens)], "answers": [[a[0] for a in row] for row in answers],
            "texts": lambda ids: [tokenizer.decode([int(i)], clean_up_tokenization_spaces=False) for i in ids],
            "torch": torch, "np": np}


def passes(folder: Path, flags: dict[str, bool], tokens: list[torch.Tensor], dtype: torch.dtype) -> dict[str, Any]:
    """The model, and its logits and activations of each prompt."""
    hf = load_hf(str(folder), dtype)
    model = load_tl(hf, flags, dtype)
    each = [model.run_with_cache(t[None]) for t in tokens]
    if dtype == torch.float64:
        for t, (logits, _) in zip(tokens, each):
            with widened(dtype):
                truth = hf(t[None]).logits.log_softmax(-1)
            if (off := (truth - logits.log_softmax(-1)).abs().max().item()) > SAME:
                sys.exit(f"{folder}: TransformerLens and Hugging Face in float64 are {off:.1e} apart")
    return {"model": model, "logits": [logits[0] for logits, _ in each], "cache": [cache for _, cache in each]}


def rounded(value: Any, digits: int) -> Any:
    """Floats to so many significant digits, which are all that a float32 has (9), or more than anybody compares."""
    if isinstance(value, list):
        return [rounded(v, digits) for v in value]
    return float(f"{value:.{digits}g}") if isinstance(value, float) else value


def references(name: str, folder: Path, shape: str) -> dict[str, Any]:
    known = json.loads((EXPERIMENTS / name / "figures.json").read_text(encoding="utf-8"))
    experiment = yaml.safe_load((EXPERIMENTS / name / "experiment.yaml").read_text(encoding="utf-8"))
    flags = {f: True for f in FLAGS} | {REFACTOR: False} | experiment.get("weights", {})
    given = inputs(experiment, EXPERIMENTS / name, AutoTokenizer.from_pretrained(folder))
    values: dict[str, dict[str, Any]] = {}
    for dtype, digits in ((torch.float64, 12), (torch.float32, 9)):
        with torch.inference_mode():
            names = given | passes(folder, flags, given["tokens"], dtype)
            for figure, value in evaluated(known["figures"], names, "theirs"):
                # What doesn't round is said once, by float64.
                if dtype == torch.float64 or floats(value) and numbers(value):
                    values.setdefault(figure["what"], {})[str(dtype).split(".")[1]] = rounded(plain(value), digits)
    weights = (folder / "model.safetensors").read_bytes()
    kind = "a random model of the real shape" if shape == "real" else "a small random model"
    return {"shape": shape, "sha256_weights": hashlib.sha256(weights).hexdigest(),
            "source": f"TransformerLens {version('transformer_lens')} in float32 and float64 on {kind} "
                      f"(scripts/random_models.py, {known['model']}, seed {SEED})", "figures": values}


def write(path: Path, refs: dict[str, Any]) -> None:
    """A figure a line."""
    lines = [f"    {json.dumps(k, ensure_ascii=False)}: {json.dumps(v, ensure_ascii=False)}" for k, v in refs["figures"].items()]
    head = [f"  {json.dumps(k)}: {json.dumps(v)}" for k, v in refs.items() if k != "figures"]
    path.write_text("{\n" + ",\n".join(head) + ',\n  "figures": {\n' + ",\n".join(lines) + "\n  }\n}\n", encoding="utf-8")


def main() -> int:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("name", nargs="*", help="folders of experiments/ (default: all of a model that random_models.py can make small)")
    p.add_argument("--small", action="store_true")
    p.add_argument("--tokenizers", type=Path)
    p.add_argument("--models", type=Path, help="where the models of the real shapes are, or go")
    p.add_argument("--out", type=Path)
    args = p.parse_args()
    if not args.small and not (args.tokenizers and args.models and args.out):
        p.error("--small, or --tokenizers, --models and --out")
    logging.disable(logging.WARNING)
    warnings.filterwarnings("ignore")
    every = {path.parent.name: json.loads(path.read_text(encoding="utf-8"))["model"]
             for path in sorted(EXPERIMENTS.glob("*/figures.json"))}
    with tempfile.TemporaryDirectory() as temp:
        for name in args.name or [n for n, model in every.items() if model in TOKENIZERS]:
            model = every[name]
            folder = (Path(temp) if args.small else args.models) / model
            if args.small:
                random_models.write_small(model, folder, SEED)
            elif not (folder / "config.json").exists():
                random_models.write_random(model, folder, str(args.tokenizers / TOKENIZERS[model]), SEED)
            path = EXPERIMENTS / name / "random.json" if args.small else args.out / f"{name}.json"
            path.parent.mkdir(parents=True, exist_ok=True)
            write(path, references(name, folder, "small" if args.small else "real"))
            print(f"{path}: {model}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
