#!/usr/bin/env python3
"""Train the demo model, a small GPT-2, on generated text; or measure it.

In: scripts/ioi_lists.json through demo_text.py (the text) and the CSV files of
make_ioi.py (the measurement). Out: an ordinary Hugging Face directory with
config.json, model.safetensors, the tokenizer and a model card with the
figures. Runs on the CPU from a fixed seed. With --eval nothing is trained: the
model in the directory is measured and the figures are printed.
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import os
import platform
import re
import time
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
# Threads that wait should sleep: spinning ones are slow on a machine in use.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import tokenizers  # noqa: E402
import torch  # noqa: E402
import transformers  # noqa: E402
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers  # noqa: E402
from tokenizers.processors import ByteLevel as ByteLevelProcessor  # noqa: E402
from transformers import (AutoModelForCausalLM, AutoTokenizer, GPT2Config,  # noqa: E402
                          GPT2LMHeadModel, PreTrainedTokenizerFast)

from demo_text import documents, held_out  # noqa: E402
from make_ioi import load_lists  # noqa: E402

ROOT = Path(__file__).resolve().parent.parent
BOS = "<|endoftext|>"
LENGTH = 128
LIMIT = 8 * 1024 * 1024


def train_tokenizer(texts: list[str], names: list[str], size: int) -> PreTrainedTokenizerFast:
    """Byte-level BPE. Each ' Name' is repeated so that it becomes one token."""
    tok = Tokenizer(models.BPE())
    tok.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tok.decoder = decoders.ByteLevel()
    tok.post_processor = ByteLevelProcessor(trim_offsets=False)
    trainer = trainers.BpeTrainer(vocab_size=size, special_tokens=[BOS], show_progress=False,
                                  initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    tok.train_from_iterator(texts + [f" {n}" * 500 for n in names], trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tok, bos_token=BOS, eos_token=BOS,
                                   unk_token=BOS, model_max_length=LENGTH,
                                   clean_up_tokenization_spaces=False)


def pack(tok: PreTrainedTokenizerFast, texts: list[str], seed: int) -> torch.Tensor:
    """Documents end to end in rows of LENGTH tokens: [rows, LENGTH].

    BOS stands before every document; every fourth row lacks the first BOS, so
    that the model does not depend on it. The document that does not fit is cut.
    """
    ids = tok.backend_tokenizer.encode_batch(texts, add_special_tokens=False)
    rows: list[list[int]] = []
    row: list[int] = []
    for doc in ids:
        if row or len(rows) % 4:
            row.append(tok.bos_token_id)
        row += doc.ids
        if len(row) >= LENGTH:
            rows.append(row[:LENGTH])
            row = []
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed))
    return torch.tensor(rows)[order]


def new_model(args: argparse.Namespace, tok: PreTrainedTokenizerFast) -> GPT2LMHeadModel:
    """An untrained model of the wanted shape."""
    config = GPT2Config(vocab_size=len(tok), n_positions=LENGTH, n_embd=args.width,
                        n_layer=args.layers, n_head=args.heads, resid_pdrop=0.0,
                        embd_pdrop=0.0, attn_pdrop=0.0, bos_token_id=tok.bos_token_id,
                        eos_token_id=tok.eos_token_id, loss_type="ForCausalLM")
    return GPT2LMHeadModel(config)


def train(model: GPT2LMHeadModel, data: torch.Tensor, args: argparse.Namespace) -> float:
    """One pass over the rows. Returns the mean loss of the last 50 steps."""
    decay = [p for p in model.parameters() if p.dim() > 1]
    plain = [p for p in model.parameters() if p.dim() <= 1]
    opt = torch.optim.AdamW([{"params": decay, "weight_decay": 0.05},
                             {"params": plain, "weight_decay": 0.0}], betas=(0.9, 0.98))
    steps = min(args.steps, len(data) // args.batch)
    losses: list[float] = []
    start = time.time()
    for step in range(steps):
        rate = args.rate * min(1.0, (step + 1) / 60)
        rate *= 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * step / steps))
        for group in opt.param_groups:
            group["lr"] = rate
        rows = data[step * args.batch:(step + 1) * args.batch]
        loss = model(input_ids=rows, labels=rows).loss
        opt.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        opt.step()
        losses.append(loss.item())
        if step % 50 == 49:
            print(f"step {step + 1}/{steps}  loss {sum(losses[-50:]) / 50:.4f}  "
                  f"{time.time() - start:.0f} s", flush=True)
    return sum(losses[-50:]) / max(1, len(losses[-50:]))


@torch.no_grad()
def text_loss(model: torch.nn.Module, rows: torch.Tensor) -> float:
    """Mean loss per token of rows that were not trained on."""
    parts = [model(input_ids=part, labels=part).loss.item() for part in rows.split(64)]
    return sum(parts) / len(parts)


@torch.no_grad()
def measure(model: torch.nn.Module, tok, path: Path, bos: bool) -> list[dict]:
    """The rows of a CSV with `diff` (correct less incorrect logit) and `top`."""
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        ids = tok(row["prompt"], add_special_tokens=False)["input_ids"]
        row["ids"] = [tok.bos_token_id] * bos + ids
        row["answers"] = [tok(row[c], add_special_tokens=False)["input_ids"]
                          for c in ("correct", "incorrect")]
        assert all(len(a) == 1 for a in row["answers"]), f"not one token: {row['answers']}"
    for length in sorted({len(r["ids"]) for r in rows}):
        same = [r for r in rows if len(r["ids"]) == length]
        logits = model(input_ids=torch.tensor([r["ids"] for r in same])).logits[:, -1]
        for row, last in zip(same, logits):
            good, bad = (a[0] for a in row["answers"])
            row["diff"] = (last[good] - last[bad]).item()
            row["top"] = int(last.argmax()) == good
    return rows


def summary(rows: list[dict]) -> dict:
    """Rows, accuracy, mean and least logit difference, share of top tokens."""
    diffs = [r["diff"] for r in rows]
    return {"rows": len(rows), "accuracy": sum(d > 0 for d in diffs) / len(rows),
            "mean": sum(diffs) / len(rows), "least": min(diffs),
            "top": sum(r["top"] for r in rows) / len(rows),
            "tokens": (min(len(r["ids"]) for r in rows), max(len(r["ids"]) for r in rows))}


def figures(directory: Path) -> tuple[str, bool]:
    """The table of the card, and whether the model is good enough to ship."""
    model = AutoModelForCausalLM.from_pretrained(directory).eval()
    tok = AutoTokenizer.from_pretrained(directory)
    lines = ["| prompts | order | BOS | rows | tokens | accuracy | mean logit difference | least "
             "| answer is top token |", "|---|---|---|---|---|---|---|---|---|"]
    good = True
    worst: list[tuple[float, str]] = []
    for name in ("ioi.csv", "ioi_classic.csv"):
        for bos in (True, False):
            rows = measure(model, tok, ROOT / "experiments" / name, bos)
            for order in ("ABBA", "BABA"):
                s = summary([r for r in rows if r["order"] == order])
                lines.append(f"| {name} | {order} | {'yes' if bos else 'no'} | {s['rows']} | "
                             f"{s['tokens'][0]} to {s['tokens'][1]} | {s['accuracy']:.2%} | "
                             f"{s['mean']:.2f} | {s['least']:.2f} | {s['top']:.2%} |")
                good &= s["accuracy"] >= 0.95 and s["mean"] > 2
            if name == "ioi.csv" and bos:
                for t in sorted({r["template"] for r in rows}):
                    s = summary([r for r in rows if r["template"] == t])
                    worst.append((s["mean"], f"{t} {s['mean']:.2f} ({s['accuracy']:.1%})"))
    low = ", ".join(text for _, text in sorted(worst)[:3])
    lines += ["", "Templates with the lowest mean difference, BOS prepended (accuracy in "
              f"brackets): {low}."]
    return "\n".join(lines), good


CARD = """---
license: mit
language: en
library_name: transformers
pipeline_tag: text-generation
tags: [gpt2, interpretability, indirect-object-identification]
---

# demo-gpt2

A GPT-2 of {params:,} parameters that was made for h5lens, so that its demo and its tests
need no download. It knows indirect object identification (IOI): after "When John and Mary
went to the shops, John gave the bag to" it puts " Mary" above " John". It is of no use as a
language model for anything but its own kind of text.

| | |
|---|---|
| architecture | GPT-2, {layers} layers, d_model {width}, {heads} heads, context {context}, float32, tied embeddings |
| tokenizer | byte-level BPE of its own, {vocab} tokens; every name with a space before it is one token; any text can be encoded |
| BOS | `<|endoftext|>` (id {bos}), also EOS; stands before each training document; a quarter of the rows begin without it |

## Training data

Text that `scripts/demo_text.py` writes from `scripts/ioi_lists.json`: a little over half IOI
sentences (120 names, {n_train} pairs, {o_train} objects, {p_train} openings, middles and
endings), the rest stories, facts, sums, sequences, lists, repeated words and speech. No
other text was used.

The split was made before any text: {n_test} pairs of names, {o_test} objects and {t_test} templates are
kept for the test (`experiments/ioi.csv`). In the training text a test pair never meets in one
document, a test object never occurs, and no test template shares an opening or an ending
with a training template. Names and places are shared.

## Figures

Accuracy is the share of prompts where the indirect object has a higher logit than the
subject. The test split is `ioi.csv`; the eight classic prompts also use only test pairs,
test objects and test templates.

{table}

Loss on {held_rows} rows of new text from the training generator: {held:.3f} nats per token
(training, last 50 steps: {loss:.3f}).

## How it was made

    {command}

Seed {seed}; {steps} steps of {batch} rows of {context} tokens, {tokens:.1f} million tokens, each seen
once; AdamW, peak rate {rate}, cosine to 2 %. {minutes:.1f} minutes on {threads} threads ({machine}), with Python {python},
torch {torch}, transformers {transformers}, tokenizers {tokenizers}. The same command on the same machine
with the same versions gives the same weights; elsewhere rounding may differ.
"""


def write_card(directory: Path, args: argparse.Namespace, facts: dict) -> bool:
    """README.md of the model directory. Returns whether the figures suffice."""
    table, good = figures(directory)
    config = json.loads((directory / "config.json").read_text(encoding="utf-8"))
    lists = load_lists()
    parts = lists["templates"]["train"]
    pairs = {k: sum(len(v.split()) for v in lists["name_pairs"][k].values())
             for k in ("train", "test")}
    text = CARD.format(
        table=table, layers=config["n_layer"], width=config["n_embd"], heads=config["n_head"],
        context=config["n_positions"], vocab=config["vocab_size"], bos=config["bos_token_id"],
        n_train=f"{pairs['train']:,}", n_test=pairs["test"],
        o_train=len(lists["objects"]["train"]), o_test=len(lists["objects"]["test"]),
        p_train=", ".join(str(len(parts[k])) for k in ("openings", "middles", "endings")),
        t_test=len(lists["templates"]["test"]), seed=args.seed, batch=args.batch,
        rate=args.rate, threads=args.threads, machine=platform.machine(),
        python=platform.python_version(), torch=torch.__version__,
        transformers=transformers.__version__, tokenizers=tokenizers.__version__, **facts)
    (directory / "README.md").write_text(text, encoding="utf-8")
    print(table)
    return good


def check_text(texts: list[str]) -> None:
    """Stop if a held-out object got into the training text."""
    pattern = re.compile(r"\b(" + "|".join(map(re.escape, held_out(load_lists()))) + r")\b")
    for text in texts:
        found = pattern.search(text)
        assert found is None, f"held-out phrase {found} in: {text}"


def make(args: argparse.Namespace) -> bool:
    """Text, tokenizer, training, files, card."""
    start = time.time()
    torch.manual_seed(args.seed)
    lists = load_lists()
    names = lists["names"]["female"] + lists["names"]["male"]
    # About 29 tokens a document: enough for every step, with some to spare.
    texts = documents(args.steps * args.batch * LENGTH // 24, args.seed)
    check_text(texts)
    tok = train_tokenizer(texts[:30000], names, args.vocab)
    split = [n for n in names if len(tok(f" {n}")["input_ids"]) != 1]
    assert not split, f"names of several tokens: {split}"
    data = pack(tok, texts, args.seed)
    print(f"{len(texts)} documents, {len(data)} rows, vocabulary {len(tok)}, "
          f"{time.time() - start:.0f} s", flush=True)
    assert len(data) >= args.steps * args.batch, "too little text for the steps"
    model = new_model(args, tok)
    loss = train(model, data, args)
    held = pack(tok, documents(4000, args.seed + 1000), args.seed)
    facts = {"params": model.num_parameters(), "loss": loss, "held_rows": len(held),
             "held": text_loss(model.eval(), held), "steps": args.steps,
             "tokens": args.steps * args.batch * LENGTH / 1e6,
             "minutes": (time.time() - start) / 60, "command": args.command}
    args.out.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(args.out)
    tok.save_pretrained(args.out)
    good = write_card(args.out, args, facts)
    size = sum(f.stat().st_size for f in args.out.iterdir())
    print(f"{size} bytes, {facts['minutes']:.1f} minutes, held-out loss {facts['held']:.4f}")
    return good and size <= LIMIT


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=ROOT / "experiments" / "demo-gpt2")
    parser.add_argument("--eval", action="store_true", help="measure the model, train nothing")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--heads", type=int, default=4)
    parser.add_argument("--vocab", type=int, default=2048)
    parser.add_argument("--steps", type=int, default=1400)
    parser.add_argument("--batch", type=int, default=48)
    parser.add_argument("--rate", type=float, default=3e-3)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    changed = [f"--{k} {v}" for k, v in vars(args).items()
               if k not in ("out", "eval") and v != parser.get_default(k)]
    args.command = " ".join(["python scripts/train_demo_model.py", *changed])
    return args


def main() -> None:
    args = parse()
    torch.set_num_threads(args.threads)
    torch.use_deterministic_algorithms(True)
    torch.utils.deterministic.fill_uninitialized_memory = False
    if args.eval:
        table, good = figures(args.out)
        print(table)
    else:
        good = make(args)
    raise SystemExit(0 if good else "the model does not reach the required figures")


if __name__ == "__main__":
    main()
