"""A reader of pickles that executes nothing: plain values, and descriptions of tensors and arrays.

A pickle is a program for a stack machine, and may call any function by its name. This machine knows those instructions
and the names of those few classes that files of weights need, makes descriptions of its own for them, and refuses all
others by name. It calls nothing that a file names.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable
from typing import IO, Any, Optional

from medsegdiff.checkpoints.described import CALLS, Array, Kind, Name, Refused, Storage, integers, is_known, only

_PUSHED = {
    *("BININT", "BININT1", "BININT2", "LONG1", "LONG4", "BINFLOAT"),
    *("BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "BINSTRING", "SHORT_BINSTRING"),
    *("BINBYTES", "SHORT_BINBYTES", "BINBYTES8"),
}
_MADE: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_DICT": dict,
    "EMPTY_LIST": list,
    "EMPTY_TUPLE": tuple,
}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_KEYS = (str, int, bytes)
_MOST_STEPS = 1 << 22  # 4 million, seconds; weights and an optimiser of ten thousand tensors take a third


def read(file: IO[bytes], storages: Optional[dict[str, Storage]] = None) -> Any:
    """What the pickle that begins here in `file` says; the file is then behind it.

    `storages` takes up those that it names, by their keys.

    Raises:
        Refused: it asks for what files of weights do not need.
        Exception: of many kinds, where it is damaged.
    """
    return _Machine(file, {} if storages is None else storages).run()


class _Machine:
    def __init__(self, file: IO[bytes], storages: dict[str, Storage]) -> None:
        self.file, self.storages = file, storages
        self.stack: list[Any] = []
        self.below: list[list[Any]] = []  # the stacks below each mark
        self.memo: dict[int, Any] = {}

    def run(self) -> Any:
        for _ in range(_MOST_STEPS):
            opcode = pickletools.code2op[self.file.read(1).decode("latin-1")]
            if opcode.name == "STOP":
                return self.stack.pop()
            step = getattr(self, f"_{opcode.name.lower()}", None)
            simple = opcode.name in _PUSHED or opcode.name in _MADE or opcode.name in _TUPLES
            if not simple and step is None:  # before its argument is read
                raise Refused(f"a pickle's instruction {opcode.name}")
            argument = opcode.arg.reader(self.file) if opcode.arg else None  # type: ignore[attr-defined]
            if opcode.name in _PUSHED:
                self.stack.append(argument)
            elif opcode.name in _MADE:
                self.stack.append(_MADE[opcode.name]())
            elif opcode.name in _TUPLES:
                self.stack.append(tuple(reversed([self.stack.pop() for _ in range(_TUPLES[opcode.name])])))
            elif step is not None:
                step(argument)
        raise Refused(f"a pickle of more than {_MOST_STEPS} instructions")

    def _proto(self, _: int) -> None:
        """Says which instructions may come."""

    def _frame(self, _: int) -> None:
        """Says how much may be read ahead."""

    def _mark(self, _: None) -> None:
        self.below.append(self.stack)
        self.stack = []

    def _to_mark(self) -> list[Any]:
        above, self.stack = self.stack, self.below.pop()
        return above

    def _tuple(self, _: None) -> None:
        above = self._to_mark()
        self.stack.append(tuple(above))

    def _append(self, _: None) -> None:
        value = self.stack.pop()
        only(self.stack[-1], list).append(value)

    def _appends(self, _: None) -> None:
        above = self._to_mark()
        only(self.stack[-1], list).extend(above)

    def _setitem(self, _: None) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self._set([key, value])

    def _setitems(self, _: None) -> None:
        self._set(self._to_mark())

    def _set(self, pairs: list[Any]) -> None:
        target = only(self.stack[-1], dict)
        for key, value in zip(pairs[::2], pairs[1::2]):
            if not isinstance(key, _KEYS):
                raise Refused(f"a {type(key).__name__} for a key")
            target[key] = value

    def _memoize(self, _: None) -> None:
        self.memo[len(self.memo)] = self.stack[-1]

    def _binput(self, index: int) -> None:
        self.memo[index] = self.stack[-1]

    _long_binput = _binput

    def _binget(self, index: int) -> None:
        self.stack.append(self.memo[index])

    _long_binget = _binget

    def _global(self, names: str) -> None:
        self._name(".".join(names.split(" ")))

    def _stack_global(self, _: None) -> None:
        name, module = self.stack.pop(), self.stack.pop()
        self._name(f"{only(module, str)}.{only(name, str)}")

    def _name(self, name: str) -> None:
        if not is_known(name):
            raise Refused(name)
        self.stack.append(Name(name))

    def _reduce(self, _: None) -> None:
        arguments, called = self.stack.pop(), self.stack.pop()
        name = only(called, Name).name
        if name not in CALLS:
            raise Refused(f"a call of {name}")
        self.stack.append(CALLS[name](*only(arguments, tuple)))

    def _build(self, _: None) -> None:
        state = self.stack.pop()
        target = self.stack[-1]
        if isinstance(target, Array):
            _, size, target.kind, fortran, content = state
            target.size, target.fortran, target.content = integers(size), bool(fortran), only(content, bytes)
        elif isinstance(target, Kind):
            target.order = only(state[1], str)
        elif type(target) is not dict:  # whose attributes, of an OrderedDict, are not needed
            raise Refused(f"attributes of a {type(target).__name__}")

    def _binpersid(self, _: None) -> None:
        word, kind, key, _, count, *view = self.stack.pop()
        if word != "storage" or view not in ([], [None]):
            raise Refused("a reference to something else than a tensor's numbers")
        key = str(*integers([key])) if type(key) is int else only(key, str)  # Jittor counts
        storage = Storage(only(kind, Name).name.rpartition(".")[2], key, only(count, int))
        self.storages[storage.key] = storage
        self.stack.append(storage)
