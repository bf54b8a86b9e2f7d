#!/usr/bin/env python3
"""h5lens beside Hugging Face on a real shape of the newer families, with random weights.

    bench_families.py SHAPE DIR [--prompts 64] [--rounds 3] [--memory SIZE] [--parts speed,memory,check]

SHAPE is qwen3-0.6b or gemma-2-2b (scripts/random_models.py); DIR holds the model, which is written if it is not there
(bfloat16; 1.2 and 5.2 GB). Prompts are random token ids, 16, 24 or 32 of them.

    speed   a round runs, one after the other: h5lens with logit_diff alone (what is needed of a forward pass for the
            logits of the last position), Hugging Face's logits of the last position, h5lens with every hook_resid_post in
            its file, Hugging Face with output_hidden_states, h5lens with its default tables (the logit lens too, for
            which the peer has no counterpart). Hugging Face: float32, its own choice of attention (eager where scores
            have a soft cap), prompts of one length together, --hf-batch of them at once. Each is a process of its own.
            Prints the time to load, prompts/s of the computing, wall and processor time, ratios, and peak memory (VmHWM;
            and without mapped pages of files).
    memory  h5lens with every default table, token_logprobs and all resid_post, under each of some limits (--memory says
            which): the largest RssAnon beside the limit.
    check   every residual stream and the logits of two prompts beside float64, where transformers' own layers are made,
            run and dropped one by one, so that the model never is in memory; and so Hugging Face's in float32. Ours must be
            as close: over all of them the RMS of errors is no larger, the largest at most 1.5 times.

Needs torch, transformers and h5py. No test of `make test`.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

import random_models

os.environ.setdefault("HF_HUB_OFFLINE", "1")
ROOT = Path(__file__).resolve().parent.parent
SHAPES = ("qwen3-0.6b", "gemma-2-2b")
LENGTHS = (16, 24, 32)
CHECKED = 2  # prompts
MAX_FACTOR = 1.5  # fidelity.py's


# --- prompts --------------------------------------------------------------------------------

def prompts_of(n: int, vocab: int) -> list[list[int]]:
    rng = np.random.Generator(np.random.PCG64(1))
    return [rng.integers(3, vocab, LENGTHS[i % len(LENGTHS)]).tolist() for i in range(n)]


def write_data(path: Path, prompts: list[list[int]]) -> None:
    with open(path, "w", encoding="utf-8", newline="") as f:
        rows = csv.writer(f, lineterminator="\n")
        rows.writerow(("tokens", "a", "b"))
        rows.writerows((" ".join(map(str, t)), 11, 12) for t in prompts)


# --- processes ------------------------------------------------------------------------------

@dataclass
class Measured:
    load: float      # seconds before the computing
    computing: float
    cpu: float       # seconds of all threads: of h5lens, from its beginning to its end; of Hugging Face, of the computing
    peak: int        # bytes: VmHWM
    anon: int        # of these, the largest RssAnon


def peaks_of(pid: int) -> tuple[int, int]:
    """VmHWM, and now RssAnon: without the mapped pages of the weights' file, which the kernel takes back when it needs them."""
    try:
        status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    except (FileNotFoundError, ProcessLookupError):
        return 0, 0
    found = dict(re.findall(r"^(VmHWM|RssAnon):\s+(\d+) kB", status, re.M))
    return int(found.get("VmHWM", 0)) * 1024, int(found.get("RssAnon", 0)) * 1024


def run_process(command: list[str]) -> tuple[str, float, float, tuple[int, int]]:
    """Output, wall and processor seconds, VmHWM and RssAnon (looked at while it runs; wait4's ru_maxrss has that of the fork)."""
    before = time.monotonic()
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        child = subprocess.Popen(command, stdout=out, stderr=err)
        peak, anon = 0, 0
        while True:
            pid, status, usage = os.wait4(child.pid, os.WNOHANG)
            if pid:
                break
            now = peaks_of(child.pid)
            peak, anon = max(peak, now[0]), max(anon, now[1])
            time.sleep(0.01)
        seconds = time.monotonic() - before
        child.returncode = os.waitstatus_to_exitcode(status)
        out.seek(0), err.seek(0)
        if child.returncode:
            sys.exit(f"{' '.join(command)}\nended with {child.returncode}:\n{err.read()[-2000:]}")
        return out.read(), seconds, usage.ru_utime + usage.ru_stime, (peak, anon)


def h5lens_command(args: argparse.Namespace, data: Path, out: Path, *more: str) -> list[str]:
    command = [str(args.h5lens), "run", "--model", str(args.dir), "--data", str(data), "-o", str(out), "--overwrite",
               "--threads", str(args.threads), "--verbose"]
    for setting in ("data.tokens=tokens", "data.prepend_bos=false", "data.answers=[a,b]", "data.answers_as=ids"):
        command += ["--set", setting]
    if "--memory" not in more and args.limit:
        command += ["--memory", args.limit]
    return [*command, *more]


def h5lens(args: argparse.Namespace, data: Path, out: Path, *more: str) -> Measured:
    text, seconds, cpu, peaks = run_process(h5lens_command(args, data, out, *more))
    computing = float(re.search(r" in ([\d.]+) s \(", text)[1])
    return Measured(seconds - computing, computing, cpu, *peaks)


def peer_command(args: argparse.Namespace, what: str, n: int) -> list[str]:
    return [sys.executable, str(Path(__file__)), args.shape, str(args.dir), "--peer", what, "--prompts", str(n),
            "--threads", str(args.threads), "--hf-batch", str(args.hf_batch)]


def hugging_face(args: argparse.Namespace, hidden: bool, n: int) -> Measured:
    text, _, _, peaks = run_process(peer_command(args, "hidden" if hidden else "logits", n))
    found = json.loads(text.splitlines()[-1])
    return Measured(found["load"], found["computing"], found["cpu"], *peaks)


# --- Hugging Face ---------------------------------------------------------------------------

def batches_of(prompts: list[list[int]], most: int) -> Iterator[list[list[int]]]:
    """Of equal length, so that nothing is padded."""
    for n in LENGTHS:
        same = [t for t in prompts if len(t) == n]
        yield from (same[i:i + most] for i in range(0, len(same), most))


def save_streams(path: Path, model: Any, prompts: list[list[int]]) -> None:
    """As streams_of has them, but for the last stream, which transformers does not give."""
    import torch
    found: dict[str, np.ndarray] = {}
    for i, t in enumerate(prompts):
        out = model(torch.tensor([t]), use_cache=False, logits_to_keep=1, output_hidden_states=True)
        found |= {f"blocks.{l}.hook_resid_post {i}": x[0].numpy() for l, x in enumerate(out.hidden_states[1:-1])}
        found[f"logits {i}"] = out.logits[0].numpy()
    np.savez(path, **found)


def peer(args: argparse.Namespace) -> None:
    began = time.monotonic()
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM
    torch.set_num_threads(args.threads)
    config = AutoConfig.from_pretrained(args.dir)
    eager = {"attn_implementation": "eager"} if getattr(config, "attn_logit_softcapping", None) else {}
    model = AutoModelForCausalLM.from_pretrained(args.dir, torch_dtype=torch.float32, **eager).eval()
    prompts = prompts_of(args.prompts, config.vocab_size)
    with torch.no_grad():
        model(torch.tensor(prompts[:1]), use_cache=False, logits_to_keep=1)  # what is done once
        loaded = time.monotonic()
        if args.save:
            save_streams(args.save, model, prompts[:CHECKED])
            return
        used = time.process_time()
        for batch in batches_of(prompts, args.hf_batch):
            out = model(torch.tensor(batch), use_cache=False, logits_to_keep=1,
                        output_hidden_states=args.peer == "hidden")
            out.logits[:, -1, 11] - out.logits[:, -1, 12]
    ended = time.monotonic()
    used = time.process_time() - used
    print(json.dumps({"load": loaded - began, "computing": ended - loaded, "cpu": used}))


# --- speed ----------------------------------------------------------------------------------

@dataclass
class Case:
    name: str
    run: Any  # of so many prompts
    beside: str = ""  # the case that is its peer
    found: list[Measured] = field(default_factory=list)


def cases_of(args: argparse.Namespace, data: Path, out: Path) -> list[Case]:
    def ours(*more: str) -> Any:
        return lambda n: h5lens(args, data, out, "--limit", str(n), *more)

    resid = ("--hooks", "blocks.*.hook_resid_post", "--tables", "logit_diff")
    every = [Case("h5lens, logits", ours("--hooks", "none", "--tables", "logit_diff"), "Hugging Face, last logits"),
            Case("Hugging Face, last logits", lambda n: hugging_face(args, False, n)),
            Case("h5lens, resid_post in a file", ours(*resid), "Hugging Face, hidden states"),
            Case("Hugging Face, hidden states", lambda n: hugging_face(args, True, n)),
            Case("h5lens, default tables", ours("--hooks", "none", "--tables", "default"), "Hugging Face, last logits")]
    return every[:2 * args.pairs] if args.pairs < 3 else every


def cpu_of(args: argparse.Namespace, c: Case, loading: float) -> float:
    """Seconds a prompt. loading: h5lens's whole run of one prompt."""
    cpu = statistics.median(m.cpu for m in c.found)
    return (cpu - loading) / (args.prompts - 1) if c.beside else cpu / args.prompts


def report(args: argparse.Namespace, cases: list[Case], loading: float) -> None:
    by_name = {c.name: c for c in cases}
    print(f"{args.shape}: {args.prompts} prompts of {LENGTHS[0]} to {LENGTHS[-1]} tokens, {args.threads} threads, median of "
          f"{args.rounds} rounds (least and most)")
    print(f"  {'':30s} {'load s':>7s} {'prompts/s':>22s} {'to peer':>20s} {'cpu ms/prompt':>14s} {'to peer':>8s} {'VmHWM MiB':>10s} {'of it anonymous':>16s}")
    for c in cases:
        rates = [args.prompts / m.computing for m in c.found]
        line = f"  {c.name:30s} {statistics.median(m.load for m in c.found):7.1f} " + spread(rates, "8.2f")
        ratios = [b.computing / a.computing for a, b in zip(c.found, by_name[c.beside].found)] if c.beside else []
        line += f"{spread(ratios, '7.2f') if ratios else '':>21s}"
        used = [cpu_of(args, x, loading) for x in (c, by_name[c.beside or c.name])]
        print(f"{line} {1000 * used[0]:14.0f} {f'{used[1] / used[0]:8.2f}' if c.beside else ' ' * 8} {max(m.peak for m in c.found) / 2**20:10.0f} "
              f"{max(m.anon for m in c.found) / 2**20:16.0f}")


def spread(x: list[float], form: str) -> str:
    return f"{statistics.median(x):{form}} ({min(x):.2f}-{max(x):.2f})"


def speed(args: argparse.Namespace, data: Path, out: Path) -> None:
    cases = cases_of(args, data, out)
    loading = cases[0].run(1).cpu
    for i in range(args.rounds):
        for c in cases:
            c.found.append(c.run(args.prompts))
            m = c.found[-1]
            print(f"  round {i + 1}: {c.name}: load {m.load:.1f} s, {args.prompts / m.computing:.2f} prompts/s, cpu {m.cpu:.1f} s, "
                  f"{m.peak / 2**20:.0f} MiB", flush=True)
    report(args, cases, loading)


# --- memory ---------------------------------------------------------------------------------

def memory(args: argparse.Namespace, data: Path, out: Path) -> int:
    failed = 0
    for limit in args.memory:
        m = h5lens(args, data, out, "--hooks", "blocks.*.hook_resid_post", "--tables", "default,token_logprobs", "--memory", f"{limit}GiB")
        failed += m.anon > limit * 2**30
        print(f"  --memory {limit} GiB: {m.anon / 2**30:.2f} GiB, with the mapped weights {m.peak / 2**30:.2f}; "
              f"{args.prompts / m.computing:.2f} prompts/s{'' if m.anon <= limit * 2**30 else ': FAIL'}", flush=True)
    return failed


# --- float64, layer by layer ----------------------------------------------------------------

def streams_of(args: argparse.Namespace, prompts: list[list[int]]) -> Iterator[tuple[str, list[np.ndarray]]]:
    """Each residual stream, then the logits, of every prompt."""
    import torch
    from safetensors import safe_open
    from transformers import AutoConfig
    from transformers.models.gemma2 import modeling_gemma2
    from transformers.models.qwen3 import modeling_qwen3

    from fidelity_refs import widened
    config = AutoConfig.from_pretrained(args.dir)
    config._attn_implementation = "eager"
    gemma = config.model_type == "gemma2"
    Layer, Norm, Rotary = ((modeling_gemma2.Gemma2DecoderLayer, modeling_gemma2.Gemma2RMSNorm, modeling_gemma2.Gemma2RotaryEmbedding)
                           if gemma else
                           (modeling_qwen3.Qwen3DecoderLayer, modeling_qwen3.Qwen3RMSNorm, modeling_qwen3.Qwen3RotaryEmbedding))
    with safe_open(args.dir / "model.safetensors", "pt") as f, torch.no_grad(), widened(torch.float64):
        embed = f.get_tensor("model.embed_tokens.weight")
        x = [embed[t][None].double() * (config.hidden_size**0.5 if gemma else 1.0) for t in prompts]
        at = [torch.arange(len(t))[None] for t in prompts]
        rotary = Rotary(config).double()
        turns = [rotary(a, p) for a, p in zip(x, at)]
        masks = [torch.full((1, 1, len(t), len(t)), -torch.inf, dtype=torch.float64).triu(1) for t in prompts]
        for l in range(config.num_hidden_layers):
            layer = Layer(config, l).double().eval()
            prefix = f"model.layers.{l}."
            layer.load_state_dict({n[len(prefix):]: f.get_tensor(n).double() for n in f.keys() if n.startswith(prefix)})
            for i, turn in enumerate(turns):
                out = layer(x[i], position_embeddings=turn, attention_mask=masks[i], position_ids=at[i],
                            cache_position=at[i][0])
                x[i] = out if torch.is_tensor(out) else out[0]
            yield f"blocks.{l}.hook_resid_post", [a[0].numpy() for a in x]
        norm = Norm(config.hidden_size, eps=config.rms_norm_eps).double()
        norm.load_state_dict({"weight": f.get_tensor("model.norm.weight").double()})
        last = torch.cat([norm(a)[0, -1:] for a in x])
        logits = torch.cat([last @ rows.double().T for rows in embed.split(16384)], -1)
        cap = getattr(config, "final_logit_softcapping", None)
        logits = cap * torch.tanh(logits / cap) if cap else logits
        yield "logits", [a[None].numpy() for a in logits]


def relative(got: np.ndarray, exact: np.ndarray) -> tuple[float, float]:
    """RMS and largest error, in units of the RMS of float64's values."""
    off, scale = got[:len(exact)] - exact, np.sqrt((exact**2).mean())
    return float(np.sqrt((off**2).mean()) / scale), float(np.abs(off).max() / scale)


def ours_of(args: argparse.Namespace, data: Path, folder: Path) -> dict[str, np.ndarray]:
    import h5py
    found = {}
    for hooks, more in (("blocks.*.hook_resid_post", ()), ("logits", ("--positions", "read", "--set", "weights.center_unembed=false"))):
        run_process(h5lens_command(args, data, folder / "checked.h5", "--hooks", hooks, "--tables", "none", *more))
        with h5py.File(folder / "checked.h5") as f:
            layers = range(random_models.SHAPES[args.shape]["num_hidden_layers"])
            names = [f"blocks.{l}.hook_resid_post" for l in layers] if "*" in hooks else ["logits"]
            found |= {f"{name} {i}": f[f"cache/{name}"][i] for name in names for i in range(CHECKED)}
    return found


def check(args: argparse.Namespace, folder: Path) -> int:
    prompts, data = prompts_of(CHECKED, random_models.SHAPES[args.shape]["vocab_size"]), folder / "checked.csv"
    write_data(data, prompts)
    run_process([*peer_command(args, "hidden", CHECKED), "--save", str(folder / "peer.npz")])
    sides = {"h5lens": ours_of(args, data, folder), "Hugging Face, float32": dict(np.load(folder / "peer.npz"))}
    errors: dict[str, dict[str, tuple[float, float]]] = {who: {} for who in sides}
    for name, want in streams_of(args, prompts):
        for i, exact in enumerate(want):
            for who, found in sides.items():
                if (key := f"{name} {i}") in found:
                    errors[who][key] = relative(found[key], exact)
    worst = {}
    for who, found in errors.items():
        both = {k: e for k, e in found.items() if all(k in x for x in errors.values())}
        worst[who] = np.sqrt(np.mean([e[0]**2 for e in both.values()])), max(e[1] for e in both.values())
        last = max(e[1] for k, e in found.items() if k.startswith("logits"))
        print(f"  {who:22s} beside float64, {len(found)} streams and logits: rms {worst[who][0]:.1e}, largest {worst[who][1]:.1e}; "
              f"of the logits {last:.1e}; largest of all, the last stream too {max(e[1] for e in found.values()):.1e}", flush=True)
    (rms, largest), (their_rms, their_largest) = worst.values()
    good = rms <= their_rms and largest <= MAX_FACTOR * their_largest
    print(f"  {'as close' if good else 'FAIL'}")
    return int(not good)


# --- main -----------------------------------------------------------------------------------

def parse_args() -> argparse.Namespace:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("shape", choices=SHAPES)
    p.add_argument("dir", type=Path)
    p.add_argument("--h5lens", type=Path, metavar="BIN", default=ROOT / "build/h5lens")
    p.add_argument("--prompts", type=int, default=64)
    p.add_argument("--rounds", type=int, default=3)
    p.add_argument("--threads", type=int, default=2)
    p.add_argument("--hf-batch", type=int, default=16)
    p.add_argument("--memory", type=lambda s: [float(x) for x in s.split(",")], default=[], metavar="GIB,…")
    p.add_argument("--parts", type=lambda s: s.split(","), default=["check", "speed", "memory"])
    p.add_argument("--pairs", type=int, default=3, help="1: the logits alone; 2: resid_post too; 3: everything")
    p.add_argument("--limit", help="h5lens's --memory, but for the part memory; default: its own")
    p.add_argument("--out", type=Path, default=Path("/dev/shm"), help="where the outputs are written, and removed")
    p.add_argument("--save", type=Path, help=argparse.SUPPRESS)
    p.add_argument("--peer", choices=("logits", "hidden"), help=argparse.SUPPRESS)
    return p.parse_args()


def main() -> int:
    args = parse_args()
    if args.peer:
        peer(args)
        return 0
    if not (args.dir / "config.json").exists():
        random_models.write_ids(args.shape, args.dir)
    failed = 0
    with tempfile.TemporaryDirectory(dir=args.out) as tmp:
        data, out = Path(tmp) / "prompts.csv", Path(tmp) / "out.h5"
        write_data(data, prompts_of(args.prompts, random_models.SHAPES[args.shape]["vocab_size"]))
        if "check" in args.parts:
            failed += check(args, Path(tmp))
        if "speed" in args.parts:
            speed(args, data, out)
        if "memory" in args.parts:
            failed += memory(args, data, out)
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
