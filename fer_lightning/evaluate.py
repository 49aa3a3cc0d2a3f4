"""`python -m fer_lightning.evaluate`: measure a trained model on a dataset, its own or another."""

from fer_lightning import config  # isort: skip - sets what must be set before albumentations is imported

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hydra
import numpy as np
import pandas as pd
import torch
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from rich.progress import track

from fer_lightning.artifacts import print_results, write_artifacts
from fer_lightning.code_version import describe_code
from fer_lightning.data.datamodule import FaceDataModule, FaceDataset
from fer_lightning.data.splits import STAGES
from fer_lightning.errors import InputError
from fer_lightning.hardware import describe_hardware
from fer_lightning.inference.backends import Backend, load_backend
from fer_lightning.inference.model_card import ModelCard
from fer_lightning.inference.model_file import find_model
from fer_lightning.labels import canonical
from fer_lightning.metrics import Findings, Meter, per_class_scores
from fer_lightning.result import write_result
from fer_lightning.run_folder import claimed
from fer_lightning.sweep import run_job

log = logging.getLogger(__name__)

SPLITS = ("val", "test", "all")


@hydra.main(version_base="1.3", config_path=str(config.CONF_DIR), config_name="evaluate")
def main(cfg: DictConfig) -> float:
    """Measure one model on one split and return its top-1 accuracy."""
    if HydraConfig.get().mode == RunMode.MULTIRUN:
        return run_job(cfg)
    return evaluate(cfg, overrides=HydraConfig.get().overrides.task)


def evaluate(cfg: DictConfig, *, overrides: Sequence[str] = ()) -> float:
    """Measure, and write `cfg.output_dir`: `result.json`, predictions, confusion matrix and pictures.

    The model brings its own preprocessing. Where it knows other classes than the dataset, it is asked among those in
    common, on the images of these; the share that it gets right with all its classes to choose from stands beside it.

    Args:
        cfg: As conf/evaluate.yaml composes it.
        overrides: What the command line changed in it, for the record.
    """
    run_dir = Path(cfg.output_dir)
    with claimed(run_dir):
        code = describe_code()
        config.check_keys(cfg, config.EvaluateConfig)
        path = find_model(cfg.ckpt_path)
        backend = load_backend(path)
        datamodule: FaceDataModule = instantiate(cfg.data, preprocess=backend.card.preprocess)
        stage, indices = _chosen(cfg.split, datamodule, backend.card)
        asked = ClassesInCommon.of(backend.card.class_names, datamodule.class_names)
        kept = indices[np.isin(datamodule.index.targets[indices], asked.theirs)]
        _announce(asked, backend.card, datamodule, indices, kept)
        logits = _logits(backend, datamodule, kept)
        targets = asked.target_of(datamodule.index.targets[kept])
        scores, findings = measure(stage, logits[:, asked.ours], targets, kept)
        if len(asked.ours) < len(backend.card.class_names):
            scores[f"{stage}/acc_all_classes"] = float((logits.argmax(1) == np.array(asked.ours)[targets]).mean())
        without = (
            {} if cfg.audit is None else _without_twins(cfg.audit, datamodule, stage, logits, targets, kept, asked)
        )
    write_artifacts(run_dir, findings, datamodule, asked.names)
    (run_dir / "checkpoints").rmdir()  # held the folder's place
    per_class = per_class_scores(findings.confusion, asked.names)
    write_result(
        run_dir / "result.json",
        {
            "command": ["python", "-m", "fer_lightning.evaluate", *overrides],
            **code,
            "config": OmegaConf.to_container(cfg, resolve=True),
            "hardware": describe_hardware(),
            "model": {
                "path": str(path),
                "training": dict(backend.card.training),
                "metrics": dict(backend.card.metrics),
            },
            "data": datamodule.fingerprint(),
            "split": cfg.split or stage,
            "class_names": list(asked.names),
            "images": len(kept),
            "images_of_other_classes": len(indices) - len(kept),
            "metrics": scores,
            "without_twins_in_train": without,
            "per_class": {stage: per_class},
        },
    )
    print_results(f"{path.name} on {datamodule.index.dataset}, {len(kept):,} images", scores, per_class, stage)
    _print_more(run_dir, stage, scores, without)
    return scores[f"{stage}/acc"]


@dataclass(frozen=True, kw_only=True)
class ClassesInCommon:
    """Classes that a model and a dataset share, by name.

    Attributes:
        names: In the model's order.
        ours: Their positions among the model's classes.
        theirs: Their positions among the dataset's.
    """

    names: tuple[str, ...]
    ours: list[int]
    theirs: list[int]

    @classmethod
    def of(cls, model: Sequence[str], dataset: Sequence[str]) -> "ClassesInCommon":
        """Match names by their one spelling; raises InputError where fewer than two match."""
        place = {canonical(name): k for k, name in enumerate(dataset)}
        ours = [k for k, name in enumerate(model) if canonical(name) in place]
        if len(ours) < 2:
            raise InputError(
                f"the model knows {', '.join(model)} and the dataset {', '.join(dataset)}: fewer than two classes in "
                "common, so there is nothing to measure"
            )
        return cls(names=tuple(model[k] for k in ours), ours=ours, theirs=[place[canonical(model[k])] for k in ours])

    def target_of(self, targets: np.ndarray) -> np.ndarray:
        """Turn the dataset's targets (N,) into positions in `names`."""
        position = np.full(max(self.theirs) + 1, -1)
        position[self.theirs] = np.arange(len(self.theirs))
        return position[targets]


def measure(
    stage: str, logits: np.ndarray, targets: np.ndarray, indices: np.ndarray
) -> tuple[dict[str, float], Findings]:
    """Scores and predictions from logits (N, K), targets (N,) and positions in the dataset (N,)."""
    meter = Meter(stage, logits.shape[1], keep_predictions=True)
    tensors = [torch.from_numpy(np.ascontiguousarray(array)) for array in (logits, targets, indices)]
    meter.update(torch.nn.functional.cross_entropy(*tensors[:2]), *tensors)
    return {name: value.item() for name, value in meter.compute().items()}, meter.findings()


def _chosen(split: str | None, datamodule: FaceDataModule, card: ModelCard) -> tuple[str, np.ndarray]:
    """The split's name and its images; by default test, or val where there is no test."""
    if split is not None and split not in SPLITS:
        raise InputError(f"split must be {', '.join(SPLITS)}, or null, got {split!r}")
    trained_on = card.training.get("dataset") == datamodule.index.dataset
    if split == "all":
        if trained_on:
            raise InputError(
                f"the model was trained on a part of {datamodule.index.dataset}: evaluate it on split=test or split=val"
            )
        return "test", np.sort(np.concatenate([getattr(datamodule.split, stage) for stage in STAGES]))
    stage = split or ("test" if datamodule.has("test") else "val")
    if not datamodule.has(stage):
        raise InputError(f"{datamodule.index.dataset} has no {stage} split under protocol {datamodule.split.protocol}")
    trained_with = card.training.get("splits", {}).get("train")
    if trained_on and trained_with != datamodule.fingerprint()["splits"]["train"]["sha256"]:
        log.warning(
            "the model was trained on another split of %s: images of this one may be among those it was trained on",
            datamodule.index.dataset,
        )
    return stage, getattr(datamodule.split, stage)


def _announce(
    asked: ClassesInCommon, card: ModelCard, datamodule: FaceDataModule, indices: np.ndarray, kept: np.ndarray
) -> None:
    log.info("classes in common: %s", ", ".join(asked.names))
    if more := [name for name in card.class_names if name not in asked.names]:
        log.warning("the model also knows %s, which the dataset does not: it is not asked for them", ", ".join(more))
    if len(kept) < len(indices):
        known = set(asked.theirs)
        others = [name for k, name in enumerate(datamodule.class_names) if k not in known]
        log.warning(
            "left out: %d images of %s, which the model does not know", len(indices) - len(kept), ", ".join(others)
        )


def _logits(backend: Backend, datamodule: FaceDataModule, indices: np.ndarray) -> np.ndarray:
    """Of the images at these positions, float32 (N, K) over the model's classes, divided by its temperature."""
    dataset = FaceDataset(datamodule.cache, indices, datamodule.index.targets, datamodule.preprocess)
    size = datamodule.batch_size
    rows = [
        backend.logits(
            dataset.__getitems__([(0, i) for i in range(start, min(start + size, len(dataset)))]).images.numpy()
        )
        for start in track(range(0, len(dataset), size), description="Measuring")
    ]
    return np.concatenate(rows) / np.float32(backend.card.temperature)


def _without_twins(
    audit: str,
    datamodule: FaceDataModule,
    stage: str,
    logits: np.ndarray,
    targets: np.ndarray,
    indices: np.ndarray,
    asked: ClassesInCommon,
) -> dict[str, Any]:
    """The scores on the images that have no exact twin in train, and on those that have no near one."""
    path = Path(audit) / "flagged.csv"
    if not path.is_file():
        raise InputError(
            f"there is no {path}: make it with python -m fer_lightning.audit, and give its folder as audit="
        )
    flagged = pd.read_csv(path)
    names = np.array([datamodule.index.names[i] for i in indices])
    if not set(flagged.loc[flagged.split == stage, "image"]) <= set(datamodule.index.names):
        raise InputError(f"{path} speaks of other images than {datamodule.index.dataset} has here: audit it again")
    report = {}
    for kind in ("exact", "near"):
        rows = ~np.isin(names, flagged.loc[flagged[f"{kind}_in_train"], "image"])
        scores, _ = measure(stage, logits[rows][:, asked.ours], targets[rows], indices[rows])
        report[kind] = {"images": int(rows.sum()), "metrics": scores}
    return report


def _print_more(run_dir: Path, stage: str, scores: dict[str, float], without: dict[str, Any]) -> None:
    console = Console()
    if (every := scores.get(f"{stage}/acc_all_classes")) is not None:
        console.print(f"With all the model's classes to choose from: {every:.4f}")
    for kind, part in without.items():
        console.print(
            f"Without images that have {'an exact' if kind == 'exact' else 'a near'} twin in train "
            f"({part['images']:,} remain): accuracy {part['metrics'][f'{stage}/acc']:.4f}, "
            f"macro-F1 {part['metrics'][f'{stage}/f1_macro']:.4f}"
        )
    console.print(
        f"Everything is in [bold]{run_dir}[/bold]: result.json, predictions.csv, confusion_matrix.png", soft_wrap=True
    )


if __name__ == "__main__":
    with config.plain_errors():
        main()
