"""Pictures of interventions: grids of activation patching, of ablation and of path patching, and steering.

In: an output file's /results/patch, ablate, path and steer; out: heatmaps, and means with intervals. plot.py's help says what
each shows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from plot_common import (BLOCK, COLOURS, EDGE, GREY, Draw, NotThere, Options, Part, difference, few, interval, origin, part_title, parts_of, place,
                         plt, quiet_grid, shorten, signed, titles)
from plot_heat import Heat, add_bar, draw_heat, draw_parts, largest, scale_of, size_of
from plot_places import PLACES, Places, best_places

import h5lens
import numpy as np
from matplotlib.figure import Figure

HEADS = "head", "kv_head"
METRIC = "answer_other", "answer"  # the last axis; its first entry is drawn


# --- means over prompts -----------------------------------------------------------

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


def base_of(run: h5lens.Run, group: str, name: str) -> tuple[np.ndarray, float, str, str]:
    """What is taken from each prompt's cells, the value of no effect, what the difference is called, and a note."""
    base, _, metric = patch_settings(run)
    if group == "patch" and name.endswith("_normalized"):
        return np.zeros(len(run)), float(base == "clean"), "(x − corrupted) / (clean − corrupted)", ""
    if group == "path":
        return base_of_paths(run)
    what = f"{base}_{metric}" if group == "patch" else "logit_diff"
    table = run.patch if group == "patch" else run.results
    if what not in table:
        raise NotThere(f"the file has no {what}, which the cells are compared with")
    values = table[what].astype(float).reshape(len(run), -1)[:, 0]
    run_name = f"the {base} run itself" if group == "patch" else "with nothing ablated"
    note = f"{run_name}: {'mean ' if len(run) > 1 else ''}{signed(float(np.nanmean(values)), 1.0)}"
    return values, 0.0, f"change of {metric if group == 'patch' else what}", note


def base_of_paths(run: h5lens.Run) -> tuple[np.ndarray, float, str, str]:
    """The corrupted run, which the file has if it was patched too."""
    if "corrupted_logit_diff" not in run.patch:
        return np.zeros(len(run)), 0.0, "logit difference after the patch", "the file does not have that of the corrupted run"
    values = run.patch["corrupted_logit_diff"].astype(float)[:, 0]
    return values, 0.0, "change of logit_diff", f"the corrupted run itself: {signed(float(np.nanmean(values)), 1.0)}"


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


def heats(run: h5lens.Run, group: str, name: str, options: Options) -> list[Heat]:
    """One of all prompts, or one for each value of --by."""
    grid = {"patch": run.patch, "ablate": run.ablate, "path": run.paths}[group]
    d, dims = grid.dataset(name), grid.dims(name)
    base, centre, unit, note = base_of(run, group, name)
    out = []
    for part in parts_of(run, options.by):
        rows = part.rows
        places = best_places(run, rows, options) if set(dims) & set(PLACES) else None
        kept = [k for k in dims[1:] if k not in METRIC]
        values = means(d, dims, base, rows, places)
        heat = Heat(values, [], "", centre, unit, part.told(), [note] if note else [])
        if places and set(kept) & set(HEADS):
            heat.values, told = strongest(values, kept, places, centre)
            heat.notes += ["of each head the place with the largest effect (" + "; ".join(told) + ")", places.told]
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


# --- grids as heatmaps ----------------------------------------------------------------

def over(run: h5lens.Run) -> str:
    return ", mean over the prompts" if len(run) > 1 else ""


def patch_title(run: h5lens.Run, name: str) -> tuple[str, str]:
    base, source, metric = patch_settings(run)
    grid = name.removesuffix("_normalized")
    axis = next((k for k in run.patch.dims(name) if k in METRIC), None)
    labels = run.labels(axis) if axis else []
    which = f" ({axis.replace('_', ' ')} {labels[0]} of {len(labels)})" if axis and len(labels) > 1 else ""
    return f"Patching {grid}", f"{metric}{which} of the {base} run with activations of the {source} one" + over(run)


def draw_patch(run: h5lens.Run, name: str, options: Options) -> Figure:
    title, below = patch_title(run, name)
    return draw_parts(run, title, [origin(run), below], heats(run, "patch", name, options))


def draw_paths(run: h5lens.Run, options: Options) -> Figure:
    receivers = run.experiment.get("path", {}).get("receivers", "")
    receivers = receivers if isinstance(receivers, str) else ", ".join(map(str, receivers))
    heats_of = heats(run, "path", "logit_diff", options)
    for h in heats_of:
        h.notes.append(f"the largest: {largest(h.values)}")
    return draw_parts(run, f"Path patching: heads through {shorten(receivers, 40)}",
                      [origin(run), "the corrupted run with what a head of the clean one says to the receivers alone" + over(run)], heats_of)


def draw_overview(run: h5lens.Run, options: Options) -> Figure:
    """Heads' outputs beside the residual stream: which heads move it, and from where to where."""
    ending = "_normalized" if "resid_pre_normalized" in run.patch else ""
    all_prompts = replace(options, by=None)
    heads, stream = (heats(run, "patch", name + ending, all_prompts)[0] for name in ("attn_head_out_all_pos", "resid_pre"))
    (w_heads, height), (w_stream, _) = size_of(heads), size_of(stream)
    fig, (left, right) = plt.subplots(1, 2, figsize=(w_heads + w_stream + 2.4, height + 2.2), width_ratios=(w_heads, w_stream))
    half = scale_of([heads, stream])
    draw_heat(left, heads, half)
    image = draw_heat(right, stream, half)
    base, source, metric = patch_settings(run)
    part_title(left, "heads' outputs, all positions")
    part_title(right, "residual stream before each layer")
    titles(fig, "Patching heads and the residual stream",
           [origin(run), f"{metric} of the {base} run with one activation of the {source} one" + over(run), *stream.notes])
    add_bar(fig, image, right, heads.unit)
    return fig


# --- means with intervals -----------------------------------------------------------

def dot_rows(title: str, below: list[str], labels: list[str], x: np.ndarray, parts: list[Part], axis: str) -> Figure:
    """[prompt, label] → a line for each label, on it the mean and its interval for each part, or the prompts one by one.
    The first label's means are lines across."""
    tall = 0.46 if any("\n" in label for label in labels) else 0.3
    fig, ax = plt.subplots(figsize=(7.2, 1.8 + max(tall, 0.2 * len(parts)) * len(labels)))
    y, small, told = np.arange(len(labels)), few(parts), []
    for i, part in enumerate(parts):
        aside = 0.6 * ((i + 0.5) / len(parts) - 0.5)
        mean, half, n = interval(x[part.rows])
        ax.axvline(mean[0], color=COLOURS[i], lw=1, ls=(0, (3, 2)), alpha=0.7)
        if small:
            ax.plot(x[part.rows].T, np.broadcast_to(y[:, None] + aside, (len(y), len(part.rows))), "o", ms=4.5, mew=0, alpha=0.8, color=COLOURS[i])
        else:
            ax.errorbar(mean, y + aside, xerr=np.nan_to_num(half), fmt="o", ms=5, lw=2, capsize=3, color=COLOURS[i])
        told += [(y + aside, mean, n, COLOURS[i] if len(parts) > 1 else GREY)]
    for at, mean, n, colour in told if not small else ():
        for k in y:
            ax.annotate(f"{signed(mean[k], 1.0, '+')}, n = {n[k]:,}", (1, at[k]), (6, 0), ("axes fraction", "data"), "offset points",
                        fontsize=8.5 if len(parts) < 3 else 7, color=colour, va="center")
    low, high = ax.get_xlim()
    if low > 0 and low < 0.4 * high:  # zero is near enough
        ax.set_xlim(0)
    if ax.get_xlim()[0] <= 0 <= high:
        ax.axvline(0, color=EDGE, lw=1)
    ax.set_yticks(y, labels, fontsize=9)
    ax.set_ylim(len(labels) - 0.5, -0.5)
    quiet_grid(ax, "x")
    ax.set_xlabel(axis + (", a dot a prompt" if small else ", mean and 95 % interval"))
    if len(parts) > 1:
        below = [*below, "; ".join(f"{part.told()} {name}" for part, name in zip(parts, ("blue", "red", "green", "pink", "orange", "light blue")))]
    titles(fig, title, below)
    return fig


def draw_dots(run: h5lens.Run, name: str, options: Options) -> Figure:
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
    return dot_rows("Ablating " + ("sets of heads" if dims[1] == "set" else name),
                    [f"{origin(run)}, {place(run)}; replaced by: {settings.get('value', 'zero')}"], ["nothing", *labels],
                    np.concatenate([clean[:, None], x], 1), parts_of(run, options.by, np.isfinite(clean)), f"{difference(run)}  [nats]")


def draw_ablate(run: h5lens.Run, name: str, options: Options) -> Figure:
    if not set(run.ablate.dims(name)) & set(HEADS):
        return draw_dots(run, name, options)
    notes = [f"{origin(run)}, {place(run)}", f"replaced by: {run.experiment.get('ablate', {}).get('value', 'zero')}" + over(run)]
    return draw_parts(run, f"Ablating {name}", notes, heats(run, "ablate", name, options))


def draw_knockout(run: h5lens.Run, options: Options) -> Figure:
    clean, *_ = base_of(run, "knockout", "logit_diff")
    cut = run.knockout["logit_diff"].astype(float)[:, 0]
    layers = run.experiment.get("knockout", {}).get("layers", "all")
    return dot_rows("Attention knockout", [f"{origin(run)}, {place(run)}; layers: {layers}".replace("[", "").replace("]", "")],
                    ["as it is", "attention cut"], np.stack([clean, cut], 1),
                    parts_of(run, options.by, np.isfinite(clean)), f"{difference(run)}  [nats]")


def draw_steer(run: h5lens.Run, options: Options) -> Figure:
    x = run.steer["logit_diff"].astype(float)[..., 0]  # [prompt, scale]
    scales = [float(s) for s in run.labels("scale")]
    parts, steer = parts_of(run, options.by, np.isfinite(x).all(1)), run.experiment.get("steer", {})
    fig, ax = plt.subplots(figsize=(7.2, 4.2))
    ax.axhline(0, color=EDGE, lw=1)
    for i, part in enumerate(parts):
        if few(parts):
            ax.plot(scales, x[part.rows].T, "o-", ms=4, lw=0.9, alpha=0.8, color=COLOURS[i], label=part.label or None)
            continue
        mean, half, _ = interval(x[part.rows])
        ax.errorbar(scales, mean, yerr=np.nan_to_num(half), fmt="o-", ms=5, lw=1.5, capsize=3, color=COLOURS[i],
                    label=(part.told() + ": " if part.label else "") + "mean, 95 % interval")
    ax.set_xlabel("scale of the vector")
    ax.set_ylabel(f"{difference(run)}  [nats]")
    quiet_grid(ax, "y")
    if ax.get_legend_handles_labels()[0]:
        ax.legend(loc="best")
    titles(fig, f"Steering {steer.get('hook', '')} of layer {steer.get('layer', '')}", [f"{origin(run)}, {place(run)}"])
    return fig


# --- which pictures there are ----------------------------------------------------------

def left_out(why: str) -> Draw:
    def draw() -> Figure:
        raise NotThere(why)
    return draw


def pictures_of(run: h5lens.Run, options: Options) -> dict[str, Draw]:
    """Name → how it is drawn; grids are kind.grid."""
    out: dict[str, Draw] = {}
    grids = [name for name in run.patch if "layer" in run.patch.dims(name)]
    if {"attn_head_out_all_pos", "resid_pre"} <= set(grids):
        out["patch"] = lambda: draw_overview(run, options)
    for name in grids:
        out[f"patch.{name}"] = lambda name=name: draw_patch(run, name, options)
    for name in run.ablate:
        out[f"ablate.{name}"] = lambda name=name: draw_ablate(run, name, options)
    if not grids:
        out["patch"] = left_out("the file has no grids of patching (/results/patch; patch.grids)")
    if not run.ablate:
        out["ablate"] = left_out("the file has no ablation (/results/ablate; ablate.grids, ablate.sets)")
    for kind, group, draw in (("path", run.paths, draw_paths), ("knockout", run.knockout, draw_knockout), ("steer", run.steer, draw_steer)):
        there = "logit_diff" in group
        out[kind] = (lambda draw=draw: draw(run, options)) if there else left_out(f"the file has no /results/{kind}/logit_diff")
    return out
