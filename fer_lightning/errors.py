"""The one exception for mistakes that the user can fix."""

from collections.abc import Iterator
from contextlib import contextmanager


class InputError(ValueError):
    """What the user gave cannot be used; the message says what was found and what to do about it."""


@contextmanager
def settings_of(what: str) -> Iterator[None]:
    """Turn a TypeError or ValueError of a constructor, called with the user's settings, into an InputError."""
    try:
        yield
    except InputError:
        raise
    except (TypeError, ValueError) as error:
        raise InputError(f"{what} does not accept these settings: {error}") from error
