"""`make bench`, last part: the cost of a whole `fer-predict` process, from start to end.

Given the interpreter of another environment with the package `fer`, it also measures that package on the same film and
photo: `python -m fer_lightning.bench_process PYTHON`.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from rich.console import Console
from rich.table import Table

from fer_lightning.bench_predict import MIN_FACE, make_scene, write_film, write_model

STARTS = 5
FEW, MANY = 100, 10_000  # images

OURS_ON_A_FILM = """
import sys, time, json
from fer_lightning.inference.predictor import Predictor
from fer_lightning.inference.sources import open_sources
model, film, smallest = sys.argv[1], sys.argv[2], float(sys.argv[3])
predictor = Predictor(model, min_face=smallest)
start = time.perf_counter()
faces = [len(prediction.faces) for prediction in predictor.predict_all(open_sources([film])[0].frames())]
print(json.dumps([len(faces) / (time.perf_counter() - start), sum(map(bool, faces))]))
"""
PEER_ON_A_PHOTO = """
import sys
import cv2
from fer.fer import FER
print(FER(min_face_size=round(float(sys.argv[2]))).detect_emotions(cv2.imread(sys.argv[1])))
"""
PEER_ON_A_FILM = """
import sys, time, json
import cv2
from fer.fer import FER
film, smallest = sys.argv[2], round(float(sys.argv[3]))
detector, capture, faces = FER(min_face_size=smallest), cv2.VideoCapture(film), []
start = time.perf_counter()
while (frame := capture.read()[1]) is not None:
    faces.append(len(detector.detect_emotions(frame)))
print(json.dumps([len(faces) / (time.perf_counter() - start), sum(map(bool, faces))]))
"""


class Cost(NamedTuple):
    """Cost of a process: seconds from start to end, peak resident memory in MB, and its last printed line."""

    seconds: float
    peak_mb: float
    printed: str


def main() -> None:
    """Measure, and print tables."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        model, film = write_model(place / "model.onnx"), write_film(place / "film.mp4")
        photo = place / "photo.jpg"
        cv2.imwrite(str(photo), make_scene(np.random.default_rng(0), (1280, 960), [200]).image)
        _print_memory(model, place)
        arguments = [str(model), str(film), str(MIN_FACE)]
        options = ["--model", str(model), "--min-face", str(MIN_FACE), "--json", "--quiet"]
        predict = [sys.executable, "-m", "fer_lightning.predict", str(photo), *options]
        contestants = {"fer-predict": (predict, [sys.executable, "-c", OURS_ON_A_FILM, *arguments])}
        for peer in sys.argv[1:2]:
            contestants["fer"] = (
                [peer, "-c", PEER_ON_A_PHOTO, str(photo), str(MIN_FACE)],
                [peer, "-c", PEER_ON_A_FILM, *arguments],
            )
        _print_processes(contestants)


def _cost(command: list[str]) -> Cost:
    # In a separate process without other children: the system reports the largest of all children.
    code = (
        "import json, resource, subprocess, sys, time; start = time.perf_counter(); "
        "done = subprocess.run(sys.argv[1:], capture_output=True, text=True); "
        "print(json.dumps([time.perf_counter() - start, "
        "resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss, done.stdout, done.stderr, done.returncode]))"
    )
    finished = subprocess.run([sys.executable, "-c", code, *command], capture_output=True, text=True, check=True)
    seconds, peak, stdout, stderr, returncode = json.loads(finished.stdout)
    if returncode:
        raise SystemExit(f"error: {' '.join(command)[:200]} failed: {stderr[-2000:]}")
    return Cost(seconds, peak / (2**20 if sys.platform == "darwin" else 2**10), stdout.strip().rpartition("\n")[2])


def _fer_predict(source: Path, model: Path, folder: Path) -> Cost:
    options = ["--model", str(model), "--output", str(folder / "results"), "--quiet"]
    return _cost([sys.executable, "-m", "fer_lightning.predict", str(source), *options])


def _print_memory(model: Path, place: Path) -> None:
    """Compare the memory for few and many images."""
    few, many = place / "few", place / "many"
    few.mkdir()
    for number in range(FEW):
        cv2.imwrite(str(few / f"{number}.jpg"), make_scene(np.random.default_rng(number), (480, 360), [100]).image)
    for number in range(MANY // FEW):
        (many / str(number)).mkdir(parents=True)
        for image in few.iterdir():
            os.link(image, many / str(number) / image.name)
    table = Table("480x360 images", "seconds", "peak MB", title="fer-predict over a folder")
    costs = {FEW: _fer_predict(few, model, place), MANY: _fer_predict(many, model, place)}
    for count, cost in costs.items():
        table.add_row(f"{count:,}", f"{cost.seconds:.1f}", f"{cost.peak_mb:.0f}")
    Console().print(table)
    Console().print(f"{costs[MANY].peak_mb - costs[FEW].peak_mb:+.0f} MB for {MANY // FEW} times the images")


def _print_processes(contestants: dict[str, tuple[list[str], list[str]]]) -> None:
    """Time the commands on a photo and on a film, each contestant in turn."""
    titles = ("", "start to result on a photo, s", "peak MB", "film, frames/s", "frames with a face", "peak MB")
    table = Table(*titles, title="one process each")
    films: dict[str, list[Cost]] = {name: [] for name in contestants}
    starts: dict[str, list[Cost]] = {name: [] for name in contestants}
    for _ in range(STARTS):
        for name, (on_a_photo, on_a_film) in contestants.items():
            starts[name].append(_cost(on_a_photo))
            films[name].append(_cost(on_a_film))
    for name in contestants:
        rates, faces = zip(*(json.loads(cost.printed) for cost in films[name]), strict=True)
        table.add_row(
            name,
            f"{statistics.median(cost.seconds for cost in starts[name]):.2f}",
            f"{max(cost.peak_mb for cost in starts[name]):.0f}",
            f"{statistics.median(rates):.0f}",
            f"{min(faces)}",
            f"{max(cost.peak_mb for cost in films[name]):.0f}",
        )
    Console().print(table)


if __name__ == "__main__":
    main()
