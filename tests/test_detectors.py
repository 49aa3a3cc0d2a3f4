"""Haar detection on a photo of a face (scikit-image's astronaut, NASA, public domain)."""

import sys
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from fer_lightning.errors import InputError
from fer_lightning.inference.boxes import Box, iou
from fer_lightning.inference.detectors import create_detector
from fer_lightning.inference.haar import HaarDetector

FACE = Box(175, 65, 100, 100)  # where the astronaut's face is in the photo of 512 x 512


def test_it_finds_the_face_and_says_how_sure_it_is(photo):
    [box] = HaarDetector().detect(photo)
    assert iou(box, FACE) > 0.7
    assert box.score > 3


@pytest.mark.parametrize("factor", [0.5, 2, 4])
def test_boxes_are_in_pixels_of_the_picture_whatever_its_size(photo, factor):
    picture = cv2.resize(photo, None, fx=factor, fy=factor)
    assert iou(HaarDetector().detect(picture)[0], FACE.scaled(factor)) > 0.7


def test_a_face_below_the_smallest_is_not_looked_for(photo):
    assert HaarDetector(min_face=80).detect(photo)
    assert not HaarDetector(min_face=150).detect(photo)
    assert not HaarDetector(min_face=0.3).detect(photo)


def test_a_small_face_is_found_where_small_ones_are_looked_for(photo):
    scene = np.full((960, 1280, 3), 90, np.uint8)
    scene[100:300, 100:300] = cv2.resize(photo, (200, 200), interpolation=cv2.INTER_AREA)
    place = FACE.scaled(200 / 512)._replace(x=100 + FACE.x * 200 / 512, y=100 + FACE.y * 200 / 512)
    assert any(iou(box, place) > 0.6 for box in HaarDetector(min_face=30).detect(scene))


def test_a_mirrored_profile_cascade_adds_no_second_box_to_a_frontal_face(photo):
    boxes = HaarDetector(profile=True).detect(photo)
    assert sum(iou(box, FACE) > 0.3 for box in boxes) == 1


@pytest.mark.parametrize("shape", [(1, 1, 3), (5, 400, 3), (480, 640, 3)], ids=str)
def test_a_picture_without_a_face_has_no_box(shape):
    assert HaarDetector().detect(np.full(shape, 127, np.uint8)) == []


@pytest.mark.parametrize("cut", [8, 12])
def test_a_face_that_the_pictures_edge_cuts_is_found_and_its_box_leaves_the_picture(photo, cut):
    [box] = HaarDetector().detect(photo[:, round(FACE.x) + cut :])
    assert iou(box, FACE._replace(x=-cut)) > 0.7
    assert box.x < 0


def test_the_largest_face_comes_first(photo):
    scene = np.hstack([cv2.resize(photo, (256, 256)), np.zeros((256, 20, 3), np.uint8), photo[:256, 100:356]])
    sizes = [box.width for box in HaarDetector().detect(scene)]
    assert len(sizes) >= 2
    assert sizes == sorted(sizes, reverse=True)


def test_threads_share_a_detector(photo):
    detector = HaarDetector()
    [alone] = detector.detect(photo)
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(detector.detect, [photo] * 12)) == [[alone]] * 12


def test_none_takes_the_whole_picture():
    assert create_detector("none").detect(np.zeros((30, 40, 3), np.uint8)) == [Box(0, 0, 40, 30)]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"name": "yolo"}, "detector must be haar, mtcnn, none, got 'yolo'"),
        ({"name": "haar", "min_face": 0}, "min_face must be above 0, got 0"),
        ({"name": "haar", "max_side": 10}, "max_side must be at least 30 pixels, got 10"),
    ],
)
def test_what_cannot_work_is_refused(settings, message):
    with pytest.raises(InputError, match=message):
        create_detector(**settings)


def test_mtcnn_is_not_asked_for_faces_larger_than_the_picture(monkeypatch):
    class MTCNN:  # the real one ends with PyTorch's error then
        def __init__(self, **settings):
            pass

        def detect(self, image):
            assert min(image.shape[:2]) > self.min_face_size
            return None, [None]

    monkeypatch.setitem(sys.modules, "facenet_pytorch", SimpleNamespace(MTCNN=MTCNN))
    detector = create_detector("mtcnn", min_face=100)
    for shape in ((90, 400, 3), (100, 400, 3), (200, 400, 3), (3000, 90, 3)):
        assert detector.detect(np.zeros(shape, np.uint8)) == []


def test_mtcnn_finds_the_face(photo):
    pytest.importorskip("facenet_pytorch", reason="the extra mtcnn is not installed")
    [box] = create_detector("mtcnn").detect(photo)
    assert iou(box, FACE) > 0.6
    assert box.score > 0.99
