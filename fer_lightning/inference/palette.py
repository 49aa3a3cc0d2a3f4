"""One colour for each class, the same on pictures, videos, timelines and the page."""

# Of similar lightness, distinguishable for colour-blind people too (after Okabe and Ito).
PALETTE = ("#e69f00", "#56b4e9", "#009e73", "#f0e442", "#0072b2", "#d55e00", "#cc79a7", "#999999")


def colour_of(position: int) -> str:
    """The colour of the class at this position, as #rrggbb; beyond eight classes colours come again."""
    return PALETTE[position % len(PALETTE)]


def bgr_of(position: int) -> tuple[int, int, int]:
    """The same for OpenCV: blue, green, red."""
    red, green, blue = bytes.fromhex(colour_of(position).removeprefix("#"))
    return blue, green, red
