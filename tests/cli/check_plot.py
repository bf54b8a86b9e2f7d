#!/usr/bin/env python3
"""Checks scripts/plot.py: which pictures it draws, what it says of those that it leaves out, and the numbers in the
grids of patching, which are computed here once more, cell by cell.

H5LENS is the program, WORK a folder for its files.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve().parent
SCRIPTS = HERE.parents[1] / "scripts"
sys.path[:0] = [str(SCRIPTS), str(HERE)]
import h5lens  # noqa: E402
import plot_interventions as pi  # noqa: E402
import reader_fixture  # noqa: E402

PROGRAM = os.environ.get("H5LENS", "build/h5lens")
passed = failed = 0


def check(good: bool | np.bool_, what: str) -> None:
    global passed, failed
    passed, failed = passed + bool(good), failed + (not good)
    if not good:
        print(f"FAILED: {what}")


def plot(*args: str | Path, env: dict[str, str] | None = None) -> tuple[int, set[str], str]:
    """Exit code, the names of the pictures that are there, what was said."""
    r = subprocess.run([sys.executable, str(SCRIPTS / "plot.py"), *map(str, args)], text=True, capture_output=True,
                       timeout=600, env={**os.environ, **(env or {})})
    drawn = {Path(line).name.split(".", 1)[1] for line in r.stdout.split() if Path(line).stat().st_size > 5000}
    return r.returncode, drawn, r.stderr


def pictures(work: Path, patched: Path, plain: Path) -> None:
    grids = {f"patch.{g}{n}.png" for g in ("resid_pre", "attn_head_out_by_pos", "attn_head_out_all_pos")
             for n in ("", "_normalized")}
    code, drawn, said = plot(patched, "-o", work, "--only", "patch,ablate")
    wanted = grids | {"patch.png", "ablate.sets.png", "ablate.mlp_out.png", "ablate.attn_head_out_all_pos.png"}
    check(code == 0 and drawn == wanted and not said, f"a patched output: {code}, {drawn ^ wanted}, {said}")
    for more in (["--roles", "subject,object"], ["--by", "order"]):
        code, drawn, said = plot(patched, "-o", work, "--only", "patch", *more)
        check(code == 0 and drawn == grids | {"patch.png"} and not said, f"{more}: {code}, {drawn}, {said}")
    code, drawn, said = plot(plain, "-o", work)
    check(code == 0 and drawn == {"rank_per_layer.png", "logit_diff.png", "attention.png"}, f"plain: {code}, {drawn}")
    check("patch.png is left out: the file has no grids of patching (/results/patch" in said
          and "ablate.png is left out: the file has no ablation (/results/ablate" in said, f"plain: {said}")
    code, drawn, said = plot(plain, "-o", work, "--only", "patch")
    check(code == 1 and not drawn, f"nothing to draw: {code}")
    code, _, said = plot(patched, "--roles", "subjects")
    check(code == 1 and "--roles subjects" in said and "subject, " in said, f"no such column: {said}")
    code, _, said = plot(patched, "--only", "patches")
    check(code == 2 and "'patches' is none of" in said, f"no such picture: {said}")
    (work / "bare").mkdir()
    (work / "bare" / "matplotlib.py").write_text("raise ModuleNotFoundError('gone', name='matplotlib')")
    code, _, said = plot(patched, env={"PYTHONPATH": str(work / "bare")})
    check(code == 1 and said.startswith("plot.py: matplotlib is not installed") and said.count("\n") == 1,
          f"without matplotlib: {said}")


def entry(run: h5lens.Run, row: int, pos: int) -> str | None:
    """by_parting's label of a position, from its definition."""
    tokens, other = run.tokens(row), run.corrupted_tokens(row)
    first, read = next(i for i in range(len(tokens)) if tokens[i] != other[i]), int(run.prompts["read_pos"][row])
    if pos > read:
        return None
    if pos <= first:
        return "differs" if pos == first else "before"
    if pos > read - 3:
        return {read: "read", read - 1: "−1", read - 2: "−2"}[pos]
    return f"+{pos - first}" if pos <= first + 3 else "between"


def numbers(patched: Path) -> None:
    """Means over prompts of the means over a prompt's positions of an entry."""
    with h5lens.open_run(patched) as run:
        base = run.patch["corrupted_logit_diff"][:, 0].astype(float)
        places = pi.by_parting(run, np.arange(len(run)))
        check(len({len(run.tokens(r)[run.tokens(r) >= 0]) for r in range(len(run))}) > 1, "prompts of several lengths")
        for name in ("resid_pre", "attn_head_out_by_pos"):
            x = run.patch[name][..., 0].astype(float)  # [prompt, layer, pos(, head)]
            want = np.full((x.shape[1], len(places.labels), *x.shape[3:]), np.nan)
            for k, label in enumerate(places.labels):
                each = [x[r][:, at].mean(1) - base[r] for r in range(len(run))
                        if (at := [p for p in range(x.shape[2]) if entry(run, r, p) == label])]
                want[:, k] = np.mean(each, 0)
            got = pi.means(run.patch.dataset(name), run.patch.dims(name), base, np.arange(len(run)), places)
            check(np.allclose(got, want, 1e-9, 1e-9, equal_nan=True), f"{name}: the means")
        heat = pi.heats(run, "patch", "attn_head_out_by_pos", pi.Layout())[0]
        at = np.abs(np.nan_to_num(want)).argmax(1)
        best = np.take_along_axis(want, at[:, None], 1)[:, 0]
        check(np.allclose(heat.values, best), "attn_head_out_by_pos: the place with the largest effect")
        roles = pi.by_roles(run, np.arange(len(run)), pi.Layout(roles=["subject"]))
        second = roles.labels.index("subject 2")  # the acting name, which is what differs
        check(all((np.flatnonzero(roles.of[r] == second) == np.flatnonzero(run.tokens(r) != run.corrupted_tokens(r))).all()
                  for r in range(len(run))), "the subject's second place is the token that differs")
        mean, half, n = pi.interval(np.array([[1.0, np.nan], [3.0, np.nan], [np.nan, 2.0]]))
        check(mean.tolist() == [2, 2] and abs(half[0] - 1.96) < 1e-12 and np.isnan(half[1]) and n.tolist() == [2, 1], "intervals")


def main() -> int:
    with tempfile.TemporaryDirectory(dir=os.environ.get("WORK")) as tmp:
        work = Path(tmp)
        patched, plain = work / "patched.h5", work / "plain.h5"
        r = subprocess.run([PROGRAM, "run", "experiments/ioi-patching.yaml", "-o", str(patched), "--limit", "12", "--patch",
                            "resid_pre,attn_head_out_by_pos,attn_head_out_all_pos", "--set", "shards.prompts=5",
                            "--set", "ablate.sets={a: [3.3, 3.2], b: [0.1]}",
                            "--set", "ablate.grids=[attn_head_out_all_pos,mlp_out]"], text=True, capture_output=True)
        check(r.returncode == 0, f"the run: {r.stderr}")
        reader_fixture.make(plain)
        numbers(patched)
        pictures(work, patched, plain)
    print(f"{passed} passed, {failed} failed")
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
