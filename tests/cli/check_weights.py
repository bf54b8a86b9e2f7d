#!/usr/bin/env python3
"""Checks `h5lens weights`: its list, its file, its errors; and what scripts/h5lens computes of the file.

Values are those of scripts/truth_weights.py, which reads the models' own safetensors with NumPy: raw ones bit for bit,
processed ones rounded once from float64. Of the tiny models, and of one made here whose matrices take several chunks,
the last of them cut off, with fewer key/value heads than heads. H5LENS is the program, WORK a folder of our own.

Prints each failure and a last line 'N passed, N failed'; exit status 1 on a failure.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import h5py
import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "scripts"))

import h5lens  # noqa: E402
import truth_weights  # noqa: E402
from checks import Checks  # noqa: E402

BIN = os.environ.get("H5LENS", str(ROOT / "build" / "h5lens"))
DATA = ROOT / "tests" / "golden" / "data"
GQA, GPT2 = DATA / "llama_gqa", DATA / "gpt2_gelu"
RAW = dict.fromkeys(truth_weights.PROCESSING, False)
U = 2.0 ** -24  # what rounding to float32 changes, relatively
MIB = 1 << 20

CHECKS = Checks()
that = CHECKS.that


def run(*args: object, most: int | None = None) -> tuple[int, str]:
    """Exit code and all that was said; most: bytes that a file may have."""
    limit = (lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))) if most else None
    got = subprocess.run([BIN, *map(str, args)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                         preexec_fn=limit)
    return got.returncode, got.stdout


def says(code: int, part: str, *args: object, most: int | None = None) -> None:
    got, text = run(*args, most=most)
    that(got == code and part in text, f"{args}: {got}, not {code}, or no '{part}' in: {text}")


def make_model(folder: Path) -> Path:
    """A Llama of one layer, its tensors random."""
    D, H, KV, dh, F, V = 320, 15, 5, 256, 4099, 5003
    config = {"model_type": "llama", "architectures": ["LlamaForCausalLM"], "num_hidden_layers": 1, "hidden_size": D,
              "num_attention_heads": H, "num_key_value_heads": KV, "head_dim": dh, "intermediate_size": F,
              "vocab_size": V, "max_position_embeddings": 64, "tie_word_embeddings": False}
    at = "model.layers.0."
    shapes = {"model.embed_tokens.weight": (V, D), "lm_head.weight": (V, D), "model.norm.weight": (D,),
              at + "input_layernorm.weight": (D,), at + "post_attention_layernorm.weight": (D,),
              at + "self_attn.q_proj.weight": (H * dh, D), at + "self_attn.k_proj.weight": (KV * dh, D),
              at + "self_attn.v_proj.weight": (KV * dh, D), at + "self_attn.o_proj.weight": (D, H * dh),
              at + "mlp.gate_proj.weight": (F, D), at + "mlp.up_proj.weight": (F, D),
              at + "mlp.down_proj.weight": (D, F)}
    header, end = {}, 0
    for name, shape in shapes.items():
        begin, end = end, end + 4 * int(np.prod(shape))
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    (folder / "model.safetensors").write_bytes(
        len(text).to_bytes(8, "little") + text + np.random.default_rng(7).standard_normal(end // 4, np.float32).tobytes())
    return folder


# --- the list and the file --------------------------------------------------------

def check_list() -> None:
    """As the notebook has it, for a model processed by default."""
    code, text = run("weights", GPT2)
    names = [line.split(" ")[0] for line in text.splitlines() if "blocks" not in line or ".0." in line]
    that(code == 0 and names == [
        "embed.W_E", "pos_embed.W_pos", *(f"blocks.0.attn.{n}" for n in ("W_Q", "W_K", "W_V", "W_O", "b_Q", "b_K", "b_V",
                                                                       "b_O")),
        *(f"blocks.0.mlp.{n}" for n in ("W_in", "b_in", "W_out", "b_out")), "unembed.W_U", "unembed.b_U"], f"{names}")
    that("\nblocks.1.attn.W_Q [3, 24, 8]\n" in text, text)
    text = run("weights", GPT2, "--set", "weights.fold_ln=false")[1]
    that("\nblocks.0.ln1.w [24]\nblocks.0.ln1.b [24]\nblocks.0.ln2.w" in text and "\nln_final.b [24]\n" in text, text)
    text = run("weights", GQA, "--raw-weights")[1]
    that("ln_final.w [24]" in text and "ln_final.b" not in text and "attn.W_K [2, 24, 8]" in text, text)
    that("b_gate" not in text and ".mlp.b_gate [" in run("weights", DATA / "llama_bias")[1], "b_gate")


def check_values(model: Path, out: Path, raw: bool) -> None:
    what, more = model.name + (" raw" if raw else ""), (("--raw-weights",) if raw else ())
    own = model.name.startswith("own_")  # as stored unless they are told otherwise
    if own and not raw:
        more = ("--set", "weights=processed")
        refused = truth_weights.refused(truth_weights.read_model(str(model))[0])
        if refused:
            says(1, refused.split(":")[0], "weights", model, "-o", out, *more)
            shutil.copy(model / "config.json", out)  # which the caller removes
            return
    loaded = truth_weights.load(str(model), **(RAW if raw else {}))
    kind, folds = loaded.cfg.norm, not raw and not loaded.cfg.folded and loaded.cfg.norm != "none"
    folds = folds and not any(".experts." in n for n in loaded.weights)
    # TransformerLens has no bias of the gate: left out where there can be none.
    gates = kind == "LN" or any(a.any() for n, a in loaded.weights.items() if n.endswith("b_gate"))
    truth = {n: a for n, a in loaded.weights.items() if gates or not n.endswith("b_gate")}
    # The factors of an embedding, of gains and of what is added are in the weights: rounded once, as processed ones are.
    exact = raw and not model.name.startswith(("gemma", "granite", "bloom", "own_embed_norm"))
    says(0, f"{out}: {len(truth)} parameters, ", "weights", model, "-o", out, *more)
    with h5lens.open_weights(out) as w:
        that(set(w) == set(truth), f"{what}: {sorted(set(w) ^ set(truth))}")
        that(run("weights", model, *more)[1].splitlines() == [f"{n} {list(d.shape)}" for n, d in w.items()],
             f"{what}: the list is not the file's")
        for name in set(w) & set(truth):
            got, want = w[name][...], truth[name]
            bound = 0.0 if exact else U * np.abs(want) + 1e-12 * np.sqrt((want ** 2).mean())
            that(got.dtype == np.float32 and got.shape == want.shape and (np.abs(got - want) <= bound).all(),
                 f"{what}: {name} {got.dtype} {got.shape}")
        that(w.verify() and len(w.verify().matched) == len(w) + 1, f"{what}: digests")
        that(w.processing["fold_ln"] is folds and w.config["d_model"] == w["embed.W_E"].shape[1], f"{what}: attributes")
    says(0, " 0 bad", "verify", out)


def check_large(model: Path, out: Path) -> None:
    """Chunks of up to 4 MiB, and more than half of that where the data are larger."""
    check_values(model, out, True)
    cut = 0
    with h5lens.open_weights(out) as w:
        for name, d in w.items():
            size = 4 * int(np.prod(d.chunks))
            that(size == d.nbytes if d.nbytes <= 4 * MIB else 1.5 * MIB < size <= 4 * MIB, f"{name}: chunks {d.chunks}")
            cut += any(n % c for n, c in zip(d.shape, d.chunks))
        that(cut == 7 and w["blocks.0.attn.W_Q"].chunks == (8, 320, 256), f"{cut} cut")
        that(w.dims("blocks.0.attn.W_K") == ("kv_head", "d_model", "d_head"), "dimensions")
        that(w.dims("unembed.W_U") == ("d_model", "d_vocab"), "dimensions")
    says(0, "/weights/unembed.W_U                         float32 [d_model 320, d_vocab 5003]", "info", out)
    os.remove(out)
    check_values(model, out, False)


# --- what is refused -----------------------------------------------------------------

def check_refused(tmp: Path, model: Path) -> None:
    out, text, other = tmp / "w.h5", tmp / "text.h5", tmp / "run.h5"
    says(0, "", "weights", GQA, "-o", out)
    before = h5lens.open_weights(out).attr("sha256")
    says(2, "exists; choose another name, or --overwrite", "weights", GQA, "-o", out, "--raw-weights")
    that(h5lens.open_weights(out).attr("sha256") == before, "a refused file was touched")
    says(0, "", "weights", GQA, "-o", out, "--overwrite")
    that(h5lens.open_weights(out).attr("sha256") == before, "the same weights are another file")
    says(0, "", "weights", GQA, "-o", out, "--overwrite", "--raw-weights")
    that(h5lens.open_weights(out).attr("sha256") != before, "other weights are the same file")
    text.write_text("mine", encoding="utf-8")
    says(2, "is not an HDF5 file: it is not overwritten", "weights", GQA, "-o", text, "--overwrite")
    says(0, "", "run", "--model", GQA, "--data", GQA / "prompts.csv", "-o", other, "--quiet", "--hooks", "none")
    says(2, "is not a file of weights: it is not overwritten", "weights", GQA, "-o", other, "--overwrite")
    says(0, " 0 bad", "verify", other)
    says(1, "is a file of weights", "run", "--model", GQA, "--data", GQA / "prompts.csv", "-o", out)
    says(1, "there is no such folder", "weights", tmp / "nowhere")
    says(2, "is a file; a model is named by its folder", "weights", out)
    says(2, "is a folder, and a file is needed here", "weights", GQA, "-o", tmp)
    says(1, "cannot write in the output's folder", "weights", GQA, "-o", tmp / "no" / "w.h5")
    says(2, "did you mean 'weights.fold_ln'", "weights", GQA, "--set", "weights.fold_l=true")
    says(2, "the settings here are weights.…", "weights", GQA, "--set=cache.dtype=f16")
    says(2, "--set needs key=value", "weights", GQA, "--set")
    says(2, "expected true | false", "weights", GQA, "--set", "weights.fold_ln=perhaps")
    says(2, "expected auto | tied | stored", "weights", GQA, "--tied-head", "both")
    says(2, "unknown option '--hooks'", "weights", GQA, "--hooks", "none")
    says(2, "an argument is missing", "weights")
    says(1, "rotary positions", "weights", GQA, "-o", tmp / "x.h5", "--set",
         "weights.refactor_factored_attn_matrices=true")
    says(1, "\"lm_head.weight\" is missing", "weights", GQA, "-o", tmp / "x.h5", "--tied-head", "stored")
    code, said = run("weights", model, "-o", tmp / "x.h5", most=MIB)
    that(code in (1, 75) and "x.h5" in said, f"a file that may not grow: {code}, {said}")
    that(not list(tmp.glob("x.h5*")), f"left behind: {list(tmp.glob('x.h5*'))}")


def check_damage(tmp: Path) -> None:
    """A bit of a matrix, of a file that is whole otherwise."""
    out = tmp / "damaged.h5"
    says(0, "", "weights", GPT2, "-o", out)
    with h5py.File(out) as f:
        at = f["weights/unembed.W_U"].id.get_chunk_info(0).byte_offset
    data = bytearray(out.read_bytes())
    data[at + 5] ^= 1
    out.write_bytes(data)
    says(1, "/weights/unembed.W_U: ", "verify", out)
    that(list(h5lens.open_weights(out).verify().wrong) == ["weights/unembed.W_U"], "the reader sees no damage")


# --- the reader -----------------------------------------------------------------------

def raises(error: type[Exception], part: str, do: object) -> None:
    try:
        do()
        that(False, f"no {error.__name__} '{part}'")
    except error as e:
        that(part in str(e), f"'{part}' in: {e}")


def norm(a: np.ndarray) -> float:
    return float(np.sqrt((a ** 2).sum()))


def check_scores(model: Path, out: Path) -> None:
    """By their definitions, with whole matrices."""
    says(0, "", "weights", model, "-o", out)
    with h5lens.open_weights(out) as w:
        n, heads = w.config["n_layers"], w.config["n_heads"]
        W = {k: w.stack(k, np.float64) for k in ("W_Q", "W_K", "W_V", "W_O")}
        E, Un = (w[k][...].astype(np.float64) for k in ("embed.W_E", "unembed.W_U"))
        ov, qk = W["W_V"] @ W["W_O"], W["W_Q"] @ np.swapaxes(W["W_K"], -1, -2)
        for mode, right in (("Q", qk), ("K", np.swapaxes(qk, -1, -2)), ("V", ov)):
            want = np.zeros((n, heads, n, heads))
            for i, h, j, k in np.ndindex(want.shape):
                if i < j:
                    want[i, h, j, k] = norm(ov[i, h] @ right[j, k]) / norm(ov[i, h]) / norm(right[j, k])
            got = w.composition_scores(mode)
            that(got.shape == want.shape and np.abs(got - want).max() < 1e-12, f"{model.name}: composition {mode}")
        for circuit, whole in (("OV", E @ ov @ Un), ("QK", E @ qk @ E.T)):
            values = np.linalg.eigvals(whole)  # of d_vocab × d_vocab, nearly all of them 0
            want = values.sum(-1).real / np.abs(values).sum(-1)
            got = w.copying_scores(circuit)
            # The zeros come out as some 1e-16 of the largest, d_vocab of them.
            that(got.shape == want.shape and np.abs(got - want).max() < 1e-10, f"{model.name}: copying {circuit}")


def check_reader(tmp: Path) -> None:
    out = tmp / "w.h5"
    w = h5lens.open_weights(out)
    that("blocks.0.attn._W_K" in w and w["blocks.0.attn._W_K"] == w["blocks.0.attn.W_K"], "TransformerLens's _W_K")
    that("blocks.0.attn._W_Q" not in w, "_W_Q is no name")
    that((w.stack("W_K")[1, 3] == w["blocks.1.attn.W_K"][1]).all() and w.stack("W_K").shape == (2, 4, 24, 8), "stack")
    that((w.stack("b_in")[1] == w["blocks.1.mlp.b_in"][...]).all(), "stack of a bias")
    raises(h5lens.UnknownName, "blocks.0.attn.W_Q", lambda: w["blocks.0.attn.W_q"])
    raises(ValueError, "mode", lambda: w.composition_scores("OV"))
    raises(ValueError, "circuit", lambda: w.copying_scores("V"))
    raises(h5lens.H5LensError, "open_run reads it", lambda: h5lens.open_weights(tmp / "run.h5"))
    raises(h5lens.H5LensError, "open_weights reads it", lambda: h5lens.open_run(out))
    raises(h5lens.H5LensError, "not an HDF5 file", lambda: h5lens.open_weights(tmp / "text.h5"))
    raises(FileNotFoundError, "not there", lambda: h5lens.open_weights(tmp / "none.h5"))
    w.close()
    that("closed" in repr(w), "repr of a closed file")


def main() -> int:
    with tempfile.TemporaryDirectory(dir=os.environ.get("WORK")) as name:
        tmp = Path(name)
        check_list()
        for model in sorted(d for d in DATA.iterdir() if list(d.glob("*.safetensors"))):
            for raw in (True, False):
                check_values(model, tmp / "out.h5", raw)
                os.remove(tmp / "out.h5")
        large = make_model(tmp / "large")
        check_large(large, tmp / "large.h5")
        check_refused(tmp, large)
        check_damage(tmp)
        check_reader(tmp)
        for model in (GPT2, GQA):
            check_scores(model, tmp / f"{model.name}.h5")
        shutil.rmtree(large)
    return CHECKS.end()


if __name__ == "__main__":
    sys.exit(main())
