"""Videos that every browser plays: H.264 in MP4, written with PyAV."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from fer_lightning.inference.pictures import scaled_to, video_size


class BrowserVideoWriter:
    """Like `VideoWriter`, whose format OpenCV can write everywhere but browsers do not play.

    Args:
        path: Path ending in .mp4.
        fps: Frames per second.
    """

    def __init__(self, path: Path, fps: float) -> None:
        self._container = av.open(str(path), "w", options={"movflags": "+faststart"})
        self._stream = self._container.add_stream("libx264", rate=Fraction(fps).limit_denominator(1001))
        self._stream.pix_fmt = "yuv420p"
        self._stream.options = {"preset": "veryfast", "crf": "23"}
        self._size: tuple[int, int] | None = None

    def write(self, image: np.ndarray) -> None:
        """Append a frame; the first one's size is the video's, and others are scaled to it."""
        if self._size is None:
            self._size = video_size(image)
            self._stream.width, self._stream.height = self._size
        image = np.ascontiguousarray(scaled_to(image, self._size))
        for packet in self._stream.encode(av.VideoFrame.from_ndarray(image, format="bgr24")):
            self._container.mux(packet)

    def close(self) -> None:
        """Finish the file."""
        try:
            if self._size is not None:
                for packet in self._stream.encode():
                    self._container.mux(packet)
        finally:
            self._container.close()
