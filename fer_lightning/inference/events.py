"""Events: when a face begins and stops showing an emotion."""

from dataclasses import dataclass, field, replace

from fer_lightning.inference.predictor import Prediction


@dataclass(frozen=True, kw_only=True)
class Event:
    """A stretch of time in which a person's face showed one emotion.

    Attributes:
        onset_s: Time of its first frame.
        offset_s: Time of its last frame.
        frames: Number of frames, first and last included.
        confidence: The emotion's mean probability over these frames.
    """

    source: str
    track: int
    emotion: str
    onset_s: float
    offset_s: float
    frames: int
    confidence: float


@dataclass
class EventRecorder:
    """Collects events during a video; an emotion shown for less than `shortest_s` makes no event.

    Args:
        shortest_s: Shortest event, from onset to offset, in seconds.
        gap_s: Largest gap, in seconds, between frames of the same person and emotion within one event.
    """

    shortest_s: float = 0.2
    gap_s: float = 1.0
    events: list[Event] = field(default_factory=list)
    _open: dict[int, Event] = field(default_factory=dict)

    def add(self, prediction: Prediction) -> None:
        """Add the next frame."""
        now = prediction.frame.time_s or 0.0
        for face in prediction.faces:
            event = self._open.get(face.track)
            if event and event.emotion == face.emotion and now - event.offset_s <= self.gap_s:
                mean = (event.confidence * event.frames + face.confidence) / (event.frames + 1)
                self._open[face.track] = replace(event, offset_s=now, frames=event.frames + 1, confidence=mean)
                continue
            self._close(face.track)
            self._open[face.track] = Event(
                source=prediction.frame.source,
                track=face.track,
                emotion=face.emotion,
                onset_s=now,
                offset_s=now,
                frames=1,
                confidence=face.confidence,
            )

    def finish(self) -> list[Event]:
        """Close open events, and return all events in the order of their onsets."""
        for track in list(self._open):
            self._close(track)
        return sorted(self.events, key=lambda event: (event.onset_s, event.track))

    def _close(self, track: int) -> None:
        event = self._open.pop(track, None)
        if event and event.offset_s - event.onset_s >= self.shortest_s:
            self.events.append(event)
