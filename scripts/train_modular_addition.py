#!/usr/bin/env python3
"""Train a one-layer transformer on addition modulo a prime until it groks, or measure it.

As in Nanda et al. 2023, "Progress measures for grokking via mechanistic
interpretability": tokens [a, b, =], the answer (a + b) mod p, no normalization,
no biases that are trained, AdamW with weight decay 1, the whole training set as
one batch. In: a seed. Out: a folder in TransformerLens's own form, config.json
with HookedTransformerConfig's keys and model.safetensors with its state dict's
names, the CSV of all p² pairs that experiment.yaml reads, and training.json with
the figures by which the tests know the model. It needs torch and safetensors.
"""

from __future__ import annotations

import argparse
import csv
import json
import platform
import time
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

ROOT = Path(__file__).resolve().parent.parent
Weights = dict[str, torch.Tensor]


def config_of(args: argparse.Namespace) -> dict:
    """What HookedTransformerConfig(**…) takes. Token p is '='; no logit is for it."""
    return {"n_layers": 1, "d_model": args.width, "n_ctx": 3,
            "d_head": args.width // args.heads, "n_heads": args.heads, "d_mlp": args.neurons,
            "act_fn": "relu", "d_vocab": args.p + 1, "d_vocab_out": args.p,
            "normalization_type": None, "positional_embedding_type": "standard",
            "attention_dir": "causal", "attn_only": False, "default_prepend_bos": False}


def new_weights(c: dict, seed: int) -> Weights:
    """Matrices from normal distributions of the fan-in's width; biases are zero and stay so."""
    gen = torch.Generator().manual_seed(seed)
    d, h, dh, f = c["d_model"], c["n_heads"], c["d_head"], c["d_mlp"]
    block = {"attn.W_Q": (h, d, dh), "attn.W_K": (h, d, dh), "attn.W_V": (h, d, dh),
             "attn.W_O": (h, dh, d), "mlp.W_in": (d, f), "mlp.W_out": (f, d)}
    shapes = {"embed.W_E": (c["d_vocab"], d), "pos_embed.W_pos": (c["n_ctx"], d),
              **{f"blocks.0.{k}": v for k, v in block.items()}, "unembed.W_U": (d, c["d_vocab_out"])}
    trained = {k: (torch.randn(v, generator=gen) / d ** 0.5).requires_grad_()
               for k, v in shapes.items()}
    biases = {"attn.b_Q": (h, dh), "attn.b_K": (h, dh), "attn.b_V": (h, dh), "attn.b_O": (d,),
              "mlp.b_in": (f,), "mlp.b_out": (d,)}
    zeros = {f"blocks.0.{k}": torch.zeros(v) for k, v in biases.items()}
    return trained | zeros | {"unembed.b_U": torch.zeros(c["d_vocab_out"])}


def logits(w: Weights, tokens: torch.Tensor) -> torch.Tensor:
    """Of the last position, [pair, p]; only its query is computed."""
    x = w["embed.W_E"][tokens] + w["pos_embed.W_pos"]
    b = {k.removeprefix("blocks.0."): v for k, v in w.items() if k.startswith("blocks.0.")}
    q = torch.einsum("nd,hde->nhe", x[:, -1], b["attn.W_Q"]) + b["attn.b_Q"]
    k = torch.einsum("npd,hde->nphe", x, b["attn.W_K"]) + b["attn.b_K"]
    v = torch.einsum("npd,hde->nphe", x, b["attn.W_V"]) + b["attn.b_V"]
    pattern = (torch.einsum("nhe,nphe->nhp", q, k) / q.shape[-1] ** 0.5).softmax(-1)
    z = torch.einsum("nhp,nphe->nhe", pattern, v)
    mid = x[:, -1] + torch.einsum("nhe,hed->nd", z, b["attn.W_O"]) + b["attn.b_O"]
    post = torch.relu(mid @ b["mlp.W_in"] + b["mlp.b_in"])
    return (mid + post @ b["mlp.W_out"] + b["mlp.b_out"]) @ w["unembed.W_U"] + w["unembed.b_U"]


def pairs(p: int, seed: int, share: float) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """All tokens [p², 3], their answers, and which of them are trained on."""
    a = torch.arange(p).repeat_interleave(p)
    b = torch.arange(p).repeat(p)
    tokens = torch.stack([a, b, torch.full_like(a, p)], 1)
    order = torch.randperm(p * p, generator=torch.Generator().manual_seed(seed + 1000))
    train = torch.zeros(p * p, dtype=torch.bool)
    train[order[:int(share * p * p)]] = True
    return tokens, (a + b) % p, train


def loss(out: torch.Tensor, answers: torch.Tensor) -> torch.Tensor:
    """Cross entropy in float64: in float32 it is rounded away where the model is sure."""
    return torch.nn.functional.cross_entropy(out.double(), answers)


@torch.no_grad()
def measure(w: Weights, tokens: torch.Tensor, answers: torch.Tensor, train: torch.Tensor) -> dict:
    """Accuracy and loss on the pairs trained on and on the others; pairs that are wrong."""
    out = logits(w, tokens)
    right = out.argmax(-1) == answers
    return {"train_accuracy": right[train].double().mean().item(),
            "test_accuracy": right[~train].double().mean().item(),
            "train_loss": loss(out[train], answers[train]).item(),
            "test_loss": loss(out[~train], answers[~train]).item(),
            "pairs": len(answers), "right": int(right.sum())}


def train(w: Weights, data: tuple, args: argparse.Namespace) -> tuple[dict, list[dict]]:
    """Trains w in place. Returns the last figures, and those of every 200 steps."""
    tokens, answers, chosen = data
    opt = torch.optim.AdamW([v for v in w.values() if v.requires_grad], lr=args.rate,
                            weight_decay=1.0, betas=(0.9, 0.98))
    curve = []
    start = time.time()
    for step in range(args.steps + 1):
        if step % 200 == 0:
            now = {"step": step, **measure(w, *data)}
            curve.append({k: v if k == "step" else float(f"{v:.4g}") for k, v in now.items()
                          if k not in ("pairs", "right")})
            print(f"step {step}  loss {now['train_loss']:.2e} {now['test_loss']:.2e}  test "
                  f"accuracy {now['test_accuracy']:.4f}  {time.time() - start:.0f} s", flush=True)
        if step == args.steps:
            break
        opt.param_groups[0]["lr"] = args.rate * min(1.0, (step + 1) / 10)
        opt.zero_grad()
        loss(logits(w, tokens[chosen]), answers[chosen]).backward()
        opt.step()
    return measure(w, *data), curve


def write_csv(path: Path, data: tuple, p: int) -> None:
    """Every pair: its ids, the answer, and another answer to compare it with (a − b)."""
    with path.open("w", encoding="utf-8", newline="") as file:
        out = csv.writer(file, lineterminator="\n")
        out.writerow(["tokens", "sum", "difference", "a", "b", "split"])
        for t, answer, chosen in zip(*(x.tolist() for x in data)):
            a, b, _ = t
            # a - b is a + b where b is 0: then the next one.
            other = (a - b) % p if b else (a + 1) % p
            out.writerow([" ".join(map(str, t)), answer, other, a, b,
                          "train" if chosen else "test"])


def make(args: argparse.Namespace) -> dict:
    config = config_of(args)
    w = new_weights(config, args.seed)
    data = pairs(args.p, args.seed, args.share)
    start = time.process_time()
    figures, curve = train(w, data, args)
    args.out.mkdir(parents=True, exist_ok=True)
    model = args.out / "model"
    model.mkdir(exist_ok=True)
    (model / "config.json").write_text(json.dumps(config, indent=1) + "\n", encoding="utf-8")
    save_file({k: v.detach().contiguous() for k, v in w.items()}, model / "model.safetensors")
    (model / "model.safetensors").chmod(0o644)
    write_csv(args.out / "pairs.csv", data, args.p)
    facts = {"command": args.command, "seed": args.seed, "p": args.p, "steps": args.steps,
             "parameters": sum(v.numel() for v in w.values() if v.requires_grad),
             "cpu_minutes": round((time.process_time() - start) / 60, 1), "threads": args.threads,
             "torch": torch.__version__, "machine": platform.machine(), **figures, "curve": curve}
    (args.out / "training.json").write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    return figures


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=ROOT / "experiments" / "modular-addition")
    parser.add_argument("--eval", action="store_true", help="measure the model, train nothing")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("-p", type=int, default=53, help="the modulus")
    parser.add_argument("--share", type=float, default=0.4, help="of the pairs that are trained on")
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--heads", type=int, default=4)
    parser.add_argument("--neurons", type=int, default=256)
    parser.add_argument("--steps", type=int, default=10000)
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    changed = [f" {'-' if len(k) == 1 else '--'}{k} {v}" for k, v in vars(args).items()
               if k not in ("out", "eval") and v != parser.get_default(k)]
    args.command = "python scripts/train_modular_addition.py" + "".join(changed)
    return args


def main() -> None:
    args = parse()
    torch.set_num_threads(args.threads)
    torch.use_deterministic_algorithms(True)
    if args.eval:
        w = load_file(args.out / "model" / "model.safetensors")
        figures = measure(w, *pairs(args.p, args.seed, args.share))
    else:
        figures = make(args)
    print(json.dumps(figures, indent=1))
    good = figures["test_accuracy"] >= 0.99
    raise SystemExit(0 if good else "the model has not generalised")


if __name__ == "__main__":
    main()
