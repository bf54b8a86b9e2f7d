"""What a report shows of an output file: what was run, summaries by column, the list of prompts, patterns of attention.

In: an output file, the prompts that are asked for; out: plain lists and dicts for report.py, which makes the page of them.
Weights of attention are rounded to a byte, 255 for 1, and stand for each layer, head and query up to the query's own place.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from plot_common import NotThere, Options, answer_names, groups, interval, parts_of, shorten, texts_of, visible

import h5lens
import numpy as np
from plot_attention import PATTERN, alike, pattern_layers

BUDGET = 2_500_000  # bytes of patterns in a page
VALUES = 12         # a column with as many values has a summary
TABLES = 4          # so many columns have one
TOP = 5             # of the top tokens, so many


# --- what was run -------------------------------------------------------------------

def facts(run: h5lens.Run) -> list[tuple[str, str]]:
    """Names and values for the table of what was run."""
    config, experiment = run.model_config, run.experiment
    shape = ", ".join(f"{k} {config[k]}" for k in ("n_layers", "d_model", "n_heads", "d_head", "d_mlp", "d_vocab", "n_ctx") if k in config)
    data, hooks = experiment.get("data", {}), experiment.get("cache", {})
    out = [("model", text_of(run, "path_model") or str(experiment.get("model", ""))),
           ("", f"{config.get('original_architecture', '')} {shape}".strip()),
           ("data", text_of(run, "path_data") or str(data.get("csv", ""))),
           ("prompts", f"{len(run):,}, of {int(run.lengths.min())} to {int(run.lengths.max())} tokens"
            + (f"; {skipped} rows skipped" if (skipped := text_of(run, "rows_skipped")) not in ("", "0") else "")),
           ("answers", ", ".join(map(str, data.get("answers") or [])) or "none"),
           ("tables", ", ".join(run.results)),
           ("activations", f"{len(run.hooks)} hook points, positions {hooks.get('positions', 'all')}, {hooks.get('dtype', '')}"
            if run.hooks else "none stored")]
    labels = {"sha256_model": "SHA-256 of the model", "sha256_tokenizer": "… of the tokenizer", "sha256_data": "… of the data",
              "sha256": "… of names and attributes", "tokenizer_rules": "tokenizer's rules",
              "bos": "BOS", "h5lens_version": "h5lens", "h5lens_schema": "schema", "build": "build", "cpu_level": "CPU level",
              "blas": "BLAS", "hdf5": "HDF5", "rows_flagged": "rows flagged"}
    return [*out, *((label, text) for name, label in labels.items() if (text := text_of(run, name)))]


def text_of(run: h5lens.Run, name: str) -> str:
    return str(run.attr(name)) if name in run.file.attrs else ""


# --- summaries ------------------------------------------------------------------------

@dataclass
class Measure:
    """A number of a set of prompts."""

    name: str
    values: np.ndarray  # [prompt], NaN where there is none
    kind: str           # share, mean, median


def measures(run: h5lens.Run) -> list[Measure]:
    found, names = [], answer_names(run, 1)
    mean, median = ("mean ", "median ") if len(run) > 1 else ("", "")
    if "logit_diff" in run.results and run.results.dataset("logit_diff").shape[1]:
        diff = run.results["logit_diff"].astype(float).min(1)
        what = "log P difference" if "answer_tokens" in run.prompts else "logit difference"
        found += [Measure(f"{what} above 0", np.where(np.isfinite(diff), diff > 0, np.nan), "share"), Measure(mean + what, diff, "mean")]
    for table in ("answer_rank", "answer_token_rank"):
        if table in run.results:
            rank = run.results[table].astype(float)[:, 0]
            rank = np.where(rank >= 0, rank, np.nan)
            rank = rank if rank.ndim == 1 else np.nanmax(rank, 1)  # of an answer of several tokens its worst
            found += [Measure(f"{names[0]} is the top token", np.where(np.isnan(rank), np.nan, rank == 0), "share"),
                      Measure(f"{median}rank", rank, "median")]
    for table, name in (("answer_prob", "probability"), ("loss", "loss, nats a token")):
        if table in run.results:
            x = run.results[table].astype(float)
            found.append(Measure(mean + name, x if x.ndim == 1 else x[:, 0], "mean"))
    return found


def number(x: float, kind: str = "mean") -> str:
    if not np.isfinite(x):
        return "–"
    text = f"{100 * x:.1f} %" if kind == "share" else f"{x:,.1f}".removesuffix(".0") if kind == "median" else f"{x:.3g}" if abs(x) < 1 else f"{x:.2f}"
    return text.replace("-", "−")


def told(m: Measure, rows: np.ndarray) -> str:
    """With its 95 % interval, of means of more than one."""
    x = m.values[rows]
    x = x[np.isfinite(x)]
    if not x.size:
        return "–"
    if m.kind == "median":
        return number(float(np.median(x)), "median")
    mean, half, _ = interval(x[:, None])
    if m.kind == "share" or not half[0] > 0:
        return number(mean[0], m.kind)
    digits = max(0, 1 - int(np.floor(np.log10(half[0]))))  # two of the interval's
    return f"{mean[0]:.{digits}f} ± {half[0]:.{digits}f}".replace("-", "−")


def summary(run: h5lens.Run, by: str | None) -> list[tuple[str, list[str], list[list[str]]]]:
    """Column, heads of the table, its rows: of all prompts, and of each value of some columns."""
    found = measures(run)
    heads = ["prompts", *(m.name for m in found)]
    out = [("", heads, [["all", f"{len(run):,}", *(told(m, np.arange(len(run))) for m in found)]])]
    for column in columns_with_few_values(run, by):
        rows = []
        for label, mask in groups(run.columns[column]) if column == by else exact(run.columns[column]):
            at = np.flatnonzero(mask)
            if at.size:
                rows.append([shorten(label, 60), f"{at.size:,}", *(told(m, at) for m in found)])
        out.append((column, heads, rows))
    return out


def columns_with_few_values(run: h5lens.Run, by: str | None) -> list[str]:
    few = [c for c in run.columns if c != by and 2 <= len(set(run.columns[c].tolist())) <= VALUES]
    return [*([by] if by else []), *few][:TABLES]


def exact(values: np.ndarray) -> list[tuple[str, np.ndarray]]:
    return [(str(k) or "(empty)", np.array([v == k for v in values])) for k in sorted(set(values.tolist()))]


# --- the list of prompts ------------------------------------------------------------------

@dataclass
class Column:
    name: str
    values: list[Any]
    kind: str = "text"  # text, number; shown in the table
    more: bool = False  # shown when a row is opened


def prompt_list(run: h5lens.Run, limit: int, options: Options) -> list[Column]:
    """The columns of the list, of the first rows."""
    rows = slice(0, limit)
    n = min(limit, len(run))
    out = [Column("row", list(range(n)), "number"), Column("prompt", [str(t) for t in run.text(rows)])]
    names = answer_names(run, run.answer_text(rows).shape[1]) if "answer_text" in run.prompts else []
    texts = run.answer_text(rows) if names else np.empty((n, 0))
    for i, name in enumerate(names):
        out.append(Column(name, [visible(str(t)) for t in texts[:, i]], more=i > 1))
    if "logit_diff" in run.results:
        diff = run.results.dataset("logit_diff")[rows].astype(float)
        for i in range(diff.shape[1]):
            out.append(Column("logit difference" + (f" to {names[i + 1]}" if diff.shape[1] > 1 else ""), rounded(diff[:, i]), "number", more=i > 0))
    for table, label in (("answer_rank", "rank"), ("answer_logit", "logit"), ("answer_prob", "probability"), ("answer_logprob", "log P")):
        if table in run.results:
            x = run.results.dataset(table)[rows].astype(float)
            for i, name in enumerate(names):
                out.append(Column(f"{label} of {name}", rounded(x[:, i]), "number", more=i > 1 or i and label != "rank"))
    if "top_tokens" in run.results:
        out += top_columns(run, rows, options)
    for name in run.columns:
        values = run.columns[name][rows].tolist()
        numeric = run.columns[name].dtype.kind in "fi"
        out.append(Column(name, rounded(np.array(values)) if numeric else [str(v) for v in values], "number" if numeric else "text",
                          more=name != options.by))
    return out


def rounded(x: np.ndarray) -> list[float | None]:
    """Six digits; None for what is no number."""
    return [None if not np.isfinite(v) else int(v) if float(v).is_integer() and abs(v) < 2**53 else float(f"{v:.6g}") for v in x]


def top_columns(run: h5lens.Run, rows: slice, options: Options) -> list[Column]:
    ids = run.results.dataset("top_tokens")[rows][:, :TOP]
    prob = run.results.dataset("top_probs")[rows][:, :TOP] if "top_probs" in run.results else None
    texts = np.array(texts_of(run, ids.ravel(), options.tokenizer), dtype=object).reshape(ids.shape)
    each = [" ".join(f"{t} {100 * p:.1f} %" for t, p in zip(*pair)) for pair in zip(texts, prob)] if prob is not None else \
        [" ".join(row) for row in texts]
    return [Column("top token", texts[:, 0].tolist()), Column(f"top {ids.shape[1]} tokens", each, more=True)]


# --- attention ------------------------------------------------------------------------------

@dataclass
class View:
    """A prompt or the mean over some: what report.js draws."""

    label: str
    note: str
    tokens: list[str]
    at: list[int]
    marks: dict[int, int] = field(default_factory=dict)  # position → which answer it is
    data: str = ""

    def plain(self) -> dict[str, Any]:
        return {"label": self.label, "note": self.note, "tokens": self.tokens, "at": self.at, "marks": self.marks, "data": self.data}


def size_of(run: h5lens.Run, row: int, n_layers: int) -> int:
    at = run.positions(row)
    return int((at[at >= 0] + 1).sum()) * n_layers * int(run.model_config["n_heads"])


def view_of(run: h5lens.Run, rows: np.ndarray, label: str, note: str, tokens: Sequence[str], layers: Sequence[int]) -> View:
    row = int(rows[0])
    at = run.positions(row)
    kept = np.flatnonzero(at >= 0)
    parts = []
    for i in layers:
        d = run.dataset(PATTERN.format(i))
        mean = sum(d[int(r)][:, kept].astype(float) for r in rows) / len(rows)  # [head, query, key]
        sharp = np.rint(np.clip(np.nan_to_num(mean), 0, 1) * 255).astype(np.uint8)
        parts += [sharp[h, q, :at[k] + 1] for h in range(len(sharp)) for q, k in enumerate(kept)]
    view = View(label, note, list(tokens), at[kept].tolist(), data=base64.b64encode(np.concatenate(parts).tobytes()).decode())
    if "answers" in run.prompts:
        answers = run.prompts["answers"][rows][:, :2]
        for i in reversed(range(answers.shape[1])):
            same = (run.tokens(rows)[:, :len(tokens)] == answers[:, i, None]).all(0)
            view.marks |= {int(k): i for k in np.flatnonzero(same)}
    return view


def default_prompts(run: h5lens.Run) -> dict[int, str]:
    """Row → why it is shown."""
    out = {0: "the first"}
    if "logit_diff" in run.results and run.results.dataset("logit_diff").shape[1]:
        diff = run.results["logit_diff"].astype(float).min(1)
        if np.isfinite(diff).any():
            for row, why in ((int(np.nanargmin(diff)), "lowest"), (int(np.nanargmax(diff)), "highest"),
                             (int(np.nanargmin(np.abs(diff - np.nanmedian(diff)))), "middle")):
                out.setdefault(row, f"{why} logit difference, {number(diff[row])}")
    return out


def groups_alike(run: h5lens.Run, options: Options) -> list[tuple[str, np.ndarray, list[str]]]:
    """Prompts of one form: of the parts of --by; else of all, or of the values of the column that has most of them."""
    def of(label: str, rows: np.ndarray) -> list[tuple[str, np.ndarray, list[str]]]:
        same, labels = alike(run, rows[:400], options)
        return [(label, same, labels)] if len(same) > 1 else []

    if options.by:
        return [g for p in parts_of(run, options.by) for g in of(p.label, p.rows)]
    if found := of("all prompts", np.arange(len(run))):
        return found
    best: list[tuple[str, np.ndarray, list[str]]] = []
    for name in run.columns:
        kinds, n = np.unique(run.columns[name].astype(str), return_counts=True)
        if 2 <= len(kinds) <= 100 and n.max() > 1:
            commonest = kinds[np.argsort(-n, kind="stable")[:4]]
            found = [g for k in commonest for g in of(f"{name} {k}", np.flatnonzero(run.columns[name].astype(str) == k))]
            best = max(best, found, key=lambda gs: sum(len(rows) for _, rows, _ in gs))
    return best


def views(run: h5lens.Run, prompts: dict[int, str], options: Options) -> tuple[list[View], list[int], list[str]]:
    """The patterns that fit into the page, their layers, and what is to be said of those that do not."""
    layers, out, left, said = pattern_layers(run), [], BUDGET, []
    for row, why in prompts.items():
        if not (run.positions(row) >= 0).any():
            said.append(f"prompt {row} has none of the stored positions")
        elif (size := size_of(run, row, len(layers))) * 4 // 3 > left:
            said.append(f"prompt {row} has {run.lengths[row]} tokens: its patterns do not fit into {BUDGET / 1e6:.1f} MB a page")
        else:
            left -= size * 4 // 3
            tokens = texts_of(run, run.tokens(row)[:run.lengths[row]], options.tokenizer)
            out.append(view_of(run, np.array([row]), f"prompt {row}" + (f": {why}" if why else ""), "", tokens, layers))
    for label, rows, tokens in groups_alike(run, options):
        if (size := size_of(run, int(rows[0]), len(layers)) * 4 // 3) <= left:
            left -= size
            out.append(view_of(run, rows, f"mean of {len(rows)} prompts: {label}, {len(tokens)} tokens",
                               "[name]: the text of that column; …: tokens that differ, here the first prompt's", tokens, layers))
    if not out and not said:
        raise NotThere("no prompt to show")
    return out, layers, said
