"""Tiny datasets laid out as their downloads are, and the real ones where they lie beside the checkout."""

import os
import sys
from pathlib import Path

os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"  # no network: it must be set before albumentations is imported

# Commands that tests start in other folders are this checkout's, wherever the package is installed from.
os.environ["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")])

import socket
import subprocess
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import cv2
import numpy as np
import pytest
import skimage

from fer_lightning.labels import FER2013_CLASSES

CKPLUS_FOLDERS = ("anger", "contempt", "disgust", "fear", "happy", "sadness", "surprise")
CKPLUS_SUBJECTS = ("S005", "S010", "S011", "S014")
USAGES = {"Training": 4, "PublicTest": 2, "PrivateTest": 2}  # images a class


def _face(label: int, variant: int = 0) -> np.ndarray:
    rows, columns = np.mgrid[:48, :48]
    stripes = (rows if label % 2 else columns) // (label + 2) % 2
    noise = np.random.default_rng((label, variant)).integers(0, 20, (48, 48))
    return (20 + 28 * label + 20 * stripes + noise).astype(np.uint8)


def _write(path: Path, image: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(cv2.imencode(path.suffix, image)[1].tobytes())


@pytest.fixture
def face() -> Callable[..., np.ndarray]:
    """face(label, variant): uint8 (48, 48), its class told by brightness and stripes, its variant by noise."""
    return _face


@pytest.fixture
def write_image() -> Callable[[Path, np.ndarray], None]:
    """write_image(path, image): in the format of the suffix, with the folders above it."""
    return _write


@pytest.fixture
def zipped() -> Callable[[Path], Path]:
    """zipped(folder): an archive of its content, beside it, in an order that is not the names' own."""

    def archive(folder: Path) -> Path:
        with zipfile.ZipFile(f"{folder}.zip", "w", zipfile.ZIP_DEFLATED) as target:
            for path in sorted(folder.rglob("*"), reverse=True):
                target.write(path, path.relative_to(folder))
        return Path(f"{folder}.zip")

    return archive


@pytest.fixture
def ckplus_tree(tmp_path: Path) -> Path:
    """CK+48 of 4 subjects with one sequence of 3 frames in each of the 7 classes."""
    for label, folder in enumerate(CKPLUS_FOLDERS):
        for who, subject in enumerate(CKPLUS_SUBJECTS):
            for frame in range(3):
                name = f"{subject}_{label + 1:03}_{frame + 12:08}.png"
                _write(tmp_path / "ckplus" / "CK+48" / folder / name, _face(label, 10 * who + frame))
    return tmp_path / "ckplus"


@pytest.fixture
def fer2013_tree(tmp_path: Path) -> Path:
    """FER2013 as the JPEG download, with PrivateTest."""
    for label, folder in enumerate(FER2013_CLASSES):
        for usage, count in USAGES.items():
            place = tmp_path / "fer2013" / ("train" if usage == "Training" else "test") / folder
            for number in range(count):
                _write(place / f"{usage}_{1000 * label + number}.jpg", _face(label, number))
    return tmp_path / "fer2013"


@pytest.fixture
def fer2013_rows() -> list[dict[str, str]]:
    """Rows of fer2013.csv: each class's Training, PublicTest and PrivateTest images, class after class."""
    return [
        {"emotion": str(label), "pixels": " ".join(map(str, _face(label, number).ravel())), "Usage": usage}
        for label in range(len(FER2013_CLASSES))
        for usage, count in USAGES.items()
        for number in range(count)
    ]


@pytest.fixture
def write_fer2013_csv(tmp_path: Path) -> Callable[..., Path]:
    """write_fer2013_csv(rows): a folder that holds nothing else; `header` sets the columns and their order."""

    def write(
        rows: list[dict[str, str]],
        *,
        name: str = "fer2013.csv",
        header: tuple[str, ...] = ("emotion", "pixels", "Usage"),
    ) -> Path:
        lines = [",".join(header), *(",".join(row[column.strip()] for column in header) for row in rows)]
        folder = tmp_path / "fer2013_csv"
        folder.mkdir(exist_ok=True)
        (folder / name).write_text("\n".join(lines) + "\n")
        return folder

    return write


@pytest.fixture(scope="session")
def real_data() -> Callable[[str], Path]:
    """real_data("ckplus"): the folder of the real archive, or the test is skipped."""

    def find(name: str) -> Path:
        checkout = Path(__file__).parents[1]
        roots = [checkout / "data", checkout.parent / "shared" / "data"]
        if "FER_DATA" in os.environ:
            roots.insert(0, Path(os.environ["FER_DATA"]))
        for root in roots:
            if (root / name).is_dir():
                return root / name
        return pytest.skip(f"{name} may not be redistributed: put your download in data/{name}, or in $FER_DATA/{name}")

    return find


@pytest.fixture(scope="session")
def photo() -> np.ndarray:
    """A person's portrait, uint8 BGR (512, 512, 3): Eileen Collins, NASA, public domain."""
    return cv2.imread(str(Path(skimage.__file__).parent / "data" / "astronaut.png"))


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run of one epoch on a few drawn faces."""
    from fer_lightning.runs.training import train
    from fer_lightning.settings.config import compose_config

    folder = tmp_path_factory.mktemp("finished") / "run"
    few = ("data.reader.train=140", "data.reader.val=35", "data.reader.test=35", "trainer.max_epochs=1")
    places = (f"output_dir={folder}", f"data.cache_dir={folder.parent / 'cache'}")
    train(compose_config(*few, *places, "trainer.accelerator=cpu", "data.num_workers=0", "logger=none"))
    return folder


@pytest.fixture(scope="session")
def onnx_model(finished_run: Path) -> Path:
    """That run's network as a model file."""
    from fer_lightning.export import export

    path = finished_run / "model.onnx"
    export(finished_run / "checkpoints" / "best.ckpt", path, "float32")
    return path


@pytest.fixture(scope="module")
def start_app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., str]]:
    """start_app(*options, **places): fer-app as its command starts it, in a process of its own; its page's address.

    `places` are environment variables of that process.
    """
    with ExitStack() as stack:

        def start(*options: str, **places: str) -> str:
            with socket.socket() as free:
                free.bind(("127.0.0.1", 0))
                port = free.getsockname()[1]
            log = tmp_path_factory.mktemp("app") / "log"
            command = [sys.executable, "-m", "fer_lightning.app", "--no-open", "--port", str(port), *options]
            output = stack.enter_context(log.open("w"))
            process = stack.enter_context(
                subprocess.Popen(command, stdout=output, stderr=output, env=os.environ | places)
            )
            stack.callback(process.terminate)
            for _ in range(240):
                with socket.socket() as probe:
                    if probe.connect_ex(("127.0.0.1", port)) == 0:
                        return f"http://127.0.0.1:{port}/"
                assert process.poll() is None, log.read_text()
                time.sleep(0.5)
            raise AssertionError(log.read_text())

        yield start


@pytest.fixture
def old_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    """A GPU that is seen, but whose driver is older than this PyTorch needs."""
    import torch

    def fail(*_):
        raise RuntimeError("The NVIDIA driver on your system is too old (found version 12040). Please update it.\n...")

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    for name in ("init", "get_device_name", "get_device_capability"):
        monkeypatch.setattr(torch.cuda, name, fail)
