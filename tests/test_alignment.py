"""Tilted heads, made by turning a photo of an upright one (scikit-image's astronaut, NASA, public domain)."""

import cv2
import numpy as np
import pytest

from fer_lightning.inference.alignment import EyeAligner
from fer_lightning.inference.boxes import Box, square_crop

FACE = Box(175, 65, 100, 100)  # where the astronaut's face is in the photo of 512 x 512


def turned(photo, degrees):
    """The photo, its face's right side `degrees` lower than before."""
    turn = cv2.getRotationMatrix2D(FACE.centre, -degrees, 1.0)
    return cv2.warpAffine(photo, turn, (512, 512), borderMode=cv2.BORDER_REPLICATE)


@pytest.mark.parametrize("degrees", [-20, -10, 10, 20])
def test_the_eyes_tell_how_far_a_head_is_tilted(photo, degrees):
    aligner = EyeAligner()
    tilt = aligner.roll(turned(photo, degrees), FACE) - aligner.roll(photo, FACE)
    assert tilt == pytest.approx(degrees, abs=4)


@pytest.mark.parametrize("margin", [0, 0.25])
def test_a_tilted_face_is_cropped_as_an_upright_one(photo, margin):
    aligner = EyeAligner()
    upright, tilted = (aligner.crop(turned(photo, degrees), FACE, margin=margin) for degrees in (0, 15))
    as_it_is = square_crop(turned(photo, 15), FACE, margin=margin)
    assert tilted.shape == upright.shape == as_it_is.shape

    def difference(crop):
        return np.abs(crop.astype(float) - upright)[20:-20, 20:-20].mean()

    assert difference(tilted) < difference(as_it_is) / 2


def test_a_face_in_a_very_wide_picture_is_cropped_as_in_a_narrow_one(photo):
    tilted, aligner = turned(photo, 15), EyeAligner()
    wide = cv2.copyMakeBorder(tilted, 0, 0, 33_000, 33_000, cv2.BORDER_REPLICATE)
    assert (aligner.crop(wide, FACE._replace(x=FACE.x + 33_000)) == aligner.crop(tilted, FACE)).all()


def test_a_face_without_visible_eyes_is_cropped_as_it_is(photo):
    blindfolded = photo.copy()
    blindfolded[65:130, 175:275] = 30
    np.testing.assert_array_equal(EyeAligner().crop(blindfolded, FACE), square_crop(blindfolded, FACE))
    assert EyeAligner().roll(blindfolded, FACE) == 0
