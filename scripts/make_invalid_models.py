#!/usr/bin/env python3
"""Writes the model directories that h5lens must refuse, tests/invalid/model/.

Each case is a tiny GPT-2 (one layer, width 4) with one thing wrong, and
expected-error: lines that the error must contain. What is too large to keep
(a header of gigabytes, deep nesting) is made by tests/unit/test_model.c itself.
Only the standard library is used, so that anybody can run it again; the output
does not change from run to run.
"""

import argparse
import copy
import json
import math
import random
import shutil
import struct
from pathlib import Path
from typing import Any, Callable

import torch_files
from invalid_hooked import hooked_cases, write_hooked
from invalid_torch import torch_cases

Tensor = dict[str, Any]  # dtype, shape, data, and offsets where they are not the true ones

CONFIG: dict[str, Any] = {
    "architectures": ["GPT2LMHeadModel"],
    "model_type": "gpt2",
    "n_layer": 1,
    "n_embd": 4,
    "n_head": 2,
    "n_positions": 4,
    "n_inner": 8,
    "vocab_size": 6,
    "activation_function": "gelu_new",
    "layer_norm_epsilon": 1e-05,
}

SHAPES: dict[str, list[int]] = {
    "wte.weight": [6, 4],
    "wpe.weight": [4, 4],
    "h.0.ln_1.weight": [4],
    "h.0.ln_1.bias": [4],
    "h.0.attn.c_attn.weight": [4, 12],
    "h.0.attn.c_attn.bias": [12],
    "h.0.attn.c_proj.weight": [4, 4],
    "h.0.attn.c_proj.bias": [4],
    "h.0.ln_2.weight": [4],
    "h.0.ln_2.bias": [4],
    "h.0.mlp.c_fc.weight": [4, 8],
    "h.0.mlp.c_fc.bias": [8],
    "h.0.mlp.c_proj.weight": [8, 4],
    "h.0.mlp.c_proj.bias": [4],
    "ln_f.weight": [4],
    "ln_f.bias": [4],
}
P = "transformer."


def floats(values: list[float]) -> bytes:
    return struct.pack(f"<{len(values)}f", *values)


class Model:
    """A directory in the making."""

    def __init__(self) -> None:
        rng = random.Random(7)
        self.config: Any = copy.deepcopy(CONFIG)
        self.config_text: str | None = None  # instead of config
        self.files: dict[str, dict[str, Tensor]] = {"model.safetensors": {}}
        self.raw: dict[str, bytes] = {}  # files as they are; b"" under None removes
        self.header: Callable[[dict[str, Any]], Any] = lambda h: h
        self.length: Callable[[int], int] = lambda n: n
        self.cut = 0  # bytes missing at the end
        self.index: Any = None
        for name, shape in SHAPES.items():
            n = 1
            for s in shape:
                n *= s
            self.tensors[P + name] = {
                "dtype": "F32",
                "shape": shape,
                "data": floats([rng.uniform(-1, 1) for _ in range(n)]),
            }

    @property
    def tensors(self) -> dict[str, Tensor]:
        return self.files["model.safetensors"]

    def shard(self) -> None:
        """Two files and their index."""
        all_tensors = self.files.pop("model.safetensors")
        a, b = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"
        self.files = {a: {}, b: {}}
        for i, (name, t) in enumerate(all_tensors.items()):
            self.files[a if i < 8 else b][name] = t
        where = {name: f for f, ts in self.files.items() for name in ts}
        self.index = {"metadata": {"total_size": 0}, "weight_map": where}

    def file_bytes(self, tensors: dict[str, Tensor]) -> bytes:
        header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
        data = b""
        for name, t in tensors.items():
            header[name] = {
                "dtype": t["dtype"],
                "shape": t["shape"],
                "data_offsets": t.get("offsets", [len(data), len(data) + len(t["data"])]),
            }
            data += t["data"]
        edited = self.header(header)
        text = (edited if isinstance(edited, str) else json.dumps(edited)).encode()
        blob = struct.pack("<Q", self.length(len(text))) + text + data
        return blob[: len(blob) - self.cut]

    def write(self, path: Path) -> None:
        path.mkdir(parents=True)
        text = self.config_text or json.dumps(self.config, indent=1) + "\n"
        if self.config is not None:
            (path / "config.json").write_text(text)
        for name, tensors in self.files.items():
            (path / name).write_bytes(self.file_bytes(tensors))
        for name, blob in self.raw.items():
            (path / name).parent.mkdir(parents=True, exist_ok=True)
            (path / name).write_bytes(blob)
        if self.index is not None:
            (path / "model.safetensors.index.json").write_text(json.dumps(self.index, indent=1))


CASES: list[tuple[str, Callable[[Model], Any], list[str]]] = []
W = "model.safetensors"
LN = P + "h.0.ln_1.weight"
FC = P + "h.0.mlp.c_fc.weight"


def case(name: str, *expected: str) -> Callable[[Callable[[Model], Any]], None]:
    """Registers a case: its folder, what the error must contain, what is wrong."""

    def register(change: Callable[[Model], Any]) -> None:
        CASES.append((name, change, list(expected)))

    return register


def tensor_case(name: str, tensor: str, says: str, change: Callable[[Tensor], Any]) -> None:
    case(name, f"{name}/{W}", f'tensor "{tensor}"', says)(lambda m: change(m.tensors[tensor]))


def config_case(name: str, says: str, **change: Any) -> None:
    case(name, f"{name}/config.json", says)(lambda m: m.config.update(change))


def number(index: int, value: float) -> Callable[[Tensor], None]:
    def change(t: Tensor) -> None:
        t["data"] = t["data"][: 4 * index] + floats([value]) + t["data"][4 * index + 4 :]

    return change


def tensor_cases() -> None:
    case("tensor-missing", W, f'tensor "{FC}" is missing')(lambda m: m.tensors.pop(FC))
    case("tensor-missing-embedding", W, "wte.weight", "is missing")(
        lambda m: m.tensors.pop(P + "wte.weight")
    )
    case("tensor-unknown", W, 'tensor "transformer.h.0.attn.rotary" is unknown')(
        lambda m: m.tensors.update(
            {P + "h.0.attn.rotary": {"dtype": "F32", "shape": [1], "data": floats([1])}}
        )
    )
    case("tensor-layer-too-many", W, 'tensor "transformer.h.1.ln_1.weight" is unknown')(
        lambda m: m.tensors.update({P + "h.1.ln_1.weight": copy.deepcopy(m.tensors[LN])})
    )
    case("head-untied-missing", W, 'tensor "lm_head.weight" is missing', "tied_head: tied")(
        lambda m: m.config.update(tie_word_embeddings=False)
    )
    tensor_case("tensor-transposed", FC, "has shape [8, 4]; config.json implies [4, 8]",
                lambda t: t.update(shape=[8, 4]))
    tensor_case("tensor-rank", LN, "has shape [4, 1]; config.json implies [4]",
                lambda t: t.update(shape=[4, 1]))
    tensor_case("tensor-scalar", LN, "has shape []",
                lambda t: t.update(shape=[], data=floats([1])))
    tensor_case("tensor-rank-9", LN, "at most 8", lambda t: t.update(shape=[4] + [1] * 8))
    tensor_case("nan", FC, "holds a NaN at element 5", number(5, float("nan")))
    tensor_case("infinity", LN, "holds an infinity at element 3", number(3, float("inf")))
    tensor_case("infinity-f16", LN, "holds an infinity at element 1",
                lambda t: t.update(dtype="F16", data=struct.pack("<4H", 0, 0xFC00, 0, 0)))
    tensor_case("nan-bf16", LN, "holds a NaN at element 2",
                lambda t: t.update(dtype="BF16", data=struct.pack("<4H", 0, 0, 0x7FC1, 0)))
    tensor_case("dtype-unknown", LN, "dtype is unknown", lambda t: t.update(dtype="F31"))
    tensor_case("dtype-number", LN, "no dtype", lambda t: t.update(dtype=32))
    tensor_case("dtype-integer", LN, "is of type I32",
                lambda t: t.update(dtype="I32", data=struct.pack("<4i", 1, 2, 3, 4)))


def header_cases() -> None:
    tensor_case("shape-not-data", LN, "do not fit its data_offsets", lambda t: t.update(shape=[5]))
    tensor_case("shape-negative", LN, "not a whole number", lambda t: t.update(shape=[-4]))
    tensor_case("shape-zero", LN, "do not fit its data_offsets", lambda t: t.update(shape=[0]))
    tensor_case("shape-empty-tensor", LN, "has shape [0]; config.json implies [4]",
                lambda t: t.update(shape=[0], data=b""))
    tensor_case("shape-real", LN, "not a whole number", lambda t: t.update(shape=[4.0]))
    tensor_case("shape-text", LN, "not a list", lambda t: t.update(shape="[4]"))
    tensor_case("shape-overflow", LN, "overflows", lambda t: t.update(shape=[2**33, 2**33]))
    tensor_case("shape-overflow-bytes", LN, "do not fit its data_offsets",
                lambda t: t.update(shape=[2**62], offsets=[0, 0]))
    tensor_case("offsets-past-end", LN, "past the end of the file",
                lambda t: t.update(offsets=[1 << 20, (1 << 20) + 16]))
    tensor_case("offsets-huge", LN, "past the end of the file",
                lambda t: t.update(offsets=[2**63 - 17, 2**63 - 1]))
    tensor_case("offsets-descending", LN, "not two ascending numbers",
                lambda t: t.update(offsets=[16, 0]))
    tensor_case("offsets-negative", LN, "not two ascending numbers",
                lambda t: t.update(offsets=[-16, 0]))
    tensor_case("offsets-three", LN, "not two ascending numbers",
                lambda t: t.update(offsets=[0, 16, 32]))
    tensor_case("offsets-text", LN, "not two ascending numbers",
                lambda t: t.update(offsets=["0", "16"]))
    case("offsets-overlap", W, "overlap", 'tensor "transformer.wte.weight"')(
        lambda m: m.tensors[LN].update(offsets=[80, 96])
    )
    case("offsets-same", W, "overlap")(
        lambda m: m.tensors[LN].update(offsets=m.tensors[P + "h.0.ln_1.bias"].update(
            offsets=[0, 16]) or [0, 16])
    )
    # 2^64 − 16: past int64, which JSON's reader refuses before we could wrap
    case("offsets-wrap", W, "JSON")(
        lambda m: m.tensors[LN].update(offsets=[2**64 - 16, 2**64])
    )
    case("truncated-data", W, 'tensor "transformer.ln_f.bias"', "truncated")(
        lambda m: setattr(m, "cut", 4)
    )
    case("truncated-header", W, "header's length is wrong")(lambda m: setattr(m, "cut", 2000))
    case("truncated-length", W, "header's length is wrong")(
        lambda m: m.raw.update({W: b"\x01\x00\x00"})
    )
    case("empty-weights", W, "empty")(lambda m: m.raw.update({W: b""}))
    case("header-length-2-60", W, "header's length is wrong")(
        lambda m: setattr(m, "length", lambda n: 2**60)
    )
    case("header-length-max", W, "header's length is wrong")(
        lambda m: setattr(m, "length", lambda n: 2**64 - 1)
    )
    case("header-length-short", W, "not valid JSON")(
        lambda m: setattr(m, "length", lambda n: n - 1)
    )
    case("header-length-zero", W, "not valid JSON")(lambda m: setattr(m, "length", lambda n: 0))
    case("header-list", W, "not a JSON object")(
        lambda m: setattr(m, "header", lambda h: json.dumps([h]))
    )
    case("header-no-tensors", W, "is missing")(lambda m: setattr(m, "header", lambda h: "{}"))
    case("header-entry-null", W, f'tensor "{LN}"')(
        lambda m: setattr(m, "header", lambda h: {**h, LN: None})
    )
    case("header-duplicate", W, "duplicate")(
        lambda m: setattr(
            m, "header",
            lambda h: json.dumps(h)[:-1] + ', "transformer.wte.weight": {"dtype": "F32"}}',
        )
    )
    case("header-nul-in-name", W, "JSON")(
        lambda m: setattr(m, "header", lambda h: json.dumps(h).replace("ln_1.weight", "ln\\u0000"))
    )
    case("header-not-utf8", W, "JSON")(
        lambda m: m.raw.update({W: struct.pack("<Q", 11) + b'{"\xff\xfe":null}'})
    )


def shard_cases() -> None:
    index = "model.safetensors.index.json"

    def points_to(target: Any) -> Callable[[Model], None]:
        def change(m: Model) -> None:
            m.shard()
            m.index["weight_map"][LN] = target

        return change

    for name, target in [
        ("index-outside", "../../../golden/data/gpt2_gelu/model.safetensors"),
        ("index-parent", ".."),
        ("index-absolute", "/etc/passwd"),
        ("index-number", 1),
        ("index-empty-name", ""),
    ]:
        case(name, index, f'tensor "{LN}"', "not a plain file name")(points_to(target))
    case("index-itself", "/.", "not a regular file")(points_to("."))
    case("index-missing-shard", "model-00003-of-00002.safetensors", "No such file")(
        points_to("model-00003-of-00002.safetensors")
    )

    @case("index-duplicate-tensor", "model-0000", f'tensor "{LN}" is in two files')
    def _(m: Model) -> None:
        m.shard()
        m.files["model-00002-of-00002.safetensors"][LN] = copy.deepcopy(
            m.files["model-00001-of-00002.safetensors"][LN])

    @case("index-no-map", index, "weight_map")
    def _(m: Model) -> None:
        m.shard()
        m.index = {"metadata": {}}

    @case("index-map-list", index, "weight_map")
    def _(m: Model) -> None:
        m.shard()
        m.index["weight_map"] = ["model-00001-of-00002.safetensors"]

    @case("index-tensor-nowhere", "model-00001-of-00002", f'tensor "{FC}" is missing')
    def _(m: Model) -> None:
        m.shard()
        for tensors in m.files.values():
            tensors.pop(FC, None)

    @case("no-weights", "no-weights", "model.safetensors", "pytorch_model.bin")
    def _(m: Model) -> None:
        m.files = {}


def not_a_model(name: str, files: dict[str, bytes], *expected: str, config: Any = None) -> None:
    """A folder of these files and no weights that are read."""

    def change(m: Model) -> None:
        m.config, m.files, m.raw = config, {}, files

    case("folder-" + name, "folder-" + name, *expected)(change)


def folder_cases() -> None:
    """Folders that people give for a model's, and what they are."""
    adapter = json.dumps({"base_model_name_or_path": "gpt2", "peft_type": "LORA"}).encode()
    not_a_model("adapter", {"adapter_config.json": adapter, "adapter_model.safetensors": b"x"},
                "an adapter (LoRA, PEFT)", "its base model (gpt2)", "merge_and_unload")
    not_a_model("adapter-config", {"adapter_config.json": b"{"}, "an adapter (LoRA, PEFT)",
                config=CONFIG)
    not_a_model("gguf", {"model-Q4_K_M.gguf": b"GGUF"}, "GGUF (model-Q4_K_M.gguf)", "llama.cpp")
    not_a_model("gguf-config", {"model.GGUF": b"GGUF"}, "GGUF (model.GGUF)", config=CONFIG)
    not_a_model("hub-model", {"refs/main": b"abc123\n", "snapshots/abc123/config.json": b"{}",
                              "snapshots/000/config.json": b"{}"},
                "the hub's cache of a model", "snapshots/abc123/")
    not_a_model("hub-no-ref", {"snapshots/b/config.json": b"{}", "snapshots/a/config.json": b"{}"},
                "the hub's cache of a model", "snapshots/a/")
    not_a_model("hub", {"models--b--c/refs/main": b"0", "models--a--b/refs/main": b"0"},
                "the hub's cache;", "models--a--b/snapshots/")
    not_a_model("training", {"checkpoint-500/config.json": b"{}"}, "a training run",
                "checkpoint-500")
    not_a_model("diffusion", {"model_index.json": b"{}"}, "a diffusion pipeline")
    not_a_model("adapter-weights", {"adapter_model.safetensors": b"x"}, "an adapter's weights")
    not_a_model("hub-above", {"hub/version.txt": b"1"}, "hub/models--")
    not_a_model("makers-only", {"consolidated.00.pth": b"x", "params.json": b"{}"},
                "(consolidated.00.pth)")
    not_a_model("quantised-gptq-old", {"quantize_config.json": b"{}"},
                "a quantised checkpoint (gptq)", config=CONFIG)
    not_a_model("empty", {"README.md": b"nothing"}, "is not a model's folder: it has no config.json")
    not_a_model("shards", {"model-00002-of-00002.safetensors": b"x",
                           "model-00001-of-00002.safetensors": b"x"},
                "shards of weights (model-00001-of-00002.safetensors) without their index",
                config=CONFIG)
    not_a_model("shards-bin", {"pytorch_model-00001-of-00002.bin": b"x"},
                "without their index, pytorch_model.bin.index.json", config=CONFIG)
    not_a_model("makers", {"consolidated.00.pth": b"x"}, "(consolidated.00.pth)", config=CONFIG)
    not_a_model("tensorflow", {"tf_model.h5": b"x"}, "TensorFlow", config=CONFIG)
    not_a_model("flax", {"flax_model.msgpack": b"x"}, "Flax", config=CONFIG)
    not_a_model("onnx", {"model.onnx": b"x"}, "ONNX", config=CONFIG)
    config_case("quantised-gptq", "a quantised checkpoint (gptq)",
                quantization_config={"bits": 4, "quant_method": "gptq"})
    config_case("quantised-bitsandbytes", "a quantised checkpoint (bitsandbytes)",
                quantization_config={"load_in_4bit": True})
    config_case("quantised-mlx", "a quantised checkpoint (",
                quantization={"group_size": 64, "bits": 4})
    config_case("base-of-another", "GPT2Model if it has every tensor",
                architectures=["LlamaModel"])
    case("base-untied", W, 'tensor "lm_head.weight" is missing', "tied_head: tied")(
        lambda m: m.config.update(architectures=["GPT2Model"], tie_word_embeddings=False))


def config_cases() -> None:
    c = "config.json"
    config_case("config-model-type", 'model_type "mamba"', model_type="mamba")
    config_case("config-model-type-number", '"model_type" is not a string', model_type=2)
    config_case("config-no-model-type", "has no model_type", model_type=None)
    config_case("config-architecture", 'architecture "GPT2ForSequenceClassification"',
                architectures=["GPT2ForSequenceClassification"])
    config_case("config-layers-text", '"n_layer" is not a whole number', n_layer="1")
    config_case("config-layers-real", '"n_layer" is not a whole number', n_layer=1.0)
    config_case("config-layers-zero", '"n_layer" is not a whole number', n_layer=0)
    config_case("config-layers-negative", '"n_layer" is not a whole number', n_layer=-1)
    config_case("config-layers-list", '"n_layer" is not a whole number', n_layer=[1])
    config_case("config-heads-do-not-divide", "n_embd 4 is not a multiple of n_head 3", n_head=3)
    config_case("config-width-2-31", '"n_embd" is not a whole number', n_embd=2**31)
    config_case("config-vocabulary-2-62", '"vocab_size" is not a whole number', vocab_size=2**62)
    config_case("config-inner-zero", '"n_inner" is not a whole number', n_inner=0)
    config_case("config-activation", 'activation_function "swish9"', activation_function="swish9")
    config_case("config-activation-number", '"activation_function" is not a string',
                activation_function=1)
    config_case("config-cross-attention", "add_cross_attention", add_cross_attention=True)
    config_case("config-tie-text", '"tie_word_embeddings" is not true or false',
                tie_word_embeddings="yes")
    config_case("config-epsilon-text", '"layer_norm_epsilon" is not a number',
                layer_norm_epsilon="1e-5")
    config_case("config-epsilon-negative", "layer_norm_epsilon", layer_norm_epsilon=-1e-05)
    # within the limits of config.json, and absurd beside the tensors
    config_case("config-layers-huge", "at most 1024 layers", n_layer=2**31 - 1)
    case("config-layers-many", W, 'tensor "transformer.h.1.ln_1.weight" is missing')(
        lambda m: m.config.update(n_layer=1024)
    )
    case("config-vocabulary-huge", W, "wte.weight", "has shape [6, 4]")(
        lambda m: m.config.update(vocab_size=2**31 - 1)
    )
    case("config-positions-huge", W, "wpe.weight", "has shape [4, 4]")(
        lambda m: m.config.update(n_positions=2**31 - 1)
    )
    case("config-inner-huge", W, 'tensor "transformer.h.0.', "has shape")(
        lambda m: m.config.update(n_inner=2**31 - 1)
    )
    case("config-width-huge", W, 'tensor "transformer.', "has shape")(
        lambda m: m.config.update(n_embd=2**31 - 2)
    )
    case("config-truncated", c, "JSON")(
        lambda m: setattr(m, "config_text", json.dumps(m.config)[:60])
    )
    case("config-empty", c, "JSON")(lambda m: m.raw.update({c: b""}))
    case("config-list", c, "not a JSON object")(lambda m: setattr(m, "config_text", "[]"))
    case("config-duplicate-key", c, '"n_layer" appears twice')(
        lambda m: setattr(m, "config_text", json.dumps(m.config)[:-1] + ', "n_layer": 1}')
    )
    case("config-integer-overflow", c, '"n_layer"', "it holds 9999999999")(
        lambda m: setattr(m, "config_text", '{"model_type": "gpt2", "n_layer": ' + "9" * 40 + "}")
    )
    case("config-architectures-twice", c, '"architectures" appears twice')(
        lambda m: setattr(m, "config_text", json.dumps(m.config)[:-1] + ', "architectures": []}')
    )
    case("config-scaling-nan", c, '"rope_scaling"', "it holds NaN")(
        lambda m: m.config.update(model_type="llama", architectures=["LlamaForCausalLM"],
                                  rope_scaling=float("nan"))
    )
    case("config-real-overflow", c, '"layer_norm_epsilon"', "it holds 1e999")(
        lambda m: setattr(m, "config_text", '{"model_type": "gpt2", "layer_norm_epsilon": 1e999}')
    )
    case("config-trailing", c, "JSON")(
        lambda m: setattr(m, "config_text", json.dumps(m.config) + " {}")
    )


NEO = {"architectures": ["GPTNeoForCausalLM"], "model_type": "gpt_neo", "num_layers": 2,
       "hidden_size": 4, "num_heads": 2, "max_position_embeddings": 4, "vocab_size": 6,
       "attention_types": [[["global", "local"], 1]]}
NEOX = {"architectures": ["GPTNeoXForCausalLM"], "model_type": "gpt_neox", "num_hidden_layers": 1,
        "hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 8,
        "max_position_embeddings": 4, "vocab_size": 6}
LLAMA = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "num_hidden_layers": 2,
         "hidden_size": 8, "num_attention_heads": 4, "num_key_value_heads": 2,
         "intermediate_size": 8, "max_position_embeddings": 4, "vocab_size": 6}
QWEN2 = {**LLAMA, "architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2",
         "use_sliding_window": True}
LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0,
          "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}


def family_case(name: str, config: dict[str, Any], says: str, **change: Any) -> None:
    case(name, f"{name}/config.json", says)(
        lambda m: setattr(m, "config", {**config, **change}))


def family_cases() -> None:
    types = "attention_types"
    family_case("neo-layers", NEO, "attention_layers does not say what attention_types says",
                attention_layers=["local", "global"])
    family_case("neo-types-short", NEO, "names fewer layers", num_layers=3)
    family_case("neo-types-long", NEO, "names more layers",
                attention_types=[[["global"], 2], [["local"], 2**40]])
    family_case("neo-types-unknown", NEO, '"global" and "local"', attention_types=[[["flash"], 2]])
    family_case("neo-types-number", NEO, "not a list", attention_types=3)
    family_case("neo-types-flat", NEO, "not a list of [names", attention_types=["global"])
    family_case("neo-types-negative", NEO, types, attention_types=[[["global"], -2]])
    family_case("neo-window-zero", NEO, '"window_size" is not a whole number', window_size=0)
    case("neo-tensors", W, 'tensor "transformer.h.0.attn.attention.q_proj.weight" is missing')(
        lambda m: setattr(m, "config", {**NEO, "num_layers": 1, "attention_types": None,
                                        "intermediate_size": 8}))
    family_case("neox-share-zero", NEOX, "not an even number", rotary_pct=0.0)
    family_case("neox-share-odd", NEOX, "not an even number", rotary_pct=0.4)
    family_case("neox-share-large", NEOX, "not an even number", rotary_pct=1.5)
    family_case("neox-base-negative", NEOX, "is not above 0", rotary_emb_base=-10000)
    family_case("neox-heads", NEOX, "hidden_size 16 is not a multiple", num_attention_heads=3)
    family_case("neox-act", NEOX, 'hidden_act "mish"', hidden_act="mish")
    case("neox-tensors", W, 'tensor "gpt_neox.embed_in.weight" is missing')(
        lambda m: setattr(m, "config", NEOX))
    family_case("llama-kv-heads", LLAMA, "num_attention_heads 4 is not a multiple",
                num_key_value_heads=3)
    family_case("llama-kv-heads-many", LLAMA, "is not a multiple", num_key_value_heads=8)
    family_case("llama-head-dim-odd", LLAMA, "not an even number", head_dim=3)
    family_case("llama-theta-zero", LLAMA, "is not above 0", rope_theta=0)
    family_case("llama-scaling-unknown", LLAMA, 'rope_scaling of type "mrope"',
                rope_scaling={"rope_type": "mrope", "factor": 2.0})
    family_case("llama-scaling-yarn", LLAMA, "beta_fast is not a number above 0",
                rope_scaling={"rope_type": "yarn", "factor": 2.0, "beta_fast": -1})
    family_case("llama-scaling-list", LLAMA, '"rope_scaling" is not an object', rope_scaling=[2])
    family_case("llama-scaling-factor", LLAMA, "factor is not a number above 0",
                rope_scaling={"type": "linear"})
    family_case("llama-scaling-factor-negative", LLAMA, "factor is not a number above 0",
                rope_scaling={"type": "linear", "factor": -2})
    family_case("llama-scaling-llama3", LLAMA, "high_freq_factor is not above low_freq_factor",
                rope_scaling={**LLAMA3, "high_freq_factor": 1.0})
    family_case("llama-scaling-llama3-context", LLAMA, "original_max_position_embeddings is not",
                rope_scaling={k: v for k, v in LLAMA3.items() if not k.startswith("orig")})
    family_case("llama-scaling-parameters", LLAMA, '"short_factor" is not a list',
                rope_parameters={"rope_type": "longrope", "rope_theta": 10000.0})
    family_case("llama-layers-many", LLAMA, "at most 1024 layers", num_hidden_layers=1025)
    family_case("llama-architecture", LLAMA, 'architecture "LlamaForSequenceClassification"',
                architectures=["LlamaForSequenceClassification"])
    case("llama-tensors", W, 'tensor "model.embed_tokens.weight" is missing')(
        lambda m: setattr(m, "config", LLAMA))
    family_case("qwen2-layer-types-short", QWEN2, "layer_types does not name 2 layers",
                layer_types=["full_attention"])
    family_case("qwen2-layer-types-unknown", QWEN2, "full_attention and sliding_attention",
                layer_types=["full_attention", "chunked_attention"])
    family_case("qwen2-window", QWEN2, '"sliding_window" is not a whole number', sliding_window=-1)
    newer_family_cases()


def of_kind(kind: str, **more: Any) -> dict[str, Any]:
    return {**LLAMA, "architectures": [f"{kind}ForCausalLM"], "model_type": kind.lower(), **more}


def newer_family_cases() -> None:
    """What a family does not run, by key and value; counts that do not fit."""
    longrope = {"rope_type": "longrope", "short_factor": [1.0], "long_factor": [1.0]}
    family_case("phi3-longrope-short", of_kind("Phi3", head_dim=4), "short_factor has 1 numbers for 2 pairs",
                rope_scaling=longrope)
    family_case("phi3-longrope-negative", of_kind("Phi3"), "holds what is not above 0",
                rope_scaling={**longrope, "short_factor": [-1.0]})
    family_case("phi3-longrope-long", of_kind("Phi3"), "is not a list of at most 256 numbers",
                rope_scaling={**longrope, "short_factor": [1.0] * 257})
    family_case("phi3-longrope-factor", of_kind("Phi3"), "longrope's factor 7 is not max_position_embeddings",
                rope_scaling={**longrope, "original_max_position_embeddings": 2, "factor": 7.0})
    family_case("phi-qk-norm", of_kind("Phi"), "qk_layernorm true", qk_layernorm=True)
    family_case("stablelm-qk-norm", of_kind("StableLm"), "qk_layernorm true", qk_layernorm=True)
    family_case("gemma2-scalar", of_kind("Gemma2"), "query_pre_attn_scalar -4 is not above 0",
                query_pre_attn_scalar=-4)
    family_case("gemma2-cap", of_kind("Gemma2"), "final_logit_softcapping -30 is not a number from 0",
                final_logit_softcapping=-30)
    gemma3 = of_kind("Gemma3", model_type="gemma3_text")
    family_case("gemma3-both-ways", gemma3, "attention looks back only", use_bidirectional_attention=True)
    family_case("gemma3-base", gemma3, "rope_local_base_freq 0 is not above 0", rope_local_base_freq=0)
    family_case("gemma3-score-cap", gemma3, "attn_logit_softcapping is not null", attn_logit_softcapping=50.0)
    parts = {"full_attention": {"rope_theta": 1e6}, "sliding_attention": {"rope_theta": 1e4}}
    family_case("llama-rope-parts", LLAMA, 'rope_parameters: "full_attention" is an object', rope_parameters=parts)
    family_case("llama-scaling-nested", LLAMA, 'rope_scaling: "text" is an object', rope_scaling={"text": LLAMA3})
    family_case("gemma3-rope-part", gemma3, 'rope_parameters: "sliding_attention" is not an object, or is missing',
                rope_parameters={"full_attention": {"rope_theta": 1e6}})
    family_case("gemma3-rope-scaled", gemma3, "sliding_attention is scaled",
                rope_parameters={**parts, "sliding_attention": {"rope_type": "linear", "factor": 2.0}})
    family_case("granite-multiplier", of_kind("Granite"), "residual_multiplier 0", residual_multiplier=0)
    family_case("smollm3-layers", of_kind("SmolLM3"), '"no_rope_layers" is not a list, one for each layer',
                no_rope_layers=[1])
    family_case("opt-350m", of_kind("OPT", ffn_dim=8), "do_layer_norm_before false", do_layer_norm_before=False)
    family_case("opt-projection", of_kind("OPT", ffn_dim=8), "word_embed_proj_dim 4 is not hidden_size 8",
                word_embed_proj_dim=4)
    family_case("starcoder2-biases", of_kind("Starcoder2"), "use_bias false", use_bias=False)
    old = {"n_layer": 1, "n_embd": 8, "n_head": 2, "n_positions": 4, "vocab_size": 6}
    family_case("bigcode-heads", {**old, "architectures": ["GPTBigCodeForCausalLM"], "model_type": "gpt_bigcode"},
                "multi_query false", multi_query=False)
    family_case("gptj-rotary-null", {**old, "architectures": ["GPTJForCausalLM"], "model_type": "gptj"},
                "rotary_dim null", rotary_dim=None)
    family_case("phi3-share", of_kind("Phi3"), "partial_rotary_factor -1 is not above 0", partial_rotary_factor=-1)
    for kind, one, other in (("gpt2", "n_layer", "num_hidden_layers"), ("gptj", "n_embd", "hidden_size"),
                             ("gpt_bigcode", "n_head", "num_attention_heads"),
                             ("gpt2", "n_positions", "max_position_embeddings")):
        family_case(f"{kind.replace('_', '-')}-{other.replace('_', '-')}",
                    {**old, "architectures": None, "model_type": kind},
                    f"{one} {old[one]}, but {other} 16: they name the same thing", **{other: 16})
    bloom = {"architectures": ["BloomForCausalLM"], "model_type": "bloom", "n_layer": 1, "n_head": 2, "vocab_size": 6}
    family_case("bloom-width", bloom, "n_embed 8, but hidden_size 16: they name the same thing", n_embed=8,
                hidden_size=16)
    family_case("bloom-slices", bloom, "slow_but_exact true with pretraining_tp 2", slow_but_exact=True,
                pretraining_tp=2)
    family_case("gptj-rotary", {**old, "architectures": ["GPTJForCausalLM"], "model_type": "gptj"},
                "rotary_dim 6 is not an even number up to the 4", rotary_dim=6)
    expert_cases()
    case("qwen3-tensors", W, 'tensor "model.embed_tokens.weight" is missing')(
        lambda m: setattr(m, "config", of_kind("Qwen3", head_dim=2)))


def mixtral_tensors(D: int = 16, F: int = 8, experts: int = 2) -> dict[str, list[int]]:
    """Of one layer with LLAMA's attention, in Mixtral's names."""
    b, mlp = "model.layers.0.", "model.layers.0.block_sparse_moe."
    kv = D // LLAMA["num_attention_heads"] * LLAMA["num_key_value_heads"]
    shapes = {"model.embed_tokens.weight": [LLAMA["vocab_size"], D], "lm_head.weight": [LLAMA["vocab_size"], D],
              "model.norm.weight": [D], f"{b}input_layernorm.weight": [D], f"{b}post_attention_layernorm.weight": [D],
              f"{b}self_attn.q_proj.weight": [D, D], f"{b}self_attn.k_proj.weight": [kv, D],
              f"{b}self_attn.v_proj.weight": [kv, D], f"{b}self_attn.o_proj.weight": [D, D],
              f"{mlp}gate.weight": [experts, D]}
    for e in range(experts):
        for name, shape in (("w1", [F, D]), ("w2", [D, F]), ("w3", [F, D])):
            shapes[f"{mlp}experts.{e}.{name}.weight"] = shape
    return shapes


def expert_cases() -> None:
    """Counts of experts that do not fit, and their tensors; layers without any."""
    mixtral = of_kind("Mixtral", num_local_experts=2, num_experts_per_tok=2, num_hidden_layers=1, intermediate_size=8,
                      hidden_size=16, tie_word_embeddings=False)
    family_case("mixtral-none", mixtral, '"num_local_experts" is not a whole number', num_local_experts=0)
    family_case("mixtral-many", mixtral, "at most 1024 experts", num_local_experts=1025)
    family_case("mixtral-per-token", mixtral, "num_experts_per_tok 3 is more than num_local_experts 2",
                num_experts_per_tok=3)
    family_case("mixtral-per-token-none", mixtral, '"num_experts_per_tok" is not a whole number', num_experts_per_tok=0)

    def tensors(name: str, expected: str, change: Callable[[dict[str, list[int]]], Any]) -> None:
        def make(m: Model) -> None:
            m.config, shapes = mixtral, mixtral_tensors()
            change(shapes)
            m.files[W] = {n: {"dtype": "F32", "shape": s, "data": floats([0.5] * math.prod(s))}
                          for n, s in shapes.items()}
        case(name, W, expected)(make)

    mlp = "model.layers.0.block_sparse_moe."
    tensors("mixtral-missing", f'tensor "{mlp}experts.1.w2.weight" is missing',
            lambda s: s.pop(f"{mlp}experts.1.w2.weight"))
    tensors("mixtral-router", f'tensor "{mlp}gate.weight" has shape [3, 16]',
            lambda s: s.update({f"{mlp}gate.weight": [3, 16]}))
    tensors("mixtral-expert", f'tensor "{mlp}experts.0.w1.weight" has shape [7, 16]',
            lambda s: s.update({f"{mlp}experts.0.w1.weight": [7, 16]}))
    tensors("mixtral-third", f'tensor "{mlp}experts.2.w1.weight" is unknown',
            lambda s: s.update({f"{mlp}experts.2.w1.weight": [8, 16]}))
    qwen3 = of_kind("Qwen3Moe", model_type="qwen3_moe", num_experts=4, num_experts_per_tok=2, moe_intermediate_size=8)
    family_case("qwen3-moe-none", qwen3, '"num_experts" is not a whole number', num_experts=0)
    family_case("qwen3-moe-per-token", qwen3, "num_experts_per_tok 5 is more than num_experts 4", num_experts_per_tok=5)
    family_case("qwen3-moe-names", qwen3, "num_experts 4, but num_local_experts 8: they name the same thing",
                num_local_experts=8)
    family_case("qwen3-moe-step", qwen3, "decoder_sparse_step 2: we run models with experts in every layer",
                decoder_sparse_step=2)
    family_case("qwen3-moe-dense", qwen3, "mlp_only_layers: layer 0 has no experts", mlp_only_layers=[0])
    family_case("qwen3-moe-dense-list", qwen3, '"mlp_only_layers" is not a list of layers', mlp_only_layers="0")


def write_heads(valid: Path) -> None:
    """Where the head is: tied and stored apart, stored under the head's name alone, untied;
    a base model, which has none."""
    apart = Model()
    head = copy.deepcopy(apart.tensors[P + "wte.weight"])
    head["data"] = head["data"][4:] + head["data"][:4]
    apart.tensors["lm_head.weight"] = head
    apart.write(valid / "tied-apart")
    apart.config["tie_word_embeddings"] = False
    apart.write(valid / "untied")
    apart.config["tie_word_embeddings"] = None
    apart.write(valid / "untied-null")
    moved = Model()
    moved.tensors["lm_head.weight"] = moved.tensors.pop(P + "wte.weight")
    moved.write(valid / "tied-moved")
    base = Model()
    base.config["architectures"] = ["GPT2Model"]
    base.files[W] = {k.removeprefix(P): v for k, v in base.tensors.items()}
    base.write(valid / "base")


def write_torch(valid: Path) -> None:
    """The plain model as pytorch_model.bin: both formats, and sharded."""

    def state(names: list[str]) -> dict[str, Any]:
        return {name: torch_files.Tensor(
            torch_files.Storage("FloatStorage", Model().tensors[name]["data"], 4),
            tuple(Model().tensors[name]["shape"])) for name in names}

    names = list(Model().tensors)
    python2 = state(names)
    shards = {"pytorch_model-00001-of-00002.bin": names[:8],
              "pytorch_model-00002-of-00002.bin": names[8:]}
    files = {
        "torch": {"pytorch_model.bin": torch_files.archive(torch_files.entries(state(names)))},
        "torch-old": {"pytorch_model.bin": torch_files.Legacy(state(names)).bytes()},
        "torch-python2": {"pytorch_model.bin": torch_files.Legacy(
            python2, pickle=torch_files.python2(python2)).bytes()},
        "torch-sharded": {
            "pytorch_model.bin.index.json": json.dumps(
                {"weight_map": {name: f for f, ns in shards.items() for name in ns}}).encode(),
            **{f: torch_files.archive(torch_files.entries(state(ns)))
               for f, ns in shards.items()},
        },
    }
    for folder, raw in files.items():
        model = Model()
        model.files = {}
        model.raw = raw
        model.write(valid / folder)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-o", "--output", type=Path, default=Path("tests/invalid/model"))
    parser.add_argument("--valid", type=Path, default=Path("tests/unit/data/model"),
                        help="where the ones that must load go")
    args = parser.parse_args()
    for make in (tensor_cases, header_cases, shard_cases, config_cases, folder_cases,
                 family_cases):
        make()
    torch_cases(case)
    hooked_cases(case)
    shutil.rmtree(args.output, ignore_errors=True)
    for name, change, expected in CASES:
        model = Model()
        change(model)
        model.write(args.output / name)
        (args.output / name / "expected-error").write_text("\n".join(expected) + "\n")

    shutil.rmtree(args.valid, ignore_errors=True)
    Model().write(args.valid / "plain")
    python = Model()  # nothing that is wrong here is needed
    python.config_text = json.dumps(python.config | {
        "model_max_length": int(1e30), "a": float("nan"), "b": [float("inf"), -float("inf")],
        "task_specific_params": {"x": {"y": 10**19}}})[:-1] + ', "a": 1e999, "a": {"a": 1, "a": 2}}'
    python.write(args.valid / "python-json")
    # As older checkpoints are: no prefix, causal masks, a copy of the tied head.
    old = Model()
    old.files[W] = {k.removeprefix(P): v for k, v in old.tensors.items()}
    mask = {"dtype": "U8", "shape": [1, 1, 4, 4], "data": bytes(16)}
    old.tensors["h.0.attn.bias"] = mask
    old.tensors["h.0.attn.masked_bias"] = {"dtype": "F32", "shape": [], "data": floats([-1e4])}
    old.tensors["lm_head.weight"] = old.tensors["wte.weight"]
    old.write(args.valid / "tied-copy")
    write_heads(args.valid)
    write_torch(args.valid)
    write_hooked(Model, args.valid)


if __name__ == "__main__":
    main()
