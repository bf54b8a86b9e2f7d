#!/usr/bin/env python3
"""Whether `h5lens weights` writes the weights that TransformerLens 2.16 has, and what is computed of them.

    check_weights.py [--h5lens build/h5lens] [MODEL_DIR …]

For each model (by default the demo's, tests/golden/data/*, and a Mistral and a Qwen2 with as many key/value heads as
heads), processed and raw, every parameter of TransformerLens's named_parameters by name, shape and value; a HookedTransformer
that the README's lines load from `--format hooked_transformer`, parameter by parameter and run in float64 (and models that
TransformerLens made itself, there and back); the same
against the processing in float64 (scripts/truth_weights.py), which also has refactored attention matrices. Then
composition_scores and copying_scores of scripts/h5lens against TransformerLens's all_composition_scores and
FactoredMatrix.eigenvalues.

Errors are in units of the float64 array's RMS (0 where that is 0). u = 2⁻²⁴ is float32's rounding.
  Raw weights are bit for bit those of all three: they are read, and nothing is computed (but Gemma's factor of W_E).
  Ours against float64: processing is in float64, and then rounded once, so u·largest/RMS; and 1e-12 for float64's own
  errors, which are sums of thousands of terms. Refactored ones: 1e-9, as singular vectors are known to an error of
  float64's 1e-16 over the gaps between singular values.
  TransformerLens against ours: it works in float32; n terms are summed with an error of n·u of the largest at most:
  n = d_model for folded and centred weights, n_heads·d_head for value biases, d_vocab for the centred unembedding;
  so (d_model + n_heads·d_head + 4)·u·largest/RMS, with d_vocab besides for the unembedding.
  A loaded folder: the parameters bit for bit, and logits of the file's model in float64 against those that h5lens has in
  float32: 1e-5 of their RMS. (Those of h5lens are within 6e-6 of float64 for these models, tests/golden; a key of the
  config that is missing or another's changes them by a part in a hundred at least.)
  Scores: TransformerLens's functions on the same weights in float64, 1e-9 (an eigenvalue is known to 1e-16 times its
  condition number); with its own weights in float32 they are shown, and bounded by 1e-3.

Prints a line a model with the largest errors, 'N passed, N failed'; exit status 1 on a failure. Needs torch,
transformers, transformer_lens 2.16 and h5py; no test of `make test`.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from check_transformer_lens import run_program, ungrouped_models
from checks import ROOT, Checks, models_of, parser_of
from safetensors.torch import save_file
from transformer_lens import FactoredMatrix, HookedTransformer, HookedTransformerConfig
from transformer_lens.loading_from_pretrained import get_pretrained_state_dict
from transformers import AutoModelForCausalLM
from transformers.utils import logging

import h5lens
import truth_weights

U = 2.0 ** -24
# What TransformerLens 2.16 does not convert from Hugging Face, or (BLOOM) not as transformers runs it.
NOT_THEIRS = {"bloom", "gemma3_text", "gpt_bigcode", "granite", "olmo2", "smollm3", "stablelm", "starcoder2"}
RAW = dict.fromkeys(truth_weights.PROCESSING, False)


def write(binary: Path, model: Path, out: Path, *more: str) -> h5lens.Weights:
    subprocess.run([str(binary), "weights", str(model), "-o", str(out), "--overwrite", *more], check=True,
                   capture_output=True)
    return h5lens.open_weights(out)


def transformer_lens(binary: Path, model: Path, tmp: Path, *more: str) -> HookedTransformer:
    """Its own model, with its own processing."""
    run_program(binary, model, tmp / "run.h5", *more)
    with h5lens.open_run(tmp / "run.h5") as run:
        config = HookedTransformerConfig(**h5lens.transformer_lens_config(run))
        flags = dict(run.experiment["weights"])
        flags["center_unembed"] &= run.model_config.get("center_unembed", True)  # as from_pretrained: not before a cap
    theirs = AutoModelForCausalLM.from_pretrained(model, torch_dtype=torch.float32)
    got = HookedTransformer(config)
    got.load_and_process_state_dict(get_pretrained_state_dict(str(model), config, theirs), **flags)
    return got


def parameters(model: HookedTransformer) -> dict[str, torch.Tensor]:
    """By the names of the file: grouped keys and values are _W_K in named_parameters."""
    return {n.replace("attn._", "attn."): p for n, p in model.named_parameters()}


def error(got: Any, want: Any, rms: float) -> float:
    worst = float(np.abs(np.asarray(got, np.float64) - np.asarray(want, np.float64)).max(initial=0))
    return worst / rms if rms else (0.0 if worst == 0 else np.inf)


def allowed(cfg: truth_weights.Config, name: str, w: np.ndarray, rms: float) -> float:
    """Of TransformerLens against ours."""
    n = cfg.d_model + cfg.n_heads * cfg.d_head + 4 + (cfg.d_vocab if name.startswith("unembed") else 0)
    return n * U * float(np.abs(w).max(initial=0)) / rms if rms else 0.0


def check_truth(c: Checks, what: str, w: h5lens.Weights, model: truth_weights.Model, floor: float) -> float:
    """Names, shapes and values against float64; returns the largest error."""
    truth = {n: a for n, a in model.weights.items() if n in w or not n.endswith("b_gate") or a.any()}
    c.that(set(truth) == set(w), f"{what}: names: {sorted(set(truth) ^ set(w))}")
    worst = 0.0
    for name in set(w) & set(truth):
        got, want = w[name][...], truth[name]
        if not c.that(got.shape == want.shape and got.dtype == np.float32, f"{what}: {name} {got.dtype} {got.shape}"):
            continue
        rms = float(np.sqrt((want ** 2).mean()))
        e = error(got, want, rms)
        bound = (U * float(np.abs(want).max(initial=0)) / rms if rms else 0) + floor
        c.that(e <= bound, f"{what}: {name}: off by {e:.2e} of float64, allowed {bound:.2e}")
        worst = max(worst, e)
    return worst


def check_theirs(c: Checks, what: str, w: h5lens.Weights, theirs: dict[str, torch.Tensor], model: truth_weights.Model,
                 raw: bool, scaled: bool) -> tuple[float, float]:
    """Against TransformerLens; the largest differences from ours, and of its own from float64."""
    mine = {n for n in w if not n.endswith("b_gate")}
    c.that(mine == set(theirs), f"{what}: names: {sorted(mine ^ set(theirs))}")
    worst = own = 0.0
    for name in mine & set(theirs):
        got, want, truth = w[name][...], theirs[name].detach().numpy(), model.weights[name]
        if not c.that(got.shape == want.shape, f"{what}: {name} {got.shape}, TransformerLens {want.shape}"):
            continue
        rms = float(np.sqrt((truth ** 2).mean()))
        e = error(got, want, rms)
        bound = allowed(model.cfg, name, truth, rms)
        if raw:  # but for a factor √d_model, rounded, and its products
            bound = 4 * U * float(np.abs(truth).max()) / rms if name == "embed.W_E" and scaled else 0.0
        c.that(e <= bound, f"{what}: {name}: {e:.2e} from TransformerLens, allowed {bound:.2e}")
        worst, own = max(worst, e), max(own, error(want, truth, rms))
    return worst, own


def their_scores(model: HookedTransformer) -> dict[str, np.ndarray]:
    got = {mode: model.all_composition_scores(mode) for mode in "QKV"}
    E = FactoredMatrix(model.W_E, torch.eye(model.cfg.d_model, dtype=model.W_E.dtype))
    for name, full in (("OV", E @ model.OV @ model.W_U), ("QK", E @ model.QK @ model.W_E.T)):
        values = full.eigenvalues
        got[name] = values.sum(-1).real / values.abs().sum(-1)
    return {k: v.detach().numpy() for k, v in got.items()}


def check_scores(c: Checks, what: str, w: h5lens.Weights, model: HookedTransformer) -> tuple[float, float]:
    ours = {**{m: w.composition_scores(m) for m in "QKV"}, **{m: w.copying_scores(m) for m in ("OV", "QK")}}
    single = their_scores(model)
    model = model.double()
    for name, p in parameters(model).items():
        p.data = torch.from_numpy(w[name][...].astype(np.float64))
    double = their_scores(model)
    worst = []
    for theirs, bound in ((double, 1e-9), (single, 1e-3)):
        off = {k: float(np.abs(v - theirs[k]).max()) if v.shape == theirs[k].shape else np.inf for k, v in ours.items()}
        c.that(max(off.values()) <= bound, f"{what}: scores: {off}")
        worst.append(max(off.values()))
    return worst[0], worst[1]


def readme_code() -> str:
    """The lines of README.md that load a folder."""
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.S)
    found = [b for b in blocks if '"demo-tl/config.json"' in b]
    if len(found) != 1:
        sys.exit("README.md: not one block of code that loads demo-tl")
    return found[0]


def load_folder(c: Checks, what: str, folder: Path, code: str, dtype: torch.dtype) -> HookedTransformer:
    """With the README's lines, and a dtype besides."""
    if not (folder / "tokenizer.json").exists():
        code = re.sub(r", PreTrainedTokenizerFast[^)]*\)", "", code)
    names: dict[str, Any] = {"torch": torch}
    exec(code.replace("demo-tl", str(folder)).replace("config.json\"))", f"config.json\")), dtype={dtype}"), names)
    made = {n.rsplit(".", 1)[1] for n in names["missing"]}
    there = names["config"].positional_embedding_type
    allowed_names = {"mask", "IGNORE"} | {"rotary": {"rotary_sin", "rotary_cos"}, "alibi": {"W_pos"}}.get(there, set())
    c.that(made <= allowed_names and not names["unexpected"], f"{what}: {made}, unexpected {names['unexpected']}")
    return names["model"]


def check_folder(c: Checks, binary: Path, model: Path, tmp: Path, raw: bool) -> str:
    """The folder in TransformerLens's own form: what it loads, and what that computes. Returns how it went."""
    what, more, folder = f"{model.name} folder{' raw' if raw else ''}", (("--raw-weights",) if raw else ()), tmp / "demo-tl"
    shutil.rmtree(folder, ignore_errors=True)
    got = subprocess.run([str(binary), "weights", str(model), "-o", str(folder), "--format", "hooked_transformer", *more],
                         capture_output=True, text=True)
    if got.returncode:
        c.that("config cannot say" in got.stderr or "b_gate is not zero" in got.stderr, f"{what}: {got.stderr}")
        return "no folder: " + got.stderr.split(": ", 2)[-1].split(":")[0].strip()
    code = readme_code()
    loaded = parameters(load_folder(c, what, folder, code, torch.float32))
    with h5lens.open_weights(tmp / "w.h5") as w:
        for name in w:
            c.that(name.endswith("b_gate") or torch.equal(loaded[name], torch.from_numpy(w[name][...])), f"{what}: {name}")
    run_program(binary, model, tmp / "run.h5", *more)
    theirs, worst = load_folder(c, what, folder, code, torch.float64), 0.0
    with h5lens.open_run(tmp / "run.h5") as run, torch.no_grad():
        for i, n in enumerate(run.lengths):
            want = theirs(torch.from_numpy(run.tokens(i)[:n]).long()[None])[0].numpy()
            worst = max(worst, error(run.cache("logits", rows=i)[:n], want, float(np.sqrt((want ** 2).mean()))))
    c.that(worst <= 1e-5, f"{what}: logits are {worst:.1e} from a HookedTransformer's")
    return f"folder {worst:.1e}"


# Of TransformerLens's own models: what differs from a small one with LayerNorm.
OWN = {"attn_only": {"attn_only": True, "act_fn": None, "d_mlp": None}, "solu_ln": {"act_fn": "solu_ln"},
       "none": {"normalization_type": None, "act_fn": "relu", "d_vocab_out": 17},
       "rms_gated": {"normalization_type": "RMS", "gated_mlp": True, "act_fn": "silu", "n_key_value_heads": 1,
                     "positional_embedding_type": "rotary"},
       "shortformer": {"positional_embedding_type": "shortformer"}, "final_rms": {"final_rms": True},
       "local": {"use_local_attn": True, "window_size": 3, "attn_types": ["local", "global"]},
       "caps": {"attn_scores_soft_cap": 2.0, "output_logits_soft_cap": 3.0, "normalization_type": "RMS",
                "use_normalization_before_and_after": True}, "embed_norm": {"post_embedding_ln": True}}


def check_own(c: Checks, binary: Path, tmp: Path) -> None:
    """A HookedTransformer, saved, written by h5lens as it is and processed, and loaded: the same log probabilities."""
    for name, over in OWN.items():
        config = {"n_layers": 2, "d_model": 24, "n_ctx": 12, "d_head": 8, "n_heads": 3, "d_mlp": 40, "act_fn": "gelu",
                  "d_vocab": 30, "seed": 1, **over}
        model, folder = HookedTransformer(HookedTransformerConfig(**config, dtype=torch.float64)), tmp / name
        for p in model.parameters():
            p.data = torch.randn(p.shape, dtype=torch.float32).double() / 2
        folder.mkdir()
        (folder / "config.json").write_text(json.dumps(model.cfg.to_dict(), default=str), encoding="utf-8")
        save_file({k: v.float().contiguous() for k, v in model.state_dict().items()}, folder / "model.safetensors")
        tokens, found = torch.randint(0, 30, (4, 12)), []
        for more in ((), ("--set", "weights=processed")):
            shutil.rmtree(tmp / "demo-tl", ignore_errors=True)
            got = subprocess.run([str(binary), "weights", str(folder), "-o", str(tmp / "demo-tl"), "--format",
                                  "hooked_transformer", *more], capture_output=True, text=True)
            if got.returncode:  # what cannot be folded in such a model
                c.that(more and "weights.fold_ln: " in got.stderr, f"{name}: {got.stderr}")
                continue
            loaded = load_folder(c, name, tmp / "demo-tl", readme_code(), torch.float64)
            with torch.no_grad():
                want, now = (m(tokens).log_softmax(-1) for m in (model, loaded))
            found.append(float((now - want).abs().max() / want.std()))
            # As it is: exact, but for embed.ln, which goes into W_E. Processed: weights rounded to float32.
            c.that(found[-1] <= (1e-5 if more or name == "embed_norm" else 0), f"{name} {more}: {found[-1]:.1e}")
        print(f"  TransformerLens's own, {name}: there and back " + ", processed ".join(f"{e:.1e}" for e in found))


def listed(binary: Path, model: Path, *more: str) -> list[str]:
    return subprocess.run([str(binary), "weights", str(model), *more], check=True, capture_output=True,
                          text=True).stdout.splitlines()


def check(c: Checks, binary: Path, model: Path, tmp: Path, raw: bool) -> None:
    what, more = model.name + (" raw" if raw else ""), (("--raw-weights",) if raw else ())
    truth = truth_weights.load(str(model), **(RAW if raw else {}))
    with write(binary, model, tmp / "w.h5", *more) as w:
        c.that(listed(binary, model, *more) == [f"{n} {list(w[n].shape)}" for n in w], f"{what}: the list")
        c.that(w.verify(), f"{what}: digests")
        line = f"  {what}: {len(w)} parameters, float64 {check_truth(c, what, w, truth, 0 if raw else 1e-12):.1e}"
        line += "; " + check_folder(c, binary, model, tmp, raw)
        hf = truth_weights.read_config(str(model))
        if hf["model_type"] in NOT_THEIRS:
            print(line + "; not in TransformerLens")
            return
        try:
            theirs = transformer_lens(binary, model, tmp, *more)
        except h5lens.H5LensError as e:
            c.that("which TransformerLens 2.x has not" in str(e), f"{what}: {e}")
            print(line + "; TransformerLens has not its rotary scaling")
            return
        if hf["model_type"] in ("llama", "qwen3") and (hf.get("attention_bias") or hf.get("mlp_bias")):
            lost = [n for n, p in parameters(theirs).items() if np.abs(w[n][...] - p.detach().numpy()).max() > 1e-3]
            c.that(lost and all(".b_" in n for n in lost), f"{what}: {lost}")
            print(line + f"; TransformerLens drops its biases: {len(lost)} parameters differ")
            return
        worst, own = check_theirs(c, what, w, parameters(theirs), truth, raw, hf["model_type"].startswith("gemma"))
        line += f", TransformerLens {worst:.1e} (itself {own:.1e})"
        double, single = check_scores(c, what, w, theirs)
        print(line + f"; scores {double:.1e}, from its float32 {single:.1e}")


def check_refactored(c: Checks, binary: Path, model: Path, tmp: Path) -> None:
    truth = truth_weights.load(str(model), **{truth_weights.REFACTOR: True})
    with write(binary, model, tmp / "w.h5", "--set", f"weights.{truth_weights.REFACTOR}=true") as w:
        what = f"{model.name} refactored"
        print(f"  {what}: float64 {check_truth(c, what, w, truth, 1e-9):.1e}")


def main() -> int:
    args = parser_of(__doc__).parse_args()
    logging.set_verbosity_error()
    c = Checks()
    with tempfile.TemporaryDirectory() as tmp, torch.inference_mode(False):
        check_own(c, args.h5lens, Path(tmp))
        for model in [*models_of(args), *(() if args.models else ungrouped_models(Path(tmp)))]:
            for raw in (False, True):
                check(c, args.h5lens, model, Path(tmp), raw)
            if truth_weights.read_config(str(model))["model_type"] in ("gpt2", "gpt_neo"):
                check_refactored(c, args.h5lens, model, Path(tmp))
    return c.end()


if __name__ == "__main__":
    sys.exit(main())
