"""A model's answers on a split.   Shapes: N images, S side in pixels, K classes of the model, J shared classes."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from rich.progress import track

from fer_lightning.data.cache import Faces
from fer_lightning.data.datamodule import FaceDataModule
from fer_lightning.errors import InputError
from fer_lightning.evaluation.provenance import Provenance, images_of
from fer_lightning.evaluation.scores import Score, Scores, mean_with_interval, scores_with_intervals
from fer_lightning.inference.backends import Backend
from fer_lightning.inference.predictor import softmax
from fer_lightning.labels import canonical
from fer_lightning.metrics import Findings


@dataclass(frozen=True, kw_only=True)
class ClassesInCommon:
    """Classes that a model and a dataset share, by name.

    Attributes:
        names: Names of the shared classes, in the model's order.
        in_model: Their positions among the model's classes.
        in_dataset: Their positions among the dataset's classes.
    """

    names: tuple[str, ...]
    in_model: list[int]
    in_dataset: list[int]

    @classmethod
    def of(cls, model: Sequence[str], dataset: Sequence[str]) -> "ClassesInCommon":
        """Match equal names, then others by their standard spelling; raises InputError if fewer than two match."""
        alike = {canonical(name): k for k, name in enumerate(dataset) if name not in model}
        place = {name: dataset.index(name) if name in dataset else alike.pop(canonical(name), None) for name in model}
        in_model = [k for k, name in enumerate(model) if place[name] is not None]
        if len(in_model) < 2:
            raise InputError(
                f"the model has {', '.join(model)} and the dataset {', '.join(dataset)}: fewer than two classes in "
                "common, so there is nothing to measure"
            )
        return cls(
            names=tuple(model[k] for k in in_model),
            in_model=in_model,
            in_dataset=[place[model[k]] for k in in_model],
        )

    def among(self, indices: np.ndarray, datamodule: FaceDataModule) -> np.ndarray:
        """Those of a dataset's images that are of a shared class."""
        return indices[np.isin(datamodule.index.targets[indices], self.in_dataset)]

    def target_of(self, targets: np.ndarray) -> np.ndarray:
        """Turn the dataset's targets (N,) into positions in `names`."""
        position = np.full(max(self.in_dataset) + 1, -1)
        position[self.in_dataset] = np.arange(len(self.in_dataset))
        return position[targets]


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """A model's answers for the images of a split whose classes it has.

    Attributes:
        path: Path of the model's file.
        model: Name of the model in reports.
        backend: The model.
        datamodule: Source of the images, with the model's preprocessing.
        provenance: How the images relate to the model's training.
        classes: Shared classes of the model and the dataset.
        indices: Positions of the images in the dataset, (N,).
        left_out: Number of images of the split whose class the model does not have.
        logits: float32 (N, K), as returned by the network.
        temperature: Divisor of the logits before the softmax.
        resamples: Number of bootstrap resamples for each score's interval.
        seed: Seed of the resamples.
    """

    path: Path
    model: str
    backend: Backend
    datamodule: FaceDataModule
    provenance: Provenance
    classes: ClassesInCommon
    indices: np.ndarray
    left_out: int
    logits: np.ndarray
    temperature: float
    resamples: int
    seed: int

    @classmethod
    def of(
        cls,
        path: Path,
        model: str,
        backend: Backend,
        datamodule: FaceDataModule,
        provenance: Provenance,
        *,
        resamples: int = 1000,
        seed: int = 0,
    ) -> "Measurement":
        """Run the model; raises InputError if it has the class of none of the images, or its answers are not finite."""
        classes, kept = shared_images(backend, datamodule, provenance)
        if not len(kept):
            raise InputError(f"{provenance.split} has no image of {', '.join(classes.names)}, the classes of the model")
        return cls(
            path=path,
            model=model,
            backend=backend,
            datamodule=datamodule,
            provenance=provenance,
            classes=classes,
            indices=kept,
            left_out=len(images_of(provenance.split, datamodule)) - len(kept),
            logits=logits_of(backend, datamodule, kept, description="Measuring"),
            temperature=backend.card.temperature,
            resamples=resamples,
            seed=seed,
        )

    @property
    def stage(self) -> str:
        """`train`, `val` or `test`."""
        return self.provenance.stage

    @property
    def note(self) -> str:
        """What the model knew of these images, in words."""
        origin = self.provenance
        fitted = self.temperature != 1 and origin.split == "val" and (origin.own or origin.chosen)
        return f"{origin.note}{' The temperature was fitted on them too.' if fitted else ''}"

    @cached_property
    def targets(self) -> np.ndarray:
        """int64 (N,), positions in `classes.names`."""
        return self.classes.target_of(self.datamodule.index.targets[self.indices])

    @cached_property
    def probabilities(self) -> np.ndarray:
        """Probabilities of the shared classes, float64 (N, J)."""
        return self.probabilities_of(self.logits)

    def probabilities_of(self, logits: np.ndarray) -> np.ndarray:
        """The same for other logits, (N, K)."""
        return softmax(logits[:, self.classes.in_model] / np.float32(self.temperature))

    @cached_property
    def predictions(self) -> np.ndarray:
        """int64 (N,), positions in `classes.names`."""
        return self.probabilities.argmax(axis=1)

    @cached_property
    def findings(self) -> Findings:
        """The same in the form that a run's pictures and tables use."""
        confusion = np.zeros((len(self.classes.names),) * 2, np.int64)
        np.add.at(confusion, (self.targets, self.predictions), 1)
        return Findings(self.stage, self.indices, self.targets, self.probabilities, confusion)

    @property
    def faces(self) -> Faces:
        """The images as prepared, before filters and scaling."""
        return self.datamodule.faces(self.indices)

    @property
    def names(self) -> np.ndarray:
        """Names of the images, (N,)."""
        return np.array([self.datamodule.index.names[i] for i in self.indices])

    @property
    def people(self) -> np.ndarray | None:
        """The person in each image, (N,), if the dataset says so."""
        subjects = self.datamodule.index.subjects
        return None if subjects is None else np.asarray(subjects)[self.indices]

    @property
    def title(self) -> str:
        """Which model was measured on which data; says so if val is used in place of test."""
        split, has_test = self.provenance.split, self.datamodule.has("test")
        part = {"all": "all images"}.get(split, split) + (" (there is no test split)" if not has_test else "")
        return f"{self.model} on {self.datamodule.index.dataset}, {self.datamodule.split.protocol}, {part}"

    def scores(self, probabilities: np.ndarray | None = None, rows: np.ndarray | None = None) -> Scores:
        """Scores with intervals, of the model's or other probabilities (N, J), on all images or on `rows`.

        If the dataset names the people, the bootstrap draws people, each with all their images.
        """
        rows = np.arange(len(self.indices)) if rows is None else rows
        return scores_with_intervals(
            (self.probabilities if probabilities is None else probabilities)[rows],
            self.targets[rows],
            units=None if self.people is None else self.people[rows],
            resamples=self.resamples,
            seed=self.seed,
        )

    def mean_of(self, values: np.ndarray, rows: np.ndarray | None = None) -> Score:
        """The mean of a value of all images (N,), or of those at `rows` (len(rows),), with its interval."""
        people = self.people if rows is None or self.people is None else self.people[rows]
        return mean_with_interval(values, units=people, resamples=self.resamples, seed=self.seed)


def shared_images(
    backend: Backend, datamodule: FaceDataModule, provenance: Provenance
) -> tuple[ClassesInCommon, np.ndarray]:
    """The classes that model and dataset share, and the positions of the split's images of them."""
    classes = ClassesInCommon.of(backend.card.class_names, datamodule.class_names)
    return classes, classes.among(images_of(provenance.split, datamodule), datamodule)


def logits_of(
    backend: Backend,
    datamodule: FaceDataModule,
    indices: np.ndarray,
    *,
    change: Callable[[np.ndarray], np.ndarray] | None = None,
    description: str | None = None,
) -> np.ndarray:
    """Logits, float32 (N, K), of the images at these positions.

    Args:
        backend: The model.
        datamodule: Source of the images, with the model's preprocessing.
        indices: Positions in the dataset, (N,).
        change: Function applied first to each batch of prepared images, uint8.
        description: Text of the progress bar; None for no progress bar.

    Raises:
        InputError: The model returns values that are not finite numbers.
    """
    faces, size = datamodule.faces(indices), datamodule.batch_size
    starts = range(0, len(indices), size)
    rows = []
    for start in starts if description is None else track(starts, description=description, transient=True):
        images = faces[np.arange(start, min(start + size, len(indices)))]
        rows.append(backend.logits(datamodule.preprocess.finish(images if change is None else change(images))))
    logits = np.concatenate(rows)
    if len(broken := np.flatnonzero(~np.isfinite(logits).all(axis=1))):
        raise InputError(
            f"the model gives no number (NaN or infinity) for {len(broken):,} of {len(indices):,} images, the first "
            f"{datamodule.index.names[indices[broken[0]]]}: its weights are broken (train it again with a lower "
            "optimizer.lr), or its precision is too low (export it as float32)"
        )
    return logits
