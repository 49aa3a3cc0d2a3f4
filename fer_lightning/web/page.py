"""The page's tabs, built with Gradio; their logic is in service.py."""

import json
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import gradio as gr
import pandas as pd
import skimage
from gradio_client.utils import is_file_obj_with_meta, is_http_url_like, traverse

from fer_lightning.errors import InputError
from fer_lightning.images import IMAGE_SUFFIXES
from fer_lightning.inference.sources import VIDEO_SUFFIXES
from fer_lightning.web.service import HOUR, Answer, Service, Settings, face_names

HERE = Path(__file__).parent
# Eileen Collins, NASA, public domain; it comes with scikit-image.
EXAMPLE = Path(skimage.__file__).parent / "data" / "astronaut.png"
SHOWN = ["source", "face", "emotion", "confidence", "status"]
PRIVACY = """
Everything stays on this machine: photos, videos and the camera's pictures are processed by the program that serves this
page, nothing is sent anywhere else, and uploads are deleted once they are read. Results, and uploads that are not read,
are kept for an hour at most.

An expression is not a feeling: the label says what a face looks like to a network that learnt from labelled pictures.
Do not use it to decide about people.
"""


class _Page(gr.Blocks):
    """Refuses files that a program names by an address, before Gradio downloads them."""

    def validate_inputs(self, block_fn: Any, inputs: list[Any]) -> None:
        super().validate_inputs(block_fn, inputs)
        traverse(inputs, _refuse_address, is_file_obj_with_meta)


def _refuse_address(file: dict[str, Any]) -> None:
    if is_http_url_like(file["path"]):
        raise gr.Error(
            f"{file['path']} is an address, and this page downloads nothing: upload the file", print_exception=False
        )


def build_page(service: Service) -> gr.Blocks:
    """Build all tabs; their handlers report mistakes in plain sentences."""
    # System fonts: the default theme would download its own.
    with _Page(title="fer_lightning", analytics_enabled=False, delete_cache=(HOUR // 60, HOUR)) as page:
        gr.Markdown("# Facial expressions\nPhotos, videos and the camera, read on this machine.")
        with gr.Accordion("Settings", open=False):
            names = list(service.models)
            choices = [  # in the order of `Settings`
                gr.Dropdown(names, value=names[0], label="Model", visible=len(names) > 1),
                gr.Radio(
                    ["haar", "mtcnn"], value="haar", label="Detector", info="mtcnn finds turned and tilted faces."
                ),
                gr.Slider(
                    0.03,
                    0.5,
                    Settings.min_face,
                    step=0.01,
                    label="Smallest face",
                    info="Share of the picture's shorter side.",
                ),
                gr.Slider(0, 2, Settings.smooth_s, step=0.1, label="Smoothing in videos", info="Seconds."),
                gr.Checkbox(False, label="Anonymise", info="Hide the faces in all pictures that are shown or saved."),
            ]
        with gr.Tab("Photos"):
            _photos(service, choices)
        with gr.Tab("Video"):
            _video(service, choices)
        with gr.Tab("Webcam"):
            _webcam(choices)
        with gr.Tab("Compare"):
            _compare(service, choices)
        with gr.Tab("About"):
            gr.Markdown("\n\n".join([*(_about(service, name) for name in names), PRIVACY]))
    return page


def _photos(service: Service, choices: list[Any]) -> None:
    uploads = gr.File(
        file_count="multiple", file_types=sorted(IMAGE_SUFFIXES), label="Photos", height=160, elem_id="photos"
    )
    with gr.Row():
        find = gr.Button("Find faces", variant="primary")
        example = gr.Button("Try an example")
    words = gr.Markdown(elem_id="photos-words")
    with gr.Row(equal_height=False):
        gallery = gr.Gallery(
            label="Pictures", columns=2, height=560, object_fit="contain", buttons=["fullscreen"], scale=2
        )
        with gr.Column():
            chosen = gr.Dropdown([], label="Face", interactive=True)
            bars = gr.Label(label="Expression", num_top_classes=8)
    table = gr.Dataframe(label="All faces", headers=SHOWN, interactive=False, wrap=True)
    with gr.Row():
        csv = gr.DownloadButton("Download table (csv)", interactive=False)
        pictures = gr.DownloadButton("Download pictures (zip)", interactive=False)
    faces = gr.State({})
    outputs = [words, gallery, table, chosen, bars, faces, csv, pictures]

    def read(files: list[str] | None, *values: Any) -> tuple:
        uploaded = _uploaded(files or [])
        try:
            return _photos_shown(_answer(service.photos, uploaded, _settings(values)))
        finally:
            _delete(uploaded)

    def read_example(*values: Any) -> tuple:
        with tempfile.TemporaryDirectory() as folder:
            copy = Path(shutil.copy(EXAMPLE, folder))
            return _photos_shown(_answer(service.photos, [copy], _settings(values)))

    find.click(read, [uploads, *choices], outputs, api_name="photos", concurrency_id="read").then(
        lambda: None, None, [uploads], api_visibility="private"
    )
    example.click(read_example, choices, outputs, api_visibility="private", concurrency_id="read")
    chosen.change(lambda name, found: found.get(name), [chosen, faces], [bars], api_visibility="private")


def _photos_shown(answer: Answer) -> tuple:
    found = {name: face.probabilities for name, face in face_names(answer.predictions)}
    first = next(iter(found), None)
    pictures = answer.files("pictures")
    archive = (
        shutil.make_archive(str(answer.folder / "pictures"), "zip", answer.folder / "pictures") if pictures else None
    )
    return (
        _in_words(answer),
        [(str(path), path.stem) for path in pictures],
        _table(answer),
        gr.Dropdown(list(found), value=first),
        found.get(first),
        found,
        gr.DownloadButton(value=str(answer.table), interactive=True),
        gr.DownloadButton(value=archive, interactive=bool(pictures)),
    )


def _video(service: Service, choices: list[Any]) -> None:
    upload = gr.File(file_types=sorted(VIDEO_SUFFIXES), label="Video", height=160, elem_id="video")
    with gr.Row():
        start = gr.Button("Read video", variant="primary")
        cancel = gr.Button("Cancel", variant="stop")
    words = gr.Markdown(elem_id="video-words")
    with gr.Row(equal_height=False):
        shown = gr.Video(label="With faces marked", interactive=False, buttons=["download"])
        timeline = gr.Image(
            label="Emotions over time", type="filepath", interactive=False, buttons=["download", "fullscreen"]
        )
    events = gr.Dataframe(label="Events", interactive=False)
    with gr.Row():
        csv = gr.DownloadButton("Download table (csv)", interactive=False)
        events_csv = gr.DownloadButton("Download events (csv)", interactive=False)

    def read(file: str | None, *values: Any) -> Iterator[tuple]:
        if file is None:
            raise gr.Error("Choose a video first.", print_exception=False)
        nothing = gr.skip()
        [uploaded] = _uploaded([file])
        try:
            for answer in service.video(uploaded, _settings(values)):
                if not answer.done:
                    yield answer.note, *[nothing] * 5
                else:
                    yield _video_shown(answer)
        except InputError as error:
            raise gr.Error(str(error), print_exception=False) from None
        finally:
            _delete([uploaded])

    outputs = [words, shown, timeline, events, csv, events_csv]
    reading = start.click(read, [upload, *choices], outputs, api_name="video", concurrency_id="read")
    reading.then(lambda: None, None, [upload], api_visibility="private")
    stopped = "Cancelled."
    cancel.click(lambda: stopped, None, [words], cancels=[reading], api_visibility="private")


def _video_shown(answer: Answer) -> tuple:
    videos, timelines, events = answer.files("videos"), answer.files("timelines"), answer.folder / "events.csv"
    table = pd.read_csv(events) if events.exists() else None
    return (
        _in_words(answer),
        str(videos[0]) if videos else None,
        str(timelines[0]) if timelines else None,
        table,
        gr.DownloadButton(value=str(answer.table), interactive=True),
        gr.DownloadButton(value=str(events) if table is not None else None, interactive=table is not None),
    )


def _webcam(choices: list[Any]) -> None:
    def chosen(*values: Any) -> str:
        return json.dumps(asdict(_settings(values)))

    camera = gr.HTML(
        value=chosen(*(choice.value for choice in choices)),
        html_template=(HERE / "camera.html").read_text(),
        css_template=(HERE / "camera.css").read_text(),
        js_on_load=(HERE / "camera.js").read_text(),
        elem_id="camera",
    )
    for choice in choices:
        choice.change(chosen, choices, [camera], api_visibility="private", show_progress="hidden")


def _compare(service: Service, choices: list[Any]) -> None:
    gr.Markdown("One photo through every model that this page was started with (`fer-app --model A --model B`).")
    upload = gr.File(file_types=sorted(IMAGE_SUFFIXES), label="Photo", height=160, elem_id="compare")
    start = gr.Button("Compare models", variant="primary")
    words = gr.Markdown(elem_id="compare-words")
    gallery = gr.Gallery(label="Pictures", columns=2, object_fit="contain", buttons=["fullscreen"])
    table = gr.Dataframe(label="Faces by model", interactive=False)

    def read(file: str | None, _: str, *values: Any) -> tuple:
        if file is None:
            raise gr.Error("Choose a photo first.", print_exception=False)
        pictures, rows, note = [], [], ""
        [uploaded] = _uploaded([file])
        try:
            for name in service.models:
                answer = _answer(service.photos, [uploaded], _settings([name, *values]))
                pictures += [(str(path), name) for path in answer.files("pictures")]
                rows += [
                    {"face": number, "model": name, "emotion": face.emotion, "confidence": f"{face.confidence:.0%}"}
                    for number, (_, face) in enumerate(face_names(answer.predictions))
                ]
                note = _in_words(answer)
        finally:
            _delete([uploaded])
        return note, pictures, pd.DataFrame(rows).sort_values("face", kind="stable") if rows else None

    start.click(read, [upload, *choices], [words, gallery, table], api_name="compare", concurrency_id="read").then(
        lambda: None, None, [upload], api_visibility="private"
    )


def _about(service: Service, name: str) -> str:
    card = service.predictor(Settings(model=name)).card
    training = card.training
    scores = [f"{key} {value:.1%}" for key, value in card.metrics.items() if key.endswith(("/acc", "/f1_macro"))]
    lines = [
        f"## {name}",
        f"* Classes: {', '.join(card.class_names)}",
        f"* Trained on: {training.get('dataset', 'unknown')}, protocol {training.get('protocol', 'unknown')}",
        f"* Scores: {', '.join(scores) or 'unknown'}",
    ]
    if training.get("dataset") == "synthetic":
        lines.append("* **It was trained on drawn faces only: do not trust it on real ones.**")
    return "\n".join(lines)


def _settings(values: Any) -> Settings:
    names = [field.name for field in fields(Settings)]
    return Settings(**dict(zip(names, values, strict=True)))


def _answer(read: Any, *arguments: Any) -> Answer:
    try:
        return read(*arguments)
    except InputError as error:
        raise gr.Error(str(error), print_exception=False) from None


def _uploaded(files: list[str]) -> list[Path]:
    paths = [Path(file) for file in files]
    # Gradio keeps the same bytes once, whoever uploads them.
    if gone := [path.name for path in paths if not path.exists()]:
        raise gr.Error(f"{gone[0]} was read a moment ago, and deleted: choose it again.", print_exception=False)
    return paths


def _delete(uploaded: list[Path]) -> None:
    for path in uploaded:
        path.unlink(missing_ok=True)


def _in_words(answer: Answer) -> str:
    problems = [
        f"{each.frame.source} {each.frame.problem}" for each in answer.predictions if each.frame.problem is not None
    ]
    without = [each.frame.source for each in answer.predictions if each.readable and not each.faces]
    lines = [answer.note, *problems]
    if without and all(each.frame.time_s is None for each in answer.predictions):
        lines.append(
            f"No face was found in {', '.join(without)}: try a lower value of Smallest face, or the other detector."
        )
    return "\n\n".join(lines)


def _table(answer: Answer) -> pd.DataFrame:
    # Read as a number, it would be 0.0 where another picture has no face.
    return pd.read_csv(answer.table, dtype={"face": str})[SHOWN]
