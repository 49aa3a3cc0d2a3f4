"""Several views of one scene: matched in time or by name, and one decision for each person."""

import time
from dataclasses import replace

import cv2
import numpy as np
import pandas as pd
import pytest

from fer_lightning.errors import InputError
from fer_lightning.inference.boxes import Box
from fer_lightning.inference.predictor import Face, Prediction
from fer_lightning.inference.reading import predict_scenes
from fer_lightning.inference.results import Results
from fer_lightning.inference.sources import Frame, Source
from fer_lightning.inference.views import fuse, matched_in_time, open_scenes


def seen(happy: float, *, x: float = 0, size: float = 50, score: float = 1.0) -> Face:
    return Face(box=Box(x, 0, size, size, score), probabilities={"happy": happy, "sad": 1 - happy})


def view(*faces: Face, time_s: float = 0.0, source: str = "a") -> Prediction:
    return Prediction(frame=Frame(source=source, number=int(100 * time_s), time_s=time_s), faces=list(faces))


def test_the_surer_view_weighs_more():
    fused = fuse([view(seen(0.9, score=3.0)), view(seen(0.1, score=1.0), source="b")], "a + b")
    [person] = fused.faces
    assert person.probabilities == pytest.approx({"happy": 0.7, "sad": 0.3})
    assert person.box is None
    assert fused.frame.source == "a + b"


def test_a_view_without_a_face_has_no_say():
    [person] = fuse([view(), view(seen(0.2), source="b")], "a + b").faces
    assert person.probabilities["happy"] == pytest.approx(0.2)
    assert fuse([view(), view(source="b")], "a + b").faces == []


def test_the_largest_faces_are_one_person():
    [person] = fuse([view(seen(0.9, size=90), seen(0.0, size=20)), view(seen(0.7, size=80))], "a + b").faces
    assert person.probabilities["happy"] == pytest.approx(0.8)


def test_people_are_paired_from_left_to_right():
    one = view(seen(0.9, x=200, size=90), seen(0.1, x=10, size=50))
    other = view(seen(0.3, x=0, size=60), seen(0.7, x=300, size=40))
    left, right = fuse([one, other], "a + b", match="order").faces
    assert left.probabilities["happy"] == pytest.approx(0.2)
    assert right.probabilities["happy"] == pytest.approx(0.8)


def test_where_views_differ_in_their_number_of_faces_the_largest_count():
    [person] = fuse([view(seen(0.9, size=90), seen(0.1, x=99)), view(seen(0.7))], "a + b", match="order").faces
    assert person.probabilities["happy"] == pytest.approx(0.8)


def test_frames_are_brought_together_by_their_times():
    fast = (view(time_s=i / 30) for i in range(30))
    slow = (view(time_s=0.01 + i / 10, source="b") for i in range(10))
    moments = list(matched_in_time([fast, slow]))
    assert len(moments) == 30
    assert all(abs(a.frame.time_s - b.frame.time_s) <= 0.06 for a, b in moments)


def test_a_view_that_ended_is_missing_from_later_moments():
    moments = list(matched_in_time([(view(time_s=float(i)) for i in range(4)), iter([view(time_s=0.0, source="b")])]))
    assert [len(moment) for moment in moments] == [2, 1, 1, 1]


def test_a_view_goes_on_where_the_first_ends():
    short, long = ([view(time_s=i / 10, source=name) for i in range(n)] for name, n in (("a", 2), ("b", 5)))
    moments = list(matched_in_time([iter(short), iter(long)]))
    assert [[each.frame.source for each in moment] for moment in moments] == [["a", "b"]] * 2 + [["b"]] * 3
    assert [moment[-1].frame.time_s for moment in moments] == pytest.approx([0, 0.1, 0.2, 0.3, 0.4])


def test_no_moment_of_the_longest_of_three_views_is_lost():
    streams = [[view(time_s=i / 10, source=name) for i in range(n)] for name, n in (("a", 2), ("b", 2), ("c", 5))]
    moments = list(matched_in_time([iter(stream) for stream in streams]))
    assert [moment[-1].frame.time_s for moment in moments] == pytest.approx([0, 0.1, 0.2, 0.3, 0.4])


def test_a_view_that_begins_later_loses_no_moment():
    late = [view(time_s=5 + i / 10, source="b") for i in range(3)]
    moments = list(matched_in_time([iter([view(time_s=0.0)]), iter(late)]))
    assert [[each.frame.source for each in moment] for moment in moments] == [["a"], ["b"], ["b"], ["b"]]


def test_each_view_numbers_its_people_for_itself_and_what_they_say_together_has_no_number():
    [person] = fuse([view(replace(seen(0.9), track=3)), view(seen(0.1), source="b")], "a + b").faces
    assert person.track is None


class Camera:
    """Gives a frame every 10 ms."""

    def __init__(self, number):
        pass

    def isOpened(self):
        return True

    def read(self):
        time.sleep(0.01)
        return True, np.zeros((4, 4, 3), np.uint8)

    def release(self):
        pass


def test_cameras_that_go_along_have_one_clock(monkeypatch):
    monkeypatch.setattr(cv2, "VideoCapture", Camera)
    [views] = open_scenes(["0", "1"])
    times = []
    for view in views:
        frames = view.frames()
        times.append(next(frames)().time_s)
        frames.close()
        time.sleep(0.5)
    assert times[1] - times[0] >= 0.5


def test_patterns_are_matched_as_folders_are(tmp_path, write_image, face):
    for name in ("left/1.png", "left/2.png", "right/1.png", "right/2.png"):
        write_image(tmp_path / name, face(1))
    for places in (("left/*.png", "right/*.png"), ("left", "right/*.png")):
        scenes = open_scenes([str(tmp_path / place) for place in places])
        assert [[source.name.rpartition("/")[2] for source in views] for views in scenes] == [
            ["1.png"] * 2,
            ["2.png"] * 2,
        ]


def test_folders_are_matched_by_file_names(tmp_path, write_image, face):
    for folder, names in {"left": ("1.png", "2.png", "only.png"), "right": ("1.png", "2.png")}.items():
        for name in names:
            write_image(tmp_path / folder / name, face(1))
    scenes = open_scenes([str(tmp_path / "left"), str(tmp_path / "right")])
    assert [[source.name.rpartition("/")[2] for source in views] for views in scenes] == [
        ["1.png"] * 2,
        ["2.png"] * 2,
        ["only.png"],
    ]


def test_moments_are_numbered_though_views_end_and_a_lone_picture_is_one_row(tmp_path):
    class Counting:
        """A predictor that finds nothing."""

        def predict_all(self, frames, **_):
            for load in frames:
                yield Prediction(frame=load(), faces=[])

    def film(name, times):
        frames = [
            Frame(source=name, number=i, time_s=s, image=np.zeros((9, 9, 3), np.uint8)) for i, s in enumerate(times)
        ]
        return Source(name=name, kind="video", frames=lambda: iter([lambda f=f: f for f in frames]), fps=1)

    def lone():
        return Source(name="only.png", kind="image", frames=lambda: iter([lambda: Frame(source="only.png")]))

    scenes = [[film("a", [0, 1]), film("b", [0, 5, 10])], [lone()]]
    with Results(tmp_path, ["sad", "glad"], moving=True) as results:
        list(predict_scenes(Counting(), scenes, "largest", results, keep_images=False))
    rows = pd.read_csv(tmp_path / "predictions.csv")
    assert rows[rows["source"] == "a + b"]["frame"].tolist() == [0, 1, 2, 3]
    assert (rows["source"] == "only.png").sum() == 1


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["left", "film.mp4"], "one camera per view, or folders of images, got 1 of left, 1 of film.mp4"),
        (["films", "film.mp4"], "needs one video per view, .* got 2 of films, 1 of film.mp4"),
        (["twice/*/*.png", "left"], "twice/a/1.png and twice/b/1.png have the same file name"),
        (["left", "empty_names"], "have no file name in common"),
    ],
)
def test_views_that_do_not_belong_together_are_refused(tmp_path, monkeypatch, write_image, face, names, message):
    write_image(tmp_path / "left" / "1.png", face(1))
    write_image(tmp_path / "empty_names" / "2.png", face(1))
    for name in ("twice/a/1.png", "twice/b/1.png"):
        write_image(tmp_path / name, face(1))
    (tmp_path / "films").mkdir()
    for name in ("film.mp4", "films/a.mp4", "films/b.mp4"):
        (tmp_path / name).touch()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=message):
        open_scenes(names)
