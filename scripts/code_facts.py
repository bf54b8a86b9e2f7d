#!/usr/bin/env python3
"""Facts about the C sources, as Markdown: sizes by stage, long functions, wide ones, who includes whom.

    code_facts.py [TREE]      TREE: the root of a source tree, by default this one

A folder in src/ is a stage; include/h5lens/X.h is the interface of the stage that scripts/check_layers.sh of
that tree names for it, and the order of the stages is that script's. Functions are definitions, static ones and
those in headers too. Their lines run from the opening brace's to the closing one's. Parameters are those that
have a name; "..." is not one.
"""

from __future__ import annotations

import re
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from statistics import median

MOST_LINES, MOST_PARAMETERS = 40, 6
CORE_HEADERS = ("status", "sys", "core", "axis")  # where the tree's script says nothing


@dataclass
class Function:
    file: str
    name: str
    parameters: int
    lines: int


# --- reading C ----------------------------------------------------------------------------

NOT_CODE = re.compile(r"""/\*.*?\*/ | //[^\n]* | "(?:\\.|[^"\\\n])*" | '(?:\\.|[^'\\\n])*'""", re.S | re.X)
DIRECTIVE = re.compile(r"^[ \t]*\#(?:\\\n|[^\n])*", re.M)


def blank(m: re.Match[str]) -> str:
    """Something as many lines long, without brackets, commas or braces."""
    return " " + "\n" * m.group().count("\n")


def code_of(text: str) -> str:
    """Comments, strings and preprocessor lines blanked out; of #if … #else … #endif both sides stay."""
    return DIRECTIVE.sub(blank, NOT_CODE.sub(blank, text))


def matching(s: str, i: int) -> int:
    """The place after the bracket that closes the one at i."""
    depth = 0
    for j in range(i, len(s)):
        depth += (s[j] in "([{") - (s[j] in ")]}")
        if depth == 0:
            return j + 1
    raise ValueError("brackets without an end")


def groups(s: str) -> list[tuple[str, str]]:
    """The outermost (…) of a signature, each with the word in front of it."""
    found, i = [], 0
    while (i := s.find("(", i)) >= 0:
        word = re.search(r"(\w*)\s*$", s[:i])
        end = matching(s, i)
        found.append((word.group(1) if word else "", s[i + 1:end - 1]))
        i = end
    return found


def signature(head: str) -> tuple[str, int] | None:
    """Name and parameters of what stands before a '{', if that is a function's definition."""
    if "=" in head:  # an initializer
        return None
    calls = [g for g in groups(head) if g[0] not in ("__attribute__", "_Alignas", "_Static_assert")]
    if not calls or not head.rstrip().endswith(")"):
        return None
    name, inside = calls[0]
    if inside.lstrip().startswith("*"):  # a function that returns a pointer to a function: (*name(…))(…)
        name, inside = groups(inside)[0]
    for bracket in dict.fromkeys(f"({g})" for _, g in groups(inside)):  # these have commas of their own
        inside = inside.replace(bracket, "()")
    return name, sum(p.strip() not in ("", "void", "...") for p in inside.split(","))


def functions(file: str, text: str) -> list[Function]:
    s, found, start, i = code_of(text), [], 0, 0
    while i < len(s):
        if s[i] == ";":
            start = i = i + 1
        elif s[i] in "([":
            i = matching(s, i)
        elif s[i] == "{":  # after a struct's or an initializer's, the declaration goes on
            end, said = matching(s, i), signature(s[start:i])
            if said:
                found.append(Function(file, *said, s.count("\n", i, end) + 1))
            start, i = end if said else start, end
        else:
            i += 1
    return found


# --- the tree -----------------------------------------------------------------------------

class Tree:
    def __init__(self, root: Path) -> None:
        rules = (root / "scripts/check_layers.sh").read_text(encoding="utf-8")
        order = re.search(r'^order="([^"]*)"', rules, re.M)
        if not order:
            sys.exit(f"{root}/scripts/check_layers.sh has no order=\"…\"")
        self.order = order.group(1).split()
        self.owner = {name: "core" for name in CORE_HEADERS}
        for names, stage in re.findall(r"^\s*([a-z0-9_| ]+)\) echo ([a-z0-9_]+) ;;", rules, re.M):
            self.owner.update({name.strip(): stage for name in names.split("|")})
        self.files = {p.relative_to(root).as_posix(): p.read_text(encoding="utf-8")
                      for folder in ("src", "include") for p in sorted((root / folder).rglob("*.*"))
                      if p.suffix in (".c", ".h", ".def")}
        self.functions = [f for name, text in self.files.items() for f in functions(name, text)]
        self.order += sorted({self.stage(f) for f in self.files} - set(self.order))  # not in the script: last

    def stage(self, path: str) -> str:
        folder, name = path.split("/")[-2:]
        stem = name.rsplit(".", 1)[0]
        if name.endswith(".def"):  # a list that several stages include
            return "core"
        return self.owner.get(stem, stem) if folder == "h5lens" else folder

    def arrows(self) -> Counter[tuple[str, str]]:
        """How many #include lines go from a stage to another; each goes to a stage later or earlier."""
        found: Counter[tuple[str, str]] = Counter()
        for file, text in self.files.items():
            for path in re.findall(r'^[ \t]*#[ \t]*include[ \t]+"([^"]+/[^"]+)"', text, re.M):
                found[self.stage(file), self.stage(path)] += 1
        return Counter({(a, b): n for (a, b), n in found.items() if a != b})

    def circles(self, arrows: Counter[tuple[str, str]]) -> list[list[str]]:
        """Stages that reach each other."""
        reach = {s: {b for a, b in arrows if a == s} for s in self.order}
        for via in self.order:
            for s in self.order:
                if via in reach[s]:
                    reach[s] |= reach[via]
        rings = {tuple(t for t in self.order if t in reach[s] and s in reach[t]) for s in self.order}
        return [list(r) for r in sorted(rings) if r]


# --- what is printed ----------------------------------------------------------------------

def row(*cells: object) -> None:
    print("| " + " | ".join(f"{c:,}" if isinstance(c, int) else str(c) for c in cells) + " |")


def sizes(tree: Tree) -> None:
    row("stage", ".c", ".h", "lines", "header in include/", "functions", "median lines", "most lines",
        f"over {MOST_LINES} lines", f"over {MOST_PARAMETERS} parameters")
    row("---", *["---:"] * 9)
    for title in (*tree.order, "all"):
        mine = [f for f in tree.files if title in ("all", tree.stage(f))]
        inside = [f for f in mine if f.startswith("src/")]
        own = [f for f in tree.functions if f.file in mine]
        lines = [f.lines for f in own]
        row(title, sum(f.endswith(".c") for f in inside), sum(not f.endswith(".c") for f in inside),
            sum(tree.files[f].count("\n") for f in inside),
            sum(tree.files[f].count("\n") for f in mine if f not in inside), len(own),
            f"{median(lines or [0]):g}", max(lines, default=0), sum(n > MOST_LINES for n in lines),
            sum(f.parameters > MOST_PARAMETERS for f in own))


def largest(tree: Tree, title: str, key: str, most: int) -> None:
    found = sorted((f for f in tree.functions if getattr(f, key) > most), key=lambda f: (-getattr(f, key), f.file))
    print(f"\n{len(found)} functions with more than {most} {title}\n")
    for f in found:
        print(f"- {getattr(f, key)} `{f.name}` {f.file}")


def graph(tree: Tree) -> None:
    arrows, place = tree.arrows(), tree.order.index
    up = [(a, b) for a, b in arrows if place(b) > place(a)]
    print(f"\nIncludes between stages: {len(arrows)} arrows, {len(up)} upwards\n")
    for a in tree.order:
        to = sorted((b for x, b in arrows if x == a), key=place)
        if to:
            print(f"- {a} → " + ", ".join(f"{b} {arrows[a, b]}{' UPWARDS' if (a, b) in up else ''}" for b in to))
    rings = tree.circles(arrows)
    print("\n" + ("No circle." if not rings else "\n".join("CIRCLE: " + ", ".join(r) for r in rings)))


def main() -> None:
    tree = Tree(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).resolve().parent.parent)
    sizes(tree)
    largest(tree, "lines", "lines", MOST_LINES)
    largest(tree, "parameters", "parameters", MOST_PARAMETERS)
    graph(tree)


if __name__ == "__main__":
    main()
