"""Tiny models of TransformerLens itself, for golden_models.py: configs and weights.

A config is what HookedTransformerConfig(...).to_dict() of TransformerLens 2.16 gives, as JSON;
scripts/fidelity.py --check compares it with TransformerLens's own. The tensors are those of
HookedTransformer(cfg).state_dict(), drawn from RandomState's frozen stream.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # invalid_hooked.py takes the configs, and needs no numpy
    import numpy as np
    from golden_models import Maker

DEFAULTS = {
    "model_name": "custom", "act_fn": "gelu", "d_vocab": 300, "eps": 1e-5,
    "use_attn_result": False, "use_attn_scale": True, "use_split_qkv_input": False,
    "use_hook_mlp_in": False, "use_attn_in": False, "use_qk_norm": False,
    "use_local_attn": False, "ungroup_grouped_query_attention": False,
    "original_architecture": None, "from_checkpoint": False, "checkpoint_index": None,
    "checkpoint_label_type": None, "checkpoint_value": None, "tokenizer_name": None,
    "window_size": None, "attn_types": None, "init_mode": "gpt2", "normalization_type": "LN",
    "device": "cpu", "n_devices": 1, "attention_dir": "causal", "attn_only": False,
    "seed": None, "init_weights": True, "scale_attn_by_inverse_layer_idx": False,
    "positional_embedding_type": "standard", "final_rms": False, "parallel_attn_mlp": False,
    "rotary_dim": None, "use_hook_tokens": False, "gated_mlp": False,
    "default_prepend_bos": True, "dtype": "torch.float32", "tokenizer_prepends_bos": None,
    "n_key_value_heads": None, "post_embedding_ln": False, "rotary_base": 10000,
    "trust_remote_code": False, "rotary_adjacent_pairs": False, "load_in_4bit": False,
    "num_experts": None, "experts_per_token": None, "relative_attention_max_distance": None,
    "relative_attention_num_buckets": None, "decoder_start_token_id": None,
    "tie_word_embeddings": False, "use_normalization_before_and_after": False,
    "attn_scores_soft_cap": -1.0, "output_logits_soft_cap": -1.0,
    "use_NTK_by_parts_rope": False, "NTK_by_parts_low_freq_factor": 1.0,
    "NTK_by_parts_high_freq_factor": 4.0, "NTK_by_parts_factor": 8.0,
    "NTK_original_ctx_len": 8192,
}


def hooked_config(n_ctx: int, n_layers: int, d_model: int, n_heads: int, d_head: int,
                  **more: object) -> dict:
    """With what HookedTransformerConfig's __post_init__ fills in."""
    cfg = {"n_layers": n_layers, "d_model": d_model, "n_ctx": n_ctx, "d_head": d_head,
           "n_heads": n_heads, "d_mlp": 4 * d_model, "attn_scale": -1.0,
           "initializer_range": 0.8 / math.sqrt(d_model), **DEFAULTS, **more}
    cfg.setdefault("d_vocab_out", cfg["d_vocab"])
    if cfg["attn_only"]:
        cfg["d_mlp"] = cfg["act_fn"] = None
    if cfg["positional_embedding_type"] == "rotary" and cfg["rotary_dim"] is None:
        cfg["rotary_dim"] = d_head
    if cfg["use_attn_scale"] and cfg["attn_scale"] == -1.0:
        cfg["attn_scale"] = math.sqrt(d_head)
    mlp = 0 if cfg["attn_only"] else d_model * cfg["d_mlp"] * (2 + cfg["gated_mlp"])
    if cfg["num_experts"]:
        mlp = (mlp + d_model) * cfg["num_experts"]
    cfg["n_params"] = n_layers * (4 * d_model * d_head * n_heads + mlp)
    return cfg


def norm(cfg: dict, m: Maker, name: str, n: int, kind: str | None) -> None:
    if kind in ("LN", "RMS"):
        m.gain(f"{name}.w", n)
    if kind == "LN":
        m.w[f"{name}.b"] = m.normal(0.2, n, mean=0.05)


def attention(cfg: dict, m: Maker, name: str) -> None:
    D, H, dh = cfg["d_model"], cfg["n_heads"], cfg["d_head"]
    Hkv = cfg["n_key_value_heads"] or H
    for x, n in (("Q", H), ("K", Hkv), ("V", Hkv)):
        mark = "_" if cfg["n_key_value_heads"] and x != "Q" else ""
        m.w[f"{name}{mark}W_{x}"] = m.normal(1.2 / math.sqrt(D), n, D, dh)
        m.w[f"{name}{mark}b_{x}"] = m.normal(0.3, n, dh, mean=0.05)
    if cfg["use_qk_norm"]:
        m.gain(f"{name}q_norm.w", dh)
        m.gain(f"{name}k_norm.w", dh)
    m.w[f"{name}W_O"] = m.normal(1.2 / math.sqrt(H * dh), H, dh, D)
    m.w[f"{name}b_O"] = m.normal(0.2, D, mean=0.05)


def mlp(cfg: dict, m: Maker, name: str) -> None:
    D, F = cfg["d_model"], cfg["d_mlp"]
    for x in ("gate", "in") if cfg["gated_mlp"] else ("in",):
        m.w[f"{name}W_{x}"] = m.normal(1.2 / math.sqrt(D), D, F)
    m.w[f"{name}b_in"] = m.normal(0.3, F, mean=0.05)
    # SoLU leaves little of all but the largest.
    gain = 4.0 if cfg["act_fn"] == "solu" else 1.2
    m.w[f"{name}W_out"] = m.normal(gain / math.sqrt(F), F, D)
    m.w[f"{name}b_out"] = m.normal(0.2, D, mean=0.05)
    if cfg["act_fn"] == "solu_ln" and cfg["normalization_type"] == "LN":
        norm(cfg, m, f"{name}ln", F, "LN")


def experts(cfg: dict, m: Maker, name: str) -> None:
    """torch Linears; the router is called W_gate."""
    D, F, n = cfg["d_model"], cfg["d_mlp"], cfg["num_experts"]
    m.w[f"{name}W_gate.weight"] = m.normal(1.2 / math.sqrt(D), n, D)
    for e in range(n):
        for x, rows, columns in (("W_in", F, D), ("W_out", D, F), ("W_gate", F, D)):
            m.w[f"{name}experts.{e}.{x}.weight"] = m.normal(1.2 / math.sqrt(columns), rows, columns)


def hooked_weights(cfg: dict, m: Maker) -> dict[str, np.ndarray]:
    D, kind, positions = (cfg["d_model"], cfg["normalization_type"],
                          cfg["positional_embedding_type"])
    after = "RMS" if cfg["use_normalization_before_and_after"] else None
    m.embed("embed.W_E", cfg["d_vocab"], D)
    if cfg["post_embedding_ln"]:
        norm(cfg, m, "embed.ln", D, "LN")
    if positions != "rotary":
        m.w["pos_embed.W_pos"] = m.normal(m.embed_std * 2 / 3, cfg["n_ctx"], D)
    for l in range(cfg["n_layers"]):
        b = f"blocks.{l}."
        norm(cfg, m, b + "ln1", D, kind)
        norm(cfg, m, b + "ln1_post", D, after)
        attention(cfg, m, b + "attn.")
        if cfg["attn_only"]:
            continue
        norm(cfg, m, b + "ln2", D, kind)
        norm(cfg, m, b + "ln2_post", D, after)
        (experts if cfg["num_experts"] else mlp)(cfg, m, b + "mlp.")
    norm(cfg, m, "ln_final", D, "RMS" if kind == "LN" and cfg["final_rms"] else kind)
    m.w["unembed.W_U"] = m.normal(0.5, D, cfg["d_vocab_out"], mean=-0.03)
    m.w["unembed.b_U"] = m.normal(0.3, cfg["d_vocab_out"], mean=0.02)
    return m.w


def hooked_buffers(cfg: dict) -> dict[str, np.ndarray]:
    """What a state_dict() has beside parameters."""
    import numpy as np
    n = cfg["n_ctx"]
    mask = np.tril(np.ones((n, n), bool))
    out: dict[str, np.ndarray] = {}
    for l in range(cfg["n_layers"]):
        local = cfg["use_local_attn"] and cfg["attn_types"][l] == "local"
        far = np.tril(mask, -cfg["window_size"]) if local else np.zeros_like(mask)
        out[f"blocks.{l}.attn.mask"] = mask & ~far
        out[f"blocks.{l}.attn.IGNORE"] = np.array(-np.inf, np.float32)
    return out
