#!/usr/bin/env python3
"""Random models of known models' shapes, where the real weights can't be had.

    random_models.py NAME DIR --tokenizer tokenizer.json[.gz]    one of SHAPES, with that tokenizer
    random_models.py NAME DIR --small                            of the same family, layers and heads, a few MB
    random_models.py NAME DIR --ids                              one of Llama's kin without a tokenizer, in bfloat16

In: a name of SHAPES; the seed (1, unless --seed says another). Out: an ordinary Hugging Face directory. The same seed
gives the same bytes everywhere (golden_models.py). A small one has a tokenizer of its own, in which the words of
experiments/*/prompts.csv that must be single tokens are. With --ids a tensor is written as it is drawn, so that memory
is for some rows only; prompts are then token ids (data.tokens). Needs NumPy only.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

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
    "qwen3-0.6b": {
        "architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3", "hidden_act": "silu",
        "num_hidden_layers": 28, "hidden_size": 1024, "num_attention_heads": 16,
        "num_key_value_heads": 8, "head_dim": 128, "intermediate_size": 3072,
        "rope_theta": 1000000, "attention_bias": False, "max_position_embeddings": 40960,
        "vocab_size": 151936, "rms_norm_eps": 1e-6, "tie_word_embeddings": True},
    "gemma-2-2b": {
        "architectures": ["Gemma2ForCausalLM"], "model_type": "gemma2",
        "hidden_activation": "gelu_pytorch_tanh", "num_hidden_layers": 26, "hidden_size": 2304,
        "num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 256,
        "intermediate_size": 9216, "query_pre_attn_scalar": 256, "sliding_window": 4096,
        "attn_logit_softcapping": 50.0, "final_logit_softcapping": 30.0,
        "rope_theta": 10000.0, "max_position_embeddings": 8192, "vocab_size": 256000,
        "rms_norm_eps": 1e-6, "tie_word_embeddings": True},
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


@dataclass
class Drawn:
    """A tensor that is still to be drawn."""

    rng: np.random.Generator
    shape: tuple[int, ...]
    std: float
    mean: float


class Streamed(dict):
    """Takes tensors' draws, and writes each as bfloat16, some rows at a time; nothing is kept."""

    HEADER, MOST = 1 << 20, 1 << 24  # bytes, padded with spaces; elements at once

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.file, self.header = open(path, "wb"), {"__metadata__": {"format": "pt"}}
        self.file.seek(8 + self.HEADER)

    def __setitem__(self, name: str, draw: Drawn) -> None:
        begin = self.file.tell() - 8 - self.HEADER
        step = max(1, self.MOST * draw.shape[0] // int(np.prod(draw.shape)))
        for i in range(0, draw.shape[0], step):
            rows = draw.rng.standard_normal((min(step, draw.shape[0] - i), *draw.shape[1:]), np.float32)
            rows = np.float32(draw.mean) + np.float32(draw.std) * rows
            self.file.write(golden_models.narrow(rows, "BF16").tobytes())
        end = self.file.tell() - 8 - self.HEADER
        self.header[name] = {"dtype": "BF16", "shape": list(draw.shape), "data_offsets": [begin, end]}

    def close(self) -> None:
        self.file.seek(0)
        text = json.dumps(self.header, separators=(",", ":")).encode()
        self.file.write(self.HEADER.to_bytes(8, "little") + text + b" " * (self.HEADER - len(text)))
        self.file.close()


def write_ids(name: str, out: Path, seed: int = 1) -> None:
    """In bfloat16, without a tokenizer; what is drawn is not what Maker draws of the same seed."""
    out.mkdir(parents=True, exist_ok=True)

    class Maker(golden_models.Maker):
        def __init__(self, seed: int, d_model: int) -> None:
            super().__init__(seed, d_model)
            self.fast, self.w = np.random.Generator(np.random.SFC64(seed)), Streamed(out / "model.safetensors")

        def normal(self, std: float, *shape: int, mean: float = 0.0) -> Drawn:
            return Drawn(self.fast, shape, std, mean)

    golden_models.llama_weights(SHAPES[name], seed, Maker).close()
    golden_models.write_json(str(out / "config.json"), {**SHAPES[name], "torch_dtype": "bfloat16"})


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
    how.add_argument("--ids", action="store_true")
    p.add_argument("--seed", type=int, default=1)
    args = p.parse_args()
    if args.small and SHAPES[args.name]["model_type"] not in SMALL:
        p.error(f"--small: there is none of {args.name}")
    if args.ids and golden_models.WEIGHTS[SHAPES[args.name]["model_type"]] is not golden_models.llama_weights:
        p.error(f"--ids: not of {args.name}")
    if args.ids:
        write_ids(args.name, args.dir, args.seed)
    elif args.small:
        write_small(args.name, args.dir, args.seed)
    else:
        write_random(args.name, args.dir, args.tokenizer, args.seed)
    return 0


if __name__ == "__main__":
    sys.exit(main())
