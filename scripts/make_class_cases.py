"""Make tests/unit/data/classes: what tokenizer_config.json and config.json change in a tokenizer.

Small tokenizers (bases/*.json) beside every combination of class, add_prefix_space, special
tokens and the like that matters; for each, what transformers 4.56 reads from that folder and
which id TransformerLens 2.16 puts first. cases.json has the combinations that transformers
opens; the unit test makes the folders anew. Needs transformers 4.56 and TransformerLens 2.16.

    python scripts/make_class_cases.py
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import transformers
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import AutoTokenizer

from make_saved_folders import END, byte_level
from make_tokenizer_fixture import digest

TEXTS = ["the cat's  12\n\n3", " the", END + " a " + END + "b", "<s>x</s> <unk>y", "e\u0301 \u00e9", "<|im_end|>a",
         "A<t>b <t> c", "▁a", "I'LL don't", "a\r\nb", "\u00a0x"]
CHARACTERS = " abcehtx▁123"


def backend(model: models.BPE, pre: Any, normalizer: Any = None, post: Any = None,
            added: tuple[str, ...] = ()) -> Tokenizer:
    tokenizer = Tokenizer(model)
    if normalizer:
        tokenizer.normalizer = normalizer
    if pre:
        tokenizer.pre_tokenizer = pre
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(a, normalized=False) for a in added])
    if post:
        tokenizer.post_processor = post(tokenizer)
    return tokenizer


def bytes_model() -> models.BPE:
    vocab, merges = byte_level()
    return models.BPE(vocab=vocab, merges=merges)


def character_model() -> models.BPE:
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{b:02X}>" for b in range(256)), *CHARACTERS]
    return models.BPE(vocab={t: i for i, t in enumerate(tokens)}, merges=[], unk_token="<unk>",
                      byte_fallback=True, fuse_unk=True)


def first(name: str) -> Any:
    return lambda t: processors.TemplateProcessing(single=f"{name} $A", special_tokens=[(name, t.token_to_id(name))])


def bases() -> dict[str, Tokenizer]:
    level, sp = pre_tokenizers.ByteLevel, ("<unk>", "<s>", "</s>")
    return {
        "bytes": backend(bytes_model(), level(add_prefix_space=False), added=(END,)),
        "bytes-prefix": backend(bytes_model(), level(add_prefix_space=True), added=(END,)),
        "bytes-sequence": backend(bytes_model(), pre_tokenizers.Sequence(
            [pre_tokenizers.Digits(individual_digits=True), level(add_prefix_space=False)]), normalizers.NFC(),
            added=(END, "<|im_end|>")),
        "bytes-first": backend(bytes_model(), level(add_prefix_space=False), post=first("<|im_end|>"),
                               added=(END, "<|im_end|>")),
        "prepend": backend(character_model(), None, normalizers.Sequence(
            [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]), post=first("<s>"), added=sp),
        "metaspace": backend(character_model(), pre_tokenizers.Metaspace(prepend_scheme="first", split=False), added=sp),
    }


Folder = dict[str, Any]  # base, and the texts of files


def combinations() -> Iterator[Folder]:
    classes = [None, "GPT2Tokenizer", "GPT2TokenizerFast", "GPTNeoXTokenizer", "Qwen2Tokenizer", "LlamaTokenizer",
               "PreTrainedTokenizerFast", "CodeGenTokenizer", "BloomTokenizerFast", "CohereTokenizerFast",
               "GemmaTokenizer", "CodeLlamaTokenizer"]
    for base in ("bytes", "bytes-prefix", "bytes-sequence", "bytes-first", "prepend", "metaspace"):
        for name in classes:
            for space in ("absent", None, False, True):
                config = {} if name is None else {"tokenizer_class": name}
                if space != "absent":
                    config["add_prefix_space"] = space
                yield {"base": base, "config": {"model_type": "gpt2"}, "tokenizer_config": config}
    for kind in ("gpt2", "gpt_neo", "gpt_neox", "llama", "mistral", "qwen2"):
        for base in ("bytes-sequence", "prepend"):
            yield {"base": base, "config": {"model_type": kind}}
            yield {"base": base, "config": {"model_type": kind, "tokenizer_class": "PreTrainedTokenizerFast"}}
    # special tokens: by file, by class, by nothing
    for name in ("GPT2Tokenizer", "Qwen2Tokenizer", "PreTrainedTokenizerFast", "LlamaTokenizer", "GPTNeoXTokenizer"):
        for base in ("bytes-sequence", "bytes-first", "prepend"):
            end = "</s>" if base == "prepend" else "<|im_end|>"
            for config in ({"bos_token": None}, {"bos_token": None, "eos_token": end}, {"eos_token": end},
                           {"bos_token": end}, {"bos_token": {"content": end, "lstrip": False, "rstrip": False,
                                                              "normalized": False, "single_word": False,
                                                              "__type": "AddedToken"}},
                           {"bos_token": end, "add_bos_token": True}, {"bos_token": end, "add_bos_token": False}):
                yield {"base": base, "config": {"model_type": "gpt2"},
                       "tokenizer_config": {"tokenizer_class": name, **config}}
    # added tokens: others' flags, new ones, of the vocabulary, by lists
    flags = {"lstrip": False, "rstrip": False, "single_word": False, "normalized": False, "special": True}
    end, new = {"content": END, **flags}, {"content": "<t>", **flags}
    for decoder in ({"0": {**end, "lstrip": True}}, {"0": {**end, "normalized": True}}, {"0": end, "290": new},
                    {"263": {"content": "th", **flags}},
                    {"0": end, "290": {"content": "<|im_end|>", **flags}}):
        for base in ("bytes", "bytes-sequence")[:1 if new in decoder.values() else 2]:
            yield {"base": base, "config": {"model_type": "gpt2"},
                   "tokenizer_config": {"tokenizer_class": "GPT2Tokenizer", "added_tokens_decoder": decoder}}
    for more in ({"unk_token": "th"}, {"pad_token": "<t>", "sep_token": "<s>"}, {"additional_special_tokens": ["<t>", "an"]},
                 {"extra_special_tokens": {"image_token": "<t>"}}, {"mask_token": "<unk>", "cls_token": "<t>"},
                 {"unk_token": {"content": "th", "__type": "AddedToken", **flags, "lstrip": True, "normalized": True}}):
        for base in ("bytes", "bytes-sequence"):
            yield {"base": base, "config": {"model_type": "qwen2"},
                   "tokenizer_config": {"tokenizer_class": "PreTrainedTokenizerFast", **more}}
            yield {"base": base, "config": {"model_type": "qwen2"}, "tokenizer_config": {"eos_token": END},
                   "special_tokens_map": {k: v for k, v in more.items() if k != "extra_special_tokens"}}
    # special_tokens_map.json, before and after added_tokens_decoder
    for decoder in ({}, {"added_tokens_decoder": {}}):
        yield {"base": "bytes-sequence", "config": {"model_type": "gpt2"},
               "tokenizer_config": {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": END, **decoder},
               "special_tokens_map": {"bos_token": "<|im_end|>", "eos_token": END}}


def write(folder: Path, case: Folder, tokenizers: dict[str, Tokenizer]) -> None:
    tokenizers[case["base"]].save(str(folder / "tokenizer.json"), pretty=False)
    for name in ("config", "tokenizer_config", "special_tokens_map"):
        if name in case:
            (folder / f"{name}.json").write_text(json.dumps(case[name]), encoding="utf-8")


def lens_bos(folder: Path) -> int | None:
    """What TransformerLens's to_tokens puts first."""
    from transformer_lens import HookedTransformer, HookedTransformerConfig
    config = HookedTransformerConfig(n_layers=1, d_model=2, n_ctx=64, d_head=2, d_vocab=1000, act_fn="relu")
    model = HookedTransformer(config, tokenizer=AutoTokenizer.from_pretrained(folder, add_bos_token=True))
    return int(model.to_tokens("a", prepend_bos=True)[0, 0])


def expected(case: Folder, tokenizers: dict[str, Tokenizer]) -> Folder | None:
    """The case with what was read; None where transformers does not open it."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write(folder, case, tokenizers)
        try:
            tokenizer = AutoTokenizer.from_pretrained(folder)
        except Exception:  # noqa: BLE001 - of many kinds
            return None
        case["ids"] = [digest(tokenizer(t, add_special_tokens=False)["input_ids"]) for t in TEXTS]
        bos = tokenizer.bos_token
        case["hf_bos"] = -1 if bos is None else tokenizer.convert_tokens_to_ids(bos)
        try:
            case["lens_bos"] = lens_bos(folder)
        except Exception:  # noqa: BLE001
            case["lens_bos"] = -1
        case["known"] = tokenizers[case["base"]].get_vocab_size()
    return case


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--out", type=Path, default=Path("tests/unit/data/classes"))
    args = parser.parse_args()
    os.environ["HF_HUB_OFFLINE"] = "1"
    transformers.logging.set_verbosity(transformers.logging.CRITICAL)
    args.out.mkdir(parents=True, exist_ok=True)
    tokenizers = bases()
    for name, tokenizer in tokenizers.items():
        tokenizer.save(str(args.out / f"{name}.json"), pretty=False)
    cases = [c for c in (expected(c, tokenizers) for c in combinations()) if c]
    lines = ",\n".join(json.dumps(c, ensure_ascii=False) for c in cases)
    (args.out / "cases.json").write_text(
        f'{{"texts": {json.dumps(TEXTS, ensure_ascii=False)},\n"cases": [\n{lines}\n]}}\n', encoding="utf-8")
    print(f"{len(cases)} cases")


if __name__ == "__main__":
    main()
