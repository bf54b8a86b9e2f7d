#!/usr/bin/env python3
"""Makes one HTML page of an output file of h5lens, complete in itself: nothing is loaded when it is looked at.

    h5lens report OUT.h5 [-o report.html] [--prompts 0,3,17] [--by COLUMN] [--list N] …

In it: what was run (model, data, digests, versions, the experiment); summaries of all prompts and by the columns with few
values; every picture of plot.py that the file has data for; a list of prompts with their answers, logits and ranks, to sort
and search; and of some prompts the attention of every layer and head, with where each token looks and who looks at it.

--prompts chooses whose attention is in the page; by default the first, and those with the lowest, middle and highest logit
difference. Beside them stand means over prompts of one form: of each value of --by, else of all prompts, else of the values
of a column, where they have as many tokens and mostly the same. Weights are rounded to 1/255. At most 2.5 MB of patterns are
in a page; what does not fit is said. The list has the first --list rows.

The page works without JavaScript but for the list and the attention, on a phone, in dark mode and by keyboard: arrow keys move
among heads and tokens. Pictures of one prompt are of the first of --prompts.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import html
import io
import json
import os
import re
import sys
import tempfile
from pathlib import Path
from typing import Any

# The first says what is not installed.
from plot_common import STYLE, NotThere, Options, origin, page, place, plt

import h5lens
import plot
import report_data as data

HERE = Path(__file__).resolve().parent
# Colours of plot.py's pictures that must follow the page's, dark or light.
FOLLOW = {"#000000": "currentColor", "#555555": "var(--quiet)", "#888888": "var(--edge)", "#aaaaaa": "var(--edge)", "#e4e4e4": "var(--line)"}
SVG = {"svg.fonttype": "none", "svg.hashsalt": "h5lens", "image.interpolation": "none", "savefig.facecolor": "none", "axes.facecolor": "none",
       "figure.facecolor": "none"}
esc = html.escape


# --- pictures ---------------------------------------------------------------------

def ours(tag: str, prefix: str) -> str:
    """A tag of matplotlib's SVG with ids of its own, the page's font and colours, and no more digits than are seen."""
    tag = re.sub(r' xmlns(:\w+)?="[^"]*"', "", tag).replace("xlink:href", "href")
    tag = re.sub(r'^<g id="[^"]*"', "<g", tag)
    tag = re.sub(r'( id="|url\(#|href="#)', rf"\1{prefix}", tag)
    tag = re.sub(r'font: ([^;"]*?)(\d[\d.]*)px [^;"]*', r"font: \1\2px var(--font)", tag)
    for colour, name in FOLLOW.items():
        tag = re.sub(rf"(fill|stroke): {colour}\b", rf"\1: {name}", tag)
    return re.sub(r'( (?:d|x|y|points|transform)=")([^"]*)', lambda m: m[1] + re.sub(r"(\d+\.\d\d)\d+", r"\1", m[2]), tag)


def inline(svg: str, prefix: str, label: str) -> str:
    """matplotlib's SVG as part of a page."""
    svg = svg[svg.index("<svg"):]
    svg = re.sub(r"<!--.*?-->|<metadata>.*?</metadata>|<title>.*?</title>", "", svg, flags=re.S)
    svg = re.sub(r"<[^>]*>", lambda m: ours(m[0], prefix), svg)
    svg = re.sub(r">\s*\n\s*<", "><", svg)
    width, height = (float(re.search(rf'{k}="([\d.]+)pt"', svg)[1]) for k in ("width", "height"))  # type: ignore[index]
    pixels = width * 4 / 3
    head = f'<svg viewBox="0 0 {width:g} {height:g}" role="img" aria-label="{esc(label)}" style="width:{pixels:.0f}px;min-width:{0.5 * pixels:.0f}px">'
    return head + svg[svg.index(">") + 1:]


def pictures(run: h5lens.Run, options: Options) -> list[str]:
    """A figure for each picture that the file has data for."""
    out = []
    plt.rcParams.update(STYLE | SVG)
    page.drawn_titles = False
    for name, draw in plot.pictures_of(run, options).items():
        try:
            fig = draw()
        except NotThere:
            continue
        title, *notes = json.loads(fig.get_label())
        buffer = io.StringIO()
        fig.savefig(buffer, format="svg", bbox_inches="tight", pad_inches=0.04, metadata={"Date": None, "Creator": None})
        wide = fig.get_figwidth() > 8.6
        plt.close(fig)
        notes = [n for n in notes if n not in (origin(run), f"{origin(run)}, {place(run)}")]
        said = "".join(f"<p>{esc(n)}</p>" for n in notes)
        out.append(f'<figure id="p-{esc(name)}"{" class=wide" if wide else ""}><figcaption><h3>{esc(title)}</h3>{said}</figcaption>'
                   f'<div class="scroll" tabindex="0" role="group" aria-label="{esc(title)}">'
                   f'{inline(buffer.getvalue(), f"f{len(out)}-", "; ".join([title, *notes]))}</div></figure>')
    return out


# --- sections ---------------------------------------------------------------------

def section(ident: str, title: str, *inside: str) -> str:
    return f'<section id="{ident}" aria-labelledby="h-{ident}"><h2 id="h-{ident}">{esc(title)}</h2>{"".join(inside)}</section>'


def what_was_run(run: h5lens.Run) -> str:
    rows = "".join(f"<tr><th scope=row>{esc(k)}</th><td>{esc(v)}</td></tr>" for k, v in data.facts(run))
    experiment = json.dumps(run.experiment, indent=2, ensure_ascii=False)
    texts = [("The experiment, with every default", experiment), ("The experiment, as written", data.text_of(run, "experiment_source")),
             ("The model's config", json.dumps(run.model_config, indent=2, ensure_ascii=False))]
    more = "".join(f"<details><summary>{esc(t)}</summary><pre tabindex=0>{esc(text)}</pre></details>" for t, text in texts if text)
    return section("run", "What was run", f'<div class="scroll"><table class="facts">{rows}</table></div>', more)


def summaries(run: h5lens.Run, by: str | None) -> str:
    out = []
    for column, heads, rows in data.summary(run, by):
        head = "".join(f"<th scope=col>{esc(h)}</th>" for h in heads)
        body = "".join("<tr><th scope=row><bdi>" + esc(row[0]) + "</bdi></th>" + "".join(f"<td>{esc(v)}</td>" for v in row[1:]) + "</tr>" for row in rows)
        caption = f"By {esc(column)}" if column else "All prompts"
        out.append(f'<div class="scroll" tabindex="0" role="group" aria-label="{caption}"><table class="numbers"><caption>{caption}</caption>'
                   f"<thead><tr><th scope=col>{esc(column)}</th>{head}</tr></thead><tbody>{body}</tbody></table></div>")
    return section("summary", "Summary", *out, "<p class=note>± is half a 95 % interval of the mean (1.96 standard errors). Tables are "
                   f"{esc(place(run))}.</p>")


def prompts_section(columns: list[data.Column], shown: int, total: int) -> str:
    cut = f"<p class=note>The first {shown:,} of {total:,} prompts (--list).</p>" if shown < total else ""
    return section("prompts", "Prompts", cut, '<div id="list"><noscript>The list needs JavaScript.</noscript></div>')


def attention_section(said: list[str], why: str | None) -> str:
    if why:
        return section("attention", "Attention", f"<p>{esc(why)}</p>")
    notes = "".join(f"<p class=note>{esc(s)}.</p>" for s in said)
    return section("attention", "Attention", notes, '<div id="view"><noscript>The attention view needs JavaScript.</noscript></div>',
                   "<p class=note>Weights are rounded to 1/255. Small pictures: a query a row, a key a column; each has the scale 0 to 1.</p>")


def attention(run: h5lens.Run, prompts: dict[int, str], options: Options) -> tuple[dict[str, Any] | None, str]:
    """What report.js draws, and the section."""
    try:
        views, layers, said = data.views(run, prompts, options)
        picked = plot.plot_attention.head_and_why(run, options)
    except NotThere as e:
        return None, attention_section([], f"{e}.".capitalize())
    if not views:
        return None, attention_section([], "; ".join(said) + ".")
    found = {"views": [v.plain() for v in views], "layers": layers, "heads": int(run.model_config["n_heads"]),
             "picked": [picked.layer, picked.head, picked.why], "answers": plot.plot_attention.answer_names(run, 2)}
    return found, attention_section(said, None)


# --- the page ---------------------------------------------------------------------

def script_json(value: Any) -> str:
    """JSON that no text in it can end the script element of."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c").replace("\u2028", "\\u2028") \
        .replace("\u2029", "\\u2029")


def make(run: h5lens.Run, prompts: dict[int, str], limit: int, options: Options, title: str) -> str:
    columns = data.prompt_list(run, limit, options)
    view, attention_html = attention(run, prompts, options)
    figures = pictures(run, options)
    content = {"columns": [{"name": c.name, "kind": c.kind, "more": c.more, "values": c.values} for c in columns], "attention": view}
    script, style = ((HERE / f"report.{k}").read_text(encoding="utf-8") for k in ("js", "css"))
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    sections = [("summary", "Summary"), ("pictures", "Pictures"), ("prompts", "Prompts"), ("attention", "Attention"), ("run", "What was run")]
    links = "".join(f'<a href="#{k}">{esc(name)}</a>' for k, name in sections)
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta name="generator" content="h5lens {esc(data.text_of(run, 'h5lens_version'))}">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'">
<title>{esc(title)}</title>
<style>{style}</style>
</head>
<body>
<a class="skip" href="#summary">To the content</a>
<header><h1><bdi>{esc(title)}</bdi></h1><p>{esc(origin(run))}</p><nav aria-label="Sections">{links}</nav></header>
<main>
{summaries(run, options.by)}
{section("pictures", "Pictures", f'<p class=note>{esc(origin(run))}, {esc(place(run))}.</p>', '<div class="figures">', *figures, "</div>")}
{prompts_section(columns, min(limit, len(run)), len(run))}
{attention_html}
{what_was_run(run)}
</main>
<script type="application/json" id="data">{script_json(content)}</script>
<script>{script}</script>
</body>
</html>
"""


# --- the program --------------------------------------------------------------------

def rows_of(text: str) -> list[int]:
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(f"'{text}' is not a list of rows, such as 0,3,17") from None


def arguments(argv: list[str] | None) -> argparse.Namespace:
    p = argparse.ArgumentParser(prog="h5lens report", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("file", type=Path, help="an output file of h5lens")
    p.add_argument("-o", "--output", type=Path, metavar="HTML", help="the page (default: OUT.html beside OUT.h5)")
    p.add_argument("--prompts", type=rows_of, metavar="ROW,…", help="the prompts whose attention is shown, counted from 0")
    p.add_argument("--by", metavar="COLUMN", help="a panel, a colour or a mean for each value of this CSV column")
    p.add_argument("--list", type=int, default=2000, metavar="N", help="so many rows are in the list of prompts (default 2000)")
    p.add_argument("--title", help="of the page (default: the file's name)")
    p.add_argument("--roles", type=lambda s: s.split(","), metavar="COLUMN,…", help="as in plot.py")
    p.add_argument("--head", type=plot.head_of, metavar="L.H", help="the head that is shown large at first")
    p.add_argument("--layer", type=int, metavar="L", help="as in plot.py")
    p.add_argument("--tokenizer", type=Path, metavar="DIR", help="directory with tokenizer.json")
    return p.parse_args(argv)


def write(path: Path, text: str) -> None:
    """Under its name when it is complete."""
    with tempfile.NamedTemporaryFile("w", encoding="utf-8", errors="replace", dir=path.parent, prefix=path.name + ".part", delete=False) as f:
        try:
            f.write(text)
            f.flush()
            os.chmod(f.name, 0o644)
            os.replace(f.name, path)
        except BaseException:
            os.unlink(f.name)
            raise


def report(run: h5lens.Run, args: argparse.Namespace) -> int:
    rows = args.prompts or []
    if wrong := [r for r in rows if not -len(run) <= r < len(run)]:
        raise SystemExit(f"h5lens report: no prompt {wrong[0]}: the file has {len(run)}")
    if args.list < 0:
        raise SystemExit("h5lens report: --list is a number of rows")
    prompts = {r % len(run): "" for r in rows} or data.default_prompts(run)
    args.prompt = next(iter(prompts))
    options = plot.options_of(run, args, "h5lens report")
    path = args.output or args.file.with_suffix(".html")
    text = make(run, prompts, args.list, options, args.title or args.file.name)
    write(path, text)
    print(f"{path}: {len(text.encode()) / 1e6:.1f} MB")
    return 0


def main(argv: list[str] | None = None) -> int:
    args = arguments(argv)
    try:
        with h5lens.open_run(args.file) as run:
            return report(run, args)
    except (h5lens.H5LensError, h5lens.UnknownName, OSError) as e:
        print(f"h5lens report: {e}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
