"""fer-app used as a person would, in a real browser with a camera that plays a film."""

import re
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import cv2
import httpx
import numpy as np
import pandas as pd
import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

import fer_lightning

SLOW = 90_000  # ms that anything may take where others use the machine too


@pytest.fixture(scope="module")
def camera_film(photo, tmp_path_factory) -> Path:
    """What chromium's fake camera plays: a person who moves a little, as one JPEG after the other."""
    path = tmp_path_factory.mktemp("camera") / "film.mjpeg"
    frames = []
    for number in range(40):
        frame = np.full((480, 640, 3), 90, np.uint8)
        left = 64 + round(20 * np.sin(number / 40 * 2 * np.pi))
        frame[:, left : left + 512] = photo[:480]
        frames.append(cv2.imencode(".jpg", frame)[1].tobytes())
    path.write_bytes(b"".join(frames))
    return path


@pytest.fixture(scope="module")
def browser(camera_film) -> Iterator[Browser]:
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("drives fer-app in a real browser, and found none: install chromium or google-chrome")
    camera = ("--use-fake-device-for-media-stream", f"--use-file-for-fake-video-capture={camera_film}")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", *camera])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def kept(tmp_path_factory) -> Path:
    """Where the page keeps what it is sent."""
    return tmp_path_factory.mktemp("kept")


@pytest.fixture(scope="module")
def address(start_app, onnx_model, tmp_path_factory, kept) -> str:
    """Of a page with two models."""
    folder = tmp_path_factory.mktemp("models")
    models = [shutil.copy(onnx_model, folder / name) for name in ("first.onnx", "second.onnx")]
    return start_app("--model", str(models[0]), "--model", str(models[1]), TMPDIR=str(kept))


@pytest.fixture
def page(browser, address) -> Iterator[Page]:
    """The page, in a window of its own; whatever it asks of others than this machine fails the test."""
    context = browser.new_context(permissions=["camera"], accept_downloads=True)
    context.set_default_timeout(SLOW)
    expect.set_options(timeout=SLOW)
    page = context.new_page()
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(address)
    expect(page.get_by_role("button", name="Find faces")).to_be_visible()
    yield page
    context.close()
    assert {url for url in asked if not url.startswith((address, "data:", "blob:"))} == set()


@pytest.fixture
def portrait(photo, tmp_path) -> Path:
    path = tmp_path / "portrait.png"
    cv2.imwrite(str(path), photo)
    return path


def open_tab(page: Page, name: str) -> None:
    page.get_by_role("tab", name=name).click()


def test_photos_that_are_uploaded_come_back_as_a_table(page, portrait, tmp_path):
    (tmp_path / "broken.jpg").write_bytes(b"no picture")
    cv2.imwrite(str(tmp_path / "empty.png"), np.full((200, 200, 3), 127, np.uint8))
    files = [portrait, tmp_path / "broken.jpg", tmp_path / "empty.png"]
    page.locator("#photos input[type=file]").set_input_files(files)
    expect(page.locator("#photos")).to_contain_text("empty")
    page.get_by_role("button", name="Find faces").click()
    words = page.locator("#photos-words")
    expect(words).to_contain_text("3 photos, 1 face")
    expect(words).to_contain_text("broken.jpg")
    expect(words).to_contain_text("No face was found in empty.png")
    expect(page.get_by_label("Face", exact=True)).to_have_value(re.compile(r"portrait\.png, face 0: \w+ \d+%"))
    with page.expect_download() as download:
        page.get_by_role("button", name="Download table (csv)").first.click()
    table = pd.read_csv(download.value.path())
    assert table.status.tolist() == ["ok", "unreadable", "no_face"]
    with page.expect_download() as download:
        page.get_by_role("button", name="Download pictures (zip)").click()
    assert download.value.path().read_bytes().startswith(b"PK")


def test_the_example_shows_a_result(page):
    page.get_by_role("button", name="Try an example").click()
    expect(page.locator("#photos-words")).to_contain_text("1 photo, 1 face")


def test_nothing_chosen_is_told_in_words(page):
    page.get_by_role("button", name="Find faces").click()
    expect(page.get_by_text("choose one or more photos first")).to_be_visible()


def film(path: Path, photo: np.ndarray, frames: int) -> Path:
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"mp4v"), 20, (512, 512))
    for number in range(frames):
        writer.write(np.roll(photo, number // 4 % 40, axis=1))
    writer.release()
    return path


def read_video(page: Page, path: Path) -> None:
    open_tab(page, "Video")
    page.locator("#video input[type=file]").set_input_files(path)
    expect(page.locator("#video")).to_contain_text(path.stem)
    page.get_by_role("button", name="Read video").click()


def test_a_video_that_is_uploaded_comes_back_and_plays(page, photo, tmp_path):
    read_video(page, film(tmp_path / "film.mp4", photo, 40))
    expect(page.locator("#video-words")).to_contain_text("40 frames, 40 faces")
    seconds = "() => [...document.querySelectorAll('video')].map((video) => video.duration).find((s) => s > 0)"
    page.wait_for_function(seconds)
    assert page.evaluate(seconds) == pytest.approx(2, abs=0.2)
    assert page.locator("button[aria-label*=share i], button[title*=share i]").count() == 0  # Gradio's would publish it
    with page.expect_download() as download:
        page.get_by_role("button", name="Download table (csv)").locator("visible=true").click()
    assert len(pd.read_csv(download.value.path())) == 40


def test_a_long_video_tells_its_time_and_can_be_cancelled(page, photo, tmp_path, kept):
    read_video(page, film(tmp_path / "long.mp4", photo, 1500))
    expect(page.locator("#video-words")).to_contain_text(re.compile(r"of 1,500 frames read; about .* s left"))
    page.get_by_role("button", name="Cancel").click()
    expect(page.locator("#video-words")).to_contain_text("Cancelled")
    assert left_of("long.mp4", kept) == []


def test_a_window_that_is_closed_midway_leaves_the_page_to_others(browser, address, page, photo, tmp_path):
    path = film(tmp_path / "long.mp4", photo, 1500)
    for _ in range(2):  # as many as are read at once
        other = browser.new_page()
        other.set_default_timeout(SLOW)
        other.goto(address)
        read_video(other, path)
        expect(other.locator("#video-words")).to_contain_text("frames read")
        other.close()
    page.get_by_role("button", name="Try an example").click()
    expect(page.locator("#photos-words")).to_contain_text("1 photo, 1 face")


def test_the_webcam_shows_faces_as_they_come(page):
    open_tab(page, "Webcam")
    page.get_by_role("button", name="Start camera").click()
    expect(page.locator(".fer-rate")).to_contain_text("results/s")
    expect(page.locator(".fer-bars")).to_contain_text("Person 0")
    results = "() => Number(document.querySelector('[data-results]')?.dataset.results || 0)"
    page.wait_for_function(f"({results})() >= 10")
    with page.expect_download() as download:
        page.get_by_role("button", name="Snapshot").click()
    assert cv2.imread(str(download.value.path())).shape == (480, 640, 3)
    page.get_by_role("button", name="Stop camera").click()
    time.sleep(1)
    stopped = page.evaluate(results)
    time.sleep(1)
    assert page.evaluate(results) == stopped


def test_a_camera_that_is_clicked_twice_is_started_once(page):
    open_tab(page, "Webcam")
    page.evaluate(
        """() => {
            const devices = navigator.mediaDevices;
            const ask = devices.getUserMedia.bind(devices);
            window.asked = 0;
            devices.getUserMedia = async (wish) => {
                window.asked += 1;
                await new Promise((done) => setTimeout(done, 500));
                return ask(wish);
            };
        }"""
    )
    page.get_by_role("button", name="Start camera").dblclick()
    expect(page.locator(".fer-rate")).to_contain_text("results/s")
    assert page.evaluate("window.asked") == 1
    page.get_by_role("button", name="Stop camera").click()
    expect(page.get_by_role("button", name="Start camera")).to_be_enabled()
    time.sleep(1)
    expect(page.locator(".fer-rate")).to_be_empty()


def test_a_face_across_the_pictures_edge_is_hidden_up_to_the_edge(browser):
    script = (Path(fer_lightning.__file__).parent / "web" / "camera.js").read_text(encoding="utf-8")
    hide = re.search(r"^function hide.*?^}", script, re.DOTALL | re.MULTILINE)[0]
    page = browser.new_page()
    # A picture of stripes, of which a block shows none.
    levels = page.evaluate(
        f"""() => {{
            const view = document.createElement("canvas");
            [view.width, view.height] = [120, 90];
            const pen = view.getContext("2d");
            for (let x = 0; x < 120; x++) {{
                pen.fillStyle = x % 2 ? "#fff" : "#000";
                pen.fillRect(x, 0, 1, 90);
            }}
            {hide}
            hide([-26, -20, 60, 60]);
            return [...pen.getImageData(0, 2, 6, 1).data].filter((_, i) => i % 4 === 0);
        }}"""
    )
    page.close()
    assert len(levels) == 6
    assert len(set(levels)) == 1


def test_a_camera_that_is_refused_is_explained(browser, address):
    context = browser.new_context()
    page = context.new_page()
    page.goto(address)
    open_tab(page, "Webcam")
    page.get_by_role("button", name="Start camera").click()
    expect(page.locator(".fer-words")).to_contain_text("may not use the camera")
    context.close()


def test_models_are_compared_side_by_side(page, portrait):
    open_tab(page, "Compare")
    page.locator("#compare input[type=file]").set_input_files(portrait)
    expect(page.locator("#compare")).to_contain_text("portrait")
    page.get_by_role("button", name="Compare models").click()
    expect(page.locator("#compare-words")).to_contain_text("1 photo, 1 face")
    for model in ("first.onnx", "second.onnx"):
        expect(page.get_by_role("gridcell", name=model).or_(page.get_by_text(model)).first).to_be_visible()


def test_the_model_and_where_pictures_go_are_told(page):
    open_tab(page, "About")
    expect(page.get_by_text("Everything stays on this machine")).to_be_visible()
    expect(page.get_by_text("drawn faces only").first).to_be_visible()


def test_a_phone_shows_it_without_scrolling_sideways(browser, address):
    context = browser.new_context(viewport={"width": 380, "height": 800})
    page = context.new_page()
    page.goto(address)
    expect(page.get_by_role("button", name="Find faces")).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth") <= 380
    context.close()


def left_of(name: str, kept: Path) -> list[Path]:
    """What the page still keeps of an upload of this name half a minute later, if anything."""
    [folder] = kept.glob("fer-app-*/uploads")
    for _ in range(60):
        left = list(folder.rglob(name))
        if not left:
            break
        time.sleep(0.5)
    return left


def test_uploads_are_gone_once_they_are_read(page, photo, tmp_path, kept):
    path = tmp_path / "secret.png"
    cv2.imwrite(str(path), photo)
    page.locator("#photos input[type=file]").set_input_files(path)
    expect(page.locator("#photos")).to_contain_text("secret")
    page.get_by_role("button", name="Find faces").click()
    expect(page.locator("#photos-words")).to_contain_text("1 photo, 1 face")
    expect(page.locator("#photos")).not_to_contain_text("secret")
    assert left_of("secret.png", kept) == []


def test_a_program_asks_as_the_page_does(address, portrait, kept):
    from gradio_client import Client, handle_file

    client = Client(address, verbose=False)
    words, *_ = client.predict([handle_file(str(portrait))], "first.onnx", "haar", 0.1, 0.3, False, api_name="/photos")
    assert words == "1 photo, 1 face"
    assert left_of(portrait.name, kept) == []


def test_a_face_has_the_same_number_in_every_list_and_table(address, portrait, tmp_path):
    from gradio_client import Client, handle_file

    cv2.imwrite(str(tmp_path / "empty.png"), np.full((200, 200, 3), 127, np.uint8))
    client, settings = Client(address, verbose=False), ("first.onnx", "haar", 0.1, 0.3, False)
    files = [handle_file(str(path)) for path in (portrait, tmp_path / "empty.png")]
    _, _, faces, chosen, *_ = client.predict(files, *settings, api_name="/photos")
    _, _, compared = client.predict(handle_file(str(portrait)), *settings, api_name="/compare")
    assert "portrait.png, face 0: " in str(chosen)
    for table, numbers in ((faces, ["0", None]), (compared, [0, 0])):
        column = table["headers"].index("face")
        assert [row[column] for row in table["data"]] == numbers


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1:7860", 200),
        ("localhost", 200),
        ("[::1]:7860", 200),
        ("evil.example:7860", 403),
        ("localhost.evil.example", 403),
    ],
)
def test_without_a_password_it_answers_under_this_machines_own_names_alone(address, host, status):
    assert httpx.get(f"{address}robots.txt", headers={"Host": host}, timeout=60).status_code == status


def test_no_history_of_runs_is_kept(address):
    assert httpx.get(f"{address}gradio_api/runs", timeout=60).status_code == 404
