"""Face detection with Viola and Jones's cascades from OpenCV, from coarse to fine."""

import cv2
import numpy as np

from fer_lightning.errors import InputError
from fer_lightning.inference.boxes import (
    MAX_SIDE,
    MIN_FACE,
    Box,
    iou,
    largest_first,
    scaled_down,
    smallest_side,
    suppress,
)
from fer_lightning.inference.cascades import Cascades

FRONTAL, PROFILE = "haarcascade_frontalface_default", "haarcascade_profileface"
SCOUTS = {FRONTAL: "haarcascade_frontalface_alt2"}  # for the first look: quicker, and it misses fewer in large steps
# Side of the smallest face to find, in pixels of the reduced picture. The cascades' own windows are 20 or 24 pixels
# wide. With these numbers all 1,007 faces in 500 synthetic photos were found, as with small steps everywhere. Of 200
# CK+ faces, 61 to 300 pixels wide on cloudy backgrounds, 200 were found upright, 197 tilted by up to 12 degrees, 199
# dim and noisy, 199 cut by up to an eighth at the edge; small steps everywhere (1.1, 3 hits) find 200, 200, 200, 194.
COARSE, FINE = 24, 30
EDGE = 0.04  # border added to the picture, as a share of its shorter side: a cascade's window stays within the picture
COARSE_STEP, FINE_STEP = 1.35, 1.15  # ratio between the sizes tried
ROOM = 0.4  # border around a place for the second search, as a fraction of the largest hit there
SPAN = 1.5  # sizes tried there: from the smallest hit divided by this to the largest hit times this
FINDS = 3  # least number of overlapping hits that make a face


class HaarDetector:
    """Finds faces with the frontal cascade and, optionally, with the profile cascade from both sides.

    The picture is searched in large steps of size, and then again in small steps wherever there was a hit: a quarter of
    the work of small steps everywhere, for the same faces and fewer false ones. Each time the picture is reduced until
    the smallest face to find is just large enough, since the cost of a cascade falls with the square of the size.

    Args:
        min_face: Side of the smallest face to find, in pixels; up to 1, as a fraction of the picture's shorter side.
        max_side: Longest side of the reduced picture, in pixels; it limits the time, and may raise the smallest face
            that is found.
        profile: Also look for faces seen from the side, which takes three times as long.
    """

    def __init__(self, *, min_face: float = MIN_FACE, max_side: int = MAX_SIDE, profile: bool = False) -> None:
        if max_side < FINE:
            raise InputError(f"max_side must be at least {FINE} pixels, got {max_side}")
        self.min_face = min_face
        self.max_side = max_side
        self.profile = profile
        self._cascades = Cascades()

    def detect(self, image: np.ndarray) -> list[Box]:
        """Boxes of the faces in a picture, uint8 BGR (H, W, 3), the largest first; scores are the cascade's own.

        The box of a face cut by the picture's edge extends beyond it.
        """
        height, width = image.shape[:2]
        smallest = smallest_side(self.min_face, image)
        factor = min(1.0, FINE / smallest, self.max_side / max(height, width))
        gray = scaled_down(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY), factor)
        edge = round(EDGE * min(gray.shape))
        gray = cv2.copyMakeBorder(gray, edge, edge, edge, edge, cv2.BORDER_REPLICATE)
        smallest = max(1.0, smallest * factor)
        boxes = self._search(FRONTAL, gray, smallest)
        if self.profile:
            boxes += self._search(PROFILE, gray, smallest)
            mirrored = self._search(PROFILE, cv2.flip(gray, 1), smallest)
            boxes += [box._replace(x=gray.shape[1] - box.x - box.width) for box in mirrored]
        faces = [box._replace(x=box.x - edge, y=box.y - edge).scaled(1 / factor) for box in suppress(boxes)]
        return largest_first(faces)

    def _search(self, name: str, gray: np.ndarray, smallest: float) -> list[Box]:
        """Boxes found by one cascade, the highest score first."""
        factor = min(1.0, COARSE / smallest)
        window = max(1, round(smallest * factor / FINE_STEP))
        scout = self._cascades[SCOUTS.get(name, name)]
        hits = scout.detectMultiScale(scaled_down(gray, factor), COARSE_STEP, 0, minSize=(window, window))
        places = _by_place([Box(*map(float, hit)).scaled(1 / factor) for hit in hits])
        boxes = [box for place in places for box in self._look_again(name, gray, place, smallest)]
        return sorted(boxes, key=lambda box: -box.score)

    def _look_again(self, name: str, gray: np.ndarray, hits: list[Box], smallest: float) -> list[Box]:
        largest = max(hit.width for hit in hits)
        room = ROOM * largest
        left, top = (max(0, round(min(hit[axis] for hit in hits) - room)) for axis in (0, 1))
        right, bottom = (round(max(hit[axis] + hit.width for hit in hits) + room) for axis in (0, 1))
        least = max(smallest, min(hit.width for hit in hits) / SPAN)
        factor = min(1.0, FINE / least)
        sizes = [(round(side * factor),) * 2 for side in (least, largest * SPAN)]
        boxes, _, scores = self._cascades[name].detectMultiScale3(
            scaled_down(gray[top:bottom, left:right], factor),
            FINE_STEP,
            FINDS,
            minSize=sizes[0],
            maxSize=sizes[1],
            outputRejectLevels=True,
        )
        found = [
            Box(*map(float, box), float(score)).scaled(1 / factor) for box, score in zip(boxes, scores, strict=True)
        ]
        return [box._replace(x=box.x + left, y=box.y + top) for box in found]


def _by_place(hits: list[Box]) -> list[list[Box]]:
    """Group hits by place, the largest hit of each first."""
    places: list[list[Box]] = []
    for hit in sorted(hits, key=lambda hit: -hit.width):
        place = next((place for place in places if iou(hit, place[0]) > 0.25), None)
        if place is None:
            places.append([hit])
        else:
            place.append(hit)
    return places
