#!/usr/bin/env python3
"""Checks scripts/plot.py: which pictures it draws, what it says of those that it leaves out, their scales, words and numbers:
those in the grids of patching are computed here once more, cell by cell.

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
import plot as plots  # noqa: E402
import plot_attention  # noqa: E402
import plot_interventions as pi  # noqa: E402
import plot_places as pp  # noqa: E402
import reader_fixture  # noqa: E402
from checks import Checks  # noqa: E402
from matplotlib.figure import Figure  # noqa: E402
from matplotlib.text import Text  # noqa: E402
from plot_common import Options, interval, plt  # noqa: E402

PROGRAM = os.environ.get("H5LENS", "build/h5lens")
CHECKS = Checks()
check = CHECKS.that


def plot(*args: str | Path, env: dict[str, str] | None = None) -> tuple[int, set[str], str]:
    """Exit code, the names of the pictures that are there, what was said."""
    r = subprocess.run([sys.executable, str(SCRIPTS / "plot.py"), *map(str, args)], text=True, capture_output=True,
                       timeout=600, env={**os.environ, **(env or {})})
    drawn = {Path(line).name.split(".", 1)[1] for line in r.stdout.split() if Path(line).stat().st_size > 5000}
    return r.returncode, drawn, r.stderr


def pictures(work: Path, patched: Path, plain: Path) -> None:
    grids = {f"patch.{g}{n}.png" for g in ("resid_pre", "attn_head_out_by_pos", "attn_head_out_all_pos")
             for n in ("", "_normalized")}
    code, drawn, said = plot(patched, "-o", work, "--what", "patch,ablate")
    wanted = grids | {"patch.png", "ablate.sets.png", "ablate.mlp_out.png", "ablate.attn_head_out_all_pos.png"}
    check(code == 0 and drawn == wanted and not said, f"a patched output: {code}, {drawn ^ wanted}, {said}")
    for more in (["--roles", "subject,object"], ["--by", "order"]):
        code, drawn, said = plot(patched, "-o", work, "--what", "patch", *more)
        check(code == 0 and drawn == grids | {"patch.png"} and not said, f"{more}: {code}, {drawn}, {said}")
    code, drawn, said = plot(plain, "-o", work)
    wanted = {f"{k}.png" for k in ("rank_per_layer", "lens", "logit_diff", "head_scores", "attention", "layer", "tokens")}
    check(code == 0 and drawn == wanted, f"plain: {code}, {drawn ^ wanted}")
    check(said == "plot.py: left out, no data: components, heads, neurons, lens_tokens, patch, ablate, path, knockout, steer\n", f"plain: {said}")
    code, drawn, said = plot(plain, "-o", work, "--what", "patch")
    check(code == 1 and not drawn and said == "plot.py: left out, no data: patch: the file has no grids of patching "
          "(/results/patch; patch.grids)\n", f"nothing to draw: {code}, {said}")
    code, drawn, said = plot(patched, "-o", work, "--what", "patch.resid_pre,ablate.sets")
    check(code == 0 and drawn == {"patch.resid_pre.png", "ablate.sets.png"} and not said, f"single grids: {code}, {drawn}, {said}")
    code, drawn, said = plot(patched, "-o", work, "--what", "patch.resid_pos,ablate.sets")
    check(code == 0 and drawn == {"ablate.sets.png"} and "patch.resid_pos: the file has no such grid" in said, f"no such grid: {said}")
    for flag, text in (("--head", "9.0"), ("--layer", "9")):
        code, drawn, said = plot(plain, "-o", work, "--what", "attention,layer", flag, text)
        check(code == 1 and "no attention pattern of layer 9" in said, f"{flag} {text}: {code}, {said}")
    r = subprocess.run([sys.executable, str(SCRIPTS / "plot.py"), "--help"], text=True, capture_output=True)
    check(all(f"\n    {k}" in r.stdout or f", {k}" in r.stdout for k in plots.WHAT), "the help has every picture")
    code, _, said = plot(patched, "--roles", "subjects")
    check(code == 1 and "--roles subjects" in said and "subject, " in said, f"no such column: {said}")
    code, _, said = plot(patched, "--what", "patches")
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
        places = pp.by_parting(run, np.arange(len(run)))
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
        heat = pi.heats(run, "patch", "attn_head_out_by_pos", Options())[0]
        at = np.abs(np.nan_to_num(want)).argmax(1)
        best = np.take_along_axis(want, at[:, None], 1)[:, 0]
        check(np.allclose(heat.values, best), "attn_head_out_by_pos: the place with the largest effect")
        roles = pp.by_roles(run, np.arange(len(run)), Options(roles=["subject"]))
        second = roles.labels.index("subject 2")  # the acting name, which is what differs
        check(all((np.flatnonzero(roles.of[r] == second) == np.flatnonzero(run.tokens(r) != run.corrupted_tokens(r))).all()
                  for r in range(len(run))), "the subject's second place is the token that differs")
        mean, half, n = interval(np.array([[1.0, np.nan], [3.0, np.nan], [np.nan, 2.0]]))
        check(mean.tolist() == [2, 2] and abs(half[0] - 1.96) < 1e-12 and np.isnan(half[1]) and n.tolist() == [2, 1], "intervals")


def words(fig: Figure) -> str:
    return "\n".join(t.get_text() for t in fig.findobj(Text))


def drawings(path: Path, options: Options) -> dict[str, tuple[str, set, list]]:
    """Name → words, the scales of its panels, the bars and dots of its first panel."""
    out = {}
    with h5lens.open_run(path) as run:
        for name, draw in plots.pictures_of(run, options).items():
            try:
                fig = draw()
            except plots.NotThere:
                continue
            images = [im for ax in fig.axes for im in ax.images]
            out[name] = words(fig), {(*im.get_clim(), im.get_cmap().name) for im in images}, list(fig.axes[0].patches)
            plt.close(fig)
    return out


def all_tables(work: Path) -> None:
    """Many prompts, few, and one; the whole and by a column."""
    for limit in (30, 6, 1):
        path = work / f"all{limit}.h5"
        r = subprocess.run([PROGRAM, "run", "experiments/ioi.yaml", "-o", str(path), "--limit", str(limit), "--tables", "all",
                            "--lens-positions", "all", "--attrs-positions", "all", "--hooks", "*hook_pattern"], text=True, capture_output=True)
        check(r.returncode == 0, f"the run: {r.stderr}")
        for by in (None, "order"):
            found = drawings(path, Options(by=by))
            check(set(found) == set(plots.WHAT) - {"patch", "ablate", "path", "knockout", "steer"}, f"{limit} by {by}: {set(found)}")
            for name, (text, scales, _) in found.items():
                where = f"{name}, {limit} by {by}"
                check("demo-gpt2" in text and f"{limit} prompt" in text, f"{where}: model and number: {text}")
                check(limit == 30 or "median" not in text and "interval" not in text, f"{where}: few prompts: {text}")
                check(len(scales) <= 1, f"{where}: one scale for all panels: {scales}")
                check(all(low == -high for low, high, cmap in scales if cmap == "RdBu"), f"{where}: white is 0: {scales}")
                of_prompt = name in ("attention", "layer", "lens_tokens", "tokens", "head_scores")
                check(of_prompt or "read at the last token" in text, f"{where}: position: {text}")
    attributions(work / "all30.h5")


def attributions(path: Path) -> None:
    """The bars and the head that is picked, against the tables."""
    bars = [p.get_height() for p in drawings(path, Options())["components"][2]]
    with h5lens.open_run(path) as run:
        at = run.prompts["read_pos"].astype(int)
        rows = np.arange(len(run))
        attrs, heads = run.results["logit_attrs"].astype(float), run.results["head_attrs"].astype(float)
        mean = (attrs[rows, :, at, 0] - attrs[rows, :, at, 1]).mean(0)  # [component]
        check(np.allclose(sorted(bars), sorted(mean), rtol=1e-9, atol=1e-12), f"components: the bars are the means: {bars}, {mean}")
        head = (heads[rows, :, :, at, 0] - heads[rows, :, :, at, 1]).mean(0)
        layer, best = np.unravel_index(head.argmax(), head.shape)
        picked = plot_attention.pick_head(run)
        check((picked.layer, picked.head) == (layer, best) and f"{head[layer, best]:+.2f}" in picked.why and "30 prompts" in picked.why,
              f"the head that adds most: {picked}, {layer}.{best}")
        looks = plot_attention.pick_by_looks(run, [0, 1, 2, 3])
        weights = np.stack([run.cache("pattern", i).astype(float) for i in range(4)], 1)[rows, :, :, at]  # [prompt, layer, head, key]
        inside = np.arange(weights.shape[-1]) < at[:, None]
        inside[:, 0] = False
        answer = (run.tokens() == run.prompts["answers"][:, :1]) & inside
        held = answer.any(1)
        means = np.where(answer[:, None, None], np.nan_to_num(weights), 0).sum(-1)[held].mean(0)
        check(np.unravel_index(means.argmax(), means.shape) == (looks.layer, looks.head) and f"{means.max():.2f}" in looks.why,
              f"the head that looks most at the answer: {looks}, {means}")


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
        all_tables(work)
    return CHECKS.end()


if __name__ == "__main__":
    sys.exit(main())
