"""The pytorch_model.bin files that h5lens must refuse: cases of make_invalid_models.py.

Each has a state dict of one or two small tensors and one thing wrong. What is
too large to keep (deep nesting) is made by tests/unit/test_torchbin.c itself.
"""

import struct
import zipfile
from collections import OrderedDict
from typing import Any, Callable

import torch_files as tf
from torch_files import Call, Legacy, Storage, Tensor, floats, name

BIN = "pytorch_model.bin"
INDEX = BIN + ".index.json"
X = "h.0.ln_1.weight"
UTILS = "torch._utils"

Case = Callable[..., Callable[[Callable[[Any], Any]], None]]


def good() -> dict[str, Any]:
    return {X: Tensor(floats(1, 2, 3, 4), (4,))}


def one(**change: Any) -> dict[str, Any]:
    """A dict of one tensor, other than it should be."""
    t = Tensor(floats(1, 2, 3, 4), (4,))
    for key, value in change.items():
        setattr(t, key, value)
    return {X: t}


def stored(**change: Any) -> dict[str, Any]:
    """A dict of one tensor whose storage is other than it should be."""
    out = good()
    for key, value in change.items():
        setattr(out[X].storage, key, value)
    return out


def packed(obj: Any, protocol: int = 2) -> bytes:
    return tf.archive(tf.entries(obj, protocol))


def with_pickle(data: bytes) -> bytes:
    """An archive with any bytes as its pickle."""
    return tf.archive([("data.pkl", data), ("byteorder", b"little"), ("data/0", bytes(16))])


def opcodes(data: bytes) -> bytes:
    return with_pickle(b"\x80\x02" + data)


def edited(**change: Any) -> bytes:
    """The good archive with entries replaced (a name's "/" is "__"), or taken away by None."""
    entries = dict(tf.entries(good()))
    for key, value in change.items():
        entries[key.replace("__", "/")] = value
    return tf.archive([(k, v) for k, v in entries.items() if v is not None])


def twice() -> bytes:
    """The good pickle with its one SETITEM repeated."""
    obj = good()
    tf.numbered(obj)
    whole = tf.pickled(obj)
    item = whole[len(b"\x80\x02}q\x00"):-1]
    return whole[:-1] + item + b"."


def patched(data: bytes, at: int, new: bytes) -> bytes:
    return data[:at] + new + data[at + len(new):]


def central(data: bytes, label: str) -> int:
    """Where the archive's directory describes an entry."""
    return data.rindex(label.encode()) - 46


def torch_cases(case: Case) -> None:
    def file_case(label: str, says: str, data: bytes, *more: str) -> None:
        def change(m: Any) -> None:
            m.files = {}
            m.raw[BIN] = data

        case("bin-" + label, f"bin-{label}/{BIN}", says, *more)(change)

    for group in (names, machine, objects, storages, tensors, archives, legacies, others):
        group(file_case)
    indices(case)


FileCase = Callable[..., None]


def names(add: FileCase) -> None:
    system = name("os", "system")
    add("os-system", "asks for os.system, which is not tensor data",
        packed({X: Call(system, ("touch /tmp/owned",))}))
    add("os-system-old", "asks for os.system, which is not tensor data",
        Legacy({X: Call(system, ("touch /tmp/owned",))}).bytes())
    add("eval", "asks for __builtin__.eval", packed({X: Call(name("__builtin__", "eval"), ("1",))}))
    add("eval-protocol-4", "asks for builtins.eval",
        packed({X: Call(name("builtins", "eval"), ("1",))}, 4))
    add("getattr-dotted", "asks for torch._utils._rebuild_tensor_v2.__globals__",
        packed({X: Call(name(UTILS, "_rebuild_tensor_v2.__globals__"), ())}, 4))
    add("subclass", "asks for torch._tensor._rebuild_from_type_v2",
        packed({X: Call(name("torch._tensor", "_rebuild_from_type_v2"), (1, 2, 3, 4))}))
    add("quantized", "asks for torch._utils._rebuild_qtensor",
        packed({X: Call(name(UTILS, "_rebuild_qtensor"), (1, 2))}))
    add("storage-unknown", "asks for torch.FunnyStorage", packed(stored(cls="FunnyStorage")))
    add("name-binary", "asks for o?[31ms.s?ystem", opcodes(b"co\x1b[31ms\ns\x00ystem\n."))
    add("name-empty", "asks for ., which", opcodes(b"c\n\n."))
    add("name-not-text", "a name is not a string", opcodes(b"K\x01K\x02\x93."))
    add("call-storage", "calls torch.FloatStorage",
        packed({X: Call(name("torch", "FloatStorage"), (4,))}))
    add("call-arguments", "a call with 2 arguments",
        packed({X: Call(name(UTILS, "_rebuild_tensor_v2"), (1, 2))}))
    add("call-list", "calls a class or function with a list",
        opcodes(b"ccollections\nOrderedDict\n]R."))
    add("call-number", "calls an integer with a tuple", opcodes(b"K\x01)R."))


def machine(add: FileCase) -> None:
    for label, data in [("newobj", b"ccollections\nOrderedDict\n)\x81."),
                        ("inst", b"(ios\nsystem\n."),
                        ("obj", b"(o."), ("ext1", b"\x82\x01."), ("dup", b"N2."), ("int", b"I1\n."),
                        ("binbytes", b"B\x00\x00\x00\x00."), ("persid", b"Pstorage\n.")]:
        add(f"opcode-{label}", f"opcode {label.upper()} is not how torch writes tensors",
            opcodes(data))
    add("opcode-none", "0xff is not an opcode", opcodes(b"\xff."))
    add("memo-missing", "memo 7 is read and was never set", opcodes(b"h\x07."))
    add("memo-gap", "memo 2147483648 comes after memo 0", opcodes(b"Nr\x00\x00\x00\x80."))
    add("memo-empty-stack", "takes from an empty stack", opcodes(b"q\x00."))
    add("stack-empty", "takes from an empty stack", opcodes(b"\x86."))
    add("stack-never-used", "takes from an empty stack", opcodes(b"(u."))
    add("stack-past-mark", "takes from an empty stack", opcodes(b"NN(\x86."))
    add("stack-left", "stops with 2 values", opcodes(b"NN."))
    add("stack-nothing", "stops with 0 values", opcodes(b"."))
    add("mark-left", "stops with 1 values", opcodes(b"(N."))
    add("mark-missing", "has no MARK", opcodes(b"}u."))
    add("append-to-tuple", "puts something into a tuple; only a list", opcodes(b")Na."))
    add("setitem-of-none", "puts something into None; only a dict", opcodes(b"NNNs."))
    add("setitems-odd", "a key of a dict has no value", opcodes(b"}(Nu."))
    add("build-list", "puts something into a list; only a dict", opcodes(b"]}b."))
    add("no-stop", "has no end", opcodes(b"N"))
    add("no-opcodes", "has no end", with_pickle(b""))
    add("opcode-truncated", "in the middle of an opcode", opcodes(b"J\x00"))
    add("text-truncated", "in the middle of an opcode", opcodes(b"X\xff\xff\xff\xffa."))
    add("text-huge", "in the middle of an opcode", opcodes(b"\x8d" + b"\xff" * 8 + b"a."))
    add("long-truncated", "in the middle of an opcode", opcodes(b"\x8b\xff\xff\xff\x7f."))
    add("name-truncated", "in the middle of a name", opcodes(b"cos"))
    add("text-not-utf8", "a string is not UTF-8", opcodes(b"U\x02\xff\xfe."))
    add("protocol-9", "pickle protocol 9", with_pickle(b"\x80\x09N."))
    add("frame-long", "a frame ends past its end",
        with_pickle(b"\x80\x04\x95" + struct.pack("<Q", 2**63) + b"N."))


def objects(add: FileCase) -> None:
    add("list", "holds a list, not a dict of tensors", opcodes(b"]."))
    add("tensor-alone", "holds a tensor, not a dict",
        tf.archive([("data.pkl", tf.pickled(Tensor(floats(1), (1,)))), ("data/0", bytes(4))]))
    add("entry-number", 'entry "step" is an integer, not a tensor', packed({**good(), "step": 3}))
    add("entry-none", 'entry "step" is None', packed({**good(), "step": None}))
    add("entry-model", 'entry "model" is a dict, not a tensor (only "state_dict"',
        packed({"model": good()}))
    add("key-number", "a key of its dict is an integer", packed({1: good()[X]}))
    add("key-control", "control characters", packed({"a\nb": good()[X]}))
    add("key-empty", "its name is empty", packed({"": good()[X]}))
    add("duplicate-tensor", f'tensor "{X}" appears twice', edited(**{"data.pkl": twice()}))
    add("two-state-dicts", 'two dicts named "state_dict"',
        opcodes(b"}(U\nstate_dict}U\nstate_dict}u."))
    add("dict-empty", 'is missing', packed({}))
    add("ordered-dict-of-text", "an OrderedDict of a string",
        packed({X: Call(name("collections", "OrderedDict"), ("ab",))}))
    add("ordered-dict-of-singles", "an OrderedDict of something that is not a pair",
        packed({X: Call(name("collections", "OrderedDict"), ([["a"]],))}))


def storages(add: FileCase) -> None:
    def identity(*values: Any) -> dict[str, Any]:
        return stored(identity_is=values, key="0")

    cls = name("torch", "FloatStorage")
    add("storage-missing", 'storage "0": its data are missing', edited(data__0=None))
    add("storage-long", 'storage "0": its size is not what', edited(data__0=bytes(20)))
    add("storage-short", 'storage "0": its size is not what', edited(data__0=bytes(12)))
    add("storage-two-ways", 'storage "0": it is described in two ways', Legacy(
        {X: Tensor(Storage("FloatStorage", bytes(16), 4, "0"), (4,)),
         "y": Tensor(Storage("HalfStorage", bytes(16), 2, "0"), (8,))}).bytes())
    add("storage-count-wraps", "is impossible", packed(stored(count=2**62)))
    add("storage-count-negative", "is impossible", packed(stored(count=-4)))
    add("storage-count-long", "is impossible", packed(stored(count=2**70)))
    add("storage-count-text", "is impossible", packed(stored(count="4")))
    add("storage-view", "a view of another one", packed(stored(view=(("1", 0, 4),))))
    add("storage-key-number", "its key is not a string",
        packed(identity("storage", cls, 0, "cpu", 4)))
    add("storage-class", "its class is not a storage",
        packed(identity("storage", name("torch", "float32"), "0", "cpu", 4)))
    add("storage-identity-short", "not what torch writes", packed(identity("storage", cls)))
    add("storage-identity-other", "not what torch writes",
        packed(identity("tensor", cls, "0", "cpu", 4)))
    add("storage-identity-text", "not what torch writes", opcodes(b"U\x01xQ."))
    add("module", "holds a module, not only its tensors",
        packed(identity("module", cls, "model.py", "class Model: pass")))


def tensors(add: FileCase) -> None:
    def tensor_case(label: str, says: str, obj: dict[str, Any]) -> None:
        add(label, says, packed(obj))

    past, huge = "past the end of its storage", 2**63 - 1
    at = f'tensor "{X}": '
    tensor_case("stride-past-end", at + "its elements lie " + past, one(stride=(2,)))
    tensor_case("stride-huge", at + "its strides overflow", one(stride=(huge,)))
    tensor_case("stride-wraps", at + "its strides overflow", one(shape=(5,), stride=(2**62,)))
    tensor_case("strides-wrap", at + "its strides overflow",
                one(shape=(2, 2, 2), stride=(huge, huge, huge)))
    tensor_case("stride-negative", at + "a dimension or stride is negative", one(stride=(-1,)))
    tensor_case("stride-missing", "as many strides as dimensions", one(stride=()))
    tensor_case("stride-text", "its stride holds a string", one(stride=("1",)))
    tensor_case("stride-number", "its stride is an integer, not a tuple", one(stride=1))
    tensor_case("offset-past-end", at + "its elements lie " + past, one(offset=1))
    tensor_case("offset-huge", at + "its elements lie " + past, one(shape=(1,), offset=huge))
    tensor_case("offset-wraps", at + "its elements lie " + past, one(offset=huge))
    tensor_case("offset-negative", at + "its offset in the storage is negative", one(offset=-1))
    tensor_case("offset-long", "a tensor of a storage at a long integer", one(offset=2**64))
    tensor_case("shape-past-end-of-bin", at + "its elements lie " + past, one(shape=(5,)))
    tensor_case("shape-overflow", at + "its size overflows",
                one(shape=(2**33, 2**33), stride=(0, 0)))
    tensor_case("shape-negative", at + "a dimension or stride is negative",
                one(shape=(-4,), stride=(1,)))
    tensor_case("shape-expanded", at + "with it, the tensors are far larger than the file",
                one(shape=(2**20, 2**20), stride=(0, 0)))
    tensor_case("shape-text", "its shape is a string, not a tuple", one(shape="4", stride=(1,)))
    tensor_case("shape-bool", "its shape holds a bool", one(shape=(True,), stride=(1,)))
    tensor_case("rank-9", "more than 8 dimensions", one(shape=(1,) * 9, stride=(1,) * 9))
    tensor_case("negated", "a negated or conjugated view", one(more=({"neg": True},)))
    tensor_case("dtype-missing", "its dtype is None",
                one(more=(None,), function=name(UTILS, "_rebuild_tensor_v3")))
    tensor_case("dtype-larger", at + "its elements lie " + past,
                one(more=(name("torch", "float64"),), function=name(UTILS, "_rebuild_tensor_v3")))
    tensor_case("parameter-of-dict", "a parameter of a dict",
                {X: Call(name(UTILS, "_rebuild_parameter"), ({}, True, OrderedDict()))})
    tensor_case("storage-none", "a tensor of None at an integer", one(storage=None))


def archives(add: FileCase) -> None:
    data = packed(good())
    add("zip-truncated", "zip archive", data[:-30])
    add("zip-only-start", "zip archive", data[:64])
    deflated = tf.archive(tf.entries(good()), method=zipfile.ZIP_DEFLATED)
    add("zip-compressed", 'entry "archive/data.pkl": it is compressed', deflated)
    bomb = tf.archive(tf.entries(stored(data=bytes(1 << 20))), method=zipfile.ZIP_DEFLATED)
    add("zip-bomb", "it is compressed", bomb)
    at = central(data, "archive/data/0")
    add("zip-crc", 'entry "data/0": its bytes are damaged',
        data.replace(struct.pack("<4f", 1, 2, 3, 4), struct.pack("<4f", 1, 2, 3, 5)))
    add("zip-size-huge", "its size is wrong",
        patched(data, at + 20, struct.pack("<II", 2**31, 2**31)))
    add("zip-sizes-differ", "its size is wrong", patched(data, at + 24, struct.pack("<I", 8)))
    add("zip-offset", "damaged", patched(data, at + 42, struct.pack("<I", 2**31)))
    add("zip-encrypted", "it is encrypted", patched(data, at + 8, b"\x01\x00"))
    add("zip-method", "it is compressed", patched(data, at + 10, b"\x0e\x00"))
    entries = tf.entries(good())
    add("zip-duplicate", 'entry "data/0": it appears twice',
        tf.archive(entries + [("data/0", bytes(16))]))
    add("zip-no-folder", "keeps all of them in one folder", tf.archive(entries, folder=""))
    add("zip-two-folders", 'entry "archive/data.pkl": torch.save keeps all',
        tf.archive([("a/version", b"3\n")] + [("archive/" + k, v) for k, v in entries],
                   folder=""))
    add("zip-no-pickle", "without data.pkl", edited(**{"data.pkl": None}))
    add("zip-only-directory", "not a file that torch.save wrote", tf.archive([]))
    add("big-endian", "big-endian", edited(byteorder=b"big"))
    add("byteorder-unknown", "its byteorder is unknown", edited(byteorder=b"middle"))
    add("byteorder-long", "its byteorder is unknown", edited(byteorder=b"little little"))
    add("torchscript", "a TorchScript archive holds code",
        edited(**{"constants.pkl": b"\x80\x02)."}))


def legacies(add: FileCase) -> None:
    data = Legacy(good()).bytes()
    add("old-magic", "without torch.save's magic number", Legacy(good(), magic=2**70).bytes())
    add("old-magic-number", "without torch.save's magic number", Legacy(good(), magic=1).bytes())
    add("old-version", "not version 1001", Legacy(good(), version=1002).bytes())
    add("old-big-endian", "big-endian", Legacy(good(), system={"little_endian": False}).bytes())
    add("old-no-endian", "which byte order", Legacy(good(), system={}).bytes())
    add("old-system-list", "which byte order", Legacy(good(), system=[]).bytes())
    add("old-truncated-data", 'storage "0": its data lie past the end', data[:-1])
    add("old-truncated-count", 'storage "0": its data lie past the end', data[:-17])
    add("old-truncated-keys", "pickle", data[:-26])
    add("old-truncated-object", "pickle", data[:150])
    add("old-count", 'storage "0": its size is not what', Legacy(good(), count=5).bytes())
    add("old-count-negative", 'storage "0": its size is not what', Legacy(good(), count=-1).bytes())
    add("old-keys-unknown", "data of a storage that no tensor has",
        Legacy(good(), keys=["1"]).bytes())
    add("old-keys-numbers", "data of a storage that no tensor has",
        Legacy(good(), keys=[0]).bytes())
    add("old-keys-twice", 'storage "0": its data appear twice',
        Legacy(good(), keys=["0", "0"]).bytes())
    add("old-keys-none", 'storage "0": its data are missing', Legacy(good(), keys=[]).bytes())
    add("old-keys-dict", "keys are not a list", Legacy(good(), keys={}).bytes())
    add("old-pickle-only", "without torch.save's magic number", tf.pickled({"a": 1}))


def others(add: FileCase) -> None:
    add("tar", "a tar archive of torch before 0.1.10",
        patched(bytes(1024), 0, b"sys_info")[:257] + b"ustar\x0000" + bytes(500))
    add("html", "not a file that torch.save wrote", b"<!doctype html><title>401</title>\n")
    add("lfs", "git lfs pull", b"version https://git-lfs.github.com/spec/v1\n"
        b"oid sha256:" + b"0" * 64 + b"\nsize 548118077\n")
    add("empty", "empty", b"")
    add("one-byte", "not a file that torch.save wrote", b"P")


def indices(case: Case) -> None:
    def points_to(target: Any) -> Callable[[Any], None]:
        def change(m: Any) -> None:
            m.files = {}
            m.raw["pytorch_model-00001-of-00002.bin"] = packed(good())
            text = f'{{"weight_map": {{"{X}": "{target}"}}}}\n'
            m.raw[INDEX] = text.encode()

        return change

    for label, target in [("outside", "../../../golden/data/gpt2_gelu/model.safetensors"),
                          ("parent", ".."), ("absolute", "/etc/passwd"), ("empty-name", "")]:
        case(f"bin-index-{label}", INDEX, f'tensor "{X}"', "not a plain file name")(
            points_to(target))
    case("bin-index-missing-shard", "pytorch_model-2.bin", "No such file")(
        points_to("pytorch_model-2.bin"))
    case("bin-index-config", "config.json", "not a file that torch.save wrote")(
        points_to("config.json"))

    @case("bin-index-duplicate-tensor", "pytorch_model-0000", f'tensor "{X}" is in two files')
    def _(m: Any) -> None:
        m.files = {}
        for i in (1, 2):
            m.raw[f"pytorch_model-0000{i}-of-00002.bin"] = packed(good())
        m.raw[INDEX] = (
            f'{{"weight_map": {{"{X}": "pytorch_model-00001-of-00002.bin", '
            '"y": "pytorch_model-00002-of-00002.bin"}}\n').encode()

    @case("bin-index-no-map", INDEX, "has no weight_map")
    def _(m: Any) -> None:
        m.files = {}
        m.raw[INDEX] = b"{}"
