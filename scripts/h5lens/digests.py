"""Digests of datasets, names and attributes, as `h5lens verify` computes them."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import h5py
import numpy as np

from .datasets import _address, _datasets, _is_string
from .names import H5LensError


@dataclass
class Verification:
    """What `Run.verify` found. True as a condition when everything matched."""

    matched: list[str] = field(default_factory=list)
    wrong: dict[str, str] = field(default_factory=dict)  # dataset, or "/" for names and attributes: what is wrong

    def __bool__(self) -> bool:
        return bool(self.matched) and not self.wrong


def _chunk_hash(file: h5py.File) -> tuple[Callable[[bytes], bytes], int]:
    """How the file's chunks are hashed, and the bytes of such a digest. Files of schema 1 do not say it."""
    kind = file.attrs.get("digest", "sha256")
    kind = kind.decode() if isinstance(kind, bytes) else kind
    if kind == "sha256":
        return lambda chunk: hashlib.sha256(chunk).digest(), 32
    if kind != "xxh3-128":
        raise H5LensError(f"{file.filename}: its digests are of the kind '{kind}', and this reader can verify xxh3-128 and "
                          "sha256: `h5lens verify`, or the reader of the h5lens that wrote it (reading works)")
    try:
        import xxhash
    except ImportError as e:
        raise ImportError(f"{file.filename}: to verify its chunks takes the package xxhash (pip install xxhash), "
                          "or `h5lens verify`; reading works without") from e
    return xxhash.xxh3_128_digest, 16


def dataset_digest(d: h5py.Dataset) -> str:
    """The SHA-256 by which h5lens knows a dataset's content, as hex.

    Chunked numbers: over the chunks' own digests (XXH3-128 or SHA-256, as the file's attribute `digest` says) in
    row-major order of the chunk grid, with as many zero bytes, 16 or 32, for a chunk that was never written. Strings:
    over each string and a NUL byte.
    """
    total = hashlib.sha256()
    if _is_string(d):
        for first in range(0, d.shape[0], 4096):
            for text in d[first:first + 4096].ravel():
                total.update((text if isinstance(text, bytes) else text.encode()) + b"\0")
        return total.hexdigest()
    if d.chunks is None:
        raise H5LensError("neither chunked nor strings")
    chunk_hash, n_bytes = _chunk_hash(d.file)
    grid = [range(0, n, c) for n, c in zip(d.shape, d.chunks)]
    for offset in itertools.product(*grid):
        if d.id.get_chunk_info_by_coord(offset).byte_offset is None:
            total.update(bytes(n_bytes))
        else:
            total.update(chunk_hash(d.id.read_direct_chunk(offset)[1]))
    return total.hexdigest()


def file_digest(file: h5py.File) -> str:
    """The SHA-256 by which h5lens knows a file, as hex: over its names and attributes.

    The attributes of "/" but for `sha256` itself; then for each name of a dataset, in the order of the bytes, that name
    and the first name of the same dataset, and at the first its attributes. A NUL byte follows each text.
    """
    names: list[tuple[bytes, int]] = []

    def visit(name: bytes, link: Any) -> None:
        if link.type == h5py.h5l.TYPE_HARD:
            info = h5py.h5o.get_info(file.id, name)
            if info.type == h5py.h5o.TYPE_DATASET:
                names.append((b"/" + name, int(info.addr)))

    file.id.links.visit(visit, info=True)
    total, first = hashlib.sha256(), dict[int, bytes]()
    for text in _attribute_texts(file, but="sha256"):
        total.update(text + b"\0")
    for name, address in sorted(names):
        known_as = first.setdefault(address, name)
        total.update(name + b"\0" + known_as + b"\0")
        if known_as == name:
            for text in _attribute_texts(file[name]):
                total.update(text + b"\0")
    return total.hexdigest()


def _attribute_texts(item: h5py.Group | h5py.Dataset, but: str | None = None) -> Iterator[bytes]:
    """Name and text of each attribute that is one string or one whole number, by name."""
    for name in sorted(item.attrs, key=str.encode):
        attr = item.attrs.get_id(name)
        if name != but and attr.get_type().get_class() in (h5py.h5t.STRING, h5py.h5t.INTEGER) \
                and attr.get_space().get_simple_extent_npoints() == 1:
            value = np.ravel(item.attrs[name])[0]
            yield name.encode()
            yield value if isinstance(value, bytes) else str(value).encode(errors="surrogateescape")


def _verify_file(file: h5py.File, prefix: str, found: Verification) -> None:
    try:
        own = file.attrs.get("sha256")
        fault = "has no digest" if own is None else \
            "names or attributes differ from the file's digest" if file_digest(file) != own else None
    except (OSError, RuntimeError, ValueError, KeyError) as e:
        fault = f"names or attributes cannot be read ({e})"
    if fault:
        found.wrong[prefix + "/"] = fault
    else:
        found.matched.append(prefix + "/")
    digest: dict[int, str] = {}  # an alias is not read again
    for name, d in _datasets(file):
        if d.is_virtual and not prefix:  # its data is verified in the shards
            continue
        want = d.attrs.get("sha256")
        want = want.decode() if isinstance(want, bytes) else want
        if want is None:
            if not d.is_scale:
                found.wrong[prefix + name] = "has no digest"
            continue
        try:
            if (key := _address(d)) not in digest:
                digest[key] = dataset_digest(d)
        except (OSError, ValueError, H5LensError) as e:
            found.wrong[prefix + name] = str(e)
            continue
        if digest[key] == want:
            found.matched.append(prefix + name)
        else:
            found.wrong[prefix + name] = "differs from its digest"
