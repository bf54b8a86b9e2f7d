#!/usr/bin/env python3
"""Draws pictures of an output file of h5lens: what it has data for.

    python scripts/plot.py OUT.h5 [-o DIR] [--only NAME,…] [--by COLUMN] [--roles COLUMN,…] [--head L.H] [--prompt ROW]
                           [--tokenizer DIR]

STEM.rank_per_layer.png  where the answers rank when each layer's residual stream is read out (logit lens)
STEM.logit_diff.png      the distribution of the logit difference, split by a CSV column with --by
STEM.attention.png       one head's attention pattern on one prompt
STEM.patch.GRID.png      each grid of activation patching (/results/patch), as a heatmap
STEM.patch.png           heads' outputs beside the residual stream by position, where both were patched
STEM.ablate.GRID.png     each grid of ablation (/results/ablate): heads as a heatmap, layers and sets of heads as means
                         with intervals

Attention: without --head, the head is the one that looks hardest at a single place in the text: from the read position,
the largest weight on an earlier token other than the first, averaged over the first 200 prompts.

Patching: a cell is the mean over the prompts that have it (NaN is left out) of what the patch changed: the metric less that
of the run which was patched; white is no change. A grid with normalized shares beside it has a picture of either. On the
axis of positions stand

    the tokens      where all prompts have the same number of tokens and most places the same token; with --by, where those
                    with the same value of the column do: there is a row of the picture for each value
    --roles A,B     the places where the texts of these CSV columns end in the prompt, as in --roles subject,place
    else            places counted from the first token that differs between a prompt and its corrupted one, and from the
                    token that is read

Grids of heads by position show, for each head, the place with the largest mean effect; the lines above the picture tell
which place it is for the largest of them. Ablation: the bars are 95 % intervals of the mean, 1.96 standard errors.

The tokens' texts come from tokenizer.json in --tokenizer, by default in the model directory that the file names; without
one the labels are token ids. What the file has no data for is left out, and said.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# The first says what is not installed.
from plot_common import (COLOURS, STYLE, NotThere, answer_names, count, groups, origin, plt, shorten, table,
                         titles, token_labels)

import h5lens
import numpy as np
import plot_interventions
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, MaxNLocator

# --- rank per layer -------------------------------------------------------------

def draw_ranks(run: h5lens.Run) -> Figure:
    rank = table(run, "rank_per_layer").astype(float)  # [prompt, lens_layer, answer]
    sound = (rank >= 0).all((1, 2))
    rank = rank[sound]
    if not len(rank):
        raise NotThere("rank_per_layer has no row with finite logits")
    layers = run.lens_layers or [str(i) for i in range(rank.shape[1])]
    x = np.arange(len(layers))
    fig, ax = plt.subplots(figsize=(7.2, 4.4))
    for i, name in enumerate(answer_names(run, rank.shape[2])[:len(COLOURS)]):
        low, middle, high = np.quantile(rank[:, :, i], [0.25, 0.5, 0.75], axis=0)
        on_top = 100 * (rank[:, -1, i] == 0).mean()
        first, marked = i == 0, len(layers) <= 40
        ax.plot(x, middle, "-" if first else "--", marker=("o" if first else "s") if marked else "",
                ms=4.5 if first else 3.5, lw=2 if first else 1.5, color=COLOURS[i], clip_on=False, zorder=3 - 0.1 * i,
                label=f"{name}: median ({on_top:.0f} % have rank 0 at the end)")
        if first:
            ax.fill_between(x, low, high, color=COLOURS[0], alpha=0.18, lw=0, label=f"{name}: quartiles")
    rank_axis(ax, float(np.quantile(rank, 0.75, axis=0).max()))
    step = -(-len(layers) // 26)  # labels for 26 layers at most, and always the last
    shown = x[::-1][::step][::-1]
    ax.set_xticks(shown, [layers[i] for i in shown], rotation=45, ha="right", rotation_mode="anchor", fontsize=9)
    ax.set_xlim(-0.3, len(layers) - 0.7)
    ax.set_xlabel("residual stream read out at")
    ax.set_ylabel("rank of the answer (0 = top token)")
    ax.legend(loc="best")
    dropped = int((~sound).sum())
    titles(ax, "Rank of the answers by layer (logit lens)",
           origin(run) + (f" ({dropped} without finite logits left out)" if dropped else ""))
    return fig


def rank_axis(ax: plt.Axes, top: float) -> None:
    """Logarithmic, with room for rank 0."""
    ax.set_yscale("symlog", linthresh=1, linscale=0.6)
    ticks = [0.0, 1.0]
    while ticks[-1] < top:
        ticks.append(ticks[-1] * 10)
    ax.set_yticks(ticks)
    ax.yaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:,.0f}"))
    ax.set_ylim(-0.25, max(top * 1.6, 2))
    ax.grid(axis="y", color="#e4e4e4", lw=0.8)
    ax.set_axisbelow(True)


# --- logit difference -----------------------------------------------------------

def draw_diff(run: h5lens.Run, by: str | None) -> Figure:
    diff = table(run, "logit_diff").astype(float)  # [prompt, answer - 1]
    if diff.shape[1] == 0:
        raise NotThere("one answer only: no logit difference")
    names = answer_names(run, diff.shape[1] + 1)
    other = names[1] if diff.shape[1] == 1 else "best other answer"
    diff = diff.min(1)  # to the strongest of the others
    finite = np.isfinite(diff)
    if not finite.any():
        raise NotThere("logit_diff has no finite row")
    parts = groups(run.columns[by]) if by else [("", np.ones(len(diff), bool))]
    parts = [(label and shorten(label, 32) + ": ", diff[mask & finite])
             for label, mask in parts if (mask & finite).any()]
    width, bins = bins_of(diff[finite])
    fig, axes = plt.subplots(len(parts), 1, figsize=(7.2, 2.6 + (1.8 if len(parts) == 1 else 1.15 * len(parts))),
                             sharex=True, squeeze=False)
    for i, (ax, (label, x)) in enumerate(zip(axes[:, 0], parts)):
        right = int((x > 0).sum())
        ax.hist(x, bins, color=COLOURS[i], alpha=0.4, lw=0)
        ax.hist(x, bins, histtype="step", color=COLOURS[i], lw=1.2)
        ax.axvline(0, color="black", lw=1)
        ax.axvline(x.mean(), color=COLOURS[i], lw=2, ls=(0, (3, 2)))
        handles = [Patch(facecolor=COLOURS[i], alpha=0.6,
                         label=f"{label}accuracy {100 * right / len(x):.1f} % ({right:,} of {len(x):,})"),
                   Line2D([], [], color=COLOURS[i], lw=2, ls=(0, (3, 2)), label=f"mean {x.mean():+.2f}")]
        ax.legend(handles=handles, loc="lower left", bbox_to_anchor=(0, 1), ncols=2, borderaxespad=0.6,
                  borderpad=0, handlelength=1.8)
        ax.yaxis.set_major_locator(MaxNLocator(4, integer=True))
        ax.set_xlim(bins[0] - width / 2, bins[-1] + width / 2)
    what = "log P" if "answer_tokens" in run.prompts else "logit"
    axes[-1, 0].set_xlabel(f"{what}({names[0]}) − {what}({other})  [nats]")
    fig.supylabel(f"prompts per bin of {width:.3g}", fontsize=STYLE["axes.labelsize"])
    dropped = int((~finite).sum())
    titles(axes[0, 0], f"{what[0].upper() + what[1:]} difference, {names[0]} against {other}" + (f", by {by}" if by else ""),
           origin(run) + "; accuracy: share above zero" + (f"; {dropped} not finite left out" if dropped else ""),
           lift=26)
    return fig


def bins_of(x: np.ndarray) -> tuple[float, np.ndarray]:
    """Bins of a round width with an edge at zero, so that no bar mixes right and wrong."""
    wanted = (x.max() - x.min()) / min(50, max(12, int(np.sqrt(x.size) * 1.5))) or 0.1
    power = 10.0 ** np.floor(np.log10(wanted))
    width = power * next(m for m in (1, 2, 2.5, 5, 10) if m * power >= wanted * 0.8)
    first, last = np.floor(min(x.min(), 0) / width), np.ceil(max(x.max(), 0) / width)
    return width, width * np.arange(first, last + 0.5)


# --- attention ------------------------------------------------------------------

PATTERN = "blocks.{}.attn.hook_pattern"


def pattern_layers(run: h5lens.Run) -> list[int]:
    n = int(run.model_config["n_layers"])
    layers = [i for i in range(n) if PATTERN.format(i) in run.hooks]
    if not layers:
        raise NotThere("the file has no attention patterns (blocks.*.attn.hook_pattern)")
    return layers


def query_of(run: h5lens.Run, row: int) -> int | None:
    """The index of the read position among the stored queries."""
    at = np.flatnonzero(run.positions(row) == run.prompts.dataset("read_pos")[row])
    return int(at[0]) if at.size else None


def pick_head(run: h5lens.Run, n_rows: int = 200) -> tuple[int, int]:
    """The head that looks most, from the read position, at the first answer where the prompt holds it (the
    indirect object of IOI); without such prompts, at any one earlier token but the first."""
    layers = pattern_layers(run)
    rows = range(min(n_rows, len(run)))
    answers = run.prompts["answers"][:, 0] if "answers" in run.prompts else None
    holding = [] if answers is None else [r for r in rows if answers[r] in run.tokens(r)]
    found: dict[int, list[np.ndarray]] = {i: [] for i in layers}
    for row in holding or rows:
        query = query_of(run, row)
        end = int(run.prompts.dataset("read_pos")[row])
        if query is None or end < 2:
            continue
        for i in layers:
            weight = run.dataset(PATTERN.format(i))[row, :, query, 1:end].astype(float)
            if holding:
                found[i].append(weight[:, run.tokens(row)[1:end] == answers[row]].sum(-1))
            else:
                found[i].append(weight.max(-1))
    means = {(i, int(np.argmax(m))): float(m.max()) for i in layers if found[i]
             for m in [np.mean(found[i], axis=0)]}
    return max(means, key=means.__getitem__) if means else (layers[-1], 0)


@dataclass
class Pattern:
    """What the attention picture shows."""

    layer: int
    head: int
    row: int
    weights: np.ndarray  # [query, key]
    at: np.ndarray       # [query] token positions
    picked: bool         # the head was not asked for


def load_pattern(run: h5lens.Run, head: tuple[int, int] | None, row: int) -> Pattern:
    layer, h = head or pick_head(run)
    if layer not in pattern_layers(run):
        raise NotThere(f"no attention pattern of layer {layer} in the file")
    d = run.dataset(PATTERN.format(layer))
    if not 0 <= h < d.shape[1]:
        raise NotThere(f"layer {layer} has heads 0 to {d.shape[1] - 1}")
    at = run.positions(row)
    kept = np.flatnonzero(at >= 0)
    if not kept.size:
        raise NotThere(f"prompt {row} has none of the stored positions")
    return Pattern(layer, h, row, d[row, h].astype(float)[kept, :run.lengths[row]], at[kept], head is None)


def draw_attention(run: h5lens.Run, p: Pattern, labels: list[str]) -> Figure:
    n_query, n_key = p.weights.shape
    cell = float(np.clip(9 / n_key, 0.012, 0.27))  # inches
    height = max(cell * n_query, 1.2)
    fig, ax = plt.subplots(figsize=(max(cell * n_key, 3.6) + 2.4, height + 2.5))
    future = np.arange(n_key) > p.at[:, None]
    image = ax.imshow(np.ma.array(p.weights, mask=future), vmin=0, vmax=max(float(np.nanmax(p.weights)), 1e-9),
                      cmap=plt.get_cmap("Blues").with_extremes(bad="#f0f0f0"), interpolation="nearest",
                      aspect="equal" if n_query > 4 else "auto")
    bar = fig.colorbar(image, ax=ax, fraction=0.05, pad=0.02, shrink=min(1.0, 0.3 + 1.8 / height))
    bar.set_label("attention weight")
    bar.outline.set_visible(False)
    coloured = label_tokens(run, ax, p, labels, cell)
    ax.spines[:].set_visible(False)
    ax.set_xlabel("key: attended token")
    ax.set_ylabel("query: attending token")
    notes = [origin(run)]
    if coloured:
        notes.append(", ".join(f"{name} {colour}" for name, colour in coloured))
    if p.picked:
        notes.append("head picked: looks most at the answer, or at one earlier token")
    titles(ax, f"Attention, layer {p.layer} head {p.head}, prompt {p.row}",
           "\n".join(notes), lines=len(notes))
    return fig


def label_tokens(run: h5lens.Run, ax: plt.Axes, p: Pattern, labels: list[str], cell: float) -> list[tuple[str, str]]:
    """Writes the tokens on both axes, the first two answers in colour; gives those that occur."""
    ids = run.tokens(p.row)[:len(labels)]
    answers = run.prompts.dataset("answers")[p.row][:2].tolist() if "answers" in run.prompts else []
    step = max(1, round(0.13 / cell))
    size = float(np.clip(cell * step * 72 * 0.72, 6, 9))
    for axis, where in ((ax.xaxis, np.arange(len(labels))), (ax.yaxis, p.at)):
        shown = np.arange(len(where))[::-1][::step if axis is ax.xaxis or len(where) > 4 else 1][::-1]
        axis.set_ticks(shown, [labels[where[i]] for i in shown], fontsize=size)
        for tick, i in zip(axis.get_ticklabels(), shown):
            token = int(ids[where[i]])
            tick.set_color(COLOURS[answers.index(token)] if token in answers else "black")
    plt.setp(ax.get_xticklabels(), rotation=90, va="top", ha="center")
    ax.tick_params(length=2, color="#aaaaaa")
    names = answer_names(run, len(answers))
    return [(n, c) for n, c, a in zip(names, ("in blue", "in orange"), answers) if a in ids]


# --- the program ----------------------------------------------------------------

def head_of(text: str) -> tuple[int, int]:
    try:
        layer, head = (int(part) for part in text.split("."))
    except ValueError:
        raise argparse.ArgumentTypeError(f"'{text}' is not LAYER.HEAD, such as 9.6") from None
    return layer, head


KINDS = "rank_per_layer", "logit_diff", "attention", "patch", "ablate"


def kinds_of(text: str) -> list[str]:
    if wrong := [k for k in text.split(",") if k not in KINDS]:
        raise argparse.ArgumentTypeError(f"'{wrong[0]}' is none of {', '.join(KINDS)}")
    return text.split(",")


def arguments() -> argparse.Namespace:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("file", type=Path, help="an output file of h5lens")
    p.add_argument("-o", "--output", type=Path, metavar="DIR", help="where the PNGs go (default: beside the file)")
    p.add_argument("--only", type=kinds_of, default=KINDS, metavar="NAME,…",
                   help=f"only these of {', '.join(KINDS)}")
    p.add_argument("--by", metavar="COLUMN", help="split the logit differences and the grids of patching by this CSV column")
    p.add_argument("--roles", type=lambda s: s.split(","), metavar="COLUMN,…",
                   help="the CSV columns whose texts are the places on the axis of positions")
    p.add_argument("--head", type=head_of, metavar="L.H", help="layer and head of the attention pattern")
    p.add_argument("--prompt", type=int, default=0, metavar="ROW", help="row of the attention pattern (default 0)")
    p.add_argument("--tokenizer", type=Path, metavar="DIR", help="directory with tokenizer.json")
    return p.parse_args()


def pictures_of(run: h5lens.Run, args: argparse.Namespace) -> dict[str, Callable[[], Figure]]:
    """Name → how it is drawn."""
    row = args.prompt % len(run)
    found: dict[str, Callable[[], Figure]] = {
        "rank_per_layer": lambda: draw_ranks(run),
        "logit_diff": lambda: draw_diff(run, args.by),
        "attention": lambda: draw_attention(run, load_pattern(run, args.head, row),
                                            token_labels(run, row, args.tokenizer)),
        **plot_interventions.pictures_of(run, plot_interventions.Layout(args.by, args.roles, args.tokenizer)),
    }
    return {name: draw for name, draw in found.items() if name.split(".")[0] in args.only}


def draw_all(run: h5lens.Run, args: argparse.Namespace) -> int:
    if not -len(run) <= args.prompt < len(run):
        raise SystemExit(f"plot.py: no prompt {args.prompt}: the file has {len(run)}")
    for flag, names in (("--by", [args.by] if args.by else []), ("--roles", args.roles or [])):
        if missing := [name for name in names if name not in run.columns]:
            raise SystemExit(f"plot.py: {flag} {missing[0]}: the CSV's other columns are {', '.join(run.columns)}")
    folder = args.output or args.file.parent
    folder.mkdir(parents=True, exist_ok=True)
    drawn = []
    for name, draw in pictures_of(run, args).items():
        try:
            fig = draw()
        except NotThere as e:
            print(f"plot.py: {name}.png is left out: {e}", file=sys.stderr)
            continue
        path = folder / f"{args.file.stem}.{name}.png"
        fig.savefig(path)
        plt.close(fig)
        print(path)
        drawn.append(name)
    return 1 if not drawn or args.head and "attention" not in drawn else 0


def main() -> int:
    args = arguments()
    plt.rcParams.update(STYLE)
    try:
        with h5lens.open_run(args.file) as run:
            return draw_all(run, args)
    except (h5lens.H5LensError, h5lens.UnknownName, OSError) as e:
        print(f"plot.py: {e}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
