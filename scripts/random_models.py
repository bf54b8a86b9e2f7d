#!/usr/bin/env python3
"""Random models of known models' shapes, where the real weights can't be had.

    random_models.py NAME DIR --tokenizer tokenizer.json[.gz]    one of SHAPES, with that tokenizer
    random_models.py NAME DIR --small                            of the same family, layers and heads, a few MB

In: a name of SHAPES; the seed (1, unless --seed says another). Out: an ordinary Hugging Face directory. The same seed
gives the same bytes everywhere (golden_models.py). A small one has a tokenizer of its own, in which the words of
experiments/*/prompts.csv that must be single tokens are. Needs NumPy only.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

import golden_models

SHAPES: dict[str, dict] = {
    "gpt2-small": {
        "architectures": ["GPT2LMHeadModel"], "model_type": "gpt2",
        "activation_function": "gelu_new", "n_layer": 12, "n_embd": 768, "n_head": 12,
        "n_positions": 1024, "n_ctx": 1024, "vocab_size": 50257, "layer_norm_epsilon": 1e-5},
    "tiny-stories-1M": {
        "architectures": ["GPTNeoForCausalLM"], "model_type": "gpt_neo",
        "activation_function": "gelu_new", "attention_types": [[["global", "local"], 4]],
        "attention_layers": ["global", "local"] * 4, "num_layers": 8, "hidden_size": 64,
        "num_heads": 16, "intermediate_size": None, "window_size": 256,
        "max_position_embeddings": 2048, "vocab_size": 50257, "layer_norm_epsilon": 1e-5},
    "pythia-70m": {
        "architectures": ["GPTNeoXForCausalLM"], "model_type": "gpt_neox",
        "hidden_act": "gelu", "num_hidden_layers": 6, "hidden_size": 512,
        "num_attention_heads": 8, "intermediate_size": 2048, "rotary_pct": 0.25,
        "rotary_emb_base": 10000, "use_parallel_residual": True,
        "max_position_embeddings": 2048, "vocab_size": 50304, "layer_norm_eps": 1e-5,
        "tie_word_embeddings": False},
    "smollm2-135m": {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu",
        "num_hidden_layers": 30, "hidden_size": 576, "num_attention_heads": 9,
        "num_key_value_heads": 3, "intermediate_size": 1536, "rope_theta": 100000,
        "rope_scaling": None, "attention_bias": False, "max_position_embeddings": 8192,
        "vocab_size": 49152, "rms_norm_eps": 1e-5, "tie_word_embeddings": True},
}
SHAPES |= {"gpt2": SHAPES["gpt2-small"], "pythia-70m-deduped": SHAPES["pythia-70m"]}

# What makes a shape small: narrow, and a context that holds the longest text of the experiments, byte by byte.
SMALL: dict[str, dict] = {
    "gpt2": {"n_embd": 48, "n_positions": 256, "n_ctx": 256},
    "gpt_neo": {"max_position_embeddings": 256},
    "gpt_neox": {"hidden_size": 64, "intermediate_size": 256, "max_position_embeddings": 256}}
WORDS = (" the", " to", " of", " is", " Ireland", " ground", " road", " Mary", " John", " Tom", " James", " Dan", " Sid",
         " Martin", " Amy", " Qu", "Two", " tokens")
CLASSES = {"gpt_neox": "GPTNeoXTokenizer"}


def write_folder(out: str | os.PathLike[str], config: dict, tokenizer: dict, seed: int, bos: str) -> None:
    """The four files. tokenizer: what is in tokenizer.json."""
    ids = {**tokenizer["model"]["vocab"], **{t["content"]: t["id"] for t in tokenizer.get("added_tokens", [])}}
    if bos not in ids or max(ids.values()) >= config["vocab_size"]:
        sys.exit(f"tokenizer: {max(ids.values()) + 1} tokens for {config['vocab_size']} embeddings, {bos}: id {ids.get(bos)}")
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    config = {**config, "bos_token_id": ids[bos], "eos_token_id": ids[bos], "torch_dtype": "float32"}
    golden_models.write_json(str(out / "config.json"), config)
    golden_models.write_json(str(out / "tokenizer.json"), tokenizer)
    golden_models.write_json(str(out / "tokenizer_config.json"), {
        "tokenizer_class": CLASSES.get(config["model_type"], "GPT2Tokenizer"), "bos_token": bos, "eos_token": bos,
        "unk_token": bos, "add_prefix_space": False})
    golden_models.write_safetensors(str(out / "model.safetensors"), golden_models.make_weights(config, seed), "F32")


def write_random(name: str, out: str | os.PathLike[str], tokenizer: str, seed: int = 1, bos: str = golden_models.BOS) -> None:
    """A model of the real shape, with a tokenizer.json (or .gz) from elsewhere."""
    opener: Callable = gzip.open if tokenizer.endswith(".gz") else open
    with opener(tokenizer, "rt", encoding="utf-8") as f:
        write_folder(out, SHAPES[name], json.load(f), seed, bos)


def write_small(name: str, out: str | os.PathLike[str], seed: int = 1) -> None:
    tokenizer = golden_models.tokenizer_json(True, WORDS)
    shape = SHAPES[name]
    size = {"vocab_size": len(tokenizer["model"]["vocab"])}
    write_folder(out, {**shape, **SMALL[shape["model_type"]], **size}, tokenizer, seed, golden_models.BOS)


def main() -> int:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("name", choices=SHAPES)
    p.add_argument("dir", type=Path)
    how = p.add_mutually_exclusive_group(required=True)
    how.add_argument("--tokenizer", help="tokenizer.json, or .gz")
    how.add_argument("--small", action="store_true")
    p.add_argument("--seed", type=int, default=1)
    args = p.parse_args()
    if args.small and SHAPES[args.name]["model_type"] not in SMALL:
        p.error(f"--small: there is none of {args.name}")
    if args.small:
        write_small(args.name, args.dir, args.seed)
    else:
        write_random(args.name, args.dir, args.tokenizer, args.seed)
    return 0


if __name__ == "__main__":
    sys.exit(main())
