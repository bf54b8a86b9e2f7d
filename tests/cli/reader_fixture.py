"""Makes a file of h5lens's schema 2 (or 1) with h5py, from a toy residual stream.

For check_reader.py --self-test and for trying scripts/plot.py without a model. The numbers are random but hang
together: patterns are softmaxes of masked scores, the residual stream is the sum of its writers, tables come
from the logits. Written chunk by chunk with digests computed here from the arrays, not with the reader's code.

    python tests/cli/reader_fixture.py OUT.h5 [--rows N] [--layers N] [--vocab N] [--f16] [--slots] [--schema N]

puts OUT.h5 and, beside it, OUT.model/tokenizer.json.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import xxhash

NAMES = " Mary| John| Tom| James| Dan| Sarah| Emma| Alice| Kate| Paul| Anna| Mark".split("|")
PLACES = " store| park| office| station| school".split("|")
THINGS = " drink| book| ring| letter| ball".split("|")
FRAMES = {
    "baba": "When{B} and{A} went to the{P},{B} gave a{T} to",
    "abba": "Then{A} and{B} were at the{P}.{B} handed a{T} to",
    "long": "After the long day in the cold,{A} and{B} came back to the old{P}, where{B} found a{T} and gave it to",
}
HEADS, D_HEAD, BOS = 4, 8, 0


class Writer:
    """The file: dimensions, whole chunks, digests, links."""

    def __init__(self, path: Path, digest: str) -> None:
        self.file = h5py.File(path, "w", libver=("v108", "v110"))
        self.hash = xxhash.xxh3_128 if digest == "xxh3-128" else hashlib.sha256  # of a chunk
        self.scale: dict[str, h5py.Dataset] = {}

    def dim(self, name: str, extent: int, labels: list[str] | None = None) -> None:
        if labels is None:
            self.scale[name] = self.file.create_dataset(name, (extent,), "i4")
            self.scale[name].make_scale(
                f"This is a netCDF dimension but not a netCDF variable.{extent:10d}")
        else:
            self.scale[name] = self.strings(name, labels)
            self.scale[name].make_scale(name)

    def strings(self, path: str, values: list[Any], dims: str = "") -> h5py.Dataset:
        value = np.array(values, dtype=object)
        chunk = (min(len(value), 64), *value.shape[1:])
        d = self.file.create_dataset(path, value.shape, h5py.string_dtype(), chunks=chunk)
        d[...] = value
        d.attrs["sha256"] = hashlib.sha256(b"".join(v.encode() + b"\0" for v in value.ravel())).hexdigest()
        for i, name in enumerate(dims.split()):
            d.dims[i].attach_scale(self.scale[name])
        return d

    def array(self, path: str, value: np.ndarray, dims: str, rows: int = 16) -> None:
        """Chunks of so many rows; float arrays of rank 3 and more also of half the positions."""
        fill = np.nan if value.dtype.kind == "f" else -1 if value.dtype.kind == "i" else 0
        chunk = (min(rows, value.shape[0]), *value.shape[1:])
        if value.ndim == 3 and value.dtype.kind == "f":
            chunk = (chunk[0], (chunk[1] + 1) // 2, chunk[2])
        d = self.file.create_dataset(path, value.shape, value.dtype, chunks=chunk, fillvalue=fill)
        total = hashlib.sha256()
        for at in itertools.product(*(range(0, n, c) for n, c in zip(value.shape, chunk))):
            part = value[tuple(slice(a, a + c) for a, c in zip(at, chunk))]
            if fill != 0 and (np.isnan(part).all() if value.dtype.kind == "f" else (part == fill).all()):
                total.update(bytes(self.hash().digest_size))
                continue
            whole = np.full(chunk, fill, value.dtype)
            whole[tuple(slice(0, n) for n in part.shape)] = part
            d.id.write_direct_chunk(at, whole.tobytes())
            total.update(self.hash(whole.tobytes()).digest())
        d.attrs["sha256"] = total.hexdigest()
        for i, name in enumerate(dims.split()):
            d.dims[i].attach_scale(self.scale[name])


def names_and_attributes(file: h5py.File) -> str:
    """The digest of "/", as README's "Digests" has it."""
    def texts(item: h5py.Group | h5py.Dataset) -> bytes:
        scalars = {k: v.decode() if isinstance(v, bytes) else v for k, v in item.attrs.items()}
        return b"".join(f"{k}\0{v}\0".encode() for k, v in sorted(scalars.items()) if isinstance(v, (str, np.integer)))

    def below(group: h5py.Group) -> list[str]:
        each = ((f"{group.name.rstrip('/')}/{k}", v) for k, v in group.items())
        return [n for path, v in each for n in (below(v) if isinstance(v, h5py.Group) else [path])]

    names, total = sorted(below(file)), texts(file)
    for name in names:
        first = next(n for n in names if file[n] == file[name])
        total += f"{name}\0{first}\0".encode() + (texts(file[name]) if first == name else b"")
    return hashlib.sha256(total).hexdigest()


class Tokenizer:
    """Pieces with their leading space; enough for the sentences above."""

    def __init__(self, vocab: int) -> None:
        words = {w for f in FRAMES.values() for w in self.split(f.format(A="", B="", P="", T=""))}
        pieces = sorted(words | {*NAMES, *PLACES, *THINGS})
        self.id = {p: i + 1 for i, p in enumerate(pieces)}
        for i in range(len(pieces) + 1, vocab):
            self.id[f" w{i}"] = i

    @staticmethod
    def split(text: str) -> list[str]:
        out: list[str] = []
        for c in text:
            if not out or c in " ,.":
                out.append(c)
            else:
                out[-1] += c
        return out

    def encode(self, text: str) -> list[int]:
        return [BOS] + [self.id[p] for p in self.split(text)]

    def save(self, directory: Path) -> None:
        directory.mkdir(exist_ok=True)
        vocab = {p.replace(" ", "Ġ"): i for p, i in self.id.items()}
        spec = {"added_tokens": [{"id": BOS, "content": "<|endoftext|>", "special": True}],
                "model": {"type": "BPE", "vocab": vocab, "merges": []}}
        (directory / "tokenizer.json").write_text(json.dumps(spec), encoding="utf-8")


def sentences(rng: np.random.Generator, n: int) -> tuple[list[str], list[list[str]], list[str]]:
    texts, answers, templates = [], [], []
    for _ in range(n):
        a, b = rng.choice(NAMES, 2, replace=False)
        kind = str(rng.choice(list(FRAMES)))
        texts.append(FRAMES[kind].format(A=a, B=b, P=rng.choice(PLACES), T=rng.choice(THINGS)))
        answers.append([str(a), str(b)])
        templates.append(kind)
    return texts, answers, templates


def rms(x: np.ndarray) -> np.ndarray:
    return np.sqrt((x * x).mean(-1, keepdims=True) + 1e-5)


def attention(rng: np.random.Generator, tokens: np.ndarray, answer: int, strength: float) -> np.ndarray:
    """Masked scores [head, query, key]. Head 1 looks at the token before, head 2 from the last token at the
    answer's first place."""
    n = len(tokens)
    scores = rng.normal(0, 1, (HEADS, n, n))
    scores[:, :, 0] += 2
    scores[1, np.arange(1, n), np.arange(n - 1)] += strength
    scores[2, -1, np.flatnonzero(tokens == answer)[0]] += 2 * strength
    return np.where(np.tril(np.ones((n, n), bool)), scores, -np.inf)


def softmax(x: np.ndarray) -> np.ndarray:
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def activations(rng: np.random.Generator, tokens: np.ndarray, answers: list[int], w_u: np.ndarray,
                layers: int) -> dict[str, np.ndarray]:
    n, d = len(tokens), HEADS * D_HEAD
    out = {"hook_embed": rng.normal(0, 1, (n, d)), "hook_pos_embed": rng.normal(0, 0.3, (n, d))}
    resid = out["hook_embed"] + out["hook_pos_embed"]
    toward = w_u[:, answers[0]] + rng.normal(0.55, 0.3) * w_u[:, answers[1]]
    out["blocks.0.hook_resid_pre"] = resid
    for i in range(layers):
        b = f"blocks.{i}."
        out[b + "ln1.hook_scale"] = rms(resid)
        out[b + "ln1.hook_normalized"] = resid / rms(resid)
        for k in "qkvz":
            out[b + f"attn.hook_{k}"] = rng.normal(0, 1, (n, HEADS, D_HEAD))
        out[b + "attn.hook_attn_scores"] = attention(rng, tokens, answers[0], 4 * i / layers)
        out[b + "attn.hook_pattern"] = softmax(out[b + "attn.hook_attn_scores"])
        out[b + "hook_attn_out"] = rng.normal(0, 0.3, (n, d))
        out[b + "hook_attn_out"][-1] += toward * 2.2 * max(0, (i + 1) / layers - 0.4) * rng.uniform(0.3, 1)
        out[b + "hook_mlp_out"] = rng.normal(0, 0.3, (n, d))
        out[b + "hook_resid_mid"] = resid + out[b + "hook_attn_out"]
        resid = out[b + "hook_resid_mid"] + out[b + "hook_mlp_out"]
        out[b + "hook_resid_post"] = resid
    out["ln_final.hook_scale"] = rms(resid)
    out["ln_final.hook_normalized"] = resid / rms(resid)
    return out


def dims_of(hook: str) -> tuple[str, bool]:
    """The dimensions after the prompt's, and whether it is a pattern."""
    leaf = hook.rsplit("_", 1)[-1]
    if leaf in ("scores", "pattern"):
        return "head query key", True
    if leaf in tuple("qkvz"):
        return "{} head d_head", False
    return ("{} one" if leaf == "scale" else "{} d_model"), False


def tables(w: Writer, rows: list[dict[str, np.ndarray]], answers: np.ndarray, w_u: np.ndarray, layers: int) -> None:
    lens = np.empty((len(rows), layers + 1, w_u.shape[1]), np.float32)
    for r, a in enumerate(rows):
        for i in range(layers + 1):
            x = a[f"blocks.{i}.hook_resid_pre" if i == 0 else f"blocks.{i - 1}.hook_resid_post"][-1]
            lens[r, i] = x / rms(x) @ w_u
    at = np.take_along_axis(lens, answers[:, None, :], 2)
    rank = (lens[:, :, None, :] > at[..., None]).sum(-1).astype("i4")
    last, k = lens[:, -1], 5
    prob = softmax(last.astype("f8")).astype("f4")
    top = np.argsort(-last, axis=1, kind="stable")[:, :k].astype("i4")
    w.array("results/logit_diff", at[:, -1, :1] - at[:, -1, 1:], "prompt answer_other")
    w.array("results/answer_logit", np.ascontiguousarray(at[:, -1]), "prompt answer")
    w.array("results/answer_prob", np.take_along_axis(prob, answers, 1), "prompt answer")
    w.array("results/answer_rank", np.ascontiguousarray(rank[:, -1]), "prompt answer")
    w.array("results/rank_per_layer", rank, "prompt lens_layer answer")
    w.array("results/lens_logit", at, "prompt lens_layer answer")
    w.array("results/top_tokens", top, "prompt k")
    w.array("results/top_logits", np.take_along_axis(last, top, 1), "prompt k")
    w.array("results/top_probs", np.take_along_axis(prob, top, 1), "prompt k")
    w.array("results/flags", np.zeros(len(rows), "u1"), "prompt")
    head_scores(w, rows, layers)


def head_scores(w: Writer, rows: list[dict[str, np.ndarray]], layers: int) -> None:
    """Two of the kinds of keys: the shares of each head's attention that are the query's own, and the first token's."""
    w.dim("layer", layers)
    w.dim("score", 2, ["current_token", "first_token"])
    a = [np.stack([r[f"blocks.{i}.attn.hook_pattern"] for i in range(layers)]) for r in rows]
    shares = [np.stack([np.trace(x, axis1=2, axis2=3), x[..., 0].sum(-1)], -1) / x.shape[-1] for x in a]
    w.array("results/head_scores", np.stack(shares).astype("f4"), "prompt layer head score")


def interventions(w: Writer, rng: np.random.Generator, length: np.ndarray, n_pos: int, layers: int) -> None:
    """Grids whose cells before the first differing token are the corrupted run's, and whose shares are exact."""
    n = len(length)
    first = length - 1  # as make() has corrupted_tokens
    clean = w.file["results/logit_diff"][...]
    bad = -clean - 1
    w.dim("set", 2, ["movers", "others"])
    w.array("results/patch/clean_logit_diff", clean, "prompt answer_other")
    w.array("results/patch/corrupted_logit_diff", bad, "prompt answer_other")
    at = np.arange(n_pos)
    stream = rng.normal(0, 1, (n, layers, n_pos, 1)).astype("f4")
    stream = np.where((at < first[:, None])[:, None, :, None], bad[:, None, None], stream)
    stream = np.where((at >= length[:, None])[:, None, :, None], np.nan, stream)
    heads = rng.normal(0, 1, (n, layers, HEADS, 1)).astype("f4")
    for name, x, dims in (("resid_pre", stream, "layer pos"), ("attn_head_out_all_pos", heads, "layer head")):
        base = bad.reshape(n, *[1] * (x.ndim - 1))
        share = (x - base) / (clean.reshape(base.shape) - base)
        w.array(f"results/patch/{name}", x.astype("f4"), f"prompt {dims} answer_other")
        w.array(f"results/patch/{name}_normalized", share.astype("f4"), f"prompt {dims} answer_other")
    w.array("results/ablate/attn_head_out_all_pos", heads, "prompt layer head answer_other")
    w.array("results/ablate/sets", heads[:, 0, :2], "prompt set answer_other")


def log_probs(w: Writer, rows: list[dict[str, np.ndarray]], tokens: np.ndarray, w_u: np.ndarray, layers: int) -> None:
    each = np.full(tokens.shape, np.nan)
    for r, a in enumerate(rows):
        x = a[f"blocks.{layers - 1}.hook_resid_post"][:-1]
        p = softmax(x / rms(x) @ w_u)
        each[r, :len(x)] = np.log(np.take_along_axis(p, tokens[r, 1:len(x) + 1, None], 1)[:, 0])
    w.array("results/token_logprobs", each.astype("f4"), "prompt pos")
    w.array("results/loss", (-np.nanmean(each, 1)).astype("f4"), "prompt")


def make(path: Path, n_rows: int = 40, layers: int = 3, vocab: int = 200, f16: bool = False, slots: bool = False,
         seed: int = 1, schema: int = 2, patched: bool = False, digest: str = "xxh3-128") -> Path:
    """Writes the file and its model directory, and returns that. Schema 1 has the digest sha256 and does not say it."""
    rng = np.random.default_rng(seed)
    tok = Tokenizer(vocab)
    model = path.with_suffix(".model")
    tok.save(model)
    texts, answer_text, template = sentences(rng, n_rows)
    ids = [np.array(tok.encode(t)) for t in texts]
    length = np.array([len(t) for t in ids], "i4")
    answers = np.array([[tok.id[a] for a in pair] for pair in answer_text], "i4")
    n_pos, d = int(length.max()), HEADS * D_HEAD
    w_u = rng.normal(0, 1, (d, vocab)) / np.sqrt(d) * 2
    rows = [activations(rng, t, list(a), w_u, layers) for t, a in zip(ids, answers)]

    w = Writer(path, "sha256" if schema == 1 else digest)
    slot_pos = np.stack([[0, n - 2, n - 1] for n in length]).astype("i4")
    slot_pos[::7, 1] = -1
    n_query = slot_pos.shape[1] if slots else n_pos
    for name, extent in {"prompt": n_rows, "pos": n_pos, "answer": 2, "answer_other": 1, "head": HEADS, "d_model": d,
                         "d_head": D_HEAD, "query": n_query, "key": n_pos, "k": 5, "one": 1}.items():
        w.dim(name, extent)
    if slots:
        w.dim("slot", n_query)
        w.array("prompts/slot_pos", slot_pos, "prompt slot")
    w.dim("lens_layer", layers + 1, [f"{i}_pre" for i in range(layers)] + ["final_post"])
    w.strings("prompts/text", texts, "prompt")
    w.array("prompts/id", np.arange(1, n_rows + 1), "prompt")
    tokens = np.full((n_rows, n_pos), -1, "i4")
    for row, t in zip(tokens, ids):
        row[:len(t)] = t
    w.array("prompts/tokens", tokens, "prompt pos")
    if schema > 1:
        corrupted = np.where(np.arange(n_pos) == length[:, None] - 1, (tokens + 1) % vocab, tokens)
        w.array("prompts/corrupted_tokens", corrupted, "prompt pos")
        w.strings("prompts/corrupted_text", [t + "?" for t in texts], "prompt")
    w.array("prompts/length", length, "prompt")
    w.array("prompts/read_pos", length - 1, "prompt")
    w.array("prompts/answers", answers, "prompt answer")
    w.strings("prompts/answer_text", answer_text, "prompt answer")
    w.strings("prompts/columns/template", template, "prompt")
    w.array("prompts/columns/distance", rng.integers(1, 9, n_rows).astype("f8" if schema == 1 else "i8"), "prompt")
    for hook in rows[0]:
        dims, square = dims_of(hook)
        full = np.full((n_rows, *([HEADS, n_pos, n_pos] if square else [n_pos, *rows[0][hook].shape[1:]])), np.nan)
        for r, a in enumerate(rows):
            full[(r, slice(None), slice(length[r]), slice(length[r])) if square else (r, slice(length[r]))] = a[hook]
        if slots:
            at = slot_pos[(...,) + (None,) * (full.ndim - 2)] if not square else slot_pos[:, None, :, None]
            full = np.where(at < 0, np.nan, np.take_along_axis(full, np.maximum(at, 0), 2 if square else 1))
        w.array("cache/" + hook, full.astype("f2" if f16 else "f4"),
                "prompt " + dims.format("slot" if slots else "pos"))
    for i in range(1, layers):
        w.file[f"cache/blocks.{i}.hook_resid_pre"] = w.file[f"cache/blocks.{i - 1}.hook_resid_post"]
    tables(w, rows, answers, w_u, layers)
    log_probs(w, rows, tokens, w_u, layers)
    if patched:
        interventions(w, rng, length, n_pos, layers)
    spec = (model / "tokenizer.json").read_bytes()
    w.file.attrs.update({
        "h5lens_schema": schema, "h5lens_version": "0.1.0", "experiment_source": "model: toy\n", "cpu_level": "avx2",
        "blas": "none", "build": "fixture", "path_model": str(model), "sha256_model": "0" * 64, "sha256_data": "0" * 64,
        "sha256_tokenizer": hashlib.sha256(b"tokenizer.json\0" + len(spec).to_bytes(8, "little") + spec).hexdigest(),
        "experiment": json.dumps({"model": str(model), "data": {"csv": "ioi.csv", "answers": ["correct", "incorrect"]},
                                  "lens": "recompute", "output": str(path)}),
        "model_config": json.dumps({"n_layers": layers, "d_model": d, "n_heads": HEADS, "d_head": D_HEAD,
                                    "d_vocab": vocab, "normalization_type": "RMSPre",
                                    "parallel_attn_mlp": False, "positional_embedding_type": "standard", "eps": 1e-5,
                                    **({"n_key_value_heads": HEADS} if schema == 1 else {})}),
        **({} if schema == 1 else {"digest": digest})})
    w.file.attrs["sha256"] = names_and_attributes(w.file)
    w.file.close()
    return model


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("out", type=Path)
    p.add_argument("--rows", type=int, default=40)
    p.add_argument("--layers", type=int, default=3)
    p.add_argument("--vocab", type=int, default=200)
    p.add_argument("--f16", action="store_true")
    p.add_argument("--slots", action="store_true")
    p.add_argument("--patched", action="store_true")
    p.add_argument("--schema", type=int, choices=(1, 2), default=2)
    a = p.parse_args()
    make(a.out, a.rows, a.layers, a.vocab, a.f16, a.slots, schema=a.schema, patched=a.patched)


if __name__ == "__main__":
    main()
