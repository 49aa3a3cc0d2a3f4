"""`fer-predict` as a person uses it: real and broken files, videos, streams, and what is left behind."""

import csv
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pandas as pd
import pytest
from rich.console import Console
from typer.testing import CliRunner

from fer_lightning import predict as predict_module
from fer_lightning.command import make_command
from fer_lightning.errors import InputError
from fer_lightning.inference import timeline
from fer_lightning.inference.boxes import Box
from fer_lightning.inference.drawing import BLOCKS
from fer_lightning.inference.pictures import VideoWriter, write_picture
from fer_lightning.inference.predictor import Face, Prediction
from fer_lightning.inference.results import Results, VideoResults
from fer_lightning.inference.sources import Frame, Source
from fer_lightning.inference.table import table_writer
from fer_lightning.inference.window import WindowClosed
from fer_lightning.labels import FER2013_CLASSES

COLUMNS = [
    "source", "frame", "time_s", "face", "track", "x", "y", "width", "height", "detector_score", "emotion",
    "confidence", *(f"p_{name}" for name in FER2013_CLASSES), "status",
]  # fmt: skip
posix_only = pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX signals, limits and file names")


@pytest.fixture
def predict(onnx_model, tmp_path):
    """predict(*arguments): run the command in `tmp_path`, where results go to `out`."""

    def run(*arguments, model=onnx_model, output="out", **options):
        command = [sys.executable, "-m", "fer_lightning.predict", *map(str, arguments), "--model", str(model)]
        command += ["--output", output] if output else []
        caught = {} if "stdout" in options else {"capture_output": True}
        return subprocess.run(command, cwd=tmp_path, timeout=120, **caught, **options)

    return run


@pytest.fixture
def table(tmp_path):
    """table(): the rows of out/predictions.csv."""
    return lambda: list(csv.DictReader((tmp_path / "out" / "predictions.csv").read_text(encoding="utf-8").splitlines()))


@pytest.fixture
def video(tmp_path, photo):
    """video(count): a film of the face moving, again and again, at 25 frames/s, every tenth frame without it."""

    def write(count=40, name="film.mp4", size=(320, 240)):
        writer = cv2.VideoWriter(str(tmp_path / name), cv2.VideoWriter_fourcc(*"mp4v"), 25, size)
        for i in range(count):
            shift = np.float32([[0.75, 0, -60 + 1.5 * (i % 80)], [0, 0.75, -20]])
            seen = cv2.warpAffine(photo, shift, size, borderMode=cv2.BORDER_REPLICATE)
            writer.write(np.full_like(seen, 90) if i % 10 == 9 else seen)
        writer.release()
        return tmp_path / name

    return write


def jpeg(image) -> bytes:
    return cv2.imencode(".jpg", image)[1].tobytes()


def test_a_folder_of_real_and_broken_files_is_read_to_its_end(predict, table, tmp_path, photo):
    folder = tmp_path / "my photos"
    (folder / "deeper").mkdir(parents=True)
    (folder / "deeper" / "face 😀.jpg").write_bytes(jpeg(photo))
    (folder / "blank.png").write_bytes(cv2.imencode(".png", np.zeros((50, 80, 3), np.uint8))[1].tobytes())
    (folder / "one.png").write_bytes(cv2.imencode(".png", np.zeros((1, 1, 3), np.uint8))[1].tobytes())
    (folder / "empty.jpg").touch()
    (folder / "text.jpg").write_text("Dear diary")
    (folder / "cut.jpg").write_bytes(jpeg(photo)[:5000])
    (folder / "notes.txt").write_text("not a picture, and not named like one")
    if sys.platform != "win32":
        (folder / "gone.jpg").symlink_to("nowhere.jpg")
        (folder / "circle").symlink_to(folder)
        (tmp_path / os.fsdecode(b"my photos/\xff.jpg")).write_bytes(jpeg(photo))
    finished = predict(folder)
    assert finished.returncode == 0, finished.stderr
    statuses = {Path(row["source"]).name: row["status"] for row in table()}
    broken = dict.fromkeys(["empty.jpg", "text.jpg", "cut.jpg"], "unreadable")
    links = {"gone.jpg": "unreadable", "\\udcff.jpg": "ok"} if sys.platform != "win32" else {}
    assert statuses == {"face 😀.jpg": "ok", "blank.png": "no_face", "one.png": "no_face"} | broken | links
    problems = (tmp_path / "out" / "problems.csv").read_text(encoding="utf-8")
    assert "(0 bytes) does not decode" in problems
    assert "Traceback" not in finished.stderr.decode()
    assert b"unreadable, in" in finished.stderr


def test_the_table_has_the_columns_that_are_promised(predict, table, tmp_path, photo):
    (tmp_path / "a.jpg").write_bytes(jpeg(photo))
    assert predict("a.jpg").returncode == 0
    [row] = table()
    assert list(row) == COLUMNS
    assert (row["source"], row["frame"], row["face"], row["status"]) == ("a.jpg", "0", "0", "ok")
    assert (row["time_s"], row["track"]) == ("", "")
    assert 150 < float(row["x"]) < 200
    assert sum(float(row[f"p_{name}"]) for name in FER2013_CLASSES) == pytest.approx(1, abs=1e-4)


def test_every_format_holds_the_same(predict, tmp_path, photo):
    (tmp_path / "a.jpg").write_bytes(jpeg(photo))
    (tmp_path / "b.png").write_bytes(cv2.imencode(".png", np.zeros((50, 80, 3), np.uint8))[1].tobytes())
    assert predict("a.jpg", "b.png", "--format", "csv,jsonl,parquet").returncode == 0
    out = tmp_path / "out"
    tables = [
        pd.read_csv(out / "predictions.csv"),
        pd.read_json(out / "predictions.jsonl", lines=True),
        pd.read_parquet(out / "predictions.parquet"),
    ]
    for other in tables[1:]:
        assert list(other.columns) == list(tables[0].columns) == COLUMNS
        assert other["status"].tolist() == ["ok", "no_face"]
        assert other["confidence"][0] == pytest.approx(tables[0]["confidence"][0])


def test_json_goes_to_stdout_and_nothing_else_there(predict, tmp_path, photo):
    finished = predict("-", "--json", output=None, input=jpeg(photo))
    assert finished.returncode == 0
    [row] = [json.loads(line) for line in finished.stdout.splitlines()]
    assert list(row) == COLUMNS
    assert (row["source"], row["status"], row["time_s"]) == ("-", "ok", None)
    assert list(tmp_path.iterdir()) == []


def test_a_glob_and_a_file_are_sources_too(predict, table, tmp_path, photo):
    for name in ("b.jpg", "a.jpg", "c.png"):
        (tmp_path / name).write_bytes(jpeg(photo))
    assert predict("*.jpg", "c.png").returncode == 0
    assert [row["source"] for row in table()] == ["a.jpg", "b.jpg", "c.png"]


def test_every_frame_of_a_video_has_its_rows_in_time(predict, table, video, tmp_path):
    assert predict(video(40), "--save", "all").returncode == 0
    rows = table()
    frames = sorted({int(row["frame"]) for row in rows})
    assert frames == list(range(40))
    times = {int(row["frame"]): float(row["time_s"]) for row in rows}
    assert [times[i] for i in frames] == pytest.approx([i / 25 for i in frames], abs=0.002)
    assert {row["status"] for row in rows if int(row["frame"]) % 10 == 9} == {"no_face"}
    main = [row for row in rows if row["track"] == "0"]
    assert len(main) >= 30
    assert float(main[0]["raw_p_happy"]) == float(main[0]["p_happy"])
    assert any(row["raw_p_happy"] != row["p_happy"] for row in main[1:])
    out = tmp_path / "out"
    annotated = cv2.VideoCapture(str(out / "videos" / "film.mp4"))
    assert annotated.get(cv2.CAP_PROP_FRAME_COUNT) == 40
    assert (out / "timelines" / "film.png").read_bytes().startswith(b"\x89PNG")
    events = pd.read_csv(out / "events.csv")
    assert set(events.columns) == {"source", "track", "emotion", "onset_s", "offset_s", "frames", "confidence"}


def test_a_film_that_is_not_smoothed_has_no_second_probabilities(predict, table, video):
    assert predict(video(5), "--smooth", "0").returncode == 0
    assert list(table()[0]) == COLUMNS


def test_a_video_cut_short_says_where_it_ends(predict, table, video):
    path = video(60, name="film.avi")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert predict(path).returncode == 0
    last = table()[-1]
    assert last["status"] == "unreadable"
    assert 5 < int(last["frame"]) < 55


def test_a_file_that_only_looks_like_a_video_is_a_row(predict, table, tmp_path, photo):
    (tmp_path / "film.mp4").write_text("not a film")
    (tmp_path / "a.jpg").write_bytes(jpeg(photo))
    assert predict("film.mp4", "a.jpg").returncode == 0
    assert [row["status"] for row in table()] == ["unreadable", "ok"]


def test_pictures_are_written_with_faces_marked_or_hidden(predict, tmp_path, photo):
    (tmp_path / "a.png").write_bytes(cv2.imencode(".png", photo)[1].tobytes())
    assert predict("a.png", "--save", "images", "--anonymize").returncode == 0
    written = cv2.imread(str(tmp_path / "out" / "pictures" / "a.jpg"))
    eyes, rest = np.s_[90:120, 190:260], np.s_[400:500, 400:500]
    assert cv2.Laplacian(cv2.cvtColor(written[eyes], cv2.COLOR_BGR2GRAY), cv2.CV_64F).var() < 0.3 * (
        cv2.Laplacian(cv2.cvtColor(photo[eyes], cv2.COLOR_BGR2GRAY), cv2.CV_64F).var()
    )
    assert np.abs(written[rest].astype(int) - photo[rest]).mean() < 5


@pytest.mark.parametrize(
    ("option", "value", "status"), [("--min-face", 300, "no_face"), ("--max-pixels", 1000, "unreadable")]
)
def test_a_limit_that_is_given_holds(predict, table, tmp_path, photo, option, value, status):
    (tmp_path / "a.jpg").write_bytes(jpeg(photo))
    predict("a.jpg", option, value)
    assert [row["status"] for row in table()] == [status]


def test_an_unsure_face_is_marked(predict, table, tmp_path, photo):
    (tmp_path / "a.jpg").write_bytes(jpeg(photo))
    assert predict("a.jpg", "--abstain-below", "1").returncode == 0
    assert [row["status"] for row in table()] == ["low_confidence"]


def under_nohup() -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # a shell's background job ignores Ctrl-C
    signal.signal(signal.SIGHUP, signal.SIG_IGN)


@posix_only
@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_a_stopped_run_keeps_a_valid_table_and_a_video_that_plays(onnx_model, video, tmp_path, table, name):
    command = [sys.executable, "-m", "fer_lightning.predict", str(video(1500)), "--model", str(onnx_model)]
    with subprocess.Popen(
        [*command, "--save", "video", "--output", "out"],
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        preexec_fn=under_nohup,
    ) as process:
        film = tmp_path / "out" / "videos" / "film.mp4"
        while process.poll() is None and not any(part.stat().st_size > 20_000 for part in film.parent.glob(".film*")):
            time.sleep(0.02)
        process.send_signal(signal.SIGHUP)
        process.send_signal(getattr(signal, name))
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    assert errors.count(b"the results so far are kept") == 1
    frames = {int(row["frame"]) for row in table()}
    assert 5 < len(frames) < 1500
    assert frames == set(range(len(frames)))
    assert cv2.VideoCapture(str(film)).read()[0]


@posix_only
def test_a_run_stopped_before_its_first_result_says_so_by_its_exit_code(onnx_model, tmp_path):
    command = [sys.executable, "-m", "fer_lightning.predict", "-", "--model", str(onnx_model), "--json"]
    with subprocess.Popen(
        command, cwd=tmp_path, stdin=subprocess.PIPE, stderr=subprocess.PIPE, preexec_fn=under_nohup
    ) as process:
        assert process.stderr.readline().startswith(b"Model: ")
        time.sleep(1)
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=30) == 130


def test_a_view_that_is_missing_is_told(predict, video):
    video(5)
    finished = predict("film.mp4", "flim.mp4", "--views")
    assert finished.returncode == 0
    assert b"flim.mp4 cannot be read" in finished.stderr


@pytest.mark.parametrize(("save", "remedy"), [("images", b"--save video"), ("video", b"--save images")])
def test_pictures_of_films_and_films_of_pictures_are_refused(predict, video, tmp_path, photo, save, remedy):
    (tmp_path / "a.jpg").write_bytes(jpeg(photo))
    finished = predict("a.jpg" if save == "video" else video(2), "--save", save)
    assert finished.returncode == 2
    assert remedy in finished.stderr


def test_a_format_given_twice_is_one_format(predict, table, tmp_path, photo):
    (tmp_path / "a.jpg").write_bytes(jpeg(photo))
    assert predict("a.jpg", "--format", "csv,csv").returncode == 0
    assert len(table()) == 1


def limit():
    """Let no file grow beyond 3,000 bytes, as on a full disk."""
    import resource

    resource.setrlimit(resource.RLIMIT_FSIZE, (3000, 3000))
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)


@pytest.fixture
def many(tmp_path, photo):
    for i in range(60):
        (tmp_path / f"{i:02}.jpg").write_bytes(jpeg(cv2.resize(photo, (200, 200))))


@posix_only
def test_a_full_disk_leaves_the_rows_that_others_wrote_to_the_same_file(predict, tmp_path, many):
    before = '{"source": "before"}\n' * 100
    (tmp_path / "all.jsonl").write_text(before)
    with (tmp_path / "all.jsonl").open("ab") as file:
        finished = predict("*.jpg", "--json", output=None, preexec_fn=limit, stdout=file, stderr=subprocess.PIPE)
    assert finished.returncode == 1
    assert b"File too large (stdout); free some space there" in finished.stderr
    lines = (tmp_path / "all.jsonl").read_text()
    assert lines.startswith(before)
    assert all(json.loads(line)["source"] for line in lines.splitlines())


@posix_only
def test_a_disk_that_was_full_before_is_the_reason_that_is_told(predict, tmp_path, photo):
    (tmp_path / "a.jpg").write_bytes(jpeg(photo))
    with Path("/dev/full").open("wb") as full:
        finished = predict("a.jpg", "--json", output=None, stdout=full, stderr=subprocess.PIPE)
    assert finished.returncode == 1
    assert b"No space left on device (stdout)" in finished.stderr
    assert b"nothing could be read" not in finished.stderr


@posix_only
@pytest.mark.parametrize("formats", ["csv", "csv,parquet"])
def test_a_full_disk_keeps_the_rows_that_are_complete(predict, table, many, formats):
    finished = predict("*.jpg", "--format", formats, preexec_fn=limit)
    assert finished.returncode == 1
    rows = table()
    assert 5 < len(rows) < 60
    assert all(row["status"] in ("ok", "no_face") for row in rows)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("nothing_here", "cannot be read .*nothing could be read"),
        ("empty", "empty holds no image or video.*nothing could be read"),
        ("99", "there is no camera 99"),
    ],
)
def test_a_source_that_gives_nothing_is_told_in_words(predict, tmp_path, source, message):
    (tmp_path / "empty").mkdir()
    finished = predict(source)
    errors = " ".join(finished.stderr.decode().split())
    assert finished.returncode == 1, errors
    assert re.search(message, errors), errors
    assert "Traceback" not in errors


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "Missing argument"),
        (["a.jpg", "--format", "xlsx"], "choose from csv, jsonl, parquet"),
        (["a.jpg", "--min-face", "-3"], "--min-face must be above 0"),
        (["a.jpg", "--detector", "yolo"], "Invalid value for '--detector'"),
        (["a.jpg", "--bogus"], "No such option"),
        (["a.jpg", "--min-face", "80", "--detector", "none"], "--detector none does not search"),
        (["a.jpg", "--max-side", "80", "--detector", "none"], "--detector none does not search"),
        (["a.jpg", "--align", "--detector", "none"], "--align needs a detector"),
        (["a.jpg", "--profile", "--detector", "mtcnn"], "--profile works only with --detector haar"),
        (["a.jpg", "--match", "order"], "--match order matches the faces of several views: add --views"),
        (["a", "b", "--views", "--show"], "--show shows one source"),
        (["a", "--views"], "--views needs at least two sources"),
        (["a.jpg", "--anonymize"], "none are written or shown: add --save"),
    ],
)
def test_a_mistaken_option_is_told_in_words(arguments, message):
    finished = CliRunner().invoke(make_command(predict_module.main), arguments)
    errors = " ".join(finished.stderr.replace("│", " ").split())
    assert finished.exit_code == 2, errors
    assert re.search(message, errors), errors


def test_every_option_of_reading_reaches_the_predictor(monkeypatch):
    asked = {}

    def predictor(model, **options):
        asked.update(options, model=model)
        raise InputError("it is not to read anything")

    monkeypatch.setattr(predict_module, "Predictor", predictor)
    monkeypatch.setattr(predict_module, "_prepare_process", lambda max_pixels: asked.update(max_pixels=max_pixels))
    options = ["--model", "m.onnx", "--detector", "haar", "--min-face", "80", "--max-side", "640"]
    options += ["--profile", "--align"]
    options += ["--device", "cpu", "--batch-size", "3", "--workers", "2", "--max-pixels", "1000"]
    CliRunner().invoke(make_command(predict_module.main), ["a.jpg", *options])
    of_faces = {"detector": "haar", "min_face": 80, "max_side": 640, "profile": True, "align": True}
    limits = {"device": "cpu", "batch_size": 3, "workers": 2, "max_pixels": 1000}
    assert asked == {"model": Path("m.onnx"), **of_faces, **limits}


@pytest.mark.parametrize("content", [b"", b"not a model"])
def test_a_model_that_is_none_is_refused(predict, tmp_path, photo, content):
    (tmp_path / "a.jpg").write_bytes(jpeg(photo))
    (tmp_path / "bad.onnx").write_bytes(content)
    finished = predict("a.jpg", model="bad.onnx")
    assert finished.returncode == 1
    assert b"error: bad.onnx" in finished.stderr
    assert not (tmp_path / "out").exists()


@posix_only
@pytest.mark.skipif(hasattr(os, "geteuid") and os.geteuid() == 0, reason="root may write anywhere")
def test_an_output_folder_that_cannot_be_written_is_told(predict, tmp_path, photo):
    (tmp_path / "a.jpg").write_bytes(jpeg(photo))
    (tmp_path / "locked").mkdir(mode=0o500)
    finished = predict("a.jpg", output="locked/out")
    assert finished.returncode == 1
    assert b"error:" in finished.stderr
    assert b"Traceback" not in finished.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere there is always a screen")
def test_without_a_screen_a_window_is_told_to_be_left_away(predict, tmp_path, photo):
    (tmp_path / "a.jpg").write_bytes(jpeg(photo))
    blind = {name: value for name, value in os.environ.items() if name not in ("DISPLAY", "WAYLAND_DISPLAY")}
    finished = predict("a.jpg", "--show", env=blind)
    assert finished.returncode == 1
    assert b"cannot open a window here: omit --show" in finished.stderr
    assert b"qt" not in finished.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.skipif(shutil.which("xvfb-run") is None, reason="needs xvfb-run")
def test_a_window_shows_what_is_seen_and_changes_nothing_else(onnx_model, video, tmp_path, table):
    video(12)
    command = ["xvfb-run", "-a", sys.executable, "-m", "fer_lightning.predict", "film.mp4", "--show"]
    command += ["--model", str(onnx_model), "--output", "out"]
    finished = subprocess.run(command, cwd=tmp_path, capture_output=True, timeout=120)
    assert finished.returncode == 0, finished.stderr
    assert [int(row["frame"]) for row in table()] == list(range(12))


def test_pictures_of_like_names_do_not_replace_each_other(predict, tmp_path, photo):
    names = ("p1/img.jpg", "p1/img_2.jpg", "p2/img.jpg", "p2/IMG.jpg")
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(jpeg(photo))
    assert predict(*names, "--save", "images").returncode == 0
    written = {path.name.lower() for path in (tmp_path / "out" / "pictures").iterdir()}
    assert written == {"img.jpg", "img_2.jpg", "img_3.jpg", "img_4.jpg"}


def test_problems_of_a_run_before_do_not_stay(predict, tmp_path, photo):
    (tmp_path / "a.jpg").write_bytes(b"broken")
    assert predict("a.jpg").returncode == 1
    assert (tmp_path / "out" / "problems.csv").exists()
    (tmp_path / "a.jpg").write_bytes(jpeg(photo))
    assert predict("a.jpg").returncode == 0
    assert not (tmp_path / "out" / "problems.csv").exists()


def test_a_run_that_reads_nothing_leaves_the_results_of_one_before(predict, tmp_path, photo):
    (tmp_path / "a.jpg").write_bytes(jpeg(photo))
    assert predict("a.jpg", "--format", "csv,jsonl").returncode == 0
    before = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    finished = predict("99")
    assert (finished.returncode, b"there is no camera 99" in finished.stderr) == (1, True)
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == before


def test_runs_that_start_in_the_same_second_have_folders_of_their_own(onnx_model, tmp_path, photo):
    (tmp_path / "a.jpg").write_bytes(jpeg(photo))
    stopped_clock = "import time; time.strftime = lambda *_: 'now'; from fer_lightning.predict import run; run()"
    command = [sys.executable, "-c", stopped_clock, "a.jpg", "--quiet", "--model", str(onnx_model)]
    for _ in range(3):
        subprocess.run(command, cwd=tmp_path, check=True, timeout=120)
    tables = (tmp_path / "outputs" / "predictions").glob("*/predictions.csv")
    assert sorted(table.parent.name for table in tables) == ["now", "now_2", "now_3"]


@posix_only
def test_a_reader_that_has_seen_enough_ends_the_run_quietly(onnx_model, many, tmp_path):
    command = [sys.executable, "-m", "fer_lightning.predict", "*.jpg", "--json", "--model", str(onnx_model)]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.readline()
        process.stdout.close()
        errors = process.stderr.read()
    assert process.returncode == 0, errors
    assert b"error" not in errors


@posix_only
def test_a_reader_that_has_seen_enough_ends_the_other_results_too_and_is_told(onnx_model, many, tmp_path):
    command = [sys.executable, "-m", "fer_lightning.predict", "*.jpg", "--json", "--save", "images"]
    command += ["--model", str(onnx_model)]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.readline()
        process.stdout.close()
        errors = process.stderr.read()
    assert process.returncode == 0, errors
    assert b"Stopped, as nobody reads the rows any more" in errors


@posix_only
def test_a_video_under_a_name_that_is_not_text_is_refused_in_a_sentence(predict, video, tmp_path):
    video(3)
    finished = predict("film.mp4", "--save", "video", output=os.fsdecode(b"caf\xe9"))
    assert finished.returncode == 1
    assert b"whose name is not UTF-8: choose another --output" in finished.stderr
    assert b"Traceback" not in finished.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="other systems' names are text")
def test_a_film_whose_name_is_no_text_is_told_and_the_others_are_read(predict, table, tmp_path, photo, video):
    (tmp_path / "films").mkdir()
    video(3).rename(tmp_path / "films" / os.fsdecode(b"caf\xe9.mp4"))
    (tmp_path / "films" / "a.jpg").write_bytes(jpeg(photo))
    assert predict("films").returncode == 0
    assert [row["status"] for row in table()] == ["ok", "unreadable"]
    assert "is not valid UTF-8" in (tmp_path / "out" / "problems.csv").read_text()


def test_a_film_of_a_camera_plays_as_fast_as_it_was(tmp_path, photo):
    written = []
    writer = SimpleNamespace(write=written.append, close=lambda: None)
    results = Results(tmp_path, FER2013_CLASSES, videos=True, video_writer=lambda path, fps: writer)
    camera = Source(name="camera 0", kind="camera", frames=lambda: iter([]), count=None)
    with results, results.video(camera) as film:
        # The first picture came after three seconds; in the end the clock jumps by a day.
        for number, time_s in enumerate([3.0, 3.12, 3.13, 5.0, 86_405.0, 86_406.0]):
            frame = Frame(source="camera 0", number=number, time_s=time_s, image=photo)
            film.add(Prediction(frame=frame, faces=[]))
    assert len(written) == (2 + 10 + 1) * 25 + 1  # at 25 frames/s two seconds, ten for the jump, and one


def test_a_hidden_face_is_hidden_in_every_frame_of_a_film(tmp_path, photo):
    written = []
    writer = SimpleNamespace(write=written.append, close=lambda: None)
    results = Results(tmp_path, FER2013_CLASSES, videos=True, anonymous=True, video_writer=lambda path, fps: writer)
    source = Source(name="film.mp4", kind="video", frames=lambda: iter([]), count=2, fps=25)
    face = Face(box=Box(175, 65, 100, 100), probabilities=dict.fromkeys(FER2013_CLASSES, 1 / 7))
    with results, results.video(source) as film:
        for number in range(2):
            frame = Frame(source="film.mp4", number=number, time_s=number / 25, image=photo)
            film.add(Prediction(frame=frame, faces=[face]))
    assert len(written) == 2
    assert all(len(np.unique(image[90:140, 190:250].reshape(-1, 3), axis=0)) <= BLOCKS**2 for image in written)


def test_a_film_is_whole_though_its_timeline_cannot_be_drawn(tmp_path, photo, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(timeline.Timeline, "write", full)
    monkeypatch.chdir(tmp_path)
    results = Results(Path("12:30"), FER2013_CLASSES, videos=True)
    source = Source(name="film.mp4", kind="video", frames=lambda: iter([]), count=3, fps=25)
    with results:
        film = VideoResults(results, source)
        for number in range(3):
            frame = Frame(source="film.mp4", number=number, time_s=number / 25, image=photo)
            film.add(Prediction(frame=frame, faces=[]))
        with pytest.raises(OSError, match="No space"):
            film.close()
    assert cv2.VideoCapture(str(tmp_path / "12:30/videos/film.mp4")).get(cv2.CAP_PROP_FRAME_COUNT) == 3


def test_a_film_that_could_not_be_written_in_full_is_told(tmp_path):
    film = VideoWriter(tmp_path / "film.mp4", 25)
    for _ in range(3):
        film.write(np.zeros((48, 64, 3), np.uint8))
    film._writer.release()
    [unfinished] = tmp_path.iterdir()
    content = unfinished.read_bytes()
    unfinished.write_bytes(content[: content.index(b"moov") - 4])  # the disk is full before the index
    with pytest.raises(OSError, match=r"film\.mp4 would hold 0 of its 3 frames"):
        film.close()
    assert not list(tmp_path.iterdir())


def test_a_film_that_cannot_be_written_at_all_is_told(tmp_path):
    film = VideoWriter(tmp_path / "missing" / "film.mp4", 25)
    with pytest.raises(InputError, match="OpenCV cannot write a video to .*: choose another --output"), closing(film):
        film.write(np.zeros((48, 64, 3), np.uint8))


def test_a_film_that_fails_leaves_an_earlier_one_of_its_name(tmp_path):
    (tmp_path / "film.mp4").write_text("an earlier film")
    film = VideoWriter(tmp_path / "film.mp4", 25)
    film.write(np.zeros((48, 64, 3), np.uint8))
    film._written += 1
    with pytest.raises(OSError, match="would hold 1 of its 2 frames"):
        film.close()
    assert (tmp_path / "film.mp4").read_text() == "an earlier film"


@pytest.mark.parametrize("window_closed", [False, True], ids=["read to its end", "stopped midway"])
def test_a_run_whose_film_is_not_whole_says_so_and_keeps_the_rest(tmp_path, photo, monkeypatch, window_closed):
    class FullDisk:
        """What OpenCV's writer is on one: it writes nothing, and reports nothing."""

        def __init__(self, *_):
            pass

        def isOpened(self):
            return True

        def write(self, image):
            pass

        def release(self):
            pass

    def show(*_, **__):
        raise WindowClosed

    monkeypatch.setattr(cv2, "VideoWriter", FullDisk)
    monkeypatch.setattr(predict_module, "show_frame", show)
    out = tmp_path / "out"
    results = Results(out, FER2013_CLASSES, videos=True)
    source = Source(name="film.mp4", kind="video", frames=lambda: iter([]), count=3, fps=25)

    def stream():
        with results.video(source) as film:
            for number in range(3):
                frame = Frame(source="film.mp4", number=number, time_s=number / 25, image=photo)
                yield film.add(Prediction(frame=frame, faces=[]))

    tally = predict_module._predict(stream(), results, Console(quiet=True), 3, show=window_closed)
    frames = 1 if window_closed else 3
    lacks = rf"film\.mp4 would hold 0 of its {frames} frames"
    message = rf"stopped after {frames} images, .*{lacks} .*; free some space there, or choose another --output"
    assert re.match(message, tally.stopped_by)
    assert len(pd.read_csv(out / "predictions.csv")) == frames
    assert (out / "events.csv").exists()


def test_a_film_of_a_fast_and_crooked_rate_is_written(tmp_path):
    film = VideoWriter(tmp_path / "film.mp4", 143.857)
    for _ in range(3):
        film.write(np.zeros((48, 64, 3), np.uint8))
    film.close()
    assert cv2.VideoCapture(str(tmp_path / "film.mp4")).get(cv2.CAP_PROP_FPS) == pytest.approx(143.857, rel=1e-3)


def test_a_film_larger_than_its_format_allows_is_reduced(tmp_path):
    film = VideoWriter(tmp_path / "film.mp4", 25)
    film.write(np.zeros((64, 9000, 3), np.uint8))
    film.close()
    written = cv2.VideoCapture(str(tmp_path / "film.mp4"))
    assert (written.get(cv2.CAP_PROP_FRAME_WIDTH), written.get(cv2.CAP_PROP_FRAME_HEIGHT)) == (8190, 58)


def test_a_face_in_a_slow_film_is_one_person_with_an_event(tmp_path):
    box = Box(x=10, y=10, width=50, height=50, score=1)
    face = Face(box=box, probabilities={name: float(name == "happy") for name in FER2013_CLASSES})
    slow = Source(name="slow.mp4", kind="video", frames=lambda: iter([]), count=4, fps=0.5)
    with Results(tmp_path, FER2013_CLASSES) as results, results.video(slow) as film:
        for number in range(4):
            frame = Frame(source="slow.mp4", number=number, time_s=2.0 * number)
            [seen] = film.add(Prediction(frame=frame, faces=[face])).faces
            assert seen.track == 0
    [event] = pd.read_csv(tmp_path / "events.csv").to_dict("records")
    assert (event["emotion"], event["frames"], event["offset_s"]) == ("happy", 4, 6.0)


def test_each_slide_of_a_film_of_slides_is_shown(tmp_path, photo):
    written = []
    writer = SimpleNamespace(write=written.append, close=lambda: None)
    results = Results(tmp_path, FER2013_CLASSES, videos=True, video_writer=lambda path, fps: writer)
    slides = Source(name="slides.mp4", kind="video", frames=lambda: iter([]), count=3, fps=1 / 30)
    with results, results.video(slides) as film:
        for number in range(3):
            frame = Frame(source="slides.mp4", number=number, time_s=30.0 * number, image=photo)
            film.add(Prediction(frame=frame, faces=[]))
    assert len(written) == 3


def test_one_film_named_twice_is_two_films(predict, video, tmp_path):
    video(5)
    predict("film.mp4", "film.mp4")
    assert {path.name for path in (tmp_path / "out" / "timelines").iterdir()} == {"film.png", "film_2.png"}


def test_a_table_that_is_asked_for_is_written_beside_the_rows_on_stdout(predict, tmp_path, photo):
    (tmp_path / "a.jpg").write_bytes(jpeg(photo))
    finished = predict("a.jpg", "--json", "--format", "csv", output=None)
    [table] = tmp_path.glob("outputs/predictions/*/predictions.csv")
    assert pd.read_csv(table).source.tolist() == [json.loads(finished.stdout)["source"]] == ["a.jpg"]


class TestFiles:
    """What is written where names and pictures are out of the ordinary."""

    def results(self, folder, **settings):
        return Results(folder, FER2013_CLASSES, **settings)

    def test_a_picture_too_long_for_a_jpeg_is_reduced(self, tmp_path):
        write_picture(tmp_path / "long.jpg", np.zeros((70_000, 60, 3), np.uint8))
        assert cv2.imread(str(tmp_path / "long.jpg")).shape == (65_500, 56, 3)

    def test_a_name_as_long_as_names_may_be_is_cut(self, tmp_path):
        with self.results(tmp_path, pictures=True) as results:
            for letter in ("x", "x", "顔"):
                name = letter * (251 // len(letter.encode())) + ".jpg"
                results.add_picture(Prediction(frame=Frame(source=name, image=np.zeros((9, 9, 3), np.uint8)), faces=[]))
        names = sorted(path.name for path in (tmp_path / "pictures").iterdir())
        assert names == ["x" * 200 + ".jpg", "x" * 200 + "_2.jpg", "顔" * 66 + ".jpg"]

    def test_tables_of_an_earlier_run_do_not_stay(self, tmp_path):
        for formats in (("csv", "jsonl"), ("csv",)):
            with self.results(tmp_path, formats=formats):
                pass
            assert {path.name for path in tmp_path.iterdir()} == {f"predictions.{suffix}" for suffix in formats}

    @pytest.mark.parametrize("kind", ["pictures", "videos"])
    def test_hidden_faces_are_not_put_beside_shown_ones_of_an_earlier_run(self, tmp_path, kind):
        (tmp_path / kind).mkdir()
        with self.results(tmp_path, anonymous=True):
            pass
        (tmp_path / kind / "anna").touch()
        with (
            pytest.raises(InputError, match=f"{kind} has pictures of an earlier run: choose another --output"),
            self.results(tmp_path, anonymous=True),
        ):
            pass
        assert (tmp_path / "predictions.csv").exists()
        with self.results(tmp_path):
            pass

    @pytest.mark.parametrize("kind", ["pictures", "videos", "timelines"])
    def test_pictures_of_other_programs_are_not_written_over(self, tmp_path, kind):
        wanted = {"pictures": kind == "pictures", "videos": kind == "videos", "moving": kind == "timelines"}
        (tmp_path / kind).mkdir()
        (tmp_path / kind / "IMG_1.jpg").touch()
        with (
            pytest.raises(InputError, match=f"{kind} has files that are not of fer-predict: choose another --output"),
            self.results(tmp_path, **wanted),
        ):
            pass
        with self.results(tmp_path, moving=False):  # writes none of that kind
            pass
        with self.results(tmp_path, **wanted):  # now the folder has tables of fer-predict
            pass

    @pytest.mark.parametrize("name", ["predictions.csv", "events.csv", "predictions.parquet"])
    def test_tables_of_other_programs_are_not_deleted(self, tmp_path, name):
        (tmp_path / name).write_text("split,image,target,prediction\n")
        with (
            pytest.raises(InputError, match=f"{name} is not of fer-predict, and would be lost"),
            self.results(tmp_path),
        ):
            pass
        assert (tmp_path / name).exists()

    def test_pictures_are_not_written_over_those_that_are_read(self, tmp_path):
        for name, setting in (("pictures/a.jpg", "pictures"), ("videos/a.mp4", "videos")):
            source = Source(name=str(tmp_path / name), kind="image", frames=lambda: iter([]))
            with pytest.raises(InputError, match="might be written over: choose an --output other than"):
                self.results(tmp_path, **{setting: True}).refuse_overwriting([source])
            self.results(tmp_path).refuse_overwriting([source])
            self.results(tmp_path / "elsewhere", **{setting: True}).refuse_overwriting([source])

    @posix_only
    def test_a_link_to_itself_is_a_source_that_is_not_written_over(self, tmp_path):
        (tmp_path / "loop.jpg").symlink_to(tmp_path / "loop.jpg")
        loop = Source(name=str(tmp_path / "loop.jpg"), kind="image", frames=lambda: iter([]))
        for settings in ({}, {"pictures": True}):
            self.results(tmp_path, **settings).refuse_overwriting([loop])

    def test_a_class_with_a_comma_in_its_name_is_one_column(self, tmp_path):
        with table_writer(tmp_path / "table.csv", ["source", "p_sad, tired"]) as table:
            table.write([{"source": "a.jpg", "p_sad, tired": 0.5}])
        assert pd.read_csv(tmp_path / "table.csv").to_dict("records") == [{"source": "a.jpg", "p_sad, tired": 0.5}]
