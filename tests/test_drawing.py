"""What is drawn onto a picture, and what can no longer be seen in it."""

import numpy as np
import pytest

from fer_lightning.inference.boxes import Box
from fer_lightning.inference.drawing import BLOCKS, annotate, anonymise
from fer_lightning.inference.palette import bgr_of
from fer_lightning.inference.predictor import Face


def face(**probabilities: float) -> Face:
    return Face(box=Box(20, 30, 40, 50), probabilities=probabilities)


@pytest.mark.parametrize(
    ("probabilities", "number"), [({"happy": 0.9, "sad": 0.1}, 0), ({"happy": 0.4, "sad": 0.6}, 1)]
)
def test_a_face_is_framed_in_the_colour_of_its_emotion(probabilities, number):
    marked = annotate(np.zeros((120, 120, 3), np.uint8), [face(**probabilities)])
    frame = (marked == bgr_of(number)).all(axis=2)
    assert frame[30:81, [20, 60]].all()  # the label covers the upper edge
    assert frame[80, 20:61].all()
    assert not frame[40:70, 25:55].any()


def test_the_picture_itself_stays_as_it_was():
    image = np.zeros((120, 120, 3), np.uint8)
    annotate(image, [face(happy=0.9, sad=0.1)], bars=True)
    anonymise(image, [Box(20, 30, 40, 50)])
    assert not image.any()


def test_bars_are_as_long_as_their_probabilities():
    image = np.full((400, 400, 3), 255, np.uint8)
    marked = annotate(image, [face(happy=0.7, sad=0.2, fear=0.1)], bars=True)[85:]  # below the face
    lengths = [(marked == bgr_of(number)).all(axis=2).sum(axis=1).max() for number in range(3)]
    np.testing.assert_allclose(np.array(lengths) / sum(lengths), [0.7, 0.2, 0.1], atol=0.03)
    assert (annotate(image, [face(happy=0.7, sad=0.2, fear=0.1)])[85:] == 255).all()


def test_a_hidden_face_is_a_few_uniform_blocks_with_a_margin():
    image = np.random.default_rng(0).integers(0, 256, (120, 120, 3), np.uint8)
    hidden = anonymise(image, [Box(30, 30, 60, 60)])
    blocks = hidden[18:102, 18:102].reshape(BLOCKS, 14, BLOCKS, 14, 3)
    assert (blocks == blocks[:, :1, :, :1]).all()
    outside = np.ones((120, 120), bool)
    outside[18:102, 18:102] = False
    np.testing.assert_array_equal(hidden[outside], image[outside])


def test_a_hidden_face_at_the_pictures_edge_leaves_nothing_of_it():
    image = np.random.default_rng(0).integers(0, 256, (60, 60, 3), np.uint8)
    hidden = anonymise(image, [Box(-20, 40, 40, 40)])
    assert len(np.unique(hidden[32:, :28].reshape(-1, 3), axis=0)) <= BLOCKS**2
