"""Pictures of attributions: components, heads and neurons that write the answer, and what heads look at (head_scores).

In: /results/logit_attrs, head_attrs, top_neurons and neuron_attrs, head_scores; out: bars or heatmaps with 95 % intervals, dots
where there are few prompts. All are about the first answer less the second (or the only one), at the read position.
"""

from __future__ import annotations

import re

from plot_common import (BLOCK, COLOURS, EDGE, GREY, SMALL, Draw, NotThere, Options, at_read, count, few, first_answer, interval, origin,
                         part_title, parts_of, place, plt, quiet_grid, table, titles)
from plot_heat import draw_grid, draw_parts, heads_of, largest

import h5lens
import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

NEURONS = 20  # so many are shown


def over(n: int) -> str:
    return f"mean over {count(n, 'prompt')}" if n > 1 else "the prompt's own"


# --- components -----------------------------------------------------------------

def read_attrs(run: h5lens.Run, name: str) -> tuple[np.ndarray, str]:
    """[prompt, component or layer and head] at the read position, and what it adds to."""
    return first_answer(run, at_read(run, name))


def component_order(labels: list[str]) -> tuple[list[tuple[str, int, float]], list[str]]:
    """Each component: its kind, its place on the axis, and how far it stands aside; and the axis's labels."""
    ends = [k for k in labels if not re.match(r"\d+_", k)]
    before, after = [k for k in ends if "embed" in k and "un" not in k[:2]], [k for k in ends if k.startswith("un")]
    layers = sorted({int(k.split("_")[0]) for k in labels if re.match(r"\d+_", k)})
    axis = [*before, *map(str, layers), *after]
    out = []
    for k in labels:
        if m := re.match(r"(\d+)_(attn|mlp)", k):
            out.append((m[2], axis.index(m[1]), -0.2 if m[2] == "attn" else 0.2))
        else:
            out.append(("other", axis.index(k), 0.0))
    return out, axis


KINDS = {"attn": ("attention", COLOURS[0]), "mlp": ("MLP", COLOURS[1]), "other": ("embeddings, bias", COLOURS[2])}


def draw_components(run: h5lens.Run, options: Options) -> Figure:
    x, what = read_attrs(run, "logit_attrs")  # [prompt, component]
    parts = parts_of(run, options.by, np.isfinite(x).all(1))
    where, axis = component_order(run.labels("component"))
    fig, axes = plt.subplots(len(parts), 1, sharex=True, sharey=True, squeeze=False,
                             figsize=(max(6.4, 0.3 * len(axis) + 1.4), 1.9 + (3.0 if len(parts) == 1 else 1.8 * len(parts))))
    for ax, part in zip(axes[:, 0], parts):
        ax.axhline(0, color=EDGE, lw=1)
        for kind, (_, colour) in KINDS.items():
            mine = [i for i, w in enumerate(where) if w[0] == kind]
            at = np.array([where[i][1] + where[i][2] for i in mine])
            bars(ax, at, x[part.rows][:, mine], colour, 0.36 if kind != "other" else 0.6, few(parts))
        quiet_grid(ax, "y")
        if part.label:
            part_title(ax, part.told())
    axes[0, 0].legend(handles=[Line2D([], [], ls="", marker="o" if few(parts) else "s", color=c, label=name) for name, c in KINDS.values()],
                      loc="best", ncols=3, handlelength=1, columnspacing=1)
    axes[-1, 0].set_xticks(np.arange(len(axis)), [k.replace("_", "\n") for k in axis], fontsize=8.5 if len(axis) < 24 else 7.5)
    axes[-1, 0].set_xlim(-0.6, len(axis) - 0.4)
    axes[-1, 0].set_xlabel("layer, and what is no layer's")
    fig.supylabel(f"added to {what}  [nats]", fontsize=9.5)
    told = "a dot a prompt" if few(parts) and len(run) > 1 else "" if few(parts) else "means with 95 % intervals"
    titles(fig, "What attention and MLPs add to the answer, by layer", [f"{origin(run)}, {place(run)}", told])
    return fig


def bars(ax: plt.Axes, at: np.ndarray, x: np.ndarray, colour: str, width: float, small: bool) -> None:
    """x [prompt, bar]"""
    if small:
        spread = (np.arange(len(x)) - (len(x) - 1) / 2) / SMALL * width
        for shift, one in zip(spread, x):
            ax.plot(at + shift, one, "o", ms=4, color=colour, alpha=0.85, mew=0)
        return
    mean, half, _ = interval(x)
    ax.bar(at, mean, width, color=colour, yerr=np.nan_to_num(half), error_kw={"elinewidth": 1, "ecolor": GREY, "capsize": 1.5})


# --- heads ----------------------------------------------------------------------

def draw_heads(run: h5lens.Run, options: Options) -> Figure:
    x, what = read_attrs(run, "head_attrs")  # [prompt, layer, head]
    parts = parts_of(run, options.by, np.isfinite(x).all((1, 2)))
    heats = []
    for part in parts:
        mean = x[part.rows].mean(0)
        heat = heads_of(mean, f"added to {what}  [nats]", part.label)
        heat.notes = [f"{over(len(part.rows))}; the largest: {largest(mean)}"]
        heats.append(heat)
    return draw_parts(run, "What each head adds to the answer", [f"{origin(run)}, {place(run)}"], heats)


def draw_scores(run: h5lens.Run, options: Options) -> Figure:
    x = table(run, "head_scores").astype(float)  # [prompt, layer, head, score]
    names = run.labels("score") or [str(i) for i in range(x.shape[3])]
    rows = []
    for part in parts_of(run, options.by, np.isfinite(x).any((1, 2, 3))):
        means = np.nanmean(x[part.rows], 0)
        told = f"{part.label}, {over(len(part.rows))}" if part.label else ""
        row = []
        for k, name in enumerate(names):
            heat = heads_of(means[..., k], "share of a head's attention on keys of the kind", told, upward=True)
            heat.notes = [name.replace("_", " ")]
            row.append(heat)
        rows.append(row)
    best = [f"{row[0].notes[0]} {largest(row[0].values, 1)}" for row in ([h] for h in rows[0])] if len(rows) == 1 else []
    notes = [f"{origin(run)}, all positions; {over(len(run))}" if len(rows) == 1 else f"{origin(run)}, all positions",
             *(["largest: " + "; ".join(best)] if best else [])]
    return draw_grid("What heads look at", notes, rows)


# --- neurons ----------------------------------------------------------------------

def mean_neurons(run: h5lens.Run) -> tuple[np.ndarray, np.ndarray]:
    """Of the table neuron_attrs: [layer, neuron], the mean over prompts; read in blocks."""
    d = run.results.dataset("neuron_attrs")
    total, n = np.zeros(d.shape[1:3]), 0
    step = max(1, BLOCK // max(1, int(np.prod(d.shape[1:])) * 8))
    for a in range(0, d.shape[0], step):
        x = first_answer(run, d[a:a + step])[0]
        good = np.isfinite(x).all((1, 2))
        total, n = total + x[good].sum(0), n + int(good.sum())
    if not n:
        raise NotThere("neuron_attrs has no finite row")
    return total / n, np.argsort(-np.abs(total), axis=None, kind="stable")[:NEURONS]


def neurons_of_all(run: h5lens.Run) -> tuple[list[tuple[int, int]], np.ndarray, str]:
    """The neurons with the largest means, their attributions [prompt, neuron], and by what they were chosen."""
    mean, best = mean_neurons(run)
    chosen = [tuple(int(v) for v in np.unravel_index(i, mean.shape)) for i in best]
    d = run.results.dataset("neuron_attrs")
    values = np.stack([first_answer(run, d[:, layer, k])[0] for layer, k in chosen], 1)
    return chosen, values, "those with the largest mean by magnitude, of all"


def neurons_of_top(run: h5lens.Run) -> tuple[list[tuple[int, int]], np.ndarray, str]:
    """The same of the table top_neurons: NaN where a prompt does not have a neuron among its top k."""
    attr = table(run, "top_neuron_attr").astype(float)
    keys = np.stack([run.results["top_neuron_layer"], run.results["top_neuron"]], -1)
    kinds, of = np.unique(keys.reshape(-1, 2), axis=0, return_inverse=True)
    of = of.reshape(attr.shape)
    total = np.bincount(of.ravel(), np.nan_to_num(np.abs(attr)).ravel(), len(kinds))
    best = [i for i in np.argsort(-total, kind="stable")[:NEURONS] if kinds[i][0] >= 0]
    values = np.full((len(run), len(best)), np.nan)
    for k, i in enumerate(best):
        row, at = np.nonzero(of == i)
        values[row, k] = attr[row, at]
    return [(int(kinds[i][0]), int(kinds[i][1])) for i in best], values, \
        f"only where among a prompt's first {attr.shape[1]}; sorted by sum of magnitudes"


def draw_neurons(run: h5lens.Run, options: Options) -> Figure:
    chosen, x, told = neurons_of_all(run) if "neuron_attrs" in run.results else neurons_of_top(run)
    parts = parts_of(run, options.by, np.isfinite(x).any(1))
    _, what = first_answer(run, np.zeros((1, len(run.labels("answer") or [0]))))
    fig, axes = plt.subplots(1, len(parts), sharex=True, sharey=True, squeeze=False,
                             figsize=(2.2 + (5 if len(parts) == 1 else 2.6 * len(parts)), 1.9 + 0.24 * len(chosen)))
    y, small = np.arange(len(chosen)), few(parts)
    for ax, part in zip(axes[0], parts):
        values = x[part.rows]
        ax.axvline(0, color=EDGE, lw=1)
        mean, half, n = interval(values)
        if small:
            for one in values:
                ax.plot(one, y, "o", ms=4.5, color=COLOURS[0], alpha=0.85, mew=0)
        else:
            ax.errorbar(mean, y, xerr=np.nan_to_num(half), fmt="o", ms=4.5, lw=1.5, capsize=2, color=COLOURS[0])
        for i in y if len(run) > 1 and np.isnan(x).any() else ():
            ax.annotate(f"{n[i]:,}", (1, i), (4, 0), ("axes fraction", "data"), "offset points", fontsize=8, color=GREY, va="center")
        quiet_grid(ax, "both")
        if part.label:
            part_title(ax, part.told())
    axes[0, 0].set_yticks(y, [f"L{layer} N{k}" for layer, k in chosen], fontsize=8.5)
    axes[0, 0].set_ylim(len(chosen) - 0.5, -0.5)
    fig.supxlabel(f"added to {what}  [nats]" + (", a dot a prompt" if small else ", mean and 95 % interval"), fontsize=9.5)
    titles(fig, "Neurons that add most to the answer",
           [f"{origin(run)}, {place(run)}", told + (" (on the right: in how many prompts)" if np.isnan(x).any() and len(run) > 1 else "")])
    return fig


def pictures_of(run: h5lens.Run, options: Options) -> dict[str, Draw]:
    return {"components": lambda: draw_components(run, options), "heads": lambda: draw_heads(run, options),
            "head_scores": lambda: draw_scores(run, options), "neurons": lambda: draw_neurons(run, options)}
