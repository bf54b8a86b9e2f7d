#!/usr/bin/env python3
"""Checks models of TransformerLens itself at the command line: weights as stored unless weights.* says otherwise, prompts
of ids without a tokenizer, logits of fewer tokens than are read, models without MLPs.

Their numbers are beside TransformerLens in tests/golden. H5LENS is the program, WORK a folder of our own.

Prints each failure and a last line 'N passed, N failed'; exit status 1 on a failure.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from pathlib import Path

import h5py
import numpy as np

from check_weights import CHECKS, DATA, check_values, run, says, that

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts"))
from golden_hooked import hooked_config, hooked_weights  # noqa: E402
from golden_models import Maker, write_json, write_safetensors  # noqa: E402

IDS = "ids,other,answer,wrong\n1 2 3 7,1 5 3 7,4,2\n4 5 7,4 6 7,3,0\n"


def done(*args: object) -> None:
    code, text = run(*args)
    that(code == 0, f"{args}: {code}: {text}")


def toy(work: Path) -> Path:
    """Eight tokens that are read, seven logits, and no tokenizer."""
    folder = work / "toy"
    folder.mkdir()
    cfg = hooked_config(8, 2, 16, 2, 8, d_vocab=8, d_vocab_out=7, attn_only=True,
                        positional_embedding_type="shortformer")
    write_json(str(folder / "config.json"), cfg)
    write_safetensors(str(folder / "any name.safetensors"), hooked_weights(cfg, Maker(5, 16)), "F32")
    (work / "ids.csv").write_text(IDS)
    return folder


def check_embed_norm(work: Path) -> None:
    """post_embedding_ln: W_E holds the norm and is not centred, W_pos is."""
    folder = work / "own_embed_norm"
    folder.mkdir()
    cfg = hooked_config(8, 2, 16, 2, 8, d_vocab=9, d_vocab_out=9, act_fn="gelu", d_mlp=12, post_embedding_ln=True)
    write_json(str(folder / "config.json"), {"model_type": "hooked_transformer", **cfg})
    write_safetensors(str(folder / "model.safetensors"), hooked_weights(cfg, Maker(9, 16)), "F32")
    for raw in (False, True):
        check_values(folder, work / f"embed-norm-{raw}.h5", raw)
    with h5py.File(work / "embed-norm-False.h5", "r") as f:
        means = {n: np.abs(f[f"weights/{n}"][()].mean(-1)).max() for n in ("embed.W_E", "pos_embed.W_pos")}
    that(means["pos_embed.W_pos"] < 1e-7 < 1e-3 < means["embed.W_E"], f"W_pos is centred, W_E is not: {means}")


def check_few_neurons(work: Path) -> None:
    """Fewer than top_k: what there is, and nothing past it."""
    folder, out = work / "few", work / "few.h5"
    folder.mkdir()
    cfg = hooked_config(8, 1, 16, 2, 8, d_vocab=8, d_vocab_out=8, act_fn="gelu", d_mlp=2)
    write_json(str(folder / "config.json"), cfg)
    write_safetensors(str(folder / "model.safetensors"), hooked_weights(cfg, Maker(6, 16)), "F32")
    (work / "few.csv").write_text(IDS)
    done("run", "--model", folder, "--data", work / "few.csv", "--tokens", "ids", "--answers-as", "ids", "--tables", "all",
         "--set", "data.prepend_bos=false", "--set", "data.answers=[answer,wrong]", "-o", out)
    got = results(out)
    layer, neuron, attr = (got[f"top_neuron{x}"] for x in ("_layer", "", "_attr"))
    that(layer.shape == (2, 8) and (layer[:, :2] == 0).all() and (layer[:, 2:] == -1).all(), f"layers: {layer}")
    that((np.sort(neuron[:, :2]) == [0, 1]).all() and (neuron[:, 2:] == -1).all(), f"neurons: {neuron}")
    diff = got["neuron_attrs"][:, 0, :, 0] - got["neuron_attrs"][:, 0, :, 1]
    that(np.allclose(attr[:, :2], np.take_along_axis(diff, neuron[:, :2], 1), rtol=1e-5, atol=1e-6)
         and np.isnan(attr[:, 2:]).all(), f"what they add: {attr}, {diff}")
    says(0, " 0 bad", "verify", out)


def effective(path: Path) -> dict:
    with h5py.File(path, "r") as f:
        return json.loads(f.attrs["experiment"])["weights"]


def results(path: Path) -> dict[str, np.ndarray]:
    out: dict[str, np.ndarray] = {}
    with h5py.File(path, "r") as f:
        f["results"].visititems(lambda n, x: out.update({n: x[()]}) if isinstance(x, h5py.Dataset) else None)
    return out


def check_processing(work: Path) -> None:
    """Off unless named, each by itself; and what there is to fold."""
    model, data = DATA / "own_solu_ln", ("--data", str(DATA / "own_solu_ln" / "prompts.csv"), "--hooks", "none")
    for i, (settings, on) in enumerate((
            ((), set()), (("--set", "weights.fold_ln=true"), {"fold_ln"}),
            (("--set", "weights={center_unembed: true, fold_ln: false}"), {"center_unembed"}),
            (("--set", "weights=processed"), {"fold_ln", "center_writing_weights", "center_unembed", "fold_value_biases"}),
            (("--raw-weights",), set()))):
        out = work / f"processing-{i}.h5"
        done("run", "--model", model, *data, *settings, "-o", out)
        got = {k for k, v in effective(out).items() if v}
        that(got == on, f"weights {settings}: the file says {sorted(got)}")
    folded, stored = run("weights", model, "--set", "weights.fold_ln=true")[1], run("weights", model)[1]
    that("mlp.ln.w" not in folded and "mlp.ln.w" in stored, "mlp.ln.w is there unless it is folded")
    says(1, "weights.fold_ln: in a shortformer W_pos is added behind the norm", "weights", DATA / "own_shortformer_mlp", "--set", "weights.fold_ln=true")
    says(1, "weights.center_writing_weights: in a shortformer", "weights", DATA / "own_shortformer", "--set", "weights=processed")
    says(1, "final_rms", "weights", DATA / "own_parallel", "--set", "weights.fold_ln=true")
    says(1, "b_in", "weights", DATA / "own_gated", "--set", "weights.fold_ln=true")


def check_ids(work: Path) -> None:
    folder, out = toy(work), work / "toy.h5"
    ids = ("run", "--model", str(folder), "--data", str(work / "ids.csv"), "--tokens", "ids", "--answers-as", "ids",
           "--set", "data.prepend_bos=false", "--set", "data.answers=[answer,wrong]", "--overwrite", "-o")
    done(*ids, out, "--set", "tables=all")
    got = results(out)
    that(not {"loss", "token_logprobs", "neuron_attrs", "top_neuron"} & got.keys()
         and {"logit_attrs", "head_attrs", "head_scores", "entropy"} <= got.keys(),
         f"all but loss and neurons: {sorted(got)}")
    that(np.allclose(got["logit_attrs"].sum(1), got["answer_logit"], rtol=0, atol=2e-5), "attributions add up to the logits")
    that(got["logit_attrs"].shape == (2, 4, 2), f"embed, two attn_out, bias: {got['logit_attrs'].shape}")
    that(got["top_tokens"].shape == (2, 7) and got["top_tokens"].max() == 6, f"seven logits: {got['top_tokens']}")
    for word, settings in (("loss: tokens from d_vocab_out on", ("tables=[loss]",)), ("has no neurons", ("tables=[neuron_attrs]",)),
                           ("lens_mid: there is no stream", ("lens_mid=true",)),
                           ("there is no mlp_out in this model", ("data.corrupted=other", "patch.grids=[mlp_out]")),
                           ("there is no mlp_out in this model", ("ablate.grids=[mlp_out]",)),
                           ("there is no hook_mlp_out", ("steer.hook=mlp_out", "steer.layer=0", f"steer.vector={work}/v.npy"))):
        np.save(work / "v.npy", np.ones(16, np.float32))
        says(2, word, *ids, out, *[x for s in settings for x in ("--set", s)])
    done("weights", folder, "-o", work / "w.h5")
    says(1, "w.h5: is a file of weights", *ids[:-2], "-o", work / "w.h5")
    says(2, "-o -: a folder is written", "weights", folder, "--format", "hooked_transformer", "-o", "-")
    (work / "ids.csv").write_text(IDS.replace(",3,0", ",7,0"))
    says(1, "the number of the model's logits is 7", *ids, out)
    (work / "ids.csv").write_text(IDS)
    says(1, "data.tokens takes prompts as token ids", "run", "--model", folder, "--data", work / "ids.csv",
         "--prompt", "ids", "-o", out)
    # Each patch by itself, without the streams, keys and values of an earlier pass.
    grids = ("--set", "data.corrupted=other", "--set", "patch.grids=[resid_pre,attn_head_out_all_pos,attn_head_q_by_pos]",
             "--set", "path.receivers=[logits]")
    done(*ids, out, *grids)
    done(*ids, work / "apart.h5", *grids, "--set", "patch.reuse=false", "--set", "share_prefixes=false", "--threads", "1")
    a, b = results(out), results(work / "apart.h5")
    that(a.keys() == b.keys() and all(np.array_equal(a[k], b[k], equal_nan=a[k].dtype.kind == "f") for k in a),
         "patches by themselves have the same bits")


def check_info() -> None:
    for name, line in (("own_attn_only", "attn_only: no MLPs"), ("own_shortformer", "positions: shortformer"),
                       ("own_no_norm", "normalization_type none"), ("own_vocab_out", "d_vocab_out 320"),
                       ("own_solu_pre", "final_rms: ln_final is RMSNorm"), ("own_solu_ln", "mlp.hook_mid"),
                       ("own_gated", "weights are used as they are stored")):
        says(0, line, "info", DATA / name)
    that("mlp" not in run("info", DATA / "own_attn_only")[1].split("hook points")[1], "an MLP's hooks without one")


def main() -> None:
    work = Path(tempfile.mkdtemp())
    try:
        check_processing(work)
        check_embed_norm(work)
        check_few_neurons(work)
        check_ids(work)
        check_info()
    finally:
        shutil.rmtree(work)
    sys.exit(CHECKS.end())


if __name__ == "__main__":
    main()
