"""How many processors are ours."""

import os


def usable_cores() -> int:
    """That this process may use; on a cluster, or under taskset, fewer than there are."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
