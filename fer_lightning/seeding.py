"""One seed from several numbers."""

import numpy as np


def seed_from(*parts: int) -> int:
    """A 32-bit seed; similar numbers, such as neighbouring epochs, give unrelated seeds."""
    return int(np.random.SeedSequence(parts).generate_state(1)[0])
