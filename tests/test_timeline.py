"""A film's timeline."""

import cv2

from fer_lightning.inference.boxes import Box
from fer_lightning.inference.predictor import Face, Prediction
from fer_lightning.inference.sources import Frame
from fer_lightning.inference.timeline import Timeline


def test_a_film_of_any_name_has_one(tmp_path):
    timeline = Timeline(("happy", "sad"))
    face = Face(box=Box(0, 0, 9, 9, 1.0), probabilities={"happy": 0.9, "sad": 0.1}, track=0)
    for number in range(3):
        timeline.add(Prediction(frame=Frame(source="a", number=number, time_s=number / 25), faces=[face]))
    timeline.write(tmp_path / "film.png", "a$_$b 家族の休日.mp4")  # no formula, and letters that the font lacks
    assert cv2.imread(str(tmp_path / "film.png")).std() > 5
