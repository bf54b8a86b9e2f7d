"""Pictures of one prompt, token by token: what each layer would say next, and how likely the text is.

In: /results/lens_top_token and lens_top_prob at every position, token_logprobs and entropy; out: a heatmap of layers by tokens
with the top token in each cell, and a line over the text. With --by a panel for the first prompt of each part.
"""

from __future__ import annotations

import unicodedata

from plot_common import (COLOURS, INK, STYLE, TICK, Draw, NotThere, Options, Part, origin, part_title, plt, quiet_grid, samples,
                         shorten, table, texts_of, titles, token_labels)
from plot_heat import add_bar

import h5lens
import numpy as np
from matplotlib.figure import Figure

LINE = 40   # tokens of a text side by side
LINES = 6   # lines of a text
WIDE = 48   # tokens of the lens


def name_of(run: h5lens.Run, part: Part) -> str:
    row = int(part.rows[0])
    return f"prompt {row}" + (f", the first of {part.label}" if part.label else "")


def columns_of(text: str) -> int:
    return sum(2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)


# --- the lens ---------------------------------------------------------------------

def draw_lens_tokens(run: h5lens.Run, options: Options) -> Figure:
    table_of = {name: at_every_position(run, name) for name in ("lens_top_token", "lens_top_prob")}
    layers, parts = run.lens_layers, samples(run, options)
    n = min(WIDE, max(int(run.lengths[p.rows[0]]) for p in parts))
    width, height = 0.72 * n, 0.27 * len(layers)
    fig, axes = plt.subplots(len(parts), 1, squeeze=False, figsize=(max(width, 4.5) + 2.4, 1.4 + len(parts) * (height + 1.4)))
    for ax, part in zip(axes[:, 0], parts):
        image = lens_cells(run, ax, int(part.rows[0]), table_of, options)
        if len(parts) > 1:
            part_title(ax, name_of(run, part))
        ax.set_xlabel("token: after reading it")
    add_bar(fig, image, axes, "probability of the top token", fraction=0.03, pad=0.01,
            shrink=min(1.0, 3.5 / height) if len(parts) == 1 else 0.4)
    cut = max(int(run.lengths[p.rows[0]]) for p in parts) > WIDE
    titles(fig, "What each layer would say next" + (f", {name_of(run, parts[0])}" if len(parts) == 1 else ""),
           [origin(run) + (f"; the last {WIDE} tokens" if cut else ""),
            "the top token of each layer's residual stream, read out (logit lens); orange: the token where the tables read"])
    return fig


def at_every_position(run: h5lens.Run, name: str) -> h5lens.h5py.Dataset:
    if name not in run.results:
        raise NotThere(f"the file has no table {name}")
    if "pos" not in run.results.dims(name):
        raise NotThere(f"{name} is of the read position alone (lens_positions: all)")
    return run.results.dataset(name)  # [prompt, lens_layer, pos]


def lens_cells(run: h5lens.Run, ax: plt.Axes, row: int, table_of: dict, options: Options) -> object:
    length = int(run.lengths[row])
    first = max(0, length - WIDE)
    ids, prob = (table_of[name][row][:, first:length] for name in ("lens_top_token", "lens_top_prob"))
    prob = prob.astype(float)
    image = ax.imshow(np.ma.masked_invalid(prob), vmin=0, vmax=1, cmap=plt.get_cmap("Blues").with_extremes(bad="#dddddd"),
                      aspect="auto", origin="lower")
    texts = np.array(texts_of(run, ids.ravel(), options.tokenizer), dtype=object).reshape(ids.shape)
    for (i, k), text in np.ndenumerate(texts):
        if np.isfinite(prob[i, k]):
            size = 7 if columns_of(text) <= 8 else 6
            ax.text(k, i, shorten(text, 9), ha="center", va="center", fontsize=size, color="white" if prob[i, k] > 0.6 else INK)
    labels = token_labels(run, row, options.tokenizer)[first:]
    ax.set_xticks(np.arange(len(labels)), labels, rotation=90 if len(labels) > 10 else 0, fontsize=8.5)
    step = max(1, -(-len(run.lens_layers) // 40))
    shown = np.arange(len(run.lens_layers))[::-1][::step][::-1]
    ax.set_yticks(shown, [run.lens_layers[i] for i in shown], fontsize=8.5)
    ax.tick_params(length=2, color=TICK)
    ax.spines[:].set_visible(False)
    read = int(run.prompts["read_pos"][row]) - first
    if 0 <= read < len(labels):
        ax.get_xticklabels()[read].set_color(COLOURS[1])
    return image


# --- the text ---------------------------------------------------------------------

def text_lines(run: h5lens.Run, parts: list[Part]) -> list[tuple[Part, int, int]]:
    """The panels: a part, and the tokens from a to below b; the text is cut where it takes too many."""
    found = []
    for part in parts:
        length = int(run.lengths[part.rows[0]])
        lines = -(-length // LINE)
        each = -(-length // lines)
        found += [(part, a, min(a + each, length)) for a in range(0, length, each)][:LINES]
    return found[:2 * LINES]


def draw_tokens(run: h5lens.Run, options: Options) -> Figure:
    """log P of each token after those before it; the dashed line is what the model expects it to be, less its entropy."""
    logprob = table_dataset(run, "token_logprobs")
    entropy = run.results.dataset("entropy") if "entropy" in run.results else None
    panels = text_lines(run, samples(run, options))
    wide = max(b - a for _, a, b in panels)
    fig, axes = plt.subplots(len(panels), 1, squeeze=False, sharey=True,
                             figsize=(max(6.6, 0.27 * wide + 1.2), 1.5 + len(panels) * 2.1))
    for ax, (part, a, b) in zip(axes[:, 0], panels):
        row, length = int(part.rows[0]), int(run.lengths[part.rows[0]])
        own = np.r_[np.nan, logprob[row][:length - 1]].astype(float)  # of each token itself
        at = np.arange(a, b)
        ax.plot(at, own[a:b], "o-", ms=4, lw=1.4, color=COLOURS[0], label="log P(token | those before)")
        if entropy is not None:
            expected = -np.r_[np.nan, entropy[row][:length - 1]].astype(float)
            ax.plot(at, expected[a:b], "--", lw=1.2, color=COLOURS[1], label="expected by the model: minus its entropy")
        ax.set_xticks(at, token_labels(run, row, options.tokenizer)[a:b], rotation=90, fontsize=8.5)
        ax.set_xlim(a - 0.6, a + wide - 0.4)
        quiet_grid(ax, "y")
        if a == 0 and len(panels) > 1:
            part_title(ax, f"{name_of(run, part)}: {told(own)}")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    fig.legend(handles, labels, loc="outside lower left", ncols=2, borderaxespad=0.3, fontsize=9)
    fig.supylabel("log probability  [nats]", fontsize=STYLE["axes.labelsize"])
    one = len({int(part.rows[0]) for part, *_ in panels}) == 1
    titles(fig, "How likely the text is, token by token" + (f", {name_of(run, panels[0][0])}" if one else ""),
           [origin(run), told(own) if one else ""])
    return fig


def told(own: np.ndarray) -> str:
    n, shown = int(np.isfinite(own).sum()), LINE * LINES
    mean = f"mean {np.nanmean(own):.2f} nats over {n} tokens".replace("-", "−") if n else "one token: nothing to predict"
    return mean + (f"; the first {shown} tokens" if len(own) > shown else "")


def table_dataset(run: h5lens.Run, name: str) -> h5lens.h5py.Dataset:
    if name not in run.results:
        table(run, name)
    return run.results.dataset(name)


def pictures_of(run: h5lens.Run, options: Options) -> dict[str, Draw]:
    return {"lens_tokens": lambda: draw_lens_tokens(run, options), "tokens": lambda: draw_tokens(run, options)}
