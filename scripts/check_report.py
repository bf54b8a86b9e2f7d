#!/usr/bin/env python3
"""Checks a page of report.py in a real browser, headless Chromium, and takes pictures of it.

    python scripts/check_report.py REPORT.html… [-o DIR] [--browser chromium]

At widths 390 and 1280, light and dark: the console has no errors, nothing is asked of a network, the page is no wider than the
window; the list is searched, sorted and opened by keyboard; heads and tokens are moved through with arrow keys, and what is said
of a token agrees with the weights in the page; every button and picture has a name. With -o DIR, PNGs of the page and of the
attention view. The last line counts the checks; exit code 1 if one failed, 3 if there is no browser.
"""

from __future__ import annotations

import argparse
import base64
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from checks import Checks

WIDTHS = 390, 1280
KEYS = {"Enter": 13, "Tab": 9, " ": 32, "ArrowLeft": 37, "ArrowUp": 38, "ArrowRight": 39, "ArrowDown": 40, "Home": 36, "End": 35}
CHECKS = Checks()
check = CHECKS.that


class Browser:
    """Chromium by its DevTools protocol, over a pair of pipes: JSON, each message ended by a NUL."""

    def __init__(self, program: str, folder: str) -> None:
        ours_in, theirs_out = os.pipe()
        theirs_in, ours_out = os.pipe()
        command = [program, "--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--remote-debugging-pipe",
                   "--no-first-run", "--disable-dev-shm-usage", "--disable-background-networking", f"--user-data-dir={folder}", "about:blank"]
        # The shell puts the pipes where the protocol has them.
        self.process = subprocess.Popen(["sh", "-c", f'exec "$0" "$@" 3<&{theirs_in} 4>&{theirs_out}', *command],
                                        pass_fds=(theirs_in, theirs_out), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        os.close(theirs_in)
        os.close(theirs_out)
        self.read, self.write = ours_in, ours_out
        self.rest, self.number, self.session = b"", 0, ""
        self.events: list[dict[str, Any]] = []
        target = self.ask("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.ask(f"{domain}.enable")

    def message(self) -> dict[str, Any]:
        while b"\0" not in self.rest:
            if not (part := os.read(self.read, 1 << 20)):
                raise SystemExit("check_report.py: the browser ended")
            self.rest += part
        text, self.rest = self.rest.split(b"\0", 1)
        return json.loads(text)

    def ask(self, method: str, **params: Any) -> dict[str, Any]:
        self.number += 1
        request = {"id": self.number, "method": method, "params": params} | ({"sessionId": self.session} if self.session else {})
        data = json.dumps(request).encode() + b"\0"
        while data:
            data = data[os.write(self.write, data):]
        while (answer := self.message()).get("id") != self.number:
            self.events.append(answer)
        if "error" in answer:
            raise SystemExit(f"check_report.py: {method}: {answer['error']['message']}")
        return answer["result"]

    def run(self, script: str) -> Any:
        """The value of an expression in the page."""
        got = self.ask("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in got:
            raise SystemExit(f"check_report.py: {script}: {got['exceptionDetails']}")
        return got["result"].get("value")

    def key(self, name: str, times: int = 1) -> None:
        for _ in range(times):
            text = {"text": "\r" if name == "Enter" else name} if name in ("Enter", " ") or len(name) == 1 else {}
            for kind in ("keyDown", "keyUp"):
                self.ask("Input.dispatchKeyEvent", type=kind, key=name, code=name, windowsVirtualKeyCode=KEYS.get(name, ord(name[0])),
                         **(text if kind == "keyDown" else {}))

    def open(self, url: str, width: int, dark: bool) -> None:
        self.ask("Emulation.setDeviceMetricsOverride", width=width, height=844, deviceScaleFactor=1, mobile=width < 600)
        self.ask("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}])
        self.events.clear()
        self.ask("Page.navigate", url=url)
        for _ in range(600):
            if self.run("document.readyState") == "complete" and self.run("location.href") == url:
                return
            time.sleep(0.05)
        raise SystemExit(f"check_report.py: {url} does not load")

    def picture(self, path: Path, selector: str | None = None, height: int | None = None) -> None:
        at = "document.documentElement" if selector is None else f"document.querySelector({selector!r})"
        x, y, w, h = self.run(f"(r => [r.x + scrollX, r.y + scrollY, r.width, r.height])({at}.getBoundingClientRect())")
        got = self.ask("Page.captureScreenshot", format="png", captureBeyondViewport=True,
                       clip={"x": x, "y": y, "width": w, "height": min(h, height or 12000), "scale": 1})
        path.write_bytes(base64.b64decode(got["data"]))

    def close(self) -> None:
        self.session = ""
        self.ask("Browser.close")
        self.process.wait(20)


# --- what is checked ----------------------------------------------------------------

def faults(browser: Browser) -> list[str]:
    """Errors of the console, exceptions, and requests of anything but the page itself."""
    out = []
    for e in browser.events:
        params = e.get("params", {})
        if e.get("method") == "Runtime.exceptionThrown":
            out.append(str(params["exceptionDetails"].get("exception", {}).get("description", params)))
        elif e.get("method") == "Log.entryAdded" and params["entry"]["level"] in ("error", "warning"):
            out.append(params["entry"]["text"])
        elif e.get("method") == "Runtime.consoleAPICalled" and params["type"] in ("error", "warning", "assert"):
            out.append(str(params["args"]))
        elif e.get("method") == "Network.requestWillBeSent" and not params["request"]["url"].startswith(("file:", "data:", "about:")):
            out.append(f"asks for {params['request']['url']}")
    return out


UNNAMED = """[...document.querySelectorAll('button, select, input, [role=img], [role=group], canvas:not([aria-hidden])')].filter(e =>
    !(e.getAttribute('aria-label') || e.textContent.trim() || (e.id && document.querySelector(`label[for="${e.id}"]`)))).length"""
RANKS = "[...document.querySelectorAll('#list tbody tr[data-row]')].map(tr => Number(tr.dataset.row))"


def the_list(b: Browser, where: str) -> None:
    n = b.run("DATA.columns[0].values.length")
    check(len(b.run(RANKS)) == min(25, n), f"{where}: the first page of the list")
    for name in b.run("DATA.columns.filter(c => !c.more && c.kind === 'number').map(c => c.name)")[:3]:
        b.run(f"[...document.querySelectorAll('#list thead button')].find(x => x.textContent === {json.dumps(name)}).focus()")
        for descending in (False, True):
            b.key("Enter")
            values = b.run(f"(c => {RANKS}.map(r => c.values[r]))(DATA.columns.find(c => c.name === {json.dumps(name)}))")
            known = [v for v in values if v is not None]
            check(known == sorted(known, reverse=descending), f"{where}: sorted by {name}, {'down' if descending else 'up'}: {known[:8]}")
        check(b.run("document.activeElement.parentElement.getAttribute('aria-sort')") == "descending", f"{where}: aria-sort of {name}")
    word = b.run("DATA.columns.find(c => c.name === 'prompt').values.at(-1).split(/\\s+/).find(w => w.length > 3) || 'a'")
    b.run("document.getElementById('search').focus()")
    for c in word:
        b.key(c) if c.isascii() else b.ask("Input.insertText", text=c)
    found, said = b.run(RANKS), b.run("document.getElementById('count').textContent")
    texts = b.run("DATA.columns.map(c => c.values)")
    wanted = [r for r in range(n) if any(word.lower() in str(v[r]).lower() for v in texts)]
    check(set(found) <= set(wanted) and len(found) == min(25, len(wanted)), f"{where}: search for {word!r}: {said}")
    b.run("document.querySelector('#list .open').focus()")
    b.key("Enter")
    check(b.run("document.querySelectorAll('#list tr.more dd').length === DATA.columns.filter(c => c.more).length"), f"{where}: an opened row")
    check(b.run("document.activeElement.getAttribute('aria-expanded')") == "true", f"{where}: the focus stays on what was opened")


def the_attention(b: Browser, where: str) -> None:
    if not b.run("DATA.attention !== null"):
        check(b.run("document.querySelector('#attention p').textContent.length > 20"), f"{where}: why there is no attention")
        return
    heads, layers = b.run("[DATA.attention.heads, DATA.attention.layers.length]")
    check(b.run("document.querySelectorAll('.heads button').length") == heads * layers, f"{where}: a small picture for each head")
    check(b.run("document.querySelectorAll('.heads button[tabindex=\"0\"]').length") == 1, f"{where}: one head takes part in Tab")
    b.run("document.querySelector('.heads button[tabindex=\"0\"]').focus()")
    b.key("Home")
    before = b.run("document.getElementById('head').textContent")
    b.key("ArrowRight" if heads > 1 else "ArrowDown")
    check(heads * layers == 1 or b.run("document.getElementById('head').textContent") != before, f"{where}: arrow keys choose a head")
    b.key("End")
    b.run("document.querySelector('.tokens button[tabindex=\"0\"]').focus()")
    b.key("Home")
    for _ in range(b.run("DATA.attention.views[0].tokens.length") - 1):
        b.key("ArrowRight")
        good, said = b.run(f"(({AGREES})())")
        check(good, f"{where}: what is said of a token: {said}")
    for i in range(b.run("DATA.attention.views.length")):
        b.run(f"(s => {{ s.value = {i}; s.dispatchEvent(new Event('change')); }})(document.getElementById('which'))")
        check(b.run("document.querySelectorAll('.tokens button').length") == b.run(f"DATA.attention.views[{i}].tokens.length"), f"{where}: view {i}")
    b.run("(s => { s.value = 0; s.dispatchEvent(new Event('change')); })(document.getElementById('which'))")


# The largest weight of the chosen token, read from the bytes again, is what the text says first.
AGREES = """() => {
    const v = DATA.attention.views[0], bytes = atob(v.data), i = Number(document.querySelector('.tokens .here').dataset.token);
    const q = v.at.indexOf(i), n = v.at.reduce((s, a) => s + a + 1, 0), said = document.getElementById('said').textContent;
    const b = document.querySelector('.heads [aria-pressed=true]').dataset, head = Number(b.layer) * DATA.attention.heads + Number(b.head);
    const start = head * n + v.at.slice(0, q).reduce((s, a) => s + a + 1, 0);
    const w = q < 0 ? [] : [...bytes.slice(start, start + i + 1)].map(c => c.charCodeAt(0)), best = w.indexOf(Math.max(...w));
    return [q < 0 || w[best] === 0 || said.includes(`looks at: ${v.tokens[best]} (${best}) `), said];
}"""


def pages(b: Browser, page: Path, pictures: Path | None) -> None:
    for width in WIDTHS:
        for dark in (False, True):
            where = f"{page.name}, {width} {'dark' if dark else 'light'}"
            b.open(page.resolve().as_uri(), width, dark)
            check(b.run("document.documentElement.scrollWidth <= innerWidth"), f"{where}: no wider than the window")
            check(b.run(UNNAMED) == 0, f"{where}: {b.run(UNNAMED)} things without a name")
            check(b.run("document.querySelectorAll('figure svg').length > 0"), f"{where}: pictures")
            ink, paper = b.run("(s => [s.color, s.backgroundColor])(getComputedStyle(document.body))")
            check((sum(map(int, paper[4:-1].split(","))) < 200) == dark and ink != paper, f"{where}: {ink} on {paper}")
            if pictures:
                b.picture(pictures / f"{page.stem}.{width}.{'dark' if dark else 'light'}.png")
            the_list(b, where)
            the_attention(b, where)
            if pictures:
                b.run("document.querySelectorAll('.tokens button').length && document.querySelector('.tokens button:last-of-type').click()")
                b.picture(pictures / f"{page.stem}.{width}.{'dark' if dark else 'light'}.attention.png", "#attention")
            check(not faults(b), f"{where}: {faults(b)}")


def main() -> int:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("pages", type=Path, nargs="+", metavar="REPORT.html")
    p.add_argument("-o", "--output", type=Path, metavar="DIR", help="where pictures go (default: none are taken)")
    p.add_argument("--browser", default="chromium", help="the program (default chromium)")
    args = p.parse_args()
    if not shutil.which(args.browser):
        print(f"check_report.py: no {args.browser} (Debian's package chromium)", file=sys.stderr)
        return 3
    if args.output:
        args.output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        browser = Browser(args.browser, folder)
        for page in args.pages:
            pages(browser, page, args.output)
        browser.close()
    return CHECKS.end()


if __name__ == "__main__":
    sys.exit(main())
