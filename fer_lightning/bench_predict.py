"""`make bench`, second part: the cost of prediction, stage by stage, and compared with a hand-written loop.

Scenes are made from one photo (scikit-image's astronaut, NASA, public domain), so that the true faces are known. The
network is an untrained cnn4: its weights do not change its speed.
"""

import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import skimage
from rich.console import Console
from rich.progress import track
from rich.table import Table

from fer_lightning.export import serialised_with_card, to_onnx
from fer_lightning.inference.boxes import Box, iou, square_crop
from fer_lightning.inference.haar import HaarDetector
from fer_lightning.inference.model_card import ModelCard
from fer_lightning.inference.predictor import Found, Prediction, Predictor
from fer_lightning.inference.reading import predict_sources
from fer_lightning.inference.results import Results
from fer_lightning.inference.sources import Source, open_sources
from fer_lightning.labels import FER2013_CLASSES
from fer_lightning.machine.cores import usable_cores
from fer_lightning.machine.hardware import describe_hardware
from fer_lightning.models import create_model
from fer_lightning.preprocess import Preprocess

FRAMES, PHOTOS = 300, 500
MIN_FACE = 60.0  # pixels, for every contestant
PORTRAIT, FACE = np.s_[:330, 40:380], Box(135, 63, 100, 100)  # of the photo; the face within that part


@dataclass(frozen=True)
class Scene:
    """A picture, uint8 BGR (H, W, 3), and where its faces are."""

    image: np.ndarray
    faces: list[Box]


def main() -> None:
    """Measure in one process, in turn, and print rates and ratios."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        model = write_model(place / "model.onnx")
        film, photos = write_film(place / "film.mp4"), _write_photos(place / "photos")
        _print_stages(model, film)
        rate = statistics.median(_rate(model, film) for _ in range(3))
        Console().print(f"film 640x480, one face, every frame: [bold]{rate:.0f} frames/s[/bold] from file to table")
        _print_photos(model, photos)
    hardware = describe_hardware(gpus=())
    Console().print(f"{hardware['cpu']}, {hardware['cores']} cores, smallest face {MIN_FACE:.0f} px")


def write_model(path: Path) -> Path:
    card = ModelCard(class_names=FER2013_CLASSES, preprocess=Preprocess())
    net = create_model("cnn4", num_classes=len(FER2013_CLASSES)).eval()
    path.write_bytes(serialised_with_card(to_onnx(net, card), card))
    return path


def make_scene(random: np.random.Generator, size: tuple[int, int], sides: list[int]) -> Scene:
    """Portraits whose faces have these side lengths, side by side on a cloudy background."""
    width, height = size
    coarse = random.integers(40, 160, (height // 40, width // 40, 3), dtype=np.uint8)
    image = cv2.resize(coarse, size, interpolation=cv2.INTER_CUBIC)
    photo = cv2.imread(str(Path(skimage.__file__).parent / "data" / "astronaut.png"))[PORTRAIT]
    faces = []
    for column, side in enumerate(sides):
        factor = side / FACE.width
        portrait = cv2.resize(
            photo, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA if factor < 1 else cv2.INTER_LINEAR
        )
        portrait = cv2.convertScaleAbs(portrait, alpha=random.uniform(0.6, 1.2), beta=random.uniform(-20, 20))
        room = width // len(sides)
        x = column * room + int(random.integers(0, max(1, room - portrait.shape[1])))
        y = int(random.integers(0, max(1, height - portrait.shape[0])))
        part = image[y : y + portrait.shape[0], x : x + portrait.shape[1]]
        part[:] = portrait[: part.shape[0], : part.shape[1]]
        face = FACE.scaled(factor)
        faces.append(face._replace(x=face.x + x, y=face.y + y))
    return Scene(image, faces)


def write_film(path: Path) -> Path:
    """300 frames of 640 x 480 at 30 frames/s, in which one face of 130 pixels moves about, always in view."""
    film = make_scene(np.random.default_rng(0), (1240, 920), [130])
    [face] = film.faces
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"mp4v"), 30, (640, 480))
    for i in range(FRAMES):
        x = int(np.clip(face.x - 255 + 200 * np.sin(i / 20), 0, 1240 - 640))
        y = int(np.clip(face.y - 175 + 140 * np.sin(i / 33), 0, 920 - 480))
        writer.write(film.image[y : y + 480, x : x + 640])
    writer.release()
    return path


def _write_photos(folder: Path) -> dict[str, list[Box]]:
    """Write JPEGs of 1280 x 960 with one to three faces of 80 to 300 pixels, and return the boxes by path."""
    folder.mkdir()
    truth = {}
    for number in track(range(PHOTOS), description="Making photos", transient=True):
        random = np.random.default_rng(number)
        count = int(random.integers(1, 4))
        largest = min(300, int(1280 / count / 3.5))
        scene = make_scene(random, (1280, 960), random.integers(80, largest, count).tolist())
        path = folder / f"{number:04}.jpg"
        cv2.imwrite(str(path), scene.image)
        truth[str(path)] = scene.faces
    return truth


def _results(folder: str) -> Results:
    return Results(Path(folder), FER2013_CLASSES)


def _predict(model: Path, sources: list[Source]) -> Iterator[Prediction]:
    """The same steps as the command, from files to a table."""
    predictor = Predictor(model, min_face=MIN_FACE)
    with tempfile.TemporaryDirectory() as folder, _results(folder) as results:
        yield from predict_sources(predictor, sources, results, keep_images=False)


def _rate(model: Path, film: Path) -> float:
    start = time.perf_counter()
    count = sum(1 for _ in _predict(model, open_sources([str(film)])))
    return count / (time.perf_counter() - start)


def _print_stages(model: Path, film: Path) -> None:
    """Time each stage separately, in ms per frame: one thread, but for the network, which takes all cores."""
    predictor, detector = Predictor(model, min_face=MIN_FACE), HaarDetector(min_face=MIN_FACE)
    cv2.setNumThreads(1)
    times: dict[str, list[float]] = defaultdict(list)

    @contextmanager
    def stage(name: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        times[name].append(1000 * (time.perf_counter() - start))

    [source] = open_sources([str(film)])
    with tempfile.TemporaryDirectory() as folder, _results(folder) as results, results.video(source) as video:
        frames = source.frames()
        for _ in range(FRAMES):
            with stage("decode"):
                frame = next(frames)()
            with stage("detect"):
                boxes = detector.detect(frame.image)
            with stage("crop"):
                found = Found(frame, boxes, predictor.crops(frame.image, boxes))
            with stage("network"):
                [prediction] = predictor.classify([found])
            with stage("write"):
                video.add(prediction)
    table = Table("stage", "p50 ms", "p95 ms", "share", title="film 640x480, one thread; network on all cores")
    total = sum(statistics.median(values) for values in times.values())
    for name, values in times.items():
        p50, p95 = np.percentile(values, [50, 95])
        table.add_row(name, f"{p50:.2f}", f"{p95:.2f}", f"{p50 / total:.0%}")
    Console().print(table)


def _by_hand(model: Path, paths: list[str]) -> Iterator[list[Box]]:
    """A typical hand-written loop: the whole picture, one face at a time."""
    import onnxruntime

    cascade = cv2.CascadeClassifier(str(Path(cv2.data.haarcascades) / "haarcascade_frontalface_default.xml"))
    session, preprocess = onnxruntime.InferenceSession(str(model), providers=["CPUExecutionProvider"]), Preprocess()
    for path in paths:
        image = cv2.imread(path)
        gray = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)
        smallest = (round(MIN_FACE), round(MIN_FACE))
        boxes = [Box(*map(float, box)) for box in cascade.detectMultiScale(gray, 1.1, 5, minSize=smallest)]
        for box in boxes:
            session.run(None, {"images": preprocess(square_crop(image, box))})
        yield boxes


def _print_photos(model: Path, truth: dict[str, list[Box]]) -> None:
    """Run our prediction and the hand-written loop over the same photos, in turn for every hundred."""
    cores = usable_cores()
    paths = sorted(truth)
    spent = {"fer-predict": 0.0, "by hand": 0.0}
    found = dict.fromkeys(spent, 0)
    for first in track(range(0, len(paths), 100), description="Photos", transient=True):
        some = paths[first : first + 100]
        start = time.perf_counter()
        predictions = list(_predict(model, open_sources(some)))
        spent["fer-predict"] += time.perf_counter() - start
        cv2.setNumThreads(cores)
        start = time.perf_counter()
        by_hand = list(_by_hand(model, some))
        spent["by hand"] += time.perf_counter() - start
        boxes = {"fer-predict": [[face.box for face in each.faces] for each in predictions], "by hand": by_hand}
        for name, lists in boxes.items():
            for path, mine in zip(some, lists, strict=True):
                found[name] += sum(any(iou(box, face) > 0.4 for box in mine) for face in truth[path])
    total = sum(map(len, truth.values()))
    table = Table("", "images/s", f"of {total} true faces found", title=f"{len(paths)} photos of 1280x960")
    for name, seconds in spent.items():
        table.add_row(name, f"{len(paths) / seconds:.1f}", str(found[name]))
    Console().print(table)
    Console().print(
        f"fer-predict / by hand: [bold]{spent['by hand'] / spent['fer-predict']:.2f}[/bold] times the images/s"
    )


if __name__ == "__main__":
    main()
