#!/usr/bin/env python3
"""Checks `h5lens report` without a browser (scripts/check_report.py has one): is the page well formed, complete in itself and
small, are texts from the data only texts in it, do the list and the patterns hold the file's numbers, is the script found?

H5LENS is the program, WORK a folder for its files.
"""

from __future__ import annotations

import base64
import csv
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from html.parser import HTMLParser
from pathlib import Path

import numpy as np

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"
sys.path.insert(0, str(SCRIPTS))
import h5lens  # noqa: E402
from checks import Checks  # noqa: E402

PROGRAM = os.path.abspath(os.environ.get("H5LENS", "build/h5lens"))
ENV = {**os.environ, "H5LENS_SCRIPTS": str(SCRIPTS), "H5LENS_PYTHON": sys.executable}
VOID = {"meta", "br", "input", "img", "hr", "link", "col"}
HOSTILE = ("</script><script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "<!--", "]]>", "&lt;b&gt; &amp;", "emoji 🙂👩‍👩‍👧 and שלום \u202e",
           "line\nbreak\ttab", "' onclick='alert(1)", "\u2028 $(id) `x` ${y}")
CHECKS = Checks()
check = CHECKS.that


def report(*args: str | Path, env: dict[str, str] | None = None, program: str = PROGRAM) -> tuple[int, str, str]:
    r = subprocess.run([program, "report", *map(str, args)], text=True, capture_output=True, env=ENV | (env or {}), timeout=600)
    return r.returncode, r.stdout, r.stderr


def run(path: Path, *args: str) -> Path:
    r = subprocess.run([PROGRAM, "run", "-o", str(path), *args], text=True, capture_output=True)
    check(r.returncode == 0, f"the run: {r.stderr}")
    return path


class Page(HTMLParser):
    """What is in a page: is every element closed, and what could do something."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.faults: list[str] = []
        self.ids: list[str] = []
        self.scripts: list[str] = []
        self.words: list[str] = []
        self.csp = ""
        self.feed(text)
        self.close()
        if self.open:
            self.faults.append(f"not closed: {self.open}")

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in VOID:
            self.open.append(tag)
        for name, value in attrs:
            if name.startswith("on") or name in ("src", "action", "srcdoc", "ping"):
                self.faults.append(f"<{tag} {name}>")
            if name == "href" and not (value or "").startswith(("#", "data:image/png")):
                self.faults.append(f"<{tag} href={(value or '')[:40]}>")
            if name == "id":
                self.ids.append(value or "")
            if name == "content" and "default-src" in (value or ""):
                self.csp = value or ""
        if tag == "script":
            self.scripts.append("")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.faults.append(f"</{tag}>")

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "script":
            self.scripts[-1] += data
        elif not self.open or self.open[-1] != "style":
            self.words.append(data)


def page_of(path: Path, what: str) -> tuple[Page, dict]:
    text = path.read_text(encoding="utf-8")
    page = Page(text)
    check(not page.faults, f"{what}: {page.faults[:5]}")
    check(len(page.scripts) == 2 and page.scripts[1] == (SCRIPTS / "report.js").read_text(), f"{what}: the scripts are ours")
    digest = base64.b64encode(hashlib.sha256(page.scripts[1].encode()).digest()).decode()
    check("default-src 'none'" in page.csp and f"script-src 'sha256-{digest}'" in page.csp, f"{what}: what may run and load: {page.csp}")
    check("http://" not in text and "https://" not in text and "@import" not in text, f"{what}: nothing to load")
    check(len(set(page.ids)) == len(page.ids), f"{what}: ids are unique")
    refs = {part.split(")")[0].split('"')[0] for mark in ("url(#", 'href="#') for part in text.split(mark)[1:]}
    check(refs <= set(page.ids), f"{what}: links within the page: {refs - set(page.ids)}")
    return page, json.loads(page.scripts[0])


def column(data: dict, name: str) -> list:
    return next(c["values"] for c in data["columns"] if c["name"] == name)


def numbers(path: Path, data: dict) -> None:
    """The list and the patterns against the file."""
    with h5lens.open_run(path) as r:
        check(column(data, "prompt") == r.text().tolist(), "the prompts")
        for name, table in (("logit difference", "logit_diff"), ("rank of correct", "answer_rank"), ("probability of incorrect", "answer_prob")):
            x = r.results[table][:, int("incorrect" in name)].astype(float)
            check(np.allclose(np.array(column(data, name), float), x, rtol=1e-5, atol=0), name)
        view = data["attention"]
        layers, heads = view["layers"], view["heads"]
        for v in view["views"]:
            got = np.frombuffer(base64.b64decode(v["data"]), np.uint8).reshape(len(layers), heads, -1) / 255
            n = len(v["tokens"])
            if v["label"].startswith("prompt "):
                rows = [int(v["label"].split()[1].rstrip(":"))]
            else:
                template = v["label"].split("template ")[1].split(",")[0]
                rows = [i for i in range(len(r)) if r.columns["template"][i] == template and r.lengths[i] == n]
                check(f"mean of {len(rows)} prompts" in v["label"], f"{v['label']}: {len(rows)}")
            want = np.mean([[r.cache("pattern", i, rows=row)[:, :n, :n] for i in layers] for row in rows], 0)
            flat = np.concatenate([want[:, :, q, :q + 1] for q in range(n)], -1)
            check(np.abs(flat - got).max() <= 0.5 / 255 + 1e-6, f"{v['label']}: weights, off by {np.abs(flat - got).max()}")
        check(sum(v["label"].startswith("mean of") for v in view["views"]) > 0, "means over a template")


def hostile(work: Path) -> None:
    rows = [(f"When John and Mary met, {t} John gave it to", " Mary", " John", t, "a" if i % 2 else "<i>b</i>") for i, t in enumerate(HOSTILE)]
    with open(work / "hostile.csv", "w", newline="", encoding="utf-8") as f:
        csv.writer(f).writerows([("prompt", "correct", "incorrect", "<b>note", "half"), *rows])
    path = run(work / "hostile.h5", "--model", "experiments/demo-gpt2", "--data", str(work / "hostile.csv"), "--answers", "correct,incorrect",
               "--tables", "all", "--lens-positions", "all")
    title = '</title><script>alert("x")</script>'
    out = work / "hostile.html"
    code, _, said = report(path, "-o", out, "--title", title, "--by", "half", "--prompts", "0,1,5,6,8")
    check(code == 0 and not said, f"hostile texts: {code}, {said}")
    page, data = page_of(out, "hostile texts")
    check(column(data, "prompt") == [r[0] for r in rows] and column(data, "<b>note") == list(HOSTILE), "hostile texts are as they were")
    check("".join(page.words).count(title) >= 2, "the title is a text")
    check(any("<i>b</i>" in w for w in page.words), "a value of --by is a text")
    tokens = "".join(data["attention"]["views"][3]["tokens"])
    check("↵" in tokens and "→" in tokens and "\n" not in tokens and "·" in tokens, f"white space is seen: {tokens}")
    check("⟨202E⟩" in "".join(data["attention"]["views"][2]["tokens"]) or "�" in "".join(data["attention"]["views"][2]["tokens"]), "controls are seen")


def found(work: Path, path: Path) -> None:
    """Where the program looks, and what it says."""
    place = work / "installed"
    (place / "bin").mkdir(parents=True)
    shutil.copy(PROGRAM, place / "bin" / "h5lens")
    bare = {"H5LENS_SCRIPTS": ""}
    code, _, said = report(path, env=bare, program=str(place / "bin" / "h5lens"))
    check(code == 1 and said.count("\n") == 1 and "report.py is not beside the program" in said, f"no script: {said}")
    shutil.copytree(SCRIPTS, place / "share" / "h5lens" / "python", ignore=shutil.ignore_patterns("__pycache__"))
    code, out, said = report(path, "-o", work / "found.html", env=bare, program=str(place / "bin" / "h5lens"))
    check(code == 0 and (work / "found.html").exists(), f"installed: {code}, {said}")
    code, _, said = report(path, env={"H5LENS_PYTHON": str(work / "none")})
    check(code == 1 and said.count("\n") == 1 and "report needs Python 3 with h5py and matplotlib" in said, f"no Python: {said}")
    (work / "bare").mkdir()
    (work / "bare" / "h5py.py").write_text("raise ModuleNotFoundError('gone', name='h5py')")
    code, _, said = report(path, env={"PYTHONPATH": str(work / "bare")})
    check(code == 1 and said.count("\n") == 1 and said.startswith("report.py: h5py is not installed"), f"no h5py: {said}")
    for args, want in ((["--prompts", "0,7000"], "no prompt 7000"), (["--by", "nothing"], "--by nothing: the CSV's other columns are"),
                       (["--prompts", "x"], "is not a list of rows"), (["--list", "-1"], "--list")):
        code, _, said = report(path, "-o", work / "wrong.html", *args)
        check(code in (1, 2) and want in said and not (work / "wrong.html").exists(), f"{args}: {code}, {said}")


def options(work: Path) -> None:
    """Those of the program's help are the scripts' own; the script is given them all."""
    for command in ("report", "plot"):
        r = subprocess.run([PROGRAM, command, "--help"], text=True, capture_output=True)
        ours = set(re.findall(r"^  (-[-a-z]+)", r.stdout, re.M))
        r = subprocess.run([sys.executable, str(SCRIPTS / f"{command}.py"), "--help"], text=True, capture_output=True)
        theirs = set(re.findall(r"^  (-[-a-z]+)", r.stdout, re.M)) - {"-h"}
        check(ours == theirs and len(ours) > 5, f"{command}: options: {ours ^ theirs}")
    (work / "spy").mkdir()
    (work / "spy" / "plot.py").write_text("import sys; print(sys.argv[1:])")
    args = ["x.h5", "-o", "a b", "--by=c", "--what", "heads"]
    r = subprocess.run([PROGRAM, "plot", *args], text=True, capture_output=True, env=ENV | {"H5LENS_SCRIPTS": str(work / "spy")})
    check(r.stdout == f"{args}\n", f"arguments: {r.stdout}{r.stderr}")


def main() -> int:
    with tempfile.TemporaryDirectory(dir=os.environ.get("WORK")) as tmp:
        work = Path(tmp)
        large = run(work / "large.h5", "experiments/ioi.yaml", "--limit", "1000", "--tables", "all", "--hooks", "*hook_pattern")
        code, said, wrong = report(large, "-o", work / "large.html")
        check(code == 0 and "MB" in said and not wrong, f"1,000 prompts: {code}, {said}, {wrong}")
        size = (work / "large.html").stat().st_size
        check(size < 5_000_000, f"1,000 prompts take {size} bytes")
        _, data = page_of(work / "large.html", "1,000 prompts")
        numbers(large, data)
        one = run(work / "one.h5", "experiments/ioi.yaml", "--limit", "1", "--hooks", "none")
        code, *_ = report(one)
        page, data = page_of(work / "one.html", "one prompt")
        text = " ".join(page.words)
        check(code == 0 and "median" not in text and data["attention"] is None and "--hooks" in text, "one prompt, no patterns")
        hostile(work)
        found(work, one)
        options(work)
    return CHECKS.end()


if __name__ == "__main__":
    sys.exit(main())
