"""A table of yours that says which group an image belongs to."""

from collections.abc import Sequence

import pandas as pd

from fer_lightning.errors import InputError


def read_groups(path: str, names: Sequence[str]) -> pd.DataFrame:
    """The columns but `image` of a csv, a row for each of `names`, in their order.

    Raises:
        InputError: The file cannot be read, lacks some of these images, or has a column that is no identifier.
    """
    try:
        table = pd.read_csv(path, dtype={"image": str})
    except (OSError, ValueError) as error:
        raise InputError(f"data.groups={path} cannot be read as csv ({error})") from error
    if "image" not in table or len(table.columns) < 2:
        raise InputError(
            f"data.groups={path} has the columns {', '.join(table.columns)}: it needs image, and others "
            "that say the groups"
        )
    if odd := [name for name in table.columns if not str(name).isidentifier()]:
        raise InputError(f"data.groups={path}: a column must be named in letters and digits, got {odd[0]!r}")
    table = table.drop_duplicates("image").set_index("image").fillna("unknown").astype(str)
    if missing := [name for name in names if name not in table.index]:
        raise InputError(
            f"data.groups={path} lacks {len(missing):,} of {len(names):,} images, the first {missing[0]}: "
            "give each a row, if only with the group unknown"
        )
    return table.loc[list(names)].reset_index(drop=True)
