"""Who is who in a video, smoothed, and when an emotion comes and goes."""

from math import exp

import pytest

from fer_lightning.inference.boxes import Box
from fer_lightning.inference.events import EventRecorder
from fer_lightning.inference.predictor import Face, Prediction
from fer_lightning.inference.sources import Frame
from fer_lightning.inference.tracking import Tracker

FPS = 25


def frame(number: int, *faces: tuple[float, float]) -> Prediction:
    """Frame `number`, with a face at each (x, probability of happy)."""
    return Prediction(
        frame=Frame(source="v.mp4", number=number, time_s=number / FPS),
        faces=[Face(box=Box(x, 10, 50, 50), probabilities={"happy": happy, "sad": 1 - happy}) for x, happy in faces],
    )


def tracks(tracker: Tracker, *frames: Prediction) -> list[list[int]]:
    return [[face.track for face in tracker.follow(prediction).faces] for prediction in frames]


def test_a_face_keeps_its_number_as_it_moves():
    assert tracks(Tracker(), *(frame(i, (10 + 3 * i, 1.0)) for i in range(20))) == [[0]] * 20


def test_two_faces_that_change_places_in_the_list_keep_their_numbers():
    assert tracks(Tracker(), frame(0, (0, 1), (100, 1)), frame(1, (100, 1), (0, 1))) == [[0, 1], [1, 0]]


def test_a_face_that_overlaps_two_people_is_the_nearer_ones():
    assert tracks(Tracker(), frame(0, (0, 1), (40, 1)), frame(1, (35, 1), (2, 1))) == [[0, 1], [1, 0]]


def test_a_short_gap_is_bridged_and_a_long_one_is_not():
    assert tracks(Tracker(gap_s=1.0), frame(0, (0, 1)), frame(1), frame(24, (0, 1))) == [[0], [], [0]]
    assert tracks(Tracker(gap_s=1.0), frame(0, (0, 1)), frame(1), frame(27, (0, 1))) == [[0], [], [1]]


def test_a_face_elsewhere_is_another_person():
    assert tracks(Tracker(), frame(0, (0, 1)), frame(1, (200, 1))) == [[0], [1]]


def test_smoothing_weighs_by_time_and_keeps_the_frames_own_probabilities_beside():
    one = Tracker(smooth_s=0.5)
    one.follow(frame(0, (0, 1.0)))
    [late] = one.follow(frame(10, (0, 0.0))).faces
    assert late.raw_probabilities == {"happy": 0.0, "sad": 1.0}
    two = Tracker(smooth_s=0.5)
    two.follow(frame(0, (0, 1.0)))
    two.follow(frame(5, (0, 0.0)))
    [stepwise] = two.follow(frame(10, (0, 0.0))).faces
    assert 0 < late.probabilities["happy"] < 0.6
    assert stepwise.probabilities["happy"] == pytest.approx(late.probabilities["happy"])
    assert sum(stepwise.probabilities.values()) == pytest.approx(1)


def test_a_frame_that_comes_after_a_later_one_leaves_probabilities():
    tracker = Tracker(smooth_s=0.3)
    tracker.follow(frame(10, (0, 1.0)))
    [overtaken] = tracker.follow(frame(9, (0, 0.0))).faces
    assert overtaken.probabilities == {"happy": 1.0, "sad": 0.0}
    [later] = tracker.follow(frame(11, (0, 0.0))).faces
    assert later.probabilities["happy"] == pytest.approx(exp(-1 / FPS / 0.3))


def test_one_strange_frame_does_not_turn_the_emotion():
    tracker = Tracker(smooth_s=0.3)
    emotions = [tracker.follow(frame(i, (0, 0.0 if i == 10 else 0.9))).faces[0].emotion for i in range(20)]
    assert set(emotions) == {"happy"}


def test_without_smoothing_nothing_is_changed():
    tracker = Tracker(smooth_s=0)
    tracker.follow(frame(0, (0, 1.0)))
    [face] = tracker.follow(frame(1, (0, 0.2))).faces
    assert face.probabilities == {"happy": 0.2, "sad": 0.8}
    assert face.raw_probabilities is None


def test_events_say_when_an_emotion_began_and_ended():
    tracker, recorder = Tracker(smooth_s=0), EventRecorder()
    for i in range(50):
        recorder.add(tracker.follow(frame(i, (0, 0.9 if i < 25 else 0.2))))
    happy, sad = recorder.finish()
    assert (happy.emotion, happy.onset_s, happy.offset_s, happy.frames) == ("happy", 0.0, 0.96, 25)
    assert (sad.emotion, sad.onset_s, sad.offset_s, sad.frames) == ("sad", 1.0, 1.96, 25)
    assert happy.confidence == pytest.approx(0.9)
    assert (happy.track, happy.source) == (0, "v.mp4")


def test_a_flicker_is_no_event():
    tracker, recorder = Tracker(smooth_s=0), EventRecorder(shortest_s=0.2)
    for i in range(50):
        recorder.add(tracker.follow(frame(i, (0, 0.1 if i == 25 else 0.9))))
    assert {event.emotion for event in recorder.finish()} == {"happy"}
