"""The description inside a model file, so that nothing else is needed to predict with it."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from fer_lightning.errors import InputError
from fer_lightning.preprocess import MAX_CROP_MARGIN, Preprocess

KEY = "fer_lightning"  # key in an ONNX file's metadata; its value is the card as JSON


@dataclass(frozen=True, kw_only=True)
class ModelCard:
    """How to use a network, and what it was made from.

    Attributes:
        class_names: Class names, in label order.
        preprocess: Preprocessing of every face crop.
        crop_margin: How far the training faces extend beyond a detector's box, on each side, as a fraction of its side.
        temperature: Divisor of the logits before the softmax, chosen so that confidences match accuracy.
        training: What the network was trained on and how: dataset, protocol, seed, ...; under `initial_weights` the
            same of the weights that it began with, if they were not random; under `teachers` of each network from whose
            answers it learned.
        metrics: Its scores, under the names of `result.json`.
        cost: Its `parameters` and `multiply_adds` of one face as it was trained; an export folds some of them.
    """

    class_names: tuple[str, ...]
    preprocess: Preprocess
    crop_margin: float = 0.0
    temperature: float = 1.0
    training: Mapping[str, Any] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)
    cost: Mapping[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if len(self.class_names) < 2 or len(set(self.class_names)) != len(self.class_names):
            raise InputError(f"the model's class names {list(self.class_names)} are not two or more different ones")
        if not self.temperature > 0:
            raise InputError(f"the model's temperature must be above 0, got {self.temperature}")
        if not 0 <= self.crop_margin <= MAX_CROP_MARGIN:
            raise InputError(f"the model's crop_margin must be 0 to {MAX_CROP_MARGIN}, got {self.crop_margin}")

    def to_json(self) -> str:
        """The whole card as JSON."""
        return json.dumps(asdict(self), allow_nan=False)

    @classmethod
    def from_json(cls, text: str, name: str) -> "ModelCard":
        """Read the output of `to_json`; `name` is the file's name, for the InputError if the text is not a card."""
        try:
            facts = json.loads(text)
            return cls.from_facts(**facts)
        except (ValueError, TypeError) as error:
            raise InputError(f"{name} has no valid description as fer-export writes it ({error})") from error

    @classmethod
    def from_facts(cls, class_names: list[str], preprocess: dict[str, Any], **facts: Any) -> "ModelCard":
        """Build a card from plain data."""
        return cls(class_names=tuple(class_names), preprocess=Preprocess(**preprocess), **facts)
