"""A video's emotions over time, as one picture."""

import warnings
from array import array
from collections import defaultdict
from pathlib import Path

import numpy as np

from fer_lightning.atomic import replacing
from fer_lightning.inference.palette import PALETTE
from fer_lightning.inference.predictor import Prediction

MOST_PEOPLE = 6  # people in one picture, those seen longest first


class Timeline:
    """Collects a video's probabilities frame by frame, and plots each person's as stacked areas."""

    def __init__(self, class_names: tuple[str, ...]) -> None:
        self.class_names = class_names
        # Arrays, since an hour of a camera then takes 4 MB per person.
        self._times: defaultdict[int, array] = defaultdict(lambda: array("d"))
        self._probabilities: defaultdict[int, array] = defaultdict(lambda: array("f"))

    def add(self, prediction: Prediction) -> None:
        """Add the next frame."""
        for face in prediction.faces:
            self._times[face.track].append(prediction.frame.time_s or 0.0)
            self._probabilities[face.track].extend(face.probabilities.values())

    def write(self, path: Path, title: str) -> None:
        """Plot to a PNG, in a folder that is made for it; nothing is written if there was no face to plot."""
        from matplotlib.figure import Figure  # not pyplot, whose state the threads of a server would share

        people = sorted(self._times, key=lambda track: -len(self._times[track]))[:MOST_PEOPLE]
        if not people:
            return
        path.parent.mkdir(exist_ok=True)
        figure = Figure(figsize=(10, 0.9 + 1.7 * len(people)), layout="constrained")
        axes = figure.subplots(len(people), 1, sharex=True, squeeze=False)
        for axis, track in zip(axes[:, 0], people, strict=True):
            times, probabilities = self._with_gaps(track)
            axis.stackplot(times, probabilities.T, labels=self.class_names, colors=PALETTE)
            axis.set(ylabel=f"person {track}", ylim=(0, 1), yticks=(0, 0.5, 1))
        axes[-1, 0].set_xlabel("time in s")
        handles, labels = axes[0, 0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside right upper", frameon=False)
        hidden = len(self._times) - len(people)
        more = f" ({hidden} more people were seen more briefly)" if hidden else ""
        figure.suptitle(f"{title}{more}", fontsize=10, parse_math=False)  # a file's name may hold dollar signs
        with replacing(path) as temporary, warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Glyph .* missing from")  # or letters that the font lacks
            figure.savefig(temporary, dpi=120)

    def _with_gaps(self, track: int) -> tuple[np.ndarray, np.ndarray]:
        """Times and probabilities, with a gap where the person was out of sight for more than a few frames."""
        times = np.array(self._times[track])
        probabilities = np.array(self._probabilities[track]).reshape(len(times), -1)
        if len(times) < 2:
            return times, probabilities
        steps = np.diff(times)
        gaps = np.flatnonzero(steps > 5 * np.median(steps)) + 1
        return np.insert(times, gaps, times[gaps]), np.insert(probabilities, gaps, np.nan, axis=0)
