"""What the pictures of plot.py share: style, titles, the parts of a data set, the texts of tokens."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

try:
    import matplotlib
    import matplotlib.pyplot as plt
    import numpy as np

    import h5lens
except ImportError as e:
    raise SystemExit(f"plot.py: {e.name} is not installed for {sys.executable}: pip install matplotlib h5py, or "
                     "`make deps`, whose build/venv/bin/python has both") from None

matplotlib.use("Agg")

# Okabe and Ito's palette: told apart with any colour vision.
COLOURS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9"]
GREY = "#555555"
STYLE: dict[str, Any] = {
    "font.size": 10, "axes.titlesize": 12, "axes.labelsize": 10.5, "legend.fontsize": 9, "figure.dpi": 100,
    "savefig.dpi": 200, "axes.spines.top": False, "axes.spines.right": False, "axes.edgecolor": "#888888",
    "axes.titlelocation": "left", "axes.titleweight": "bold", "legend.frameon": False, "axes.grid": False,
    "text.parse_math": False, "figure.constrained_layout.use": True,
}


class NotThere(Exception):
    """The file has no data for this picture."""


def count(n: int, what: str) -> str:
    return f"{n:,} {what}" + ("" if n == 1 else "s")


def shorten(text: str, n: int) -> str:
    return text if len(text) <= n else text[:n - 1] + "…"


def origin(run: h5lens.Run) -> str:
    """The model and the data, for the second line of a title."""
    experiment = run.experiment
    parts = [Path(str(experiment.get("model", ""))).name, Path(str(experiment.get("data", {}).get("csv", ""))).name]
    return ", ".join([p for p in parts if p] + [count(len(run), "prompt")])


def titles(ax: plt.Axes, title: str, below: str, lift: float = 5, lines: int = 1) -> None:
    """A title and quieter lines below it, lift points above the axes."""
    ax.set_title(title, pad=lift + 6 + 11 * lines)
    ax.annotate(below, (0, 1), (0, lift), "axes fraction", "offset points", fontsize=9, color=GREY, va="bottom")


def answer_names(run: h5lens.Run, n: int) -> list[str]:
    names = run.experiment.get("data", {}).get("answers") or []
    return [str(names[i]) if i < len(names) else f"answer {i + 1}" for i in range(n)]


def table(run: h5lens.Run, name: str) -> np.ndarray:
    if name not in run.results:
        raise NotThere(f"the file has no table {name}")
    return run.results[name]


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


def token_labels(run: h5lens.Run, row: int, tokenizer: Path | None) -> list[str]:
    """The prompt's pieces: a leading space as ·, long ones cut; ids without a tokenizer."""
    try:
        pieces = run.str_tokens(row, tokenizer)
    except (OSError, KeyError, ValueError, h5lens.H5LensError) as e:
        if tokenizer:
            raise SystemExit(f"plot.py: no tokenizer in {tokenizer}: {e}") from e
        print(f"plot.py: token ids instead of texts (--tokenizer DIR): {e}", file=sys.stderr)
        return [str(t) for t in run.tokens(row)[:run.lengths[row]]]
    shown = [p.replace("\n", "↵").replace("\t", "→").replace(" ", "·") for p in pieces]
    return [shorten(p, 14) for p in shown]
