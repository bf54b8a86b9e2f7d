#!/usr/bin/env python3
"""Checks `h5lens run --answer-tokens any` from the CSV to the reader, and what it refuses.

Values are those of scripts/truth.py, float64 with NumPy, of the prompt with the answer's tokens behind it; on tiny models
with learned positions, rotary ones in a parallel block, and RMSNorm with grouped queries. Then the same bits in one file,
in shards that were stopped and tasks that share them, merged and packed. H5LENS is the program, WORK a folder of our own.

Prints each failure and a last line 'N passed, N failed'; exit status 1 on a failure.
"""

from __future__ import annotations

import csv
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "scripts"))

import h5lens  # noqa: E402
import truth  # noqa: E402
from checks import Checks  # noqa: E402

BIN = os.environ.get("H5LENS", str(ROOT / "build" / "h5lens"))
DATA = ROOT / "tests" / "golden" / "data"
MODELS = ("gpt2_gelu", "gpt_neox", "llama_gqa")
WORDS = (" the", " dog", " and", " cat", " to", " gave", " Mary", " John")  # one token each
ROWS, LONGEST = 30, 5
# Nats a token: the tiny models' logits reach 20, and float32 keeps 7 digits of them.
TOLERANCE = 2e-5
TABLES = ("answer_logprob", "answer_token_rank", "logit_diff", "top_tokens", "top_logits", "top_probs", "flags")

CHECKS = Checks()
that = CHECKS.that


def write(path: Path) -> None:
    rng = np.random.RandomState(4)
    with open(path, "w", encoding="utf-8", newline="") as f:
        out = csv.writer(f, lineterminator="\n")
        out.writerow(["prompt", "right", "wrong", "at"])
        for _ in range(ROWS):
            n = rng.randint(1, 9)
            texts = ["".join(rng.choice(WORDS, k)) for k in (n, rng.randint(1, LONGEST + 1), rng.randint(1, LONGEST + 1))]
            out.writerow([*texts, rng.randint(n + 1)])


def run(*args: object) -> tuple[int, str]:
    got = subprocess.run([BIN, *map(str, args)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    return got.returncode, got.stdout


def says(code: int, part: str, *args: object) -> None:
    got, text = run(*args)
    that(got == code and part in text, f"{args}: {got}, not {code}, or no '{part}' in: {text}")


def command(model: str, data: Path, out: Path, *more: object) -> list[object]:
    return ["run", "--model", DATA / model, "--data", data, "--answers", "right,wrong", "--answer-tokens", "any",
            "--read-pos", "at", "--hooks", "none", "-o", out, *more]


# --- values ---------------------------------------------------------------------------------

def log_softmax(x: np.ndarray) -> np.ndarray:
    x = x - x.max(-1, keepdims=True)
    return x - np.log(np.exp(x).sum(-1, keepdims=True))


def check_row(run_: h5lens.Run, model: truth.Model, row: int) -> None:
    what = f"{run_.path.name}, row {row}"
    read, tokens = int(run_.prompts["read_pos"][row]), run_.tokens(row)
    sums, stored = [], run_.prompts["answer_tokens"][row]
    for k, answer in enumerate(run_.answer_tokens(row)):
        n = len(answer)
        logits = truth.run(model, [*tokens[: read + 1].tolist(), *answer[:-1]], result=False)["logits"][read:]
        own = logits[np.arange(n), answer][:, None]
        least, most = (logits > own + TOLERANCE).sum(-1), (logits > own - TOLERANCE).sum(-1)
        rank = run_.results["answer_token_rank"][row, k]
        that(((least <= rank[:n]) & (rank[:n] < np.maximum(most, 1))).all() and (rank[n:] == -1).all(), f"{what}: rank {rank}")
        that((stored[k, :n] == answer).all() and (stored[k, n:] == -1).all(), f"{what}: tokens {stored[k]}")
        sums.append(log_softmax(logits)[np.arange(n), answer].sum())
        far = abs(float(run_.results["answer_logprob"][row, k]) - sums[-1])
        that(far < TOLERANCE * n, f"{what}: answer_logprob is {far} off")
    far = abs(float(run_.results["logit_diff"][row, 0]) - (sums[0] - sums[1]))
    that(far < 2 * TOLERANCE * LONGEST, f"{what}: logit_diff is {far} off")


def check_values(data: Path, work: Path) -> None:
    for name in MODELS:
        out = work / f"{name}.h5"
        says(0, "mean log probability difference", *command(name, data, out))
        says(0, "answer's tokens are all on top", "info", out)
        model = truth.load(str(DATA / name), **dict.fromkeys(truth.PROCESSING, True))
        with h5lens.open_run(out) as r:
            that(set(r.results) == set(TABLES), f"{name}: tables {sorted(r.results)}")
            that("answers" not in r.prompts and r.prompts.dataset("answer_tokens").shape == (ROWS, 2, LONGEST), f"{name}: answers")
            texts = ["".join(r.str_answers(row)[k]) for row in range(ROWS) for k in range(2)]
            that(texts == r.answer_text().ravel().tolist(), f"{name}: the reader's texts of answers")
            that(r.verify(), f"{name}: verify")
            for row in range(ROWS):
                check_row(r, model, row)


# --- shards ---------------------------------------------------------------------------------

def check_same(whole: Path, other: Path) -> None:
    with h5lens.open_run(whole) as a, h5lens.open_run(other) as b:
        for name in TABLES:
            that(a.results[name].tobytes() == b.results[name].tobytes(), f"{other.name}: {name}")
        that(a.prompts["answer_tokens"].tobytes() == b.prompts["answer_tokens"].tobytes(), f"{other.name}: answer_tokens")


def check_shards(data: Path, work: Path) -> None:
    name = MODELS[2]
    whole, out, one = work / f"{name}.h5", work / "sharded.h5", work / "packed.h5"
    more = ("--set", "shards.prompts=4", "--threads", 1)
    for task in ("2/3", "1/3"):  # two of three, and nothing under the output's name
        says(0, "", *command(name, data, out, *more, "--task", task))
        that(not out.exists(), f"task {task} is not all")
    says(0, "", *command(name, data, out, *more[:-1], 3))
    check_same(whole, out)
    says(0, "", "pack", out, "-o", one)
    check_same(whole, one)
    says(0, "", "verify", out)
    out.unlink()
    says(0, "", "merge", out)
    check_same(whole, out)
    says(0, "is finished", *command(name, data, out, *more))
    single = work / "single.csv"
    single.write_text("prompt,right,wrong,at\n the dog, to, and,1\n")
    says(0, "", *command(name, single, work / "single.h5"))
    says(1, 'data.answer_tokens: "any" there, "one" here', *command(name, single, work / "single.h5", "--answer-tokens", "one"))


# --- errors ---------------------------------------------------------------------------------

def check_errors(data: Path, work: Path) -> None:
    out, name = work / "none.h5", MODELS[0]
    for table in ("answer_rank", "answer_prob", "answer_logit", "rank_per_layer", "lens_logit", "lens_logit_diff",
                  "logit_attrs", "head_attrs", "neuron_attrs", "top_neurons"):
        says(2, f"the table {table} needs answers of one token; data.answer_tokens is any",
             *command(name, data, out, "--tables", f"logit_diff,{table}"))
    says(2, "the table answer_token_rank needs data.answer_tokens: any",
         *command(name, data, out, "--tables", "answer_token_rank", "--answer-tokens", "one"))
    says(2, "data.answer_tokens: expected one | any, not 'several'", *command(name, data, out, "--answer-tokens", "several"))
    says(1, "; data.answer_tokens: any takes several", *command(name, data, out, "--answer-tokens", "one"))
    long = work / "long.csv"
    long.write_text("prompt,right,wrong,at\n" + " the" * 40 + "," + " dog" * 9 + ", dog,40\n")
    says(1, "long.csv:2: record 1: answer ' dog", *command(name, long, out))
    says(1, "is 9 tokens; with the prompt's 41 before it the model would read 49 and takes 48", *command(name, long, out))
    says(0, "plan: 1 prompt", *command(name, long, out, "--read-pos", 39, "--dry-run"))
    that(not out.exists(), "an error left an output behind")


def main() -> int:
    with tempfile.TemporaryDirectory(dir=os.environ.get("WORK")) as folder:
        work = Path(folder)
        data = work / "data.csv"
        write(data)
        check_values(data, work)
        check_shards(data, work)
        check_errors(data, work)
    return CHECKS.end()


if __name__ == "__main__":
    sys.exit(main())
