"""Checks configs of published checkpoints, without their weights: `info`, `run --dry-run`, and what is refused by name.

tests/cli/configs/NAME.json is the config.json of a checkpoint as it was published, written down from its known figures (no
hub could be reached; the factors of longrope are stand-ins). What each must hold, number of parameters and of tensors and
the SHA-256 of every name and shape, comes from transformers 4.56.2's own model of the config on torch's meta device:

    PYTHON tests/cli/check_published.py --reference     # prints the table anew; needs torch and transformers

The counts are the published ones where a model card gives them to the digit (gpt2 124439808, Llama-2-7b 6738415616, …).
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import struct
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
CONFIGS = ROOT / "tests" / "cli" / "configs"
sys.path.insert(0, str(ROOT / "scripts"))

import checks  # noqa: E402

H5LENS = os.environ.get("H5LENS", str(ROOT / "build" / "h5lens"))

# NAME: parameters, a tied head counted once, tensors, names and shapes
RUN: dict[str, tuple[int, int, str]] = {
    "DeepSeek-R1-Distill-Llama-8B": (8030261248, 291, "f12561b800745587"),
    "Llama-2-7b-hf": (6738415616, 291, "502e54449cfda6de"),
    "Llama-3.2-1B": (1235814400, 146, "e9ed2d969a9cf992"),
    "Meta-Llama-3-8B": (8030261248, 291, "f12561b800745587"),
    "Mistral-7B-v0.1": (7241732096, 291, "57f5d547cf75f749"),
    "Mistral-7B-v0.3": (7248023552, 291, "7c98ca7475d9ef17"),
    "Mistral-Nemo-Base-2407": (12247782400, 363, "e575f2d8c6e0e45a"),
    "Mixtral-8x7B-v0.1": (46702792704, 995, "e9b5e79d28d8abcb"),
    "OLMo-2-1124-7B": (7298617344, 355, "740578db157e2080"),
    "Phi-3-mini-128k-instruct-2024-04": (3821079552, 195, "05ebe77be71b23b0"),
    "Phi-3-mini-128k-instruct": (3821079552, 195, "05ebe77be71b23b0"),
    "Phi-3-mini-4k-instruct": (3821079552, 195, "05ebe77be71b23b0"),
    "Phi-4-mini-instruct": (3836021760, 194, "891cbee0e41a9041"),
    "Qwen2.5-0.5B": (494032768, 290, "889da6985209d1cc"),
    "Qwen2.5-7B": (7615616512, 339, "b676b8bbe9a50f5a"),
    "Qwen3-0.6B": (596049920, 310, "e8d37f90d1ed1bfc"),
    "Qwen3-30B-A3B": (30532122624, 18867, "1eeea1436776c70f"),
    "Qwen3-8B": (8190735360, 399, "a86a425f4d7929b4"),
    "SmolLM2-135M": (134515008, 272, "7a15044f94f1ea21"),
    "SmolLM3-3B": (3075098624, 326, "62ef8c0ffbe03c7c"),
    "bloom-560m": (559214592, 293, "74a3b965eab52616"),
    "bloom-7b1": (7069016064, 365, "362aea10740dbb59"),
    "gemma-2-2b": (2614341888, 288, "d3b54c9d6c7bf804"),
    "gemma-2-9b": (9241705984, 464, "e0fe03fa3d05f60b"),
    "gemma-2b": (2506172416, 164, "e74e3ec3f3f2c41d"),
    "gemma-3-1b-pt": (999885952, 340, "4b69ac56c30b4cbb"),
    "gemma-3-270m": (268098176, 236, "b1580700eddba537"),
    "gemma-7b": (8537680896, 254, "b185c803c102acc6"),
    "gpt-j-6b": (6050882784, 285, "d742e17904f61921"),
    "gpt-neo-2.7B": (2651307520, 420, "e496cfb72cfea3a1"),
    "gpt2-medium": (354823168, 292, "bee4a73bc0eb2550"),
    "gpt2-xl": (1557611200, 580, "ca8c327e91c74c31"),
    "gpt2": (124439808, 148, "10e4cba4aae96ce7"),
    "gpt_bigcode-santacoder": (1124886528, 292, "27c1cb6adfed31de"),
    "granite-3.1-2b-base": (2533525504, 362, "c0edb3f65636c4f6"),
    "opt-1.3b": (1315758080, 388, "3bc3d8711c0c7527"),
    "phi-1_5": (1418270720, 341, "14fa02c19b7d0512"),
    "phi-2": (2779683840, 453, "432a320e3c1f529c"),
    "phi-4": (14659507200, 243, "5515c01afd0115db"),
    "pythia-6.9b": (6857302016, 388, "fbb6ef91696f11b4"),
    "stablelm-2-1_6b": (1644515328, 340, "4dff09e68fdab5bb"),
    "stablelm-3b-4e1t": (2795443200, 356, "e63e5d37a2eef28d"),
    "starcoder2-3b": (3030371328, 483, "8292162c9b4b9f85"),
}

NEAREST = "nearest family: {}, which reads"
# NAME: what `info` tells, and the end of the error of both `info` and `run`
REFUSED: dict[str, tuple[list[str], str]] = {
    "falcon-7b": ([NEAREST.format("bloom"), "n_heads 71 (num_attention_heads)", "keys that no family reads",
                   "new_decoder_architecture false", "parallel_attn true", "multi_query true (gpt_bigcode reads it)"],
                  'model_type "falcon" is an architecture we do not know'),
    "mpt-7b": (["n_layers 32 (n_layers), d_model 4096 (d_model)", 'attn_config {"alibi":true', "no_bias true"],
               'model_type "mpt"'),
    "mamba-130m-hf": (["d_model 768 (hidden_size)", "state_size 16", "time_step_max 0.1\n"], 'model_type "mamba"'),
    "OLMoE-1B-7B-0924": (["nearest family: ", "clip_qkv null"], 'model_type "olmoe"'),
    "DeepSeek-V3": (["nearest family: ", "kv_lora_rank 512", "qk_rope_head_dim 64"], "a quantised checkpoint (fp8)"),
    "gemma-3-4b-pt": (["its text_config is of model_type gemma3_text, which is run"], 'model_type "gemma3"'),
    "Llama-4-Scout-17B-16E": (["text_config: n_layers 48", "nearest family: ", "attention_chunk_size 8192"],
                              'model_type "llama4"'),
    "Qwen2-7B-Instruct-AWQ": ([], "a quantised checkpoint (awq)"),
    "opt-350m": ([], "do_layer_norm_before false, word_embed_proj_dim 512 is not hidden_size 1024"),
    "stablelm-2-12b": ([], "qk_layernorm true"),
}
# NAME: what `info` says of it beside its sizes
SAYS = {
    "gemma-2b": "act_fn gelu_pytorch_tanh,",  # hidden_act "gelu", as it was published
    "Phi-3-mini-128k-instruct-2024-04": "rotary_base 10000, scaled: longrope",  # type "su"
    "Phi-4-mini-instruct": "rotary_dim 96, rotary_base 10000, scaled: longrope",
    "gemma-3-1b-pt": "window_size 512 in 22 of 26 layers",
    "Mistral-7B-v0.1": "window_size 4096 in 32 of 32 layers",
    "stablelm-2-1_6b": "rotary_dim 16,",
    "gpt-neo-2.7B": "window_size 256 in 16 of 32 layers",
    "bloom-560m": "positions: ALiBi",
}


def h5lens(*args: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([H5LENS, *map(str, args)], capture_output=True, text=True, errors="replace", check=False)


def folder(work: Path, name: str) -> Path:
    (work / name).mkdir()
    shutil.copy(CONFIGS / f"{name}.json", work / name / "config.json")
    return work / name


def made(work: Path, name: str, config: str) -> Path:
    (work / name).mkdir()
    (work / name / "config.json").write_text(config)
    return work / name


def digest(lines: str) -> str:
    return hashlib.sha256(lines.encode()).hexdigest()[:16]


def data(work: Path, prompts: int, tokens: int) -> Path:
    path = work / f"{prompts}x{tokens}.csv"
    path.write_text("ids\n" + "".join(" ".join(str((i * 31 + t) % 1000) for t in range(tokens)) + "\n" for i in range(prompts)))
    return path


def dry_run(model: Path, csv: Path, *args: str) -> subprocess.CompletedProcess[str]:
    return h5lens("run", "--model", model, "--data", csv, "--tokens", "ids", "--set", "data.prepend_bos=false", "-o",
                  model / "none.h5", "--dry-run", *args)


def check_run(c: checks.Checks, work: Path, name: str, expected: tuple[int, int, str]) -> None:
    model = folder(work, name)
    info, tensors = h5lens("info", model), h5lens("info", model, "--tensors")
    c.that(info.returncode == 0, f"{name}: info: {info.stderr}")
    c.that(f"\n  {expected[0]} parameters in {expected[1]} tensors\n" in info.stdout, f"{name}: not {expected} in {info.stdout[:400]}")
    c.that(digest(tensors.stdout) == expected[2], f"{name}: names and shapes are {digest(tensors.stdout)}, not {expected[2]}")
    c.that(SAYS.get(name, "") in info.stdout, f"{name}: no '{SAYS.get(name)}' in {info.stdout[:900]}")
    sizes = dict(re.findall(r"(n_layers|d_model) (\d+),", info.stdout))
    plan = dry_run(model, data(work, 2, 8), "--hooks", "*hook_resid_post", "--memory", "400G")
    last = f"/cache/blocks.{int(sizes['n_layers']) - 1}.hook_resid_post "
    c.that(plan.returncode == 0 and "holds no weights: its plan is that of config.json" in plan.stderr, f"{name}: {plan.stderr}")
    c.that(re.search(re.escape(last) + rf" *2×8×{sizes['d_model']} ", plan.stdout) is not None, f"{name}: {plan.stdout[-400:]}")


def check_refused(c: checks.Checks, work: Path, name: str, told: list[str], error: str) -> None:
    model = folder(work, name)
    info, run = h5lens("info", model), dry_run(model, data(work, 2, 8))
    for text in told:
        c.that(text in info.stdout, f"{name}: no '{text}' in {info.stdout}")
    for done in (info, run):
        c.that(done.returncode == 1 and error in done.stderr, f"{name}: {done.returncode}: {done.stderr}")
    c.that("an architecture we do not know" not in run.stderr or "h5lens info tells" in run.stderr, f"{name}: {run.stderr}")


def safetensors(path: Path, shapes: dict[str, list[int]]) -> None:
    header: dict[str, Any] = {}
    at = 0
    for name, shape in shapes.items():
        n = 4
        for extent in shape:
            n *= extent
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [at, at + n]}
        at += n
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + bytes(at))


def check_tensors(c: checks.Checks, work: Path) -> None:
    """An unknown family with weights: its names beside those of the nearest."""
    config = {"model_type": "newcomer", "hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 16,
              "vocab_size": 10, "rms_norm_eps": 1e-6, "rope_theta": 1e4, "hidden_act": "silu", "sinks": True, "scale": float("nan")}
    model = made(work, "newcomer", json.dumps(config))
    known = h5lens("info", made(work, "as-llama", json.dumps({**config, "model_type": "llama"})), "--tensors").stdout
    shapes = {name: json.loads(shape) for name, shape in (line.split(" ", 1) for line in known.splitlines())}
    safetensors(model / "model.safetensors", shapes)
    said = h5lens("info", model).stdout
    c.that("its tensors have the names that llama's have\n" in said, f"newcomer, the same: {said}")
    c.that("  sinks true\n" in said and "  scale holds NaN\n" in said, f"newcomer: {said}")
    for layer in range(2):
        shapes[f"model.layers.{layer}.self_attn.sinks"] = [2]
        del shapes[f"model.layers.{layer}.mlp.gate_proj.weight"]
    safetensors(model / "model.safetensors", shapes)
    said = h5lens("info", model).stdout
    c.that("tensors that llama does not have\n  model.layers.*.self_attn.sinks\n" in said, f"newcomer, added: {said}")
    c.that("tensors of llama that are missing\n  model.layers.*.mlp.gate_proj.weight\n" in said, f"newcomer, missing: {said}")
    (model / "model.safetensors").write_bytes(b"\xff" * 40)
    done = h5lens("info", model)
    c.that(done.returncode == 1 and "model.safetensors" in done.stderr and "newcomer" in done.stderr, f"damaged: {done.stderr}")


def check_bad(c: checks.Checks, work: Path) -> None:
    """Strange configs: each is refused, with what can be told of it."""
    shape = '"hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2'
    deep = "[" * 1900 + "]" * 1900
    cases = {
        "deep": (f'{{"model_type": "x", {shape}, "k": {deep}}}', "k [[[[[["),
        "deeper": (f'{{"model_type": "x", "k": {"[" * 5000 + "]" * 5000}}}', ""),
        "many": (f'{{"model_type": "x", {shape}, {", ".join(f"{chr(34)}k{i}{chr(34)}: {i}" for i in range(50000))}}}', "… and 49976 more"),
        "control": ('{"model_type": "x\\u001b[31m\\n", "a\\u0007b": "\\u001b"}', r"model_type x\x1b[31m\n, which"),
        "long": (json.dumps({"model_type": "x" * 300, "ä" * 200: "ö" * 200}, ensure_ascii=False), "ääää… "),
        "text": ('{"model_type": "x", "hidden_size": "8", "num_hidden_layers": 2, "num_attention_heads": []}', 'n_layers 2 (num_hidden_layers)\n'),
        "layers": ('{"model_type": "x", "hidden_size": 8, "num_hidden_layers": 999999999, "num_attention_heads": 2, "rms_norm_eps": 1}',
                   "llama would refuse this config: num_hidden_layers 999999999"),
        "inner": ('{"model_type": "x", "text_config": 7}', "text_config 7"),
        "inner list": ('{"model_type": "x", "text_config": {"model_type": ["gemma3_text"], "n": 3}}', "n 3"),
    }
    for name, (config, told) in cases.items():
        done = h5lens("info", made(work, f"bad {name}", config))
        c.that(done.returncode == 1 and done.stderr.startswith("h5lens: ") and told in done.stdout and "\x1b" not in done.stdout,
               f"{name}: {done.returncode}: {done.stdout[-500:]} {done.stderr}")


def check_memory(c: checks.Checks, work: Path) -> None:
    """A vocabulary of 256,000 within a limit: batches are cut, then workers; what one worker needs is told."""
    model, csv = work / "gemma-2-2b", data(work, 64, 6)

    def plan(memory: str) -> subprocess.CompletedProcess[str]:
        return dry_run(model, csv, "--hooks", "logits", "--memory", memory, "--threads", "2")

    def has(memory: str, *texts: str) -> None:
        said = plan(memory).stdout
        c.that(all(t in said for t in texts), f"{memory}: {texts} in {said}")

    has("13G", "2 batches of 32", "2 workers of")
    has("12600M", "8 batches of 8", "2 workers of")
    has("12400M", "8 batches of 8", "1 worker of")
    error = plan("12300M").stderr
    needs = re.search(r"memory: one worker needs (\d+) MiB \(model \d+, worker \d+, .*; --memory gives 12300 MiB", error)
    if c.that(needs is not None, f"12300M: {error}"):
        assert needs
        least = int(needs[1])
        c.that(plan(f"{least}M").returncode == 0, f"{least}M is enough")
        c.that(plan(f"{least - 1}M").returncode == 1, f"{least - 1}M is not")


def reference() -> None:
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    with tempfile.TemporaryDirectory() as work:
        for path in sorted(CONFIGS.glob("*.json")):
            if path.stem in REFUSED:
                continue
            config = AutoConfig.from_pretrained(folder(Path(work), path.stem))
            with torch.device("meta"):
                model = AutoModelForCausalLM.from_config(config)
            model.tie_weights()
            tensors = sorted((name, list(p.shape)) for name, p in model.named_parameters())
            lines = "".join(f"{name} {shape}\n" for name, shape in tensors)
            print(f'    "{path.stem}": ({sum(p.numel() for p in model.parameters())}, {len(tensors)}, "{digest(lines)}"),', flush=True)


def main() -> int:
    if sys.argv[1:] == ["--reference"]:
        reference()
        return 0
    c = checks.Checks()
    c.that({p.stem for p in CONFIGS.glob("*.json")} == {*RUN, *REFUSED}, "each config is in one of the tables")
    with tempfile.TemporaryDirectory(dir=os.environ.get("WORK")) as name:
        work = Path(name)
        for model, expected in RUN.items():
            check_run(c, work, model, expected)
        for model, (told, error) in REFUSED.items():
            check_refused(c, work, model, told, error)
        check_tensors(c, work)
        check_bad(c, work)
        check_memory(c, work)
    return c.end()


if __name__ == "__main__":
    sys.exit(main())
