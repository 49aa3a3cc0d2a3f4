"""Imports point one way, and what should be quick to import stays quick."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import fer_lightning

PACKAGE = Path(fer_lightning.__file__).parent
# A file imports only from lines above its own.
LAYERS = [
    {
        "errors",
        "text",
        "machine",
        "settings",
        "runs",
        "sweeps",
        "weights",
        "labels",
        "atomic",
        "leaderboard",
        "machine.code_version",
        "sweeps.process",
        "machine.cores",
        "seeding",
        "confidence",
        "text.file_names",
        "text.words",
        "text.html_page",
        "text.markdown",
    },
    {
        "settings.kinds",
        "settings.plain_errors",
        "sweeps.folders",
        "sweeps.own_gpu",
        "command",
        "runs.settings",
        "machine.hardware",
        "runs.result",
        "weights.bundled",
    },
    {"leaderboard.runs"},
    {"leaderboard.pooling"},
    {"leaderboard.labels"},
    {"leaderboard.entries"},
    {"leaderboard.significance", "leaderboard.columns", "leaderboard.figures"},
    {"leaderboard.page"},
    {"report"},
    {"images", "checkpoint"},
    {"preprocess", "models.fourier", "models.small_maps"},
    {"models.cnn", "models.seresnet", "models.backbones"},
    {"models.create", "models.cost"},
    {"models"},
    {"data.faces", "data.drawing"},
    {"data.tree", "data.synthetic"},
    {"data.ckplus", "data.fer2013", "data.folder", "data.splits", "data.cache"},
    {"data.affectnet", "data.duplicates", "data.batch", "data.batch_transforms"},
    {"data.on_device", "data.fingerprint", "data.dataset"},
    {"data.datamodule", "data"},
    {"data.announce"},
    {"metrics", "muon", "optim", "losses", "weights.initial"},
    {"teachers"},
    {"module", "plots", "checkpoint_io"},
    {"callbacks", "runs.artifacts"},
    {
        "inference",
        "inference.boxes",
        "inference.palette",
        "inference.cascades",
        "inference.model_card",
    },
    {"inference.model_file"},
    {"inference.torch_backend", "inference.mtcnn", "inference.haar", "inference.alignment"},
    {"inference.backends", "inference.detectors", "inference.sources"},
    {"inference.predictor"},
    {
        "inference.tracking",
        "inference.events",
        "inference.table",
        "inference.drawing",
        "inference.timeline",
        "inference.views",
    },
    {"inference.pictures"},
    {"inference.results"},
    {"inference.reading"},
    {"inference.terminal", "inference.window"},
    {"predict", "web", "web.video_writer"},
    {"web.service"},
    {"web.page"},
    {"web.server"},
    {"app"},
    {"evaluation", "evaluation.scores", "evaluation.averaging", "evaluation.corruptions", "evaluation.attribution"},
    {"evaluation.label_noise"},
    {"evaluation.section", "evaluation.calibration", "evaluation.cost", "evaluation.figures", "evaluation.provenance"},
    {"evaluation.measurement", "evaluation.page"},
    {"evaluation.groups", "evaluation.twins"},
    {"evaluation.sections", "evaluation.trials", "evaluation.card", "evaluation.comparison"},
    {"settings.config", "classical", "trainer"},
    {"runs.folder", "sweeps.jobs", "runs.checks", "runs.facts"},
    {"sweeps.report"},
    {"runs.training", "baseline", "audit", "evaluate"},
    {"train"},
    {"bench", "export"},
    {"bench_predict"},
    {"bench_process"},
]
LEVEL = {f"fer_lightning.{name}": level for level, names in enumerate(LAYERS) for name in names}
LEVEL["fer_lightning"] = -1
MODULES = {
    ".".join(["fer_lightning", *path.relative_to(PACKAGE).with_suffix("").parts]).removesuffix(".__init__"): path
    for path in PACKAGE.rglob("*.py")
}


def imported(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {
                full if (full := f"{node.module}.{alias.name}") in MODULES else node.module for alias in node.names
            }
    return names


# The package itself lends Predictor its name, and imports it only when it is asked for.
@pytest.mark.parametrize("module", sorted(MODULES.keys() - {"fer_lightning"}))
def test_a_file_imports_only_from_layers_below_its_own(module):
    assert module in LEVEL, f"{module} has no place in LAYERS"
    ours = {name for name in imported(MODULES[module]) if name.startswith("fer_lightning")}
    assert {name for name in ours if LEVEL[name] >= LEVEL[module]} == set()


@pytest.mark.parametrize("module", sorted(name for name in MODULES if name.startswith("fer_lightning.inference")))
def test_prediction_knows_neither_datasets_nor_hydra_nor_lightning(module):
    others = ("fer_lightning.data", "hydra", "omegaconf", "lightning")
    assert {name for name in imported(MODULES[module]) if name.startswith(others)} == set()


@pytest.mark.parametrize(
    ("module", "unwanted"),
    [
        ("fer_lightning", {"numpy", "torch"}),
        ("fer_lightning.preprocess", {"torch", "lightning", "albumentations", "hydra"}),
        ("fer_lightning.models", {"lightning", "albumentations", "hydra", "cv2"}),
        ("fer_lightning.report", {"torch", "lightning", "albumentations", "hydra", "cv2"}),
        ("fer_lightning.app", {"gradio", "torch", "cv2", "numpy"}),
        ("fer_lightning.predict", {"torch", "lightning", "albumentations", "hydra", "pandas", "matplotlib"}),
        ("fer_lightning.inference.torch_backend", {"lightning", "albumentations", "hydra", "fer_lightning.data"}),
        ("fer_lightning.data.ckplus", {"torch", "lightning", "albumentations", "hydra"}),
    ],
)
def test_an_import_brings_no_more_than_it_needs(module, unwanted):
    code = f"import sys, {module}; print(*({unwanted!r} & set(sys.modules)))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.split() == []
