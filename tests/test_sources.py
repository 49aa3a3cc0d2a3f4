"""What a person may name, and the frames it gives; a camera is played by a stand-in for OpenCV's."""

import os
import struct
import sys
import threading
import time
from itertools import pairwise

import cv2
import numpy as np
import pytest

from fer_lightning.errors import InputError
from fer_lightning.inference import sources
from fer_lightning.inference.sources import _ends_within_a_box, open_camera, open_sources
from fer_lightning.web.video_writer import BrowserVideoWriter


def kinds(*names: str) -> list[tuple[str, str]]:
    return [(source.kind, source.name) for source in open_sources(names)]


@pytest.fixture
def place(tmp_path, monkeypatch, write_image, face):
    monkeypatch.chdir(tmp_path)
    for name in ("photos/b.jpg", "photos/a/z.png", "photos/.hidden.png", "[odd].png"):
        write_image(tmp_path / name, face(1))
    for name in ("photos/film.MP4", "photos/notes.txt"):
        (tmp_path / name).touch()
    return tmp_path


def test_a_folder_gives_its_pictures_and_videos_in_order(place):
    assert kinds("photos") == [
        ("image", "photos/b.jpg"),
        ("video", "photos/film.MP4"),
        ("image", "photos/a/z.png"),
    ]


def test_hidden_folders_and_files_are_passed_over(place, write_image, face):
    write_image(place / "photos" / ".thumbnails" / "b.png", face(1))
    write_image(place / "photos" / "._b.png", face(1))
    assert not [name for _, name in kinds("photos") if "/." in name]


def test_what_was_written_about_a_folder_is_not_among_its_pictures(place, write_image, face):
    write_image(place / "outputs" / "predictions" / "today" / "pictures" / "b.jpg", face(1))
    assert all("predictions" not in name for _, name in [*kinds("."), *kinds("outputs")])
    assert all("predictions" not in name for _, name in kinds("**/*.jpg"))
    for name in ("outputs/predictions/today", "outputs/predictions/**/*.jpg"):
        assert kinds(name) == [("image", "outputs/predictions/today/pictures/b.jpg")]


def test_a_pattern_gives_what_it_matches_and_a_file_with_brackets_itself(place):
    assert kinds("photos/**/*.png") == [("image", "photos/a/z.png")]
    assert kinds("[odd].png") == [("image", "[odd].png")]


@pytest.mark.skipif(sys.platform == "win32", reason="links need privileges")
def test_a_link_that_leads_in_a_circle_gives_no_picture_twice(place):
    (place / "photos" / "a" / "loop").symlink_to(place / "photos")
    (place / "photos" / "again").symlink_to(place / "photos")  # two of them are endless for glob
    assert kinds("photos/**/*.png") == kinds("**/z.png") == [("image", "photos/a/z.png")]
    assert ("image", "photos/b.jpg") in kinds("photos/**")
    assert kinds(f"{place}/**/z.png") == [("image", f"{place}/photos/a/z.png")]


@pytest.mark.parametrize(
    ("name", "problem"), [("nothing*.jpg", "matches no file"), ("empty", "holds no image or video")]
)
def test_a_name_that_yields_nothing_says_so_beside_others(place, name, problem):
    (place / "empty").mkdir()
    _, nothing = open_sources(["photos/b.jpg", name])
    [load] = nothing.frames()
    assert (load().source, load().image, load().problem) == (name, None, problem)


def test_a_number_is_a_camera_unless_a_file_is_called_so(place, write_image, face):
    assert kinds("0") == [("camera", "camera 0")]
    assert kinds("20240115123000") == [("image", "20240115123000")]
    write_image(place / "7.png", face(0))
    (place / "7.png").rename(place / "7")
    assert kinds("7") == [("image", "7")]


def test_a_file_of_any_name_is_tried_as_a_picture(place):
    [source] = open_sources(["photos/notes.txt"])
    [load] = source.frames()
    assert load().problem == "(0 bytes) does not decode as an image"


@pytest.mark.skipif(sys.platform == "win32" or os.geteuid() == 0, reason="root may read anything")
def test_a_file_without_the_right_to_read_it_is_told(place):
    (place / "photos/b.jpg").chmod(0)
    [source] = open_sources(["photos/b.jpg"])
    [load] = source.frames()
    assert "Permission denied" in load().problem


def test_a_folder_that_may_not_be_searched_is_told_beside_others(place, monkeypatch):
    def walk(folder, onerror):
        onerror(PermissionError(13, "Permission denied", f"{folder}/locked"))
        yield folder, [], ["b.jpg"]

    monkeypatch.setattr(os, "walk", walk)
    picture, locked = (load() for source in open_sources(["photos"]) for load in source.frames())
    assert picture.problem is None
    assert (locked.source, locked.problem) == ("photos/locked", "cannot be searched (Permission denied)")


@pytest.mark.skipif(sys.platform == "win32" or os.geteuid() == 0, reason="root may read anything")
def test_a_file_in_a_folder_that_may_not_be_searched_is_told_beside_others(place):
    (place / "photos/a").chmod(0)
    frames = [load() for source in open_sources(["photos/b.jpg", "photos/a/z.png"]) for load in source.frames()]
    assert [frame.problem for frame in frames] == [None, "cannot be read (Permission denied)"]


class Camera:
    """Gives a new frame every 10 ms, whether anyone looks or not; frame i is of brightness i."""

    frames = 60
    opens = True

    def __init__(self, number):
        self._i = -1

    def isOpened(self):
        return self.opens

    def read(self):
        time.sleep(0.01)
        self._i += 1
        return (True, np.full((4, 4, 3), self._i, np.uint8)) if self._i < self.frames else (False, None)

    def release(self):
        pass


@pytest.fixture
def camera(monkeypatch):
    monkeypatch.setattr(cv2, "VideoCapture", Camera)
    monkeypatch.setattr(sources, "CAMERA_SILENCE_S", 0.5)
    return Camera


def test_a_slow_reader_gets_the_newest_frame_and_no_growing_delay(camera):
    seen = []
    for load in open_camera(0).frames():
        frame = load()
        if frame.image is None:
            break
        seen.append(int(frame.image[0, 0, 0]))
        time.sleep(0.05)
    assert seen == sorted(set(seen))
    assert len(seen) < 50  # of 60: without dropping it would be all
    assert seen[-1] > 50


def test_a_camera_that_is_lost_says_so_and_keeps_what_it_gave(camera):
    frames = [load() for load in open_camera(0).frames()]
    assert frames[-1].problem == "was lost"
    assert all(frame.image is not None for frame in frames[:-1])
    assert [frame.number for frame in frames] == list(range(len(frames)))
    assert all(a.time_s <= b.time_s for a, b in pairwise(frames))


def test_a_camera_that_is_not_there_is_told(camera, monkeypatch):
    monkeypatch.setattr(camera, "opens", False)
    with pytest.raises(InputError, match="there is no camera 3, or another program uses it: try another number"):
        next(open_camera(3).frames())


def test_a_camera_is_let_go_when_nobody_looks_any_more(camera):
    frames = open_camera(0).frames()
    next(frames)
    before = threading.active_count()
    frames.close()
    assert threading.active_count() < before


@pytest.mark.parametrize(("frames", "every_s", "ends_early"), [(60, 1 / 15, False), (60, 1 / 30, True)])
def test_a_film_of_varying_rate_is_whole_though_it_holds_fewer_frames_than_its_rate_says(
    monkeypatch, frames, every_s, ends_early
):
    """Both say 30 frames/s for four seconds; one lasts as long with every second frame, the other is cut."""

    class Film:
        def __init__(self, path):
            self.read_so_far = 0

        def isOpened(self):
            return True

        def get(self, what):
            times = {cv2.CAP_PROP_POS_MSEC: 1000 * every_s * (self.read_so_far - 1)}
            return {cv2.CAP_PROP_FPS: 30.0, cv2.CAP_PROP_FRAME_COUNT: 120.0, **times}[what]

        def read(self):
            self.read_so_far += 1
            return self.read_so_far <= frames, np.zeros((8, 8, 3), np.uint8)

        def release(self):
            pass

    monkeypatch.setattr(cv2, "VideoCapture", Film)
    [film] = open_sources(["film.avi"])
    last = [load() for load in film.frames()][-1]
    assert (last.problem == "ends after 60 of 120 frames") == ends_early
    [film] = open_sources(["film.mkv"])  # its count is derived from the duration, which sound may lengthen
    assert all(load().problem is None for load in film.frames())


def test_a_film_that_was_trimmed_by_an_edit_list_is_whole(tmp_path):
    path = tmp_path / "film.mp4"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"mp4v"), 25, (64, 48))
    for number in range(40):
        writer.write(np.full((48, 64, 3), 6 * number, np.uint8))
    writer.release()
    content = bytearray(path.read_bytes())
    struct.pack_into(">I", content, content.index(b"elst") + 12, 480)  # ms to show, of 1,600
    path.write_bytes(content)
    [film] = open_sources([str(path)])
    frames = [load() for load in film.frames()]
    assert 0 < len(frames) < 20
    assert all(frame.problem is None for frame in frames)


def test_a_film_that_begins_with_its_index_and_is_cut_says_where_it_ends(tmp_path):
    path = tmp_path / "film.mp4"
    writer, random = BrowserVideoWriter(path, 25.0), np.random.default_rng(0)
    for _ in range(30):
        writer.write(random.integers(0, 256, (48, 64, 3), dtype=np.uint8))
    writer.close()
    [film] = open_sources([str(path)])
    assert all(load().problem is None for load in film.frames())
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    *frames, last = [load() for load in film.frames()]
    assert 0 < len(frames) < 27
    assert last.problem == f"ends after {len(frames)} of 30 frames"


@pytest.mark.parametrize(
    "boxes",
    [
        struct.pack(">I4sI4s", 8, b"free", 108, b"mdat") + bytes(100),
        struct.pack(">I4sQ", 1, b"mdat", 116) + bytes(100),  # the size follows in 64 bits
    ],
    ids=["32 bits", "64 bits"],
)
def test_a_film_is_cut_if_it_ends_within_a_box(tmp_path, boxes):
    path = tmp_path / "film.mp4"
    for content, cut in ((boxes, False), (boxes + bytes(4), False), (boxes[:-1], True)):
        path.write_bytes(content)
        assert _ends_within_a_box(str(path)) == cut
    path.write_bytes(struct.pack(">I4s", 0, b"mdat") + bytes(50))  # up to the end of the file, wherever that is
    assert not _ends_within_a_box(str(path))


def test_a_folder_passes_over_no_photo_and_no_film(tmp_path):
    for name in ("a.HEIC", "b.MTS", "c.nef", "d.jpg", "notes.txt"):
        (tmp_path / name).write_bytes(b"no picture")
    found = open_sources([str(tmp_path)])
    assert [source.kind for source in found] == ["image", "video", "image", "image"]
    frames = [load() for source in found for load in source.frames()]
    assert "does not decode as an image: convert it to JPEG" in frames[0].problem
    assert "convert" not in frames[3].problem


def test_a_film_is_looked_for_in_files_alone(place, monkeypatch):
    opened = []
    real = cv2.VideoCapture
    monkeypatch.setattr(cv2, "VideoCapture", lambda name: opened.append(name) or real(name))
    film = cv2.VideoWriter(str(place / "12:30.avi"), cv2.VideoWriter_fourcc(*"MJPG"), 25, (32, 32))
    film.write(np.zeros((32, 32, 3), np.uint8))
    film.release()
    here, elsewhere = open_sources(["12:30.avi", "http://localhost/film.mp4"])
    assert [load().problem for load in here.frames()] == [None]
    assert [load().problem for load in elsewhere.frames()] == ["cannot be read (No such file or directory)"]
    assert all(name.startswith(str(place)) for name in opened)


def test_a_rate_that_no_camera_has_is_not_taken_for_one(tmp_path):
    for fps, known in ((1000, None), (30, 30)):
        path = str(tmp_path / f"{fps}.avi")
        writer = cv2.VideoWriter(path, cv2.VideoWriter_fourcc(*"MJPG"), fps, (32, 32))
        writer.write(np.zeros((32, 32, 3), np.uint8))
        writer.release()
        [source] = open_sources([path])
        assert source.fps == known
