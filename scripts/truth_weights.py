"""The weights of scripts/truth.py: reading, families, and TransformerLens's processing.

A Hugging Face model directory goes in; a Config and canonical weights with TransformerLens
2.16's names and shapes come out, in float64. NumPy only, except that a pytorch_model.bin is
unpickled by torch, which is imported when one is met.

A family is a class that gives a Config and weights; its class attributes are the defaults
that Hugging Face uses where config.json leaves a key out. H heads, Hkv key/value heads, dh
d_head, D d_model, F d_mlp, V d_vocab; W_Q [H, D, dh], W_K and W_V [Hkv, D, dh], W_O
[H, dh, D], W_gate and W_in [D, F], W_out [F, D], W_E [V, D], W_U [D, V].
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Weights = dict[str, Array]
Tensors = dict[str, Callable[[], Array]]
# TransformerLens's flags: the four that are on by default, and the one that is not.
PROCESSING = ("fold_ln", "center_writing_weights", "center_unembed", "fold_value_biases")
REFACTOR = "refactor_factored_attn_matrices"


# --- reading ------------------------------------------------------------------------------

SAFETENSORS_DTYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2", "I64": "<i8",
                      "I32": "<i4", "U8": "u1", "BOOL": "u1"}


def read_safetensors(path: str) -> Tensors:
    """Name -> a function that reads that tensor and widens it, exactly, to float64."""
    with open(path, "rb") as f:
        n_header = int.from_bytes(f.read(8), "little")
        header = json.loads(f.read(n_header))
    data = np.memmap(path, dtype=np.uint8, mode="r", offset=8 + n_header)

    def reader(entry: dict) -> Callable[[], Array]:
        def read() -> Array:
            start, end = entry["data_offsets"]
            a = np.asarray(data[start:end]).view(SAFETENSORS_DTYPES[entry["dtype"]])
            if entry["dtype"] == "BF16":  # the upper half of a float32
                a = (a.astype(np.uint32) << 16).view(np.float32)
            return a.astype(np.float64).reshape(entry["shape"])
        return read

    return {k: reader(e) for k, e in header.items() if k != "__metadata__"}


def read_torch_bin(path: str) -> Tensors:
    """The same of a pytorch_model.bin, zip or legacy."""
    import torch
    tensors = torch.load(path, map_location="cpu", weights_only=True)
    return {k: lambda t=t: t.detach().to(torch.float64).numpy().copy()
            for k, t in tensors.items() if isinstance(t, torch.Tensor)}


def read_tensors(model_dir: str) -> Tensors:
    """Safetensors before .bin and one file before shards, as Hugging Face looks for them."""
    for file, read in (("model.safetensors", read_safetensors), ("pytorch_model.bin", read_torch_bin),
                       ("model.pth", read_torch_bin)):
        path = os.path.join(model_dir, file)
        if os.path.exists(path):
            return read(path)
        if os.path.exists(path + ".index.json"):
            with open(path + ".index.json", encoding="utf-8") as f:
                weight_map: dict[str, str] = json.load(f)["weight_map"]
            shards = {s: read(os.path.join(model_dir, s)) for s in set(weight_map.values())}
            return {name: shards[shard][name] for name, shard in weight_map.items()}
    raise FileNotFoundError(f"{model_dir}: no model.safetensors and no pytorch_model.bin")


# --- the canonical model ------------------------------------------------------------------

@dataclass(frozen=True)
class Config:
    """What the forward pass needs to know, whatever the family."""

    n_layers: int
    d_model: int
    n_heads: int
    n_kv_heads: int
    d_head: int
    d_mlp: int
    d_vocab: int
    n_ctx: int
    eps: float
    act_fn: str
    attn_scale: tuple[float, ...]      # a layer: what scores are divided by
    windows: tuple[int | None, ...]    # a layer: keys reached, its own included; None: all
    tied: bool
    norm: str = "LN"                   # or RMS
    parallel: bool = False             # the MLP reads resid_pre, there is no resid_mid
    gated: bool = False
    inv_freq: tuple[float, ...] = ()   # rotary: radians a position; (): learned positions
    rotary_factor: float = 1.0         # cosines and sines are multiplied by it
    adjacent: bool = False             # pairs are (2i, 2i + 1) instead of (i, i + rotary_dim / 2)
    unrotated: tuple[int, ...] = ()    # layers whose queries and keys are not turned
    local_inv_freq: tuple[float, ...] = ()  # of layers with a window, where they have their own
    qk_norm: str = ""                  # RMSNorm of queries and keys: of each "head", or of "all"
    norms_before: bool = True
    norms_after: bool = False
    score_cap: float = 0.0             # x -> cap tanh(x / cap); 0: none
    logit_cap: float = 0.0
    alibi: bool = False                # positions are slopes of the scores
    embed_norm: bool = False           # W_E's rows are LayerNorm's output
    n_experts: int = 0                 # the MLP is so many, of d_mlp each; 0: one MLP
    experts_per_token: int = 0
    norm_expert_weights: bool = True   # the chosen ones' weights are made to add up to 1
    # TransformerLens's own models only:
    folded: bool = False               # norms have no weights: LNPre, RMSPre
    final_norm: str = ""               # ln_final's kind, where it is not norm
    attn_only: bool = False
    shortformer: bool = False          # W_pos is added to what queries and keys are made of
    mlp_norm: bool = False             # LayerNorm of what the activation gives: solu_ln
    bias_last: bool = False            # a gated MLP's b_in is added to the product
    even_slopes: bool = False          # ALiBi's: 2^(-8k/n), also where n is no power of two
    d_vocab_out: int = 0               # logits; 0: d_vocab

    @property
    def last_norm(self) -> str:
        return self.final_norm or self.norm

    @property
    def rotary_dim(self) -> int:
        return 2 * len(self.inv_freq)


@dataclass
class Model:
    cfg: Config
    weights: Weights
    ln_folded: bool


def rope_settings(hf: dict) -> dict:
    """rope_theta, partial_rotary_factor, rope_type and its numbers, from either layout.

    Old configs have rope_theta (GPT-NeoX: rotary_emb_base and rotary_pct) and an optional
    rope_scaling with "type" or "rope_type"; new ones one object, rope_parameters.
    """
    neox = hf["model_type"] == "gpt_neox"
    base, part = (("rotary_emb_base", "rotary_pct") if neox
                  else ("rope_theta", "partial_rotary_factor"))
    out = {"rope_theta": hf.get(base, 10000.0),
           "partial_rotary_factor": hf.get(part, 0.25 if neox else 1.0)}
    for key in ("rope_scaling", "rope_parameters"):
        out.update(hf.get(key) or {})
    out["rope_type"] = out.get("rope_type", out.get("type", "default"))
    return out


def inverse_frequencies(hf: dict, d_head: int) -> tuple[float, ...]:
    """Radians a position, a pair of dimensions; pair i is (i, i + rotary_dim / 2)."""
    rope = rope_settings(hf)
    dim = int(d_head * rope["partial_rotary_factor"])
    if dim % 2 != 0:
        raise ValueError(f"{dim} rotary dimensions, which is odd")
    freq = float(rope["rope_theta"]) ** -(np.arange(0, dim, 2, dtype=np.float64) / dim)
    if rope["rope_type"] == "linear":
        freq = freq / rope["factor"]
    elif rope["rope_type"] == "llama3":
        # Long wavelengths are stretched by the factor, short ones kept, those between mixed.
        turns = rope["original_max_position_embeddings"] * freq / (2 * math.pi)
        low, high = rope["low_freq_factor"], rope["high_freq_factor"]
        kept = np.clip((turns - low) / (high - low), 0.0, 1.0)
        freq = kept * freq + (1.0 - kept) * freq / rope["factor"]
    elif rope["rope_type"] == "yarn":
        original = rope.get("original_max_position_embeddings") or hf["max_position_embeddings"]

        def pair_of(turns: float) -> float:
            return dim * math.log(original / (turns * 2 * math.pi)) / (2 * math.log(rope["rope_theta"]))

        low, high = pair_of(rope.get("beta_fast") or 32), pair_of(rope.get("beta_slow") or 1)
        if rope.get("truncate", True):
            low, high = math.floor(low), math.ceil(high)
        low, high = max(low, 0), min(high, dim - 1)
        high += 0.001 if low == high else 0
        slow = np.clip((np.arange(dim // 2) - low) / (high - low), 0.0, 1.0)
        freq = slow * freq / rope["factor"] + (1.0 - slow) * freq
    elif rope["rope_type"] == "longrope":
        freq = freq / np.array(rope["short_factor"])
    elif rope["rope_type"] not in ("default", "dynamic"):
        raise ValueError(f"rope_type {rope['rope_type']}")
    return tuple(freq.tolist())


def rotary_factor(hf: dict) -> float:
    """attention_factor of transformers' modeling_rope_utils."""
    rope = rope_settings(hf)
    if rope.get("attention_factor"):
        return rope["attention_factor"]
    if rope["rope_type"] == "yarn":
        return 0.1 * math.log(rope["factor"]) + 1.0 if rope["factor"] > 1 else 1.0
    if rope["rope_type"] == "longrope":
        original = hf["original_max_position_embeddings"]
        factor = hf["max_position_embeddings"] / original
        return math.sqrt(1 + math.log(factor) / math.log(original)) if factor > 1 else 1.0
    return 1.0


def longest(hf: dict) -> int:
    """Past longrope's original length its frequencies depend on what follows: h5lens refuses that."""
    longrope = rope_settings(hf)["rope_type"] == "longrope"
    return hf["original_max_position_embeddings"] if longrope else hf["max_position_embeddings"]


def heads(w: Array, n: int) -> Array:
    """A Linear's weight [n·dh, D] -> [n, D, dh]; its bias [n·dh] -> [n, dh]."""
    if w.ndim == 1:
        return w.reshape(n, -1)
    return w.reshape(n, -1, w.shape[1]).transpose(0, 2, 1).copy()


def gpt2_frame(cfg: Config, tensors: Tensors) -> tuple[Weights, Callable[[str], Array]]:
    """What GPT-2 and GPT-Neo name alike: embeddings, norms and head; and their reader."""
    prefix = "transformer." if "transformer.wte.weight" in tensors else ""

    def get(name: str) -> Array:
        return tensors[prefix + name]()

    w: Weights = {"embed.W_E": get("wte.weight"), "pos_embed.W_pos": get("wpe.weight")}
    for l in range(cfg.n_layers):
        for ours, theirs in (("ln1", "ln_1"), ("ln2", "ln_2")):
            w[f"blocks.{l}.{ours}.w"] = get(f"h.{l}.{theirs}.weight")
            w[f"blocks.{l}.{ours}.b"] = get(f"h.{l}.{theirs}.bias")
    w["ln_final.w"], w["ln_final.b"] = get("ln_f.weight"), get("ln_f.bias")
    set_unembed(w, cfg, tensors, "lm_head.weight")
    return w, get


class Gpt2:
    """GPT2LMHeadModel: Conv1D weights are [in, out], q, k and v in one matrix."""

    @staticmethod
    def config(hf: dict) -> Config:
        n_layers, d_model, n_heads = hf["n_layer"], hf["n_embd"], hf["n_head"]
        scale = math.sqrt(d_model // n_heads) if hf.get("scale_attn_weights", True) else 1.0
        by_layer = hf.get("scale_attn_by_inverse_layer_idx", False)
        return Config(
            n_layers=n_layers, d_model=d_model, n_heads=n_heads, n_kv_heads=n_heads,
            d_head=d_model // n_heads, d_mlp=hf.get("n_inner") or 4 * d_model,
            d_vocab=hf["vocab_size"], n_ctx=hf["n_positions"],
            eps=hf.get("layer_norm_epsilon", 1e-5),
            act_fn=hf.get("activation_function", "gelu_new"),
            attn_scale=tuple(scale * (l + 1 if by_layer else 1) for l in range(n_layers)),
            windows=(None,) * n_layers, tied=hf.get("tie_word_embeddings", True))

    @staticmethod
    def weights(cfg: Config, hf: dict, tensors: Tensors) -> Weights:
        D, H, dh = cfg.d_model, cfg.n_heads, cfg.d_head
        w, get = gpt2_frame(cfg, tensors)
        for l in range(cfg.n_layers):
            src, dst = f"h.{l}.", f"blocks.{l}."
            qkv_w = get(f"{src}attn.c_attn.weight").reshape(D, 3, H, dh)
            qkv_b = get(f"{src}attn.c_attn.bias").reshape(3, H, dh)
            for i, x in enumerate("QKV"):
                w[f"{dst}attn.W_{x}"] = qkv_w[:, i].transpose(1, 0, 2).copy()
                w[f"{dst}attn.b_{x}"] = qkv_b[i].copy()
            w[f"{dst}attn.W_O"] = get(f"{src}attn.c_proj.weight").reshape(H, dh, D)
            w[f"{dst}attn.b_O"] = get(f"{src}attn.c_proj.bias")
            w[f"{dst}mlp.W_in"] = get(f"{src}mlp.c_fc.weight")
            w[f"{dst}mlp.b_in"] = get(f"{src}mlp.c_fc.bias")
            w[f"{dst}mlp.W_out"] = get(f"{src}mlp.c_proj.weight")
            w[f"{dst}mlp.b_out"] = get(f"{src}mlp.c_proj.bias")
        return w


class GptNeo:
    """GPTNeoForCausalLM: no biases of q, k and v, unscaled scores, every other layer local."""

    @staticmethod
    def config(hf: dict) -> Config:
        d_model, n_heads, n_layers = hf["hidden_size"], hf["num_heads"], hf["num_layers"]
        kinds = [k for group, n in hf.get("attention_types", [[["global", "local"], 12]])
                 for _ in range(n) for k in group]
        kinds = hf.get("attention_layers") or kinds
        if len(kinds) != n_layers or set(kinds) - {"global", "local"}:
            raise ValueError(f"attention_types give {kinds} for {n_layers} layers")
        window = hf.get("window_size", 256)
        return Config(
            n_layers=n_layers, d_model=d_model, n_heads=n_heads, n_kv_heads=n_heads,
            d_head=d_model // n_heads, d_mlp=hf.get("intermediate_size") or 4 * d_model,
            d_vocab=hf["vocab_size"], n_ctx=hf["max_position_embeddings"],
            eps=hf.get("layer_norm_epsilon", 1e-5),
            act_fn=hf.get("activation_function", "gelu_new"), attn_scale=(1.0,) * n_layers,
            windows=tuple(window if k == "local" else None for k in kinds),
            tied=hf.get("tie_word_embeddings", True))

    @staticmethod
    def weights(cfg: Config, hf: dict, tensors: Tensors) -> Weights:
        D, H, dh = cfg.d_model, cfg.n_heads, cfg.d_head
        w, get = gpt2_frame(cfg, tensors)
        for l in range(cfg.n_layers):
            src, dst = f"h.{l}.", f"blocks.{l}."
            for x in "QKV":
                name = f"{src}attn.attention.{x.lower()}_proj.weight"
                w[f"{dst}attn.W_{x}"] = heads(get(name), H)
                w[f"{dst}attn.b_{x}"] = np.zeros((H, dh))
            W_O = get(f"{src}attn.attention.out_proj.weight")
            w[f"{dst}attn.W_O"] = W_O.T.reshape(H, dh, D)
            w[f"{dst}attn.b_O"] = get(f"{src}attn.attention.out_proj.bias")
            for ours, theirs in (("in", "c_fc"), ("out", "c_proj")):
                w[f"{dst}mlp.W_{ours}"] = get(f"{src}mlp.{theirs}.weight").T
                w[f"{dst}mlp.b_{ours}"] = get(f"{src}mlp.{theirs}.bias")
        return w


class GptNeoX:
    """GPTNeoXForCausalLM: rotary, mostly parallel; query_key_value is [H, (q, k, v), dh]."""

    @staticmethod
    def config(hf: dict) -> Config:
        n_layers, d_model = hf["num_hidden_layers"], hf["hidden_size"]
        n_heads = hf["num_attention_heads"]
        d_head = d_model // n_heads
        return Config(
            n_layers=n_layers, d_model=d_model, n_heads=n_heads, n_kv_heads=n_heads,
            d_head=d_head, d_mlp=hf["intermediate_size"], d_vocab=hf["vocab_size"],
            n_ctx=hf["max_position_embeddings"], eps=hf.get("layer_norm_eps", 1e-5),
            act_fn=hf.get("hidden_act", "gelu"), attn_scale=(math.sqrt(d_head),) * n_layers,
            windows=(None,) * n_layers, tied=hf.get("tie_word_embeddings", False),
            parallel=hf.get("use_parallel_residual", True),
            inv_freq=inverse_frequencies(hf, d_head))

    @staticmethod
    def weights(cfg: Config, hf: dict, tensors: Tensors) -> Weights:
        H, dh, D = cfg.n_heads, cfg.d_head, cfg.d_model

        def get(name: str) -> Array:
            return tensors["gpt_neox." + name]()

        w: Weights = {"embed.W_E": get("embed_in.weight")}
        for l in range(cfg.n_layers):
            src, dst = f"layers.{l}.", f"blocks.{l}."
            for ours, theirs in (("ln1", "input_layernorm"),
                                 ("ln2", "post_attention_layernorm")):
                w[f"{dst}{ours}.w"] = get(f"{src}{theirs}.weight")
                w[f"{dst}{ours}.b"] = get(f"{src}{theirs}.bias")
            qkv_w = get(f"{src}attention.query_key_value.weight").reshape(H, 3, dh, D)
            w[f"{dst}attn.W_O"] = get(f"{src}attention.dense.weight").T.reshape(H, dh, D)
            qkv_b, w[f"{dst}attn.b_O"] = np.zeros((H, 3, dh)), np.zeros(D)
            if hf.get("attention_bias", True):
                qkv_b = get(f"{src}attention.query_key_value.bias").reshape(H, 3, dh)
                w[f"{dst}attn.b_O"] = get(f"{src}attention.dense.bias")
            for i, x in enumerate("QKV"):
                w[f"{dst}attn.W_{x}"] = qkv_w[:, i].transpose(0, 2, 1).copy()
                w[f"{dst}attn.b_{x}"] = qkv_b[:, i].copy()
            for ours, theirs in (("in", "dense_h_to_4h"), ("out", "dense_4h_to_h")):
                w[f"{dst}mlp.W_{ours}"] = get(f"{src}mlp.{theirs}.weight").T
                w[f"{dst}mlp.b_{ours}"] = get(f"{src}mlp.{theirs}.bias")
        w["ln_final.w"] = get("final_layer_norm.weight")
        w["ln_final.b"] = get("final_layer_norm.bias")
        set_unembed(w, cfg, tensors, "embed_out.weight")
        return w


class Llama:
    """LlamaForCausalLM: RMSNorm, rotary, grouped-query attention, gated MLP."""

    default_kv_heads: int | None = None

    @classmethod
    def config(cls, hf: dict) -> Config:
        n_layers, d_model = hf["num_hidden_layers"], hf["hidden_size"]
        n_heads = hf["num_attention_heads"]
        d_head = hf.get("head_dim") or cls.default_head or d_model // n_heads
        return Config(
            n_layers=n_layers, d_model=d_model, n_heads=n_heads,
            n_kv_heads=hf.get("num_key_value_heads", cls.default_kv_heads) or n_heads,
            d_head=d_head, d_mlp=hf["intermediate_size"], d_vocab=hf["vocab_size"],
            n_ctx=longest(hf), eps=hf.get("rms_norm_eps", 1e-6),
            act_fn=hf.get("hidden_act", "silu"), attn_scale=(math.sqrt(d_head),) * n_layers,
            windows=cls.windows(hf), tied=hf.get("tie_word_embeddings", False), norm="RMS",
            gated=True, inv_freq=inverse_frequencies(hf, d_head), qk_norm=cls.qk_norm,
            rotary_factor=rotary_factor(hf),
            norms_before=cls.norms_before, norms_after=cls.norms_after)

    default_head: int | None = None
    qk_norm = ""
    norms_before, norms_after = True, False
    gain_offset = 0.0  # a norm's weight is stored less this

    @staticmethod
    def windows(hf: dict) -> tuple[int | None, ...]:
        return (None,) * hf["num_hidden_layers"]

    @staticmethod
    def biased(hf: dict) -> str:
        """The attention projections with a bias."""
        return "QKVO" if hf.get("attention_bias", False) else ""

    @staticmethod
    def mlp_biased(hf: dict) -> bool:
        return hf.get("mlp_bias", False)

    @classmethod
    def weights(cls, cfg: Config, hf: dict, tensors: Tensors) -> Weights:
        H, dh, D = cfg.n_heads, cfg.d_head, cfg.d_model

        def get(name: str) -> Array:
            return tensors["model." + name]()

        w: Weights = {"embed.W_E": get("embed_tokens.weight")}
        for l in range(cfg.n_layers):
            src, dst = f"layers.{l}.", f"blocks.{l}."
            for ours, theirs in cls.norm_names():
                w[f"{dst}{ours}.w"] = get(f"{src}{theirs}_layernorm.weight") + cls.gain_offset
            for x in "QKV":
                n, name = H if x == "Q" else cfg.n_kv_heads, f"{src}self_attn.{x.lower()}_proj."
                w[f"{dst}attn.W_{x}"] = heads(get(name + "weight"), n)
                w[f"{dst}attn.b_{x}"] = (heads(get(name + "bias"), n) if x in cls.biased(hf)
                                         else np.zeros((n, dh)))
            for x in "qk" if cfg.qk_norm else "":
                gain = get(f"{src}self_attn.{x}_norm.weight") + cls.gain_offset
                w[f"{dst}attn.{x}_norm.w"] = gain.reshape(-1, dh) if cfg.qk_norm == "all" else gain
            name = src + "self_attn.o_proj."
            w[dst + "attn.W_O"] = get(name + "weight").T.reshape(H, dh, D)
            w[dst + "attn.b_O"] = get(name + "bias") if "O" in cls.biased(hf) else np.zeros(D)
            w.update(cls.mlp(src, dst, cfg, hf, get))
        w["ln_final.w"] = get("norm.weight") + cls.gain_offset
        set_unembed(w, cfg, tensors, "lm_head.weight")
        return w

    @classmethod
    def mlp(cls, src: str, dst: str, cfg: Config, hf: dict,
            get: Callable[[str], Array]) -> Weights:
        w: Weights = {}
        for ours, theirs, n in (("gate", "gate", cfg.d_mlp), ("in", "up", cfg.d_mlp),
                                ("out", "down", cfg.d_model)):
            name = f"{src}mlp.{theirs}_proj."
            w[f"{dst}mlp.W_{ours}"] = get(name + "weight").T
            w[f"{dst}mlp.b_{ours}"] = get(name + "bias") if cls.mlp_biased(hf) else np.zeros(n)
        return w

    @classmethod
    def norm_names(cls) -> list[tuple[str, str]]:
        before = [("ln1", "input")] if cls.norms_before else []
        if not cls.norms_after:
            return [*before, ("ln2", "post_attention")]
        return [*before, *([("ln2", "pre_feedforward")] if cls.norms_before else []),
                ("ln1_post", "post_attention"), ("ln2_post", "post_feedforward")]


class Mistral(Llama):
    """MistralForCausalLM: one window for all layers, no biases."""

    default_kv_heads = 8

    @staticmethod
    def windows(hf: dict) -> tuple[int | None, ...]:
        return (hf.get("sliding_window", 4096),) * hf["num_hidden_layers"]

    @staticmethod
    def biased(hf: dict) -> str:
        return ""

    @staticmethod
    def mlp_biased(hf: dict) -> bool:
        return False


class Qwen2(Mistral):
    """Qwen2ForCausalLM: biases of q, k and v; a window from some layer on, if at all."""

    default_kv_heads = 32

    @staticmethod
    def windows(hf: dict) -> tuple[int | None, ...]:
        n_layers, first = hf["num_hidden_layers"], hf.get("max_window_layers", 28)
        window = hf.get("sliding_window", 4096) if hf.get("use_sliding_window", False) else None
        kinds = hf.get("layer_types") or [
            "sliding_attention" if l >= first else "full_attention" for l in range(n_layers)]
        return tuple(window if k == "sliding_attention" else None for k in kinds)

    @staticmethod
    def biased(hf: dict) -> str:
        return "QKV"


class Qwen3(Qwen2):
    """Qwen3ForCausalLM: norms of queries and keys, Llama's biases."""

    default_head = 128
    qk_norm = "head"

    @staticmethod
    def biased(hf: dict) -> str:
        return Llama.biased(hf)


class Mixtral(Mistral):
    """MixtralForCausalLM: experts. TransformerLens's names: W_gate.weight is the router's."""

    MLP, GATE, IN, OUT = "block_sparse_moe", "w1", "w3", "w2"

    @staticmethod
    def windows(hf: dict) -> tuple[int | None, ...]:
        return (hf.get("sliding_window"),) * hf["num_hidden_layers"]

    @classmethod
    def config(cls, hf: dict) -> Config:
        cfg = super().config({"rms_norm_eps": 1e-5, "rope_theta": 1e6, **hf})
        return replace(cfg, n_experts=hf.get("num_local_experts", 8),
                       experts_per_token=hf.get("num_experts_per_tok", 2))

    @classmethod
    def mlp(cls, src: str, dst: str, cfg: Config, hf: dict,
            get: Callable[[str], Array]) -> Weights:
        w = {f"{dst}mlp.W_gate.weight": get(f"{src}{cls.MLP}.gate.weight")}
        for e in range(cfg.n_experts):
            for ours, theirs in (("W_gate", cls.GATE), ("W_in", cls.IN), ("W_out", cls.OUT)):
                w[f"{dst}mlp.experts.{e}.{ours}.weight"] = get(
                    f"{src}{cls.MLP}.experts.{e}.{theirs}.weight")
        return w


class Qwen3Moe(Mixtral):
    """Qwen3MoeForCausalLM: Qwen3's norms of queries and keys, a window of all layers or none."""

    default_kv_heads, qk_norm = 4, "head"
    MLP, GATE, IN, OUT = "mlp", "gate_proj", "up_proj", "down_proj"

    @staticmethod
    def biased(hf: dict) -> str:
        return Llama.biased(hf)

    @staticmethod
    def windows(hf: dict) -> tuple[int | None, ...]:
        window = hf.get("sliding_window", 4096) if hf.get("use_sliding_window", False) else None
        return (window,) * hf["num_hidden_layers"]

    @classmethod
    def config(cls, hf: dict) -> Config:
        cfg = super().config({"rms_norm_eps": 1e-6, "rope_theta": 1e4, **hf,
                              "intermediate_size": hf.get("moe_intermediate_size", 768)})
        return replace(cfg, n_experts=hf.get("num_experts", 128),
                       experts_per_token=hf.get("num_experts_per_tok", 8),
                       norm_expert_weights=hf.get("norm_topk_prob", False))


class Olmo2(Llama):
    """Olmo2ForCausalLM: norms only of what is added; one norm of all heads' queries, or keys."""

    qk_norm, norms_before, norms_after = "all", False, True

    @classmethod
    def config(cls, hf: dict) -> Config:
        return super().config({"rms_norm_eps": 1e-5, **hf})


class Gemma(Llama):
    """GemmaForCausalLM: gains less one, a scaled embedding, a tied head."""

    default_head, default_kv_heads = 256, 16
    gain_offset = 1.0

    @classmethod
    def config(cls, hf: dict) -> Config:
        return super().config({"tie_word_embeddings": True, "hidden_act": "gelu_pytorch_tanh",
                               **hf})

    @classmethod
    def weights(cls, cfg: Config, hf: dict, tensors: Tensors) -> Weights:
        w = super().weights(cfg, hf, tensors)
        w["embed.W_E"] = w["embed.W_E"] * math.sqrt(cfg.d_model)
        return w


class Gemma2(Gemma):
    """Gemma2ForCausalLM: norms before and after, soft caps, windows in every other layer."""

    default_kv_heads, norms_after = 4, True
    pattern, caps = 2, (50.0, 30.0)

    @classmethod
    def windows(cls, hf: dict) -> tuple[int | None, ...]:
        pattern = hf.get("sliding_window_pattern", cls.pattern)
        kinds = hf.get("layer_types") or [
            "sliding_attention" if (l + 1) % pattern else "full_attention"
            for l in range(hf["num_hidden_layers"])]
        window = hf.get("sliding_window", 4096)
        return tuple(window if k == "sliding_attention" else None for k in kinds)

    @classmethod
    def config(cls, hf: dict) -> Config:
        act = hf.get("hidden_activation", "gelu_pytorch_tanh")
        cfg = super().config({**hf, "hidden_act": act})
        scale = math.sqrt(hf.get("query_pre_attn_scalar", 256))
        return replace(cfg, attn_scale=(scale,) * cfg.n_layers,
                       score_cap=hf.get("attn_logit_softcapping", cls.caps[0]) or 0.0,
                       logit_cap=hf.get("final_logit_softcapping", cls.caps[1]) or 0.0)


class Gemma3(Gemma2):
    """Gemma3ForCausalLM: norms of queries and keys, another rotary base in local layers."""

    qk_norm, pattern, caps = "head", 6, (0.0, 0.0)

    @classmethod
    def config(cls, hf: dict) -> Config:
        cfg = super().config({"rope_theta": 1e6, **hf})
        local = {"model_type": "", "rope_theta": hf.get("rope_local_base_freq", 1e4)}
        return replace(cfg, local_inv_freq=inverse_frequencies(local, cfg.d_head))


class Granite(Llama):
    """GraniteForCausalLM: multipliers, which go into the weights."""

    @classmethod
    def config(cls, hf: dict) -> Config:
        cfg = super().config(hf)
        scale = 1.0 / hf.get("attention_multiplier", 1.0)
        return replace(cfg, attn_scale=(scale,) * cfg.n_layers)

    @classmethod
    def weights(cls, cfg: Config, hf: dict, tensors: Tensors) -> Weights:
        w = super().weights(cfg, hf, tensors)
        w["embed.W_E"] = w["embed.W_E"] * hf.get("embedding_multiplier", 1.0)
        w["unembed.W_U"] = w["unembed.W_U"] / hf.get("logits_scaling", 1.0)
        for l in range(cfg.n_layers):
            for name in ("attn.W_O", "attn.b_O", "mlp.W_out", "mlp.b_out"):
                w[f"blocks.{l}.{name}"] = (w[f"blocks.{l}.{name}"]
                                           * hf.get("residual_multiplier", 1.0))
        return w


class SmolLM3(Llama):
    """SmolLM3ForCausalLM: layers without rotary positions."""

    default_kv_heads = 4

    @classmethod
    def config(cls, hf: dict) -> Config:
        cfg = super().config({"rope_theta": 2e6, "tie_word_embeddings": True, **hf})
        every = hf.get("no_rope_layer_interval", 4)
        turned = hf.get("no_rope_layers") or [int((l + 1) % every != 0)
                                              for l in range(cfg.n_layers)]
        return replace(cfg, unrotated=tuple(l for l, t in enumerate(turned) if not t))

    @classmethod
    def windows(cls, hf: dict) -> tuple[int | None, ...]:
        window = hf.get("sliding_window") if hf.get("use_sliding_window", False) else None
        kinds = hf.get("layer_types") or ["full_attention"] * hf["num_hidden_layers"]
        return tuple(window if k == "sliding_attention" else None for k in kinds)


class Phi3(Llama):
    """Phi3ForCausalLM: q, k and v in one matrix, gate and up in another."""

    @staticmethod
    def windows(hf: dict) -> tuple[int | None, ...]:
        return (hf.get("sliding_window"),) * hf["num_hidden_layers"]

    @classmethod
    def weights(cls, cfg: Config, hf: dict, tensors: Tensors) -> Weights:
        q, kv = cfg.n_heads * cfg.d_head, cfg.n_kv_heads * cfg.d_head
        parts: Tensors = dict(tensors)

        def rows(name: str, start: int, end: int) -> Callable[[], Array]:
            return lambda: tensors[name]()[start:end]

        for l in range(cfg.n_layers):
            b = f"model.layers.{l}."
            for x, start, end in (("q", 0, q), ("k", q, q + kv), ("v", q + kv, q + 2 * kv)):
                parts[f"{b}self_attn.{x}_proj.weight"] = rows(f"{b}self_attn.qkv_proj.weight",
                                                              start, end)
            for x, start in (("gate", 0), ("up", cfg.d_mlp)):
                parts[f"{b}mlp.{x}_proj.weight"] = rows(f"{b}mlp.gate_up_proj.weight", start,
                                                        start + cfg.d_mlp)
        return super().weights(cfg, hf, parts)


class Biased:
    """Families of LayerNorm whose tensors are Linears with and without biases: by a table.

    NAMES: ours -> theirs, in a block; a missing bias is zero.
    """

    PREFIX, LAYER = "model.", "layers.{}."
    EMBED, POS, POS_OFFSET, HEAD = "embed_tokens.weight", "", 0, "lm_head"
    FINAL = "norm"
    NAMES: dict[str, str] = {}

    @classmethod
    def weights(cls, cfg: Config, hf: dict, tensors: Tensors) -> Weights:
        def get(name: str) -> Array:
            return tensors[cls.PREFIX + name]()

        def bias(name: str, n: int) -> Array:
            return get(name) if cls.PREFIX + name in tensors else np.zeros(n)

        H, dh, D = cfg.n_heads, cfg.d_head, cfg.d_model
        w: Weights = {"embed.W_E": get(cls.EMBED)}
        if cls.POS:
            w["pos_embed.W_pos"] = get(cls.POS)[cls.POS_OFFSET:]
        for l in range(cfg.n_layers):
            src, dst = cls.LAYER.format(l), f"blocks.{l}."
            for ours in ("ln1", "ln2"):
                name = src + cls.norm(ours, cfg)
                w[f"{dst}{ours}.w"], w[f"{dst}{ours}.b"] = get(name + ".weight"), get(name + ".bias")
            for x, n in (("Q", H), ("K", cfg.n_kv_heads), ("V", cfg.n_kv_heads)):
                name = src + cls.NAMES[x]
                w[f"{dst}attn.W_{x}"] = heads(get(name + ".weight"), n)
                w[f"{dst}attn.b_{x}"] = heads(bias(name + ".bias", n * dh), n)
            w[dst + "attn.W_O"] = get(src + cls.NAMES["O"] + ".weight").T.reshape(H, dh, D)
            w[dst + "attn.b_O"] = bias(src + cls.NAMES["O"] + ".bias", D)
            for ours, n in (("gate", cfg.d_mlp), ("in", cfg.d_mlp), ("out", D)):
                if ours in cls.NAMES:
                    name = src + cls.NAMES[ours]
                    w[f"{dst}mlp.W_{ours}"] = get(name + ".weight").T
                    w[f"{dst}mlp.b_{ours}"] = bias(name + ".bias", n)
        w["ln_final.w"], w["ln_final.b"] = get(cls.FINAL + ".weight"), get(cls.FINAL + ".bias")
        set_unembed(w, cfg, tensors, cls.HEAD + ".weight")
        if cls.HEAD + ".bias" in tensors:
            w["unembed.b_U"] = tensors[cls.HEAD + ".bias"]()
        return w

    @classmethod
    def norm(cls, ours: str, cfg: Config) -> str:
        return cls.NAMES[ours]


SELF_ATTN = {x.upper(): f"self_attn.{x}_proj" for x in "qkvo"}


class Phi(Biased):
    """PhiForCausalLM: parallel behind one norm, partly rotary, a head with a bias."""

    FINAL = "final_layernorm"
    NAMES = {**SELF_ATTN, "O": "self_attn.dense", "in": "mlp.fc1", "out": "mlp.fc2",
             "ln1": "input_layernorm", "ln2": "input_layernorm"}

    @staticmethod
    def config(hf: dict) -> Config:
        d_head = hf["hidden_size"] // hf["num_attention_heads"]
        share = hf.get("partial_rotary_factor", 0.5)
        return frame(hf, eps=hf.get("layer_norm_eps", 1e-5), parallel=True,
                     act_fn=hf.get("hidden_act", "gelu_new"),
                     inv_freq=inverse_frequencies({**hf, "partial_rotary_factor": share}, d_head))


class Starcoder2(Biased):
    """Starcoder2ForCausalLM: rotary, grouped queries, perhaps a window."""

    NAMES = {**SELF_ATTN, "in": "mlp.c_fc", "out": "mlp.c_proj", "ln1": "input_layernorm",
             "ln2": "post_attention_layernorm"}

    @staticmethod
    def config(hf: dict) -> Config:
        cfg = frame({"tie_word_embeddings": True, **hf}, eps=hf.get("norm_epsilon", 1e-5),
                    act_fn=hf.get("hidden_act", "gelu_pytorch_tanh"),
                    inv_freq=inverse_frequencies(
                        hf, hf["hidden_size"] // hf["num_attention_heads"]))
        return replace(cfg, windows=(hf.get("sliding_window"),) * cfg.n_layers)


class StableLm(Biased):
    """StableLmForCausalLM: LayerNorm and a gated MLP, in sequence or parallel behind one norm."""

    NAMES = {**SELF_ATTN, "gate": "mlp.gate_proj", "in": "mlp.up_proj", "out": "mlp.down_proj",
             "ln1": "input_layernorm"}

    @classmethod
    def norm(cls, ours: str, cfg: Config) -> str:
        return "input_layernorm" if ours == "ln1" or cfg.parallel else "post_attention_layernorm"

    @staticmethod
    def config(hf: dict) -> Config:
        d_head = hf["hidden_size"] // hf["num_attention_heads"]
        share = hf.get("partial_rotary_factor", 0.25)
        return frame(hf, eps=hf.get("layer_norm_eps", 1e-5), gated=True,
                     parallel=hf.get("use_parallel_residual", False),
                     act_fn=hf.get("hidden_act", "silu"),
                     inv_freq=inverse_frequencies({**hf, "partial_rotary_factor": share}, d_head))


class Opt(Biased):
    """OPTForCausalLM: positions stored behind two rows, ReLU."""

    PREFIX, LAYER = "model.decoder.", "layers.{}."
    POS, POS_OFFSET, FINAL = "embed_positions.weight", 2, "final_layer_norm"
    NAMES = {**SELF_ATTN, "O": "self_attn.out_proj", "in": "fc1", "out": "fc2",
             "ln1": "self_attn_layer_norm", "ln2": "final_layer_norm"}

    @staticmethod
    def config(hf: dict) -> Config:
        return frame({"tie_word_embeddings": True, "intermediate_size": hf["ffn_dim"], **hf},
                     eps=1e-5, act_fn=hf.get("activation_function", "relu"))


class GptJ(Biased):
    """GPTJForCausalLM: parallel behind one norm, neighbours turned, a head with a bias."""

    PREFIX, LAYER, EMBED, FINAL = "transformer.", "h.{}.", "wte.weight", "ln_f"
    NAMES = {**{x.upper(): f"attn.{x}_proj" for x in "qkv"}, "O": "attn.out_proj",
             "in": "mlp.fc_in", "out": "mlp.fc_out", "ln1": "ln_1", "ln2": "ln_1"}

    @staticmethod
    def config(hf: dict) -> Config:
        dim = hf.get("rotary_dim") or 64
        freq = 10000.0 ** -(np.arange(0, dim, 2, dtype=np.float64) / dim)
        return frame(old_names(hf), eps=hf.get("layer_norm_epsilon", 1e-5), parallel=True,
                     act_fn=hf.get("activation_function", "gelu_new"), adjacent=True,
                     inv_freq=tuple(freq.tolist()))


class Bloom(Biased):
    """BloomForCausalLM: ALiBi; a norm of the embedding, which W_E holds here."""

    PREFIX, LAYER, EMBED, FINAL = "transformer.", "h.{}.", "word_embeddings.weight", "ln_f"
    NAMES = {**{x: f"self_attention.{x}" for x in "QKV"}, "O": "self_attention.dense",
             "in": "mlp.dense_h_to_4h", "out": "mlp.dense_4h_to_h", "ln1": "input_layernorm",
             "ln2": "post_attention_layernorm"}

    @staticmethod
    def config(hf: dict) -> Config:
        hf = {"tie_word_embeddings": True, **hf, "num_hidden_layers": hf["n_layer"],
              "num_attention_heads": hf["n_head"], "intermediate_size": 4 * hf["hidden_size"],
              "max_position_embeddings": hf.get("seq_length", 2048)}
        return frame(hf, eps=hf.get("layer_norm_epsilon", 1e-5), act_fn="bloom_gelu", alibi=True,
                     embed_norm=True)

    @classmethod
    def weights(cls, cfg: Config, hf: dict, tensors: Tensors) -> Weights:
        parts: Tensors = dict(tensors)

        def rows(name: str, i: int) -> Callable[[], Array]:
            def read() -> Array:
                a = tensors[name]()
                a = a.reshape(cfg.n_heads, 3, cfg.d_head, *a.shape[1:])[:, i]
                return a.reshape(-1, *a.shape[2:])
            return read

        for l in range(cfg.n_layers):
            for i, x in enumerate("QKV"):
                for kind in ("weight", "bias"):
                    name = f"transformer.h.{l}.self_attention."
                    parts[f"{name}{x}.{kind}"] = rows(f"{name}query_key_value.{kind}", i)
        w = super().weights(cfg, hf, parts)
        x = centred(w["embed.W_E"], -1)
        x = x / np.sqrt((x * x).mean(axis=-1, keepdims=True) + cfg.eps)
        norm = "transformer.word_embeddings_layernorm."
        w["embed.W_E"] = x * tensors[norm + "weight"]() + tensors[norm + "bias"]()
        if cfg.tied:
            w["unembed.W_U"] = tensors["transformer.word_embeddings.weight"]().T.copy()
        return w


class GptBigCode(Biased):
    """GPTBigCodeForCausalLM: GPT-2 with one head of keys and values."""

    PREFIX, LAYER, EMBED, FINAL = "transformer.", "h.{}.", "wte.weight", "ln_f"
    POS = "wpe.weight"
    NAMES = {**{x: f"attn.{x}" for x in "QKV"}, "O": "attn.c_proj", "in": "mlp.c_fc",
             "out": "mlp.c_proj", "ln1": "ln_1", "ln2": "ln_2"}

    @staticmethod
    def config(hf: dict) -> Config:
        cfg = frame({"tie_word_embeddings": True, "num_key_value_heads": 1, **old_names(hf)},
                    eps=hf.get("layer_norm_epsilon", 1e-5),
                    act_fn=hf.get("activation_function", "gelu_pytorch_tanh"))
        return cfg if hf.get("scale_attn_weights", True) else replace(
            cfg, attn_scale=(1.0,) * cfg.n_layers)

    @classmethod
    def weights(cls, cfg: Config, hf: dict, tensors: Tensors) -> Weights:
        q, kv = cfg.n_heads * cfg.d_head, cfg.n_kv_heads * cfg.d_head
        parts: Tensors = dict(tensors)

        def rows(name: str, start: int, end: int) -> Callable[[], Array]:
            return lambda: tensors[name]()[start:end]

        for l in range(cfg.n_layers):
            for x, start, end in (("Q", 0, q), ("K", q, q + kv), ("V", q + kv, q + 2 * kv)):
                for kind in ("weight", "bias"):
                    parts[f"transformer.h.{l}.attn.{x}.{kind}"] = rows(
                        f"transformer.h.{l}.attn.c_attn.{kind}", start, end)
        return super().weights(cfg, hf, parts)


class HookedTransformer:
    """TransformerLens's own: HookedTransformerConfig's keys, and its state_dict's names."""

    @staticmethod
    def config(hf: dict) -> Config:
        n, dh, kind = hf["n_layers"], hf["d_head"], hf["normalization_type"]
        scale = hf["attn_scale"] if hf["use_attn_scale"] else 1.0
        positions = hf["positional_embedding_type"]
        rope = {"rope_theta": hf["rotary_base"], "model_type": "llama",
                "partial_rotary_factor": (hf["rotary_dim"] or 0) / dh}
        if hf["use_NTK_by_parts_rope"]:
            rope["rope_scaling"] = {
                "rope_type": "llama3", "factor": hf["NTK_by_parts_factor"],
                "low_freq_factor": hf["NTK_by_parts_low_freq_factor"],
                "high_freq_factor": hf["NTK_by_parts_high_freq_factor"],
                "original_max_position_embeddings": hf["NTK_original_ctx_len"]}
        local = hf["attn_types"] if hf["use_local_attn"] else ["global"] * n
        return Config(
            n_layers=n, d_model=hf["d_model"], n_heads=hf["n_heads"],
            n_kv_heads=hf["n_key_value_heads"] or hf["n_heads"], d_head=dh,
            d_mlp=hf["d_mlp"] or 0, d_vocab=hf["d_vocab"], n_ctx=hf["n_ctx"], eps=hf["eps"],
            act_fn=hf["act_fn"] or "", tied=False,
            attn_scale=tuple(scale * (l + 1 if hf["scale_attn_by_inverse_layer_idx"] else 1)
                             for l in range(n)),
            windows=tuple(hf["window_size"] if kind == "local" else None for kind in local),
            norm=kind.removesuffix("Pre") if kind else "none",
            folded=bool(kind) and kind.endswith("Pre"),
            final_norm="RMS" if hf["final_rms"] and kind in ("LN", "LNPre") else "",
            parallel=hf["parallel_attn_mlp"], gated=hf["gated_mlp"], bias_last=hf["gated_mlp"],
            inv_freq=inverse_frequencies(rope, dh) if positions == "rotary" else (),
            adjacent=hf["rotary_adjacent_pairs"],
            qk_norm="head" if hf["use_qk_norm"] else "", norms_before=kind is not None,
            norms_after=hf["use_normalization_before_and_after"] and kind is not None,
            score_cap=max(hf["attn_scores_soft_cap"], 0.0),
            logit_cap=max(hf["output_logits_soft_cap"], 0.0), alibi=positions == "alibi",
            even_slopes=True, embed_norm=hf["post_embedding_ln"], attn_only=hf["attn_only"],
            shortformer=positions == "shortformer", mlp_norm=hf["act_fn"] == "solu_ln",
            d_vocab_out=hf["d_vocab_out"], n_experts=hf["num_experts"] or 0,
            experts_per_token=hf["experts_per_token"] or 0)

    @staticmethod
    def weights(cfg: Config, hf: dict, tensors: Tensors) -> Weights:
        buffers = (".mask", ".IGNORE", ".rotary_sin", ".rotary_cos")
        w = {name.replace("attn._", "attn."): read() for name, read in tensors.items()
             if not name.endswith(buffers)}
        if cfg.alibi:
            del w["pos_embed.W_pos"]  # it is there, and unused
        if cfg.embed_norm:
            x = centred(w["embed.W_E"], -1)
            x = x / np.sqrt((x * x).mean(axis=-1, keepdims=True) + cfg.eps)
            w["embed.W_E"] = x * w.pop("embed.ln.w") + w.pop("embed.ln.b")
        return w


def old_names(hf: dict) -> dict:
    """GPT-2's keys under the newer names."""
    return {**hf, "num_hidden_layers": hf["n_layer"], "hidden_size": hf["n_embd"],
            "num_attention_heads": hf["n_head"], "max_position_embeddings": hf["n_positions"],
            "intermediate_size": hf.get("n_inner") or 4 * hf["n_embd"]}


def frame(hf: dict, **more: object) -> Config:
    """A Config of LayerNorm from the usual keys."""
    n_layers, d_model, n_heads = (hf["num_hidden_layers"], hf["hidden_size"],
                                  hf["num_attention_heads"])
    d_head = d_model // n_heads
    keys = dict(n_layers=n_layers, d_model=d_model, n_heads=n_heads,
                n_kv_heads=hf.get("num_key_value_heads") or n_heads, d_head=d_head,
                d_mlp=hf["intermediate_size"], d_vocab=hf["vocab_size"],
                n_ctx=hf["max_position_embeddings"], attn_scale=(math.sqrt(d_head),) * n_layers,
                windows=(None,) * n_layers, tied=hf.get("tie_word_embeddings", False))
    return Config(**{**keys, **more})


FAMILIES = {"gpt2": Gpt2, "gpt_neo": GptNeo, "gpt_neox": GptNeoX, "llama": Llama,
            "mistral": Mistral, "qwen2": Qwen2, "qwen3": Qwen3, "olmo2": Olmo2, "gemma": Gemma,
            "gemma2": Gemma2, "gemma3_text": Gemma3, "granite": Granite, "smollm3": SmolLM3,
            "phi": Phi, "phi3": Phi3, "gptj": GptJ, "opt": Opt, "bloom": Bloom,
            "gpt_bigcode": GptBigCode,
            "starcoder2": Starcoder2, "stablelm": StableLm, "mixtral": Mixtral,
            "qwen3_moe": Qwen3Moe, "hooked_transformer": HookedTransformer}


def set_unembed(w: Weights, cfg: Config, tensors: Tensors, name: str) -> None:
    """As in Hugging Face, a tied model's own output matrix is not looked at."""
    unembed = w["embed.W_E"] if cfg.tied else tensors[name]()
    w["unembed.W_U"] = unembed.T.copy()
    w["unembed.b_U"] = np.zeros(cfg.d_vocab)


def read_config(model_dir: str) -> dict:
    with open(os.path.join(model_dir, "config.json"), encoding="utf-8") as f:
        return json.load(f)


def read_model(model_dir: str) -> tuple[Config, Weights]:
    """A directory's model as it is, before processing."""
    hf = read_config(model_dir)
    family = FAMILIES[hf.get("model_type", "hooked_transformer")]
    cfg = family.config(hf)
    return cfg, family.weights(cfg, hf, read_tensors(model_dir))


def load(model_dir: str, **processing: bool) -> Model:
    """A directory's model, processed; the four flags of PROCESSING are on unless given."""
    return process(*read_model(model_dir), **processing)


# --- weight processing --------------------------------------------------------------------

def centred(w: Array, axis: int) -> Array:
    return w - w.mean(axis=axis, keepdims=True)


def fold_layer_norm(cfg: Config, w: Weights) -> None:
    """Gains and biases go into the weights that read them; those are then centred over D.

    RMSNorm has no bias, and it does not centre what they read: gains only.
    """
    def fold(norm: str, readers: list[tuple[str, str]]) -> None:
        gain, bias = w.pop(norm + ".w"), w.pop(norm + ".b", None)
        for W, b in readers:
            if bias is not None:
                w[b] = w[b] + np.tensordot(bias, w[W], axes=(0, w[W].ndim - 2))
            w[W] = w[W] * gain[:, None]  # D is the last axis but one, with heads or without
            if cfg.norm == "LN":
                w[W] = centred(w[W], -2)

    for l in range(cfg.n_layers if cfg.norms_before else 0):
        attn, mlp = f"blocks.{l}.attn.", f"blocks.{l}.mlp."
        fold(f"blocks.{l}.ln1", [(f"{attn}W_{x}", f"{attn}b_{x}") for x in "QKV"])
        if cfg.attn_only:
            continue
        if cfg.mlp_norm and cfg.norm == "LN":
            fold(f"{mlp}ln", [(f"{mlp}W_out", f"{mlp}b_out")])
        fold(f"blocks.{l}.ln2", [(f"{mlp}W_{x}", f"{mlp}b_{x}")
                                 for x in (("gate", "in") if cfg.gated else ("in",))])
    fold("ln_final", [("unembed.W_U", "unembed.b_U")])


def low_rank_svd(A: Array, B: Array) -> tuple[Array, Array, Array]:
    """U [.., m, r], S [.., r] falling, V [.., n, r] with A B = U diag(S) V^T; A [.., m, r].

    By QR, as the product's own rank is r at most. Signs are free in theory; here a pair's
    are such that the element of U's column with the largest magnitude (the first of equal
    ones) is positive.
    """
    Qa, Ra = np.linalg.qr(A)
    Qb, Rb = np.linalg.qr(np.swapaxes(B, -1, -2))
    Um, S, Vm = np.linalg.svd(Ra @ np.swapaxes(Rb, -1, -2))
    U, V = Qa @ Um, Qb @ np.swapaxes(Vm, -1, -2)
    largest = np.take_along_axis(U, np.abs(U).argmax(axis=-2)[..., None, :], axis=-2)
    sign = np.where(largest < 0, -1.0, 1.0)
    return U * sign, S, V * sign


def refactor_attention(cfg: Config, w: Weights) -> None:
    """TransformerLens's refactor_factored_attn_matrices; each head's behaviour is unchanged.

    With b_Q and b_K as one more row of W_Q and W_K [D + 1, dh], W_Q W_K^T = U S V^T gives
    W_Q = U sqrt(S), W_K = V sqrt(S); W_V W_O = U S V^T gives W_V = U S, W_O = V^T, after
    b_V has gone into b_O. Columns come by falling singular value; for their signs see
    low_rank_svd, whose U is W_Q's here, bias row included, or W_V's.
    """
    if cfg.rotary_dim:
        raise ValueError(f"{REFACTOR}: with rotary positions the QK matrix depends on them")
    for l in range(cfg.n_layers):
        b = f"blocks.{l}.attn."
        q, k = (np.concatenate([w[f"{b}W_{x}"], w[f"{b}b_{x}"][:, None]], axis=1) for x in "QK")
        U, S, V = low_rank_svd(q, np.swapaxes(k, 1, 2))
        for x, side in (("Q", U), ("K", V)):
            side = side * np.sqrt(S)[:, None]
            w[f"{b}W_{x}"], w[f"{b}b_{x}"] = side[:, :-1], side[:, -1]
        fold_value_bias(cfg, w, b)
        U, S, V = low_rank_svd(w[b + "W_V"], w[b + "W_O"])
        w[b + "W_V"], w[b + "W_O"] = U * S[:, None], np.swapaxes(V, 1, 2)


def fold_value_bias(cfg: Config, w: Weights, b: str) -> None:
    """Patterns sum to one, so b_V adds a constant to the layer's output."""
    b_V = np.repeat(w[b + "b_V"], cfg.n_heads // cfg.n_kv_heads, axis=0)
    w[b + "b_O"] = w[b + "b_O"] + np.einsum("he,hed->d", b_V, w[b + "W_O"])
    w[b + "b_V"] = np.zeros_like(w[b + "b_V"])


def refused(cfg: Config, **flags: bool) -> str | None:
    """A step that would make another model of one of TransformerLens's own."""
    fold, centre = flags.get("fold_ln", True), flags.get("center_writing_weights", True)
    fold = fold and not cfg.folded and cfg.norm != "none"
    if cfg.shortformer and fold:
        return "fold_ln: W_pos is added behind the norm"
    if cfg.shortformer and centre and cfg.last_norm == "LN":
        return "center_writing_weights: no norm follows W_pos"
    if fold and cfg.last_norm != cfg.norm:
        return "fold_ln: W_U would be centred for a norm that does not centre"
    if fold and cfg.bias_last and cfg.norm == "LN":
        return "fold_ln: ln2's bias would be added last"
    return None


def process(cfg: Config, weights: Weights, fold_ln: bool = True,
            center_writing_weights: bool = True, center_unembed: bool = True,
            fold_value_biases: bool = True,
            refactor_factored_attn_matrices: bool = False) -> Model:
    """TransformerLens's load_and_process_state_dict, in its order, in float64."""
    reason = refused(cfg, fold_ln=fold_ln, center_writing_weights=center_writing_weights)
    if reason:
        raise ValueError(reason)
    w = dict(weights)
    blocks = [f"blocks.{l}." for l in range(cfg.n_layers)]
    fold_ln = fold_ln and not cfg.n_experts  # TransformerLens folds no norm of such a model
    if fold_ln and not cfg.folded and cfg.norm != "none":
        fold_layer_norm(cfg, w)
    if center_writing_weights and cfg.last_norm == "LN":
        names = ([] if cfg.embed_norm else ["embed.W_E"]) + (
            ["pos_embed.W_pos"] if "pos_embed.W_pos" in w else [])
        for b in blocks:
            names += [b + "attn.W_O", b + "attn.b_O"]
            names += [] if cfg.attn_only else [b + "mlp.W_out", b + "mlp.b_out"]
        for name in names:
            w[name] = centred(w[name], -1)
    if center_unembed and not cfg.logit_cap:
        w["unembed.W_U"] = centred(w["unembed.W_U"], -1)
        w["unembed.b_U"] = centred(w["unembed.b_U"], -1)
    if fold_value_biases:
        for b in blocks:
            fold_value_bias(cfg, w, b + "attn.")
    if refactor_factored_attn_matrices:
        refactor_attention(cfg, w)
    return Model(cfg, w, fold_ln or cfg.folded)
