#!/usr/bin/env python3
"""How fast h5lens is beside TransformerLens, Hugging Face and the machine's own limit.

    bench_peers.py --model DIR --h5lens build/h5lens [--disk DIR] [--repeat 3] [--mended]
        runs every contender once a round, in turn, each as a process of its own, and prints
        the median, least and largest prompts/s, the ratio to TransformerLens, the share of
        what sgemm alone would allow, and the peak memory. Prompts are random words, all of
        --tokens tokens. DIR is made by fidelity.py --make-random gpt2-small.

    bench_peers.py --memory-test [--model DIR] --h5lens build/h5lens
        h5lens's peak memory with tables and one hook, at 256, 4,096 and 65,536 prompts.

What is timed: 'computing' is from the first batch to the last byte, without loading. For
h5lens it is the figure that it prints, which leaves out the last sync of the file (most of it
is on the disk by then); the peers' includes one. 'process' is the whole command, loading
included. The peers run batches of 32 as a careful user would write them: no gradients, no
logits that nobody reads. Caches are without tables on both sides. The share of sgemm counts
the whole model's FLOPs; h5lens leaves out what tables don't read of the last block, 4 %.
--mended also runs the peers with MKL kept from its slow path on AMD processors and with a
malloc that keeps its memory; 'as installed' is what users have.

Needs torch, transformers, transformer_lens and h5py; with --skip-peers, nothing.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import random
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

PEER_BATCH = 32
TABLES = "tables=[logit_diff,rank_per_layer]"
ALL_TABLES = "tables=default"
MEMORY_SIZES = (256, 4096, 65536)
CACHE_BYTES_SLACK = 1.05
GPT2_SMALL = {"n_layer": 12, "n_embd": 768, "vocab_size": 50257}
# What keeps MKL from its slow path, and glibc's malloc from giving memory back.
MKL_SHIM = "int mkl_serv_intel_cpu_true(void) { return 1; }\n"
MALLOC_TUNED = {"MALLOC_MMAP_THRESHOLD_": str(1 << 30), "MALLOC_TRIM_THRESHOLD_": str(1 << 34),
                "MALLOC_TOP_PAD_": str(1 << 26)}


def shape_of(model_dir: Path) -> dict[str, int]:
    """A model's shape under GPT-2's names, whatever its family calls them."""
    with open(model_dir / "config.json", encoding="utf-8") as f:
        config = json.load(f)
    names = {"n_layer": ("n_layer", "num_layers", "num_hidden_layers"),
             "n_embd": ("n_embd", "hidden_size"),
             "n_head": ("n_head", "num_heads", "num_attention_heads"),
             "vocab_size": ("vocab_size",)}
    return {ours: next(config[k] for k in theirs if k in config)
            for ours, theirs in names.items()}


# --- prompts ------------------------------------------------------------------------------

def one_token_words(model_dir: Path) -> list[str]:
    """Words with a space in front that byte-level BPE keeps as one token."""
    with open(model_dir / "tokenizer.json", encoding="utf-8") as f:
        model = json.load(f)["model"]
    pairs = [tuple(m.split(" ")) if isinstance(m, str) else tuple(m) for m in model["merges"]]
    rank = {pair: i for i, pair in enumerate(pairs)}

    def merges_to_one(token: str) -> bool:
        parts = list(token)
        while len(parts) > 1:
            found = min(zip(parts, parts[1:]), key=lambda p: rank.get(p, len(rank)))
            if found not in rank:
                return False
            i = list(zip(parts, parts[1:])).index(found)
            parts[i:i + 2] = ["".join(found)]
        return True

    words = sorted(t for t in model["vocab"] if re.fullmatch("\u0120[a-z]{2,}", t))
    return [w.replace("\u0120", " ") for w in words if merges_to_one(w)]


def write_prompts(path: Path, words: list[str], n: int, tokens: int) -> None:
    """n prompts of exactly `tokens` tokens, BOS counted, with two one-token answers."""
    rng = random.Random(1)
    with open(path, "w", encoding="utf-8", newline="") as f:
        rows = csv.writer(f, lineterminator="\n")
        rows.writerow(("prompt", "correct", "incorrect"))
        for _ in range(n):
            rows.writerow(("".join(rng.choices(words, k=tokens - 1)), *rng.sample(words, 2)))


# --- the peers, each in a process of its own ------------------------------------------------

@dataclass
class Inputs:
    model_dir: Path
    tokens: "torch.Tensor"   # [prompt, pos]
    answers: "torch.Tensor"  # [prompt, 2]
    out: Path


def read_inputs(args: argparse.Namespace) -> Inputs:
    import torch
    from tokenizers import Tokenizer
    tok = Tokenizer.from_file(str(args.model / "tokenizer.json"))
    with open(args.model / "tokenizer_config.json", encoding="utf-8") as f:
        bos = tok.token_to_id(json.load(f)["bos_token"])
    with open(args.data, encoding="utf-8", newline="") as f:
        rows = list(csv.DictReader(f))[:args.prompts]
    tokens = [[bos, *tok.encode(r["prompt"], add_special_tokens=False).ids] for r in rows]
    answers = [[tok.encode(r[c], add_special_tokens=False).ids[0]
                for c in ("correct", "incorrect")] for r in rows]
    return Inputs(args.model, torch.tensor(tokens), torch.tensor(answers), args.out)


def batches(n: int) -> Iterator[slice]:
    return (slice(i, min(i + PEER_BATCH, n)) for i in range(0, n, PEER_BATCH))


def sync(path: Path) -> None:
    with open(path, "rb") as f:
        os.fsync(f.fileno())


def load_transformer_lens(model_dir: Path) -> "torch.nn.Module":
    import torch
    import fidelity
    import truth
    flags = {f: f != "refactor_factored_attn_matrices" for f in truth.PROCESSING}
    return fidelity.load_tl(fidelity.load_hf(str(model_dir), torch.float32), flags,
                            torch.float32)


def peer_tl_tables(inputs: Inputs) -> Callable[[], None]:
    """Logit difference and both answers' rank at each layer, at the last position."""
    import h5py
    import torch
    model = load_transformer_lens(inputs.model_dir)
    n, n_lens = len(inputs.tokens), model.cfg.n_layers + 1
    last = f"blocks.{model.cfg.n_layers - 1}.hook_resid_post"

    def wanted(name: str) -> bool:
        return name.endswith("hook_resid_pre") or name == last

    def run() -> None:
        diff = torch.empty(n)
        ranks = torch.empty(n, n_lens, 2, dtype=torch.int32)
        for b in batches(n):
            _, cache = model.run_with_cache(inputs.tokens[b], return_type=None,
                                            names_filter=wanted, pos_slice=-1)
            resid = torch.stack([cache[k] for k in cache.keys()], 1).flatten(2)
            logits = model.unembed(model.ln_final(resid))  # [prompt, lens_layer, d_vocab]
            index = inputs.answers[b][:, None].expand(-1, n_lens, -1)
            of_answer = logits.gather(2, index)
            for a in range(2):
                ranks[b, :, a] = (logits > of_answer[..., a:a + 1]).sum(-1).int()
            diff[b] = of_answer[:, -1, 0] - of_answer[:, -1, 1]
        with h5py.File(inputs.out, "w") as f:
            f["logit_diff"], f["rank_per_layer"] = diff.numpy(), ranks.numpy()
        sync(inputs.out)

    return run


def peer_tl_cache(inputs: Inputs) -> Callable[[], None]:
    """Every hook point that run_with_cache keeps by default, one dataset each."""
    import h5py
    model = load_transformer_lens(inputs.model_dir)
    n = len(inputs.tokens)

    def run() -> None:
        with h5py.File(inputs.out, "w", libver="latest") as f:
            for b in batches(n):
                _, cache = model.run_with_cache(inputs.tokens[b], return_type=None)
                for name, value in cache.items():
                    if name not in f:
                        f.create_dataset(name, (n, *value.shape[1:]), "f4")
                    f[name][b] = value.numpy()
        sync(inputs.out)

    return run


def peer_hf_last(inputs: Inputs) -> Callable[[], None]:
    """The last position's logits, as transformers computes them."""
    import torch
    from transformers import GPT2LMHeadModel
    model = GPT2LMHeadModel.from_pretrained(str(inputs.model_dir), torch_dtype=torch.float32)
    model.eval()
    n = len(inputs.tokens)

    def run() -> None:
        diff = torch.empty(n)
        for b in batches(n):
            logits = model(inputs.tokens[b], use_cache=False, logits_to_keep=1).logits[:, -1]
            pair = logits.gather(1, inputs.answers[b])
            diff[b] = pair[:, 0] - pair[:, 1]

    return run


PEERS = {"tl-tables": peer_tl_tables, "tl-cache": peer_tl_cache, "hf-last": peer_hf_last}


def run_peer(args: argparse.Namespace) -> None:
    """Loads, runs one batch to warm up, then times the whole; prints the seconds."""
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    import torch
    torch.set_num_threads(args.threads)
    inputs = read_inputs(args)
    with torch.inference_mode():
        warm = Inputs(inputs.model_dir, inputs.tokens[:PEER_BATCH],
                      inputs.answers[:PEER_BATCH], inputs.out)
        PEERS[args.peer](warm)()
        run = PEERS[args.peer](inputs)
        started = time.monotonic()
        run()
        seconds = time.monotonic() - started
    print(json.dumps({"prompts": len(inputs.tokens), "seconds": seconds}))


# --- processes ------------------------------------------------------------------------------

@dataclass
class Ended:
    output: str
    seconds: float
    peak_bytes: int


def run_process(command: list[str], env: dict[str, str] | None = None,
                limit: float = 7200) -> Ended:
    """Runs to the end; the peak is of this child alone (wait4)."""
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        started = time.monotonic()
        child = subprocess.Popen(command, stdout=out, stderr=err,
                                 env={**os.environ, **(env or {})})
        old = signal.signal(signal.SIGALRM, lambda *_: child.kill())
        signal.setitimer(signal.ITIMER_REAL, limit)
        _, status, usage = os.wait4(child.pid, 0)
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, old)
        seconds = time.monotonic() - started
        child.returncode = os.waitstatus_to_exitcode(status)
        out.seek(0)
        err.seek(0)
        if child.returncode:
            sys.exit(f"{' '.join(command)}\nended with {child.returncode}:\n{err.read()[-2000:]}")
        return Ended(out.read(), seconds, usage.ru_maxrss * 1024)


@dataclass
class Sgemm:
    """bench_sgemm's rates, in GFLOP/s, on all threads: sgemm and lens_gemm by shape."""

    sgemm: dict[str, float]
    ours: dict[str, float]

    def prompts(self, tokens: int, unembedded: int) -> float:
        """The most prompts/s, with so many rows a prompt through the unembedding."""
        d, layers = GPT2_SMALL["n_embd"], GPT2_SMALL["n_layer"]
        width = {"W_QKV": (d, 3 * d), "W_O": (d, d), "W_in": (d, 4 * d), "W_out": (4 * d, d)}
        seconds = sum(2e-9 * tokens * layers * k * n / self.sgemm[s]
                      for s, (k, n) in width.items())
        seconds += 2e-9 * unembedded * d * GPT2_SMALL["vocab_size"] / self.sgemm["W_U"]
        return 1 / seconds


def measure_sgemm(binary: Path, threads: int) -> Sgemm:
    text = run_process([str(binary), "auto", str(threads), "5"]).output
    found = re.findall(r"^(W_\w+) \S+ +([\d.]+) +([\d.]+) +([\d.]+) +([\d.]+)$", text, re.M)
    if len(found) != 5:
        sys.exit(f"{binary}: cannot read its report:\n{text}")
    return Sgemm({f[0]: float(f[3]) for f in found}, {f[0]: float(f[4]) for f in found})


# --- contenders -----------------------------------------------------------------------------

@dataclass
class Contender:
    name: str
    command: list[str]
    out: Path
    prompts: int
    group: str         # whose ratio to TransformerLens it takes part in
    unembedded: int    # rows a prompt through the unembedding
    env: dict[str, str] = field(default_factory=dict)
    is_base: bool = False
    computing: list[float] = field(default_factory=list)  # prompts/s
    process: list[float] = field(default_factory=list)
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
        self.process.append(self.prompts / ended.seconds)
        self.peak = max(self.peak, ended.peak_bytes)
        self.out_bytes = remove_output(self.out)


def remove_output(out: Path) -> int:
    """Its bytes, those of its shards included, which the next run would find and not compute again."""
    shards = out.with_suffix(".shards")
    files = [f for f in (out, *shards.glob("*")) if f.exists()]
    total = sum(f.stat().st_size for f in files)
    for f in files:
        f.unlink()
    if shards.exists():
        shards.rmdir()
    return total


def h5lens_contenders(args: argparse.Namespace, data: Path, lens_layers: int,
                      places: dict[str, Path]) -> list[Contender]:
    found = []

    def add(name: str, place: str, group: str, prompts: int, rows: int,
            settings: list[str]) -> None:
        out = places[place] / "h5lens.h5"
        command = [str(args.h5lens), "run", "--model", str(args.model), "--data", str(data),
                   "-o", str(out), "--overwrite", "--verbose", "--threads", str(args.threads), "--limit",
                   str(prompts), "--set", "data.answers=[correct,incorrect]"]
        for setting in settings:
            command += ["--set", setting]
        found.append(Contender(name, command, out, prompts, group, rows))

    hooks = "cache.hooks=none"
    add("h5lens, tables", "memory", "tables", args.prompts, lens_layers, [hooks, TABLES])
    add("h5lens, all tables", "memory", "tables", args.prompts, lens_layers,
        [hooks, ALL_TABLES])
    for place in places:
        add(f"h5lens, cache, {place}", place, f"cache, {place}", args.cache_prompts, 0,
            ["tables=none"])
    return found


def peer_contenders(args: argparse.Namespace, data: Path, lens_layers: int,
                    places: dict[str, Path], suffix: str,
                    env: dict[str, str]) -> list[Contender]:
    found = []

    def add(name: str, peer: str, place: str, group: str, prompts: int, rows: int) -> None:
        out = places[place] / "peer.h5"
        command = [sys.executable, os.path.abspath(__file__), "--peer", peer, "--model",
                   str(args.model), "--data", str(data), "--out", str(out), "--prompts",
                   str(prompts), "--threads", str(args.threads)]
        found.append(Contender(name + suffix, command, out, prompts, group, rows,
                               {"HF_HUB_OFFLINE": "1", **env}, not suffix))

    add("TransformerLens, tables", "tl-tables", "memory", "tables", args.prompts, lens_layers)
    for place in places:
        add(f"TransformerLens, cache, {place}", "tl-cache", place, f"cache, {place}",
            args.cache_prompts, 0)
    add("Hugging Face, last logits", "hf-last", "memory", "", args.prompts, 1)
    return found


def mended_env(folder: Path) -> dict[str, str]:
    """The environment that gives PyTorch the speed that it could have here."""
    source, library = folder / "mkl.c", folder / "mkl.so"
    source.write_text(MKL_SHIM, encoding="utf-8")
    subprocess.run(["cc", "-shared", "-fPIC", "-o", str(library), str(source)], check=True)
    return {"LD_PRELOAD": str(library), **MALLOC_TUNED}


# --- the report -----------------------------------------------------------------------------

def number(x: float) -> str:
    return f"{x:.1f}"


def report(contenders: list[Contender], limits: list[Sgemm], tokens: int,
           comparable: bool) -> None:
    base = {c.group: statistics.median(c.computing) for c in contenders if c.is_base and c.group}
    print(f"\n{'':40s} {'prompts/s, computing':>24s} {'process':>8s} {'to TL':>6s} "
          f"{'sgemm':>6s} {'peak':>9s} {'written':>8s}")
    print(f"{'':40s} {'median':>8s} {'min':>7s} {'max':>7s} {'median':>8s} {'':>6s} "
          f"{'share':>6s} {'MiB':>9s} {'MB/s':>8s}")
    for c in contenders:
        median = statistics.median(c.computing)
        ratio = f"{median / base[c.group]:.2f}" if c.group in base else "-"
        share = "-"
        if comparable:
            limit = statistics.median(s.prompts(tokens, c.unembedded) for s in limits)
            share = f"{100 * median / limit:.0f} %"
        written = number(median * c.out_bytes / c.prompts / 1e6)
        print(f"{c.name:40s} {number(median):>8s} {number(min(c.computing)):>7s} "
              f"{number(max(c.computing)):>7s} {number(statistics.median(c.process)):>8s} "
              f"{ratio:>6s} {share:>6s} {c.peak / 2**20:9.0f} {written:>8s}")
    print("\nwhere the last round's time went (README, Measured)")
    for c in contenders:
        if c.times:
            print(f"  {c.name}: {c.times}")


def report_limits(limits: list[Sgemm], tokens: int, lens_layers: int) -> None:
    print("\nsgemm, all threads at once, GFLOP/s: median of each round's (OpenBLAS, lens_gemm)")
    for shape in limits[0].sgemm:
        a = statistics.median(s.sgemm[shape] for s in limits)
        b = statistics.median(s.ours[shape] for s in limits)
        print(f"  {shape:6s} {a:8.1f} {b:8.1f}")
    for what, rows in (("tables", lens_layers), ("cache", 0)):
        each = [s.prompts(tokens, rows) for s in limits]
        print(f"  limit for {what}: {statistics.median(each):.1f} prompts/s "
              f"(from {min(each):.1f} to {max(each):.1f})")


def check_room(places: dict[str, Path], model: dict, prompts: int, tokens: int) -> None:
    """A full cache is about 13 floats wide per unit of d_model plus two patterns a head."""
    d, layers, heads = model["n_embd"], model["n_layer"], model["n_head"]
    floats = layers * tokens * (17 * d + 2 * heads * tokens)
    for place, folder in places.items():
        free = shutil.disk_usage(folder).free
        if free < prompts * floats * 4 * CACHE_BYTES_SLACK:
            sys.exit(f"{folder} ({place}): {free / 2**30:.1f} GiB free is not enough for the "
                     f"cache of {prompts} prompts; use a smaller --cache-prompts")


def bench(args: argparse.Namespace, folder: Path, memory: Path, disk: Path | None) -> None:
    model = shape_of(args.model)
    places = {"memory": memory, **({"disk": disk} if disk else {})}
    check_room(places, model, args.cache_prompts, args.tokens)
    data = folder / "prompts.csv"
    write_prompts(data, one_token_words(args.model), args.prompts, args.tokens)
    contenders = h5lens_contenders(args, data, model["n_layer"] + 1, places)
    if not args.skip_peers:
        variants = [("", {})] + ([(" (mended)", mended_env(folder))] if args.mended else [])
        for suffix, env in variants:
            contenders += peer_contenders(args, data, model["n_layer"] + 1, places, suffix, env)
    if args.only:
        contenders = [c for c in contenders if re.search(args.only, c.name)]
    comparable = all(model.get(k) == v for k, v in GPT2_SMALL.items())
    limits = []
    print(f"{args.prompts} prompts of {args.tokens} tokens for tables, {args.cache_prompts} for "
          f"caches; {args.threads} threads; {args.repeat} rounds")
    for i in range(args.repeat):
        if comparable:
            limits.append(measure_sgemm(args.bench_sgemm, args.threads))
        for c in contenders:
            c.run()
            print(f"  round {i + 1}: {c.name}: {c.computing[-1]:.1f} prompts/s", flush=True)
    report(contenders, limits, args.tokens, comparable)
    if limits:
        report_limits(limits, args.tokens, model["n_layer"] + 1)


def memory_test(args: argparse.Namespace, folder: Path, memory: Path) -> None:
    words = one_token_words(args.model)
    hook = args.hook or f"blocks.{shape_of(args.model)['n_layer'] - 1}.hook_resid_post"
    print(f"{hook} at the last position, all tables, {args.tokens} tokens, "
          f"{args.threads} threads; peak resident memory")
    print(f"{'prompts':>8s} {'peak MiB':>9s} {'file MiB':>9s} {'prompts/s':>10s}")
    for n in MEMORY_SIZES:
        data, out = folder / "prompts.csv", memory / "h5lens.h5"
        write_prompts(data, words, n, args.tokens)
        ended = run_process([
            str(args.h5lens), "run", "--model", str(args.model), "--data", str(data), "-o",
            str(out), "--overwrite", "--threads", str(args.threads), "--answers",
            "[correct,incorrect]", "--hooks", hook, "--positions", "last"])
        print(f"{n:8d} {ended.peak_bytes / 2**20:9.1f} {remove_output(out) / 2**20:9.1f} "
              f"{n / ended.seconds:10.1f}", flush=True)


def parse_args() -> argparse.Namespace:
    p = argparse.ArgumentParser(description=__doc__,
                                formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--model", type=Path, help="a Hugging Face folder; for "
                   "--memory-test experiments/demo-gpt2 by default")
    p.add_argument("--h5lens", type=Path, metavar="BIN", default=Path("build/h5lens"))
    p.add_argument("--bench-sgemm", type=Path, metavar="BIN",
                   help="default: tests/bench/bench_sgemm beside h5lens")
    p.add_argument("--prompts", type=int, default=1024)
    p.add_argument("--cache-prompts", type=int, default=None,
                   help="prompts of the runs that write a full cache (default: at most 512)")
    p.add_argument("--tokens", type=int, default=16, help="of each prompt, BOS counted")
    p.add_argument("--threads", type=int, default=2)
    p.add_argument("--repeat", type=int, default=3)
    p.add_argument("--disk", type=Path, help="a folder on a real disk, for caches")
    p.add_argument("--memory-disk", type=Path, default=Path("/dev/shm"))
    p.add_argument("--skip-peers", action="store_true")
    p.add_argument("--mended", action="store_true", help="the peers a second time, mended")
    p.add_argument("--only", metavar="REGEX", help="only contenders with such a name")
    p.add_argument("--memory-test", action="store_true")
    p.add_argument("--hook", help="for --memory-test; default: the last hook_resid_post")
    p.add_argument("--peer", choices=PEERS, help=argparse.SUPPRESS)
    p.add_argument("--data", type=Path, help=argparse.SUPPRESS)
    p.add_argument("--out", type=Path, help=argparse.SUPPRESS)
    args = p.parse_args()
    if args.memory_test and not args.model:
        args.model = Path(__file__).resolve().parent.parent / "experiments" / "demo-gpt2"
    if not args.model:
        p.error("--model is missing")
    if args.tokens < 2:
        p.error("--tokens must be 2 or more: BOS and a word")
    args.bench_sgemm = args.bench_sgemm or args.h5lens.parent / "tests/bench/bench_sgemm"
    args.cache_prompts = args.cache_prompts or min(args.prompts, 512)
    return args


def main() -> None:
    args = parse_args()
    if args.peer:
        run_peer(args)
        return
    with tempfile.TemporaryDirectory() as folder, \
            tempfile.TemporaryDirectory(dir=args.memory_disk) as memory:
        if args.memory_test:
            memory_test(args, Path(folder), Path(memory))
        elif args.disk:
            with tempfile.TemporaryDirectory(dir=args.disk) as disk:
                bench(args, Path(folder), Path(memory), Path(disk))
        else:
            bench(args, Path(folder), Path(memory), None)


if __name__ == "__main__":
    main()
