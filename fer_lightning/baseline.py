"""`python -m fer_lightning.baseline`: kNN and SVM on the same readers, protocols and metrics as the networks."""

from fer_lightning.settings import config  # isort: skip - sets what must be set before albumentations is imported

import logging
import time
from collections.abc import Sequence
from pathlib import Path

import hydra
import numpy as np
import torch
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from rich.markup import escape
from sklearn.decomposition import PCA
from sklearn.model_selection import train_test_split
from sklearn.pipeline import Pipeline
from sklearn.svm import SVC

from fer_lightning.data.announce import announce, check_trainable
from fer_lightning.data.datamodule import FaceDataModule
from fer_lightning.errors import InputError, settings_of
from fer_lightning.machine.code_version import describe_code
from fer_lightning.machine.hardware import describe_hardware
from fer_lightning.metrics import Findings, Meter, per_class_scores
from fer_lightning.runs.artifacts import print_results, write_artifacts
from fer_lightning.runs.folder import claimed
from fer_lightning.runs.result import write_result
from fer_lightning.settings.plain_errors import plain_errors
from fer_lightning.sweeps.jobs import run_job
from fer_lightning.text.words import duration

log = logging.getLogger(__name__)

BASELINES = "fer_lightning.classical."
MOST_FOR_SVM = 60_000  # images; more would take days
PROBE = 1_500  # images for a timed fit, from which the time for all images is estimated
NOT_FROM_VOTES = ("loss", "ece")  # scores that need probabilities


@hydra.main(version_base="1.3", config_path=str(config.CONF_DIR), config_name="baseline")
def main(cfg: DictConfig) -> float | None:
    """Fit one classifier on one dataset and return its top-1 accuracy, on val if there is one."""
    config.check_call(cfg)
    if HydraConfig.get().mode == RunMode.MULTIRUN:
        return run_job("baseline", cfg)
    return baseline(cfg, overrides=config.given_arguments("baseline", HydraConfig.get()))


def baseline(cfg: DictConfig, *, overrides: Sequence[str] = ()) -> float:
    """Fit, measure, and write `cfg.output_dir` as training does, except for files that only networks have.

    Args:
        cfg: Configuration composed from conf/baseline.yaml.
        overrides: What the command was called with, recorded in `result.json`.
    """
    started = time.perf_counter()
    run_dir = Path(cfg.output_dir)
    with claimed(run_dir):
        code = describe_code()
        _check_settings(cfg)
        with settings_of("the model"):
            pipeline: Pipeline = instantiate(cfg.model, seed=cfg.seed)
        datamodule: FaceDataModule = instantiate(cfg.data)
        check_trainable(datamodule)
        announce(datamodule)
        chosen = _chosen(datamodule, cfg.max_images, cfg.seed)
        if isinstance(pipeline[-1], SVC):
            _check_cost(pipeline, datamodule, chosen)
        images, targets = _bytes(datamodule, chosen), datamodule.index.targets[chosen]
        log.info("fitting on %s images of %s", f"{len(chosen):,}", datamodule.index.dataset)
        start = time.perf_counter()
        with settings_of("the model"):  # scikit-learn checks most settings only here
            pipeline.fit(images, targets)
        fit_seconds = time.perf_counter() - start
        scores: dict[str, float] = {}
        for stage in (stage for stage in ("val", "test") if datamodule.has(stage)):
            measured, findings = _measure(pipeline, datamodule, stage)
            scores |= measured
        write_artifacts(run_dir, findings, datamodule, datamodule.class_names)
        per_class = per_class_scores(findings.confusion, datamodule.class_names)
        write_result(
            run_dir / "result.json",
            {
                "command": ["python", "-m", "fer_lightning.baseline", *overrides],
                **code,
                "config": OmegaConf.to_container(cfg, resolve=True),
                "seed": cfg.seed,
                "hardware": describe_hardware(gpus=()),
                "data": datamodule.fingerprint,
                "class_names": list(datamodule.class_names),
                "selection": "nothing is chosen: one fit",
                "images": len(chosen),
                "train_seconds": fit_seconds,
                "seconds": time.perf_counter() - started,
                "metrics": scores,
                "per_class": {findings.stage: per_class},
            },
        )
        print_results(f"Fitted in {fit_seconds:.1f} s", scores, per_class, findings.stage)
    Console().print(
        f"Everything is in [bold]{escape(str(run_dir))}[/bold]: result.json, predictions.csv, confusion_matrix.png",
        soft_wrap=True,
    )
    return scores.get("val/acc", scores.get("test/acc"))


def _check_settings(cfg: DictConfig) -> None:
    config.check(cfg, config.BaselineConfig)
    if not str(cfg.model._target_).startswith(BASELINES):
        raise InputError("that model is a network: train it with python -m fer_lightning.train, or choose knn or svm")
    config.refuse_unread(cfg, config.NO_TRAINING | config.NO_BATCHES | config.NO_SCALING)
    if cfg.seed < 0:
        raise InputError(f"seed must be at least 0, got {cfg.seed}")


def _chosen(datamodule: FaceDataModule, most: int | None, seed: int) -> np.ndarray:
    """Positions of the training images, or of a stratified part of them."""
    train = datamodule.split.train
    if most is None or most >= len(train):
        return train
    if most < len(datamodule.class_names):
        raise InputError(f"max_images must be at least {len(datamodule.class_names)}, one per class, got {most}")
    targets = datamodule.index.targets[train]
    try:
        return np.sort(train_test_split(train, train_size=most, stratify=targets, random_state=seed)[0])
    except ValueError as error:
        raise InputError(
            f"max_images={most} of {len(train):,} images cannot be stratified by class: {error}"
        ) from error


def _bytes(datamodule: FaceDataModule, indices: np.ndarray) -> np.ndarray:
    """Images as a network sees them before scaling, uint8 (N, S, S) or (N, S, S, 3)."""
    faces = datamodule.faces(indices)[np.arange(len(indices))]
    return np.stack([datamodule.preprocess.filtered(image) for image in faces])


def _check_cost(pipeline: Pipeline, datamodule: FaceDataModule, chosen: np.ndarray) -> None:
    """Estimate an SVM's time to fit, which grows with the square of the images, and refuse one that would take days."""
    components = max((step.n_components for step in pipeline if isinstance(step, PCA)), default=0)
    probe = max(PROBE, components)
    if len(chosen) <= 4 * probe:
        return
    part = np.sort(np.random.default_rng(0).choice(chosen, probe, replace=False))
    images, targets = _bytes(datamodule, part), datamodule.index.targets[part]
    start = time.perf_counter()
    with settings_of("the model"):
        features = pipeline[:-1].fit_transform(images, targets)
        features_seconds = time.perf_counter() - start
        pipeline[-1].fit(features, targets)
    fit_seconds = time.perf_counter() - start - features_seconds
    times = len(chosen) / probe
    expected = features_seconds * times + fit_seconds * times**2
    log.info("fitting an SVM to %s images takes about %s here", f"{len(chosen):,}", duration(expected))
    if len(chosen) > MOST_FOR_SVM:
        raise InputError(
            f"an SVM of {len(chosen):,} images would take about {duration(expected)} here, since the time grows with "
            f"their square ({probe:,} were timed): use fewer with max_images=20000, or model=knn"
        )


def _measure(pipeline: Pipeline, datamodule: FaceDataModule, stage: str) -> tuple[dict[str, float], Findings]:
    """Scores and predictions of a split, without the scores that need probabilities, as votes are not probabilities."""
    indices = datamodule.split[stage]
    targets = torch.from_numpy(datamodule.index.targets[indices])
    images = _bytes(datamodule, indices)
    with settings_of("the model"):
        predictions = torch.from_numpy(pipeline.predict(images))
    meter = Meter(stage, len(datamodule.class_names), calibration=True)
    certain = torch.nn.functional.one_hot(predictions, len(datamodule.class_names)).float().log()
    meter.update(torch.zeros(()), certain, targets, torch.from_numpy(indices))
    left_out = {f"{stage}/{name}" for name in NOT_FROM_VOTES}
    scores = {name: value.item() for name, value in meter.compute().items() if name not in left_out}
    return scores, meter.findings()._replace(votes=True)


if __name__ == "__main__":
    with plain_errors():
        main()
