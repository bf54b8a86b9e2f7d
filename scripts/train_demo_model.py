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
import os
import platform
import random
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

from demo_text import documents, leaks  # noqa: E402
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


def batches(tok: PreTrainedTokenizerFast, texts: list[str], tokens: int,
            seed: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Inputs and labels [documents, length], in the order of the texts.

    One row is BOS, a document and BOS; now and then another document follows.
    Every fourth row lacks the first BOS, so that the model does not depend on
    it. Rows of like length share a batch of up to `tokens`; what pads them has
    the label -100, and it comes last, where nothing attends to it.
    """
    rng = random.Random(seed)
    bos = tok.bos_token_id
    rows: list[list[int]] = []
    for doc in tok.backend_tokenizer.encode_batch(texts, add_special_tokens=False):
        if rows and rng.random() < 0.2 and len(rows[-1]) < LENGTH:
            rows[-1] = (rows[-1] + doc.ids + [bos])[:LENGTH]
        else:
            rows.append(([bos] * (rng.random() < 0.75) + doc.ids + [bos])[:LENGTH])
    out = []
    for first in range(0, len(rows), 2000):
        part: list[list[list[int]]] = [[]]
        for row in sorted(rows[first:first + 2000], key=len):
            if part[-1] and (len(part[-1]) + 1) * len(row) > tokens:
                part.append([])
            part[-1].append(row)
        rng.shuffle(part)
        out += [pad(p, bos) for p in part]
    return out


def pad(rows: list[list[int]], fill: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows of ids as inputs and labels, padded on the right."""
    size = (len(rows), max(map(len, rows)))
    ids, labels = torch.full(size, fill), torch.full(size, -100)
    for i, row in enumerate(rows):
        ids[i, :len(row)] = labels[i, :len(row)] = torch.tensor(row)
    return ids, labels


def new_model(args: argparse.Namespace, tok: PreTrainedTokenizerFast) -> GPT2LMHeadModel:
    """An untrained model of the wanted shape."""
    config = GPT2Config(vocab_size=len(tok), n_positions=LENGTH, n_embd=args.width,
                        n_layer=args.layers, n_head=args.heads, resid_pdrop=0.0,
                        embd_pdrop=0.0, attn_pdrop=0.0, bos_token_id=tok.bos_token_id,
                        eos_token_id=tok.eos_token_id, loss_type="ForCausalLM")
    return GPT2LMHeadModel(config)


def optimizers(model: GPT2LMHeadModel, args: argparse.Namespace) -> list:
    """Muon for the matrices of the blocks, AdamW for all else."""
    named = list(model.named_parameters())
    inner = [p for n, p in named if p.dim() == 2 and ".h." in n]
    outer = [p for n, p in named if not (p.dim() == 2 and ".h." in n)]
    return [torch.optim.Muon(inner, lr=args.muon_rate, momentum=0.95, weight_decay=0.05),
            torch.optim.AdamW(outer, lr=args.rate, betas=(0.9, 0.98), weight_decay=0.0)]


def train(model: GPT2LMHeadModel, data: list, args: argparse.Namespace) -> float:
    """One pass over the batches. Returns the mean loss of the last 100 steps."""
    opts = optimizers(model, args)
    # Up for 30 steps, level, and down to nothing over the last 40 %.
    plans = [torch.optim.lr_scheduler.LambdaLR(opt, lambda i: min(
        1.0, (i + 1) / 30, (args.steps - i) / (0.4 * args.steps))) for opt in opts]
    losses: list[float] = []
    start = time.time()
    for step, (ids, labels) in enumerate(data[:args.steps], 1):
        loss = model(input_ids=ids, labels=labels).loss
        model.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for item in opts + plans:
            item.step()
        losses.append(loss.item())
        if step % 100 == 0:
            print(f"step {step}/{args.steps}  loss {sum(losses[-100:]) / 100:.4f}  "
                  f"{time.time() - start:.0f} s", flush=True)
    return sum(losses[-100:]) / len(losses[-100:])


@torch.no_grad()
def text_loss(model: torch.nn.Module, data: list) -> float:
    """Mean loss per token of batches that were not trained on."""
    total = count = 0.0
    for ids, labels in data:
        weight = (labels[:, 1:] != -100).sum().item()
        total += model(input_ids=ids, labels=labels).loss.item() * weight
        count += weight
    return total / count


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
    lines = ["| prompts | order | BOS | rows | tokens | accuracy | mean logit difference "
             "| least | answer is top token |", "|---|---|---|---|---|---|---|---|---|"]
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
endings; in part with invented words and noise), the rest stories, facts, sums, sequences,
lists, repeated words and speech. No other text was used.

The split was made before any text: {n_test} pairs of names, {o_test} objects and {t_test}
templates are kept for the test (`experiments/ioi.csv`). In the training text a test pair never
meets in one document, a test object never occurs, and no test template shares an opening, a
middle or an ending with a training template. Names and places are shared.

## Figures

Accuracy is the share of prompts where the indirect object has a higher logit than the
subject. The test split is `ioi.csv`; the eight classic prompts also use only test pairs,
test objects and test templates.

The test lists have stayed as they were before the first training, but the text was chosen with
a look at the test: a model trained on fewer templates and without invented words was misled by
unknown objects (56 % ABBA, 64 % BABA), so the training text was widened. Read the figures as
those of a development set.

{table}

Loss on 4,000 new documents of the training generator: {held:.3f} nats per token (training,
last 100 steps: {loss:.3f}).

## How it was made

    {command}

Seed {seed}; {steps} steps of up to {tokens} tokens, {used:.1f} million tokens in all, each seen
once. The first {drills:,} documents are mostly repeated words; invented words and noise come
in after {plain:,} documents, about step {plain_step}. Muon (rate {muon_rate}) for the matrices
of the blocks, AdamW (rate {rate}) for the rest. {minutes:.1f} minutes on {threads} threads
({machine}), with Python {python}, torch {torch}, transformers {transformers},
tokenizers {tokenizers}. The same command on the same machine with the same versions gives the
same weights; elsewhere rounding may differ.
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
        t_test=len(lists["templates"]["test"]), seed=args.seed, tokens=args.tokens,
        rate=args.rate, muon_rate=args.muon_rate, drills=args.drills, threads=args.threads,
        machine=platform.machine(),
        python=platform.python_version(), torch=torch.__version__,
        transformers=transformers.__version__, tokenizers=tokenizers.__version__, **facts)
    (directory / "README.md").write_text(text, encoding="utf-8")
    print(table)
    return good


def make(args: argparse.Namespace) -> bool:
    """Text, tokenizer, training, files, card."""
    start = time.time()
    torch.manual_seed(args.seed)
    lists = load_lists()
    names = lists["names"]["female"] + lists["names"]["male"]
    count = args.steps * args.tokens // 28 + 2000
    plain = int(args.plain * count)
    texts = documents(count, args.seed, args.drills, plain)
    assert not leaks(lists, texts), f"test items in the text: {leaks(lists, texts)[:3]}"
    tok = train_tokenizer(texts[::7], names, args.vocab)
    split = [n for n in names if len(tok(f" {n}")["input_ids"]) != 1]
    assert not split, f"names of several tokens: {split}"
    data = batches(tok, texts, args.tokens, args.seed)
    print(f"{len(texts)} documents, {len(data)} batches, vocabulary {len(tok)}, "
          f"{time.time() - start:.0f} s", flush=True)
    assert len(data) >= args.steps, "too little text for the steps"
    model = new_model(args, tok)
    loss = train(model, data, args)
    held = batches(tok, documents(4000, args.seed + 1000), args.tokens, args.seed)
    used = sum((labels != -100).sum().item() for _, labels in data[:args.steps])
    facts = {"params": model.num_parameters(), "loss": loss, "steps": args.steps,
             "plain": plain, "plain_step": round(int(len(data) * args.plain), -1),
             "held": text_loss(model.eval(), held), "used": used / 1e6,
             "minutes": (time.time() - start) / 60, "command": args.command}
    args.out.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(args.out)
    tok.save_pretrained(args.out)
    for file in args.out.iterdir():
        file.chmod(0o644)  # the safetensors writer leaves 0600
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
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--heads", type=int, default=4)
    parser.add_argument("--vocab", type=int, default=2048)
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--tokens", type=int, default=2048, help="tokens of a batch")
    parser.add_argument("--drills", type=int, default=12000,
                        help="documents at the start of which most are drills")
    parser.add_argument("--plain", type=float, default=0.6,
                        help="share of the documents before invented words and noise come in")
    parser.add_argument("--rate", type=float, default=3e-3, help="of AdamW")
    parser.add_argument("--muon-rate", type=float, default=0.02)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    changed = [f" --{k} {v}".replace("_", "-") for k, v in vars(args).items()
               if k not in ("out", "eval") and v != parser.get_default(k)]
    args.command = "python scripts/train_demo_model.py" + "".join(changed)
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
