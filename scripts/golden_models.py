"""The tiny random models of tests/golden/data: configs, weights and every kind of file.

MODELS lists them; write_model and write_tokenizer make an ordinary Hugging Face directory.
make_golden.py adds the prompts and the truth. make_weights also serves larger shapes
(scripts/random_models.py).

Gains are not 1 and biases not 0, so that a forgotten one shows. RandomState's stream is
frozen, so that the same seed gives the same bytes everywhere. torch is needed only for the
.bin files, which torch itself writes.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from golden_hooked import hooked_buffers, hooked_config, hooked_weights

N_CTX = 48
BOS = "<|endoftext|>"
# Each word becomes one token by a chain of merges from the left.
WORDS = (" the", " to", " Mary", " John", " cat", " and", " gave", " red", " blue", " dog",
         "er", "in", "He")
FLAGS = ("fold_ln", "center_writing_weights", "center_unembed", "fold_value_biases")
REFACTOR = "refactor_factored_attn_matrices"
# Variants: all four flags on, none, one alone on, one alone off, all four and the refactoring.
VARIANTS = ("processed", "raw", *FLAGS, *(f"no_{f}" for f in FLAGS), "refactor")
Weights = dict[str, np.ndarray]


def flags_of(variant: str) -> dict[str, bool]:
    if variant in ("processed", "raw"):
        return {f: variant == "processed" for f in FLAGS}
    if variant == "refactor":
        return {f: True for f in (*FLAGS, REFACTOR)}
    if variant.startswith("no_"):
        return {f: f != variant[3:] for f in FLAGS}
    return {f: f == variant for f in FLAGS}


# --- the models ---------------------------------------------------------------------------

ALL_HOOKS = ("",)  # a hook is stored when its name ends with one of these
FEW_HOOKS = ("hook_resid_post", "hook_pattern", "hook_attn_out", "hook_mlp_out",
             "ln_final.hook_normalized", "logits")
EXPERT_HOOKS = (*FEW_HOOKS, "hook_expert_weights", "hook_expert_indices")
Stored = tuple[tuple[str, ...], tuple[int, ...]]  # hooks, prompts whose hooks are stored


@dataclass(frozen=True)
class Spec:
    """One model: its config, how its file is written, and what of its truth is stored."""

    seed: int
    config: dict
    dtype: str = "F32"
    file: str = "safetensors"    # or "bin" (zip), "legacy" (what torch wrote before 1.6),
                                 # "model.pth": that file, by torch.save
    prefix: str = ""             # gpt2: "" or "transformer."
    bare: bool = False           # config.json has no model_type, as TransformerLens's own
    buffers: bool = False        # the masks and rotary tables of old checkpoints
    shared: bool = False         # bin: a tied head under its own name, on the same storage
    strided: bool = False        # bin: transposed tensors, and three in one storage
    shards: int = 1
    merges_as_pairs: bool = True  # tokenizer.json of tokenizers >= 0.20; else "a b"
    store: dict[str, Stored] = field(default_factory=dict)  # by variant


def gpt2_config(n_layer: int, n_embd: int, n_head: int, **more: object) -> dict:
    return {"architectures": ["GPT2LMHeadModel"], "model_type": "gpt2", "n_layer": n_layer,
            "n_embd": n_embd, "n_head": n_head, "n_positions": N_CTX, "n_ctx": N_CTX,
            "vocab_size": 300, "layer_norm_epsilon": 1e-5, "activation_function": "gelu_new",
            "attn_pdrop": 0.1, "embd_pdrop": 0.1, "resid_pdrop": 0.1, **more}


def neo_config(attention: list, n_embd: int, n_head: int, window: int,
               **more: object) -> dict:
    kinds = [kind for types, n in attention for _ in range(n) for kind in types]
    return {"architectures": ["GPTNeoForCausalLM"], "model_type": "gpt_neo",
            "num_layers": len(kinds), "hidden_size": n_embd, "num_heads": n_head,
            "intermediate_size": None, "attention_types": attention,
            "attention_layers": kinds, "window_size": window,
            "max_position_embeddings": N_CTX, "vocab_size": 300, "layer_norm_epsilon": 1e-5,
            "activation_function": "gelu_new", "attention_dropout": 0, "embed_dropout": 0,
            "resid_dropout": 0, **more}


def neox_config(n_layer: int, n_embd: int, n_head: int, **more: object) -> dict:
    return {"architectures": ["GPTNeoXForCausalLM"], "model_type": "gpt_neox",
            "num_hidden_layers": n_layer, "hidden_size": n_embd,
            "num_attention_heads": n_head, "intermediate_size": 4 * n_embd,
            "hidden_act": "gelu", "rotary_pct": 0.25, "rotary_emb_base": 10000,
            "use_parallel_residual": True, "max_position_embeddings": N_CTX,
            "layer_norm_eps": 1e-5, "tie_word_embeddings": False, "vocab_size": 300, **more}


def llama_config(kind: str, n_layer: int, n_embd: int, n_head: int, n_kv: int,
                 **more: object) -> dict:
    return {"architectures": [f"{kind}ForCausalLM"], "model_type": kind.lower(),
            "num_hidden_layers": n_layer, "hidden_size": n_embd,
            "num_attention_heads": n_head, "num_key_value_heads": n_kv,
            "intermediate_size": 5 * n_embd // 2, "hidden_act": "silu", "rms_norm_eps": 1e-5,
            "rope_theta": 10000.0, "max_position_embeddings": N_CTX,
            "tie_word_embeddings": False, "vocab_size": 300, **more}


def gemma_config(kind: str, n_layer: int, n_embd: int, n_head: int, n_kv: int, d_head: int,
                 **more: object) -> dict:
    model_type = {"Gemma3Text": "gemma3_text"}.get(kind, kind.lower())
    keys = {} if kind == "Gemma" else {"hidden_activation": "gelu_pytorch_tanh"}
    cfg = llama_config(kind, n_layer, n_embd, n_head, n_kv, head_dim=d_head, rms_norm_eps=1e-6,
                       tie_word_embeddings=True)
    del cfg["hidden_act"]
    return {**cfg, "architectures": [f"{kind.removesuffix('Text')}ForCausalLM"],
            "model_type": model_type, **keys, **more}


def phi_config(n_layer: int, n_embd: int, n_head: int, **more: object) -> dict:
    cfg = llama_config("Phi", n_layer, n_embd, n_head, n_head)
    del cfg["rms_norm_eps"]
    return {**cfg, "hidden_act": "gelu_new", "layer_norm_eps": 1e-5,
            "partial_rotary_factor": 0.5, **more}


def opt_config(n_layer: int, n_embd: int, n_head: int, **more: object) -> dict:
    return {"architectures": ["OPTForCausalLM"], "model_type": "opt",
            "num_hidden_layers": n_layer, "hidden_size": n_embd, "num_attention_heads": n_head,
            "ffn_dim": 3 * n_embd, "word_embed_proj_dim": n_embd, "do_layer_norm_before": True,
            "activation_function": "relu", "max_position_embeddings": N_CTX, "dropout": 0.0,
            "vocab_size": 300, **more}


def bloom_config(n_layer: int, n_embd: int, n_head: int, **more: object) -> dict:
    return {"architectures": ["BloomForCausalLM"], "model_type": "bloom", "n_layer": n_layer,
            "hidden_size": n_embd, "n_head": n_head, "layer_norm_epsilon": 1e-5,
            "seq_length": N_CTX, "pretraining_tp": 1, "slow_but_exact": False,
            "vocab_size": 300, **more}


def starcoder2_config(n_layer: int, n_embd: int, n_head: int, n_kv: int,
                      **more: object) -> dict:
    cfg = llama_config("Starcoder2", n_layer, n_embd, n_head, n_kv)
    del cfg["rms_norm_eps"], cfg["tie_word_embeddings"]
    return {**cfg, "hidden_act": "gelu_pytorch_tanh", "norm_epsilon": 1e-5, "use_bias": True,
            **more}


def stablelm_config(n_layer: int, n_embd: int, n_head: int, n_kv: int, **more: object) -> dict:
    cfg = llama_config("StableLm", n_layer, n_embd, n_head, n_kv)
    del cfg["rms_norm_eps"]
    return {**cfg, "layer_norm_eps": 1e-5, "partial_rotary_factor": 0.25, **more}


def own_config(n_layers: int, d_model: int, n_heads: int, d_head: int,
               **more: object) -> dict:
    return {"model_type": "hooked_transformer",
            **hooked_config(N_CTX, n_layers, d_model, n_heads, d_head, **more)}


def qwen3_moe_config(n_layer: int, n_embd: int, n_head: int, n_kv: int,
                     **more: object) -> dict:
    return llama_config("Qwen3Moe", n_layer, n_embd, n_head, n_kv, model_type="qwen3_moe",
                        rms_norm_eps=1e-6, moe_intermediate_size=14, decoder_sparse_step=1,
                        mlp_only_layers=[], **more)


MOST, SHORT, MIDDLE = (0, 1, 2, 3, 5), (0, 1, 3), (1, 2)
ONLY_ON = {v: (FEW_HOOKS, (3,)) for v in FLAGS}
ONLY_OFF = {f"no_{v}": (FEW_HOOKS, (3,)) for v in FLAGS}
EVERYTHING = {"processed": (ALL_HOOKS, SHORT), "raw": (ALL_HOOKS, SHORT), **ONLY_ON}
PROCESSED = {"processed": (FEW_HOOKS, SHORT)}
OWN = {"processed": (ALL_HOOKS, MIDDLE), "raw": (ALL_HOOKS, MIDDLE)}
OWN_RAW = {"raw": (ALL_HOOKS, MIDDLE)}
LLAMA3_ROPE = {"rope_type": "llama3", "factor": 4.0, "low_freq_factor": 1.0,
               "high_freq_factor": 4.0, "original_max_position_embeddings": 32}
MODELS = {
    "gpt2_gelu_new": Spec(
        102, gpt2_config(2, 32, 4), merges_as_pairs=False,
        store={"processed": (ALL_HOOKS, MOST), "raw": (ALL_HOOKS, SHORT),
               **ONLY_ON, **ONLY_OFF}),
    "gpt2_gelu": Spec(
        204, gpt2_config(3, 24, 3, activation_function="gelu", tie_word_embeddings=False,
                         scale_attn_by_inverse_layer_idx=True),
        prefix="transformer.", store=EVERYTHING),
    "gpt2_relu": Spec(
        303, gpt2_config(2, 36, 3, activation_function="relu", n_inner=50,
                         layer_norm_epsilon=1e-3),
        buffers=True, store=EVERYTHING),
    "gpt2_bf16": Spec(404, gpt2_config(2, 32, 4), dtype="BF16",
                      store={**PROCESSED, "refactor": (ALL_HOOKS, (3,))}),
    "gpt2_f16": Spec(505, gpt2_config(2, 32, 2), dtype="F16", prefix="transformer.",
                     store=PROCESSED),
    "gpt2_sharded": Spec(606, gpt2_config(2, 16, 2), prefix="transformer.", shards=2,
                         store=PROCESSED),
    "gpt2_unscaled": Spec(707, gpt2_config(2, 16, 1, scale_attn_weights=False),
                          store=PROCESSED),
    # As TinyStories is: a zip .bin with masks and the tied head on the embedding's storage.
    # The window is shorter than all prompts but one.
    "gpt_neo": Spec(
        1101, neo_config([[["global", "local"], 1]], 24, 3, 5),
        file="bin", buffers=True, shared=True,
        store={**EVERYTHING, "refactor": (ALL_HOOKS, (3,))}),
    "gpt_neo_local": Spec(
        1202, neo_config([[["local"], 1], [["global", "local"], 1]], 16, 2, 7,
                         intermediate_size=40, activation_function="gelu",
                         tie_word_embeddings=False, layer_norm_epsilon=1e-4),
        dtype="BF16", store={"processed": (FEW_HOOKS, MIDDLE)}),
    "gpt_neox": Spec(2101, neox_config(2, 32, 2), store=EVERYTHING),
    "gpt_neox_sequential": Spec(
        2202, neox_config(2, 24, 3, use_parallel_residual=False, rotary_pct=1.0,
                          rotary_emb_base=500, intermediate_size=40),
        store={"processed": (ALL_HOOKS, MIDDLE)}),
    # As old Pythia revisions are: halves in the legacy format, with masks and tables.
    "gpt_neox_legacy": Spec(
        2303, neox_config(2, 32, 4, rotary_pct=0.5, hidden_act="gelu_new"), dtype="F16",
        file="legacy", buffers=True, store={"processed": (FEW_HOOKS, MIDDLE)}),
    "llama": Spec(3101, llama_config("Llama", 2, 24, 3, 3), store=EVERYTHING),
    "llama_gqa": Spec(
        3202, llama_config("Llama", 2, 24, 4, 2, head_dim=8, tie_word_embeddings=True,
                           rope_theta=300.0),
        shards=2, store={"processed": (ALL_HOOKS, MIDDLE)}),
    "llama_linear": Spec(
        3303, llama_config("Llama", 2, 16, 2, 1, attention_bias=True,
                           rope_scaling={"rope_type": "linear", "factor": 2.5}),
        file="bin", shards=2, store={"processed": (FEW_HOOKS, MIDDLE)}),
    "llama_llama3": Spec(
        3404, llama_config("Llama", 2, 32, 2, 1, rope_theta=100.0, rope_scaling=LLAMA3_ROPE),
        dtype="BF16", store={"processed": (FEW_HOOKS, MIDDLE)}),
    "llama_bias": Spec(
        3505, llama_config("Llama", 2, 16, 2, 2, attention_bias=True, mlp_bias=True),
        file="bin", strided=True,
        store={v: (FEW_HOOKS, MIDDLE) for v in ("processed", "raw", "fold_value_biases")}),
    "mistral": Spec(
        3606, llama_config("Mistral", 2, 16, 4, 2, sliding_window=6, rms_norm_eps=1e-6),
        store={"processed": (FEW_HOOKS, MIDDLE)}),
    # The window is there, as in Qwen2's own configs, and not used.
    "qwen2": Spec(
        3707, llama_config("Qwen2", 2, 32, 4, 2, sliding_window=4, use_sliding_window=False,
                           max_window_layers=2, tie_word_embeddings=True, rms_norm_eps=1e-6,
                           rope_theta=1000000.0),
        dtype="F16", file="bin", shared=True,
        store={"processed": (FEW_HOOKS, MIDDLE), "raw": (FEW_HOOKS, MIDDLE)}),
    "qwen3": Spec(
        3808, llama_config("Qwen3", 2, 24, 4, 2, head_dim=10, tie_word_embeddings=True,
                           rms_norm_eps=1e-6, rope_theta=1000000.0),
        dtype="BF16", store={"processed": (ALL_HOOKS, MIDDLE), "raw": (FEW_HOOKS, MIDDLE)}),
    "qwen3_window": Spec(
        3911, llama_config("Qwen3", 3, 16, 2, 1, head_dim=8, attention_bias=True,
                           use_sliding_window=True, sliding_window=5, max_window_layers=1,
                           layer_types=["full_attention", "sliding_attention",
                                        "sliding_attention"]),
        store={"processed": (FEW_HOOKS, MIDDLE)}),
    "olmo2": Spec(
        4001, llama_config("Olmo2", 2, 24, 4, 2, rope_theta=500000.0, rms_norm_eps=1e-6),
        store={"processed": (ALL_HOOKS, MIDDLE), "raw": (FEW_HOOKS, MIDDLE)}),
    "olmo2_tied": Spec(
        4102, llama_config("Olmo2", 2, 16, 2, 2, attention_bias=True, tie_word_embeddings=True),
        dtype="BF16", store={"processed": (FEW_HOOKS, MIDDLE)}),
    "gemma": Spec(
        4203, gemma_config("Gemma", 2, 16, 2, 1, 10, hidden_act="gelu_pytorch_tanh"),
        store={"processed": (ALL_HOOKS, MIDDLE), "raw": (FEW_HOOKS, MIDDLE)}),
    "gemma_7b": Spec(  # every head has keys of its own, as in the larger one
        4304, gemma_config("Gemma", 2, 24, 3, 3, 8, hidden_act="gelu_pytorch_tanh"),
        dtype="BF16", store={"processed": (FEW_HOOKS, MIDDLE)}),
    "gemma2": Spec(
        4405, gemma_config("Gemma2", 3, 24, 4, 2, 8, sliding_window=6,
                           query_pre_attn_scalar=12, attn_logit_softcapping=5.0,
                           final_logit_softcapping=6.0),
        store={"processed": (ALL_HOOKS, (1, 2, 3, 4)), "raw": (ALL_HOOKS, MIDDLE)}),
    "gemma2_uncapped": Spec(
        4506, gemma_config("Gemma2", 2, 16, 2, 1, 8, sliding_window=5,
                           query_pre_attn_scalar=8, attn_logit_softcapping=None,
                           final_logit_softcapping=None),
        dtype="BF16", store={"processed": (FEW_HOOKS, MIDDLE)}),
    "gemma3": Spec(
        4608, gemma_config("Gemma3Text", 3, 16, 2, 1, 8, sliding_window=5,
                           query_pre_attn_scalar=8, rope_theta=1000000.0,
                           rope_local_base_freq=10000.0, sliding_window_pattern=3),
        store={"processed": (ALL_HOOKS, MIDDLE), "raw": (FEW_HOOKS, MIDDLE)}),
    "gemma3_linear": Spec(
        4708, gemma_config("Gemma3Text", 2, 24, 4, 2, 6, sliding_window=6,
                           query_pre_attn_scalar=6, rope_theta=1000000.0,
                           rope_scaling={"rope_type": "linear", "factor": 8.0},
                           layer_types=["full_attention", "sliding_attention"]),
        dtype="BF16", store={"processed": (FEW_HOOKS, MIDDLE)}),
    "qwen3_yarn": Spec(
        4809, llama_config("Qwen3", 2, 16, 2, 1, head_dim=12, rope_theta=10000.0,
                           rope_scaling={"rope_type": "yarn", "factor": 4.0,
                                         "original_max_position_embeddings": 12}),
        store={"processed": (FEW_HOOKS, MIDDLE)}),
    "llama_dynamic": Spec(
        4910, llama_config("Llama", 2, 16, 2, 1,
                           rope_scaling={"rope_type": "dynamic", "factor": 2.0}),
        dtype="BF16", store={"processed": (FEW_HOOKS, MIDDLE)}),
    "granite": Spec(
        5001, llama_config("Granite", 2, 24, 4, 2, embedding_multiplier=3.0,
                           residual_multiplier=0.4, logits_scaling=2.0,
                           attention_multiplier=0.3, attention_bias=True, mlp_bias=True),
        store={"processed": (ALL_HOOKS, MIDDLE), "raw": (FEW_HOOKS, MIDDLE)}),
    "granite_tied": Spec(
        5102, llama_config("Granite", 2, 16, 2, 1, embedding_multiplier=2.0,
                           residual_multiplier=0.7, logits_scaling=0.5,
                           attention_multiplier=0.4, tie_word_embeddings=True),
        dtype="BF16", store={"processed": (FEW_HOOKS, MIDDLE)}),
    "smollm3": Spec(
        5203, llama_config("SmolLM3", 3, 16, 2, 1, pad_token_id=0, no_rope_layers=[1, 0, 1],
                           tie_word_embeddings=True),
        store={"processed": (ALL_HOOKS, MIDDLE), "raw": (FEW_HOOKS, MIDDLE)}),
    "smollm3_interval": Spec(
        5305, llama_config("SmolLM3", 3, 16, 2, 2, pad_token_id=0, no_rope_layer_interval=2),
        dtype="BF16", store={"processed": (FEW_HOOKS, MIDDLE)}),
    "phi": Spec(
        5405, phi_config(2, 32, 4),
        store={"processed": (ALL_HOOKS, MIDDLE), "raw": (FEW_HOOKS, MIDDLE)}),
    "phi_full": Spec(
        5506, phi_config(2, 24, 3, partial_rotary_factor=1.0, hidden_act="gelu"),
        dtype="BF16", store={"processed": (FEW_HOOKS, MIDDLE)}),
    "phi3": Spec(
        5608, llama_config("Phi3", 2, 24, 4, 2, sliding_window=6, pad_token_id=0),
        store={"processed": (ALL_HOOKS, MIDDLE), "raw": (FEW_HOOKS, MIDDLE)}),
    "phi3_longrope": Spec(
        5710, llama_config("Phi3", 2, 16, 2, 2, sliding_window=None, pad_token_id=0,
                           max_position_embeddings=4 * N_CTX,
                           original_max_position_embeddings=N_CTX,
                           rope_scaling={"type": "longrope",
                                         "short_factor": [1.0, 1.2, 1.5],
                                         "long_factor": [1.0, 2.0, 4.0]},
                           partial_rotary_factor=0.75),
        dtype="BF16", store={"processed": (FEW_HOOKS, MIDDLE)}),
    "gptj": Spec(
        5810, gpt2_config(2, 32, 2, architectures=["GPTJForCausalLM"], model_type="gptj",
                          rotary_dim=8, tie_word_embeddings=False),
        buffers=True, store={"processed": (ALL_HOOKS, MIDDLE), "raw": (FEW_HOOKS, MIDDLE)}),
    "gptj_full": Spec(
        5910, gpt2_config(2, 24, 3, architectures=["GPTJForCausalLM"], model_type="gptj",
                          rotary_dim=8, n_inner=40, tie_word_embeddings=False),
        dtype="F16", store={"processed": (FEW_HOOKS, MIDDLE)}),
    "opt": Spec(
        6003, opt_config(2, 24, 3),
        store={"processed": (ALL_HOOKS, MIDDLE), "raw": (FEW_HOOKS, MIDDLE)}),
    "opt_untied": Spec(
        6103, opt_config(2, 16, 2, tie_word_embeddings=False, activation_function="gelu"),
        dtype="F16", file="bin", store={"processed": (FEW_HOOKS, MIDDLE)}),
    "bloom": Spec(
        6815, bloom_config(2, 24, 3),
        store={"processed": (ALL_HOOKS, MIDDLE), "raw": (FEW_HOOKS, MIDDLE)}),
    "bloom_untied": Spec(
        6916, bloom_config(2, 16, 4, tie_word_embeddings=False),
        dtype="BF16", store={"processed": (FEW_HOOKS, MIDDLE)}),
    "gpt_bigcode": Spec(
        6203, gpt2_config(2, 24, 3, architectures=["GPTBigCodeForCausalLM"],
                          model_type="gpt_bigcode", multi_query=True,
                          activation_function="gelu_pytorch_tanh"),
        buffers=True, store={"processed": (ALL_HOOKS, MIDDLE), "raw": (FEW_HOOKS, MIDDLE)}),
    "gpt_bigcode_untied": Spec(
        6304, gpt2_config(2, 16, 2, architectures=["GPTBigCodeForCausalLM"],
                          model_type="gpt_bigcode", multi_query=True, n_inner=40,
                          tie_word_embeddings=False),
        dtype="BF16", store={"processed": (FEW_HOOKS, MIDDLE)}),
    "starcoder2": Spec(
        6406, starcoder2_config(2, 24, 4, 2, sliding_window=6),
        store={"processed": (ALL_HOOKS, MIDDLE), "raw": (FEW_HOOKS, MIDDLE)}),
    "starcoder2_untied": Spec(
        6506, starcoder2_config(2, 16, 2, 1, tie_word_embeddings=False),
        dtype="BF16", store={"processed": (FEW_HOOKS, MIDDLE)}),
    "stablelm": Spec(
        6607, stablelm_config(2, 32, 4, 2),
        store={"processed": (ALL_HOOKS, MIDDLE), "raw": (FEW_HOOKS, MIDDLE)}),
    "stablelm_parallel": Spec(
        6708, stablelm_config(2, 16, 2, 2, use_parallel_residual=True, use_qkv_bias=True,
                              partial_rotary_factor=0.5),
        dtype="BF16", store={"processed": (FEW_HOOKS, MIDDLE)}),
    # TransformerLens's own models.
    "own_attn_only": Spec(
        7101, own_config(1, 24, 3, 8, attn_only=True), file="model.pth", bare=True,
        buffers=True, store=OWN),
    "own_shortformer": Spec(  # as its attn-only-2l is
        7202, own_config(2, 24, 3, 10, attn_only=True, normalization_type="LNPre",
                         positional_embedding_type="shortformer"),
        bare=True, buffers=True, store=OWN_RAW),
    "own_shortformer_mlp": Spec(
        7303, own_config(2, 16, 2, 8, act_fn="gelu_new",
                         positional_embedding_type="shortformer"),
        store=OWN_RAW),
    "own_solu_ln": Spec(7405, own_config(2, 16, 2, 8, act_fn="solu_ln", d_mlp=40),
                        store=OWN),
    "own_solu_pre": Spec(  # as its solu-2l is, once folded
        7505, own_config(2, 16, 2, 8, act_fn="solu_ln", normalization_type="LNPre",
                         final_rms=True),
        bare=True, store=OWN_RAW),
    "own_solu": Spec(7608, own_config(2, 16, 2, 8, act_fn="solu", d_mlp=48), store=OWN_RAW),
    "own_no_norm": Spec(
        7707, own_config(2, 16, 2, 8, normalization_type=None, act_fn="relu"), bare=True,
        store={"raw": (ALL_HOOKS, MIDDLE), "processed": (FEW_HOOKS, MIDDLE)}),
    "own_vocab_out": Spec(
        7808, own_config(1, 24, 3, 8, d_vocab_out=320, normalization_type="LNPre"), bare=True,
        store=OWN_RAW),
    "own_rms_gated": Spec(
        7911, own_config(2, 16, 4, 6, normalization_type="RMS", gated_mlp=True, act_fn="silu",
                         positional_embedding_type="rotary", rotary_dim=4,
                         n_key_value_heads=2),
        buffers=True, store=OWN),
    "own_rms_pre": Spec(
        8010, own_config(2, 24, 3, 8, normalization_type="RMSPre", gated_mlp=True,
                         act_fn="gelu_pytorch_tanh", positional_embedding_type="rotary",
                         rotary_adjacent_pairs=True, rotary_base=300, use_qk_norm=True,
                         use_NTK_by_parts_rope=True, NTK_original_ctx_len=32),
        bare=True, store=OWN_RAW),
    "own_gated": Spec(
        8113, own_config(1, 16, 2, 8, gated_mlp=True, act_fn="gelu_new"), store=OWN_RAW),
    "own_parallel": Spec(
        8212, own_config(2, 24, 3, 8, parallel_attn_mlp=True, use_attn_scale=False,
                         act_fn="gelu_fast", final_rms=True),
        store=OWN_RAW),
    "own_local": Spec(
        8314, own_config(3, 16, 2, 8, use_local_attn=True, window_size=5, attn_scale=2.0,
                         attn_types=["global", "local", "local"],
                         scale_attn_by_inverse_layer_idx=True),
        buffers=True, dtype="BF16", store={"processed": (FEW_HOOKS, MIDDLE),
                                           "raw": (ALL_HOOKS, MIDDLE)}),
    "own_experts": Spec(
        8601, own_config(2, 16, 2, 8, normalization_type="RMS", act_fn="silu", d_mlp=12,
                         num_experts=4, experts_per_token=2), store=OWN_RAW),
    "own_alibi": Spec(
        8414, own_config(2, 18, 3, 6, positional_embedding_type="alibi"), store=OWN_RAW),
    "own_capped": Spec(
        8515, own_config(2, 16, 2, 8, normalization_type="RMSPre", attn_scores_soft_cap=3.0,
                         output_logits_soft_cap=6.0, n_key_value_heads=2,
                         use_normalization_before_and_after=True),
        store=OWN_RAW),
    "mixtral": Spec(
        7102, llama_config("Mixtral", 2, 24, 4, 2, intermediate_size=20, num_local_experts=5,
                           num_experts_per_tok=2, router_jitter_noise=0.1),
        store={"processed": (ALL_HOOKS, MIDDLE), "raw": (ALL_HOOKS, MIDDLE), **ONLY_ON}),
    "mixtral_window": Spec(
        7202, llama_config("Mixtral", 2, 16, 2, 1, intermediate_size=12, num_local_experts=8,
                           num_experts_per_tok=3, sliding_window=6, tie_word_embeddings=True),
        dtype="BF16", shards=2, store={"processed": (EXPERT_HOOKS, MIDDLE)}),
    "qwen3_moe": Spec(
        7303, qwen3_moe_config(2, 24, 4, 2, head_dim=10, num_experts=6, num_experts_per_tok=2,
                               norm_topk_prob=False),
        dtype="BF16", store={"processed": (ALL_HOOKS, MIDDLE), "raw": (FEW_HOOKS, MIDDLE)}),
    "qwen3_moe_norm": Spec(
        7405, qwen3_moe_config(3, 16, 2, 1, head_dim=8, num_experts=8, num_experts_per_tok=3,
                               norm_topk_prob=True, attention_bias=True,
                               use_sliding_window=True, sliding_window=5),
        store={"processed": (EXPERT_HOOKS, MIDDLE)}),
}


# --- weights ------------------------------------------------------------------------------

class Maker:
    """Draws float32 tensors in the order in which they are asked for."""

    def __init__(self, seed: int, d_model: int) -> None:
        self.rng = np.random.RandomState(seed)
        self.w: Weights = {}
        # Logits with a standard deviation of about 4.
        self.embed_std = min(0.6, 4 / np.sqrt(d_model))

    def normal(self, std: float, *shape: int, mean: float = 0.0) -> np.ndarray:
        return (mean + std * self.rng.standard_normal(shape)).astype(np.float32)

    def embed(self, name: str, n: int, d: int) -> None:
        self.w[name] = self.normal(self.embed_std, n, d, mean=self.embed_std / 12)

    def gain(self, name: str, d: int, less: float = 0.0) -> None:
        self.w[name] = self.normal(0.3, d, mean=1.1 - less)

    def norm(self, name: str, d: int) -> None:
        self.gain(f"{name}.weight", d)
        self.w[f"{name}.bias"] = self.normal(0.2, d, mean=0.05)

    def linear(self, name: str, n_in: int, n_out: int, bias: float = 0.0, gain: float = 1.2,
               conv1d: bool = False) -> None:
        """[out, in], or [in, out] for conv1d; `bias` is the biases' spread, 0 for none."""
        shape = (n_in, n_out) if conv1d else (n_out, n_in)
        self.w[f"{name}.weight"] = self.normal(gain / np.sqrt(n_in), *shape)
        if bias:
            self.w[f"{name}.bias"] = self.normal(bias, n_out, mean=0.05)

    def head(self, name: str, vocab: int, d: int) -> None:
        self.w[name] = self.normal(0.5, vocab, d, mean=-0.03)


def gpt2_weights(cfg: dict, seed: int) -> Weights:
    """Without prefix."""
    D, V = cfg["n_embd"], cfg["vocab_size"]
    F = cfg.get("n_inner") or 4 * D
    m = Maker(seed, D)
    m.embed("wte.weight", V, D)
    m.w["wpe.weight"] = m.normal(m.embed_std * 2 / 3, cfg["n_positions"], D)
    for l in range(cfg["n_layer"]):
        m.norm(f"h.{l}.ln_1", D)
        m.norm(f"h.{l}.ln_2", D)
        m.linear(f"h.{l}.attn.c_attn", D, 3 * D, 0.3, conv1d=True)
        m.linear(f"h.{l}.attn.c_proj", D, D, 0.2, conv1d=True)
        m.linear(f"h.{l}.mlp.c_fc", D, F, 0.3, conv1d=True)
        m.linear(f"h.{l}.mlp.c_proj", F, D, 0.2, conv1d=True)
    m.norm("ln_f", D)
    if not cfg.get("tie_word_embeddings", True):
        m.head("lm_head.weight", V, D)
    return m.w


def neo_weights(cfg: dict, seed: int) -> Weights:
    D, V = cfg["hidden_size"], cfg["vocab_size"]
    F = cfg["intermediate_size"] or 4 * D
    m = Maker(seed, D)
    m.embed("transformer.wte.weight", V, D)
    m.w["transformer.wpe.weight"] = m.normal(m.embed_std * 2 / 3,
                                             cfg["max_position_embeddings"], D)
    for l in range(cfg["num_layers"]):
        b = f"transformer.h.{l}"
        m.norm(f"{b}.ln_1", D)
        for x in "kv":
            m.linear(f"{b}.attn.attention.{x}_proj", D, D)
        # Scores are not divided by the root of d_head.
        m.linear(f"{b}.attn.attention.q_proj", D, D, gain=0.5)
        m.linear(f"{b}.attn.attention.out_proj", D, D, 0.2)
        m.norm(f"{b}.ln_2", D)
        m.linear(f"{b}.mlp.c_fc", D, F, 0.3)
        m.linear(f"{b}.mlp.c_proj", F, D, 0.2)
    m.norm("transformer.ln_f", D)
    if not cfg.get("tie_word_embeddings", True):
        m.head("lm_head.weight", V, D)
    return m.w


def neox_weights(cfg: dict, seed: int) -> Weights:
    D, V, F = cfg["hidden_size"], cfg["vocab_size"], cfg["intermediate_size"]
    m = Maker(seed, D)
    m.embed("gpt_neox.embed_in.weight", V, D)
    for l in range(cfg["num_hidden_layers"]):
        b = f"gpt_neox.layers.{l}"
        m.norm(f"{b}.input_layernorm", D)
        m.norm(f"{b}.post_attention_layernorm", D)
        m.linear(f"{b}.attention.query_key_value", D, 3 * D, 0.3)
        m.linear(f"{b}.attention.dense", D, D, 0.2)
        m.linear(f"{b}.mlp.dense_h_to_4h", D, F, 0.3)
        m.linear(f"{b}.mlp.dense_4h_to_h", F, D, 0.2)
    m.norm("gpt_neox.final_layer_norm", D)
    if not cfg["tie_word_embeddings"]:
        m.head("embed_out.weight", V, D)
    return m.w


NORMS = {"olmo2": ("post_attention", "post_feedforward")}
NORMS["gemma2"] = NORMS["gemma3_text"] = ("input", "post_attention", "pre_feedforward",
                                          "post_feedforward")


def add_experts(m: Maker, block: str, cfg: dict) -> None:
    mixtral, D = cfg["model_type"] == "mixtral", cfg["hidden_size"]
    mlp = f"{block}.{'block_sparse_moe' if mixtral else 'mlp'}"
    gate, up, down = ("w1", "w3", "w2") if mixtral else ("gate_proj", "up_proj", "down_proj")
    n, F = ((cfg["num_local_experts"], cfg["intermediate_size"]) if mixtral
            else (cfg["num_experts"], cfg["moe_intermediate_size"]))
    m.linear(f"{mlp}.gate", D, n)
    for e in range(n):
        m.linear(f"{mlp}.experts.{e}.{gate}", D, F)
        m.linear(f"{mlp}.experts.{e}.{up}", D, F)
        m.linear(f"{mlp}.experts.{e}.{down}", F, D)


def llama_weights(cfg: dict, seed: int, maker: type[Maker] = Maker) -> Weights:
    D, V, F = cfg["hidden_size"], cfg["vocab_size"], cfg["intermediate_size"]
    H, Hkv = cfg["num_attention_heads"], cfg["num_key_value_heads"]
    dh = cfg.get("head_dim") or D // H
    b_qkv = 0.3 if cfg.get("attention_bias") or cfg["model_type"] == "qwen2" else 0.0
    b_o = 0.2 if cfg.get("attention_bias") else 0.0
    b_mlp = 0.2 if cfg.get("mlp_bias") else 0.0
    gemma = cfg["model_type"].startswith("gemma")
    less = 1.0 if gemma else 0.0
    m = maker(seed, D)
    if gemma:  # the embedding is multiplied by the root of D, and the head is not
        m.embed_std /= np.sqrt(D) / 4
    m.embed("model.embed_tokens.weight", V, D)
    for l in range(cfg["num_hidden_layers"]):
        b = f"model.layers.{l}"
        m.linear(f"{b}.self_attn.q_proj", D, H * dh, b_qkv)
        m.linear(f"{b}.self_attn.k_proj", D, Hkv * dh, b_qkv)
        m.linear(f"{b}.self_attn.v_proj", D, Hkv * dh, b_qkv)
        if cfg["model_type"] in ("qwen3", "qwen3_moe", "gemma3_text", "olmo2"):
            one = cfg["model_type"] == "olmo2"
            m.gain(f"{b}.self_attn.q_norm.weight", dh * (H if one else 1), less)
            m.gain(f"{b}.self_attn.k_norm.weight", dh * (Hkv if one else 1), less)
        m.linear(f"{b}.self_attn.o_proj", H * dh, D, b_o)
        if cfg["model_type"] in ("mixtral", "qwen3_moe"):
            add_experts(m, b, cfg)
        else:
            m.linear(f"{b}.mlp.gate_proj", D, F, b_mlp)
            m.linear(f"{b}.mlp.up_proj", D, F, b_mlp)
            m.linear(f"{b}.mlp.down_proj", F, D, b_mlp)
        for norm in NORMS.get(cfg["model_type"], ("input", "post_attention")):
            m.gain(f"{b}.{norm}_layernorm.weight", D, less)
    m.gain("model.norm.weight", D, less)
    if not cfg["tie_word_embeddings"]:
        m.head("lm_head.weight", V, D)
    return m.w


def phi3_weights(cfg: dict, seed: int) -> Weights:
    """Llama's, put together."""
    w, out = llama_weights(cfg, seed), Weights()
    for name, a in w.items():
        if ".q_proj." in name:
            out[name.replace("q_proj", "qkv_proj")] = np.concatenate(
                [w[name.replace("q_proj", f"{x}_proj")] for x in "qkv"])
        elif ".gate_proj." in name:
            up = w[name.replace("gate_proj", "up_proj")]
            out[name.replace("gate_proj", "gate_up_proj")] = np.concatenate([a, up])
        elif not any(x in name for x in (".k_proj.", ".v_proj.", ".up_proj.")):
            out[name] = a
    return out


def layer_norm_weights(cfg: dict, seed: int) -> Weights:
    """Families of LayerNorm and plain Linears, by what they call them."""
    kind = cfg["model_type"]
    D, H = (cfg.get("hidden_size") or cfg["n_embd"],
            cfg.get("num_attention_heads") or cfg["n_head"])
    kv = (cfg.get("num_key_value_heads") or H) * (D // H)
    F = (cfg.get("intermediate_size") or cfg.get("ffn_dim") or cfg.get("n_inner") or 4 * D)
    old = kind in ("gptj", "gpt_bigcode")
    top = "transformer" if old else "model.decoder" if kind == "opt" else "model"
    b_qkv = 0.0 if kind == "gptj" or kind == "stablelm" and not cfg.get("use_qkv_bias") else 0.3
    b_o = 0.0 if kind in ("gptj", "stablelm") else 0.2
    m = Maker(seed, D)
    m.embed(f"{top}.{'wte' if old else 'embed_tokens'}.weight", cfg["vocab_size"], D)
    if kind == "opt":
        m.w[f"{top}.embed_positions.weight"] = m.normal(
            m.embed_std * 2 / 3, cfg["max_position_embeddings"] + 2, D)
    if kind == "gpt_bigcode":
        m.w[f"{top}.wpe.weight"] = m.normal(m.embed_std * 2 / 3, cfg["n_positions"], D)
    names = {
        "phi": ("input_layernorm", None, "self_attn", "dense", "mlp.fc1", "mlp.fc2"),
        "starcoder2": ("input_layernorm", "post_attention_layernorm", "self_attn", "o_proj",
                       "mlp.c_fc", "mlp.c_proj"),
        "stablelm": ("input_layernorm", None if cfg.get("use_parallel_residual")
                     else "post_attention_layernorm", "self_attn", "o_proj", "mlp.up_proj",
                     "mlp.down_proj"),
        "opt": ("self_attn_layer_norm", "final_layer_norm", "self_attn", "out_proj", "fc1",
                "fc2"),
        "gptj": ("ln_1", None, "attn", "out_proj", "mlp.fc_in", "mlp.fc_out"),
        "gpt_bigcode": ("ln_1", "ln_2", "attn", "c_proj", "mlp.c_fc", "mlp.c_proj")}[kind]
    ln1, ln2, attn, out, fc_in, fc_out = names
    for l in range(cfg.get("num_hidden_layers") or cfg["n_layer"]):
        b = f"{top}.{'h' if old else 'layers'}.{l}"
        for norm in filter(None, (ln1, ln2)):
            m.norm(f"{b}.{norm}", D)
        if kind == "gpt_bigcode":
            m.linear(f"{b}.{attn}.c_attn", D, D + 2 * (D // H), b_qkv)
        else:
            for x, n in (("q", D), ("k", kv), ("v", kv)):
                m.linear(f"{b}.{attn}.{x}_proj", D, n, b_qkv)
        m.linear(f"{b}.{attn}.{out}", D, D, b_o)
        if kind == "stablelm":
            m.linear(f"{b}.mlp.gate_proj", D, F)
        m.linear(f"{b}.{fc_in}", D, F, 0.0 if kind == "stablelm" else 0.3)
        m.linear(f"{b}.{fc_out}", F, D, 0.0 if kind == "stablelm" else 0.2)
    m.norm({"phi": "model.final_layernorm", "opt": "model.decoder.final_layer_norm"}.get(
        kind, f"{top}.{'ln_f' if old else 'norm'}"), D)
    if not cfg.get("tie_word_embeddings", kind in ("starcoder2", "opt", "gpt_bigcode")):
        m.head("lm_head.weight", cfg["vocab_size"], D)
        if kind in ("phi", "gptj"):
            m.w["lm_head.bias"] = m.normal(0.3, cfg["vocab_size"], mean=0.02)
    return m.w


def bloom_weights(cfg: dict, seed: int) -> Weights:
    D, V = cfg["hidden_size"], cfg["vocab_size"]
    m = Maker(seed, D)
    m.embed("transformer.word_embeddings.weight", V, D)
    m.norm("transformer.word_embeddings_layernorm", D)
    for l in range(cfg["n_layer"]):
        b = f"transformer.h.{l}"
        m.norm(f"{b}.input_layernorm", D)
        m.norm(f"{b}.post_attention_layernorm", D)
        m.linear(f"{b}.self_attention.query_key_value", D, 3 * D, 0.3)
        m.linear(f"{b}.self_attention.dense", D, D, 0.2)
        m.linear(f"{b}.mlp.dense_h_to_4h", D, 4 * D, 0.3)
        m.linear(f"{b}.mlp.dense_4h_to_h", 4 * D, D, 0.2)
    m.norm("transformer.ln_f", D)
    if not cfg.get("tie_word_embeddings", True):
        m.head("lm_head.weight", V, D)
    return m.w


def own_weights(cfg: dict, seed: int) -> Weights:
    return hooked_weights(cfg, Maker(seed, cfg["d_model"]))


WEIGHTS: dict[str, Callable[[dict, int], Weights]] = {
    "gpt2": gpt2_weights, "gpt_neo": neo_weights, "gpt_neox": neox_weights,
    "llama": llama_weights, "mistral": llama_weights, "qwen2": llama_weights,
    "qwen3": llama_weights, "olmo2": llama_weights, "gemma": llama_weights,
    "gemma2": llama_weights, "gemma3_text": llama_weights, "granite": llama_weights,
    "hooked_transformer": own_weights, "bloom": bloom_weights, "smollm3": llama_weights, "phi3": phi3_weights,
    "mixtral": llama_weights, "qwen3_moe": llama_weights,
    **{kind: layer_norm_weights for kind in ("phi", "gptj", "opt", "gpt_bigcode", "starcoder2",
                                             "stablelm")}}


def make_weights(cfg: dict, seed: int) -> Weights:
    """Every tensor of a family's file, float32; gpt2's without prefix."""
    return WEIGHTS[cfg["model_type"]](cfg, seed)


def buffers_of(cfg: dict) -> Weights:
    """What old checkpoints carry besides weights, and what nobody reads."""
    mask = np.tril(np.ones((1, 1, N_CTX, N_CTX), np.uint8))
    out: Weights = {}
    if cfg["model_type"] == "hooked_transformer":
        return hooked_buffers(cfg)
    if cfg["model_type"] in ("gpt2", "gptj", "gpt_bigcode"):
        top = "" if cfg["model_type"] == "gpt2" else "transformer."
        for l in range(cfg["n_layer"]):
            out[f"{top}h.{l}.attn.bias"] = mask.astype(np.float32)
            out[f"{top}h.{l}.attn.masked_bias"] = np.array(-1e4, np.float32)
    elif cfg["model_type"] == "gpt_neo":
        for l, kind in enumerate(cfg["attention_layers"]):
            far = np.tril(mask, -cfg["window_size"]) if kind == "local" else 0
            out[f"transformer.h.{l}.attn.attention.bias"] = mask - far
            out[f"transformer.h.{l}.attn.attention.masked_bias"] = np.array(-1e9, np.float32)
    else:
        n = int(cfg["hidden_size"] / cfg["num_attention_heads"] * cfg["rotary_pct"])
        inv_freq = cfg["rotary_emb_base"] ** -(np.arange(0, n, 2, dtype=np.float32) / n)
        for l in range(cfg["num_hidden_layers"]):
            b = f"gpt_neox.layers.{l}.attention."
            out[b + "bias"] = mask.astype(bool)
            out[b + "masked_bias"] = np.array(-np.inf, np.float32)  # -1e9 as a half
            out[b + "masked_bias"] = np.array(-np.inf, np.float32)  # -1e9 as a half
            out[b + "rotary_emb.inv_freq"] = inv_freq.astype(np.float32)
    return out


# --- files --------------------------------------------------------------------------------

def narrow(a: np.ndarray, dtype: str) -> np.ndarray:
    if dtype == "F16":
        return a.astype("<f2")
    if dtype == "BF16":  # round to nearest, ties to even
        bits = a.astype("<f4").view("<u4")
        return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype("<u2")
    return a.astype("<f4")


def write_json(path: str, value: object) -> None:
    with open(path, "w", encoding="utf-8") as f:
        json.dump(value, f, indent=1, ensure_ascii=False)
        f.write("\n")


def write_safetensors(path: str, tensors: Weights, dtype: str) -> int:
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    parts, offset = [], 0
    for name, a in tensors.items():
        mask = a.dtype == bool
        raw = a.tobytes() if mask else narrow(a, dtype).tobytes()
        header[name] = {"dtype": "BOOL" if mask else dtype, "shape": list(a.shape),
                        "data_offsets": [offset, offset + len(raw)]}
        parts.append(raw)
        offset += len(raw)
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as f:
        f.write(len(text).to_bytes(8, "little") + text + b"".join(parts))
    return offset


def write_bin(path: str, tensors: Weights, spec: Spec) -> int:
    """By torch.save. Masks keep their type; a mask of one byte an element is not narrowed."""
    import collections

    import torch

    def tensor(a: np.ndarray) -> torch.Tensor:
        if a.dtype.itemsize == 1:
            return torch.from_numpy(a.copy())
        t = torch.from_numpy(narrow(a, spec.dtype).copy())
        return t.view(torch.bfloat16) if spec.dtype == "BF16" else t

    state = collections.OrderedDict((n, tensor(a)) for n, a in tensors.items())
    if spec.strided:
        for name in [n for n in state if n.endswith("q_proj.weight")]:
            names = [name.replace("q_proj", f"{x}_proj") for x in "qkv"]
            rows = [len(state[n]) for n in names]
            whole = torch.cat([state[n] for n in names])
            state.update(zip(names, whole.split(rows)))
        for name in [n for n in state if n.endswith("down_proj.weight")]:
            state[name] = state[name].T.contiguous().T
    if spec.shared:
        embed = next(n for n in state if n.endswith(("wte.weight", "embed_tokens.weight")))
        state["lm_head.weight"] = state[embed]
    torch.save(state, path, _use_new_zipfile_serialization=spec.file != "legacy")
    return sum(t.numel() * t.element_size() for t in state.values())


def write_model(out: str, spec: Spec) -> None:
    weights = make_weights(spec.config, spec.seed)
    if spec.buffers:
        weights.update(buffers_of(spec.config))
    named = {n if n.startswith("lm_head") else spec.prefix + n: a for n, a in weights.items()}
    stem, end = {"safetensors": ("model", "safetensors"),
                 "model.pth": ("model", "pth")}.get(spec.file, ("pytorch_model", "bin"))

    def write(file: str, tensors: Weights) -> int:
        path = os.path.join(out, file)
        if spec.file == "safetensors":
            return write_safetensors(path, tensors, spec.dtype)
        return write_bin(path, tensors, spec)

    if spec.shards == 1:
        write(f"{stem}.{end}", named)
    else:
        names, weight_map, total = list(named), {}, 0
        for s in range(spec.shards):
            file = f"{stem}-{s + 1:05d}-of-{spec.shards:05d}.{end}"
            mine = names[s::spec.shards]  # interleaved, so that a block lies in both
            total += write(file, {n: named[n] for n in mine})
            weight_map.update({n: file for n in mine})
        write_json(os.path.join(out, f"{stem}.{end}.index.json"),
                   {"metadata": {"total_size": total}, "weight_map": weight_map})
    if spec.config["model_type"] == "hooked_transformer":
        write_json(os.path.join(out, "config.json"),
                   {k: v for k, v in spec.config.items() if k != "model_type" or not spec.bare})
        return
    torch_dtype = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}[spec.dtype]
    write_json(os.path.join(out, "config.json"), {**spec.config, "torch_dtype": torch_dtype})


# --- tokenizer ----------------------------------------------------------------------------

def byte_symbols() -> dict[int, str]:
    """GPT-2's table: a printable character for each byte, in the order of its ids."""
    keep = [*range(33, 127), *range(161, 173), *range(174, 256)]
    rest = [b for b in range(256) if b not in keep]
    return {b: chr(b) for b in keep} | {b: chr(256 + i) for i, b in enumerate(rest)}


def tokenizer_json(merges_as_pairs: bool, words: tuple[str, ...] = WORDS) -> dict:
    symbols = byte_symbols()
    merges: list[tuple[str, str]] = []
    for word in words:
        chars = [symbols[b] for b in word.encode()]
        for i in range(1, len(chars)):
            pair = ("".join(chars[:i]), chars[i])
            if pair not in merges:
                merges.append(pair)
    vocab = {s: i for i, s in enumerate([*symbols.values(), *("".join(m) for m in merges)])}
    vocab[BOS] = len(vocab)
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True,
                  "use_regex": True}
    return {
        "version": "1.0", "truncation": None, "padding": None,
        "added_tokens": [{"id": vocab[BOS], "content": BOS, "single_word": False,
                          "lstrip": False, "rstrip": False, "normalized": False,
                          "special": True}],
        "normalizer": None, "pre_tokenizer": byte_level,
        "post_processor": {**byte_level, "trim_offsets": False}, "decoder": byte_level,
        "model": {"type": "BPE", "dropout": None, "unk_token": None,
                  "continuing_subword_prefix": "", "end_of_word_suffix": "",
                  "fuse_unk": False, "byte_fallback": False, "vocab": vocab,
                  "merges": [list(m) if merges_as_pairs else " ".join(m) for m in merges]},
    }


def write_tokenizer(out: str, spec: Spec) -> None:
    write_json(os.path.join(out, "tokenizer.json"), tokenizer_json(spec.merges_as_pairs))
    write_json(os.path.join(out, "tokenizer_config.json"),
               {"tokenizer_class": "GPT2Tokenizer", "add_prefix_space": False,
                "bos_token": BOS, "eos_token": BOS, "unk_token": BOS,
                "model_max_length": N_CTX})
