"""Heatmaps of plot.py: layers by heads, by positions or by tokens, in panels of one scale.

In: Heat, a grid of numbers with what stands on its axes; out: a figure. Changes and attributions have colours on either side
of no effect, which is white; scores and weights have one colour from 0 up.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, field

from plot_common import COLOURS, GONE, INK, TICK, part_title, plt, signed, titles

import h5lens
import numpy as np
from matplotlib.figure import Figure

MARK = COLOURS[1]  # of tokens that are pointed out


@dataclass
class Heat:
    """A panel: [layer, column]."""

    values: np.ndarray
    columns: list[str]
    axis: str
    centre: float
    unit: str
    part: str = ""
    notes: list[str] = field(default_factory=list)
    marked: list[int] = field(default_factory=list)
    upward: bool = False  # one colour, from the centre


def heads_of(values: np.ndarray, unit: str, part: str = "", upward: bool = False) -> Heat:
    """[layer, head]"""
    return Heat(values, [str(i) for i in range(values.shape[1])], "head", 0.0, unit, part, upward=upward)


def largest(values: np.ndarray, n: int = 3) -> str:
    """The heads with the largest numbers by magnitude, as text."""
    order = np.argsort(-np.abs(np.nan_to_num(values)), axis=None, kind="stable")[:n]
    half = float(np.nanmax(np.abs(values), initial=0)) or 1.0
    at = [np.unravel_index(i, values.shape) for i in order]
    return ", ".join(f"{layer}.{head} {signed(values[layer, head], half, '+')}" for layer, head in at
                     if np.isfinite(values[layer, head]))


def scale_of(parts: list[Heat]) -> float:
    """Half the range of colours: the largest effect."""
    top = max((float(np.nanmax(np.abs(h.values - h.centre), initial=0)) for h in parts), default=0)
    return top or 1.0


def draw_heat(ax: plt.Axes, h: Heat, half: float, written: bool = True) -> object:
    colours = "Blues" if h.upward else "RdBu"
    image = ax.imshow(np.ma.masked_invalid(h.values), cmap=plt.get_cmap(colours).with_extremes(bad=GONE),
                      vmin=h.centre - (0 if h.upward else half), vmax=h.centre + half, aspect="auto")
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
    ax.tick_params(length=2, color=TICK)
    ax.spines[:].set_visible(False)
    ax.set_xlabel(h.axis)
    ax.set_ylabel("layer")
    if written and n_rows * n_columns <= 160 and n_columns <= 16:
        for (i, k), v in np.ndenumerate(h.values):
            if np.isfinite(v):
                ax.text(k, i, signed(v, half), ha="center", va="center", fontsize=8,
                        color="white" if abs(v - h.centre) > 0.65 * half else INK)
    return image


def add_bar(fig: Figure, image: object, axes: object, unit: str, **more: float) -> None:
    """The colours' meaning, its text broken to the height of the panels."""
    high = fig.get_figheight() - 1.2
    bar = fig.colorbar(image, ax=axes, **{"fraction": 0.05, "pad": 0.02, **more})
    bar.set_label("\n".join(textwrap.wrap(unit, max(16, int(high * more.get("shrink", 1) * 14)))), fontsize=8.5)
    bar.outline.set_visible(False)


def size_of(h: Heat) -> tuple[float, float]:
    """Inches of the cells together."""
    n_rows, n_columns = h.values.shape
    return float(np.clip(0.5 * n_columns, 2.6, 11)), float(np.clip((0.34 if n_rows <= 16 else 0.22) * n_rows, 1.5, 8))


def draw_parts(run: h5lens.Run, title: str, notes: list[str], parts: list[Heat]) -> Figure:
    """One panel below the other, tall ones side by side."""
    width, height = size_of(parts[0])
    columns = min(len(parts), max(1, int(14 / (width + 0.6)))) if height > 4 else 1
    width, rows = max(width, 4.6 if columns == 1 else 3.2), -(-len(parts) // columns)
    half = scale_of(parts)
    own = [textwrap.wrap("; ".join([*([h.part] if h.part else []), *h.notes]), int(width * 13)) for h in parts] if len(parts) > 1 else [[]]
    fig, axes = plt.subplots(rows, columns, squeeze=False,
                             figsize=(columns * (width + 0.5) + 1.6, 1.3 + rows * (height + 0.8 + 0.15 * max(map(len, own)))))
    for ax, h, lines in zip(axes.flat, parts, own):
        image = draw_heat(ax, h, half)
        if lines:
            part_title(ax, "\n".join(lines))
    for ax in axes.flat[len(parts):]:
        ax.axis("off")
    titles(fig, title, [*notes, *(parts[0].notes if len(parts) == 1 else [])])
    add_bar(fig, image, axes, parts[0].unit)
    return fig


def draw_grid(title: str, notes: list[str], rows: Sequence[Sequence[Heat]]) -> Figure:
    """Panels side by side, a row of them for each part; the panels' first notes are their names."""
    n = len(rows[0])
    width, height = size_of(rows[0][0])
    width, height = max(0.6 * width, 1.7), height * (0.8 if height > 4 else 1)
    half = scale_of([h for row in rows for h in row])
    fig, axes = plt.subplots(len(rows), n, squeeze=False, sharex=True, sharey=True,
                             figsize=(n * (width + 0.1) + 1.5, 1.5 + len(rows) * (height + 0.6)))
    for i, row in enumerate(rows):
        for k, h in enumerate(row):
            image = draw_heat(axes[i, k], h, half, written=width / h.values.shape[1] > 0.38)
            told = [h.part] if k == 0 and h.part else []
            part_title(axes[i, k], "\n".join([*told, h.notes[0]]))
            axes[i, k].set(xlabel=h.axis if i == len(rows) - 1 else "", ylabel="layer" if k == 0 else "")
    titles(fig, title, notes)
    add_bar(fig, image, axes, rows[0][0].unit)
    return fig
