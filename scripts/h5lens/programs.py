"""h5lens-plot and h5lens-report: the programs beside the reader, after `pip install ./scripts`."""

import importlib
import sys
from pathlib import Path


def _run(name: str) -> int:
    above = Path(__file__).resolve().parents[1]
    installed = above / "h5lens_programs"
    sys.path.insert(0, str(installed if installed.is_dir() else above))  # as if it were started there
    return int(importlib.import_module(name).main() or 0)


def plot() -> int:
    return _run("plot")


def report() -> int:
    return _run("report")
