"""Numbers in words."""


def counted(number: int, name: str) -> str:
    """`1 face`, `1,200 faces`."""
    return f"{number:,} {name}{'' if number == 1 else 's'}"


def duration(seconds: float) -> str:
    """In the largest unit that gives at least 1.5: 40 s, 12 min, 2.1 h, 3.5 days."""
    for unit, size, digits in (("days", 86_400, 1), ("h", 3600, 1), ("min", 60, 0)):
        if seconds >= 1.5 * size:
            return f"{seconds / size:,.{digits}f} {unit}"
    return f"{seconds:.0f} s"
