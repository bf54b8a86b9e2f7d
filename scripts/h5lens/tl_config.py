"""A run's model in HookedTransformerConfig's keys."""

from __future__ import annotations

import warnings
from typing import Any

from .names import H5LensError, H5LensWarning
from .run_file import RunFile

# What HookedTransformerConfig is told of a model. Names of our own, which it doesn't know, are left out.
_TL_KEYS = {
    "n_layers", "d_model", "n_ctx", "d_head", "n_heads", "n_key_value_heads", "d_mlp", "d_vocab", "act_fn", "eps",
    "normalization_type", "original_architecture", "positional_embedding_type", "parallel_attn_mlp", "gated_mlp",
    "use_attn_scale", "attn_scale", "scale_attn_by_inverse_layer_idx", "use_local_attn", "window_size", "attn_types",
    "rotary_dim", "rotary_base", "rotary_adjacent_pairs", "use_NTK_by_parts_rope", "NTK_by_parts_factor",
    "NTK_by_parts_low_freq_factor", "NTK_by_parts_high_freq_factor", "NTK_original_ctx_len", "use_qk_norm",
    "use_normalization_before_and_after", "attn_scores_soft_cap", "output_logits_soft_cap",
    "attn_only", "final_rms", "d_vocab_out", "post_embedding_ln", "num_experts", "experts_per_token"}
_TL_GROUPED = {"MistralForCausalLM", "MixtralForCausalLM", "Qwen2ForCausalLM", "GemmaForCausalLM",
               "Gemma2ForCausalLM"}  # whatever their config
_TL_LACKS = {"Olmo2ForCausalLM", "Gemma3ForCausalLM", "GraniteForCausalLM", "SmolLM3ForCausalLM",
             "Starcoder2ForCausalLM", "StableLmForCausalLM", "Qwen3MoeForCausalLM",
             "BloomForCausalLM",  # its embedding's norm is part of W_E in our files
             "GPTBigCodeForCausalLM"}  # its conversion reads names that transformers no longer has
_TL_N_CTX = 2048  # TransformerLens makes a mask of n_ctx × n_ctx for each layer, and limits n_ctx like this


def transformer_lens_config(run: RunFile) -> dict[str, Any]:
    """What TransformerLens 2.x's HookedTransformerConfig takes to be the model of this run; dtype and device are yours.

    It is `run.model_config` less what is not TransformerLens's. n_key_value_heads is there for grouped queries only
    (given for any other model, TransformerLens would leave its keys and values empty), but for Mistral, Mixtral,
    Qwen2 and Gemma, whose weights it converts as if they always had them. n_ctx is limited where positions are rotary, but never
    below the longest prompt.

    W_U is no part of it: a model's weights are loaded from its folder, and config.json there says whether W_U is the
    embedding. A run with another choice (`tied_head`) gives a warning.
    """
    config = run.model_config
    rope = "linear" if "rope_linear_factor" in config else config.get("rope_type")
    if rope:
        raise H5LensError(f"{run.path}: the model's rotary positions are scaled by {rope} scaling, which TransformerLens "
                          "2.x has not: its HookedTransformer would be another model")
    if config["original_architecture"] in _TL_LACKS:
        raise H5LensError(f"{run.path}: TransformerLens 2.x has no {config['original_architecture']} whose activations "
                          "are the file's")
    if (choice := run.experiment.get("tied_head", "auto")) != "auto":
        warnings.warn(
            f"{run.path}: tied_head is {choice}: W_U is the tensor {run.attr('tensor_W_U')} (W_E: "
            f"{run.attr('tensor_W_E')}), and a model that transformers loads from the folder has the W_U that "
            "config.json asks for, unless AutoModelForCausalLM.from_pretrained is told "
            f"tie_word_embeddings={choice == 'tied'}", H5LensWarning, stacklevel=2)
    got = {k: v for k, v in config.items() if k in _TL_KEYS}
    kv_heads = got.pop("n_key_value_heads", got["n_heads"])
    if kv_heads != got["n_heads"] or got["original_architecture"] in _TL_GROUPED:
        got["n_key_value_heads"] = kv_heads
    if got["positional_embedding_type"] == "rotary":
        got["n_ctx"] = min(got["n_ctx"], max(_TL_N_CTX, int(run.lengths.max(initial=0))))
    for whole in ("rotary_base", "NTK_original_ctx_len"):
        if whole in got and got[whole] == int(got[whole]):
            got[whole] = int(got[whole])
    return {**got, "default_prepend_bos": bool(run.attr("prepend_bos")), "init_weights": False}
