"""`python -m fer_lightning.evaluate`: measure a trained model on a dataset, its own or another."""

from fer_lightning import config  # isort: skip - sets what must be set before albumentations is imported

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import hydra
import matplotlib
import numpy as np
import torch
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from hydra.utils import instantiate
from omegaconf import DictConfig, ListConfig, OmegaConf
from rich.console import Console

from fer_lightning.artifacts import print_results, write_tables
from fer_lightning.checkpoint import load_checkpoint
from fer_lightning.checkpoint_io import AtomicCheckpointIO
from fer_lightning.code_version import describe_code
from fer_lightning.data.datamodule import FaceDataModule
from fer_lightning.data.splits import STAGES
from fer_lightning.errors import InputError
from fer_lightning.evaluation.averaging import VIEWS
from fer_lightning.evaluation.card import chosen_by, model_card, training_in_words
from fer_lightning.evaluation.comparison import comparison_sections
from fer_lightning.evaluation.measurement import Measurement
from fer_lightning.evaluation.page import write_report
from fer_lightning.evaluation.scores import Scores
from fer_lightning.evaluation.section import Section
from fer_lightning.evaluation.sections import (
    calibration_section,
    classes_section,
    faces_section,
    groups_sections,
    learning_section,
    scores_section,
    twins_section,
)
from fer_lightning.evaluation.trials import (
    attribution_section,
    averaging_section,
    cost_section,
    robustness_section,
)
from fer_lightning.hardware import describe_hardware
from fer_lightning.inference.backends import load_backend
from fer_lightning.inference.model_card import ModelCard
from fer_lightning.inference.model_file import find_model
from fer_lightning.metrics import Meter, per_class_scores
from fer_lightning.result import write_result
from fer_lightning.run_folder import claimed
from fer_lightning.sweep import run_job

log = logging.getLogger(__name__)

SPLITS = ("train", "val", "test", "all")


@hydra.main(version_base="1.3", config_path=str(config.CONF_DIR), config_name="evaluate")
def main(cfg: DictConfig) -> float:
    """Measure one model, or several, on one split and return the (best) top-1 accuracy."""
    matplotlib.use("agg")
    if HydraConfig.get().mode == RunMode.MULTIRUN:
        return run_job(cfg)
    return evaluate(cfg, overrides=HydraConfig.get().overrides.task)


def evaluate(cfg: DictConfig, *, overrides: Sequence[str] = ()) -> float:
    """Measure, and write `cfg.output_dir`: `report/index.html` for a person, `result.json` and tables for a program.

    The model brings its own preprocessing. Where it knows other classes than the dataset, it is asked among those in
    common, on the images of these. Several models get a folder each, and a report that compares them.

    Args:
        cfg: As conf/evaluate.yaml composes it.
        overrides: What the command line changed in it, for the record.
    """
    run_dir = Path(cfg.output_dir)
    several = isinstance(cfg.ckpt_path, ListConfig)
    with claimed(run_dir):
        facts = {"command": ["python", "-m", "fer_lightning.evaluate", *overrides], **describe_code()}
        config.check_keys(cfg, config.EvaluateConfig)
        _check_settings(cfg)
        paths = [find_model(path) for path in (cfg.ckpt_path if several else [cfg.ckpt_path])]
        measured = [_measure(cfg, path) for path in paths]
        sections = [_sections(cfg, each, path) for each, path in zip(measured, paths, strict=True)]
    (run_dir / "checkpoints").rmdir()  # held the folder's place
    found = []
    for number, (each, (parts, scores, _)) in enumerate(zip(measured, sections, strict=True), start=1):
        folder = run_dir / f"{number}_{each.model}" if several else run_dir
        folder.mkdir(exist_ok=True)
        _write_one(cfg, folder, facts, paths[number - 1], each, parts, scores)
        found.append(scores)
    if cfg.evaluate.calibrate:
        for path, (_, _, temperature) in zip(paths, sections, strict=True):
            _store(path, temperature)
    if several:
        _write_comparison(cfg, run_dir, measured, found)
    Console().print(
        f"Everything is in [bold]{run_dir}[/bold]: report/index.html to read, report/report.json, "
        + ("a folder for each model" if several else "result.json, predictions.csv"),
        soft_wrap=True,
    )
    return max(scores.overall["acc"].value for scores in found)


def _check_settings(cfg: DictConfig) -> None:
    settings = cfg.evaluate
    if settings.tta not in VIEWS:
        raise InputError(f"evaluate.tta must be {', '.join(VIEWS)}, got {settings.tta!r}")
    for name in ("resamples", "robustness", "attribution"):
        if settings[name] < 0:
            raise InputError(f"evaluate.{name} must be at least 0, got {settings[name]}")
    if isinstance(cfg.ckpt_path, ListConfig) and len(cfg.ckpt_path) < 2:
        raise InputError("ckpt_path must be a path, or a list of at least two")


def _measure(cfg: DictConfig, path: Path) -> Measurement:
    backend = load_backend(path)
    datamodule: FaceDataModule = instantiate(cfg.data, preprocess=backend.card.preprocess)
    stage, indices = _chosen(cfg.split, datamodule, backend.card, allow_seen=cfg.evaluate.allow_seen)
    datamodule.groups_of(indices)  # a mistake in the user's file is told before anything is measured
    measured = Measurement.of(_name(path), backend, datamodule, stage, indices)
    _announce(measured)
    return measured


def _name(path: Path) -> str:
    """A run's folder's name stands for the checkpoints in it."""
    return path.parent.parent.name if path.parent.name == "checkpoints" else f"{path.parent.name}_{path.name}"


def _chosen(
    split: str | None, datamodule: FaceDataModule, card: ModelCard, *, allow_seen: bool
) -> tuple[str, np.ndarray]:
    """The split's name and its images; by default test, or val where there is no test."""
    if split is not None and split not in SPLITS:
        raise InputError(f"split must be {', '.join(SPLITS)}, or null, got {split!r}")
    index, protocol = datamodule.index, datamodule.split.protocol
    stage = split or ("test" if datamodule.has("test") else "val")
    if stage != "all" and not datamodule.has(stage):
        raise InputError(f"{index.dataset} has no {stage} split under protocol {protocol}")
    if not allow_seen and (seen := _why_seen(stage, datamodule, card)):
        raise InputError(f"{seen}, or say evaluate.allow_seen=true")
    if stage == "all":
        return "test", np.sort(np.concatenate([getattr(datamodule.split, stage) for stage in STAGES]))
    return stage, getattr(datamodule.split, stage)


def _why_seen(stage: str, datamodule: FaceDataModule, card: ModelCard) -> str | None:
    """Why the model may have been trained on images of this split, by the fingerprints it carries."""
    dataset, splits = datamodule.index.dataset, datamodule.fingerprint()["splits"]
    trained_with = card.training.get("splits", {}).get("train")
    if stage in splits and splits[stage]["sha256"] == trained_with:
        return f"the model was trained on this very split of {dataset}: evaluate it on split=test or split=val"
    if card.training.get("dataset") != dataset:
        return None
    if stage == "all":
        return f"the model was trained on a part of {dataset}: evaluate it on split=test or split=val"
    if splits["train"]["sha256"] != trained_with:
        return (
            f"the model was trained on another split of {dataset} ({card.training.get('protocol')}, seed "
            f"{card.training.get('seed')}), so that images of this one may be among those it was trained on: give the "
            "protocol, its seed and fold as its run had them"
        )
    return None


def _announce(measured: Measurement) -> None:
    for text in _about_classes(measured):
        log.warning(text)


def _about_classes(measured: Measurement) -> list[str]:
    """Which classes are asked for, and which are not, where model and dataset differ."""
    names, others = measured.classes.names, []
    if more := [name for name in measured.backend.card.class_names if name not in names]:
        others.append(f"the model also knows {', '.join(more)}, which the dataset does not: it is not asked for them")
    if measured.left_out:
        known = set(measured.classes.theirs)
        unknown = [name for k, name in enumerate(measured.datamodule.class_names) if k not in known]
        others.append(f"left out: {measured.left_out:,} images of {', '.join(unknown)}, which the model does not know")
    return [f"classes in common: {', '.join(names)}", *others] if others else []


def _sections(cfg: DictConfig, measured: Measurement, path: Path) -> tuple[list[Section], Scores, float | None]:
    """The report's parts, the scores, and the fitted temperature."""
    settings = cfg.evaluate
    drawing = {"resamples": settings.resamples, "seed": cfg.seed}
    first, scores = scores_section(measured, **drawing)
    calibration, temperature = calibration_section(measured)
    if settings.calibrate and (temperature is None or path.suffix != ".ckpt"):
        why = calibration.text[0] if temperature is None else f"{path} is no checkpoint."
        raise InputError(f"evaluate.calibrate=true stores a temperature in a checkpoint. {why}")
    run = path.parent.parent if path.parent.name == "checkpoints" else path.parent
    parts = [
        first,
        classes_section(measured, scores),
        None if measured.stage == "train" else twins_section(measured, cfg.audit, **drawing),
        *groups_sections(measured, **drawing),
        faces_section(measured),
        calibration,
        averaging_section(measured, settings.tta, **drawing),
        robustness_section(measured, settings.robustness, seed=cfg.seed),
        attribution_section(measured, settings.attribution),
        cost_section(path),
        learning_section(run),
    ]
    return [part for part in parts if part is not None], scores, temperature


def _write_one(
    cfg: DictConfig,
    folder: Path,
    facts: dict[str, Any],
    path: Path,
    measured: Measurement,
    sections: Sequence[Section],
    scores: Scores,
) -> None:
    """A model's tables and report, then `result.json`; print what a person wants to know."""
    stage, names, card = measured.stage, measured.classes.names, measured.backend.card
    write_tables(folder, measured.findings, measured.datamodule, names)
    per_class = per_class_scores(measured.findings.confusion, names)
    metrics = _metrics(measured)
    introduction = [
        f"{len(measured.indices):,} images of {', '.join(names)}. {chosen_by(measured)}",
        f"Trained on {training_in_words(card.training)}",
        *_about_classes(measured)[1:],
    ]
    described = {"model": str(path), "split": cfg.split or stage, "class_names": list(names)}
    write_report(
        folder / "report", _title(measured), introduction, sections, described, model_card(measured, scores, sections)
    )
    write_result(
        folder / "result.json",
        {
            **facts,
            "config": OmegaConf.to_container(cfg, resolve=True),
            "hardware": describe_hardware(),
            "model": {"path": str(path), "training": dict(card.training), "metrics": dict(card.metrics)},
            "data": measured.datamodule.fingerprint(),
            "split": cfg.split or stage,
            "class_names": list(names),
            "images": len(measured.indices),
            "images_of_other_classes": measured.left_out,
            "metrics": metrics,
            "per_class": {stage: per_class},
        },
    )
    print_results(f"{_title(measured)}, {len(measured.indices):,} images", metrics, per_class, stage)
    _print_more(sections)


def _title(measured: Measurement) -> str:
    """What was measured on what; where val stands in for test, it says so."""
    return measured.title + (" (there is no test split)" if not measured.datamodule.has("test") else "")


def _metrics(measured: Measurement) -> dict[str, float]:
    """The scores under the names that training gives them, so that leaderboards take both."""
    stage, targets = measured.stage, torch.from_numpy(measured.targets)
    meter = Meter(stage, len(measured.classes.names), keep_predictions=True)
    logits = torch.from_numpy(np.log(measured.probabilities)).float()
    meter.update(
        torch.nn.functional.cross_entropy(logits, targets), logits, targets, torch.from_numpy(measured.indices)
    )
    return {name: value.item() for name, value in meter.compute().items()}


def _print_more(sections: Sequence[Section]) -> None:
    console = Console()
    for section in sections:
        if section.key in ("twins", "averaging"):
            for name, part in section.facts.items():
                console.print(f"{name}: accuracy {part['acc']['value']:.4f}, macro-F1 {part['f1_macro']['value']:.4f}")


def _store(path: Path, temperature: float) -> None:
    checkpoint = load_checkpoint(path)
    checkpoint["hyper_parameters"]["temperature"] = temperature
    AtomicCheckpointIO().save_checkpoint(checkpoint, path)
    log.info("temperature %.3f is in %s", temperature, path)


def _write_comparison(
    cfg: DictConfig, run_dir: Path, measured: Sequence[Measurement], scores: Sequence[Scores]
) -> None:
    sections = comparison_sections(measured, scores, resamples=cfg.evaluate.resamples, seed=cfg.seed)
    dataset, split = measured[0].datamodule.index.dataset, measured[0].datamodule.split
    title = f"{len(measured)} models on {dataset}, {split.protocol}, {measured[0].stage}"
    places = [f"{number}_{each.model}/report/index.html" for number, each in enumerate(measured, start=1)]
    introduction = ["Each model's own report: " + ", ".join(places) + "."]
    write_report(run_dir / "report", title, introduction, sections, {"models": [each.model for each in measured]}, None)


if __name__ == "__main__":
    with config.plain_errors():
        main()
