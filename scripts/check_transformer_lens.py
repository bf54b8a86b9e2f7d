#!/usr/bin/env python3
"""Whether what scripts/h5lens gives TransformerLens is what TransformerLens 2.16 would have had itself.

    check_transformer_lens.py [--h5lens build/h5lens] [MODEL_DIR …]

For each model (by default the demo's, tests/golden/data/*, and a Mistral and a Qwen2 with as many key/value heads as
heads) it runs h5lens on prompts of different lengths,
executes the README's code that builds a HookedTransformer and an ActivationCache from the file, and compares: the
order of the hooks and the values at every one with that model's own run_with_cache, each prompt alone; the same for
chosen positions; the sums of logit_attrs, the decompositions and the logit lens with the file's own logit
differences (where LayerNorm is folded: TransformerLens's sums leave its weight out); the texts of the tokens. Then
a head that config.json does not ask for (tied_head), with and without what the reader's warning says; and the texts of
every token of the tokenizers in tests/unit/data/tokenizer_sp and tests/unit/data/saved/tf4.
Of a model that TransformerLens cannot hold, that the reader says so, or that the comparison finds it.

Prints a line a model with the largest errors (relative to the largest value of the array), 'N passed, N failed';
exit status 1 on a failure. Needs torch, transformers, transformer_lens 2.16 and h5py; no test of `make test`.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
import numpy as np
import torch
from transformer_lens import ActivationCache
from transformers import AutoTokenizer, PreTrainedTokenizerFast
from transformers.utils import logging

from checks import ROOT, Checks, golden_models, models_of, parser_of
import h5lens
from golden_models import MODELS, write_model, write_tokenizer

N_ROWS = 6  # as many as the tiny models have, and as the README's code reads
TOLERANCE = 3e-5


def readme_code() -> str:
    """The block of README.md that uses TransformerLens."""
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.S)
    found = [b for b in blocks if "HookedTransformerConfig(**h5lens" in b]
    if len(found) != 1 or found[0].count('"build/demo/ioi.h5"') != 1:
        sys.exit("README.md: not one block of code that builds a HookedTransformer")
    return found[0]


def run_program(binary: Path, model: Path, out: Path, *more: str) -> None:
    data = model / "prompts.csv"
    data = data if data.exists() else ROOT / "experiments" / "ioi.csv"
    subprocess.run([str(binary), "run", "--model", str(model), "--data", str(data), "--answers", "correct,incorrect",
                    "--hooks", "*,logits,*hook_result", "--limit", str(N_ROWS), "-o", str(out), "--overwrite", *more],
                   check=True, capture_output=True)


def error(got: Any, want: Any) -> float:
    """The largest difference, relative to the largest value; masked scores count where one side has them alone."""
    got, want = np.asarray(got, np.float64), np.asarray(want, np.float64)
    if got.shape != want.shape or (np.isfinite(got) != np.isfinite(want)).any():
        return np.inf
    there = np.isfinite(want)
    return float(np.abs(got[there] - want[there]).max(initial=0) / max(1e-3, np.abs(want[there]).max(initial=0)))


def own_caches(names: dict[str, Any]) -> list[tuple[torch.Tensor, ActivationCache]]:
    """Logits and cache of each prompt alone, from TransformerLens."""
    run, model = names["run"], names["model"]
    model.set_use_attn_result(True)
    return [model.run_with_cache(torch.from_numpy(run.tokens(i)[:run.lengths[i]]).long()[None])
            for i in range(len(run))]


def by_position(hook: str, x: torch.Tensor, n: int) -> torch.Tensor:
    """Norms of queries and keys have prompt, position and head in one axis there."""
    return x.reshape(1, n, -1, x.shape[-1]) if ".q_norm." in hook or ".k_norm." in hook else x


def check_values(c: Checks, what: str, names: dict[str, Any]) -> float:
    """Every hook of every prompt, and chosen positions; returns the largest error."""
    run, worst = names["run"], 0.0
    own = own_caches(names)
    everything = run.activation_cache()
    c.that(list(everything) == list(own[0][1].keys()), f"{what}: the hooks in TransformerLens's order")
    for i, (logits, cache) in enumerate(own):
        n = run.lengths[i]
        worst = max(worst, error(run.cache("logits", rows=i)[:n], logits[0]))
        for hook, x in cache.items():
            got = everything[hook][i]
            x = by_position(hook, x, n)
            worst = max(worst, error(got[:, :n, :n] if hook.endswith(("pattern", "scores")) else got[:n], x[0]))
    shortest = int(run.lengths.min())
    for pos in ("read", 0, -1, -min(2, shortest), slice(-2, None), slice(0, shortest), slice(None)):
        chosen = run.activation_cache(pos=pos)
        for i, (_, cache) in enumerate(own):
            n, at = run.lengths[i], run.positions(i, pos)
            at = at[at >= 0]
            for hook, x in cache.items():
                square = hook.endswith(("pattern", "scores"))
                x = by_position(hook, x, n)
                want = x[0, :, at] if square else x[0, at]
                got = chosen[hook][i][:, :len(at), :n] if square else chosen[hook][i][:len(at)]
                worst = max(worst, error(got, want))
    return worst


def before_cap(run: Any) -> np.ndarray:
    """[prompt]: the first answer's logit less the second's, as they were before a soft cap."""
    cap = run.model_config.get("output_logits_soft_cap")
    if not cap:
        return run.results["logit_diff"][:N_ROWS, 0]
    logits = cap * np.arctanh(run.results["answer_logit"][:N_ROWS].astype(np.float64) / cap)
    return logits[:, 0] - logits[:, 1]


def check_sums(c: Checks, what: str, names: dict[str, Any]) -> None:
    """What the README says of its own lines, and the methods of ActivationCache on them."""
    run, model, cache, good, bad = (names[k] for k in ("run", "model", "cache", "good", "bad"))
    want = before_cap(run)
    bias = model.b_U[good] - model.b_U[bad]
    found = {"decompose_resid": names["diff"]}
    layers, rest = model.cfg.n_layers, cache["resid_post", -1]
    heads = cache.get_full_resid_decomposition(expand_neurons=False, pos_slice=-1)
    if not model.cfg.use_normalization_before_and_after:  # TransformerLens leaves it out of heads
        found["get_full_resid_decomposition"] = cache.logit_attrs(heads, good, bad, pos_slice=-1).sum(0) + bias
    stack = cache.stack_head_results(pos_slice=-1, incl_remainder=True)
    found["stack_head_results"] = cache.logit_attrs(stack, good, bad, pos_slice=-1).sum(0) + bias
    lens = cache.accumulated_resid(apply_ln=True, pos_slice=-1)
    at = torch.arange(len(want))
    lens_logits = lens @ model.W_U
    found["accumulated_resid"] = lens_logits[-1][at, good] - lens_logits[-1][at, bad] + bias
    c.that(lens.shape == (layers + 1, N_ROWS, model.cfg.d_model) and rest.shape[1] == 1, f"{what}: one position is kept")
    filled = ActivationCache(run.activation_cache(range(N_ROWS), torch=True, fill=0.0), model)
    for name in ("decompose_resid", "accumulated_resid"):
        whole = getattr(filled, name)(apply_ln=True)
        c.that(not whole.isnan().any(), f"{what}: {name} of whole prompts, filled, has no NaN")
        last = torch.from_numpy(run.prompts["read_pos"][:N_ROWS]).long()
        c.that(error(whole[:, at, last], getattr(cache, name)(apply_ln=True, pos_slice=-1)) == 0,
               f"{what}: {name} of whole prompts is that of pos=\"read\" there")
    worst = {name: error(diff.numpy(), want) for name, diff in found.items()}
    c.that(max(worst.values()) < TOLERANCE, f"{what}: sums against logit_diff: {worst}")
    print(f"  {what}: lengths {sorted(set(run.lengths.tolist()))}; sums against the file's logit_diff "
          + ", ".join(f"{name} {e:.1e}" for name, e in worst.items()))


def why_refused(config: dict[str, Any]) -> str:
    """The rotary scaling or the family that TransformerLens lacks."""
    rope = config.get("rope_scaling") or {}
    kind = rope.get("rope_type", rope.get("type"))
    lacking = ("olmo2", "gemma3_text", "granite", "smollm3", "starcoder2", "stablelm", "bloom", "gpt_bigcode")
    if kind in ("linear", "yarn", "longrope"):
        return str(kind)
    return str(config["architectures"][0]) if config["model_type"] in lacking else ""


def check_model(c: Checks, binary: Path, model: Path, tmp: Path, code: str, *more: str) -> None:
    what, out = " ".join((model.name, *more)), tmp / "out.h5"
    run_program(binary, model, out, *more)
    config = json.loads((model / "config.json").read_text(encoding="utf-8"))
    names: dict[str, Any] = {}
    why = why_refused(config)
    with torch.inference_mode():
        try:
            exec(code.replace('"build/demo/ioi.h5"', repr(str(out))), names)
        except h5lens.H5LensError as e:
            c.that(bool(why) and why in str(e), f"{what}: {e}")
            print(f"  {what}: refused, as TransformerLens has no {why}")
            return
        c.that(not why, f"{what}: {why} is refused")
        worst = check_values(c, what, names)
        if config["model_type"] in ("llama", "qwen3") and (config.get("attention_bias") or config.get("mlp_bias")):
            c.that(worst > 100 * TOLERANCE, f"{what}: TransformerLens drops its biases, and it is not seen ({worst:.1e})")
            print(f"  {what}: TransformerLens drops its biases: off by {worst:.1e}")
            return
        print(f"  {what}: {len(names['run'].hooks)} hooks, off by {worst:.1e}")
        c.that(worst < TOLERANCE, f"{what}: off by {worst:.1e}")
        if names["run"].experiment["weights"]["fold_ln"]:
            check_sums(c, what, names)
        for i in range(N_ROWS):
            ids = torch.from_numpy(names["run"].tokens(i)[:names["run"].lengths[i]]).long()
            c.that(names["run"].str_tokens(i) == names["model"].to_str_tokens(ids), f"{what}: str_tokens of row {i}")


def check_head(c: Checks, binary: Path, tmp: Path, code: str) -> None:
    """A head of its own in a folder whose config.json ties it: the README's code warns and is wrong; as the warning has
    it, it is right."""
    for choice, in_config in (("stored", True), ("tied", False)):
        folder = tmp / f"head_{choice}"
        shutil.copytree(ROOT / "tests/golden/data/gpt2_gelu", folder)
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        (folder / "config.json").write_text(json.dumps({**config, "tie_word_embeddings": in_config}), encoding="utf-8")
        out = tmp / f"{choice}.h5"
        run_program(binary, folder, out, "--tied-head", choice)
        mine = code.replace('"build/demo/ioi.h5"', repr(str(out)))
        told = mine.replace("torch_dtype=torch.float32", f"torch_dtype=torch.float32, tie_word_embeddings={not in_config}")
        worst = []
        for text in (mine, told):
            names: dict[str, Any] = {}
            with torch.inference_mode(), warnings.catch_warnings(record=True) as said:
                warnings.simplefilter("always")
                exec(text, names)
            words = [str(w.message) for w in said if w.category is h5lens.H5LensWarning]
            c.that(len(words) == 1 and f"tie_word_embeddings={not in_config}" in words[0], f"{choice}: {words}")
            worst.append(error(names["diff"].numpy(), names["run"].results["logit_diff"][:N_ROWS, 0]))
        c.that(worst[0] > 100 * TOLERANCE and worst[1] < TOLERANCE, f"{choice}: {worst}")
        print(f"  tied_head {choice}: off by {worst[0]:.1e}, and by {worst[1]:.1e} with what the warning says")


def check_pieces(c: Checks) -> None:
    """Every token of the SentencePiece tokenizers and of saved folders, as to_str_tokens decodes it."""
    saved = [d for d in (ROOT / "tests/unit/data/saved").glob("tf4/*") if not (d / "refused").exists()]
    for folder in [*sorted((ROOT / "tests/unit/data/tokenizer_sp").glob("*/")), *sorted(saved)]:
        try:
            tokenizer = AutoTokenizer.from_pretrained(folder)
        except ValueError:  # no class's name in its files
            tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"))
        pieces = h5lens.load_pieces(folder, alone=True)
        ids = sorted(pieces)
        theirs = tokenizer.batch_decode(ids, clean_up_tokenization_spaces=False)
        ours = [pieces[i].decode(errors="replace") for i in ids]
        different = [(i, a, b) for i, a, b in zip(ids, ours, theirs) if a != b]
        c.that(len(ids) >= 290 and not different, f"{folder.name}: {different[:5]}")
        print(f"  tokenizer {folder.name}: {len(ids)} tokens, {len(different)} differ")


def ungrouped_models(tmp: Path) -> Iterator[Path]:
    """The families that TransformerLens takes for grouped-query attention whatever their config says."""
    for name in ("mistral", "qwen2"):
        spec = MODELS[name]
        config = {**spec.config, "num_key_value_heads": spec.config["num_attention_heads"]}
        folder = tmp / f"{name}_ungrouped"
        folder.mkdir()
        write_model(str(folder), replace(spec, config=config))
        write_tokenizer(str(folder), spec)
        shutil.copy(ROOT / "tests/golden/data" / name / "prompts.csv", folder)
        yield folder


def main() -> int:
    args = parser_of(__doc__).parse_args()
    logging.set_verbosity_error()
    c, code = Checks(), readme_code()
    with tempfile.TemporaryDirectory() as tmp:
        for model in models_of(args):
            check_model(c, args.h5lens, model, Path(tmp), code)
        if not args.models:
            for model in ungrouped_models(Path(tmp)):
                check_model(c, args.h5lens, model, Path(tmp), code)
            check_model(c, args.h5lens, golden_models()[0], Path(tmp), code, "--raw-weights")
            check_model(c, args.h5lens, ROOT / "experiments" / "demo-gpt2", Path(tmp), code, "--set", "shards.prompts=2")
            check_head(c, args.h5lens, Path(tmp), code)
            check_pieces(c)
    return c.end()


if __name__ == "__main__":
    sys.exit(main())
