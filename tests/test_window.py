"""The window of --show, with a stand-in for OpenCV's."""

import cv2
import numpy as np
import pytest

from fer_lightning.inference.boxes import Box
from fer_lightning.inference.drawing import BLOCKS
from fer_lightning.inference.predictor import Face, Prediction
from fer_lightning.inference.sources import Frame
from fer_lightning.inference.window import WindowClosed, show_frame

PICTURE = Prediction(frame=Frame(source="a.jpg", image=np.zeros((20, 20, 3), np.uint8)), faces=[])
FILM = Prediction(frame=Frame(source="a.mp4", time_s=0.0, image=np.zeros((20, 20, 3), np.uint8)), faces=[])


@pytest.fixture
def screen(monkeypatch):
    """screen(keys, visible): what is pressed at each look (-1: nothing), and whether the window is still there."""

    def play(keys: list[int], visible: list[float]) -> list[int]:
        left = iter(keys)
        for name in ("namedWindow", "imshow", "setWindowTitle"):
            monkeypatch.setattr(cv2, name, lambda *_: None)
        monkeypatch.setattr(cv2, "waitKey", lambda _: next(left))
        monkeypatch.setattr(cv2, "getWindowProperty", lambda *_: visible.pop(0))
        return left

    return play


def test_a_picture_stays_until_a_key_is_pressed(screen):
    left = screen([-1, -1, ord("x"), ord("y")], [1.0] * 4)
    show_frame(PICTURE, 1.0, anonymous=False)
    assert next(left) == ord("y")


def test_a_frame_of_a_film_waits_for_no_key(screen):
    left = screen([-1, ord("y")], [1.0])
    show_frame(FILM, 1.0, anonymous=False)
    assert next(left) == ord("y")


@pytest.mark.parametrize("prediction", [PICTURE, FILM])
@pytest.mark.parametrize(("key", "visible"), [(ord("q"), 1.0), (-1, 0.0)])
def test_q_and_the_cross_close_the_window(screen, prediction, key, visible):
    screen([key], [visible])
    with pytest.raises(WindowClosed):
        show_frame(prediction, 1.0, anonymous=False)


def test_a_hidden_face_is_hidden_in_the_window_too(screen, monkeypatch, photo):
    screen([-1], [1.0])
    shown = []
    monkeypatch.setattr(cv2, "imshow", lambda _, image: shown.append(image))
    face = Face(box=Box(175, 65, 100, 100), probabilities={"happy": 0.9, "sad": 0.1})
    show_frame(Prediction(frame=Frame(source="a.mp4", time_s=0.0, image=photo), faces=[face]), 1.0, anonymous=True)
    assert len(np.unique(shown[0][90:140, 190:260].reshape(-1, 3), axis=0)) <= BLOCKS**2
