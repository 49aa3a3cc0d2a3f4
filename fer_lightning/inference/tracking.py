"""Tracking people from frame to frame, and smoothing their probabilities over time."""

from dataclasses import dataclass, field, replace
from math import exp

from fer_lightning.inference.boxes import iou
from fer_lightning.inference.predictor import Face, Prediction


@dataclass
class _Person:
    number: int
    face: Face
    time_s: float


SMOOTH_S = 0.3  # seconds over which probabilities are averaged by default


@dataclass
class Tracker:
    """Gives each face in a video the number of its person, and smooths the person's probabilities.

    Args:
        smooth_s: Time constant of exponential averaging, in seconds; 0 for no smoothing.
        overlap: Smallest IoU with the previous box for a face to be the same person.
        gap_s: How long a person may be out of sight and keep the number, in seconds.
    """

    smooth_s: float = SMOOTH_S
    overlap: float = 0.3
    gap_s: float = 1.0
    _people: list[_Person] = field(default_factory=list)
    _count: int = 0

    def follow(self, prediction: Prediction) -> Prediction:
        """Number the faces of the next frame."""
        now = prediction.frame.time_s or 0.0
        self._people = [person for person in self._people if now - person.time_s <= self.gap_s]
        faces = [self._update(person, face, now) for person, face in self._match(prediction.faces)]
        return replace(prediction, faces=faces)

    def _match(self, faces: list[Face]) -> list[tuple[_Person | None, Face]]:
        """Pair faces with people, the largest overlaps first."""
        pairs = [
            (iou(person.face.box, face.box), p, f)
            for p, person in enumerate(self._people)
            for f, face in enumerate(faces)
        ]
        taken: dict[int, int] = {}
        for overlap, p, f in sorted(pairs, reverse=True):
            if overlap >= self.overlap and f not in taken and p not in taken.values():
                taken[f] = p
        return [(self._people[taken[f]] if f in taken else None, face) for f, face in enumerate(faces)]

    def _update(self, person: _Person | None, face: Face, now: float) -> Face:
        if person is None:
            person = _Person(self._count, face, now)
            self._count += 1
            self._people.append(person)
            smoothed = face.probabilities
        else:
            smoothed = self._smoothed(person, face, now)
        raw = face.probabilities if self.smooth_s > 0 else None
        person.face = replace(face, track=person.number, probabilities=smoothed, raw_probabilities=raw)
        person.time_s = max(person.time_s, now)
        return person.face

    def _smoothed(self, person: _Person, face: Face, now: float) -> dict[str, float]:
        if self.smooth_s == 0:
            return face.probabilities
        # Unevenly spaced frames are weighted by time, not by number; a camera's frame may come after a later one.
        kept = exp(-max(0.0, now - person.time_s) / self.smooth_s)
        return {
            name: kept * person.face.probabilities[name] + (1 - kept) * new for name, new in face.probabilities.items()
        }
