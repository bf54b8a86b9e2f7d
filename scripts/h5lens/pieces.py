"""What a tokenizer's tokens are as bytes and text."""

from __future__ import annotations

import hashlib
import json
import os
import re
from pathlib import Path
from typing import Any

from .names import H5LensError


def load_pieces(where: str | os.PathLike[str], alone: bool = False) -> dict[int, bytes]:
    """Token id → bytes, from a tokenizer.json (or the model directory that holds it, or GPT-2's vocab.json).

    Added tokens that only tokenizer_config.json or added_tokens.json beside it has are there too.
    The pieces of a text in a row are the text. With alone=True each is what its tokenizer decodes it to by itself,
    which is what TransformerLens's to_str_tokens shows: Llama's takes off a leading space, "▁Mary" is "Mary".
    """
    path = Path(where)
    if path.is_dir():
        whole, vocab = path / "tokenizer.json", path / "vocab.json"
        path = vocab if vocab.exists() and not whole.exists() else whole
    spec = json.loads(path.read_text(encoding="utf-8"))
    if "model" not in spec:
        spec = {"model": {"vocab": spec}}
    decoder = spec.get("decoder") or {"type": "ByteLevel"}
    steps = decoder.get("decoders", [decoder])
    known = {"ByteLevel", "Replace", "ByteFallback", "Fuse", "Strip", "Metaspace"}
    for step in steps:
        if step["type"] not in known or "Regex" in step.get("pattern", ()):
            raise H5LensError(f"{path}: the decoder {json.dumps(step)} is unknown to this reader")
    if not isinstance(spec["model"]["vocab"], dict):
        raise H5LensError(f"{path}: a vocabulary of the type {spec['model'].get('type')} is unknown to this reader")
    added = _json_object(path.parent / "tokenizer_config.json").get("added_tokens_decoder") or {}
    texts = {token: text for text, token in _json_object(path.parent / "added_tokens.json").items()}
    texts |= {int(token): value["content"] for token, value in added.items()}
    texts |= {token: text for text, token in spec["model"]["vocab"].items()}
    texts |= {token["id"]: token["content"] for token in spec.get("added_tokens", [])}
    return {token: _decoded(text, steps, alone) for token, text in texts.items()}


def tokenizer_digest(folder: str | os.PathLike[str]) -> str:
    """The SHA-256 by which h5lens knows a model directory's tokenizer, as hex: a run's attribute `sha256_tokenizer`."""
    folder, total = Path(folder), hashlib.sha256()
    small = [n for n in ("tokenizer_config.json", "special_tokens_map.json") if (folder / n).exists()]
    whole = ["tokenizer.json"] if (folder / "tokenizer.json").exists() else ["vocab.json", "merges.txt"]
    no_bos = all(_json_object(folder / name).get("bos_token") is None for name in small)
    for name in [*small, *whole, *(["config.json"] if no_bos else [])]:
        if (folder / name).exists():
            data = (folder / name).read_bytes()
            total.update(name.encode() + b"\0" + len(data).to_bytes(8, "little") + data)
    return total.hexdigest()


def _json_object(path: Path) -> dict[str, Any]:
    """Of a file that may be missing, or be no JSON object."""
    try:
        got = json.loads(path.read_bytes())
    except (FileNotFoundError, ValueError):
        return {}
    return got if isinstance(got, dict) else {}


_PLAIN = [*range(33, 127), *range(161, 173), *range(174, 256)]
_BYTE_OF = {chr(b): b for b in _PLAIN} | {chr(256 + i): b for i, b in enumerate(sorted({*range(256)} - {*_PLAIN}))}


def _decoded(text: str, steps: list[dict[str, Any]], alone: bool) -> bytes:
    """A token's text as the steps of a tokenizer.json's decoder read it."""
    got = text.encode()
    for step in steps:
        kind = step["type"]
        if kind == "ByteLevel" and all(c in _BYTE_OF for c in text):
            got = bytes(_BYTE_OF[c] for c in text)
        elif kind == "Replace":
            got = got.replace(step["pattern"]["String"].encode(), step["content"].encode())
        elif kind == "ByteFallback" and re.fullmatch(rb"<0x[0-9A-Fa-f]{2}>", got):
            got = bytes([int(got[3:5], 16)])
        elif kind == "Metaspace":
            bare = alone and step.get("prepend_scheme", "always") != "never"
            got = got.replace(step["replacement"].encode(), b"" if bare else b" ")
        elif kind == "Strip" and alone:
            for _ in range(step["start"]):
                got = got.removeprefix(step["content"].encode())
            for _ in range(step["stop"]):
                got = got.removesuffix(step["content"].encode())
    return got
