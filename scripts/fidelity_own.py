"""TransformerLens's own models in TransformerLens itself, for scripts/fidelity.py.

load_own makes a HookedTransformer of a folder with its config.json and state dict, and processes
the weights as load_and_process_state_dict does; check_config compares the config with what
HookedTransformerConfig makes of it.
"""

from __future__ import annotations

import torch

from truth_weights import REFACTOR, read_config, read_model, read_tensors, refused


def is_own(model_dir: str) -> bool:
    return read_config(model_dir).get("model_type", "hooked_transformer") == "hooked_transformer"


def keys_of(model_dir: str) -> dict:
    return {k: v for k, v in read_config(model_dir).items() if k != "model_type"}


def own_cannot(model_dir: str, flags: dict[str, bool]) -> str | None:
    """Why TransformerLens can't process the weights so, or would make another model of it."""
    keys = keys_of(model_dir)
    cfg, _ = read_model(model_dir)
    reason = refused(cfg, **{k: v for k, v in flags.items() if k != REFACTOR})
    if reason:
        return reason
    kind, act = keys["normalization_type"], keys["act_fn"] or ""
    if flags["fold_ln"] and (act == "solu" and kind == "LN"
                             or act.startswith("solu") and kind == "RMS"):
        return "fold_ln takes every act_fn that begins with solu for solu_ln with weights"
    if flags.get(REFACTOR) and (cfg.rotary_dim or keys["n_key_value_heads"]):
        return REFACTOR
    return None


def check_config(model_dir: str) -> list[str]:
    """What HookedTransformerConfig's to_dict() has otherwise."""
    from transformer_lens import HookedTransformerConfig
    keys = keys_of(model_dir)
    made = HookedTransformerConfig(
        **{**keys, "dtype": getattr(torch, keys["dtype"].split(".")[1])}).to_dict()
    made = {**made, "dtype": str(made["dtype"])}
    return [f"{model_dir}: config.json's {k}" for k in sorted(keys.keys() | made.keys())
            if keys.get(k, "missing") != made.get(k, "missing")]


def load_own(model_dir: str, flags: dict[str, bool], dtype: torch.dtype) -> torch.nn.Module:
    from transformer_lens import HookedTransformer, HookedTransformerConfig
    keys = {**keys_of(model_dir), "dtype": dtype, "init_weights": False}
    kind = keys["normalization_type"] or ""
    if kind.endswith("Pre"):  # nothing to fold, which it does not expect
        flags = {**flags, "fold_ln": False}
    elif kind and flags["fold_ln"] and not keys["num_experts"]:  # of which it folds no norm
        keys["normalization_type"] = kind + "Pre"
    if keys["output_logits_soft_cap"] > 0:  # as from_pretrained does
        flags = {**flags, "center_unembed": False}
    default = torch.get_default_dtype()
    torch.set_default_dtype(dtype)  # that of experts' Linears
    model = HookedTransformer(HookedTransformerConfig(**keys))
    torch.set_default_dtype(default)
    own = model.state_dict()
    state = {}
    for name, read in read_tensors(model_dir).items():
        if name.endswith((".mask", ".IGNORE", ".rotary_sin", ".rotary_cos")):
            state[name] = own[name]  # follows from the config, in this dtype
        else:
            state[name] = torch.from_numpy(read()).to(dtype)
    for name in own.keys() - state.keys():
        if name.endswith((".mask", ".IGNORE", ".rotary_sin", ".rotary_cos")):
            state[name] = own[name]
    if not any(flags.values()):
        model.load_state_dict(state, strict=True)
    else:
        model.load_and_process_state_dict(state, **flags)
    return model.eval().requires_grad_(False)

