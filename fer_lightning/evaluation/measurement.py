"""A model's answers on a split.   Shapes: N images, S side in pixels, K classes of the model, J of them in common."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from rich.progress import track

from fer_lightning.data.datamodule import FaceDataModule
from fer_lightning.errors import InputError
from fer_lightning.inference.backends import Backend
from fer_lightning.inference.predictor import softmax
from fer_lightning.labels import canonical
from fer_lightning.metrics import Findings


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


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """What a model says to the images of a split whose classes it knows.

    Attributes:
        model: Its file's name, as reports call it.
        backend: The model.
        datamodule: Where the images come from, prepared as the model wants them.
        stage: `train`, `val` or `test`.
        classes: Of the model and the dataset.
        indices: Positions in the dataset, (N,).
        left_out: How many images of the split are of classes that the model does not know.
        logits: float32 (N, K), as the network gives them.
    """

    model: str
    backend: Backend
    datamodule: FaceDataModule
    stage: str
    classes: ClassesInCommon
    indices: np.ndarray
    left_out: int
    logits: np.ndarray

    @classmethod
    def of(
        cls, model: str, backend: Backend, datamodule: FaceDataModule, stage: str, indices: np.ndarray
    ) -> "Measurement":
        """Ask the model; raises InputError where its answers are no numbers."""
        classes = ClassesInCommon.of(backend.card.class_names, datamodule.class_names)
        kept = indices[np.isin(datamodule.index.targets[indices], classes.theirs)]
        if not len(kept):
            raise InputError(f"{stage} has no image of {', '.join(classes.names)}, the classes that the model knows")
        logits = logits_of(backend, datamodule, kept, description="Measuring")
        if len(broken := np.flatnonzero(~np.isfinite(logits).all(axis=1))):
            raise InputError(
                f"{model} gives no number (NaN or infinity) for {len(broken):,} of {len(kept):,} images, the first "
                f"{datamodule.index.names[kept[broken[0]]]}: its weights are broken, train it again with a lower "
                "optimizer.lr"
            )
        return cls(
            model=model,
            backend=backend,
            datamodule=datamodule,
            stage=stage,
            classes=classes,
            indices=kept,
            left_out=len(indices) - len(kept),
            logits=logits,
        )

    @cached_property
    def targets(self) -> np.ndarray:
        """int64 (N,), positions in `classes.names`."""
        return self.classes.target_of(self.datamodule.index.targets[self.indices])

    @cached_property
    def probabilities(self) -> np.ndarray:
        """float64 (N, J), at the model's own temperature, of the classes in common."""
        return self.probabilities_of(self.logits)

    def probabilities_of(self, logits: np.ndarray) -> np.ndarray:
        """The same of other logits, (N, K)."""
        return softmax(logits[:, self.classes.ours] / self.backend.card.temperature)

    @cached_property
    def predictions(self) -> np.ndarray:
        """int64 (N,), positions in `classes.names`."""
        return self.probabilities.argmax(axis=1)

    @cached_property
    def findings(self) -> Findings:
        """The same as a run's pictures and tables take it."""
        confusion = np.zeros((len(self.classes.names),) * 2, np.int64)
        np.add.at(confusion, (self.targets, self.predictions), 1)
        return Findings(self.stage, self.indices, self.targets, self.probabilities, confusion)

    @cached_property
    def images(self) -> np.ndarray:
        """As prepared, before filters and scaling: uint8 (N, S, S) or BGR (N, S, S, 3)."""
        return self.datamodule.faces(self.indices)[np.arange(len(self.indices))]

    @property
    def names(self) -> np.ndarray:
        """Of the images, (N,)."""
        return np.array([self.datamodule.index.names[i] for i in self.indices])

    @property
    def people(self) -> np.ndarray | None:
        """Who is seen, (N,), where the dataset says so."""
        subjects = self.datamodule.index.subjects
        return None if subjects is None else np.asarray(subjects)[self.indices]

    @property
    def title(self) -> str:
        """What was measured on what."""
        index, split = self.datamodule.index, self.datamodule.split
        return f"{self.model} on {index.dataset}, {split.protocol}, {self.stage}"


def logits_of(
    backend: Backend,
    datamodule: FaceDataModule,
    indices: np.ndarray,
    *,
    change: Callable[[np.ndarray], np.ndarray] | None = None,
    description: str,
) -> np.ndarray:
    """float32 (N, K), of the images at these positions.

    Args:
        backend: The model.
        datamodule: With the model's preprocessing.
        indices: Positions in the dataset, (N,).
        change: What is done first to a batch of prepared images, uint8.
        description: Beside the progress bar.
    """
    faces, size = datamodule.faces(indices), datamodule.batch_size
    rows = []
    for start in track(range(0, len(indices), size), description=description, transient=True):
        images = faces[np.arange(start, min(start + size, len(indices)))]
        rows.append(backend.logits(datamodule.preprocess.finish(images if change is None else change(images))))
    return np.concatenate(rows)
