"""Hugging Face and TransformerLens 2.16 as references, for scripts/fidelity.py.

load_hf opens a model directory; load_tl makes of it what HookedTransformer.from_pretrained
would, without the model hub: a hand-made config, TransformerLens's own weight conversion and
its load_and_process_state_dict. run_tl gives every hook, tl_tables the tables.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
from collections.abc import Callable, Iterator

os.environ.setdefault("HF_HUB_OFFLINE", "1")
import numpy as np
import torch

import truth
from fidelity_own import is_own, load_own
from truth_weights import REFACTOR

MAX_CTX = 2048  # TransformerLens has an n_ctx by n_ctx mask in each layer


# --- float64 in code that asks for float32 ------------------------------------------------

class WidenedTorch:
    """torch, with float64 under float32's names."""

    float32 = torch.float64
    float = torch.float64

    def __getattr__(self, name: str) -> object:
        return getattr(torch, name)


@contextlib.contextmanager
def widened(dtype: torch.dtype) -> Iterator[None]:
    """With float64, Hugging Face and TransformerLens compute in it throughout.

    A float64 model of Hugging Face still computes some things in float32: rotary frequencies,
    angles, cosines and sines (all families); RMSNorm (Llama, Mistral, Qwen2); queries, keys
    and the softmax of GPT-Neo; the softmax of GPT-NeoX, Llama, Mistral and Qwen2, which names
    its dtype; and the router's softmax, by which TransformerLens's experts go too. It would
    agree with nobody past 1e-7. TransformerLens does so for llama3's rotary frequencies. So float32 becomes another name of float64 in those modules, and
    Tensor.float another of Tensor.double, while a model is made and run.
    """
    if dtype != torch.float64:
        yield
        return
    families = ("gpt2", "gpt_neo", "gpt_neox", "llama", "mistral", "qwen2", "qwen3",
                "olmo2", "gemma", "gemma2", "gemma3", "granite", "smollm3", "phi", "phi3", "gptj",
                "opt", "gpt_bigcode", "starcoder2", "stablelm", "bloom", "mixtral", "qwen3_moe")
    names = [f"models.{f}.modeling_{f}" for f in families] + ["modeling_rope_utils"]
    modules = [importlib.import_module(f"transformers.{n}") for n in names]
    modules.append(importlib.import_module("transformer_lens.components.mlps.moe"))
    to_float = torch.Tensor.float
    for m in modules:
        m.torch = WidenedTorch()
    torch.Tensor.float = torch.Tensor.double
    try:
        yield
    finally:
        torch.Tensor.float = to_float
        for m in modules:
            m.torch = torch


# --- Hugging Face -------------------------------------------------------------------------

def load_hf(model_dir: str, dtype: torch.dtype) -> torch.nn.Module:
    """The weights widened or narrowed to dtype; attention in the eager formulation."""
    from transformers import AutoConfig, AutoModelForCausalLM
    from transformers.utils.logging import disable_progress_bar
    disable_progress_bar()
    config = AutoConfig.from_pretrained(model_dir)
    with open(os.path.join(model_dir, "config.json"), encoding="utf-8") as f:
        rope = json.load(f).get("rope_parameters")
    if rope:  # a layout newer than this transformers: what it says, in the older one
        config.rope_theta = rope.get("rope_theta", 10000.0)
        if "partial_rotary_factor" in rope:
            config.partial_rotary_factor = rope["partial_rotary_factor"]
        if rope.get("rope_type", "default") != "default":
            config.rope_scaling = {k: v for k, v in rope.items()
                                   if k not in ("rope_theta", "partial_rotary_factor")}
    with widened(dtype):
        hf = AutoModelForCausalLM.from_pretrained(model_dir, config=config, torch_dtype=dtype,
                                                  attn_implementation="eager")
    return hf.eval().requires_grad_(False)


# --- TransformerLens ----------------------------------------------------------------------

def rope_of(c: object) -> dict:
    """rope_scaling of a Hugging Face config object, with its kind as rope_type."""
    scaling = getattr(c, "rope_scaling", None) or {}
    return {**scaling, "rope_type": scaling.get("rope_type", scaling.get("type", "default"))}


def tl_cannot(c: object) -> str | None:
    """Why HookedTransformer can't hold the model."""
    if c.model_type == "gpt_neox" and not c.attention_bias:
        return "attention_bias off: TransformerLens's conversion of GPT-NeoX needs the biases"
    if rope_of(c)["rope_type"] not in ("default", "linear", "llama3"):
        return f"rope_type {rope_of(c)['rope_type']}: no family of TransformerLens has it"
    if c.model_type in ("olmo2", "gemma3_text", "granite", "smollm3", "starcoder2", "stablelm",
                        "qwen3_moe"):
        return f"TransformerLens 2.16 does not have {c.model_type}"
    if c.model_type == "bloom":
        return ("the norm of the embedding is part of W_E here, and slopes are transformers', which "
                "TransformerLens has only for a power of two heads")
    if c.model_type == "gpt_bigcode":
        return "TransformerLens's conversion reads names that transformers no longer has (kv_attn)"
    return None


def tl_notes(c: object) -> list[str]:
    """Where it holds the model only because load_tl does more than from_pretrained."""
    notes = []
    if rope_of(c)["rope_type"] == "linear":
        notes.append("TransformerLens has no linear rotary scaling; its tables are made by its "
                     "formula with positions divided by the factor")
    if getattr(c, "attention_bias", False) and c.model_type in ("llama", "qwen3"):
        notes.append("TransformerLens's conversions of Llama and Qwen3 drop the attention's biases; they "
                     "are put back")
    if getattr(c, "mlp_bias", False) and c.model_type == "llama":
        notes.append("TransformerLens's GatedMLP has no bias of the gate, and adds that of the "
                     "linear half after the product; both are added before it")
    if c.model_type == "gpt_neox" and not c.use_parallel_residual:
        notes.append("TransformerLens takes every GPT-NeoX for parallel; it is told otherwise")
    if c.model_type in ("qwen2", "qwen3") and "sliding_attention" in c.layer_types:
        notes.append("TransformerLens ignores Qwen's windows; it is given them")
    return notes


def tl_family(c: object) -> dict:
    """HookedTransformerConfig's keys that depend on the family."""
    if c.model_type == "gpt2":
        return dict(
            n_layers=c.n_layer, d_model=c.n_embd, n_ctx=c.n_positions, n_heads=c.n_head,
            d_head=c.n_embd // c.n_head, d_mlp=c.n_inner or 4 * c.n_embd,
            act_fn=c.activation_function, eps=c.layer_norm_epsilon,
            use_attn_scale=c.scale_attn_weights,
            scale_attn_by_inverse_layer_idx=c.scale_attn_by_inverse_layer_idx)
    if c.model_type == "gpt_neo":
        return dict(
            n_layers=c.num_layers, d_model=c.hidden_size, n_ctx=c.max_position_embeddings,
            n_heads=c.num_heads, d_head=c.hidden_size // c.num_heads,
            d_mlp=c.intermediate_size or 4 * c.hidden_size, act_fn=c.activation_function,
            eps=c.layer_norm_epsilon, use_attn_scale=False, use_local_attn=True,
            attn_types=c.attention_layers, window_size=c.window_size)
    if c.model_type in ("gptj", "gpt_bigcode"):
        keys = dict(n_layers=c.n_layer, d_model=c.n_embd, n_ctx=c.n_positions, n_heads=c.n_head,
                    d_head=c.n_embd // c.n_head, d_mlp=c.n_inner or 4 * c.n_embd,
                    act_fn=c.activation_function, eps=c.layer_norm_epsilon)
        if c.model_type == "gpt_bigcode":
            return {**keys, "use_attn_scale": c.scale_attn_weights}
        return {**keys, "positional_embedding_type": "rotary", "rotary_adjacent_pairs": True,
                "rotary_dim": c.rotary_dim, "parallel_attn_mlp": True}
    if c.model_type == "opt":
        return dict(
            n_layers=c.num_hidden_layers, d_model=c.hidden_size, n_heads=c.num_attention_heads,
            n_ctx=c.max_position_embeddings, d_head=c.hidden_size // c.num_attention_heads,
            d_mlp=c.ffn_dim, act_fn=c.activation_function, eps=1e-5)
    d_head = getattr(c, "head_dim", None) or c.hidden_size // c.num_attention_heads
    part = getattr(c, "partial_rotary_factor", 1.0)
    keys = dict(
        n_layers=c.num_hidden_layers, d_model=c.hidden_size,
        n_ctx=min(c.max_position_embeddings, MAX_CTX), n_heads=c.num_attention_heads,
        d_head=d_head, d_mlp=c.intermediate_size, act_fn=getattr(c, "hidden_act", "gelu_pytorch_tanh"),
        positional_embedding_type="rotary", rotary_adjacent_pairs=False,
        rotary_dim=int(d_head * part), rotary_base=c.rope_theta)
    rope = rope_of(c)
    if rope["rope_type"] == "llama3":
        keys.update(use_NTK_by_parts_rope=True, NTK_by_parts_factor=rope["factor"],
                    NTK_by_parts_low_freq_factor=rope["low_freq_factor"],
                    NTK_by_parts_high_freq_factor=rope["high_freq_factor"],
                    NTK_original_ctx_len=rope["original_max_position_embeddings"])
    if c.model_type == "gpt_neox":
        return {**keys, "eps": c.layer_norm_eps, "parallel_attn_mlp": c.use_parallel_residual}
    if c.model_type == "phi":
        return {**keys, "eps": c.layer_norm_eps, "parallel_attn_mlp": True}
    keys.update(eps=c.rms_norm_eps, gated_mlp=True, n_key_value_heads=c.num_key_value_heads,
                final_rms=c.model_type not in ("mistral", "mixtral"), use_qk_norm=c.model_type == "qwen3")
    if c.model_type in ("gemma", "gemma2"):
        keys.update(n_key_value_heads=c.num_key_value_heads, act_fn="gelu_pytorch_tanh")
    if c.model_type == "gemma2":
        keys.update(use_normalization_before_and_after=True,
                    attn_scale=c.query_pre_attn_scalar ** 0.5,
                    attn_scores_soft_cap=c.attn_logit_softcapping or -1.0,
                    output_logits_soft_cap=c.final_logit_softcapping or -1.0)
    if c.model_type in ("llama", "phi3") and c.num_key_value_heads == c.num_attention_heads:
        keys["n_key_value_heads"] = None
    if c.model_type == "mixtral":
        keys.update(num_experts=c.num_local_experts, experts_per_token=c.num_experts_per_tok)
    local = [False] * c.num_hidden_layers
    if c.model_type in ("mistral", "phi3", "mixtral") and c.sliding_window:
        local = [True] * c.num_hidden_layers
    elif c.model_type in ("qwen2", "qwen3", "gemma2"):
        local = [k == "sliding_attention" for k in c.layer_types]
    if any(local):
        keys.update(use_local_attn=True, window_size=c.sliding_window,
                    attn_types=["local" if x else "global" for x in local])
    return keys


def tl_weights(hf: torch.nn.Module, cfg: object) -> dict[str, torch.Tensor]:
    from transformer_lens.pretrained import weight_conversions as convert
    state = {"gpt2": convert.convert_gpt2_weights, "gpt_neo": convert.convert_neo_weights,
             "gpt_neox": convert.convert_neox_weights,
             "llama": convert.convert_llama_weights,
             "mistral": convert.convert_mistral_weights,
             "mixtral": convert.convert_mixtral_weights,
             "qwen2": convert.convert_qwen2_weights,
             "qwen3": convert.convert_qwen3_weights,
             "gemma": convert.convert_gemma_weights,
             "gemma2": convert.convert_gemma_weights,
             "phi": convert.convert_phi_weights, "phi3": convert.convert_phi3_weights,
             "gptj": convert.convert_gptj_weights, "opt": convert.convert_opt_weights,
             "gpt_bigcode": convert.convert_coder_weights}[hf.config.model_type](hf, cfg)
    if hf.config.model_type in ("llama", "qwen3") and hf.config.attention_bias:
        mark = "" if cfg.n_key_value_heads is None else "_"
        for l, layer in enumerate(hf.model.layers):
            name, a = f"blocks.{l}.attn.", layer.self_attn
            state[name + "b_Q"] = a.q_proj.bias.reshape(-1, cfg.d_head)
            state[f"{name}{mark}b_K"] = a.k_proj.bias.reshape(-1, cfg.d_head)
            state[f"{name}{mark}b_V"] = a.v_proj.bias.reshape(-1, cfg.d_head)
            state[name + "b_O"] = a.o_proj.bias
    if hf.config.model_type == "llama" and hf.config.mlp_bias:
        for l, layer in enumerate(hf.model.layers):
            state[f"blocks.{l}.mlp.b_in"] = layer.mlp.up_proj.bias
            state[f"blocks.{l}.mlp.b_out"] = layer.mlp.down_proj.bias
    return state


def bias_gates(hf: torch.nn.Module, model: torch.nn.Module) -> None:
    """GatedMLP.forward as it is, but for the biases of both halves."""
    from transformer_lens.utilities.addmm import batch_addmm

    def biased(mlp: torch.nn.Module, gate_bias: torch.Tensor) -> Callable:
        def forward(x: torch.Tensor) -> torch.Tensor:
            pre = mlp.hook_pre(torch.matmul(x, mlp.W_gate) + gate_bias)
            linear = mlp.hook_pre_linear(torch.matmul(x, mlp.W_in) + mlp.b_in)
            post = mlp.hook_post(mlp.act_fn(pre) * linear)
            return batch_addmm(mlp.b_out, mlp.W_out, post)
        return forward

    for block, layer in zip(model.blocks, hf.model.layers):
        block.mlp.forward = biased(block.mlp, layer.mlp.gate_proj.bias)


def scale_rotary(model: torch.nn.Module, factor: float, dtype: torch.dtype) -> None:
    """calculate_sin_cos_rotary's own formula, in its own precision, at positions / factor."""
    cfg = model.cfg
    high = torch.float64 if dtype == torch.float64 else torch.float32
    pos = torch.arange(cfg.n_ctx, dtype=high) / factor
    freq = cfg.rotary_base ** (torch.arange(cfg.rotary_dim // 2, dtype=high)
                               / (cfg.rotary_dim / 2))
    angles = pos[:, None] / torch.cat([freq, freq])[None, :]
    for block in model.blocks:
        block.attn.rotary_sin.copy_(torch.sin(angles).to(dtype))
        block.attn.rotary_cos.copy_(torch.cos(angles).to(dtype))


def load_tl(hf: torch.nn.Module, flags: dict[str, bool], dtype: torch.dtype) -> torch.nn.Module:
    """A HookedTransformer as from_pretrained would build it; hf has the same dtype."""
    from transformer_lens import HookedTransformer, HookedTransformerConfig
    c = hf.config
    why = tl_cannot(c)
    if why:
        raise ValueError(f"TransformerLens can't hold this model: {why}")
    experts = c.model_type == "mixtral"  # of which it folds no norm
    norm = "LN" if c.model_type.startswith("gpt") or c.model_type in ("phi", "opt") else "RMS"
    cfg = HookedTransformerConfig(
        **tl_family(c), d_vocab=c.vocab_size,
        normalization_type=norm + ("Pre" if flags["fold_ln"] and not experts else ""),
        init_weights=False, device="cpu", dtype=dtype)
    with widened(dtype):
        model = HookedTransformer(cfg)
    if experts:  # whose Linears are of torch's default dtype
        model.to(dtype, print_details=False)
    with widened(dtype):
        weights = tl_weights(hf, cfg)
    if cfg.output_logits_soft_cap > 0:  # as from_pretrained does
        flags = {**flags, "center_unembed": False}
    model.load_and_process_state_dict(weights, **flags)
    model = model.eval().requires_grad_(False)
    if rope_of(c)["rope_type"] == "linear":
        scale_rotary(model, rope_of(c)["factor"], dtype)
    if c.model_type == "llama" and c.mlp_bias:
        bias_gates(hf, model)
    if flags.get(REFACTOR):
        canonical_signs(model)
    return model


def tl_loader(model_dir: str, dtype: torch.dtype) -> Callable[[dict[str, bool]], torch.nn.Module]:
    """Of flags, a HookedTransformer: of a Hugging Face model, or one of TransformerLens's own."""
    if not is_own(model_dir):
        hf = load_hf(model_dir, dtype)
        return lambda flags: load_tl(hf, flags, dtype)

    def load(flags: dict[str, bool]) -> torch.nn.Module:
        with widened(dtype):
            model = load_own(model_dir, flags, dtype)
        if flags.get(REFACTOR):
            canonical_signs(model)
        return model
    return load


def canonical_signs(model: torch.nn.Module) -> None:
    """Refactored weights with the signs that scripts/truth_weights.py chooses."""
    def signs(columns: torch.Tensor) -> torch.Tensor:  # [H, rows, dh] -> [H, dh]
        largest = columns.gather(1, columns.abs().argmax(1, keepdim=True))[:, 0]
        return torch.where(largest < 0, -1.0, 1.0).to(columns.dtype)

    for block in model.blocks:
        a = block.attn
        s = signs(torch.cat([a.W_Q, a.b_Q[:, None]], dim=1))
        for p in (a.W_Q, a.W_K):
            p.mul_(s[:, None])
        for p in (a.b_Q, a.b_K):
            p.mul_(s)
        s = signs(a.W_V)
        a.W_V.mul_(s[:, None])
        a.W_O.mul_(s[:, :, None])


def run_tl(model: torch.nn.Module, tokens: list[int]) -> tuple[truth.Cache, object]:
    """All hooks without batch dimension, and TransformerLens's own ActivationCache.

    hook_result comes from a second run: with use_attn_result on, TransformerLens computes
    hook_attn_out along another, less exact way than it does by default.
    """
    ids = torch.tensor([tokens])
    model.set_use_attn_result(False)
    for block in model.blocks:  # slopes of an earlier prompt's length, which it would cut wrongly
        block.attn.alibi = None
    default = torch.get_default_dtype()
    torch.set_default_dtype(model.cfg.dtype)  # in which it makes slopes
    with widened(model.cfg.dtype):
        logits, cache = model.run_with_cache(ids)
    torch.set_default_dtype(default)
    out = {k: v.numpy() if ".mlp.hook_expert_" in k else v[0].numpy()
           for k, v in cache.items() if ".mlp.experts." not in k}
    for k, v in cache.items():  # positions and heads are one axis there
        if ".q_norm." in k or ".k_norm." in k:
            out[k] = v.numpy().reshape(len(tokens), -1, v.shape[-1])
    out["logits"] = logits[0].numpy()
    model.set_use_attn_result(True)
    with widened(model.cfg.dtype):
        _, results = model.run_with_cache(ids, names_filter=lambda n: n.endswith("hook_result"))
    model.set_use_attn_result(False)
    out.update({k: v[0].numpy() for k, v in results.items()})
    return out, cache


def tl_lens(model: torch.nn.Module, cache: object, mode: str) -> np.ndarray:
    """[lens_layer, V] at the last position, the way a notebook does it."""
    if mode == "recompute":
        stack = cache.accumulated_resid(layer=-1, pos_slice=-1)  # [lens_layer, 1, D]
        norm = getattr(model, "ln_final", lambda x: x)
        logits = model.unembed(norm(stack))[:, 0]
        cap = model.cfg.output_logits_soft_cap
        return (cap * torch.tanh(logits / cap) if cap > 0 else logits).numpy()  # as forward does
    stack = cache.accumulated_resid(layer=-1, apply_ln=True, pos_slice=-1)
    return (stack @ model.W_U)[:, 0].numpy()


def tl_tables(model: torch.nn.Module, logits: np.ndarray, cache: object, tokens: list[int],
              answers: list[int]) -> dict[str, np.ndarray]:
    from transformer_lens.utils import lm_cross_entropy_loss
    last = logits[-1]
    probs = torch.softmax(torch.from_numpy(last), -1).numpy()
    top = np.argsort(-last, kind="stable")[:10]
    loss = lm_cross_entropy_loss(torch.from_numpy(logits)[None], torch.tensor([tokens]),
                                 per_token=True)[0]
    out = {"logit_diff": np.array([last[answers[0]] - last[a] for a in answers[1:]]),
           "answer_logit": last[answers], "answer_prob": probs[answers],
           "answer_rank": np.array([truth.rank(last, a) for a in answers]),
           "top_tokens": top, "top_logits": last[top], "top_probs": probs[top],
           "token_logprobs": -loss.numpy(), "loss": loss.mean().numpy()}
    for mode in truth.LENS_MODES:
        lens = tl_lens(model, cache, mode)
        out[f"{mode}/lens_logit"] = lens[:, answers]
        out[f"{mode}/rank_per_layer"] = np.array([[truth.rank(r, a) for a in answers]
                                                  for r in lens])
    return out
