"""Pickled dictionaries of numbers, text and arrays, read without running anything.

Neither functions nor classes that a file names are called: functions of this module
stand for the few that arrays and bytes are pickled with.
"""

import io
import pickle
import pickletools
import re
from collections.abc import Callable
from typing import Any

import numpy as np

from jaxnas._checks import reason
from jaxnas.data import images

# What a damaged pickle is documented or known to raise.
_ERRORS = (
    pickle.UnpicklingError,
    AttributeError,
    EOFError,
    ImportError,
    LookupError,
    MemoryError,
    OverflowError,
    RecursionError,
    TypeError,
    ValueError,
)


def load(contents: bytes, where: str) -> dict[str, Any]:
    """Load a dictionary of builtin types and NumPy arrays.

    Args:
      contents: a pickle of any protocol, also one that Python 2 wrote.
      where: what to call it in a message.

    Returns:
      The dictionary, with text as keys.

    Raises:
      DatasetError: if it is no such pickle, is cut short, or refers to anything else.
    """
    try:
        _check_memo(contents)
        loaded = _Unpickler(io.BytesIO(contents), encoding="bytes").load()
        if not isinstance(loaded, dict):
            raise images.DatasetError(
                f"{where} holds a {type(loaded).__name__}, expected a dictionary"
            )
        return {_text(key): _array(value) for key, value in loaded.items()}
    except images.DatasetError:
        raise
    except _ERRORS as error:
        raise images.DatasetError(
            f"{where} is not a pickled CIFAR file, or is cut short: {reason(error)}"
        ) from error


def _check_memo(contents: bytes) -> None:
    """Refuse numbers of objects for which the unpickler would take gigabytes."""
    for opcode, argument, _ in pickletools.genops(contents):
        if opcode.name.endswith("PUT") and int(argument or 0) > len(contents):
            raise pickle.UnpicklingError(f"it numbers an object {argument}")


def _text(key: Any) -> Any:
    return key.decode() if isinstance(key, bytes) else key


def _array(value: Any) -> Any:
    return value.to_numpy() if isinstance(value, _PickledArray) else value


class _PickledType:
    """Stands for `numpy.dtype`, of numbers only."""

    def __init__(self, code: Any, *_: Any):
        code = _text(code)
        if not isinstance(code, str) or not re.fullmatch("[biuf][1248]", code):
            raise pickle.UnpicklingError("it holds an array of other than numbers")
        self.dtype = np.dtype(code)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        order = _text(state[1])
        if order not in ("<", ">", "=", "|"):
            raise pickle.UnpicklingError("it holds an array of unknown byte order")
        self.dtype = self.dtype.newbyteorder(order)


class _PickledArray:
    """Stands for `numpy.ndarray`."""

    def __init__(self, *state: Any):
        if state:
            self.__setstate__(state)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, self.shape, self.type, self.is_fortran, self.contents = state

    def to_numpy(self) -> np.ndarray:
        if not isinstance(self.type, _PickledType):
            raise pickle.UnpicklingError("it holds an array without a type")
        values = np.frombuffer(self.contents, self.type.dtype)
        return values.reshape(self.shape, order="F" if self.is_fortran else "C")


def _stand_ins() -> dict[tuple[str, str], Callable[..., Any]]:
    """Make what names in a pickle stand for, so that no file can change it."""

    def reconstruct(*_: Any) -> _PickledArray:  # protocols to 4; its state follows
        return _PickledArray()

    def from_buffer(buffer: Any, dtype: Any, shape: Any, order: Any, *_: Any) -> Any:
        return _PickledArray(1, shape, dtype, order == "F", buffer)  # protocol 5

    def empty_bytes() -> bytes:
        return b""

    def encode(text: str, encoding: str) -> bytes:
        if encoding != "latin1":
            raise pickle.UnpicklingError(f"unexpected encoding {encoding!r}")
        return text.encode("latin1")

    def ndarray(*_: Any) -> None:
        raise pickle.UnpicklingError("it calls numpy.ndarray")

    def dtype(*arguments: Any) -> _PickledType:
        return _PickledType(*arguments)

    return {
        ("numpy.core.multiarray", "_reconstruct"): reconstruct,
        ("numpy._core.multiarray", "_reconstruct"): reconstruct,
        ("numpy.core.numeric", "_frombuffer"): from_buffer,
        ("numpy._core.numeric", "_frombuffer"): from_buffer,
        ("numpy", "ndarray"): ndarray,
        ("numpy", "dtype"): dtype,
        # How Python 3 writes bytes into a pickle of protocol 2.
        ("__builtin__", "bytes"): empty_bytes,
        ("_codecs", "encode"): encode,
    }


class _Unpickler(pickle.Unpickler):
    def __init__(self, file: io.BytesIO, *, encoding: str):
        super().__init__(file, encoding=encoding)
        self._stand_ins = _stand_ins()

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self._stand_ins:
            raise pickle.UnpicklingError(f"it refers to {module}.{name}")
        return self._stand_ins[module, name]
