"""fer-app without its page: the same answers as fer-predict, at the door and in the service behind it."""

import base64
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import webbrowser
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import av
import cv2
import httpx
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from fer_lightning.app import _by_name, _open_once_served
from fer_lightning.errors import InputError
from fer_lightning.inference import predictor
from fer_lightning.inference.backends import load_backend
from fer_lightning.inference.reading import predict_sources
from fer_lightning.web.service import Service, Settings, face_names
from fer_lightning.web.video_writer import BrowserVideoWriter

SETTINGS = Settings(model="model")


@pytest.fixture
def service(onnx_model, tmp_path) -> Service:
    return Service({"model": onnx_model}, tmp_path / "results", tmp_path / "uploads")


@pytest.fixture
def portrait(photo, tmp_path) -> Path:
    path = tmp_path / "uploads" / "portrait.png"
    path.parent.mkdir()
    cv2.imwrite(str(path), photo)
    return path


@pytest.fixture
def film(photo, tmp_path) -> Path:
    """Forty frames in which the person moves a little."""
    path = tmp_path / "uploads" / "film.mp4"
    path.parent.mkdir(exist_ok=True)
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"mp4v"), 20, (512, 512))
    for number in range(40):
        writer.write(np.roll(photo, number // 4, axis=1))
    writer.release()
    return path


def command(source: Path, model: Path, output: Path, *options: str) -> pd.DataFrame:
    """What fer-predict writes of the same file."""
    line = [sys.executable, "-m", "fer_lightning.predict", source.name, "--model", str(model), "--output", str(output)]
    subprocess.run([*line, "--quiet", *options], check=True, cwd=source.parent)
    return pd.read_csv(output / "predictions.csv")


class TestService:
    def test_photos_have_the_commands_table(self, service, portrait, onnx_model, tmp_path):
        answer = service.photos([portrait], SETTINGS)
        pd.testing.assert_frame_equal(pd.read_csv(answer.table), command(portrait, onnx_model, tmp_path / "command"))
        assert answer.note == "1 photo, 1 face"
        [(name, face)] = face_names(answer.predictions)
        assert name.startswith("portrait.png, face 0: ")
        assert sum(face.probabilities.values()) == pytest.approx(1)
        assert [path.name for path in answer.files("pictures")] == ["portrait.jpg"]

    def test_a_video_has_the_commands_table_and_an_annotated_copy_that_browsers_play(
        self, service, film, onnx_model, tmp_path
    ):
        *_, answer = service.video(film, SETTINGS)
        pd.testing.assert_frame_equal(pd.read_csv(answer.table), command(film, onnx_model, tmp_path / "command"))
        [video] = answer.files("videos")
        with av.open(str(video)) as container:
            [stream] = container.streams.video
            assert (stream.codec_context.name, stream.frames) == ("h264", 40)
        assert len(answer.files("timelines")) == 1
        assert answer.note.startswith("40 frames, 40 faces, read in ")

    def test_what_is_no_film_is_no_frame_that_was_read(self, service, tmp_path):
        (tmp_path / "bad.mp4").write_bytes(b"no film")
        *_, answer = service.video(tmp_path / "bad.mp4", SETTINGS)
        assert answer.note.startswith("0 frames, 0 faces, read in ")

    def test_a_cancelled_video_leaves_complete_files(self, service, film, monkeypatch):
        monkeypatch.setattr("fer_lightning.web.service.time", SimpleClock())
        reading = service.video(film, SETTINGS)
        answer = next(reading)
        assert not answer.done
        reading.close()
        rows = pd.read_csv(answer.table)
        assert 0 < len(rows) < 40
        with av.open(str(answer.files("videos")[0])) as container:
            assert 0 < container.streams.video[0].frames < 40

    def test_the_time_that_is_left_is_told(self, service, film, monkeypatch):
        monkeypatch.setattr("fer_lightning.web.service.time", SimpleClock())
        notes = [answer.note for answer in service.video(film, SETTINGS)]
        assert notes[0] == "1 frame read."
        assert notes[30].startswith("31 of 40 frames read; about ")

    def test_faces_are_hidden_where_that_is_asked_for(self, service, portrait, photo):
        plain = service.photos([portrait], SETTINGS)
        hidden = service.photos([portrait], replace(SETTINGS, anonymous=True))
        [(_, face)] = face_names(plain.predictions)
        x, y, width, height = (round(side) for side in face.box[:4])
        crops = [
            cv2.imread(str(answer.files("pictures")[0]))[y + 9 : y + height - 9, x + 9 : x + width - 9]
            for answer in (plain, hidden)
        ]
        detail = [cv2.Laplacian(crop, cv2.CV_64F).std() for crop in crops]
        assert detail[1] < 0.6 * detail[0]

    def test_a_camera_numbers_people_for_each_who_looks(self, service, photo):
        jpeg = cv2.imencode(".jpg", photo)[1].tobytes()
        tracks = [service.frame(jpeg, who, SETTINGS)["faces"][0]["track"] for who in ("a", "a", "b")]
        assert tracks == [0, 0, 0]
        other = cv2.imencode(".jpg", np.roll(photo, 200, axis=1))[1].tobytes()
        assert service.frame(other, "a", SETTINGS)["faces"][0]["track"] == 1

    def test_a_camera_that_changes_the_model_begins_anew(self, onnx_model, photo, tmp_path):
        service = Service({"one": onnx_model, "other": onnx_model}, tmp_path / "results", tmp_path / "uploads")
        here, elsewhere = (cv2.imencode(".jpg", np.roll(photo, by, axis=1))[1].tobytes() for by in (0, 200))
        tracks = [
            service.frame(jpeg, "a", Settings(model=model))["faces"][0]["track"]
            for jpeg, model in ((here, "one"), (elsewhere, "other"), (elsewhere, "one"))
        ]
        assert tracks == [0, 0, 1]

    def test_a_frame_of_too_many_pixels_is_refused_before_it_is_decoded(self, service, photo, monkeypatch):
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
        with pytest.raises(InputError, match="the frame has more than 1,000 pixels"):
            service.frame(cv2.imencode(".jpg", photo)[1].tobytes(), "a", SETTINGS)

    def test_results_are_gone_after_an_hour(self, service, portrait):
        first, second = (service.photos([portrait], SETTINGS).folder for _ in range(2))
        os.utime(first, (0, 0))
        third = service.photos([portrait], SETTINGS).folder
        assert [folder.exists() for folder in (first, second, third)] == [False, True, True]

    def test_uploads_that_were_broken_off_are_gone_after_an_hour(self, service, tmp_path, monkeypatch):
        broken_off = tmp_path / "uploads" / "0123" / "tmpabc"
        broken_off.parent.mkdir(parents=True)
        broken_off.write_bytes(b"half")
        service._forget()
        assert broken_off.exists()
        later = SimpleNamespace(time=lambda: time.time() + 3601, sleep=time.sleep)
        monkeypatch.setattr("fer_lightning.web.service.time", later)
        service._forget()
        assert not broken_off.exists()

    def test_results_go_though_nobody_comes_back(self, onnx_model, portrait, tmp_path, monkeypatch):
        monkeypatch.setattr("fer_lightning.web.service.HOUR", 1.0)
        service = Service({"model": onnx_model}, tmp_path / "results", tmp_path / "none")
        folder = service.photos([portrait], SETTINGS).folder
        assert folder.exists()
        end = time.monotonic() + 20
        while folder.exists() and time.monotonic() < end:
            time.sleep(0.05)
        assert not folder.exists()

    def test_results_stay_while_they_are_made(self, service, portrait, monkeypatch):
        def an_hour_later(predictor, sources, results, **settings):
            for prediction in predict_sources(predictor, sources, results, **settings):
                os.utime(results.folder, (0, 0))
                yield prediction
                service._forget()

        monkeypatch.setattr("fer_lightning.web.service.predict_sources", an_hour_later)
        assert len(pd.read_csv(service.photos([portrait, portrait], SETTINGS).table)) == 2

    def test_a_network_is_loaded_once_whatever_the_settings(self, onnx_model, tmp_path, monkeypatch):
        loaded = []
        monkeypatch.setattr(predictor, "load_backend", lambda *path, **_: loaded.append(path) or load_backend(*path))
        service = Service({"model": onnx_model}, tmp_path / "results", tmp_path / "uploads")
        large, small = (service.predictor(replace(SETTINGS, min_face=size)) for size in (0.2, 0.05))
        assert len(loaded) == 1
        assert large._detector is not small._detector
        assert large is service.predictor(replace(SETTINGS, min_face=0.2))

    def test_who_was_quiet_for_longest_is_forgotten(self, service, photo, monkeypatch):
        monkeypatch.setattr("fer_lightning.web.service.MOST_PEOPLE", 2)
        here, elsewhere = (cv2.imencode(".jpg", np.roll(photo, by, axis=1))[1].tobytes() for by in (0, 200))
        for who in ("stays", "leaves", "stays", "comes"):
            service.frame(here, who, SETTINGS)
        # People of whoever is remembered go on being numbered; of whoever is not, numbers begin anew.
        numbers = {who: service.frame(elsewhere, who, SETTINGS)["faces"][0]["track"] for who in ("stays", "leaves")}
        assert numbers["stays"] > 0
        assert numbers["leaves"] == 0

    @pytest.mark.parametrize(
        ("call", "message"),
        [
            (lambda service, path: service.photos([], SETTINGS), "choose one or more photos first"),
            (
                lambda service, path: service.photos([path], Settings(model="x")),
                "there is no model 'x' here: choose from",
            ),
            (
                lambda service, path: list(service.video(path, SETTINGS)),
                r"portrait\.png is not a video: use the first tab",
            ),
            (lambda service, path: service.frame(b"nothing", "a", SETTINGS), r"the frame \(7 bytes\) does not decode"),
            (lambda service, path: service.frame(b"", "a", SETTINGS), r"the frame \(0 bytes\) does not decode"),
        ],
    )
    def test_a_mistake_is_told(self, service, portrait, call, message):
        with pytest.raises(InputError, match=message):
            call(service, portrait)

    def test_what_cannot_be_read_is_named_and_the_rest_is_read(self, service, portrait):
        (broken := portrait.with_name("broken.jpg")).write_bytes(b"no picture")
        answer = service.photos([broken, portrait], SETTINGS)
        assert [prediction.readable for prediction in answer.predictions] == [False, True]
        assert answer.predictions[0].frame.problem

    def test_photos_of_one_name_are_told_apart(self, service, portrait, tmp_path):
        (tmp_path / "other").mkdir()
        other = shutil.copy(portrait, tmp_path / "other")
        answer = service.photos([portrait, Path(other)], SETTINGS)
        names = [prediction.frame.source for prediction in answer.predictions]
        assert names == [portrait.name, f"{portrait.stem}_2{portrait.suffix}"]
        assert len(dict(face_names(answer.predictions))) == 2


class SimpleClock:
    """A second passes between any two looks at it; what else `time` has, threads of other services go on using."""

    def __init__(self) -> None:
        self.now = 0.0

    def __getattr__(self, name: str) -> object:
        return getattr(time, name)

    def perf_counter(self) -> float:
        self.now += 1
        return self.now


def test_a_video_writer_that_was_given_nothing_closes(tmp_path):
    BrowserVideoWriter(tmp_path / "empty.mp4", 25.0).close()


@pytest.fixture(scope="module")
def client(start_app, onnx_model) -> Iterator[httpx.Client]:
    address = start_app("--model", str(onnx_model), "--auth", "me:secret", "--max-upload-mb", "1")
    with httpx.Client(base_url=address, timeout=60) as client:
        yield client


def wait_until_served(address: str) -> None:
    for _ in range(200):
        with suppress(httpx.ConnectError):
            httpx.get(address)
            return
        time.sleep(0.1)


class TestDoor:
    @pytest.fixture
    def known(self) -> dict[str, str]:
        return {"Authorization": "Basic " + base64.b64encode(b"me:secret").decode()}

    def test_nobody_enters_without_the_password(self, client, known):
        for path in ("/", "/config", "/gradio_api/info", "/frame?who=a&model=model.onnx"):
            assert client.get(path).status_code == 401, path
            wrong = {"Authorization": "Basic " + base64.b64encode(b"me:guess").decode()}
            assert client.get(path, headers=wrong).status_code == 401, path
        assert client.get("/", headers=known).status_code == 200

    def test_the_browser_is_told_to_ask_nobody_else(self, client, known):
        policy = client.get("/", headers=known).headers["content-security-policy"]
        assert "default-src 'self'" in policy
        assert "http" not in policy

    def test_a_frame_comes_back_as_faces(self, client, known, photo):
        jpeg = cv2.imencode(".jpg", photo)[1].tobytes()
        answer = client.post("/frame?who=a&model=model.onnx", content=jpeg, headers=known).json()
        assert len(answer["faces"]) == 1
        assert answer["faces"][0]["emotion"] in answer["faces"][0]["probabilities"]

    @pytest.mark.parametrize(
        ("query", "body", "status"),
        [
            ("who=a&model=other.onnx", b"x", 422),
            ("who=a&model=model.onnx", b"no picture", 422),
            ("model=model.onnx", b"x", 422),
            ("who=a&model=model.onnx&smooth_s=nan", b"x", 422),
            ("who=a&model=model.onnx&min_face=0", b"x", 422),
            ("who=a&model=model.onnx", b"x" * 4_000_001, 413),
        ],
        ids=["model", "picture", "nobody", "smoothing", "face", "large"],
    )
    def test_a_bad_frame_is_refused(self, client, known, query, body, status):
        assert client.post(f"/frame?{query}", content=body, headers=known).status_code == status

    def test_a_frame_without_end_is_refused(self, client, known):
        endless = (b"x" * 1_000_000 for _ in range(6))  # and without a length
        assert client.post("/frame?who=a&model=model.onnx", content=endless, headers=known).status_code == 413

    def test_a_file_that_is_too_large_is_refused(self, client, known):
        small, large = ({"files": ("photo.png", b"x" * size)} for size in (900_000, 1_100_000))
        assert client.post("/gradio_api/upload", files=small, headers=known).status_code == 200
        assert client.post("/gradio_api/upload", files=large, headers=known).status_code == 413

    def test_a_file_of_the_machine_is_not_taken_for_an_upload(self, client, known, portrait):
        data = [[{"path": str(portrait), "meta": {"_type": "gradio.FileData"}}], "model.onnx", "haar", 0.1, 0.3, False]
        asked = client.post("/gradio_api/call/photos", json={"data": data}, headers=known)
        answer = client.get(f"/gradio_api/call/photos/{asked.json()['event_id']}", headers=known).text
        assert "event: error" in answer
        assert "1 face" not in answer
        assert portrait.exists()

    @pytest.mark.parametrize("path", ["/frame?who=a&model=model.onnx", "/gradio_api/upload"])
    def test_another_website_is_not_answered(self, client, known, path):
        foreign = known | {"Origin": "http://evil.example"}
        assert client.post(path, content=b"x", headers=foreign).status_code == 403
        own = known | {"Origin": str(client.base_url).rstrip("/")}
        assert client.post(path, content=b"x", headers=own).status_code in (400, 422)

    def test_with_the_password_it_answers_under_any_name(self, client, known):
        assert client.get("/robots.txt", headers=known | {"Host": "faces.example"}).status_code == 200

    @pytest.mark.parametrize(
        "path", ["/gradio_api/file=http://127.0.0.1:9/a.png", "/gradio_api/file/https://127.0.0.1:9/a.png"]
    )
    def test_files_of_other_machines_are_not_fetched(self, client, known, path):
        answer = client.get(path, headers=known)
        assert (answer.status_code, answer.text) == (403, "this page fetches nothing from other machines")

    def test_a_photo_given_by_its_address_is_not_fetched(self, client, known):
        photo = {"path": "http://127.0.0.1:9/a.png", "meta": {"_type": "gradio.FileData"}}
        # In whichever place it is given: Gradio would fetch what it finds in any of them.
        for data in ([[photo], "model.onnx", "haar", 0.1, 0.3, False], [[], photo, "haar", 0.1, 0.3, False]):
            asked = client.post("/gradio_api/call/photos", json={"data": data}, headers=known)
            answer = client.get(f"/gradio_api/call/photos/{asked.json()['event_id']}", headers=known).text
            assert "a.png is an address, and this page downloads nothing: upload the file" in answer

    @pytest.mark.parametrize("path", ["/etc/passwd", "/proc/self/environ"])
    def test_files_of_the_machine_are_not_served(self, client, known, path):
        assert client.get(f"/gradio_api/file={path}", headers=known).status_code in (403, 404)


class TestCommand:
    def test_models_of_one_name_are_told_apart_by_their_folders(self):
        paths = ["a/model.onnx", "b/model.onnx", "c/best.ckpt", "a/model.onnx"]
        assert list(_by_name(paths)) == ["a/model.onnx", "b/model.onnx", "best.ckpt"]
        runs = ["runs/a/checkpoints/best.ckpt", "runs/b/checkpoints/best.ckpt"]
        assert list(_by_name(runs)) == runs
        assert _by_name([]) == {"bundled": None}
        assert list(_by_name(["."])) == [Path.cwd().name]

    def run(self, *options: str) -> subprocess.CompletedProcess[str]:
        line = [sys.executable, "-m", "fer_lightning.app", "--no-open", *options]
        return subprocess.run(line, capture_output=True, text=True, timeout=120)

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            (["--host", "0.0.0.0"], "error: --host 0.0.0.0 opens the page to other machines: add --auth NAME:PASSWORD"),
            (["--auth", "name"], "error: --auth must be NAME:PASSWORD"),
            (["--model", "nowhere.onnx"], "error: there is no model file at "),
            (["--host", "192.0.2.1", "--auth", "a:b"], "error: port 7860 of 192.0.2.1 cannot be used (Cannot assign"),
        ],
        ids=["host", "auth", "model", "other machine"],
    )
    def test_a_mistake_is_told_in_a_sentence(self, options, message):
        finished = self.run(*options)
        assert finished.returncode == 1
        assert finished.stderr.startswith(message)

    def test_the_browser_is_opened_once_the_page_answers(self, monkeypatch):
        opened = []
        monkeypatch.setattr(webbrowser, "open", opened.append)
        with socket.socket() as server:
            server.bind(("127.0.0.1", 0))
            opener = threading.Thread(target=_open_once_served, args=("page", *server.getsockname()))
            opener.start()
            time.sleep(0.3)
            assert opened == []
            server.listen()
            opener.join(timeout=30)
        assert opened == ["page"]

    def test_a_port_in_use_is_told(self):
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            finished = self.run("--port", str(taken.getsockname()[1]))
        assert finished.returncode == 1
        assert "cannot be used (Address already in use): choose another --port" in finished.stderr

    @pytest.mark.parametrize("ending", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
    def test_nothing_is_left_when_it_ends_though_a_page_is_open(self, onnx_model, tmp_path, ending):
        line = [sys.executable, "-m", "fer_lightning.app", "--no-open", "--model", str(onnx_model), "--port"]
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            line.append(str(free.getsockname()[1]))
        places = os.environ | {"TMPDIR": str(tmp_path)}
        # What a shell starts in the background ignores Ctrl-C, and what nohup starts the terminal's end.
        restore = {"preexec_fn": lambda: signal.signal(ending, signal.SIG_DFL)}
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        with subprocess.Popen(line, env=places, **pipes, **restore) as process:
            address = re.match("The page is at (http://127.0.0.1:[0-9]+)/", process.stdout.readline())[1]
            assert len(list(tmp_path.glob("fer-app-*"))) == 1
            wait_until_served(address)
            with httpx.stream("GET", f"{address}/gradio_api/heartbeat/page") as page:
                assert page.status_code == 200
                process.send_signal(ending)
                process.wait(timeout=20)
            assert process.stderr.read() == ""
        assert list(tmp_path.glob("fer-app-*")) == []
