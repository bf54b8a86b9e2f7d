"""An array of parts of the residual stream that knows what its places are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .names import _no_such, H5LensError


@dataclass(frozen=True, eq=False)
class _Where:
    """Of which rows and positions of which run a stack is. A single one of either has no dimension in the stack."""

    path: Path
    rows: np.ndarray
    slot: np.ndarray  # [batch, entry], as Run._slots has it
    at: np.ndarray  # [batch, entry]: the token's position, -1 past the end
    one_row: bool
    one_pos: bool

    @property
    def axes(self) -> tuple[str, ...]:
        return tuple(name for name, one in (("prompt", self.one_row), ("pos", self.one_pos)) if not one)

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(n for n, one in zip(self.slot.shape, (self.one_row, self.one_pos)) if not one)


class Stack(np.ndarray):
    """An array of components of the residual stream, component first, that knows what its components are.

    labels: of the components, as TransformerLens has them; axes: the dimensions, ("component", "prompt", "pos",
    "d_model") less those that a single row or position drops. Components chosen by the first index keep their labels,
    stack[2:5] or stack[[0, -1]], and so does arithmetic that keeps the shape. Anything else gives an array without
    labels and axes (they are None).
    """

    labels: list[str] | None = None
    axes: tuple[str, ...] | None = None
    _where: _Where | None = None

    def _tell(self, labels: list[str] | None, axes: tuple[str, ...] | None, where: _Where | None) -> Stack:
        self.labels, self.axes, self._where = labels, axes, where
        return self

    @staticmethod
    def _like(stack: np.ndarray, values: np.ndarray, where: _Where) -> Stack:
        """Values with the labels of a stack, and as many of its axes as they have."""
        labels, axes = (stack.labels, stack.axes) if isinstance(stack, Stack) else (None, None)
        return values.view(Stack)._tell(labels, axes and axes[:values.ndim], where)

    def __getitem__(self, key: Any) -> Any:
        got = super().__getitem__(key)
        if isinstance(got, Stack) and self.labels is not None and self.axes is not None:
            if isinstance(key, (int, np.integer)):
                got._tell(None, self.axes[1:], self._where)
            elif isinstance(key, slice) or isinstance(key, (list, np.ndarray)) and np.ndim(key) == 1:
                got._tell(np.array(self.labels, dtype=object)[key].tolist(), self.axes, self._where)
        return got

    def __array_wrap__(self, array: np.ndarray, context: Any = None, return_scalar: bool = False) -> Any:
        if array.ndim == 0:
            return array[()]
        got = array.view(Stack)
        return got._tell(self.labels, self.axes, self._where) if array.shape == self.shape else got

    def to_xarray(self) -> Any:
        """As an xarray.DataArray: the coordinates are component, prompt (the row) and position (the token's, -1 past a
        prompt's end)."""
        if self.axes is None or self._where is None:
            raise ValueError("this array has lost its labels: to_xarray() is for what the run's methods give")
        import xarray
        at, where = self._where, {a: n for a, n in zip(self.axes, self.shape)}
        coords: dict[str, Any] = {"prompt": int(at.rows[0]) if at.one_row else at.rows,
                                  "position": (at.axes, at.at.reshape(at.shape))}
        if "component" in where:
            coords["component"] = self.labels
        return xarray.DataArray(np.asarray(self), coords, self.axes)


def _weight(weights: Mapping[str, Any] | None, name: str, what: str) -> Any:
    """A weight by TransformerLens's name: unembed.W_U, or W_U, as its HookedTransformer has both."""
    if weights is None:
        raise H5LensError(f"{what} needs the model's {name}: weights=h5lens.open_weights(…) of a file that "
                          "`h5lens weights` made with the run's settings, or another mapping of TransformerLens's names "
                          "to arrays")
    short = name.rsplit(".", 1)[-1]
    found = name if name in weights else short if name.startswith("unembed.") and short in weights else None
    if found is None:
        raise _no_such("weight", name, [k for k in weights])
    value = weights[found]
    return value.detach() if hasattr(value, "detach") else value
