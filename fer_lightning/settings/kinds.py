"""Whether settings are of the kinds that the signature of their function names."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, get_args, get_origin, get_type_hints

from fer_lightning.errors import InputError

KINDS = {bool: (bool,), int: (int,), float: (int, float), str: (str,), Path: (str,), NoneType: (NoneType,)}
WORDS = {int: "a whole number", float: "a number", str: "text", bool: "true or false", NoneType: "null"}


def refuse_other_kinds(function: Callable[..., Any], settings: Mapping[str, object], place: str) -> None:
    """Refuse a setting that is, say, text where the function asks for a number.

    Annotations that plain settings cannot satisfy, such as another constructor's object, are not checked.

    Args:
        function: A function, or a class for its constructor.
        settings: Plain data by the names of the function's arguments.
        place: What stands before such a name in the configuration, as `data.`.

    Raises:
        InputError: Some value is of another kind.
    """
    hints = get_type_hints(function.__init__ if isinstance(function, type) else function)
    for name, value in settings.items():
        if name in hints and not _fits(value, hints[name]):
            raise InputError(f"{place}{name} must be {_in_words(hints[name])}, got {value!r}")


def _fits(value: object, hint: Any) -> bool:
    if isinstance(hint, UnionType):
        return any(_fits(value, part) for part in get_args(hint))
    if get_origin(hint) is Mapping:
        return isinstance(value, Mapping)
    if get_origin(hint) in (Sequence, tuple):
        if not isinstance(value, list | tuple):
            return False
        parts = get_args(hint) if _has_length(hint) else get_args(hint)[:1] * len(value)
        return len(value) == len(parts) and all(map(_fits, value, parts))
    return type(value) in KINDS.get(hint, (type(value),))  # exactly: true is no whole number


def _has_length(hint: Any) -> bool:
    """Whether it is `tuple[X, Y]`, and not `tuple[X, ...]` or a sequence."""
    return get_origin(hint) is tuple and ... not in get_args(hint)


def _in_words(hint: Any) -> str:
    if isinstance(hint, UnionType):
        return " or ".join(dict.fromkeys(_in_words(part) for part in get_args(hint) if part is not Path))
    if get_origin(hint) is Mapping:
        return "settings by name"
    if get_origin(hint) in (Sequence, tuple):
        parts = get_args(hint) if _has_length(hint) else (get_args(hint)[0], ...)
        return f"[{', '.join('...' if part is ... else _in_words(part) for part in parts)}]"
    return WORDS.get(hint, getattr(hint, "__name__", str(hint)))
