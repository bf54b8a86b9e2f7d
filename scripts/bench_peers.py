#!/usr/bin/env python3
"""How fast h5lens is beside TransformerLens, Hugging Face and the machine's own limit.

    bench_peers.py --model DIR [--smollm2 DIR] [--disk DIR] [--mended] [--rounds 3] [--cases LIST]
        runs every case once a round, in turn, h5lens and its peers each as a process of its own, and
        prints a card: median prompts/s, the share of what sgemm alone would allow, the ratio to
        TransformerLens as installed and mended, peak memory and bytes/s. DIR is a model of GPT-2
        small's shape (fidelity.py --make-random gpt2-small), that of --smollm2 SmolLM2-135M. Cases:
        tables      logit difference and rank per layer, prompts of --tokens tokens
        all-tables  every default table of the same
        memory      the full default cache, to a memory-backed file
        disk        the same to --disk
        pairs       tables of pairs of prompts that differ at token 9, one after the other
        avx2        tables on AVX2's kernels, beside sgemm's rate with them
        mixed       tables of prompts of 8 to 128 tokens
        mixed-memory, mixed-disk  the full cache of such
        long        tables of SmolLM2, 512 tokens a prompt

    bench_peers.py --memory-test [--model DIR]
        h5lens's peak memory with tables and one hook, at 256, 4,096 and 65,536 prompts.

What is timed: 'computing' is from the first batch to the last byte, without loading. For h5lens it is
the figure that it prints, which leaves out the last sync of the file (most of it is on the disk by
then); the peers' includes one. What the peers do is in bench_programs.py. Caches are without tables on both sides. sgemm's share counts the whole model's products, nothing shared
between prompts, attention's own products left out; h5lens leaves out what tables don't read of the last
block, 4 %. --mended also runs the peers with MKL kept from its slow path on AMD processors and with a
malloc that keeps its memory; 'as installed' is what users have.

Needs torch, transformers, transformer_lens and h5py; with --skip-peers, nothing.
"""

from __future__ import annotations

import argparse
import csv
import json
import random
import re
import shutil
import statistics
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from bench_common import Sgemm, measure_sgemm, mended_env, one_token_words, remove_output, run_process, shape_of

PROGRAMS = Path(__file__).resolve().parent / "bench_programs.py"
MEMORY_SIZES = (256, 4096, 65536)
CACHE_BYTES_SLACK = 1.05
MIXED = (8, 128)
PAIRS_PART_AT = 9
LONG_TOKENS = 512
MIXED_BYTES = 4 << 30  # of a full cache of mixed lengths


# --- cases ------------------------------------------------------------------------------------

@dataclass(frozen=True)
class Case:
    """What is run, on which prompts, where to, and which peer does the same; base: whose peers' figures it takes."""

    what: str                # "tables", "all tables" or "cache"
    prompts: str = "equal"   # "equal", "pairs", "mixed" or "long"
    place: str = "memory"
    level: str = "auto"
    peers: tuple[str, ...] = ("tl-tables",)
    base: str = ""


CASES = {
    "tables": Case("tables", peers=("tl-tables", "hf-last")),
    "all-tables": Case("all tables", peers=(), base="tables"),
    "memory": Case("cache", peers=("tl-cache",)),
    "disk": Case("cache", place="disk", peers=("tl-cache",)),
    "pairs": Case("tables", "pairs"),
    "avx2": Case("tables", level="avx2", peers=(), base="tables"),
    "mixed": Case("tables", "mixed"),
    "mixed-memory": Case("cache", "mixed", peers=("tl-cache",)),
    "mixed-disk": Case("cache", "mixed", place="disk", peers=("tl-cache",)),
    "long": Case("tables", "long"),
}
SETTINGS = {"tables": ["cache.hooks=none", "tables=[logit_diff,rank_per_layer]"],
            "all tables": ["cache.hooks=none", "tables=default"],
            "cache": ["tables=none"]}


# --- prompts ------------------------------------------------------------------------------------

def write_prompts(path: Path, words: list[str], lengths: list[int], part_at: int = 0) -> None:
    """Prompts of so many tokens, BOS counted, with two one-token answers; with part_at every second one
    repeats the one before it up to that token."""
    rng = random.Random(1)
    with open(path, "w", encoding="utf-8", newline="") as f:
        rows = csv.writer(f, lineterminator="\n")
        rows.writerow(("prompt", "correct", "incorrect"))
        before: list[str] = []
        for i, length in enumerate(lengths):
            prompt = rng.choices(words, k=length - 1)
            if part_at and i % 2:
                prompt = before[:part_at - 1] + prompt[part_at - 1:]
            before = prompt
            rows.writerow(("".join(prompt), *rng.sample(words, 2)))


def lengths_of(prompts: str, n: int, tokens: int) -> list[int]:
    if prompts == "mixed":
        return random.Random(2).choices(range(MIXED[0], MIXED[1] + 1), k=n)
    return [LONG_TOKENS if prompts == "long" else tokens] * n


def cache_bytes(shape: dict[str, int], tokens: int) -> int:
    """A prompt's: about 17 floats a unit of d_model, and two patterns a head."""
    return 4 * shape["n_layer"] * tokens * (17 * shape["n_embd"] + 2 * shape["n_head"] * tokens)


# --- contenders -----------------------------------------------------------------------------

@dataclass
class Contender:
    name: str
    case: str
    command: list[str]
    out: Path
    prompts: int
    env: dict[str, str] = field(default_factory=dict)
    computing: list[float] = field(default_factory=list)  # prompts/s
    times: str = ""    # h5lens's own account of the last round's
    peak: int = 0
    out_bytes: int = 0

    def run(self) -> None:
        ended = run_process(self.command, self.env)
        if self.command[1] == "run":
            self.computing.append(float(re.search(r"\(([\d.]+)/s\)", ended.output)[1]))
            self.times = "; ".join(re.findall(r"^(?:workers|writer), .*", ended.output, re.MULTILINE))
        else:
            report = json.loads(ended.output.splitlines()[-1])
            self.computing.append(report["prompts"] / report["seconds"])
        self.peak = max(self.peak, ended.peak_bytes)
        self.out_bytes = remove_output(self.out)


@dataclass
class Bench:
    """All that is run, and sgemm's rates of each round by the model and the CPU level."""

    args: argparse.Namespace
    places: dict[str, Path]
    cases: list[str]
    data: dict[str, Path] = field(default_factory=dict)         # by the prompts' kind and number
    lengths: dict[str, list[int]] = field(default_factory=dict)
    contenders: list[Contender] = field(default_factory=list)
    limits: dict[tuple[Path, str], list[Sgemm]] = field(default_factory=dict)

    def model(self, name: str) -> Path:
        return self.args.smollm2 if CASES[name].prompts == "long" else self.args.model

    def number(self, name: str) -> int:
        case, args = CASES[name], self.args
        if case.prompts == "long":
            return max(args.prompts // 32, 1)
        if case.prompts == "mixed":
            most = MIXED_BYTES // cache_bytes(shape_of(args.model), MIXED[1])
            return max(min(args.prompts // 4, most if case.what == "cache" else args.prompts), 1)
        return args.cache_prompts if case.what == "cache" else args.prompts

    def add_data(self, name: str, folder: Path) -> None:
        case, n = CASES[name], self.number(name)
        self.lengths[name] = lengths_of(case.prompts, n, self.args.tokens)
        self.data[name] = folder / f"{case.prompts}-{n}.csv"
        write_prompts(self.data[name], one_token_words(self.model(name)), self.lengths[name],
                      PAIRS_PART_AT if case.prompts == "pairs" else 0)

    def add_ours(self, name: str) -> None:
        case, out = CASES[name], self.places[CASES[name].place] / "h5lens.h5"
        command = [str(self.args.h5lens), "run", "--model", str(self.model(name)), "--data", str(self.data[name]),
                   "-o", str(out), "--overwrite", "--verbose", "--threads", str(self.args.threads)]
        for setting in ("data.answers=[correct,incorrect]", f"cpu={case.level}", *SETTINGS[case.what]):
            command += ["--set", setting]
        self.contenders.append(Contender("h5lens", name, command, out, self.number(name)))

    def add_peers(self, name: str, suffix: str, env: dict[str, str]) -> None:
        titles = {"tl-tables": "TransformerLens", "tl-cache": "TransformerLens", "hf-last": "Hugging Face, last logits"}
        for peer in CASES[name].peers:
            out = self.places[CASES[name].place] / "peer.h5"
            command = [sys.executable, str(PROGRAMS), peer, "--model", str(self.model(name)),
                       "--data", str(self.data[name]), "--out", str(out), "--threads", str(self.args.threads)]
            self.contenders.append(Contender(titles[peer] + suffix, name, command, out, self.number(name),
                                             {"HF_HUB_OFFLINE": "1", **env}))

    def limit(self, name: str) -> float:
        """The median of the rounds, in prompts/s."""
        case, lengths = CASES[name], self.lengths[name]
        rows = 0 if case.what == "cache" else shape_of(self.model(name))["n_layer"] + 1
        return statistics.median(s.prompts(sum(lengths) / len(lengths), rows)
                                 for s in self.limits[self.model(name), case.level])

    def run_round(self) -> None:
        for model, level in sorted({(self.model(c), CASES[c].level) for c in self.cases}):
            found = measure_sgemm(self.args.bench_sgemm, self.args.threads, shape_of(model), level)
            self.limits.setdefault((model, level), []).append(found)
        for c in self.contenders:
            c.run()
            print(f"  {c.case}: {c.name}: {c.computing[-1]:.1f} prompts/s", flush=True)


# --- the report -----------------------------------------------------------------------------

def ratio(bench: Bench, c: Contender, suffix: str) -> str:
    """To TransformerLens on the same prompts."""
    for other in bench.contenders:
        if other.name == "TransformerLens" + suffix and other.case in (c.case, CASES[c.case].base):
            return f"{statistics.median(c.computing) / statistics.median(other.computing):.2f}"
    return "-"


def report(bench: Bench) -> None:
    print(f"\n{'':44s} {'prompts/s, computing':>24s} {'tokens/s':>9s} {'limit':>7s} {'share':>6s} {'to TL':>6s} "
          f"{'mended':>6s} {'peak':>7s} {'written':>8s}")
    print(f"{'':44s} {'median':>8s} {'min':>7s} {'max':>7s} {'':>9s} {'sgemm':>7s} {'':>6s} {'':>6s} {'':>6s} "
          f"{'MiB':>7s} {'MB/s':>8s}")
    for c in bench.contenders:
        median, lengths = statistics.median(c.computing), bench.lengths[c.case]
        limit = bench.limit(c.case)
        print(f"{c.case + ': ' + c.name:44s} {median:8.1f} {min(c.computing):7.1f} {max(c.computing):7.1f} "
              f"{median * sum(lengths) / len(lengths):9.0f} {limit:7.1f} {100 * median / limit:4.0f} % "
              f"{ratio(bench, c, ''):>6s} {ratio(bench, c, ' (mended)'):>6s} {c.peak / 2**20:7.0f} "
              f"{median * c.out_bytes / c.prompts / 1e6:8.1f}")
    print("\nwhere the last round's time went (README, Measured)")
    for c in bench.contenders:
        if c.times:
            print(f"  {c.case}: {c.times}")
    print("\nsgemm, all threads at once, GFLOP/s: median of each round's (OpenBLAS, lens_gemm)")
    for (model, level), limits in bench.limits.items():
        rates = (f"{name} {statistics.median(s.sgemm[name] for s in limits):.1f} "
                 f"{statistics.median(s.ours[name] for s in limits):.1f}" for name in limits[0].products)
        print(f"  {model.name}, {level}: {', '.join(rates)}")


def check_room(bench: Bench) -> None:
    for name in bench.cases:
        case, folder = CASES[name], bench.places[CASES[name].place]
        if case.what != "cache":
            continue
        need = bench.number(name) * cache_bytes(shape_of(bench.model(name)), max(bench.lengths[name]))
        free = shutil.disk_usage(folder).free
        if free < need * CACHE_BYTES_SLACK:
            sys.exit(f"{folder}: {free / 2**30:.1f} GiB free is not enough for case {name}, which takes "
                     f"{need / 2**30:.1f}; use a smaller --cache-prompts")


def run_bench(args: argparse.Namespace, folder: Path, places: dict[str, Path]) -> None:
    bench = Bench(args, places, args.cases)
    mended = mended_env(folder) if args.mended and not args.skip_peers else None
    for name in bench.cases:
        bench.add_data(name, folder)
        bench.add_ours(name)
        if not args.skip_peers:
            bench.add_peers(name, "", {})
        if mended:
            bench.add_peers(name, " (mended)", mended)
    check_room(bench)
    for i in range(args.rounds):
        print(f"round {i + 1} of {args.rounds}, {args.threads} threads", flush=True)
        bench.run_round()
    report(bench)


def memory_test(args: argparse.Namespace, folder: Path, memory: Path) -> None:
    words = one_token_words(args.model)
    hook = args.hook or f"blocks.{shape_of(args.model)['n_layer'] - 1}.hook_resid_post"
    print(f"{hook} at the last position, all tables, {args.tokens} tokens, "
          f"{args.threads} threads; peak resident memory")
    print(f"{'prompts':>8s} {'peak MiB':>9s} {'file MiB':>9s} {'prompts/s':>10s}")
    for n in MEMORY_SIZES:
        data, out = folder / "prompts.csv", memory / "h5lens.h5"
        write_prompts(data, words, [args.tokens] * n)
        ended = run_process([
            str(args.h5lens), "run", "--model", str(args.model), "--data", str(data), "-o",
            str(out), "--overwrite", "--threads", str(args.threads), "--answers",
            "[correct,incorrect]", "--hooks", hook, "--positions", "last"])
        print(f"{n:8d} {ended.peak_bytes / 2**20:9.1f} {remove_output(out) / 2**20:9.1f} "
              f"{n / ended.seconds:10.1f}", flush=True)


def cases_of(p: argparse.ArgumentParser, args: argparse.Namespace) -> list[str]:
    """Those asked for; of all, those for which there is a disk and a model."""
    def missing(name: str) -> str:
        if CASES[name].place == "disk" and not args.disk:
            return "--disk"
        return "--smollm2" if CASES[name].prompts == "long" and not args.smollm2 else ""

    asked = args.cases.split(",") if args.cases else [name for name in CASES if not missing(name)]
    for name in asked:
        if name not in CASES:
            p.error(f"--cases: there is no '{name}'; there are {', '.join(CASES)}")
        if missing(name):
            p.error(f"--cases: {name} needs {missing(name)}")
    return asked


def parse_args() -> argparse.Namespace:
    p = argparse.ArgumentParser(description=__doc__,
                                formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--model", type=Path, help="a Hugging Face folder of GPT-2 small's shape, or another; for "
                   "--memory-test experiments/demo-gpt2 by default")
    p.add_argument("--smollm2", type=Path, help="the model of the case 'long'")
    p.add_argument("--cases", metavar="LIST", help="names with commas (default: all that can run)")
    p.add_argument("--h5lens", type=Path, metavar="BIN", default=Path("build/h5lens"))
    p.add_argument("--bench-sgemm", type=Path, metavar="BIN",
                   help="default: tests/bench/bench_sgemm beside h5lens")
    p.add_argument("--prompts", type=int, default=1024, help="of tables; mixed a quarter, long a 32nd of it")
    p.add_argument("--cache-prompts", type=int, default=None,
                   help="of the runs that write a full cache (default: at most 512)")
    p.add_argument("--tokens", type=int, default=16, help="of each prompt, BOS counted")
    p.add_argument("--threads", type=int, default=2)
    p.add_argument("--rounds", type=int, default=3)
    p.add_argument("--disk", type=Path, help="a folder on a real disk, for caches")
    p.add_argument("--memory-disk", type=Path, default=Path("/dev/shm"))
    p.add_argument("--skip-peers", action="store_true")
    p.add_argument("--mended", action="store_true", help="the peers a second time, mended")
    p.add_argument("--memory-test", action="store_true")
    p.add_argument("--hook", help="for --memory-test; default: the last hook_resid_post")
    args = p.parse_args()
    if args.memory_test and not args.model:
        args.model = Path(__file__).resolve().parent.parent / "experiments" / "demo-gpt2"
    if not args.model:
        p.error("--model is missing")
    if args.tokens <= PAIRS_PART_AT:
        p.error(f"--tokens must be more than {PAIRS_PART_AT}, where pairs part")
    args.bench_sgemm = args.bench_sgemm or args.h5lens.parent / "tests/bench/bench_sgemm"
    args.cache_prompts = args.cache_prompts or min(args.prompts, 512)
    if not args.memory_test:
        args.cases = cases_of(p, args)
    return args


def main() -> None:
    args = parse_args()
    with tempfile.TemporaryDirectory() as folder, \
            tempfile.TemporaryDirectory(dir=args.memory_disk) as memory, \
            tempfile.TemporaryDirectory(dir=args.disk or folder) as disk:
        if args.memory_test:
            memory_test(args, Path(folder), Path(memory))
        else:
            run_bench(args, Path(folder), {"memory": Path(memory), "disk": Path(disk)})


if __name__ == "__main__":
    main()
