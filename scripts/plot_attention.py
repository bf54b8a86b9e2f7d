"""Pictures of attention: one head's pattern, and all heads of a layer.

In: blocks.*.attn.hook_pattern of the cache, and what chooses the head: head_attrs, or where heads look; out: heatmaps of query
by key. With --by a panel for each part: the mean pattern of its prompts that have the same tokens but for a few, else that of
its first prompt.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from plot_common import (COLOURS, STYLE, TICK, Draw, NotThere, Options, Part, answer_names, at_read, count, first_answer, origin, part_title,
                         parts_of, plt, shorten, titles, token_labels)
from plot_heat import add_bar
from plot_places import shared_labels

import h5lens
import numpy as np
from matplotlib.figure import Figure

PATTERN = "blocks.{}.attn.hook_pattern"
ROWS = 200  # so many prompts choose a head, or make a mean
BLANK = "#f0f0f0"


# --- which head -----------------------------------------------------------------

def pattern_layers(run: h5lens.Run) -> list[int]:
    n = int(run.model_config["n_layers"])
    layers = [i for i in range(n) if PATTERN.format(i) in run.hooks]
    if not layers:
        raise NotThere("the file has no attention patterns (blocks.*.attn.hook_pattern; --hooks '*hook_pattern')")
    return layers


@dataclass
class Picked:
    """A head, and by what it was chosen."""

    layer: int
    head: int
    why: str = ""  # "": it was asked for


def pick_head(run: h5lens.Run) -> Picked:
    """By attribution, else by where heads look from the read position: at the first answer in the prompt, else anywhere."""
    layers = pattern_layers(run)
    if "head_attrs" in run.results:
        x, what = first_answer(run, at_read(run, "head_attrs"))
        good = np.isfinite(x).all((1, 2))
        if good.any():
            mean = x[good].mean(0)  # [layer, head]
            mean[[i for i in range(len(mean)) if i not in layers]] = -np.inf
            layer, head = np.unravel_index(int(mean.argmax()), mean.shape)
            n = int(good.sum())
            told = f"on the mean over {count(n, 'prompt')}" if n > 1 else "in the only prompt"
            return Picked(int(layer), int(head), f"of all heads it adds most to {what}: {mean[layer, head]:+.2f} {told} (head_attrs)")
    return pick_by_looks(run, layers)


def pick_by_looks(run: h5lens.Run, layers: list[int]) -> Picked:
    rows = range(min(ROWS, len(run)))
    answers = run.prompts["answers"][:, 0] if "answers" in run.prompts else None
    holding = [] if answers is None else [r for r in rows if answers[r] in run.tokens(r)]
    found: dict[int, list[np.ndarray]] = {i: [] for i in layers}
    for row in holding or rows:
        at = np.flatnonzero(run.positions(row) == run.prompts.dataset("read_pos")[row])
        end = int(run.prompts.dataset("read_pos")[row])
        if not at.size or end < 2:
            continue
        for i in layers:
            weight = run.dataset(PATTERN.format(i))[row, :, int(at[0]), 1:end].astype(float)
            found[i].append(weight[:, run.tokens(row)[1:end] == answers[row]].sum(-1) if holding else weight.max(-1))
    means = {(i, h): float(v) for i in layers if found[i] for h, v in enumerate(np.mean(found[i], axis=0))}
    if not means:
        return Picked(layers[-1], 0, "the first of the last layer: the file does not tell which head matters")
    best, n = max(means, key=means.__getitem__), len(found[layers[0]])
    what = f"at the {answer_names(run, 1)[0]} answer" if holding else "at a single earlier token other than the first"
    told = f"on the mean over {count(n, 'prompt')}" if n > 1 else "in that prompt"
    return Picked(*best, f"of all heads it looks most {what}, from the token that is read: weight {means[best]:.2f} {told}")


# --- what is drawn ----------------------------------------------------------------

@dataclass
class Pattern:
    """One head or all of a layer: weights [head, query, key] of a prompt, or the mean over some."""

    weights: np.ndarray
    at: np.ndarray        # [query] token positions
    labels: list[str]     # [key]
    told: str
    colours: dict[int, str] = field(default_factory=dict)  # position → that of an answer


def load_pattern(run: h5lens.Run, layer: int, part: Part, options: Options) -> Pattern:
    """Of the rows of the part that have one form, the mean; else of its first row."""
    if layer not in pattern_layers(run):
        raise NotThere(f"no attention pattern of layer {layer} in the file")
    rows, labels = alike(run, part.rows, options)
    d = run.dataset(PATTERN.format(layer))
    row, n = int(rows[0]), len(rows)
    at = run.positions(row)
    kept = np.flatnonzero(at >= 0)
    if not kept.size:
        raise NotThere(f"prompt {row} has none of the stored positions")
    total = sum(d[int(r)].astype(float)[:, kept, :run.lengths[row]] for r in rows) / n
    told = f"mean over {count(n, 'prompt')} of one form" if n > 1 else f"prompt {row}"
    shown = Pattern(total, at[kept], labels, f"{part.label}: {told}" if part.label else told)
    if "answers" in run.prompts:
        answers = run.prompts["answers"][rows][:, :2]
        for i, colour in reversed(list(enumerate(COLOURS[:answers.shape[1]]))):
            same = (run.tokens(rows)[:, :run.lengths[row]] == answers[:, i, None]).all(0)
            shown.colours |= {int(k): colour for k in np.flatnonzero(same)}
    return shown


def alike(run: h5lens.Run, rows: np.ndarray, options: Options) -> tuple[np.ndarray, list[str]]:
    """The rows that have the commonest length, where they are of one form; else the first alone. And their tokens."""
    if len(rows) > 1:
        lengths, n = np.unique(run.lengths[rows], return_counts=True)
        same = rows[run.lengths[rows] == lengths[n.argmax()]][:ROWS]
        stored = len(np.unique(run.positions(same), axis=0)) == 1
        if stored and len(same) > 1 and (labels := shared_labels(run, same, options.tokenizer)):
            return same, labels
    return rows[:1], token_labels(run, int(rows[0]), options.tokenizer)


def shown_parts(run: h5lens.Run, layer: int, options: Options) -> list[Pattern]:
    if not options.by:
        return [load_pattern(run, layer, Part("", np.array([options.row])), options)]
    return [load_pattern(run, layer, part, options) for part in parts_of(run, options.by)]


def answers_told(run: h5lens.Run, shown: list[Pattern]) -> str:
    names, used = answer_names(run, 2), {c for p in shown for c in p.colours.values()}
    told = [f"{name} {word}" for name, word, colour in zip(names, ("in blue", "in orange"), COLOURS) if colour in used]
    return ", ".join(told)


def head_and_why(run: h5lens.Run, options: Options) -> Picked:
    return Picked(*options.head) if options.head else pick_head(run)


# --- one head -----------------------------------------------------------------------

def draw_attention(run: h5lens.Run, options: Options) -> Figure:
    picked = head_and_why(run, options)
    shown = shown_parts(run, picked.layer, options)
    n_heads = shown[0].weights.shape[0]
    if not 0 <= picked.head < n_heads:
        raise NotThere(f"layer {picked.layer} has heads 0 to {n_heads - 1}")
    n_query, n_key = max(len(p.at) for p in shown), max(len(p.labels) for p in shown)
    cell = float(np.clip(9 / n_key, 0.012, 0.27))  # inches
    width, height = max(cell * n_key, 3.6), max(cell * n_query, 1.2)
    below = 0.09 * max(len(t) for p in shown for t in p.labels) + 0.5
    columns = 1 if len(shown) == 1 else 2
    rows = -(-len(shown) // columns)
    fig, axes = plt.subplots(rows, columns, squeeze=False, layout="compressed",
                             figsize=(columns * (width + 1.1) + 1.3, 1.3 + rows * (height + below)))
    for ax in axes.flat[len(shown):]:
        ax.axis("off")
    top = max(float(np.nanmax(p.weights[picked.head])) for p in shown)
    for ax, p in zip(axes.flat, shown):
        image = draw_pattern(ax, p, picked.head, top)
        label_tokens(ax, p, cell)
        ax.set(xlabel="key: attended token", ylabel="query: attending token")
        if len(shown) > 1:
            part_title(ax, p.told)
    add_bar(fig, image, axes, "attention weight", shrink=min(1.0, 0.3 + 1.8 / height) if len(shown) == 1 else 0.5)
    titles(fig, f"Attention, layer {picked.layer} head {picked.head}" + (f", {shown[0].told}" if len(shown) == 1 else ""),
           [origin(run), f"{picked.layer}.{picked.head}: {picked.why}" if picked.why else "", answers_told(run, shown)])
    return fig


def draw_pattern(ax: plt.Axes, p: Pattern, head: int, top: float) -> object:
    n_query, n_key = p.weights.shape[1:]
    future = np.arange(n_key) > p.at[:, None]
    ax.spines[:].set_visible(False)
    return ax.imshow(np.ma.array(p.weights[head], mask=future), vmin=0, vmax=max(top, 1e-9),
                     cmap=plt.get_cmap("Blues").with_extremes(bad=BLANK),
                     aspect="equal" if n_query > 4 else "auto")


def label_tokens(ax: plt.Axes, p: Pattern, cell: float, keys: bool = True, queries: bool = True, least: float = 6) -> None:
    """The tokens on the axes, the first two answers in colour."""
    step = max(1, round(0.13 / cell))
    size = float(np.clip(cell * step * 72 * 0.72, least, 9))
    for axis, where, wanted in ((ax.xaxis, np.arange(len(p.labels)), keys), (ax.yaxis, p.at, queries)):
        shown = np.arange(len(where))[::-1][::step if axis is ax.xaxis or len(where) > 4 else 1][::-1]
        axis.set_ticks(shown if wanted else [], [p.labels[where[i]] for i in shown] if wanted else [], fontsize=size)
        for tick, i in zip(axis.get_ticklabels(), shown):
            tick.set_color(p.colours.get(int(where[i]), "black"))
    plt.setp(ax.get_xticklabels(), rotation=90, va="top", ha="center")
    ax.tick_params(length=2, color=TICK)


# --- all heads of a layer -------------------------------------------------------------

def draw_layer(run: h5lens.Run, options: Options) -> Figure:
    """One scale for all heads; tokens on the outer axes."""
    picked = Picked(options.layer, -1) if options.layer is not None else head_and_why(run, options)
    part = parts_of(run, options.by)[0] if options.by else Part("", np.array([options.row]))
    p = load_pattern(run, picked.layer, part, options)
    n_heads, n_query, n_key = p.weights.shape
    columns = min(n_heads, 4 if n_heads <= 16 else 6 if n_heads <= 36 else 8)
    rows = -(-n_heads // columns)
    side = 2.3 if columns == 4 else 1.7
    cell = side / n_key
    label = min(0.07 * max(map(len, p.labels)), 0.9)
    height = rows * (max(side * n_query / n_key, 0.5) + 0.35)
    fig, axes = plt.subplots(rows, columns, squeeze=False, layout="compressed",
                             figsize=(columns * (side + 0.1) + 1.5 + label, 1.5 + label + height))
    top = float(np.nanmax(p.weights))
    for h, ax in enumerate(axes.flat):
        if h >= n_heads:
            ax.axis("off")
            continue
        image = draw_pattern(ax, p, h, top)
        label_tokens(ax, p, cell, keys=h + columns >= n_heads, queries=h % columns == 0, least=5)
        ax.annotate(f"head {h}", (0, 1), (0, 3), "axes fraction", "offset points", fontsize=8.5, va="bottom",
                    fontweight="bold" if h == picked.head else "normal")
    add_bar(fig, image, axes, "attention weight", fraction=0.03, pad=0.01, shrink=0.6)
    fig.supxlabel("key: attended token", fontsize=STYLE["axes.labelsize"])
    fig.supylabel("query: attending token" if height > 2 else "query", fontsize=STYLE["axes.labelsize"])
    titles(fig, f"Attention, all heads of layer {picked.layer}, {shorten(p.told, 60)}",
           [origin(run), f"in bold {picked.layer}.{picked.head}: {picked.why}" if picked.why else "", answers_told(run, [p])])
    return fig


def pictures_of(run: h5lens.Run, options: Options) -> dict[str, Draw]:
    return {"attention": lambda: draw_attention(run, options), "layer": lambda: draw_layer(run, options)}
