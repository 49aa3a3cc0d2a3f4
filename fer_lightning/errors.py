"""The one exception for mistakes that the user can mend."""


class InputError(ValueError):
    """What the user gave cannot be used; the message says what was found and what to do about it."""
