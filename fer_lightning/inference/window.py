"""The window of `fer-predict --show`."""

import subprocess
import sys

import cv2

from fer_lightning.errors import InputError
from fer_lightning.inference.pictures import annotated_frame
from fer_lightning.inference.predictor import Prediction

WINDOW = "fer-predict"
NO_KEY = -1
PATIENCE_MS = 100  # how long to wait for a key before looking whether the window is still open


class WindowClosed(Exception):
    """`q` was pressed in the window, or it was closed."""


def check_window() -> None:
    """Test a window in a separate process: without a screen, OpenCV's Qt ends the process that opens one."""
    probe = subprocess.run([sys.executable, "-c", "import cv2; cv2.namedWindow('fer-predict')"], capture_output=True)
    if probe.returncode:
        raise InputError(
            "OpenCV cannot open a window here: omit --show; or use a machine with a screen, and opencv-python instead "
            "of opencv-python-headless"
        )


def show_frame(prediction: Prediction, rate: float, *, anonymous: bool) -> None:
    """Show a frame with its faces marked: one of a film until the next, a picture until a key; WindowClosed on `q`."""
    if prediction.frame.image is None:
        return
    cv2.namedWindow(WINDOW, cv2.WINDOW_AUTOSIZE | cv2.WINDOW_GUI_NORMAL)
    cv2.imshow(WINDOW, annotated_frame(prediction, anonymous=anonymous, bars=True))
    moving = prediction.frame.time_s is not None
    about = f"{rate:.0f} frames/s (q to quit)" if moving else "any key for the next picture, q to quit"
    cv2.setWindowTitle(WINDOW, f"fer-predict, {about}")
    while (key := cv2.waitKey(1 if moving else PATIENCE_MS)) != ord("q") and _is_open():
        if moving or key != NO_KEY:
            return
    raise WindowClosed


def _is_open() -> bool:
    return cv2.getWindowProperty(WINDOW, cv2.WND_PROP_VISIBLE) >= 1
