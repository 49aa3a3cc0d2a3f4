"""The cascades that come with OpenCV."""

import threading
from pathlib import Path

import cv2

from fer_lightning.errors import InputError


class Cascades:
    """Cascades by name, one copy per thread, since a cascade has scratch memory that threads cannot share."""

    def __init__(self) -> None:
        self._loaded = threading.local()

    def __getitem__(self, name: str) -> cv2.CascadeClassifier:
        if not hasattr(self._loaded, name):
            path = Path(cv2.data.haarcascades) / f"{name}.xml"
            cascade = cv2.CascadeClassifier(str(path))
            if cascade.empty():  # OpenCV does not raise
                raise InputError(f"OpenCV has no cascade at {path}: install opencv-python>=4.13,<5 again")
            setattr(self._loaded, name, cascade)
        return getattr(self._loaded, name)
