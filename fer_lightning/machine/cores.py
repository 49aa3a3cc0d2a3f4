"""The number of CPU cores that this process may use."""

import os


def usable_cores() -> int:
    """The cores that this process may use: on a cluster or under taskset, fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
