"""The window of `fer-predict --show`."""

import subprocess
import sys

import cv2

from fer_lightning.errors import InputError
from fer_lightning.inference.pictures import drawn
from fer_lightning.inference.predictor import Prediction

WINDOW = "fer-predict"


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
    """Show a frame with its faces marked; raises WindowClosed on `q`. The title shows the rate in frames/s."""
    if prediction.frame.image is None:
        return
    cv2.namedWindow(WINDOW, cv2.WINDOW_AUTOSIZE | cv2.WINDOW_GUI_NORMAL)
    cv2.imshow(WINDOW, drawn(prediction, anonymous=anonymous, bars=True))
    cv2.setWindowTitle(WINDOW, f"fer-predict, {rate:.0f} frames/s (q to quit)")
    if cv2.waitKey(1) == ord("q") or cv2.getWindowProperty(WINDOW, cv2.WND_PROP_VISIBLE) < 1:
        raise WindowClosed
