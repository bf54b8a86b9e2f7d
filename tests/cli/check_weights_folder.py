#!/usr/bin/env python3
"""Checks `h5lens weights --format hooked_transformer`: the folder, its errors, what it is replaced by.

The values are those of the HDF5 file that check_weights.py compares with float64, bit for bit. Of the tiny models, and of
one whose matrices take several chunks. And a run of the folder gives the bits that a run of the model gives. H5LENS is the program, WORK a folder of our own.

Prints each failure and a last line 'N passed, N failed'; exit status 1 on a failure.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
from pathlib import Path

import h5py
import numpy as np

from check_weights import CHECKS, DATA, GPT2, GQA, MIB, h5lens, make_model, run, says, that, truth_weights

FOLDER = ("--format", "hooked_transformer")
TOKENIZER = {"tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.json", "merges.txt"}
# What HookedTransformerConfig of 2.16 has no key for: from its error to the models that have it.
CANNOT = {"rope_local_base_freq 10000": ["gemma3", "gemma3_linear"], "type \"linear\", factor 2.5": ["llama_linear"],
          "type \"yarn\", factor 4": ["qwen3_yarn"], "type \"longrope\", factor 1": ["phi3_longrope"],
          "norms only behind attention and MLP": ["olmo2", "olmo2_tied"], "ALiBi with 3 heads": ["bloom"],
          "no_rope_layers: layer 1": ["smollm3", "smollm3_interval"],
          "norm_topk_prob false": ["qwen3_moe"],
          "blocks.0.mlp.b_gate is not zero": ["granite", "llama_bias", "stablelm", "stablelm_parallel"]}
CANNOT_NAMES = {n for names in CANNOT.values() for n in names}


def read(folder: Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """The tensors of model.safetensors, and its metadata. The file is as the format has it, with nothing between."""
    data = (folder / "model.safetensors").read_bytes()
    n = int.from_bytes(data[:8], "little")
    header = json.loads(data[8:8 + n])
    meta = header.pop("__metadata__")
    that(n % 8 == 0 and list(header) == sorted(header), f"{folder.name}: the header")
    got, end = {}, 0
    for name, entry in header.items():
        begin, end, last = *entry["data_offsets"], end
        that(entry["dtype"] == "F32" and begin == last, f"{folder.name}: {name}: {entry}")
        got[name] = np.frombuffer(data[8 + n + begin:8 + n + end], np.float32).reshape(entry["shape"])
    that(8 + n + end == len(data), f"{folder.name}: the file's end")
    return got, meta


def is_own(model: Path) -> bool:
    return "normalization_type" in json.loads((model / "config.json").read_text(encoding="utf-8"))


def check_folder(model: Path, tmp: Path, raw: bool) -> None:
    """Names, shapes and bits are those of the HDF5 file; config.json's keys; the tokenizer's files."""
    out, more = tmp / "folder", ("--raw-weights",) if raw else ()
    what = " ".join((model.name, *more))
    says(0, " parameters, ", "weights", model, "-o", out, *FOLDER, *more)
    got, meta = read(out)
    config = json.loads((out / "config.json").read_text(encoding="utf-8"))
    says(0, "", "weights", model, "-o", tmp / "w.h5", "--overwrite", *more)
    with h5lens.open_weights(tmp / "w.h5") as w:
        grouped = "n_key_value_heads" in config
        names = {n: "attn._".join(n.split("attn.")) if grouped and n[-3:] in ("W_K", "W_V", "b_K", "b_V") else n
                 for n in w if not n.endswith("b_gate")}
        that(set(got) == set(names.values()), f"{what}: names: {sorted(set(got) ^ set(names.values()))}")
        for n, ours in names.items():
            that(got[ours].shape == w[n].shape and got[ours].tobytes() == w[n][...].tobytes(), f"{what}: {n}")
        that(meta["sha256_model"] == w.attr("sha256_model"), f"{what}: the model's digest")
        # W_U is not centred before a cap.
        steps = [k for k in truth_weights.PROCESSING if w.processing[k] and w.config.get(k, True)]
        that(meta["processing"].split() == steps, f"{what}: {meta['processing']}")
        norm = w.config["normalization_type"]
    # TransformerLens's own models are written as they are stored.
    own = json.loads((model / "config.json").read_text(encoding="utf-8"))
    folded = not raw and "num_experts" not in config  # norms of experts are not
    stored = own["normalization_type"] if is_own(model) else ("RMS" if "RMS" in norm else "LN") + ("Pre" if folded else "")
    that(config["normalization_type"] == norm == stored, f"{what}: {norm}")
    known = h5lens.tl_config._TL_KEYS | {"use_qk_norm", "attn_scores_soft_cap", "output_logits_soft_cap",
                               "use_normalization_before_and_after", "d_vocab_out", "attn_only", "final_rms"}
    that(not set(config) - known, f"{what}: config.json: {set(config) - known}")
    that(isinstance(config.get("rotary_base", 1), int), f"{what}: rotary_base is int")
    want = {n for n in TOKENIZER if (model / n).exists()} | {"config.json", "model.safetensors"}
    that({p.name for p in out.iterdir()} == want, f"{what}: files: {want ^ {p.name for p in out.iterdir()}}")
    for n in want & TOKENIZER:
        that((out / n).read_bytes() == (model / n).read_bytes(), f"{what}: {n}")
    shutil.rmtree(out)


def contents(file: Path) -> dict[str, bytes]:
    """Every data set of activations and tables."""
    got: dict[str, bytes] = {}
    with h5py.File(file) as f:
        for group in ("cache", "results"):
            f[group].visititems(lambda name, d: got.update({f"{group}/{name}": d[...].tobytes()})
                                if isinstance(d, h5py.Dataset) else None)
    return got


def check_round_trip(model: Path, tmp: Path, raw: bool) -> None:
    """The folder, run as it is, gives the bits that the model gives: float32 weights are exact, and nothing is done twice."""
    more = ("--raw-weights",) if raw else ()
    what = " ".join((model.name, *more))
    says(0, "", "weights", model, "-o", tmp / "tl", *FOLDER, *more)
    ran = ["--data", model / "prompts.csv", "--hooks", "*,logits,*hook_result", "--tables", "all", "--quiet", "--overwrite"]
    says(0, "", "run", "--model", model, *ran, "-o", tmp / "direct.h5", *more)
    says(0, "", "run", "--model", tmp / "tl", *ran, "-o", tmp / "round.h5")
    want, got = contents(tmp / "direct.h5"), contents(tmp / "round.h5")
    that(set(got) == set(want) and len(want) > 30, f"{what}: there and back: {sorted(set(got) ^ set(want))}")
    that(not (odd := [n for n in got if got[n] != want.get(n)]), f"{what}: there and back, other bits: {odd}")
    shutil.rmtree(tmp / "tl")


def check_cannot(tmp: Path) -> None:
    """Refused by name, and nothing is left; whose bias is zero without folding is written then."""
    for part, names in CANNOT.items():
        for name in names:
            says(1, part, "weights", DATA / name, "-o", tmp / "none", *FOLDER)
    for name in ("stablelm", "stablelm_parallel"):
        says(1, "--set weights.fold_ln=false keeps it 0", "weights", DATA / name, "-o", tmp / "none", *FOLDER)
        check_folder(DATA / name, tmp, True)
    that(not list(tmp.glob("none*")), f"left behind: {list(tmp.glob('none*'))}")


def check_gated_bias(tmp: Path) -> None:
    """Without a bias of the gate, but with one of W_in, which TransformerLens adds elsewhere."""
    model = tmp / "b_in"
    shutil.copytree(DATA / "granite", model)
    data = bytearray((model / "model.safetensors").read_bytes())
    n = int.from_bytes(data[:8], "little")
    for name, entry in json.loads(data[8:8 + n]).items():
        if name.endswith("gate_proj.bias"):
            begin, end = (8 + n + at for at in entry["data_offsets"])
            data[begin:end] = bytes(end - begin)
    (model / "model.safetensors").write_bytes(data)
    says(1, "blocks.0.mlp.b_in is not zero, and a HookedTransformer adds b_in of a gated MLP behind the product", "weights",
         model, "-o", tmp / "none", *FOLDER)


def check_context(tmp: Path) -> None:
    """A long context is limited where no weight depends on it, and said."""
    model = tmp / "long"
    shutil.copytree(GQA, model)
    config = json.loads((model / "config.json").read_text(encoding="utf-8"))
    (model / "config.json").write_text(json.dumps({**config, "max_position_embeddings": 131072}), encoding="utf-8")
    says(0, "n_ctx is 2048 in config.json, not 131072", "weights", model, "-o", tmp / "capped", *FOLDER)
    that(json.loads((tmp / "capped" / "config.json").read_text(encoding="utf-8"))["n_ctx"] == 2048, "n_ctx")


def state(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in folder.iterdir()}


def check_refused(tmp: Path, large: Path) -> None:
    out, mine = tmp / "out", tmp / "mine"
    says(2, "-o is missing", "weights", GQA, *FOLDER)
    says(2, "expected hdf5 | hooked_transformer, not 'pth'", "weights", GQA, "-o", out, "--format", "pth")
    says(0, "", "weights", GQA, "-o", tmp / "named.h5", "--format", "hdf5")
    says(2, "is no folder: one is written here", "weights", GQA, "-o", tmp / "named.h5", *FOLDER)
    says(1, "cannot write in the output's folder", "weights", GQA, "-o", tmp / "no" / "out", *FOLDER)
    says(2, "is the model's own folder", "weights", GQA, "-o", GQA, *FOLDER, "--overwrite")
    out.mkdir()
    says(0, "", "weights", GQA, "-o", f"{out}/", *FOLDER)  # an empty folder is as good as none
    before = state(out)
    says(2, "exists; choose another name, or --overwrite", "weights", GPT2, "-o", out, *FOLDER)
    that(state(out) == before, "a refused folder was touched")
    says(0, "", "weights", GPT2, "-o", out, *FOLDER, "--overwrite")
    that(state(out) != before, "not replaced")
    says(0, "", "weights", GQA, "-o", out, *FOLDER, "--overwrite")
    that(state(out) == before, "the same model is another folder")
    (out / "notes.txt").write_text("mine", encoding="utf-8")
    says(2, "holds notes.txt, which would be lost", "weights", GPT2, "-o", out, *FOLDER, "--overwrite")
    shutil.copytree(GPT2, mine)
    before = state(mine)
    says(2, "is not a folder that h5lens weights wrote", "weights", GQA, "-o", mine, *FOLDER, "--overwrite")
    that(state(mine) == before, "a stranger's model was touched")
    (tmp / "link").symlink_to("target")
    says(0, "", "weights", GQA, "-o", tmp / "link", *FOLDER)
    that((tmp / "link").is_symlink() and (tmp / "target" / "config.json").exists(), "a link is followed")
    code, said = run("weights", large, "-o", tmp / "big", *FOLDER, most=MIB)
    that(code in (1, 75) and "model.safetensors" in said, f"a file that may not grow: {code}, {said}")
    left = [p.name for p in tmp.iterdir() if p.name.startswith(("big", "out.", "target."))]
    that(not left, f"left behind: {left}")


def main() -> int:
    with tempfile.TemporaryDirectory(dir=os.environ.get("WORK")) as name:
        tmp = Path(name)
        for model in sorted(d for d in DATA.iterdir() if list(d.glob("*.safetensors"))):
            for raw in (False,) if is_own(model) else (True, False):
                if model.name not in CANNOT_NAMES:
                    check_folder(model, tmp, raw)
                    check_round_trip(model, tmp, raw)
        check_cannot(tmp)
        check_gated_bias(tmp)
        check_context(tmp)
        large = make_model(tmp / "large")
        check_folder(large, tmp, True)
        check_refused(tmp, large)
    return CHECKS.end()


if __name__ == "__main__":
    sys.exit(main())
