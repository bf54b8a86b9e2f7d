"""What pyproject.toml cannot say: plot*.py and report*.py, with what a report's page takes, go along, in a package of
their own, h5lens_programs."""

from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

HERE = Path(__file__).resolve().parent
PROGRAMS = sorted(p.stem for kind in ("plot*.py", "report*.py") for p in HERE.glob(kind))


class WithPage(build_py):
    """Also what is no Python: the folder is no package that could have data."""

    def run(self) -> None:
        super().run()
        for kind in ("report.js", "report.css"):
            self.copy_file(str(HERE / kind), str(Path(self.build_lib) / "h5lens_programs" / kind))


setup(packages=["h5lens"], package_dir={"h5lens": "h5lens", "h5lens_programs": "."}, package_data={"h5lens": ["py.typed"]},
      py_modules=[f"h5lens_programs.{name}" for name in PROGRAMS], cmdclass={"build_py": WithPage})
