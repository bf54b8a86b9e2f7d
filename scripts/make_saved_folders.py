"""Make tests/unit/data/saved: what transformers' save_pretrained writes for our families.

Run by two Pythons, one with transformers 4.56 and TransformerLens 2.16, one with
transformers 5 (both with torch; sentencepiece for the first step):

    python5 scripts/make_saved_folders.py            # saved/tf5/*, and the base tokenizers
    python4 scripts/make_saved_folders.py            # saved/tf4/*, then BOS for all

A folder is a tiny random model of a family with a tokenizer of a class, both saved by the
library itself, and `expected`, with what that library then reads from it:

    rules <class>         the class that AutoTokenizer gives
    bos <id>              TransformerLens's (-: it cannot be opened there), tokenizer.bos_token's
    ids <digest> …        FNV-1a of the ids of each string of strings.txt
    error <rms> <max>     its float32 logits beside its float64 ones, in units of their RMS
    columns <id> …        whose logits logits.f64 has, of every position of each prompt
    prompt <id> …         the prompts

and `refused`, what h5lens says where it does not read the tokenizer. --compare tells which
strings the version at hand reads otherwise in the other's folders, and writes nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers
from tokenizers import pre_tokenizers, processors
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.convert_slow_tokenizer import convert_slow_tokenizer

from make_tokenizer_fixture import digest, escape
from tokenizer_strings import EDGES, METASPACE, WORDS, mixes

V5 = transformers.__version__.startswith("5")
BASE = Path("tests/unit/data/tokenizer/gpt2/tokenizer.json")
N_TOKENS = 290   # of the byte-level vocabulary, <|endoftext|> and 256 bytes among them
N_STRINGS = 100
N_PROMPTS, N_COLUMNS = 8, 8  # as in the unit test
END = "<|endoftext|>"
CHAT = "{% for m in messages %}<|im_start|>{{ m.content }}<|im_end|>{% endfor %}"
SPECIALS = (END, "12345", "in 2024", "<|im_start|>", "<|im_end|>", "<tool>", " <tool>", "    ", "é", "e\u0301", "<s>", "▁")


def strings() -> list[str]:
    texts = [s for s in (*EDGES, *mixes(400, 3, SPECIALS + METASPACE, max_parts=6)) if "\0" not in s]
    return texts[:len(EDGES)] + texts[len(EDGES):len(EDGES) + N_STRINGS]


# --- tokenizers ------------------------------------------------------------------------------

def byte_level() -> tuple[dict[str, int], list[tuple[str, str]]]:
    """The first of a trained vocabulary, and some numbers, which not every class leaves whole."""
    model = json.loads(BASE.read_text(encoding="utf-8"))["model"]
    numbers = [("1", "2"), ("12", "3"), ("2", "0"), ("3", "4")]
    tokens = sorted(model["vocab"], key=model["vocab"].get)[:N_TOKENS - len(numbers)]
    merges = [tuple(m.split(" ")) for m in model["merges"]]
    merges = [m for m in merges if "".join(m) in tokens] + numbers
    return {t: i for i, t in enumerate(tokens + ["".join(m) for m in numbers])}, merges


def vocab_files(folder: Path) -> tuple[str, str]:
    """vocab.json and merges.txt, as GPT-2 and Qwen2 were published."""
    vocab, merges = byte_level()
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps(vocab), encoding="utf-8")
    (folder / "merges.txt").write_text(
        "#version: 0.2\n" + "".join(f"{a} {b}\n" for a, b in merges), encoding="utf-8")
    return str(folder / "vocab.json"), str(folder / "merges.txt")


def bare(pre_tokenizer: Any, normalizer: Any = None) -> Tokenizer:
    vocab, merges = byte_level()
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=merges))
    if normalizer:
        tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = pre_tokenizer
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def gpt2(scratch: Path, **more: Any) -> Any:
    if V5:
        vocab, merges = byte_level()
        return transformers.GPT2Tokenizer(vocab=vocab, merges=merges, **more)
    vocab, merges = vocab_files(scratch)
    return transformers.GPT2TokenizerFast(vocab, merges, **more)


def gpt2_slow(scratch: Path) -> Any:
    tokenizer = transformers.GPT2Tokenizer(*vocab_files(scratch))
    tokenizer.add_tokens(["<tool>"])
    return tokenizer


def qwen2(scratch: Path, slow: bool = False) -> Any:
    more = {"eos_token": "<|im_end|>", "pad_token": END, "chat_template": CHAT,
            "additional_special_tokens": ["<|im_start|>"]}
    if V5:
        vocab, merges = byte_level()
        tokenizer = transformers.Qwen2Tokenizer(vocab=vocab, merges=merges, **more)
    else:
        vocab, merges = vocab_files(scratch)
        kind = transformers.Qwen2Tokenizer if slow else transformers.Qwen2TokenizerFast
        tokenizer = kind(vocab, merges, **more)
    tokenizer.add_tokens([AddedToken("<tool>", normalized=False)])
    return tokenizer


def neox(scratch: Path) -> Any:
    """Pythia's: NFC, and white space as added tokens."""
    backend = bare(pre_tokenizers.ByteLevel(add_prefix_space=False), normalizers.NFC())
    backend.add_special_tokens([END])
    backend.add_tokens([AddedToken("    ", normalized=True)])
    backend.save(str(scratch / "tokenizer.json"))
    (scratch / "tokenizer_config.json").write_text(json.dumps(
        {"tokenizer_class": "GPTNeoXTokenizer", "bos_token": END, "eos_token": END, "unk_token": END,
         "add_prefix_space": False}), encoding="utf-8")
    return transformers.GPTNeoXTokenizerFast.from_pretrained(scratch)


def llama3(scratch: Path) -> Any:
    """Llama 3's: its own pattern, and a post-processor that adds BOS."""
    backend = bare(pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(r"\p{N}{1,3}|[^\p{N}]+"), "isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]))
    backend.add_special_tokens(["<|begin|>", "<|end|>"])
    backend.post_processor = processors.TemplateProcessing(
        single="<|begin|> $A", special_tokens=[("<|begin|>", backend.token_to_id("<|begin|>"))])
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token="<|begin|>", eos_token="<|end|>", chat_template=CHAT,
        clean_up_tokenization_spaces=True, model_input_names=["input_ids", "attention_mask"])


def smollm(scratch: Path) -> Any:
    """SmolLM2's: GPT2Tokenizer with digits one by one."""
    backend = bare(pre_tokenizers.Sequence([
        pre_tokenizers.Digits(individual_digits=True),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)]))
    backend.add_special_tokens([END, "<|im_start|>", "<|im_end|>"])
    backend.save(str(scratch / "tokenizer.json"))
    (scratch / "tokenizer_config.json").write_text(json.dumps(
        {"tokenizer_class": "GPT2Tokenizer", "bos_token": "<|im_start|>", "eos_token": "<|im_end|>",
         "unk_token": END, "add_prefix_space": False}), encoding="utf-8")
    (scratch / "config.json").write_text('{"model_type": "llama"}', encoding="utf-8")
    return AutoTokenizer.from_pretrained(scratch)


def spm(out: Path) -> Path:
    """A sentencepiece model of Llama's kind, made once."""
    path = out / "tokenizer.model"
    if not path.exists():
        import sentencepiece
        words = [w for w in WORDS if w.isascii()] + ["café", "東京", "1.5", "(see)", "'s", "<x>"]
        corpus = (" ".join(words[i % len(words):i % len(words) + 12]) for i in range(4000))
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=corpus, model_prefix=str(out / "tokenizer"), model_type="bpe",
            vocab_size=400, character_coverage=1.0, byte_fallback=True, split_digits=True,
            normalization_rule_name="identity", num_threads=1, minloglevel=2,
            remove_extra_whitespaces=False, allow_whitespace_only_pieces=True)
        (out / "tokenizer.vocab").unlink()
    return path


def llama(scratch: Path, slow: bool = False, legacy: bool = True) -> Any:
    """As Llama 2 was published: a tokenizer.json with a prefix, no add_prefix_space."""
    model = str(shutil.copy(spm(scratch.parent), scratch / "tokenizer.model"))
    if V5:  # legacy: true is not saved by 5.x: read again it would be another tokenizer
        return transformers.LlamaTokenizer.from_pretrained(str(scratch))
    tokenizer = transformers.LlamaTokenizer(model, legacy=legacy)
    if slow:
        return tokenizer
    convert_slow_tokenizer(tokenizer).save(str(scratch / "tokenizer.json"))
    (scratch / "tokenizer_config.json").write_text(json.dumps(
        {"tokenizer_class": "LlamaTokenizer", "legacy": legacy}), encoding="utf-8")
    return transformers.LlamaTokenizerFast.from_pretrained(scratch)


def llama_from_slow(scratch: Path) -> Any:
    """What the slow class saved, opened by the fast one: add_prefix_space is in the config."""
    llama(scratch, slow=True).save_pretrained(scratch)
    return transformers.LlamaTokenizerFast.from_pretrained(scratch)


# --- folders ---------------------------------------------------------------------------------

def gpt2_model(**more: Any) -> Any:
    return transformers.GPT2Config(n_embd=16, n_layer=2, n_head=2, n_inner=16, n_positions=32, **more)


def neo_model(**more: Any) -> Any:
    return transformers.GPTNeoConfig(hidden_size=16, num_layers=2, num_heads=2, intermediate_size=16,
                                     attention_types=[[["global", "local"], 1]], window_size=4,
                                     max_position_embeddings=32, **more)


def neox_model(**more: Any) -> Any:
    return transformers.GPTNeoXConfig(hidden_size=16, num_hidden_layers=2, num_attention_heads=2,
                                      intermediate_size=16, max_position_embeddings=32, **more)


def llama_model(kind: str, **more: Any) -> Any:
    return getattr(transformers, f"{kind}Config")(
        hidden_size=16, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
        intermediate_size=16, max_position_embeddings=32, **more)


ROPE3 = {"rope_type": "llama3", "factor": 4.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
         "original_max_position_embeddings": 16}


def rope(theta: float, **more: Any) -> dict[str, Any]:
    """A theta that is not the default, as each version says it."""
    if V5:
        return {"rope_parameters": {"rope_type": "default", "rope_theta": theta, **more}}
    return {"rope_theta": theta} | ({"rope_scaling": more} if more else {})


Maker = tuple[Callable[..., Any], Callable[..., Any], dict[str, Any]]  # config, tokenizer, config's keys
FOLDERS: dict[str, Maker] = {
    "gpt2": (gpt2_model, gpt2, {}),
    "gpt2-prefix": (gpt2_model, lambda s: gpt2(s, add_prefix_space=True), {"tie_word_embeddings": False}),
    "gpt_neo": (neo_model, gpt2, {}),
    "gpt_neox": (neox_model, neox, {}),
    "llama": (lambda **k: llama_model("Llama", **k), llama, rope(5000.0)),
    "llama-new": (lambda **k: llama_model("Llama", **k), lambda s: llama(s, legacy=False),
                  {"head_dim": 8, "attention_bias": True}),
    "llama3": (lambda **k: llama_model("Llama", **k), llama3, rope(10000.0, **ROPE3)),
    "smollm": (lambda **k: llama_model("Llama", **k), smollm, {"tie_word_embeddings": True}),
    "mistral": (lambda **k: llama_model("Mistral", **k), lambda s: llama(s, legacy=False),
                {"sliding_window": 5}),
    "qwen2": (lambda **k: llama_model("Qwen2", **k), qwen2, rope(1e6)),
    "qwen2-sliding": (lambda **k: llama_model("Qwen2", **k), qwen2,
                      {"use_sliding_window": True, "sliding_window": 4, "max_window_layers": 1}),
}
if not V5:
    FOLDERS |= {
        "gpt2-slow": (gpt2_model, gpt2_slow, {}),
        "qwen2-slow": (lambda **k: llama_model("Qwen2", **k), lambda s: qwen2(s, slow=True), {}),
        "llama-from-slow": (lambda **k: llama_model("Llama", **k), llama_from_slow, {}),
        "llama-slow": (lambda **k: llama_model("Llama", **k), lambda s: llama(s, slow=True), {}),
    }


def make_model(config: Any, seed: int) -> Any:
    torch.manual_seed(seed + 100 * V5)
    config._attn_implementation = "eager"
    model = AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        for name, p in model.named_parameters():
            # well conditioned: no position's residual stream is far smaller than another's
            p.copy_(torch.randn(p.shape) * (0.8 if "embed" in name or "wte" in name else 0.2))
            if p.dim() == 1 and name.endswith("weight"):
                p.add_(1.0)
    return model.half()


def save(out: Path, name: str, seed: int) -> None:
    make_config, make_tokenizer, keys = FOLDERS[name]
    scratch, folder = out / "scratch", out / ("tf5" if V5 else "tf4") / name
    shutil.rmtree(folder, ignore_errors=True)
    shutil.rmtree(scratch / "x", ignore_errors=True)
    (scratch / "x").mkdir(parents=True)
    tokenizer = make_tokenizer(scratch / "x")
    special = {k: getattr(tokenizer, k) for k in ("bos_token_id", "eos_token_id")}
    config = make_config(vocab_size=len(tokenizer) + 3, **keys, **special)
    make_model(config, seed).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def logits(folder: Path, dtype: torch.dtype, prompts: list[list[int]]) -> np.ndarray:
    model = AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager").to(dtype).eval()
    with torch.no_grad():
        return np.concatenate([model(torch.tensor([p])).logits[0].double().numpy() for p in prompts])


def expect(folder: Path, texts: list[str]) -> None:
    """What this version reads from the folder that it saved."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    ids = [tokenizer(t, add_special_tokens=False)["input_ids"] for t in texts]
    prompts = [i[:20] for i in ids if len(i) >= 8][:N_PROMPTS]
    truth, single = (logits(folder, d, prompts) for d in (torch.float64, torch.float32))
    columns = np.arange(N_COLUMNS) * (truth.shape[1] // N_COLUMNS)
    truth, single = truth[:, columns], single[:, columns]
    error = (single - truth) / np.sqrt(np.mean(truth**2))
    if not any((folder / f).exists() for f in ("tokenizer.json", "vocab.json")):
        # what h5lens says
        (folder / "refused").write_text("tokenizer.model without a tokenizer.json", encoding="utf-8")
    lines = [f"rules {type(tokenizer).__name__}",
             f"bos - {-1 if tokenizer.bos_token is None else tokenizer.bos_token_id}",
             f"ids {' '.join(digest(i) for i in ids)}",
             f"error {np.sqrt(np.mean(error**2)):.3e} {np.abs(error).max():.3e}"]
    lines += [f"columns {' '.join(map(str, columns))}"]
    lines += [f"prompt {' '.join(map(str, p))}" for p in prompts]
    (folder / "expected").write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    truth.astype("<f8").tofile(folder / "logits.f64")


def lens_bos(folder: Path) -> str:
    """The id that TransformerLens puts in front, in its own words."""
    from transformer_lens import HookedTransformer, HookedTransformerConfig
    config = HookedTransformerConfig(n_layers=1, d_model=4, n_ctx=64, d_head=2, d_vocab=1000, act_fn="relu")
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, add_bos_token=True)
        model = HookedTransformer(config, tokenizer=tokenizer)
        return str(int(model.to_tokens("a", prepend_bos=True)[0, 0]))
    except Exception as e:  # noqa: BLE001 - whatever stops it, there is no answer
        print(f"{folder}: TransformerLens: {type(e).__name__}: {str(e)[:100]}")
        return "-"


def complete(folder: Path, texts: list[str]) -> None:
    """TransformerLens's BOS, and where this version reads another's folder otherwise."""
    lines = (folder / "expected").read_text(encoding="utf-8").splitlines()
    words = lines[1].split()
    lines[1] = f"bos {lens_bos(folder)} {words[2]}"
    (folder / "expected").write_text("".join(line + "\n" for line in lines), encoding="utf-8")


def compare(folder: Path, texts: list[str]) -> None:
    """The other version's folder, as this one reads it."""
    want = (folder / "expected").read_text(encoding="utf-8").splitlines()[2].split()[1:]
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder)
        got = [digest(tokenizer(t, add_special_tokens=False)["input_ids"]) for t in texts]
        bad = sum(g != w for g, w in zip(got, want))
        print(f"{folder}: {type(tokenizer).__name__}: {bad} of {len(texts)} strings get other ids")
    except Exception as e:  # noqa: BLE001
        print(f"{folder}: {type(e).__name__}: {str(e)[:120]}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--out", type=Path, default=Path("tests/unit/data/saved"))
    parser.add_argument("--compare", action="store_true",
                        help="make nothing; tell where this version reads the other's folders otherwise")
    args = parser.parse_args()
    os.environ["HF_HUB_OFFLINE"] = "1"
    transformers.logging.set_verbosity_error()
    texts = strings()
    if args.compare:
        for folder in sorted((args.out / ("tf4" if V5 else "tf5")).iterdir()):
            compare(folder, texts)
        return
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "strings.txt").write_text("".join(escape(t) + "\n" for t in texts), encoding="utf-8",
                                          newline="")
    for seed, name in enumerate(FOLDERS):
        save(args.out, name, seed)
        expect(args.out / ("tf5" if V5 else "tf4") / name, texts)
    if not V5:
        for folder in sorted(args.out.glob("tf?/*")):
            complete(folder, texts)
        shutil.rmtree(args.out / "scratch")


if __name__ == "__main__":
    main()
