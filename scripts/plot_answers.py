"""Pictures of the answers: rank and logit difference by layer (logit lens), the distribution of the logit difference.

In: /results/rank_per_layer, lens_logit_diff or lens_logit, logit_diff; out: a figure each, with a panel or a line for each
part of the prompts. As few prompts as SMALL are drawn one by one.
"""

from __future__ import annotations

from plot_common import (COLOURS, EDGE, SMALL, STYLE, Draw, NotThere, Options, Part, answer_names, difference, few, interval, origin,
                         part_title, parts_of, place, plt, quiet_grid, table, titles)

import h5lens
import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, MaxNLocator

def by_told(options: Options) -> str:
    return f", by {options.by}" if options.by else ""


# --- by layer -------------------------------------------------------------------

def layer_axis(ax: plt.Axes, layers: list[str]) -> None:
    step = -(-len(layers) // 26)  # labels for 26 layers at most, and always the last
    shown = np.arange(len(layers))[::-1][::step][::-1]
    ax.set_xticks(shown, [layers[i] for i in shown], rotation=45, ha="right", rotation_mode="anchor", fontsize=9)
    ax.set_xlim(-0.3, len(layers) - 0.7)
    ax.set_xlabel("residual stream read out at")


def draw_ranks(run: h5lens.Run, options: Options) -> Figure:
    rank = table(run, "rank_per_layer").astype(float)  # [prompt, lens_layer, answer]
    sound = (rank >= 0).all((1, 2))
    parts = parts_of(run, options.by, sound)
    layers = run.lens_layers or [str(i) for i in range(rank.shape[1])]
    names = answer_names(run, rank.shape[2])[:len(COLOURS)]
    small = few(parts)
    fig, axes = plt.subplots(len(parts), 1, figsize=(7.2, 1.8 + (2.6 if len(parts) == 1 else 2.0 * len(parts))),
                             sharex=True, sharey=True, squeeze=False)
    for ax, part in zip(axes[:, 0], parts):
        for i, name in enumerate(names):
            x = rank[part.rows, :, i]
            rank_dots(ax, x, name, i) if small else rank_lines(ax, x, name, i)
        rank_axis(ax, float(rank.max() if small else np.quantile(rank[sound], 0.75, axis=0).max()))
        ax.legend(loc="best")
        if part.label:
            part_title(ax, part.told())
    layer_axis(axes[-1, 0], layers)
    fig.supylabel("rank of the answer (0 = top token)", fontsize=STYLE["axes.labelsize"])
    dropped = int((~sound).sum())
    titles(fig, "Rank of the answers by layer (logit lens)" + by_told(options),
           [f"{origin(run)}, {place(run)}" + (f"; {dropped} without finite logits left out" if dropped else "")])
    return fig


def rank_lines(ax: plt.Axes, x: np.ndarray, name: str, i: int) -> None:
    low, middle, high = np.quantile(x, [0.25, 0.5, 0.75], axis=0)
    on_top = 100 * (x[:, -1] == 0).mean()
    at, first, marked = np.arange(x.shape[1]), i == 0, x.shape[1] <= 40
    ax.plot(at, middle, "-" if first else "--", marker=("o" if first else "s") if marked else "",
            ms=4.5 if first else 3.5, lw=2 if first else 1.5, color=COLOURS[i], clip_on=False, zorder=3 - 0.1 * i,
            label=f"{name}: median ({on_top:.0f} % have rank 0 at the end)")
    if first:
        ax.fill_between(at, low, high, color=COLOURS[0], alpha=0.18, lw=0, label=f"{name}: quartiles")


def rank_dots(ax: plt.Axes, x: np.ndarray, name: str, i: int) -> None:
    for k, one in enumerate(x):
        ax.plot(np.arange(len(one)), one, "o-" if i == 0 else "s--", ms=4 if i == 0 else 3, lw=0.9, alpha=0.8, color=COLOURS[i],
                clip_on=False, label=None if k else name + (": each prompt" if len(x) > 1 else ""))


def rank_axis(ax: plt.Axes, top: float) -> None:
    """Logarithmic, with room for rank 0."""
    ax.set_yscale("symlog", linthresh=1, linscale=0.6)
    ticks = [0.0, 1.0]
    while ticks[-1] < top:
        ticks.append(ticks[-1] * 10)
    ax.set_yticks(ticks)
    ax.yaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:,.0f}"))
    ax.set_ylim(-0.25, max(top * 1.6, 2))
    quiet_grid(ax, "y")


def draw_lens(run: h5lens.Run, options: Options) -> Figure:
    """The logit difference by layer: means with intervals, a line for each part."""
    if "lens_logit_diff" in run.results:
        x = run.results["lens_logit_diff"][..., 0] if len(run.labels("answer_other") or [0]) else np.empty((0, 0))
    else:
        logit = table(run, "lens_logit")
        if logit.shape[2] < 2:
            raise NotThere("one answer only: no logit difference")
        x = logit[..., 0].astype(float) - logit[..., 1]
    x = x.astype(float)
    sound = np.isfinite(x).all(1)
    parts = parts_of(run, options.by, sound)
    fig, ax = plt.subplots(figsize=(7.2, 4.4))
    ax.axhline(0, color=EDGE, lw=1)
    for i, part in enumerate(parts):
        label = part.told() or ("each prompt" if len(part.rows) > 1 else "")
        lens_dots(ax, x[part.rows], label, i) if few(parts) else lens_means(ax, x[part.rows], part, i)
    layer_axis(ax, run.lens_layers or [str(i) for i in range(x.shape[1])])
    quiet_grid(ax, "y")
    ax.set_ylabel(f"{difference(run)}  [nats]")
    if len(parts) > 1 or len(parts[0].rows) > 1:
        ax.legend(loc="best")
    dropped = int((~sound).sum())
    titles(fig, "Logit difference by layer (logit lens)" + by_told(options),
           [f"{origin(run)}, {place(run)}" + (f"; {dropped} without finite logits left out" if dropped else "")])
    return fig


def lens_means(ax: plt.Axes, x: np.ndarray, part: Part, i: int) -> None:
    mean, half, _ = interval(x)
    half, at = np.nan_to_num(half), np.arange(x.shape[1])
    ax.fill_between(at, mean - half, mean + half, color=COLOURS[i], alpha=0.25, lw=0)
    ax.plot(at, mean, "o-" if len(at) <= 40 else "-", ms=4, lw=1.8, color=COLOURS[i], clip_on=False,
            label=(part.told() + ": " if part.label else "") + "mean, 95 % interval of the mean")


def lens_dots(ax: plt.Axes, x: np.ndarray, label: str, i: int) -> None:
    for k, one in enumerate(x):
        ax.plot(np.arange(len(one)), one, "o-", ms=4, lw=0.9, alpha=0.8, color=COLOURS[i], clip_on=False, label=None if k else label)


# --- the logit difference ---------------------------------------------------------

def draw_diff(run: h5lens.Run, options: Options) -> Figure:
    diff = table(run, "logit_diff").astype(float)  # [prompt, answer - 1]
    if diff.shape[1] == 0:
        raise NotThere("one answer only: no logit difference")
    names = answer_names(run, diff.shape[1] + 1)
    other = names[1] if diff.shape[1] == 1 else "best other answer"
    diff = diff.min(1)  # to the strongest of the others
    finite = np.isfinite(diff)
    parts = parts_of(run, options.by, finite)
    small = few(parts)
    width, bins = bins_of(diff[finite])
    fig, axes = plt.subplots(len(parts), 1, sharex=True, sharey=small, squeeze=False,
                             figsize=(7.2, 2.6 + (1.8 if len(parts) == 1 else 1.15 * len(parts)) - 0.9 * small))
    for i, (ax, part) in enumerate(zip(axes[:, 0], parts)):
        x = diff[part.rows]
        diff_dots(ax, x, part, i) if small else diff_bars(ax, x, bins, part, i)
        ax.axvline(0, color="black", lw=1)
        ax.set_xlim(bins[0] - width / 2, bins[-1] + width / 2)
    what = "log P" if "answer_tokens" in run.prompts else "logit"
    axes[-1, 0].set_xlabel(f"{what}({names[0]}) − {what}({other})  [nats]")
    if not small:
        fig.supylabel(f"prompts per bin of {width:.3g}", fontsize=STYLE["axes.labelsize"])
    dropped = int((~finite).sum())
    told = "a dot a prompt" if small and len(diff) > 1 else "" if small else "accuracy: share above zero; mean with its 95 % interval"
    titles(fig, f"{what[0].upper() + what[1:]} difference, {names[0]} against {other}" + by_told(options),
           [f"{origin(run)}, {place(run)}", told, f"{dropped} not finite left out" if dropped else ""])
    return fig


def diff_bars(ax: plt.Axes, x: np.ndarray, bins: np.ndarray, part: Part, i: int) -> None:
    right, label = int((x > 0).sum()), part.label + ": " if part.label else ""
    mean, half, _ = (float(v[0]) for v in interval(x[:, None]))
    ax.hist(x, bins, color=COLOURS[i], alpha=0.4, lw=0)
    ax.hist(x, bins, histtype="step", color=COLOURS[i], lw=1.2)
    ax.axvline(mean, color=COLOURS[i], lw=2, ls=(0, (3, 2)))
    told = f"mean {mean:+.2f}" + (f" ± {half:.2f}" if np.isfinite(half) else "")
    handles = [Patch(facecolor=COLOURS[i], alpha=0.6, label=f"{label}accuracy {100 * right / len(x):.1f} % ({right:,} of {len(x):,})"),
               Line2D([], [], color=COLOURS[i], lw=2, ls=(0, (3, 2)), label=told)]
    ax.legend(handles=handles, loc="lower left", bbox_to_anchor=(0, 1), ncols=2, borderaxespad=0.6, borderpad=0, handlelength=1.8)
    ax.yaxis.set_major_locator(MaxNLocator(4, integer=True))


def diff_dots(ax: plt.Axes, x: np.ndarray, part: Part, i: int) -> None:
    """A dot a prompt, one above the other so that none is hidden."""
    y = np.arange(len(x))[::-1]
    ax.plot(x, y, "o", ms=6, color=COLOURS[i], clip_on=False)
    ax.set_yticks(y, [f"prompt {r}" for r in part.rows], fontsize=8.5)
    ax.set_ylim(-0.7, min(SMALL, len(x)) - 0.3)
    quiet_grid(ax, "both")
    right = int((x > 0).sum())
    ax.legend(handles=[Line2D([], [], ls="", marker="o", color=COLOURS[i],
                              label=(part.label + ": " if part.label else "") + f"{right} of {len(x)} above zero")],
              loc="lower left", bbox_to_anchor=(0, 1), borderaxespad=0.6, borderpad=0, handlelength=1)


def bins_of(x: np.ndarray) -> tuple[float, np.ndarray]:
    """Bins of a round width with an edge at zero, so that no bar mixes right and wrong."""
    wanted = (x.max() - x.min()) / min(50, max(12, int(np.sqrt(x.size) * 1.5))) or 0.1
    power = 10.0 ** np.floor(np.log10(wanted))
    width = power * next(m for m in (1, 2, 2.5, 5, 10) if m * power >= wanted * 0.8)
    first, last = np.floor(min(x.min(), 0) / width), np.ceil(max(x.max(), 0) / width)
    return width, width * np.arange(first, last + 0.5)


def pictures_of(run: h5lens.Run, options: Options) -> dict[str, Draw]:
    return {"rank_per_layer": lambda: draw_ranks(run, options), "logit_diff": lambda: draw_diff(run, options),
            "lens": lambda: draw_lens(run, options)}
