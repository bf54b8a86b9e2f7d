#!/usr/bin/env python3
"""What bench_peers.py compares with, each run as a process of its own.

    bench_programs.py tl-tables|tl-cache|hf-last --model DIR --data CSV --out FILE [--threads N]
        loads, runs one batch to warm up, then times the whole; prints the prompts and seconds as JSON.

Batches of 32 as a careful user would write them: no gradients, no logits that nobody reads, prompts padded
on the right to the longest of their batch. Needs torch, transformers, transformer_lens and h5py.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from bench_common import load_transformer_lens

PEER_BATCH = 32


@dataclass
class Inputs:
    model_dir: Path
    tokens: list[list[int]]
    answers: "torch.Tensor"  # [prompt, 2]
    out: Path

    def padded(self, b: slice) -> "torch.Tensor":
        import torch
        rows = self.tokens[b]
        longest = max(len(r) for r in rows)
        return torch.tensor([r + [r[-1]] * (longest - len(r)) for r in rows])

    def last(self, b: slice) -> "torch.Tensor":
        import torch
        return torch.tensor([len(r) - 1 for r in self.tokens[b]])


def read_inputs(args: argparse.Namespace) -> Inputs:
    import torch
    from tokenizers import Tokenizer
    tok = Tokenizer.from_file(str(args.model / "tokenizer.json"))
    with open(args.model / "tokenizer_config.json", encoding="utf-8") as f:
        bos = tok.token_to_id(json.load(f)["bos_token"])
    with open(args.data, encoding="utf-8", newline="") as f:
        rows = list(csv.DictReader(f))
    tokens = [[bos, *tok.encode(r["prompt"], add_special_tokens=False).ids] for r in rows]
    answers = [[tok.encode(r[c], add_special_tokens=False).ids[0]
                for c in ("correct", "incorrect")] for r in rows]
    return Inputs(args.model, tokens, torch.tensor(answers), args.out)


def batches(n: int) -> Iterator[slice]:
    return (slice(i, min(i + PEER_BATCH, n)) for i in range(0, n, PEER_BATCH))


def sync(path: Path) -> None:
    with open(path, "rb") as f:
        os.fsync(f.fileno())


def peer_tl_tables(inputs: Inputs) -> Callable[[], None]:
    """Logit difference and both answers' rank at each layer, at the last position."""
    import h5py
    import torch
    model = load_transformer_lens(inputs.model_dir)
    n, n_lens = len(inputs.tokens), model.cfg.n_layers + 1
    last = f"blocks.{model.cfg.n_layers - 1}.hook_resid_post"
    equal = len({len(t) for t in inputs.tokens}) == 1

    def wanted(name: str) -> bool:
        return name.endswith("hook_resid_pre") or name == last

    def run() -> None:
        diff = torch.empty(n)
        ranks = torch.empty(n, n_lens, 2, dtype=torch.int32)
        for b in batches(n):
            at = inputs.last(b)
            _, cache = model.run_with_cache(inputs.padded(b), return_type=None, names_filter=wanted,
                                            pos_slice=-1 if equal else None)
            pos = torch.zeros_like(at) if equal else at
            resid = torch.stack([cache[k].reshape(len(at), -1, model.cfg.d_model)[torch.arange(len(at)), pos]
                                 for k in cache.keys()], 1)
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
    n, longest = len(inputs.tokens), max(len(t) for t in inputs.tokens)

    def extent(name: str, shape: tuple[int, ...]) -> tuple[int, ...]:
        square = name.endswith(("hook_pattern", "hook_attn_scores"))
        return (n, shape[1], longest, longest) if square else (n, longest, *shape[2:])

    def run() -> None:
        with h5py.File(inputs.out, "w", libver="latest") as f:
            for b in batches(n):
                _, cache = model.run_with_cache(inputs.padded(b), return_type=None)
                for name, value in cache.items():
                    if name not in f:
                        f.create_dataset(name, extent(name, value.shape), "f4")
                    f[name][(b, *(slice(0, s) for s in value.shape[1:]))] = value.numpy()
        sync(inputs.out)

    return run


def peer_hf_last(inputs: Inputs) -> Callable[[], None]:
    """The last position's logits, as transformers computes them; prompts of equal length."""
    import torch
    from transformers import AutoModelForCausalLM
    model = AutoModelForCausalLM.from_pretrained(str(inputs.model_dir), torch_dtype=torch.float32)
    model.eval()
    n = len(inputs.tokens)

    def run() -> None:
        diff = torch.empty(n)
        for b in batches(n):
            logits = model(inputs.padded(b), use_cache=False, logits_to_keep=1).logits[:, -1]
            pair = logits.gather(1, inputs.answers[b])
            diff[b] = pair[:, 0] - pair[:, 1]

    return run


PEERS = {"tl-tables": peer_tl_tables, "tl-cache": peer_tl_cache, "hf-last": peer_hf_last}


def parse_args() -> argparse.Namespace:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("program", choices=PEERS)
    p.add_argument("--model", type=Path, required=True)
    p.add_argument("--data", type=Path, required=True)
    p.add_argument("--out", type=Path, required=True)
    p.add_argument("--threads", type=int, default=2)
    return p.parse_args()


def main() -> None:
    args = parse_args()
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    import torch
    torch.set_num_threads(args.threads)
    inputs = read_inputs(args)
    with torch.inference_mode():
        warm = Inputs(inputs.model_dir, inputs.tokens[:PEER_BATCH],
                      inputs.answers[:PEER_BATCH], inputs.out)
        PEERS[args.program](warm)()
        run = PEERS[args.program](inputs)
        started = time.monotonic()
        run()
        seconds = time.monotonic() - started
    print(json.dumps({"prompts": len(inputs.tokens), "seconds": seconds}))


if __name__ == "__main__":
    main()
