"""Names of entries, from the settings in which they differ."""

import hashlib
import json
from collections.abc import Sequence

from fer_lightning.runs.settings import EMPTY

LONGEST = 24  # letters of a value
EMPTY_WORDS = {str(value) for value in (*EMPTY, 0.0)}


def label_of(network: str, keys: Sequence[str], values: Sequence[str], of_network: Sequence[Sequence[str]]) -> str:
    """The network with the settings that tell its entries apart; settings that an entry lacks are omitted.

    Null, empty and zero are told only where a network has entries with two of these.
    """
    settings = [
        f"{_name(keys[i])}={_short(values[i])}"
        for i in _telling(keys, of_network)
        if values[i] not in EMPTY_WORDS or len(EMPTY_WORDS & {other[i] for other in of_network}) > 1
    ]
    return " ".join([network, *settings])


def _telling(keys: Sequence[str], of_network: Sequence[Sequence[str]]) -> list[int]:
    """Positions of the settings by which a network's entries differ, each only once.

    Omitted are settings that repeat another one (a schedule's peak rate is the optimizer's rate), and those that follow
    from the class they belong to (a momentum, if the optimizers differ).
    """
    columns = list(zip(*of_network, strict=True))
    first = {column: i for i, column in reversed(list(enumerate(columns))) if len(set(column)) > 1}
    class_of = {keys[i].removesuffix("_target_"): columns[i] for i in first.values() if keys[i].endswith("._target_")}

    def follows(i: int) -> bool:
        cls = class_of.get(f"{keys[i].rpartition('.')[0]}.")
        return cls is not None and cls != columns[i] and len(set(zip(cls, columns[i], strict=True))) == len(set(cls))

    return sorted(i for i in first.values() if not follows(i))


def _name(key: str) -> str:
    """A key's last part; for a `_target_` the part before it, and for what there are several of more, or all, of it."""
    place, _, name = key.rpartition(".")
    if name == "seed":
        return key
    if len(name) == 1:  # the p of a transform
        return f"{place.rpartition('.')[2]}.{name}"
    return place.rpartition(".")[2] if name == "_target_" else name


def _short(value: str) -> str:
    """A value in a few letters; of objects their classes. A digest tells apart what these do not."""
    if value.startswith("[{"):
        text = "+".join(str(each.get("_target_", "")).rpartition(".")[2] for each in json.loads(value))
    else:
        text = value.rpartition(".")[2] if value.startswith(("fer_lightning.", "torch.")) else value
        if len(text) <= LONGEST:
            return text
    return f"{text[:LONGEST]}#{hashlib.sha256(value.encode()).hexdigest()[:4]}"
