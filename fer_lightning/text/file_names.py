"""File names whose bytes are not UTF-8: Python holds such bytes as lone surrogates, which nothing can encode."""


def is_utf8(name: str) -> bool:
    """Whether a name can be written down as it is."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def printable(name: str) -> str:
    """A name as valid text, whatever its bytes."""
    return name.encode("utf-8", "backslashreplace").decode()
