"""Rectangles: overlap, suppression, crops."""

import numpy as np
import pytest

from fer_lightning.inference.boxes import Box, iou, square_crop, suppress


@pytest.mark.parametrize(
    ("other", "expected"),
    [
        (Box(0, 0, 10, 10), 1.0),
        (Box(5, 0, 10, 10), 50 / 150),
        (Box(2, 2, 5, 5), 25 / 100),
        (Box(10, 0, 10, 10), 0.0),
        (Box(30, 30, 5, 5), 0.0),
    ],
    ids=["same", "half", "within", "touching", "apart"],
)
def test_overlap_is_the_shared_part_of_what_two_boxes_cover(other, expected):
    box = Box(0, 0, 10, 10)
    assert iou(box, other) == iou(other, box) == pytest.approx(expected)


def test_of_boxes_on_one_face_the_first_stays():
    first, inner, apart = Box(0, 0, 10, 10), Box(3, 3, 4, 4), Box(40, 0, 10, 10)
    assert suppress([first, inner, apart]) == [first, apart]
    assert suppress([inner, first, apart]) == [inner, apart]


def test_boxes_that_touch_a_little_both_stay():
    assert len(suppress([Box(0, 0, 10, 10), Box(8, 0, 10, 10)])) == 2


def test_a_crop_is_the_square_around_the_longer_side():
    image = np.arange(100 * 100, dtype=np.int32).reshape(100, 100)
    np.testing.assert_array_equal(square_crop(image, Box(40, 30, 10, 20)), image[30:50, 35:55])


def test_a_margin_widens_each_side():
    image = np.zeros((100, 100, 3), np.uint8)
    assert square_crop(image, Box(40, 40, 20, 20), margin=0.25).shape == (30, 30, 3)


def test_beyond_the_picture_its_edge_repeats():
    image = np.arange(16, dtype=np.uint8).reshape(4, 4)
    crop = square_crop(image, Box(-2, -2, 4, 4))
    np.testing.assert_array_equal(crop, [[0, 0, 0, 1], [0, 0, 0, 1], [0, 0, 0, 1], [4, 4, 4, 5]])


def test_a_box_scales_with_its_picture():
    assert Box(1, 2, 3, 4, 0.5).scaled(2) == Box(2, 4, 6, 8, 0.5)
