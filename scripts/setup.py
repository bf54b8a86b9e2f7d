"""What pyproject.toml cannot say: plot*.py and report*.py go along, in a package of their own, h5lens_programs."""

from pathlib import Path

from setuptools import setup

HERE = Path(__file__).resolve().parent
PROGRAMS = sorted(p.stem for kind in ("plot*.py", "report*.py") for p in HERE.glob(kind))
setup(packages=["h5lens"], package_dir={"h5lens": "h5lens", "h5lens_programs": "."}, package_data={"h5lens": ["py.typed"]},
      py_modules=[f"h5lens_programs.{name}" for name in PROGRAMS])
