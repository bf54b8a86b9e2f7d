"""Models of TransformerLens itself that h5lens must refuse: cases of make_invalid_models.py.

Each has a config that HookedTransformerConfig knows, or would know, and one thing wrong with
it, or with the state dict beside it.
"""

import copy
import random
import struct
from typing import Any, Callable

import torch_files as tf
from golden_hooked import hooked_config
from torch_files import Storage, Tensor

Case = Callable[..., Callable[[Callable[[Any], Any]], None]]
W = "model.safetensors"
W_Q = "blocks.0.attn.W_Q"


def floats(*values: float) -> bytes:
    return struct.pack(f"<{len(values)}f", *values)


def config(**more: Any) -> dict[str, Any]:
    return hooked_config(4, 1, 4, 2, 2, **{"d_mlp": 8, "d_vocab": 6, **more})


def shapes(cfg: dict[str, Any]) -> dict[str, list[int]]:
    D, H, dh, F, V = (cfg[k] for k in ("d_model", "n_heads", "d_head", "d_mlp", "d_vocab"))
    b = "blocks.0."
    out = {"embed.W_E": [V, D], "pos_embed.W_pos": [cfg["n_ctx"], D]}
    for x in "QKV":
        out |= {f"{b}attn.W_{x}": [H, D, dh], f"{b}attn.b_{x}": [H, dh]}
    out |= {f"{b}attn.W_O": [H, dh, D], f"{b}attn.b_O": [D]}
    for norm in (f"{b}ln1", f"{b}ln2", "ln_final"):
        out |= {f"{norm}.w": [D], f"{norm}.b": [D]}
    out |= {f"{b}mlp.W_in": [D, F], f"{b}mlp.b_in": [F], f"{b}mlp.W_out": [F, D],
            f"{b}mlp.b_out": [D]}
    return out | {"unembed.W_U": [D, V], "unembed.b_U": [V]}


def tensors() -> dict[str, dict[str, Any]]:
    rng = random.Random(11)
    out = {}
    for name, shape in shapes(config()).items():
        n = 1
        for s in shape:
            n *= s
        out[name] = {"dtype": "F32", "shape": shape,
                     "data": floats(*(rng.uniform(-1, 1) for _ in range(n)))}
    return out


def make(m: Any) -> None:
    m.config = config()
    m.files = {W: tensors()}


def state(names: dict[str, dict[str, Any]]) -> dict[str, Any]:
    return {name: Tensor(Storage("FloatStorage", t["data"], 4),
                         tuple(t["shape"])) for name, t in names.items()}


def config_cases(case: Case) -> None:
    def refused(name: str, says: str, **change: Any) -> None:
        def write(m: Any) -> None:
            make(m)
            m.config.update(change)
        case(f"own-{name}", f"own-{name}/config.json", says)(write)

    refused("bidirectional", 'attention_dir "bidirectional"', attention_dir="bidirectional")
    refused("experts", "experts_per_token 5 is more than num_experts 4", num_experts=4, experts_per_token=5)
    refused("experts-solu", 'act_fn "solu": not with experts', act_fn="solu", num_experts=4, experts_per_token=2)
    refused("4bit", "load_in_4bit true", load_in_4bit=True)
    refused("norm", 'normalization_type "BatchNorm"', normalization_type="BatchNorm")
    refused("positions", 'positional_embedding_type "relative_positional_bias"',
            positional_embedding_type="relative_positional_bias")
    refused("act", 'act_fn "mish": we have gelu_new (gelu_fast, gelu_pytorch_tanh), gelu, relu, silu '
            "(swish), solu, solu_ln", act_fn="mish")
    refused("nul-key", "a key holds a NUL", **{"\0": 1})
    for key in ("n_layers", "d_model", "d_head", "n_ctx"):
        @case(f"own-no-{key}", f"own-no-{key}/config.json", f'"{key}" is missing')
        def _(m: Any, key: str = key) -> None:
            make(m)
            del m.config[key]
    refused("act-missing", '"act_fn" is missing, and attn_only is not true', act_fn=None)
    refused("newer-key", 'key "rope_type" is none of HookedTransformerConfig', rope_type="yarn")
    refused("newer-number", 'key "rotary_base_local" is none of HookedTransformerConfig',
            rotary_base_local=10000)
    refused("solu-gated", 'act_fn "solu_ln": with gated_mlp', act_fn="solu_ln", gated_mlp=True)
    refused("parallel-attn-only", "parallel_attn_mlp true: with attn_only there is no MLP",
            parallel_attn_mlp=True, attn_only=True)
    refused("after-layer-norm", "use_normalization_before_and_after true",
            use_normalization_before_and_after=True)
    refused("alibi-capped", "attn_scores_soft_cap 5 with alibi",
            positional_embedding_type="alibi", attn_scores_soft_cap=5.0)
    refused("rotary-odd", "rotary_dim 1 is not an even number",
            positional_embedding_type="rotary", rotary_dim=1)
    refused("rotary-large", "rotary_dim 4 is not an even number up to d_head 2",
            positional_embedding_type="rotary", rotary_dim=4)
    refused("rotary-base", '"rotary_base" is not above 0',
            positional_embedding_type="rotary", rotary_base=0)
    refused("ntk", "NTK_by_parts_factor 0", positional_embedding_type="rotary",
            use_NTK_by_parts_rope=True, NTK_by_parts_factor=0)
    refused("kv-heads", "n_heads 2 is not a multiple of n_key_value_heads 3",
            n_key_value_heads=3)
    refused("local-no-window", '"window_size" is missing', use_local_attn=True,
            attn_types=["local"])
    refused("local-no-types", "attn_types does not name 1 layers", use_local_attn=True,
            window_size=2)
    refused("local-type", 'attn_types knows only "global" and "local"', use_local_attn=True,
            window_size=2, attn_types=["sliding"])
    refused("d-vocab", '"d_vocab" is not a whole number', d_vocab=-1)
    refused("eps", "eps -1 is negative", eps=-1)
    for name, scale in (("below", -0.5), ("minus-two", -2.0), ("zero", 0)):
        refused(f"attn-scale-{name}", f"attn_scale {scale:g}: we have numbers above 0, and -1",
                attn_scale=scale)
    for key in ("attn_scale", "use_attn_scale", "attention_dir", "eps", "positional_embedding_type",
                "d_vocab_out", "attn_scores_soft_cap", "output_logits_soft_cap", "n_heads", "rotary_base"):
        refused(f"null-{key}", f"{key} null: TransformerLens does not take this for the default",
                **{key: None})
    refused("experts-per-token-only", '"num_experts" is missing, and experts_per_token is there',
            experts_per_token=2)
    refused("experts-text", '"num_experts" is not a whole number', num_experts="4",
            experts_per_token=2)


def tensor_cases(case: Case) -> None:
    def changed(name: str, *says: str) -> Callable[[Callable[[Any], Any]], None]:
        def register(change: Callable[[Any], Any]) -> None:
            def write(m: Any) -> None:
                make(m)
                change(m)
            case(f"own-{name}", *says)(write)
        return register

    changed("heads-swapped", W, f'tensor "{W_Q}" has shape [4, 2, 2]; config.json implies '
            "[2, 4, 2]")(lambda m: m.tensors[W_Q].update(shape=[4, 2, 2]))
    changed("heads-flat", W, f'tensor "{W_Q}" has shape [4, 4]; config.json implies [2, 4, 2]')(
        lambda m: m.tensors[W_Q].update(shape=[4, 4]))
    changed("bias-flat", W, 'tensor "blocks.0.attn.b_Q" has shape [4]; config.json implies [2, 2]')(
        lambda m: m.tensors["blocks.0.attn.b_Q"].update(shape=[4]))
    changed("head-transposed", W, 'tensor "unembed.W_U" has shape [6, 4]; config.json implies '
            "[4, 6]")(lambda m: m.tensors["unembed.W_U"].update(shape=[6, 4]))
    changed("vocab-out", W, 'tensor "unembed.b_U" has shape [6]; config.json implies [5]')(
        lambda m: m.config.update(d_vocab_out=5))
    changed("folded-with-weights", W, 'tensor "blocks.0.ln1.b" is unknown')(
        lambda m: m.config.update(normalization_type="LNPre"))
    changed("no-norm-weights", W, 'tensor "ln_final.w" is missing')(
        lambda m: [m.tensors.pop(n) for n in ("ln_final.w", "ln_final.b")])
    changed("attn-only-mlp", W, 'tensor "blocks.0.ln2.b" is unknown')(
        lambda m: m.config.update(attn_only=True))
    changed("grouped-name", W, 'tensor "blocks.0.attn._W_K" is missing')(
        lambda m: m.config.update(n_key_value_heads=2))
    changed("solu-ln", W, 'tensor "blocks.0.mlp.ln.w" is missing')(
        lambda m: m.config.update(act_fn="solu_ln"))
    changed("infinity", W, f'tensor "{W_Q}" holds an infinity at element 7')(
        lambda m: m.tensors[W_Q].update(data=m.tensors[W_Q]["data"][:28]
                                        + floats(float("inf")) + m.tensors[W_Q]["data"][32:]))
    for kind, name, at in (("matrix", W_Q, 5), ("vector", "blocks.0.mlp.b_in", 3)):
        # Below halfway past float32's largest number it is rounded to that one.
        def beyond(m: Any, name: str = name, at: int = at) -> None:
            n = len(m.tensors[name]["data"]) // 4
            values = [float.fromhex("0x1.fffffefp127")] * at + [float.fromhex("0x1.ffffffp127")] * (n - at)
            m.tensors[name].update(dtype="F64", data=struct.pack(f"<{n}d", *values))
        changed(f"beyond-float32-{kind}", W, f'tensor "{name}" holds a number beyond float32\'s range '
                f"at element {at}")(beyond)

    def pth(name: str, obj: Callable[[dict[str, Any]], Any], *says: str) -> None:
        def change(m: Any) -> None:
            m.raw = {"model.pth": tf.archive(tf.entries(obj(state(m.tensors))))}
            m.files = {}
        changed(name, "model.pth", *says)(change)

    pth("pickle-config", lambda s: {**s, "cfg": {"n_layers": 1}}, 'entry "cfg"', "a dict")
    pth("pickle-call", lambda s: {**s, "cfg": tf.Call(tf.name("transformer_lens", "HookedTransformer"), ())},
        "transformer_lens")

    @changed("two-files", "holds more than one file of weights (a.pth, b.pt)")
    def _(m: Any) -> None:
        data = tf.archive(tf.entries(state(m.tensors)))
        m.raw, m.files = {"b.pt": data, "a.pth": data, "c.pth": data}, {}

    @changed("no-files", "holds no weights", "model.pth")
    def _(m: Any) -> None:
        m.files = {}


def hooked_cases(case: Case) -> None:
    config_cases(case)
    tensor_cases(case)


def write_hooked(new_model: Callable[[], Any], valid: Any) -> None:
    """One that must load; and without model_type, as a pickle of any name."""
    m = new_model()
    make(m)
    m.config = {"model_type": "hooked_transformer", **copy.deepcopy(m.config)}
    m.write(valid / "own")
    m = new_model()
    make(m)
    m.raw = {"my run 3.pt": tf.archive(tf.entries(state(m.tensors)))}
    m.files = {}
    m.write(valid / "own-pickle")
