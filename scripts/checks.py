"""What the checks by hand (check_*.py) share: counting what holds, their arguments, the models that they look at."""

from __future__ import annotations

import argparse
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


class Checks:
    def __init__(self) -> None:
        self.passed = self.failed = 0

    def that(self, good: bool, what: str) -> bool:
        self.passed += bool(good)
        self.failed += not good
        if not good:
            print(f"FAIL {what}")
        return bool(good)

    def end(self) -> int:
        """Says how many; the exit status."""
        print(f"{self.passed} passed, {self.failed} failed")
        return int(self.failed > 0 or self.passed == 0)


def parser_of(doc: str | None) -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("models", type=Path, nargs="*")
    p.add_argument("--h5lens", type=Path, metavar="BIN", default=ROOT / "build" / "h5lens")
    return p


def golden_models() -> list[Path]:
    return sorted(d for d in (ROOT / "tests/golden/data").iterdir() if (d / "config.json").exists())


def models_of(args: argparse.Namespace) -> list[Path]:
    """Those that were named, or the demo's and the tiny ones of all families."""
    return [m.resolve() for m in args.models] or [ROOT / "experiments/demo-gpt2", *golden_models()]
