"""What the pictures of plot.py share: style, titles, the parts of a data set, means with intervals, the texts of tokens.

In: an output file, and what the user says of a picture (Options). Few prompts are drawn as dots, one by one; means are for
more than SMALL of them.
"""

from __future__ import annotations

import json
import sys
import textwrap
import unicodedata
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

try:
    import matplotlib
    import matplotlib.pyplot as plt
    import numpy as np

    import h5lens
except ImportError as e:
    raise SystemExit(f"{Path(sys.argv[0]).name}: {e.name} is not installed for {sys.executable}: pip install matplotlib h5py, "
                     "or `make deps`, whose build/venv/bin/python has both") from None

from matplotlib.figure import Figure
from matplotlib.text import Annotation

matplotlib.use("Agg")
warnings.filterwarnings("ignore", "Glyph .* missing from font")  # emoji, say: a box stands there

# Okabe and Ito's palette: told apart with any colour vision.
COLOURS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9"]
GREY, EDGE, TICK, GRID, GONE = "#555555", "#888888", "#aaaaaa", "#e4e4e4", "#dddddd"
INK = "#111111"  # of what is written on light cells, whatever the page's own colours
BLOCK = 64 << 20  # bytes of a data set that are read at once
SMALL = 12  # as many prompts are drawn one by one
STYLE: dict[str, Any] = {
    "font.size": 10, "axes.titlesize": 12, "axes.labelsize": 10.5, "legend.fontsize": 9, "figure.dpi": 100,
    "savefig.dpi": 200, "axes.spines.top": False, "axes.spines.right": False, "axes.edgecolor": EDGE,
    "axes.titlelocation": "left", "axes.titleweight": "bold", "legend.frameon": False, "axes.grid": False,
    "text.parse_math": False, "image.interpolation": "nearest", "figure.constrained_layout.use": True,
}

Draw = Callable[[], Figure]


class Page:
    """Where the pictures go. A page has its own titles."""

    drawn_titles = True


page = Page()


class NotThere(Exception):
    """The file has no data for this picture."""


@dataclass
class Options:
    """What the user says of the pictures."""

    by: str | None = None
    roles: list[str] | None = None
    tokenizer: Path | None = None
    head: tuple[int, int] | None = None  # of the attention picture
    layer: int | None = None             # of the picture of all its heads
    row: int = 0                         # of the pictures of one prompt


def count(n: int, what: str) -> str:
    return f"{n:,} {what}" + ("" if n == 1 else "s")


def shorten(text: str, n: int) -> str:
    return text if len(text) <= n else text[:n - 1] + "…"


def signed(x: float, half: float, plus: str = "") -> str:
    """A number with as many digits as tell on a scale of so much, without a negative zero."""
    digits = 1 if half >= 10 else 2 if half >= 0.1 else 2 - int(np.floor(np.log10(half * 10)))
    text = f"{x:{plus}.{digits}f}"
    return (text if float(text) else text.replace("-", plus)).replace("-", "−")


# --- titles -----------------------------------------------------------------------

def origin(run: h5lens.Run, n: int | None = None) -> str:
    """The model, the data and the number of prompts, for the second line of a title."""
    experiment = run.experiment
    parts = [Path(str(experiment.get("model", ""))).name, Path(str(experiment.get("data", {}).get("csv", ""))).name]
    n = len(run) if n is None else n
    return ", ".join([p for p in parts if p] + [count(n, "prompt") + (f" of {len(run):,}" if n != len(run) else "")])


def place(run: h5lens.Run) -> str:
    """Where the tables read."""
    read = run.experiment.get("data", {}).get("read_pos", -1)
    if isinstance(read, dict):
        what = f"the text “{read['find']}”" if "find" in read else f"the text of the column {read.get('find_column')}"
        return f"read at {what}"
    if isinstance(read, str):
        return f"read at the token that the column {read} gives"
    return "read at the last token" if read == -1 else f"read at token {read}"


def titles(fig: Figure, title: str, notes: Sequence[str]) -> None:
    """A title and quieter lines below it, above everything, broken to the figure's width. report.py has them in its page."""
    fig.set_label(json.dumps([title, *filter(None, notes)]))
    if not page.drawn_titles:
        return
    width = fig.get_figwidth()
    bold, lines = textwrap.wrap(title, int(width * 9.5)), [line for note in notes if note for line in textwrap.wrap(note, int(width * 14))]
    head = fig.suptitle("\n".join(bold) + "\n" * len(lines), x=0.01, ha="left", fontsize=STYLE["axes.titlesize"], fontweight="bold",
                        linespacing=1.15)
    below = Annotation("\n".join(lines), (0, 0), (0, 2), head, "offset points", fontsize=9, color=GREY, va="bottom",
                       linespacing=1.25, annotation_clip=False)
    below.set_in_layout(False)
    fig.add_artist(below)


def part_title(ax: plt.Axes, text: str) -> None:
    """Above a panel."""
    ax.annotate(text, (0, 1), (0, 4), "axes fraction", "offset points", fontsize=9, color="black", va="bottom")


def answer_names(run: h5lens.Run, n: int) -> list[str]:
    names = run.experiment.get("data", {}).get("answers") or []
    return [str(names[i]) if i < len(names) else f"answer {i + 1}" for i in range(n)]


def difference(run: h5lens.Run) -> str:
    """What the logit difference is of: the first answer less the second (all that the pictures of means show)."""
    names = answer_names(run, 2)
    what = "log P" if "answer_tokens" in run.prompts else "logit"
    return f"{what}({names[0]}) − {what}({names[1]})"


# --- what is in the file ------------------------------------------------------------

def table(run: h5lens.Run, name: str) -> np.ndarray:
    if name not in run.results:
        raise NotThere(f"the file has no table {name}")
    return run.results[name]


def at_read(run: h5lens.Run, name: str) -> np.ndarray:
    """A table at the read position: without the axis of positions, if it has one; read in blocks."""
    if name not in run.results:
        raise NotThere(f"the file has no table {name}")
    d, dims = run.results.dataset(name), run.results.dims(name)
    if "pos" not in dims:
        return run.results[name]
    axis, read = dims.index("pos"), run.prompts["read_pos"].astype(np.int64)
    step = max(1, BLOCK // max(1, int(np.prod(d.shape[1:])) * d.dtype.itemsize))
    out = []
    for a in range(0, d.shape[0], step):
        block = d[a:a + step]
        at = read[a:a + step].reshape(-1, *[1] * (d.ndim - 1))
        out.append(np.take_along_axis(block, at, axis).squeeze(axis))
    return np.concatenate(out)


def first_answer(run: h5lens.Run, x: np.ndarray) -> tuple[np.ndarray, str]:
    """[…, answer] → what is added to the first answer's logit less the second's, or to the only one's; and its name."""
    if x.shape[-1] > 1:
        return x[..., 0].astype(float) - x[..., 1], difference(run)
    return x[..., 0].astype(float), f"logit({answer_names(run, 1)[0]})"


def groups(values: np.ndarray) -> list[tuple[str, np.ndarray]]:
    """Splits rows by a column: its values if they are few, quarters of a number, the commonest texts."""
    numeric = values.dtype.kind in "fi"
    kinds, n = np.unique(values[~np.isnan(values)] if numeric else values.astype(str), return_counts=True)
    if len(kinds) <= len(COLOURS):
        return [(f"{k:g}" if values.dtype.kind == "f" else str(k) or "(empty)", values == k) for k in kinds]
    if numeric:
        edges = np.unique(np.nanquantile(values, [0, 0.25, 0.5, 0.75, 1]))
        last = len(edges) - 2
        return [(f"{a:g} to {b:g}" if i == last else f"{a:g} to below {b:g}",
                 (values >= a) & ((values <= b) if i == last else (values < b)))
                for i, (a, b) in enumerate(zip(edges, edges[1:]))]
    common = [str(k) for k in kinds[np.argsort(-n, kind="stable")][:len(COLOURS) - 1]]
    rest = ~np.isin(values.astype(str), common)
    return [(k, values == k) for k in common] + [(f"{len(kinds) - len(common)} other values", rest)]


@dataclass
class Part:
    """Some of the rows: those with a value of --by, or all of them."""

    label: str  # "" for all
    rows: np.ndarray

    def told(self) -> str:
        return f"{self.label}: {count(len(self.rows), 'prompt')}" if self.label else ""


def parts_of(run: h5lens.Run, by: str | None, good: np.ndarray | None = None) -> list[Part]:
    """The parts that have rows, of the good ones."""
    good = np.ones(len(run), bool) if good is None else good
    split = groups(run.columns[by]) if by else [("", np.ones(len(run), bool))]
    found = [Part(f"{by} {shorten(label, 32)}" if label else "", np.flatnonzero(mask & good)) for label, mask in split]
    found = [p for p in found if p.rows.size]
    if not found:
        raise NotThere(f"no prompt with a value of {by}" if by else "no prompt with finite values")
    return found


def few(parts: Sequence[Part]) -> bool:
    """Are the prompts drawn one by one?"""
    return max(len(p.rows) for p in parts) <= SMALL


def samples(run: h5lens.Run, options: Options) -> list[Part]:
    """For pictures of one prompt: that of options.row, or with --by the first of each part."""
    if not options.by:
        return [Part("", np.array([options.row]))]
    return [Part(p.label, p.rows[:1]) for p in parts_of(run, options.by)]


def interval(x: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """[prompt, n] → means, halves of 95 % intervals (NaN of fewer than two prompts), and numbers of prompts."""
    n = np.isfinite(x).sum(0)
    mean = np.divide(np.nansum(x, 0), n, out=np.full(x.shape[1], np.nan), where=n > 0)
    square = np.nansum((x - mean) ** 2, 0)
    error = np.sqrt(np.divide(square, (n - 1) * n, out=np.full(x.shape[1], np.nan), where=n > 1))
    return mean, 1.96 * error, n


def quiet_grid(ax: plt.Axes, axis: str) -> None:
    ax.grid(axis=axis, color=GRID, lw=0.8)  # type: ignore[arg-type]
    ax.set_axisbelow(True)


# --- the texts of tokens --------------------------------------------------------------

SIGNS = {" ": "·", "\n": "↵", "\r": "␍", "\t": "→", "\u00a0": "⍽"}
JOINERS = "\u200c\u200d"  # of scripts and emoji


def visible(piece: str) -> str:
    """White space, control and format characters as signs: ␣ is not in every font, so a space is ·."""
    def sign(c: str) -> str:
        if c in SIGNS:
            return SIGNS[c]
        hidden = unicodedata.category(c) in ("Cc", "Cf", "Zl", "Zp") and c not in JOINERS
        return (chr(0x2400 + ord(c)) if c < " " else f"⟨{ord(c):X}⟩") if hidden else c

    return "".join(map(sign, piece))


def texts_of(run: h5lens.Run, ids: Sequence[int], tokenizer: Path | None) -> list[str]:
    """The pieces of some tokens, white space visible; the ids themselves without a tokenizer (−1: "")."""
    known = [int(t) for t in ids if t >= 0]
    try:
        found = dict(zip(known, run.to_str_tokens(known, tokenizer)))
    except (OSError, KeyError, ValueError, h5lens.H5LensError) as e:
        if tokenizer:
            raise SystemExit(f"plot.py: no tokenizer in {tokenizer}: {e}") from e
        if (key := f"said {e}") not in _said:
            _said.add(key)
            print(f"plot.py: token ids instead of texts (--tokenizer DIR): {e}", file=sys.stderr)
        return [str(t) if t >= 0 else "" for t in ids]
    return [visible(found[int(t)]) if t >= 0 else "" for t in ids]


_said: set[str] = set()


def token_labels(run: h5lens.Run, row: int, tokenizer: Path | None, n: int = 14) -> list[str]:
    """The prompt's pieces, long ones cut."""
    return [shorten(t, n) for t in texts_of(run, run.tokens(row)[:run.lengths[row]], tokenizer)]
