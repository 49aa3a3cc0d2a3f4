"""The scores without images that are also in the model's training split."""

import json
from pathlib import Path

import numpy as np
import pandas as pd

from fer_lightning.data.datamodule import FaceDataModule
from fer_lightning.data.duplicates import FLAGGED
from fer_lightning.errors import InputError
from fer_lightning.evaluation.measurement import Measurement
from fer_lightning.evaluation.scores import plain
from fer_lightning.evaluation.section import Section


def twins_section(measured: Measurement, audit: str | None) -> Section | None:
    """The scores without images that are also in train; None if the model was not trained on this train split."""
    if not measured.provenance.own or measured.provenance.split not in ("val", "test"):
        return None
    kinds = {"no exact twin in train": measured.datamodule.has_twin_in_train(measured.indices)}
    if audit is not None:
        kinds |= {
            f"no {kind} twin in train, by the audit": np.isin(measured.names, names)
            for kind, names in read_audit(audit, measured.datamodule, measured.stage).items()
        }
    rows, facts = [], {}
    for name, twins in ({"all": np.zeros(len(measured.indices), bool)} | kinds).items():
        kept = int((~twins).sum())
        scores = measured.scores(rows=~twins).overall
        rows.append({"images with": name, "images": kept, "acc": scores["acc"], "f1_macro": scores["f1_macro"]})
        facts[name] = {"images": kept} | plain(scores)
    hint = (
        ""
        if audit is not None
        else " To find near-copies, run python -m fer_lightning.audit and give its folder as audit=."
    )
    return Section(
        key="twins",
        title="Without images that are also in train",
        text=(f"Images that are also in train, pixel for pixel: {kinds['no exact twin in train'].sum():,}.{hint}",),
        tables={"without_twins": pd.DataFrame(rows)},
        facts=facts,
    )


def read_audit(audit: str, datamodule: FaceDataModule, stage: str) -> dict[str, pd.Series]:
    """Names of the images that the audit found in train, exactly or nearly.

    Raises:
        InputError: There is no audit, or it covers other images or another split.
    """
    path = Path(audit) / FLAGGED
    try:
        flagged = pd.read_csv(path, keep_default_na=False)  # an image may be called None
        report = json.loads((path.parent / "report.json").read_text())
    except (OSError, ValueError) as error:
        raise InputError(
            f"{audit} holds no finished audit ({error}): run python -m fer_lightning.audit, and give its "
            "folder as audit="
        ) from error
    names = {datamodule.index.names[i] for i in datamodule.split[stage]}
    audited, ours = report.get("splits", {}), datamodule.fingerprint["splits"]
    same = all(audited.get(part) == ours[part]["sha256"] for part in ("train", stage))
    if not same or not set(flagged.loc[flagged.split == stage, "image"]) <= names:
        raise InputError(
            f"{path} covers another split or other images ({report.get('dataset')}, {report.get('protocol')}): run the "
            "audit with the same data and protocol"
        )
    return {kind: flagged.loc[flagged[f"{kind}_in_train"], "image"] for kind in ("exact", "near")}
