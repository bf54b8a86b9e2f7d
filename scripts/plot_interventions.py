"""Pictures of interventions: grids of activation patching and of ablation, and what stands on their axes.

In: an output file's /results/patch and /results/ablate; out: heatmaps, and means with intervals. plot.py's help says what
each shows.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from plot_common import COLOURS, GREY, NotThere, groups, origin, plt, shorten, titles, token_labels

import h5lens
import numpy as np
from matplotlib.figure import Figure

HEADS = "head", "kv_head"
PLACES = "pos", "dest_pos", "src_pos"
METRIC = "answer_other", "answer"  # the last axis; its first entry is drawn
BLOCK = 64 << 20  # bytes of a grid that are read at once
MARK = COLOURS[1]  # of the tokens that differ between a prompt and its corrupted one


@dataclass
class Layout:
    """What the user says of the axes."""

    by: str | None = None
    roles: list[str] | None = None
    tokenizer: Path | None = None


# --- what stands on the axis of positions -------------------------------------------

@dataclass
class Places:
    """Entries of the axis, and which of them each position of each prompt belongs to."""

    labels: list[str]
    of: np.ndarray  # int [prompt, pos]; -1: none
    told: str
    marked: list[int] = field(default_factory=list)


def differing(run: h5lens.Run, rows: np.ndarray) -> np.ndarray:
    """bool [prompt, pos]: where a prompt and its corrupted one have other tokens."""
    return run.tokens(rows) != run.corrupted_tokens(rows)


def pruned(labels: list[str], of: np.ndarray, told: str, marked: Sequence[int] = ()) -> Places:
    """Without the entries that no prompt has."""
    there = [i for i in range(len(labels)) if (of == i).any()]
    new = np.full(len(labels) + 1, -1)
    new[there] = np.arange(len(there))
    return Places([labels[i] for i in there], new[of], told, [int(new[i]) for i in marked if new[i] >= 0])


def by_tokens(run: h5lens.Run, rows: np.ndarray, tokenizer: Path | None) -> Places | None:
    """Each position, under its token or the column that it is of. None: the prompts are not of one form."""
    if len(set(run.lengths[rows].tolist())) > 1:
        return None
    n, ids = int(run.lengths[rows[0]]), run.tokens(rows)
    same = (ids[:, :n] == ids[0, :n]).all(0)
    labels = token_labels(run, int(rows[0]), tokenizer)[:n]
    if not same.all():
        texts = np.array([[t.strip("·▁ ") for t in token_labels(run, int(r), tokenizer)[:n]] for r in rows], dtype=object)
        columns = {name: values for name in run.columns if (values := run.columns[name][rows]).dtype.kind == "O"}
        for i in np.flatnonzero(~same):
            of = [name for name, values in columns.items() if (values == texts[:, i]).all()]
            labels[i] = f"[{of[0]}]" if of else labels[i] + " …"
        if sum(label.endswith(" …") for label in labels) > n / 2:
            return None
    read = int(run.prompts["read_pos"][rows].max())
    of = np.where(run.tokens(rows) >= 0, np.arange(ids.shape[1]), -1)
    marked = np.flatnonzero(differing(run, rows)[:, :n].any(0)).tolist()
    told = "orange: tokens that differ in the corrupted prompt"
    return pruned(labels[:read + 1], np.where(of > read, -1, of), told, [i for i in marked if i <= read])


def by_parting(run: h5lens.Run, rows: np.ndarray) -> Places:
    """Positions counted from the first token that differs and from the one that is read."""
    labels = ["before", "differs", "+1", "+2", "+3", "between", "−2", "−1", "read"]
    of = np.full(run.tokens(rows).shape, -1)
    reads = run.prompts["read_pos"][rows]
    for row, other, read in zip(of, differing(run, rows), reads):
        first = int(np.argmax(other))
        row[:read + 1] = labels.index("between")
        row[first + 1:first + 4] = np.arange(2, 2 + len(row[first + 1:first + 4]))
        row[max(first + 1, read - 2):read] = np.arange(6, 8)[max(0, 2 - max(0, read - first - 1)):]
        row[:first] = labels.index("before")
        row[read] = labels.index("read")
        row[first] = labels.index("differs")
        row[read + 1:] = -1
    return pruned(labels, of, "places counted from the pair's first token that differs, and from the one that is read; "
                              "before, between: means over several", [1])


def by_roles(run: h5lens.Run, rows: np.ndarray, layout: Layout) -> Places:
    """Where the texts of columns end, each time that they occur, and the token that is read; the others together."""
    found: list[dict[str, int]] = []
    wanted = {name: run.columns[name] for name in layout.roles or ()}
    for r in rows:
        pieces = run.str_tokens(int(r), layout.tokenizer)
        text, ends = "".join(pieces), np.cumsum([len(p) for p in pieces])
        here = {}
        for name, values in wanted.items():
            # Of a tokenizer whose tokens show no spaces, words have no edges.
            word = re.escape(str(values[r]).strip())
            edges = rf"(?<!\w){word}(?!\w)" if run.text(int(r)) in text else word
            for i, match in enumerate(re.finditer(edges, text) if word else ()):
                here[f"{name} {i + 1}"] = int(np.searchsorted(ends, match.end()))
        found.append(here)
    names = sorted({name for here in found for name in here},
                   key=lambda name: (float(np.mean([here[name] for here in found if name in here])), name))
    if not names:
        raise NotThere(f"no prompt holds a text of the columns {', '.join(wanted)} (--roles)")
    of = np.full(run.tokens(rows).shape, -1)
    labels = ["others", *names, "read"]
    for row, here, read in zip(of, found, run.prompts["read_pos"][rows]):
        row[:read + 1] = 0
        row[read] = len(labels) - 1
        for name, at in here.items():
            row[at] = labels.index(name) if at <= read else -1
    once = {name for name in wanted if f"{name} 2" not in names}
    shown = [label[:-2] if label[:-2] in once else label for label in labels]
    return pruned(shown, of, "positions where a column's text ends; others: the mean over the rest")


def best_places(run: h5lens.Run, rows: np.ndarray, layout: Layout) -> Places:
    if layout.roles:
        return by_roles(run, rows, layout)
    return by_tokens(run, rows, layout.tokenizer) or by_parting(run, rows)


# --- means over prompts -----------------------------------------------------------

@dataclass
class Heat:
    """A heatmap: layers, and places or heads."""

    values: np.ndarray  # [layer, column]; NaN: no cell
    columns: list[str]
    axis: str
    centre: float  # the value of no effect
    unit: str
    part: str = ""
    notes: list[str] = field(default_factory=list)
    marked: list[int] = field(default_factory=list)


def summed(x: np.ndarray, of: np.ndarray, n: int, axis: int) -> np.ndarray:
    """[prompt, …, pos, …] → [prompt, …, entry, …]: sums over the positions of each entry."""
    hot = (of[..., None] == np.arange(n)).astype(float)  # [prompt, pos, entry]
    hot = hot.reshape(len(x), *[1] * (x.ndim - 2), *hot.shape[1:])
    return np.moveaxis((np.moveaxis(x, axis, -1)[..., None, :] @ hot)[..., 0, :], -1, axis)


def means(d: np.ndarray, dims: Sequence[str], base: np.ndarray, rows: np.ndarray, places: Places | None) -> np.ndarray:
    """Over prompts, of cells less what the base was; the axes are those of dims but the prompt's and the metric's."""
    total, number = np.zeros(()), np.zeros(())
    step = max(1, BLOCK // max(1, int(np.prod(d.shape[1:])) * 8))
    for a in range(0, len(rows), step):
        here = rows[a:a + step]
        x = d[here].astype(float)
        x = x[..., 0] if dims[-1] in METRIC else x
        x -= base[here].reshape(-1, *[1] * (x.ndim - 1))
        good = np.isfinite(x)
        x, n = np.where(good, x, 0), good.astype(float)
        for axis, dim in enumerate(dims):
            if dim in PLACES and places:
                x, n = (summed(y, places.of[a:a + step], len(places.labels), axis) for y in (x, n))
        total = total + np.divide(x, n, out=np.zeros_like(x), where=n > 0).sum(0)
        number = number + (n > 0).sum(0)
    return np.divide(total, number, out=np.full(np.shape(total), np.nan), where=number > 0)


def patch_settings(run: h5lens.Run) -> tuple[str, str, str]:
    """The run that is patched, the one that the activations are from, the metric."""
    patch = run.experiment.get("patch", {})
    runs = ("clean", "corrupted") if patch.get("direction") == "noise" else ("corrupted", "clean")
    return *runs, str(patch.get("metric", "logit_diff"))


def signed(x: float, half: float, plus: str = "") -> str:
    """A number with as many digits as tell on a scale of so much, without a negative zero."""
    digits = 1 if half >= 10 else 2 if half >= 0.1 else 2 - int(np.floor(np.log10(half * 10)))
    text = f"{x:{plus}.{digits}f}"
    return (text if float(text) else text.replace("-", plus)).replace("-", "−")


def base_of(run: h5lens.Run, group: str, name: str) -> tuple[np.ndarray, float, str, str]:
    """What is taken from each prompt's cells, the value of no effect, what the difference is called, and a note."""
    base, _, metric = patch_settings(run)
    if group == "patch" and name.endswith("_normalized"):
        return np.zeros(len(run)), float(base == "clean"), "(x − corrupted) / (clean − corrupted)", ""
    what = f"{base}_{metric}" if group == "patch" else "logit_diff"
    table = run.patch if group == "patch" else run.results
    if what not in table:
        raise NotThere(f"the file has no {what}, which the cells are compared with")
    values = table[what].astype(float).reshape(len(run), -1)[:, 0]
    run_name = f"the {base} run itself" if group == "patch" else "with nothing ablated"
    note = f"{run_name}: mean {signed(float(np.nanmean(values)), 1.0)}"
    return values, 0.0, f"change of {metric if group == 'patch' else what}", note


def strongest(values: np.ndarray, dims: list[str], places: Places, centre: float) -> tuple[np.ndarray, list[str]]:
    """[layer, head]: of each head the place with the largest effect, and where that is for the strongest heads."""
    order = [i for i, dim in enumerate(dims) if dim not in PLACES] + [i for i, dim in enumerate(dims) if dim in PLACES]
    x = values.transpose(order)
    shape, extents = x.shape[:2], x.shape[2:]
    x = x.reshape(*shape, -1)
    effect = np.where(np.isnan(x), -1, np.abs(x - centre))
    at = effect.argmax(-1)
    best = np.take_along_axis(x, at[..., None], -1)[..., 0]
    told = []
    for i in np.argsort(-effect.max(-1), axis=None)[:4]:
        layer, head = np.unravel_index(i, shape)
        where = [places.labels[k] for k in np.unravel_index(at[layer, head], extents)]
        told.append(f"{layer}.{head} {signed(best[layer, head], float(effect.max()), '+')} at {' from '.join(where)}")
    return best, told


def heats(run: h5lens.Run, group: str, name: str, layout: Layout) -> list[Heat]:
    """One of all prompts, or one for each value of --by."""
    grid = run.patch if group == "patch" else run.ablate
    d, dims = grid.dataset(name), grid.dims(name)
    base, centre, unit, note = base_of(run, group, name)
    parts = groups(run.columns[layout.by]) if layout.by and group == "patch" else [("", np.ones(len(run), bool))]
    out = []
    for label, mask in parts:
        rows = np.flatnonzero(mask)
        if not rows.size:
            continue
        places = best_places(run, rows, layout) if set(dims) & set(PLACES) else None
        kept = [k for k in dims[1:] if k not in METRIC]
        values = means(d, dims, base, rows, places)
        heat = Heat(values, [], "", centre, unit, f"{layout.by} {label}: {len(rows):,} prompts" if label else "",
                    [note] if note else [])
        if places and set(kept) & set(HEADS):
            heat.values, told = strongest(values, kept, places, centre)
            heat.notes += ["of each head the place with the largest mean effect (" + "; ".join(told) + ")", places.told]
        elif places:
            heat.columns, heat.axis, heat.marked = places.labels, "position", places.marked
            heat.notes.append(places.told)
        if not heat.columns:
            heat.columns = [str(i) for i in range(heat.values.shape[1])]
            heat.axis = next(k for k in kept if k in HEADS).replace("kv_head", "key/value head")
        if np.isnan(heat.values).any():
            heat.notes.append("grey: no value")
        out.append(heat)
    return out


# --- drawing ----------------------------------------------------------------------

def scale_of(parts: list[Heat]) -> float:
    """Half the range of colours: the largest effect."""
    top = max((float(np.nanmax(np.abs(h.values - h.centre), initial=0)) for h in parts), default=0)
    return top or 1.0


def draw_heat(ax: plt.Axes, h: Heat, half: float) -> object:
    image = ax.imshow(np.ma.masked_invalid(h.values), cmap=plt.get_cmap("RdBu").with_extremes(bad="#dddddd"),
                      vmin=h.centre - half, vmax=h.centre + half, interpolation="nearest", aspect="auto")
    n_rows, n_columns = h.values.shape
    step = max(1, -(-n_columns // 60))
    shown = np.arange(n_columns)[::step]
    long = max(map(len, h.columns)) > 3
    ax.set_xticks(shown, [h.columns[i] for i in shown], fontsize=8.5 if n_columns <= 30 else 7,
                  **({"rotation": 90 if n_columns > 12 else 40, "ha": "center" if n_columns > 12 else "right",
                      "rotation_mode": "default" if n_columns > 12 else "anchor"} if long else {}))
    for i, tick in zip(shown, ax.get_xticklabels()):
        tick.set_color(MARK if i in h.marked else "black")
    ax.set_yticks(np.arange(n_rows)[::max(1, -(-n_rows // 32))])
    ax.tick_params(length=2, color="#aaaaaa")
    ax.spines[:].set_visible(False)
    ax.set_xlabel(h.axis)
    ax.set_ylabel("layer")
    if n_rows * n_columns <= 160 and n_columns <= 16:
        for (i, k), v in np.ndenumerate(h.values):
            if np.isfinite(v):
                ax.text(k, i, signed(v, half), ha="center", va="center", fontsize=8,
                        color="white" if abs(v - h.centre) > 0.65 * half else "black")
    return image


def add_bar(fig: Figure, image: object, axes: object, unit: str) -> None:
    bar = fig.colorbar(image, ax=axes, fraction=0.05, pad=0.02)
    bar.set_label(unit, fontsize=8.5)
    bar.outline.set_visible(False)


def size_of(h: Heat) -> tuple[float, float]:
    """Inches of the cells together."""
    n_rows, n_columns = h.values.shape
    return float(np.clip(0.5 * n_columns, 2.6, 11)), float(np.clip((0.34 if n_rows <= 16 else 0.22) * n_rows, 1.5, 8))


def wrapped(notes: Sequence[str], width: float) -> list[str]:
    """Lines that fit above axes of so many inches."""
    lines: list[str] = []
    for note in notes:
        line = ""
        for word in note.split(" "):
            if line and len(line) + len(word) + 1 > width * 17:
                lines.append(line)
                line = ""
            line += (" " if line else "") + word
        lines.append(line)
    return lines


def patch_title(run: h5lens.Run, name: str) -> tuple[str, str]:
    base, source, metric = patch_settings(run)
    grid = name.removesuffix("_normalized")
    axis = next((k for k in run.patch.dims(name) if k in METRIC), None)
    labels = run.labels(axis) if axis else []
    which = f" ({axis.replace('_', ' ')} {labels[0]} of {len(labels)})" if axis and len(labels) > 1 else ""
    return f"Patching {grid}", f"{metric}{which} of the {base} run with activations of the {source} one"


def draw_parts(run: h5lens.Run, title: str, notes: list[str], parts: list[Heat]) -> Figure:
    width, height = size_of(parts[0])
    width = max(width, 4.6)
    half = scale_of(parts)
    fig, axes = plt.subplots(len(parts), 1, squeeze=False,
                             figsize=(width + 2.1, 1.0 + len(parts) * (height + 1.3)))
    for i, (ax, h) in enumerate(zip(axes[:, 0], parts)):
        image = draw_heat(ax, h, half)
        own = h.notes if len(parts) > 1 else []
        lines = wrapped([*([*notes, *(h.notes if len(parts) == 1 else [])] if i == 0 else []), *([h.part] if h.part else []), *own],
                        width)
        if i == 0:
            titles(ax, title, "\n".join(lines), lines=len(lines))
        else:
            ax.annotate("\n".join(lines), (0, 1), (0, 5), "axes fraction", "offset points", fontsize=9, color=GREY, va="bottom")
    add_bar(fig, image, axes, parts[0].unit)
    return fig


def draw_patch(run: h5lens.Run, name: str, layout: Layout) -> Figure:
    title, below = patch_title(run, name)
    return draw_parts(run, title, [origin(run), below], heats(run, "patch", name, layout))


def draw_overview(run: h5lens.Run, layout: Layout) -> Figure:
    """Heads' outputs beside the residual stream: which heads move it, and from where to where."""
    ending = "_normalized" if "resid_pre_normalized" in run.patch else ""
    all_prompts = Layout(None, layout.roles, layout.tokenizer)
    heads, stream = (heats(run, "patch", name + ending, all_prompts)[0] for name in ("attn_head_out_all_pos", "resid_pre"))
    (w_heads, height), (w_stream, _) = size_of(heads), size_of(stream)
    fig, (left, right) = plt.subplots(1, 2, figsize=(w_heads + w_stream + 2.4, height + 2.2), width_ratios=(w_heads, w_stream))
    half = scale_of([heads, stream])
    draw_heat(left, heads, half)
    image = draw_heat(right, stream, half)
    base, source, metric = patch_settings(run)
    lines = [origin(run), f"{metric} of the {base} run with one activation of the {source} one"]
    lines = wrapped(lines, w_heads + 0.4)
    below = wrapped(stream.notes, w_stream)
    n = max(len(lines), len(below))
    titles(left, "Heads' outputs, all positions", "\n".join(lines), lines=n)
    titles(right, "Residual stream before each layer", "\n".join(below), lines=n)
    add_bar(fig, image, right, heads.unit)
    return fig


# --- means with intervals -----------------------------------------------------------

def interval(x: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """[prompt, n] → means, halves of 95 % intervals (NaN of fewer than two prompts), and numbers of prompts."""
    n = np.isfinite(x).sum(0)
    mean = np.divide(np.nansum(x, 0), n, out=np.full(x.shape[1], np.nan), where=n > 0)
    square = np.nansum((x - mean) ** 2, 0)
    error = np.sqrt(np.divide(square, (n - 1) * n, out=np.full(x.shape[1], np.nan), where=n > 1))
    return mean, 1.96 * error, n


def draw_dots(run: h5lens.Run, name: str) -> Figure:
    """The logit difference with nothing ablated, and with each layer's or set's activations."""
    dims = run.ablate.dims(name)
    x = run.ablate[name].astype(float)[..., 0]  # [prompt, layer or set]
    clean, *_ = base_of(run, "ablate", name)
    settings = run.experiment.get("ablate", {})
    sets = settings.get("sets", {})
    if dims[1] == "set":
        labels = [f"{shorten(s, 30)}\n{shorten(', '.join(map(str, sets.get(s, []))), 44)}" for s in run.labels("set")]
    else:
        labels = [f"layer {i}" for i in range(x.shape[1])]
    labels = ["nothing", *labels]
    mean, half, n = interval(np.concatenate([clean[:, None], x], 1))
    fig, ax = plt.subplots(figsize=(7.2, 1.7 + (0.46 if dims[1] == "set" else 0.3) * len(labels)))
    y = np.arange(len(labels))
    ax.axvline(mean[0], color=GREY, lw=1, ls=(0, (3, 2)))
    if (mean - np.nan_to_num(half)).min() < 0.4 * mean.max():  # zero is near enough
        ax.axvline(0, color="black", lw=1)
    ax.errorbar(mean, y, xerr=np.nan_to_num(half), fmt="o", ms=5, lw=2, capsize=3, color=COLOURS[0])
    for i in y:
        ax.annotate(f"{signed(mean[i], 1.0, '+')}, n = {n[i]:,}", (1, i), (6, 0), ("axes fraction", "data"), "offset points",
                    fontsize=8.5, color=GREY, va="center")
    ax.set_yticks(y, labels, fontsize=9)
    ax.set_ylim(len(labels) - 0.5, -0.5)
    ax.grid(axis="x", color="#e4e4e4", lw=0.8)
    ax.set_axisbelow(True)
    other = run.labels("answer_other")
    ax.set_xlabel("mean logit difference" + (f" to {other[0]}" if other else "") + ", 95 % interval")
    titles(ax, "Ablating " + ("sets of heads" if dims[1] == "set" else name),
           f"{origin(run)}; replaced by: {settings.get('value', 'zero')}")
    return fig


def draw_ablate(run: h5lens.Run, name: str, layout: Layout) -> Figure:
    if not set(run.ablate.dims(name)) & set(HEADS):
        return draw_dots(run, name)
    notes = [origin(run), f"replaced by: {run.experiment.get('ablate', {}).get('value', 'zero')}"]
    return draw_parts(run, f"Ablating {name}", notes, heats(run, "ablate", name, layout))


# --- which pictures there are ----------------------------------------------------------

def left_out(why: str) -> Callable[[], Figure]:
    def draw() -> Figure:
        raise NotThere(why)
    return draw


def pictures_of(run: h5lens.Run, layout: Layout) -> dict[str, Callable[[], Figure]]:
    """Name → how it is drawn."""
    out: dict[str, Callable[[], Figure]] = {}
    grids = [name for name in run.patch if "layer" in run.patch.dims(name)]
    if {"attn_head_out_all_pos", "resid_pre"} <= set(grids):
        out["patch"] = lambda: draw_overview(run, layout)
    for name in grids:
        out[f"patch.{name}"] = lambda name=name: draw_patch(run, name, layout)
    for name in run.ablate:
        out[f"ablate.{name}"] = lambda name=name: draw_ablate(run, name, layout)
    if not grids:
        out["patch"] = left_out("the file has no grids of patching (/results/patch; patch.grids)")
    if not run.ablate:
        out["ablate"] = left_out("the file has no ablation (/results/ablate; ablate.grids, ablate.sets)")
    return out
