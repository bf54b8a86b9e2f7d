#!/usr/bin/env python3
"""Whether answers of several tokens are what Hugging Face says of prompt and answer together.

    check_answers.py [--h5lens build/h5lens] [MODEL_DIR …]

/results/answer_logprob, answer_token_rank and logit_diff of data.answer_tokens: any, against the same model in Hugging
Face's transformers: the tokens of the prompt up to the read position, then the answer's; at each of the answer's tokens
log_softmax and the number of strictly larger logits, in float64 (the reference) and in float32 (the peer).

For each model (by default the demo's and tests/golden/data/*) it runs h5lens on prompts of 1 token to nearly the whole
context, read at the last token and at others, with answers of 1 to 7 tokens (each CPU level, processed and raw weights, in
shards). A log probability lies within TOLERANCE a token of float64's; a rank is one that logits within TOLERANCE of
float64's can give. Over all models, the rule of scripts/fidelity.py, with transformers' float32 for the peer: the RMS error
of the log probabilities is no larger, the largest no more than 1.5 times.

Prints a line a model with the largest differences, 'N passed, N failed'; exit status 1 on a failure. Needs torch,
transformers and h5py; no test of `make test`.
"""

from __future__ import annotations

import csv
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from transformers.utils import logging

from check_head_scores import Tokens, encoded, n_ctx_of, texts
from check_lens import WAYS, Pool
from checks import Checks, models_of, parser_of
from fidelity_refs import load_hf

ANSWERS = 3
TOLERANCE = 1e-4  # nats a token


class Row:
    """A prompt with its answers, as texts and as tokens."""

    def __init__(self, folder: Path, prompt: str, read: int, answers: list[str]) -> None:
        self.prompt, self.read, self.answers = prompt, read, answers
        self.tokens = encoded(folder, [prompt], True)[0]
        self.answer_tokens = encoded(folder, answers, False)


def rows_of(folder: Path) -> list[Row]:
    n_ctx, rng, rows = n_ctx_of(folder), np.random.RandomState(5), []
    words = [" the", " to", " and", " gave", " went"]
    for prompt in texts(folder, n_ctx):
        n = len(encoded(folder, [prompt], True)[0])
        for read in {n - 1, int(rng.randint(n))}:
            room = n_ctx - read  # an answer's tokens, so that with the prompt's the context is full
            answers = ["".join(rng.choice(words, rng.randint(1, 5))) for _ in range(ANSWERS)]
            rows.append(Row(folder, prompt, read, [a if len(encoded(folder, [a], False)[0]) <= room else " the" for a in answers]))
    return rows


# --- Hugging Face ---------------------------------------------------------------------------

def reference(model: Any, row: Row, answer: Tokens) -> tuple[np.ndarray, np.ndarray]:
    """The logits before each of the answer's tokens, [token, V], and their log softmax."""
    ids = row.tokens[: row.read + 1] + answer[:-1]
    logits = model(torch.tensor([ids])).logits[0, row.read:]
    return logits.numpy(), logits.log_softmax(-1).numpy()


# --- h5lens ---------------------------------------------------------------------------------

def run_program(binary: Path, folder: Path, rows: list[Row], out: Path, *more: str) -> dict[str, np.ndarray]:
    data, names = out.with_suffix(".csv"), [f"a{i}" for i in range(ANSWERS)]
    with open(data, "w", encoding="utf-8", newline="") as f:
        csv.writer(f, lineterminator="\n").writerows([["prompt", "at", *names], *([r.prompt, r.read, *r.answers] for r in rows)])
    subprocess.run([str(binary), "run", "--model", str(folder), "--data", str(data), "--answers", ",".join(names),
                    "--answer-tokens", "any", "--read-pos", "at", "--hooks", "none", "-o", str(out), "--overwrite",
                    "--quiet", *more], check=True, stderr=subprocess.PIPE)
    with h5py.File(out) as f:
        return {"tokens": f["prompts/answer_tokens"][:], "logprob": f["results/answer_logprob"][:],
                "rank": f["results/answer_token_rank"][:], "diff": f["results/logit_diff"][:]}


def ranks_fit(rank: np.ndarray, logits: np.ndarray, answer: Tokens) -> bool:
    """Is each rank one of those that logits within TOLERANCE can give?"""
    own = logits[np.arange(len(answer)), answer][:, None]
    least, most = (logits > own + TOLERANCE).sum(-1), (logits > own - TOLERANCE).sum(-1)
    return bool(((least <= rank) & (rank < np.maximum(most, 1))).all())


# --- comparing ------------------------------------------------------------------------------

def check_row(c: Checks, what: str, got: dict[str, np.ndarray], i: int, row: Row, want: list[tuple[np.ndarray, float]]) -> list[float]:
    """The errors of a row's log probabilities."""
    errors = []
    for k, answer in enumerate(row.answer_tokens):
        n, (logits, total) = len(answer), want[k]
        c.that(got["tokens"][i, k, :n].tolist() == answer and bool((got["tokens"][i, k, n:] == -1).all()), f"{what}: tokens")
        c.that(bool((got["rank"][i, k, n:] == -1).all()) and ranks_fit(got["rank"][i, k, :n], logits, answer), f"{what}: ranks")
        errors.append(float(got["logprob"][i, k]) - total)
        c.that(abs(errors[-1]) < TOLERANCE * n, f"{what}: answer_logprob: {errors[-1]}")
    n = max(map(len, row.answer_tokens))
    far = max(abs(float(d) - (want[0][1] - want[k + 1][1])) for k, d in enumerate(got["diff"][i]))
    c.that(far < 2 * TOLERANCE * n, f"{what}: logit_diff: {far}")
    return errors


def check_model(c: Checks, binary: Path, folder: Path, tmp: Path, pools: list[Pool]) -> None:
    rows, exact = rows_of(folder), load_hf(str(folder), torch.float64)
    peer, want, theirs = load_hf(str(folder), torch.float32), [], []
    for row in rows:
        pairs = [(a, reference(exact, row, a), reference(peer, row, a)[1]) for a in row.answer_tokens]
        want.append([(logits, float(log[np.arange(len(a)), a].sum())) for a, (logits, log), _ in pairs])
        theirs.append([float(log[np.arange(len(a)), a].astype(np.float64).sum()) - w[1] for (a, _, log), w in zip(pairs, want[-1])])
    far = {"transformers": pools[1].add("answer_logprob", np.array(theirs))}
    for raw in ((), ("--raw-weights",)):
        for way in WAYS:
            got = run_program(binary, folder, rows, tmp / "out.h5", *raw, *way)
            errors = [check_row(c, f"{folder.name} {raw} {way}, row {i}", got, i, row, want[i]) for i, row in enumerate(rows)]
            name = f"h5lens{', raw' if raw else ''}"
            far[name] = max(far.get(name, 0.0), pools[0].add("answer_logprob", np.array(errors)))
    print(f"  {folder.name}: {len(rows)} prompts, from float64: " + ", ".join(f"{k} {v:.1e}" for k, v in far.items()), flush=True)


def main() -> int:
    args = parser_of(__doc__).parse_args()
    logging.set_verbosity_error()
    c, pools = Checks(), [Pool(), Pool()]
    with tempfile.TemporaryDirectory() as tmp, torch.inference_mode():
        for folder in models_of(args):
            check_model(c, args.h5lens, folder, Path(tmp), pools)
    ours, peer = ((pool.rms("answer_logprob"), pool.most["answer_logprob"]) for pool in pools)
    print(f"over all models, RMS and largest error: h5lens {ours[0]:.2e}, {ours[1]:.2e}; transformers {peer[0]:.2e}, {peer[1]:.2e}")
    c.that(ours[0] <= peer[0] and ours[1] <= 1.5 * peer[1], "further from float64 than transformers")
    return c.end()


if __name__ == "__main__":
    sys.exit(main())
