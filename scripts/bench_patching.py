#!/usr/bin/env python3
"""How long a pair's patching takes: TransformerLens, h5lens, and what sgemm alone would allow.

    bench_patching.py --model DIR --h5lens build/h5lens [--pairs 64] [--repeat 3] [--skip-peer]
        DIR has GPT-2 small's shape (fidelity.py --make-random gpt2-small). Each round runs, in turn and on --threads
        threads, sgemm, transformer_lens.patching on one pair, and h5lens on --pairs pairs and on a quarter of them, for
        each grid of GRIDS. Then it prints the medians.

    bench_patching.py --memory-test [--model DIR] --h5lens build/h5lens
        h5lens's peak memory with both grids at 100 and 10,000 pairs, of the demo's model by default.

Pairs are random words, --tokens tokens (16) of which BOS is the first, and differ in the one at index --parted (9) alone;
they are read at the last.

TransformerLens: get_act_patch_<grid> and the run_with_cache of the clean prompt, without gradients, after a pass to warm up,
in a process of its own; as installed, one pair as a notebook would.
h5lens: seconds a pair between the two sizes, whole processes, so that start and loading cancel out (with --pairs 64, of 48
pairs); and the figure that it prints for the larger.
sgemm: the least work of a grid, at the rate of each of its products (bench_sgemm, M 512): for each cell whose position is
at or past --parted, the layers from the patched one on and the positions from the patched one on, of heads at all positions
those past the first difference, without what comes before the output's product in the patched layer. Without logits (of
logit_diff two columns), attention, and the two runs themselves, which are told beside it.

Needs torch, transformers, transformer_lens 2.16; with --skip-peer, nothing.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import random
import re
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

from bench_common import Sgemm, load_transformer_lens, measure_sgemm, one_token_words, remove_output, run_process, shape_of

GRIDS = ("resid_pre", "attn_head_out_all_pos")
MEMORY_SIZES = (100, 10000)
ROOT = Path(__file__).resolve().parent.parent


def write_pairs(path: Path, words: list[str], n: int, tokens: int, parted: int) -> None:
    rng = random.Random(1)
    with open(path, "w", encoding="utf-8", newline="") as f:
        rows = csv.writer(f, lineterminator="\n")
        rows.writerow(("prompt", "corrupted", "correct", "incorrect"))
        for _ in range(n):
            clean = rng.choices(words, k=tokens - 1)
            corrupted = list(clean)
            corrupted[parted - 1] = rng.choice([w for w in words if w != clean[parted - 1]])
            rows.writerow(("".join(clean), "".join(corrupted), *rng.sample(words, 2)))


# --- the least work -------------------------------------------------------------------------

@dataclass
class Work:
    """Rows that go through a block's products of queries, keys and values, and through the others."""

    qkv: float
    rest: float

    def flop(self, d: int) -> float:
        return 2.0 * d * d * (3 * self.qkv + 9 * self.rest)

    def seconds(self, d: int, rates: Sgemm) -> float:
        each = {"W_QKV": 3 * self.qkv, "W_O": self.rest, "W_in": 4 * self.rest, "W_out": 4 * self.rest}
        return sum(2e-9 * d * d * n / rates.sgemm[shape] for shape, n in each.items())


def least_work(grid: str, shape: dict[str, int], tokens: int, parted: int) -> Work:
    layers, behind = shape["n_layer"], sum(range(1, shape["n_layer"]))  # blocks behind the patched one, of all layers
    if grid == "resid_pre":
        rows = sum(tokens - pos for pos in range(parted, tokens)) * (behind + layers)
        return Work(rows, rows)
    rows = shape["n_head"] * (tokens - parted)
    return Work(rows * behind, rows * (behind + layers))


def both_runs(shape: dict[str, int], tokens: int, parted: int) -> Work:
    """A pair's own runs, what they have in common once."""
    rows = (2 * tokens - parted) * shape["n_layer"]
    return Work(rows, rows)


# --- TransformerLens, in a process of its own ---------------------------------------------------

def run_peer(args: argparse.Namespace) -> None:
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    import torch
    from tokenizers import Tokenizer
    from transformer_lens import patching
    patching.tqdm = lambda x: x
    torch.set_num_threads(args.threads)
    tok = Tokenizer.from_file(str(args.model / "tokenizer.json"))
    with open(args.model / "tokenizer_config.json", encoding="utf-8") as f:
        bos = tok.token_to_id(json.load(f)["bos_token"])
    with open(args.data, encoding="utf-8", newline="") as f:
        row = next(csv.DictReader(f))
    clean, corrupted = (torch.tensor([[bos, *tok.encode(row[c], add_special_tokens=False).ids]]) for c in ("prompt", "corrupted"))
    right, wrong = (tok.encode(row[c], add_special_tokens=False).ids[0] for c in ("correct", "incorrect"))
    differ = (clean != corrupted).nonzero()[:, 1].tolist()
    if clean.shape[1] != args.tokens or differ != [args.parted]:
        sys.exit(f"{clean.shape[1]} tokens that differ at {differ}")
    model, seconds = load_transformer_lens(args.model), {}
    with torch.inference_mode():
        model(corrupted)
        for grid in GRIDS:
            started = time.monotonic()
            _, cache = model.run_with_cache(clean)
            getattr(patching, f"get_act_patch_{grid}")(model, corrupted, cache, lambda x: x[0, -1, right] - x[0, -1, wrong])
            seconds[grid] = time.monotonic() - started
    print(json.dumps(seconds))


# --- h5lens ---------------------------------------------------------------------------------------

@dataclass
class Run:
    seconds: float   # the whole process
    computing: float  # by its own figure
    peak: int
    written: int


def run_h5lens(args: argparse.Namespace, data: Path, out: Path, grids: str, pairs: int) -> Run:
    ended = run_process([str(args.h5lens), "run", "--model", str(args.model), "--data", str(data), "-o", str(out), "--overwrite",
                         "--threads", str(args.threads), "--limit", str(pairs), "--answers", "correct,incorrect", "--hooks", "none",
                         "--tables", "logit_diff", "--corrupted", "corrupted", "--patch", grids])
    said = re.search(r"\(([\d.]+)/s\)", ended.output)
    return Run(ended.seconds, pairs / float(said[1]) if said else float("nan"), ended.peak_bytes, remove_output(out))


# --- the report -----------------------------------------------------------------------------------

@dataclass
class Times:
    """Seconds a pair, a round each."""

    tl: list[float] = field(default_factory=list)
    ours: list[float] = field(default_factory=list)
    said: list[float] = field(default_factory=list)
    limit: list[float] = field(default_factory=list)


def spread(each: list[float]) -> str:
    return f"{statistics.median(each):8.3f} ({min(each):.3f}–{max(each):.3f})" if each else f"{'-':>8s}"


def report(times: dict[str, Times], shape: dict[str, int], args: argparse.Namespace) -> None:
    print(f"\nseconds a pair of {args.tokens} tokens, BOS counted, that differ at index {args.parted}; median (least–largest)")
    for grid, t in times.items():
        work, ours, limit = least_work(grid, shape, args.tokens, args.parted), statistics.median(t.ours), statistics.median(t.limit)
        print(f"{grid}: least work {work.flop(shape['n_embd']) / 1e9:.1f} GFLOP")
        print(f"  TransformerLens        {spread(t.tl)}\n  h5lens, two sizes      {spread(t.ours)}")
        print(f"  h5lens, its own figure {spread(t.said)}\n  sgemm's limit          {spread(t.limit)}")
        ratio = f"{statistics.median(t.tl) / ours:.1f} times TransformerLens; " if t.tl else ""
        print(f"  h5lens: {ratio}{100 * limit / ours:.0f} % of sgemm's limit")
    runs = both_runs(shape, args.tokens, args.parted)
    print(f"the pair's two runs, not in the least work: {runs.flop(shape['n_embd']) / 1e9:.1f} GFLOP")


def bench(args: argparse.Namespace, folder: Path, memory: Path) -> None:
    shape, data, out = shape_of(args.model), folder / "pairs.csv", memory / "h5lens.h5"
    write_pairs(data, one_token_words(args.model), args.pairs, args.tokens, args.parted)
    times, few = {grid: Times() for grid in GRIDS}, max(1, args.pairs // 4)
    peer = [sys.executable, os.path.abspath(__file__), "--peer", "--model", str(args.model), "--data", str(data), "--threads",
            str(args.threads), "--tokens", str(args.tokens), "--parted", str(args.parted)]
    for i in range(args.repeat):
        rates = measure_sgemm(args.bench_sgemm, args.threads, shape)
        theirs = {} if args.skip_peer else json.loads(run_process(peer, {"HF_HUB_OFFLINE": "1"}).output.splitlines()[-1])
        for grid, t in times.items():
            small, large = (run_h5lens(args, data, out, grid, n) for n in (few, args.pairs))
            t.ours.append((large.seconds - small.seconds) / (args.pairs - few))
            t.said.append(large.computing / args.pairs)
            t.limit.append(least_work(grid, shape, args.tokens, args.parted).seconds(shape["n_embd"], rates))
            t.tl += [theirs[grid]] if theirs else []
            print(f"  round {i + 1}: {grid}: h5lens {t.ours[-1]:.3f} s, TransformerLens {theirs.get(grid, float('nan')):.2f} s, "
                  f"sgemm {t.limit[-1]:.3f} s; peak {large.peak / 2**20:.0f} MiB", flush=True)
    report(times, shape, args)


def memory_test(args: argparse.Namespace, folder: Path, memory: Path) -> None:
    data, words = folder / "pairs.csv", one_token_words(args.model)
    print(f"{', '.join(GRIDS)}: pairs of {args.tokens} tokens, {args.threads} threads; peak resident memory")
    print(f"{'pairs':>8s} {'peak MiB':>9s} {'file MiB':>9s} {'pairs/s':>9s}")
    for n in MEMORY_SIZES:
        write_pairs(data, words, n, args.tokens, args.parted)
        run = run_h5lens(args, data, memory / "h5lens.h5", ",".join(GRIDS), n)
        print(f"{n:8d} {run.peak / 2**20:9.1f} {run.written / 2**20:9.1f} {n / run.seconds:9.1f}", flush=True)


def parse_args() -> argparse.Namespace:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--model", type=Path, help="a Hugging Face folder; for --memory-test experiments/demo-gpt2 by default")
    p.add_argument("--h5lens", type=Path, metavar="BIN", default=ROOT / "build" / "h5lens")
    p.add_argument("--bench-sgemm", type=Path, metavar="BIN", help="default: tests/bench/bench_sgemm beside h5lens")
    p.add_argument("--pairs", type=int, default=64)
    p.add_argument("--tokens", type=int, default=16)
    p.add_argument("--parted", type=int, default=9, metavar="INDEX", help="of the token that differs")
    p.add_argument("--threads", type=int, default=2)
    p.add_argument("--repeat", type=int, default=3)
    p.add_argument("--memory-disk", type=Path, default=Path("/dev/shm"))
    p.add_argument("--skip-peer", action="store_true")
    p.add_argument("--memory-test", action="store_true")
    p.add_argument("--peer", action="store_true", help=argparse.SUPPRESS)
    p.add_argument("--data", type=Path, help=argparse.SUPPRESS)
    args = p.parse_args()
    if args.memory_test and not args.model:
        args.model = ROOT / "experiments" / "demo-gpt2"
    if not args.model:
        p.error("--model is missing")
    if not 0 < args.parted < args.tokens:
        p.error("--parted must be the index of a token behind BOS")
    args.bench_sgemm = args.bench_sgemm or args.h5lens.parent / "tests/bench/bench_sgemm"
    return args


def main() -> None:
    args = parse_args()
    if args.peer:
        run_peer(args)
        return
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryDirectory(dir=args.memory_disk) as memory:
        (memory_test if args.memory_test else bench)(args, Path(folder), Path(memory))


if __name__ == "__main__":
    main()
