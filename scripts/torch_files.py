"""Writes files as torch.save does, both formats, without PyTorch.

For scripts/make_invalid_models.py: files that are right, and files with any one
thing wrong. The pickles come from Python's own pickler, with stand-ins for the
names of torch that they mention.
"""

import io
import pickle
import struct
import types
import warnings
import zipfile
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Any, Callable

MAGIC = 0x1950A86A20F9469CFC6C
VERSION = 1001


def stand_in(module: str, name: str) -> Callable[..., Any]:
    """A function that pickles as module.name, whatever that is."""

    def function(*args: Any) -> None:
        raise AssertionError("stand-ins are not called")

    function.__module__, function.__qualname__, function.__name__ = module, name, name
    return function


class _Pickler(pickle._Pickler):  # the one in Python, whose lookup of names can be replaced
    def persistent_id(self, obj: Any) -> Any:
        return obj.identity() if isinstance(obj, Storage) else None

    def save_global(self, obj: Any, name: str | None = None) -> None:
        module, label = obj.__module__, name or obj.__qualname__
        if self.proto >= 4:
            self.save(module)
            self.save(label)
            self.write(pickle.STACK_GLOBAL)
        else:
            self.write(pickle.GLOBAL + f"{module}\n{label}\n".encode())
        self.memoize(obj)

    dispatch = pickle._Pickler.dispatch.copy()
    dispatch[types.FunctionType] = save_global
    dispatch[types.BuiltinFunctionType] = save_global


class _Python2Pickler(_Pickler):
    """Writes str as Python 2 did, as bytes of no said encoding."""

    def save_str(self, obj: str) -> None:
        data = obj.encode()
        self.write(pickle.SHORT_BINSTRING + bytes([len(data)]) + data)
        self.memoize(obj)

    dispatch = _Pickler.dispatch.copy()
    dispatch[str] = save_str


_names: dict[tuple[str, str], Callable[..., Any]] = {}


def name(module: str, label: str) -> Callable[..., Any]:
    """The stand-in of a name; the same each time, so that it is memoized."""
    return _names.setdefault((module, label), stand_in(module, label))


@dataclass
class Storage:
    """One storage: its class, and its bytes in the file."""

    cls: str
    data: bytes
    size: int  # of an element
    key: str = ""
    count: Any = None  # instead of the true number of elements
    identity_is: Any = None  # instead of the whole identity
    view: tuple[Any, ...] = ()  # what comes after the number

    def number(self) -> int:
        return len(self.data) // self.size

    def identity(self) -> Any:
        if self.identity_is is not None:
            return self.identity_is
        count = self.number() if self.count is None else self.count
        return ("storage", name("torch", self.cls), self.key, "cpu", count, *self.view)


@dataclass
class Tensor:
    storage: Storage
    shape: Any
    stride: Any = None  # None: row-major
    offset: Any = 0
    more: tuple[Any, ...] = ()  # arguments after the usual ones
    function: Callable[..., Any] = field(
        default_factory=lambda: name("torch._utils", "_rebuild_tensor_v2")
    )

    def __reduce__(self) -> Any:
        stride = self.stride
        if stride is None:
            dense, stride = 1, []
            for s in reversed(self.shape):
                stride.insert(0, dense)
                dense *= s
            stride = tuple(stride)
        return self.function, (
            self.storage, self.offset, self.shape, stride, False, OrderedDict(), *self.more,
        )


@dataclass
class Call:
    """Pickles as a call of a name."""

    function: Callable[..., Any]
    args: tuple[Any, ...]

    def __reduce__(self) -> Any:
        return self.function, self.args


def pickled(obj: Any, protocol: int = 2) -> bytes:
    out = io.BytesIO()
    _Pickler(out, protocol=protocol).dump(obj)
    return out.getvalue()


def python2(state: dict[str, Any]) -> bytes:
    """A state dict as Python 2 pickled it: an OrderedDict called with its pairs."""
    numbered(state)
    for t in state.values():
        t.storage.view = (None,)
    out = io.BytesIO()
    pairs = [[label, t] for label, t in state.items()]
    _Python2Pickler(out, protocol=2).dump(Call(name("collections", "OrderedDict"), (pairs,)))
    return out.getvalue()


def floats(*values: float) -> Storage:
    return Storage("FloatStorage", struct.pack(f"<{len(values)}f", *values), 4)


def numbered(tensors: dict[str, Any]) -> list[Storage]:
    """The storages of a state dict, each once, with their keys set."""
    out: list[Storage] = []
    for t in tensors.values():
        if not isinstance(t, Tensor) or not isinstance(t.storage, Storage):
            continue
        if not any(s is t.storage for s in out):
            t.storage.key = t.storage.key or str(len(out))
            out.append(t.storage)
    return out


def archive(entries: list[tuple[str, bytes]], folder: str = "archive/", method: int = 0) -> bytes:
    """A zip archive as torch's, with these entries."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as z, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a name may appear twice: that is a case
        for label, data in entries:
            info = zipfile.ZipInfo(folder + label)
            info.compress_type = method
            z.writestr(info, data)
    return out.getvalue()


def entries(obj: Any, protocol: int = 2) -> list[tuple[str, bytes]]:
    """What torch.save puts into the archive of a state dict."""
    storages = numbered(obj)
    return [
        ("data.pkl", pickled(obj, protocol)),
        ("byteorder", b"little"),
        *((f"data/{s.key}", s.data) for s in storages),
        ("version", b"3\n"),
    ]


@dataclass
class Legacy:
    """The five pickles and the data of the format before 1.6."""

    obj: Any
    protocol: int = 2
    magic: Any = MAGIC
    version: Any = VERSION
    system: Any = field(default_factory=lambda: {
        "protocol_version": VERSION, "little_endian": True,
        "type_sizes": {"short": 2, "int": 4, "long": 4},
    })
    pickle: bytes | None = None  # instead of obj's
    keys: Any = None  # instead of the true ones
    count: int | None = None  # instead of the first storage's number of elements

    def bytes(self) -> bytes:
        storages = numbered(self.obj)
        for s in storages:
            s.view = s.view or (None,)
        obj = pickled(self.obj, self.protocol) if self.pickle is None else self.pickle
        keys = [s.key for s in storages] if self.keys is None else self.keys
        parts = [pickled(v, self.protocol) for v in (self.magic, self.version, self.system)]
        parts += [obj, pickled(keys, self.protocol)]
        for i, s in enumerate(storages):
            count = self.count if i == 0 and self.count is not None else s.number()
            parts += [struct.pack("<q", count), s.data]
        return b"".join(parts)
