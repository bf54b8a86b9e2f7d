#!/usr/bin/env python3
"""What bench_peers.py and bench_patching.py share: a model's shape, words that are one token,
processes with their peak memory, and sgemm's rates from tests/bench/bench_sgemm.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

# What keeps MKL from its slow path, and glibc's malloc from giving memory back.
MKL_SHIM = "int mkl_serv_intel_cpu_true(void) { return 1; }\n"
MALLOC_TUNED = {"MALLOC_MMAP_THRESHOLD_": str(1 << 30), "MALLOC_TRIM_THRESHOLD_": str(1 << 34),
                "MALLOC_TOP_PAD_": str(1 << 26)}


# --- the model --------------------------------------------------------------------------------

def shape_of(model_dir: Path) -> dict[str, int]:
    """A model's shape under GPT-2's names, whatever its family calls them."""
    with open(model_dir / "config.json", encoding="utf-8") as f:
        config = json.load(f)
    names = {"n_layer": ("n_layer", "num_layers", "num_hidden_layers"),
             "n_embd": ("n_embd", "hidden_size"),
             "n_head": ("n_head", "num_heads", "num_attention_heads"),
             "vocab_size": ("vocab_size",)}
    shape = {ours: next(config[k] for k in theirs if k in config)
             for ours, theirs in names.items()}
    shape["n_kv_head"] = config.get("num_key_value_heads") or shape["n_head"]
    shape["d_head"] = config.get("head_dim") or shape["n_embd"] // shape["n_head"]
    shape["d_mlp"] = config.get("intermediate_size") or config.get("n_inner") or 4 * shape["n_embd"]
    shape["gated"] = int(not config["model_type"].startswith("gpt"))
    return shape


@dataclass
class Product:
    """A matrix product of one row: [1, k] times [k, n], so many times."""

    n: int
    k: int
    times: int
    transposed: bool = False


def products_of(shape: dict[str, int]) -> dict[str, Product]:
    """Those of a token in all blocks, and W_U's of one row of logits. Attention's own are not among them."""
    d, layers, heads = shape["n_embd"], shape["n_layer"], shape["n_head"] * shape["d_head"]
    qkv = heads + 2 * shape["n_kv_head"] * shape["d_head"]
    return {"W_QKV": Product(qkv, d, layers), "W_O": Product(d, heads, layers),
            "W_in": Product(shape["d_mlp"], d, layers * (1 + shape["gated"])),
            "W_out": Product(d, shape["d_mlp"], layers),
            "W_U": Product(shape["vocab_size"], d, 1, transposed=True)}


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


def load_transformer_lens(model_dir: Path) -> "torch.nn.Module":
    import torch
    import fidelity
    import truth
    flags = {f: f != "refactor_factored_attn_matrices" for f in truth.PROCESSING}
    return fidelity.load_tl(fidelity.load_hf(str(model_dir), torch.float32), flags,
                            torch.float32)


# --- processes --------------------------------------------------------------------------------

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


def mended_env(folder: Path) -> dict[str, str]:
    """The environment that gives PyTorch the speed that it could have here."""
    source, library = folder / "mkl.c", folder / "mkl.so"
    source.write_text(MKL_SHIM, encoding="utf-8")
    subprocess.run(["cc", "-shared", "-fPIC", "-o", str(library), str(source)], check=True)
    return {"LD_PRELOAD": str(library), **MALLOC_TUNED}


# --- the limit --------------------------------------------------------------------------------

@dataclass
class Sgemm:
    """bench_sgemm's rates for a model, in GFLOP/s, on all threads: sgemm and lens_gemm by shape."""

    products: dict[str, Product]
    sgemm: dict[str, float]
    ours: dict[str, float]

    def prompts(self, tokens: float, unembedded: float) -> float:
        """The most prompts/s, with so many rows a prompt through the unembedding."""
        rows = {name: tokens for name in self.products} | {"W_U": unembedded}
        return 1 / sum(2e-9 * rows[name] * p.times * p.n * p.k / self.sgemm[name]
                       for name, p in self.products.items())


def measure_sgemm(binary: Path, threads: int, shape: dict[str, int], level: str = "auto") -> Sgemm:
    products = products_of(shape)
    sizes = [f"{name}:{p.n}x{p.k}{'T' if p.transposed else ''}" for name, p in products.items()]
    text = run_process([str(binary), level, str(threads), "5", "16", *sizes]).output
    found = re.findall(r"^(W_\w+) \S+ +([\d.]+) +([\d.]+) +([\d.]+) +([\d.]+)$", text, re.M)
    if len(found) != len(products):
        sys.exit(f"{binary}: cannot read its report:\n{text}")
    return Sgemm(products, {f[0]: float(f[3]) for f in found}, {f[0]: float(f[4]) for f in found})
