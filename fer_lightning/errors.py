"""The one exception for mistakes that the user can mend."""

from collections.abc import Iterator
from contextlib import contextmanager


class InputError(ValueError):
    """What the user gave cannot be used; the message says what was found and what to do about it."""


@contextmanager
def settings_of(what: str) -> Iterator[None]:
    """Tell the TypeError or ValueError of a constructor, called with settings the user wrote, as an InputError."""
    try:
        yield
    except InputError:
        raise
    except (TypeError, ValueError) as error:
        raise InputError(f"{what} does not take its settings: {error}") from error
