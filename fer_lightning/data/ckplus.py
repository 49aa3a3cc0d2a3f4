"""CK+ (Lucey et al., 2010) as the CK+48 download: the last three frames of 327 posed sequences, 48 x 48 grey.

`CK+48/<class>/S<subject>_<sequence>_<frame>.png`: 981 images of 118 subjects. Neighbouring frames are near-copies and
the same people pose several expressions, so only a split by subject shows how well new people are recognised.
"""

import re
from pathlib import Path

import numpy as np

from fer_lightning.data.faces import FaceIndex
from fer_lightning.data.tree import find_tree
from fer_lightning.labels import CKPLUS_CLASSES, canonical

FILE_NAME = re.compile(r"(?P<folder>[^/]+)/(?P<subject>S\d+)_(?P<sequence>\d+)_(?P<frame>\d+)\.png$")
NAMED = "<class>/S<subject>_<sequence>_<frame>.png"


def read_ckplus(root: str | Path | None = None) -> FaceIndex:
    """Index CK+48, zip or unpacked.

    Args:
        root: Folder or zip; None looks in `data/ckplus`, then `$FER_DATA/ckplus`.

    Raises:
        InputError: The dataset is not found, an image is outside the seven classes, or a file name lacks its subject or
            sequence.
    """
    tree = find_tree(
        "ckplus",
        root,
        holds=lambda name: FILE_NAME.search(name) is not None,
        expected=f"CK+48 images (CK+48/{NAMED})",
        download="'CK+' (CK+48, archive.zip) from Kaggle: shuvoalok/ck-dataset",
    )
    names = tree.images()
    matches = [tree.parse(name, FILE_NAME, CKPLUS_CLASSES, named=NAMED) for name in names]
    targets = [CKPLUS_CLASSES.index(canonical(match["folder"])) for match in matches]
    return FaceIndex(
        dataset="ckplus",
        class_names=CKPLUS_CLASSES,
        names=names,
        targets=np.array(targets, dtype=np.int64),
        read=tree.decoder(names),
        source_key=tree.key(),
        subjects=np.array([match["subject"] for match in matches]),
        sequences=np.array([f"{match['subject']}_{match['sequence']}" for match in matches]),
    )
