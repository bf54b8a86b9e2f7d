#!/usr/bin/env python3
"""Whether path patching is what two passes of Hugging Face's modules say, in float64.

    check_paths.py [--h5lens build/h5lens] [MODEL_DIR …]

For each model (by default the demo's and tests/golden/data/*), with BOS and without, raw and processed, on ragged pairs of
prompts, some read before their end, it compares /results/path/logit_diff [prompt, layer, head, answer_other] with the
recipe of Wang et al. 2022, appendix B, by plain hooks (scripts/patching_refs.py): in a first pass every head's z and every
MLP's output are the corrupted run's, but for the sender's z, which is the clean run's; what receivers are given there
they are given in a second pass of the corrupted prompt. For the logits the first pass is all. A model's numbers pass if
every value is within what tests/golden/test_golden.c allows a logit_diff of an ordinary run, in units of their RMS.

Bit for bit: senders that reach nothing are the corrupted run; shards, threads, patch.reuse: false, each CPU level.

Prints a line a model, 'N passed, N failed'; exit status 1 on a failure. Needs torch, transformers and h5py; no test of
`make test`.
"""

from __future__ import annotations

import itertools
import logging
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from transformers.utils.logging import set_verbosity_error

from check_patching import CPUS, LIMIT, WAYS, Program, Row, rows_of, same_bits
from checks import Checks, models_of, parser_of
from fidelity_errors import Error
from patching_refs import Edit, Edits, HuggingFace, Source, capture, metrics_of

Receiver = tuple[str, int, int]  # "q", layer, head


def receivers_of(model: HuggingFace) -> list[list[Receiver]]:
    """None: the logits. Else some of the last layers, of different kinds, also two layers at once."""
    last = model.n_layers - 1
    kv = model.kv_heads - 1
    other = min(1, model.heads - 1)
    return [[], [("q", last, 0)], [("v", last, kv), ("k", last, 0)], [("q", last, other), ("k", max(last - 1, 0), kv), ("v", last, 0)]]


def setting(receivers: list[Receiver]) -> str:
    return "path.receivers=" + ("logits" if not receivers else f"[{','.join(f'{layer}.{h}.{what}' for what, layer, h in receivers)}]")


def first_pass(model: HuggingFace, base: Source, source: Source, sender: tuple[int, int], receivers: list[Receiver],
               given: dict[tuple[str, int], torch.Tensor]) -> Edits:
    """Everything held but the sender; what receivers are given is kept."""
    def hold(at: tuple[str, int]) -> Edit:
        def change(x: torch.Tensor) -> None:
            x[0] = base[at]
            if at == ("z", sender[0]):
                x[0, :, sender[1]] = source[at][:, sender[1]]
        return change

    def keep(at: tuple[str, int]) -> Edit:
        return lambda x: given.__setitem__(at, x[0].clone())

    edits = {at: hold(at) for at in itertools.product(("z", "mlp_out"), range(model.n_layers))}
    return edits | {(what, layer): keep((what, layer)) for what, layer, _ in receivers}


def by_paths(model: HuggingFace, row: Row, base: Source, source: Source, sender: tuple[int, int], receivers: list[Receiver]) -> torch.Tensor:
    tokens, given = torch.tensor([row.tokens[1]]), {}
    logits = model.run(tokens, first_pass(model, base, source, sender, receivers, given))
    if not receivers:
        return logits[0, row.at].clone()

    def put(at: tuple[str, int]) -> Edit:
        def change(x: torch.Tensor) -> None:
            for what, layer, head in receivers:
                if (what, layer) == at:
                    x[0, :, head] = given[at][:, head]
        return change

    return model.run(tokens, {(what, layer): put((what, layer)) for what, layer, _ in receivers})[0, row.at].clone()


def expected(model: HuggingFace, rows: list[Row], receivers: list[Receiver]) -> list[np.ndarray]:
    """[layer, head, answer_other] of each row."""
    out = []
    for row in rows:
        clean, source = capture(model, row.tokens[0])
        _, base = capture(model, row.tokens[1])
        cells = [by_paths(model, row, base, source, sender, receivers)
                 for sender in itertools.product(range(model.n_layers), range(model.heads))]
        diff = metrics_of(torch.stack(cells), clean[row.at], row.ids)["logit_diff"]
        out.append(diff.reshape(model.n_layers, model.heads, -1))
    return out


def check_unreached(c: Checks, what: str, got: np.ndarray, base: np.ndarray, receivers: list[Receiver]) -> None:
    if receivers:
        last = max(layer for _, layer, _ in receivers)
        same = same_bits(got[:, last:].copy(), np.broadcast_to(base[:, None, None], got[:, last:].shape).copy())
        c.that(same, f"{what}: senders from layer {last} on")


def check_model(c: Checks, binary: Path, folder: Path, tmp: Path, bos: bool) -> None:
    model, what = HuggingFace(folder, torch.float64), f"{folder.name}{'' if bos else ' without BOS'}"
    rows, error = rows_of(folder, bos), Error()
    for receivers in receivers_of(model):
        want = expected(model, rows, receivers)
        settings = ["--corrupted", "corrupted", "--tables", "logit_diff", "--set", setting(receivers), "--set", "patch.grids=[resid_pre]"]
        for raw, cpu in itertools.product((True, False), CPUS):
            at = f"{what}{' raw' if raw else ''} {cpu}: {setting(receivers)}"
            p = Program(binary, folder, tmp / "out.h5", bos, raw)
            got = p.run(rows, *settings, "--cpu", cpu)
            found = got["path/logit_diff"]
            for i, x in enumerate(want):
                error.add(found[i], x)
            check_unreached(c, at, found, got["patch/corrupted_logit_diff"], receivers)
            c.that(got["dims"]["path/logit_diff"] == ["prompt", "layer", "head", "answer_other"], f"{at}: {got['dims']}")
        for way, more in WAYS.items():
            c.that(same_bits(p.run(rows, *settings, "--cpu", cpu, *more)["path/logit_diff"], found), f"{at} {way}")
    rms, largest = error.relative()
    c.that(largest <= LIMIT["logit_diff"] and not error.wrong, f"{what}: {largest:.1e} {error.wrong}")
    print(f"  {what:40s} rms {rms:.1e}, largest {largest:.1e}, limit {LIMIT['logit_diff']:.1e}", flush=True)


def main() -> int:
    args = parser_of(__doc__).parse_args()
    set_verbosity_error()
    logging.disable(logging.WARNING)
    c = Checks()
    torch.set_num_threads(1)  # tiny models
    with tempfile.TemporaryDirectory() as tmp, torch.inference_mode():
        for folder in models_of(args):
            for bos in (True, False):
                check_model(c, args.h5lens, folder, Path(tmp), bos)
    return c.end()


if __name__ == "__main__":
    sys.exit(main())
