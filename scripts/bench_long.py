#!/usr/bin/env python3
"""How near h5lens comes to sgemm's limit on long prompts and on mixed lengths.

    bench_long.py --model DIR [--tokens 512 | --tokens 8-128] [--prompts 24] [--threads 2]
                  [--repeat 3] [--h5lens BIN ...] [--settings KEY=VALUE ...]
        runs each program once a round, in turn, and OpenBLAS's own sgemm on the model's
        weights' shapes, 1,024 rows at a time; prints the tokens that each computes in a
        second of one core (user and system time), the share of sgemm's limit, also of a
        limit that counts attention's products, and the peak memory.

What is timed is processor time, so that a busy machine changes it less. A run of two prompts,
the longest and the shortest, is taken off: loading and what does not grow. A prompt's work is
that of its tokens in all blocks; neither W_U, which one row of each prompt is multiplied by,
nor what h5lens leaves out of the last block is counted. --tokens A-B draws lengths evenly.
Prompts are random words and have only BOS in common.

Needs NumPy. DIR is of GPT-2, GPT-NeoX or the Llama family.
"""

from __future__ import annotations

import argparse
import csv
import ctypes
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

import bench_peers

ROWS = 1024  # of activations in a product


# --- the model's products -----------------------------------------------------------------

@dataclass
class Shape:
    layers: int
    d_model: int
    queries: int  # n_heads * d_head
    products: list[tuple[int, int]] = field(default_factory=list)  # (n, k) of each in a block

    def block_flop(self) -> float:
        """Of a token in all blocks."""
        return 2.0 * self.layers * sum(n * k for n, k in self.products)

    def attention_flop(self, tokens: int) -> float:
        """Of a prompt: scores and values over the causal half."""
        return 2.0 * self.layers * self.queries * tokens * (tokens + 1)


def read_shape(folder: Path) -> Shape:
    with open(folder / "config.json", encoding="utf-8") as f:
        c = json.load(f)
    if "n_embd" in c:
        d, heads, layers = c["n_embd"], c["n_head"], c["n_layer"]
        mlp, kv, gated = c.get("n_inner") or 4 * d, heads, False
    else:
        d, heads, layers = (c["hidden_size"], c["num_attention_heads"], c["num_hidden_layers"])
        mlp, gated = c["intermediate_size"], c["model_type"] in ("llama", "mistral", "qwen2")
        kv = c.get("num_key_value_heads") or heads
    head = c.get("head_dim") or d // heads
    products = [((heads + 2 * kv) * head, d), (d, heads * head), (d, mlp)]
    products += [(mlp, d)] * (2 if gated else 1)
    return Shape(layers, d, heads * head, products)


# --- sgemm, in a process of its own, whose kernels are chosen when it loads -----------------

def sgemm_rate(shape: Shape, threads: int) -> float:
    """GFLOP a second of processor time, of one thread while all of them work."""
    with open("/proc/cpuinfo", encoding="utf-8") as f:
        core = "SKYLAKEX" if "avx512f" in f.read() else "HASWELL"
    env = dict(os.environ, OPENBLAS_CORETYPE=core, OPENBLAS_NUM_THREADS="1")
    command = [sys.executable, os.path.abspath(__file__), "--sgemm", str(threads), json.dumps(
        [(n, k) for n, k in shape.products])]
    return float(subprocess.run(command, env=env, check=True, capture_output=True,
                                text=True).stdout)


def run_sgemm(threads: int, products: list[tuple[int, int]]) -> None:
    import numpy
    blas = ctypes.CDLL("libopenblas.so.0")
    used, flop = [0.0] * threads, 2.0 * ROWS * sum(n * k for n, k in products)
    widest = max(max(n, k) for n, k in products)
    weights = numpy.random.default_rng(1).random(max(n * k for n, k in products),
                                                 dtype=numpy.float32)
    times = 1 + int(2e11 / flop)

    def pointer(x):
        return x.ctypes.data_as(ctypes.c_void_p)

    def work(i: int) -> None:
        a = numpy.ones((ROWS, widest), dtype=numpy.float32)
        out = numpy.empty((ROWS, widest), dtype=numpy.float32)
        one, zero = ctypes.c_float(1), ctypes.c_float(0)

        def multiply() -> None:
            for n, k in products:
                size = [ctypes.byref(ctypes.c_int(x)) for x in (n, ROWS, k, n, k, n)]
                blas.sgemm_(b"N", b"N", *size[:3], ctypes.byref(one), pointer(weights), size[3],
                            pointer(a), size[4], ctypes.byref(zero), pointer(out), size[5])

        multiply()
        start = time.thread_time()
        for _ in range(times):
            multiply()
        used[i] = time.thread_time() - start

    all_threads = [threading.Thread(target=work, args=(i,)) for i in range(threads)]
    for t in all_threads:
        t.start()
    for t in all_threads:
        t.join()
    print(flop * times * threads / sum(used) / 1e9)


# --- h5lens -------------------------------------------------------------------------------

def write_prompts(path: Path, words: list[str], lengths: list[int]) -> None:
    """Of so many tokens each, BOS counted, with two one-token answers."""
    rng = random.Random(2)
    with open(path, "w", encoding="utf-8", newline="") as f:
        rows = csv.writer(f, lineterminator="\n")
        rows.writerow(("prompt", "correct", "incorrect"))
        for n in lengths:
            rows.writerow(("".join(rng.choices(words, k=n - 1)), *rng.sample(words, 2)))


def run_once(args: argparse.Namespace, program: Path, data: Path,
             out: Path) -> tuple[float, float]:
    """Processor seconds, and peak memory in MiB."""
    command = [str(program), "run", "--model", str(args.model), "--data", str(data), "-o",
               str(out), "--overwrite", "--threads", str(args.threads), "--set",
               "cache.hooks=none", "--set", "data.answers=[correct,incorrect]", "--set",
               "tables=[logit_diff]"]
    for setting in args.settings:
        command += ["--set", setting]
    with open(os.devnull, "wb") as nowhere:
        process = subprocess.Popen(command, stdout=nowhere, stderr=nowhere)
        _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"{program} ended with {process.returncode}")
    return used.ru_utime + used.ru_stime, used.ru_maxrss / 1024


def bench(args: argparse.Namespace, folder: Path) -> None:
    shape = read_shape(args.model)
    least, most = args.tokens
    rng = random.Random(1)
    lengths = [most, least] + [rng.randint(least, most) for _ in range(args.prompts)]
    data, few = folder / "prompts.csv", folder / "few.csv"
    words = bench_peers.one_token_words(args.model)
    write_prompts(data, words, lengths)
    write_prompts(few, words, lengths[:2])
    tokens = sum(lengths[2:])
    attention = sum(shape.attention_flop(n) for n in lengths[2:])
    rates, seconds = [], {p: [] for p in args.h5lens}
    peak = dict.fromkeys(args.h5lens, 0.0)
    for _ in range(args.repeat):
        rates.append(sgemm_rate(shape, args.threads))
        for p in args.h5lens:
            small, _ = run_once(args, p, few, folder / "out.h5")
            large, memory = run_once(args, p, data, folder / "out.h5")
            seconds[p].append(large - small)
            peak[p] = max(peak[p], memory)
    rate = statistics.median(rates)
    limit = tokens * shape.block_flop() / rate / 1e9
    with_attention = limit + attention / rate / 1e9
    print(f"{args.prompts} prompts of {least} to {most} tokens, {args.threads} threads, "
          f"{args.repeat} rounds: medians; sgemm {rate:.0f} GFLOP/s a core, attention's products "
          f"{100 * attention / (attention + tokens * shape.block_flop()):.0f} % of all")
    print(f"{'':40s} {'tokens/s a core':>16s} {'sgemm':>7s} {'and attention':>14s} {'MiB':>7s}")
    print(f"{'sgemm alone':40s} {tokens / limit:16.1f} {'100 %':>7s}")
    for p in args.h5lens:
        used = statistics.median(seconds[p])
        print(f"{str(p):40s} {tokens / used:16.1f} {100 * limit / used:5.0f} % "
              f"{100 * with_attention / used:12.0f} % {peak[p]:7.0f}")


def parse_tokens(text: str) -> tuple[int, int]:
    least, _, most = text.partition("-")
    return int(least), int(most or least)


def parse_args() -> argparse.Namespace:
    p = argparse.ArgumentParser(description=__doc__,
                                formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--model", type=Path, required=True)
    p.add_argument("--h5lens", type=Path, nargs="+", default=[Path("build/h5lens")],
                   metavar="BIN")
    p.add_argument("--tokens", type=parse_tokens, default=(512, 512))
    p.add_argument("--prompts", type=int, default=24, help="beside the two that are taken off")
    p.add_argument("--threads", type=int, default=2)
    p.add_argument("--repeat", type=int, default=3)
    p.add_argument("--settings", nargs="*", default=[], metavar="KEY=VALUE")
    args = p.parse_args()
    if args.tokens[0] < 2 or args.tokens[1] < args.tokens[0]:
        p.error("--tokens must be 2 or more, or a range of that")
    return args


def main() -> None:
    if len(sys.argv) == 4 and sys.argv[1] == "--sgemm":
        run_sgemm(int(sys.argv[2]), json.loads(sys.argv[3]))
        return
    args = parse_args()
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        bench(args, Path(folder))


if __name__ == "__main__":
    main()
