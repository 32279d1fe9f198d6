"""A file of torch.save in, its content out, without executing anything that the file names.

Enters: a `.pth` file of the zip format, from anybody. Leaves: numbers, texts, Python's containers and descriptions of
tensors, which are read one by one; whatever else the pickle names is replaced by an inert object or refused. Never
imports a name of the file, never reads a record that is larger than the file.
"""

import io
import pickle
import pickletools
import struct
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import file_digest
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor

from training.errors import TrainingError

MAX_PICKLE_BYTES: Final = 32 * 1024 * 1024  # the published one's is some hundred kilobytes
MAX_RECORD_BYTES: Final = 64 * 1024 * 1024  # the largest tensor of the network takes under one megabyte

_DTYPES: Final[Mapping[str, torch.dtype]] = {
    "FloatStorage": torch.float32,
    "DoubleStorage": torch.float64,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}


_DAMAGED: Final = (
    pickle.UnpicklingError,
    EOFError,
    LookupError,
    ValueError,
    TypeError,
    AttributeError,
    ArithmeticError,
    MemoryError,
    NotImplementedError,
    RecursionError,
    struct.error,
)
"""What an unpickler raises on broken bytes."""


class RefusedError(Exception):
    """What is wrong with the file, without its name."""


def _refuse_state(_: Any, __: Any) -> None:
    """A `__setstate__`: a frozen dataclass with slots has one of its own, by which BUILD would go round every check."""
    raise RefusedError("its pickle changes a tensor's description")


@dataclass(frozen=True, slots=True)
class _Storage:
    dtype: torch.dtype
    key: str

    __setstate__ = _refuse_state


@dataclass(frozen=True, slots=True)
class Described:
    """A tensor that has not been read: its storage, and in elements where it starts, its size and strides."""

    storage: _Storage
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]

    __setstate__ = _refuse_state


class TorchFile:
    """An open file of torch.save; its records lie in one folder of the archive, stored without compression.

    Attributes:
        sha256: of the file, hex.
        content: what was saved; tensors are `Described`.
    """

    def __init__(self, archive: zipfile.ZipFile, sha256: str) -> None:
        self.sha256 = sha256
        self._archive = archive
        names = [name for name in archive.namelist() if name == "data.pkl" or name.endswith("/data.pkl")]
        if len(names) != 1:
            raise RefusedError("a zip file, but not of torch.save (no data.pkl)")
        self._folder = names[0].removesuffix("data.pkl")
        if f"{self._folder}byteorder" in archive.namelist() and self._read("byteorder", 16).strip() != b"little":
            raise RefusedError("its numbers are not little endian")

        pickled = self._read("data.pkl", MAX_PICKLE_BYTES)
        try:
            _check_memo(pickled)
            self.content = _Tensors(io.BytesIO(pickled)).load()
        except _DAMAGED as error:
            raise RefusedError(f"its pickle is damaged ({type(error).__name__})") from error

    def _read(self, name: str, most: int) -> bytes:
        try:
            record = self._archive.getinfo(self._folder + name)
        except KeyError as error:
            raise RefusedError(f"the record {name[:40]} is missing") from error
        # Only a stored record is bounded by the size of the file.
        if record.compress_type != zipfile.ZIP_STORED or record.flag_bits & 1 or record.file_size > most:
            raise RefusedError(f"the record {name[:40]} is compressed, encrypted or larger than {most} bytes")
        return self._archive.read(record)

    def tensor(self, described: Described) -> Tensor:
        """Read a tensor.

        Raises:
            RefusedError: its record is missing, compressed, too large, or smaller than the tensor.
        """
        # A copy that can be written: torch warns of any other.
        content = bytearray(self._read(f"data/{described.storage.key}", MAX_RECORD_BYTES))
        dtype = described.storage.dtype
        reach = described.offset + sum((n - 1) * step for n, step in zip(described.size, described.stride, strict=True))
        if len(content) % dtype.itemsize or reach >= len(content) // dtype.itemsize:
            raise RefusedError("a tensor reaches beyond its record")
        storage = torch.frombuffer(content, dtype=dtype)
        return storage.as_strided(described.size, described.stride, described.offset).clone()


class _Inert:
    """Stands for an object that is not needed (a part of the optimizer's or scheduler's state); takes anything."""

    def __init__(self, *_: Any, **__: Any) -> None:
        pass

    def __setstate__(self, _: Any) -> None:
        pass

    def __setitem__(self, _: Any, __: Any) -> None:
        pass

    def append(self, _: Any) -> None:
        pass

    def extend(self, _: Any) -> None:
        pass

    def add(self, _: Any) -> None:
        pass


class _Mapping(dict[Any, Any]):
    """An OrderedDict; its attributes (the versions of modules) are not needed."""

    def __setstate__(self, _: Any) -> None:
        pass


class _NumberType(_Inert):
    """A numpy.dtype, of which only the little-endian ones of plain numbers mean something."""

    def __init__(self, name: Any = "", *_: Any) -> None:
        self.name = str(name)


class _Number:
    """A numpy scalar as a Python number; None for one that is no plain number."""

    __slots__ = ()

    def __call__(self, kind: Any = None, content: Any = b"") -> float | int | None:
        name = getattr(kind, "name", "").lstrip("<")
        code = {"f8": "d", "f4": "f", "f2": "e", "i8": "q", "i4": "i", "b1": "?"}.get(name)
        if code is None or not isinstance(content, bytes) or len(content) != struct.calcsize("<" + code):
            return None
        value: float | int = struct.unpack("<" + code, content)[0]
        return value


class _Latin1:
    """What `_codecs.encode` does in pickles of protocol 2, where bytes are written as text."""

    __slots__ = ()

    def __call__(self, text: Any, _: Any = None) -> bytes | None:
        return text.encode("latin-1") if isinstance(text, str) else None


class _Rebuilt:
    """A tensor, not read yet; inert where it is empty or none of torch.save's."""

    __slots__ = ()

    def __call__(self, storage: Any, offset: Any, size: Any, stride: Any, *_: Any) -> "Described | _Inert":
        numbers = [offset, *size, *stride]
        if not isinstance(storage, _Storage) or len(size) != len(stride) or 0 in size:
            return _Inert()
        if not all(type(number) is int and 0 <= number <= MAX_RECORD_BYTES for number in numbers):
            return _Inert()
        return Described(storage, offset, tuple(size), tuple(stride))


class _Parameter:
    """A parameter is the tensor in it."""

    __slots__ = ()

    def __call__(self, data: Any, *_: Any) -> Any:
        return data


# Objects without a place for attributes, not functions: a pickle's BUILD would set a function's.
_BUILT: Final[Mapping[tuple[str, str], Callable[..., Any]]] = {
    ("torch._utils", "_rebuild_tensor_v2"): _Rebuilt(),
    ("torch._utils", "_rebuild_parameter"): _Parameter(),
    ("collections", "OrderedDict"): _Mapping,
    ("_codecs", "encode"): _Latin1(),
    ("numpy", "dtype"): _NumberType,
    ("numpy.core.multiarray", "scalar"): _Number(),
    ("numpy._core.multiarray", "scalar"): _Number(),
}
_HARMLESS: Final = frozenset({"torch", "numpy", "collections"})
"""Packages whose other names stand for parts of a training state: replaced by `_Inert`, never looked up."""


def _check_memo(pickled: bytes) -> None:
    """Refuse a place in the memo that no pickle of this length needs: the unpickler would reserve memory up to it."""
    for opcode, argument, _ in pickletools.genops(pickled):
        if opcode.name in ("PUT", "BINPUT", "LONG_BINPUT") and isinstance(argument, int) and argument > len(pickled):
            raise RefusedError("its pickle is damaged (memo)")


class _Tensors(pickle.Unpickler):
    """Builds what `_BUILT` names and nothing else: no name of the file is ever imported."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in _BUILT:
            return _BUILT[module, name]
        if module == "torch" and name in _DTYPES:
            return _DTYPES[name]
        if module.partition(".")[0] in _HARMLESS:
            return _Inert
        raise RefusedError(
            f"its pickle names {f'{module}.{name}'[:80]!r}, which a checkpoint has no use for: not loaded"
        )

    def persistent_load(self, pid: Any) -> Any:
        match pid:
            case ("storage", torch.dtype() as dtype, str() as key, str(), int()) if key.isdigit():
                return _Storage(dtype, key)
            case ("storage", *_):
                return _Inert()
        raise RefusedError("its pickle refers to something that is not a tensor's storage")


@contextmanager
def open_torch_file(path: Path) -> Iterator[TorchFile]:
    """Open a file of torch.save; every error, and a `RefusedError` of the caller, becomes one line that names the file.

    Raises:
        TrainingError: it cannot be read, is not of torch.save's zip format, is cut short, or names something that a
            checkpoint has no use for.
    """
    try:
        with path.open("rb") as file:
            sha256 = file_digest(file, "sha256").hexdigest()
            file.seek(0)
            start = file.read(8)
            if not zipfile.is_zipfile(file):
                raise RefusedError(_not_zip(start))
            with zipfile.ZipFile(file) as archive:
                yield TorchFile(archive, sha256)
    except OSError as error:
        raise TrainingError(f"{path}: cannot be read: {error.strerror or error}") from error
    except (zipfile.BadZipFile, EOFError, NotImplementedError) as error:
        raise TrainingError(f"{path}: the zip file is damaged: {error}") from error
    except RefusedError as error:
        raise TrainingError(f"{path}: {error}") from error


def _not_zip(start: bytes) -> str:
    if start.startswith(b"PK\x03\x04"):
        return "the zip file is cut short"
    if start.startswith((b"\x80\x02\x8a\x0a", b"\x80\x04\x8a\x0a")):  # the magic number of torch before 1.6, pickled
        return "torch.save's format of before 1.6 is not read: load it there and save it again"
    return "not a checkpoint of torch.save (no zip file)"
