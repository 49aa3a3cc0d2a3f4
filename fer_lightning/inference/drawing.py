"""Drawing boxes, labels and bars onto pictures, and hiding faces."""

import cv2
import numpy as np

from fer_lightning.inference.boxes import Box
from fer_lightning.inference.palette import bgr_of
from fer_lightning.inference.predictor import Face

FONT = cv2.FONT_HERSHEY_SIMPLEX
BLOCKS = 6  # blocks across a hidden face: too few to recognise a person


def annotate(image: np.ndarray, faces: list[Face], *, bars: bool = False) -> np.ndarray:
    """Draw each face's box with its emotion and confidence.

    Args:
        image: uint8 BGR (H, W, 3); it is not changed.
        faces: Faces of the picture.
        bars: Draw every class's probability as a bar below each face, if there is room.
    """
    image = image.copy()
    unit = max(1.0, min(image.shape[:2]) / 480)  # drawings scale with the picture
    for face in reversed(faces):  # the largest last, on top
        names = list(face.probabilities)
        colour = bgr_of(names.index(face.emotion))
        left, top, right, bottom = _corners(face.box)
        cv2.rectangle(image, (left, top), (right, bottom), colour, round(2 * unit))
        who = "" if face.track is None else f"{face.track}: "
        _label(image, f"{who}{face.emotion} {face.confidence:.0%}", (left, top), colour, unit)
        if bars:
            _bars(image, face, (left, bottom), unit)
    return image


def anonymise(image: np.ndarray, boxes: list[Box]) -> np.ndarray:
    """Cover each face, and the hair and chin around its box, with a few uniform blocks.

    The blocks are averages over the picture's pixels: no detail of the face remains that could be restored.
    """
    image = image.copy()
    height, width = image.shape[:2]
    for box in boxes:
        left, top, right, bottom = _corners(box, margin=0.2)
        left, top, right, bottom = max(left, 0), max(top, 0), min(right, width), min(bottom, height)
        if right > left and bottom > top:
            blocks = cv2.resize(image[top:bottom, left:right], (BLOCKS, BLOCKS), interpolation=cv2.INTER_AREA)
            covered = cv2.resize(blocks, (right - left, bottom - top), interpolation=cv2.INTER_NEAREST)
            image[top:bottom, left:right] = covered
    return image


def _corners(box: Box, *, margin: float = 0.0) -> tuple[int, int, int, int]:
    """Left, top, right, bottom."""
    x, y = box.width * margin, box.height * margin
    return round(box.x - x), round(box.y - y), round(box.x + box.width + x), round(box.y + box.height + y)


def _label(image: np.ndarray, text: str, corner: tuple[int, int], colour: tuple[int, ...], unit: float) -> None:
    """Write dark text on the face's colour, above the box or, if there is no room, in it; never past the right edge."""
    (width, height), below = cv2.getTextSize(text, FONT, 0.5 * unit, max(1, round(unit)))
    pad = round(3 * unit)
    left = max(0, min(corner[0], image.shape[1] - width - 2 * pad))
    bottom = max(corner[1], height + below + 2 * pad)
    cv2.rectangle(
        image, (left, bottom - height - below - 2 * pad), (left + width + 2 * pad, bottom), colour, cv2.FILLED
    )
    place = (left + pad, bottom - below - pad)
    cv2.putText(image, text, place, FONT, 0.5 * unit, (0, 0, 0), max(1, round(unit)), cv2.LINE_AA)


def _bars(image: np.ndarray, face: Face, corner: tuple[int, int], unit: float) -> None:
    row, names, length = round(13 * unit), round(58 * unit), round(70 * unit)
    left = max(0, min(corner[0], image.shape[1] - names - length))
    top = min(corner[1] + round(4 * unit), image.shape[0] - row * len(face.probabilities))
    if top < 0:
        return
    panel = image[top : top + row * len(face.probabilities), left : left + names + length]
    panel //= 3  # a dark background, so that white letters are readable on any picture
    for number, (name, probability) in enumerate(face.probabilities.items()):
        y, end = number * row, names + max(1, round(probability * length))
        cv2.rectangle(panel, (names, y + 2), (end, y + row - 2), bgr_of(number), cv2.FILLED)
        place = (round(3 * unit), y + row - round(4 * unit))
        cv2.putText(panel, name, place, FONT, 0.36 * unit, (255, 255, 255), max(1, round(unit)), cv2.LINE_AA)
