"""`python -m fer_lightning.sweeps.process MODULE ARGUMENTS...`: a command that ends when its parent process ends.

A killed sweep cannot end its jobs any more; they would train on unnoticed, and block the same sweep when it is started
again.
"""

import os
import runpy
import sys
import threading
import time

LOOK_S = 0.5


def _end_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(LOOK_S)
    os._exit(1)


if __name__ == "__main__":
    threading.Thread(target=_end_with, args=[os.getppid()], daemon=True).start()
    module = sys.argv.pop(1)
    runpy.run_module(module, run_name="__main__", alter_sys=True)
