"""`python -m fer_lightning.evaluate`: measure a trained model on a dataset, its own or another."""

from fer_lightning.settings import config  # isort: skip - sets what must be set before albumentations is imported

import logging
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import hydra
import numpy as np
import torch
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from hydra.utils import instantiate
from omegaconf import DictConfig, ListConfig, OmegaConf
from rich.console import Console
from rich.markup import escape

from fer_lightning.checkpoint import load_checkpoint
from fer_lightning.checkpoint_io import AtomicCheckpointIO
from fer_lightning.data.datamodule import FaceDataModule
from fer_lightning.errors import InputError
from fer_lightning.evaluation.averaging import VIEWS
from fer_lightning.evaluation.card import model_card, training_in_words
from fer_lightning.evaluation.comparison import comparison_sections
from fer_lightning.evaluation.groups import groups_sections, read_groups
from fer_lightning.evaluation.measurement import Measurement, shared_images
from fer_lightning.evaluation.page import write_report
from fer_lightning.evaluation.provenance import Provenance, provenance
from fer_lightning.evaluation.scores import Scores
from fer_lightning.evaluation.section import Section
from fer_lightning.evaluation.sections import (
    calibration_section,
    classes_section,
    faces_section,
    fitted_temperature,
    learning_section,
    scores_section,
)
from fer_lightning.evaluation.trials import (
    attribution_section,
    averaging_section,
    cost_section,
    robustness_section,
)
from fer_lightning.evaluation.twins import read_audit, twins_section
from fer_lightning.inference.backends import Backend, load_backend
from fer_lightning.inference.model_file import find_model
from fer_lightning.machine.code_version import describe_code, file_digest
from fer_lightning.machine.hardware import describe_hardware
from fer_lightning.metrics import Meter, per_class_scores
from fer_lightning.runs.artifacts import print_results, write_tables
from fer_lightning.runs.folder import claimed
from fer_lightning.runs.result import write_result
from fer_lightning.settings.plain_errors import plain_errors
from fer_lightning.sweeps.folders import run_of
from fer_lightning.sweeps.jobs import run_job
from fer_lightning.weights.bundled import WEIGHTS

log = logging.getLogger(__name__)

# Settings that `data` refers to and this command does not use: the model comes with its own preprocessing.
UNREAD = config.NO_TRAINING | config.NO_PREPROCESS


@hydra.main(version_base="1.3", config_path=str(config.CONF_DIR), config_name="evaluate")
def main(cfg: DictConfig) -> float | None:
    """Measure one model, or several, on one split and return the (best) top-1 accuracy."""
    config.check_call(cfg)
    if cfg.ckpt_path == "newest":  # another one by the time that the command is repeated
        cfg.ckpt_path = str(find_model("newest", exported=False))
    if HydraConfig.get().mode == RunMode.MULTIRUN:
        if isinstance(cfg.ckpt_path, ListConfig):
            raise InputError("a list of models is compared in one job: omit -m, or the brackets")
        return run_job("evaluate", cfg)
    return evaluate(cfg, overrides=config.given_arguments("evaluate", HydraConfig.get()))


def evaluate(cfg: DictConfig, *, overrides: Sequence[str] = ()) -> float:
    """Measure, and write `cfg.output_dir`: `report/index.html` for people, `result.json` and tables for programs.

    The model comes with its own preprocessing. If its classes differ from the dataset's, only the shared classes are
    evaluated, on their images. Several models get one folder each, and a report that compares them.

    Args:
        cfg: Configuration composed from conf/evaluate.yaml.
        overrides: What the command was called with, recorded in `result.json`.
    """
    run_dir, several = Path(cfg.output_dir), isinstance(cfg.ckpt_path, ListConfig)
    with claimed(run_dir):
        facts = {"command": ["python", "-m", "fer_lightning.evaluate", *overrides], **describe_code()}
        config.check(cfg, config.EvaluateConfig)
        config.refuse_unread(cfg, UNREAD)
        _check_settings(cfg)
        if several:
            best = _evaluate_several(cfg, run_dir, facts)
        else:
            path = find_model(cfg.ckpt_path, exported=False)
            _, scores = _evaluate_one(cfg, _Candidate.of(cfg, path, _name(path)), run_dir, facts)
            best = scores.overall["acc"].value
    Console().print(
        f"Everything is in [bold]{escape(str(run_dir))}[/bold]: report/index.html to read, report/report.json, "
        + ("a folder for each model" if several else "result.json, predictions.csv"),
        soft_wrap=True,
    )
    return best


def _evaluate_several(cfg: DictConfig, run_dir: Path, facts: dict[str, Any]) -> float:
    """Evaluate each model into its own folder, then compare all of them; return the best accuracy."""
    paths = [find_model(path, exported=False) for path in cfg.ckpt_path]
    names = [_name(path) for path in paths]
    names = [name if names.count(name) == 1 else f"{name} ({i})" for i, name in enumerate(names, start=1)]
    slugs = [re.sub(r"[^\w.-]+", "_", name) for name in names]
    folders = [run_dir / f"{i}_{slug}" for i, slug in enumerate(slugs, start=1)]
    # A mistake in the last model's settings is reported before the first is measured.
    candidates = [_Candidate.of(cfg, path, name) for path, name in zip(paths, names, strict=True)]
    if not set.intersection(*(set(candidate.images.tolist()) for candidate in candidates)):
        raise InputError("the models have no image in common: they have different classes of this dataset")
    found = []
    for candidate, folder in zip(candidates, folders, strict=True):
        folder.mkdir(exist_ok=True)
        found.append(_evaluate_one(cfg, candidate, folder, facts))
    measured, scores = zip(*found, strict=True)
    sections = comparison_sections(measured, scores)
    title = f"{len(measured)} models {measured[0].title.removeprefix(f'{measured[0].model} ')}"
    introduction = [f"Each model's own report: {', '.join(f'{folder.name}/report/index.html' for folder in folders)}."]
    write_report(run_dir / "report", title, introduction, sections, {"models": names}, None)
    return max(each.overall["acc"].value for each in scores)


class _Candidate(NamedTuple):
    """A model and the images to measure it on."""

    path: Path
    name: str
    backend: Backend
    datamodule: FaceDataModule
    provenance: Provenance

    @classmethod
    def of(cls, cfg: DictConfig, path: Path, name: str) -> "_Candidate":
        """Load a model; mistakes in the user's settings and files are reported here, before anything is measured."""
        if cfg.evaluate.calibrate and path.suffix != ".ckpt":
            raise InputError(f"evaluate.calibrate=true stores a temperature in a checkpoint, and {path} is none")
        backend = load_backend(path)
        datamodule: FaceDataModule = instantiate(cfg.data, preprocess=backend.card.preprocess)
        origin = provenance(cfg.split, datamodule, backend.card)
        if origin.seen and not cfg.evaluate.allow_seen:
            raise InputError(f"{origin.seen}, or set evaluate.allow_seen=true")
        candidate = cls(path, name, backend, datamodule, origin)
        if cfg.groups is not None:
            read_groups(cfg.groups, [datamodule.index.names[i] for i in candidate.images])
        if cfg.audit is not None and origin.own and origin.split in ("val", "test"):
            read_audit(cfg.audit, datamodule, origin.split)
        elif cfg.audit is not None:
            log.warning(
                "audit=%s is ignored: it applies only to val or test, beside the very images %s was trained on",
                *(cfg.audit, name),
            )
        return candidate

    @property
    def images(self) -> np.ndarray:
        """Positions of the split's images of classes that the model has."""
        return shared_images(self.backend, self.datamodule, self.provenance)[1]


def _evaluate_one(
    cfg: DictConfig, candidate: _Candidate, folder: Path, facts: dict[str, Any]
) -> tuple[Measurement, Scores]:
    """Measure one model, and write its folder."""
    path = candidate.path
    measured = Measurement.of(*candidate, resamples=cfg.evaluate.resamples, seed=cfg.seed)
    if others := _other_classes(measured):
        log.warning("shared classes: %s", ", ".join(measured.classes.names))
    for text in others:
        log.warning(text)
    temperature, note = fitted_temperature(measured)
    if cfg.evaluate.calibrate:
        if temperature is None:
            raise InputError(f"evaluate.calibrate=true stores a temperature in a checkpoint. {note}")
        _store(path, temperature)
        measured, note = replace(measured, temperature=temperature), f"{note} It is now in the checkpoint."
    first, scores = scores_section(measured)
    parts = [
        first,
        classes_section(measured, scores),
        twins_section(measured, cfg.audit),
        *groups_sections(measured, cfg.groups),
        faces_section(measured),
        calibration_section(measured, temperature, note),
        averaging_section(measured, cfg.evaluate.tta),
        robustness_section(measured, cfg.evaluate.robustness),
        attribution_section(measured, cfg.evaluate.attribution),
        cost_section(path),
        learning_section(run_of(path.resolve()) or path.resolve().parent),
    ]
    _write(cfg, folder, facts, measured, scores, [part for part in parts if part is not None])
    return measured, scores


def _check_settings(cfg: DictConfig) -> None:
    settings = cfg.evaluate
    if settings.tta not in VIEWS:
        raise InputError(f"evaluate.tta must be {', '.join(VIEWS)}, got {settings.tta!r}")
    for name in ("resamples", "robustness", "attribution"):
        if settings[name] < 0:
            raise InputError(f"evaluate.{name} must be at least 0, got {settings[name]}")
    if cfg.seed < 0:
        raise InputError(f"seed must be at least 0, got {cfg.seed}")
    if isinstance(cfg.ckpt_path, ListConfig) and len(cfg.ckpt_path) < 2:
        raise InputError("ckpt_path must be a path, or a list of at least two")


def _name(path: Path) -> str:
    """The name of a model in reports; the name of the run's folder stands for its best checkpoint."""
    path = path.resolve()
    if path.parent == WEIGHTS:
        return path.stem
    if (run := run_of(path)) is None:
        return f"{path.parent.name} {path.name}"
    return run.name + ("" if path.stem == "best" else f" {path.stem}")


def _other_classes(measured: Measurement) -> list[str]:
    """Sentences on classes of the model or of the dataset that are not evaluated."""
    names, others = measured.classes.names, []
    if more := [name for name in measured.backend.card.class_names if name not in names]:
        others.append(f"classes of the model that the dataset lacks are ignored: {', '.join(more)}")
    if measured.left_out:
        known = set(measured.classes.in_dataset)
        unknown = [name for k, name in enumerate(measured.datamodule.class_names) if k not in known]
        others.append(f"left out: {measured.left_out:,} images of {', '.join(unknown)}, which the model does not have")
    return others


def _write(
    cfg: DictConfig,
    folder: Path,
    facts: dict[str, Any],
    measured: Measurement,
    scores: Scores,
    sections: Sequence[Section],
) -> None:
    """Write tables and report, then `result.json`, and print the main results."""
    stage, names, card, path = measured.stage, measured.classes.names, measured.backend.card, str(measured.path)
    per_class = per_class_scores(measured.findings.confusion, names)
    write_tables(folder, measured.findings, measured.datamodule, names)
    metrics = _metrics(measured)
    hardware = describe_hardware(gpus=() if measured.backend.device == "cpu" else None)
    introduction = [
        f"{len(measured.indices):,} images of {', '.join(names)}. {measured.note}",
        f"Trained on {training_in_words(card.training)}",
        *_other_classes(measured),
    ]
    described = {
        "split": measured.provenance.split,
        "seen": measured.provenance.seen,
        "note": measured.note,
        "class_names": list(names),
        "images_of_other_classes": measured.left_out,
        "data": measured.datamodule.fingerprint,
    }
    card_text = model_card(measured, scores, sections)
    write_report(folder / "report", measured.title, introduction, sections, {"model": path} | described, card_text)
    write_result(
        folder / "result.json",
        {
            **facts,
            **described,
            "config": OmegaConf.to_container(cfg, resolve=True),
            "hardware": hardware,
            "model": {
                "path": path,
                "sha256": file_digest(measured.path),
                "preprocess": card.preprocess.to_dict(),
                "training": dict(card.training),
                "metrics": dict(card.metrics),
            },
            "chosen": measured.provenance.chosen,
            "images": len(measured.indices),
            "metrics": metrics,
            "per_class": {stage: per_class},
        },
    )
    print_results(f"{measured.title}, {len(measured.indices):,} images", metrics, per_class, stage)
    _print_more(sections)


def _metrics(measured: Measurement) -> dict[str, float]:
    """The scores with the same names and the same torchmetrics as in training, so that leaderboards can use both."""
    targets, temperature = torch.from_numpy(measured.targets), np.float32(measured.temperature)
    logits = torch.from_numpy(np.ascontiguousarray(measured.logits[:, measured.classes.in_model] / temperature))
    meter = Meter(measured.stage, len(measured.classes.names), calibration=True)
    loss = torch.nn.functional.cross_entropy(logits, targets)
    meter.update(loss, logits, targets, torch.from_numpy(measured.indices))
    return {name: value.item() for name, value in meter.compute().items()}


def _print_more(sections: Sequence[Section]) -> None:
    console = Console()
    for section in sections:
        for name in ("without_twins", "averaging"):
            if (table := section.tables.get(name)) is not None:
                for first, acc, f1_macro in zip(table.iloc[:, 0], table.acc, table.f1_macro, strict=True):
                    console.print(f"{first}: accuracy {acc}, macro-F1 {f1_macro}", highlight=False)


def _store(path: Path, temperature: float) -> None:
    checkpoint = load_checkpoint(path)
    checkpoint["hyper_parameters"]["temperature"] = temperature
    AtomicCheckpointIO().save_checkpoint(checkpoint, path)
    log.info("temperature %.3f was stored in %s", temperature, path)


if __name__ == "__main__":
    with plain_errors():
        main()
