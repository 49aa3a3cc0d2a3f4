"""`python -m fer_lightning.audit`: find duplicate images in a dataset, across splits or with conflicting labels."""

from fer_lightning.settings import config  # isort: skip - sets what must be set before albumentations is imported

import json
import logging
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import hydra
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from hydra.utils import instantiate
from omegaconf import DictConfig
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from fer_lightning.atomic import replacing
from fer_lightning.data.datamodule import FaceDataModule
from fer_lightning.data.duplicates import FLAGGED, Pairs, alike, flat_images, groups, identical
from fer_lightning.data.splits import STAGES
from fer_lightning.errors import InputError
from fer_lightning.plots import faces_figure
from fer_lightning.runs.folder import claimed
from fer_lightning.settings.plain_errors import plain_errors

log = logging.getLogger(__name__)

# Images are compared as stored in the cache, all of the same size and before any filter.
UNREAD = config.NO_TRAINING | config.NO_BATCHES | config.NO_PREPROCESS | {"seed": 0}
del UNREAD["preprocess.size"], UNREAD["preprocess.channels"]

PAIRS_SHOWN = 8  # pairs of each kind on the contact sheet


@hydra.main(version_base="1.3", config_path=str(config.CONF_DIR), config_name="audit")
def main(cfg: DictConfig) -> None:
    """Audit one dataset under one protocol."""
    config.check_call(cfg)
    if HydraConfig.get().mode == RunMode.MULTIRUN:
        raise InputError("an audit covers one dataset: run it for each one, without -m")
    audit(cfg, overrides=config.given_arguments("audit", HydraConfig.get()))


def audit(cfg: DictConfig, *, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """Compare all images with each other, write `cfg.output_dir`, print the findings and return them.

    `report.json` has the counts, `pairs.csv` one row for each pair of similar images, and `flagged.csv` one for each
    image that is in val or test and also in train, that has a duplicate with another label, or that is flat;
    `evaluate audit=DIR` reads `flagged.csv`. `contact_sheet.png` shows some of each kind.

    Args:
        cfg: Configuration composed from conf/audit.yaml.
        overrides: What the command was called with, repeated in the suggested next command.
    """
    folder = Path(cfg.output_dir)
    with claimed(folder):
        config.check(cfg, config.AuditConfig)
        config.refuse_unread(cfg, UNREAD)
        if not 0 < cfg.threshold <= 1:
            raise InputError(f"threshold must be above 0 and at most 1, got {cfg.threshold}")
        datamodule: FaceDataModule = instantiate(cfg.data)
        faces = _AllFaces(datamodule)
        flat_ones = flat_images(faces.images)
        table = faces.table(identical(faces.digests), alike(faces.images, threshold=cfg.threshold))
        flagged = faces.flagged(table, flat_ones)
        report = {
            "dataset": datamodule.index.dataset,
            "protocol": datamodule.split.protocol,
            "splits": {stage: datamodule.fingerprint["splits"][stage]["sha256"] for stage in STAGES},
            "threshold": cfg.threshold,
            "images": len(faces.stages),
            "exact": faces.groups_report(table[table.exact]),
            "near": faces.groups_report(table),
            "also_in_train": {
                stage: faces.overlap(flagged, stage) for stage in ("val", "test") if (faces.stages == stage).any()
            },
            "flat": faces.names[flat_ones].tolist(),
        }
        sheet = faces.contact_sheet(table, f"{report['dataset']}, {report['protocol']}: similar images")
        _write(folder, report, table, flagged, sheet)
    _print(report, folder, [text for text in overrides if text.startswith(("data", "protocol"))])
    return report


class _AllFaces:
    """The images of all splits in one sequence, with their names, splits, labels and digests."""

    def __init__(self, datamodule: FaceDataModule) -> None:
        split = datamodule.split
        indices = np.concatenate([split[stage] for stage in STAGES])
        self.stages = np.repeat(STAGES, [len(split[stage]) for stage in STAGES])
        self.images = datamodule.faces(indices)[np.arange(len(indices))]
        self.names = np.array([datamodule.index.names[i] for i in indices])
        self.labels = np.array(datamodule.class_names)[datamodule.index.targets[indices]]
        self.class_names = datamodule.class_names
        self.digests = datamodule.cache.digests[indices]

    def table(self, *found: Pairs) -> pd.DataFrame:
        """One row per pair, the most similar first."""
        pairs = Pairs(*map(np.concatenate, zip(*found, strict=True)))
        columns: dict[str, Any] = {}
        for side, positions in (("first", pairs.first), ("second", pairs.second)):
            columns[side] = positions
            columns |= {f"{side}_{what}": getattr(self, f"{what}s")[positions] for what in ("name", "stage", "label")}
        table = pd.DataFrame(columns)
        table["correlation"], table["mirrored"] = pairs.correlation, pairs.mirrored
        table["exact"] = (self.digests[pairs.first] == self.digests[pairs.second]).all(axis=1)
        table = table.drop_duplicates(["first", "second"])
        return table.sort_values(["exact", "correlation"], ascending=False, kind="stable", ignore_index=True)

    def flagged(self, table: pd.DataFrame, flat_ones: np.ndarray) -> pd.DataFrame:
        """One row for each image, of any split, with at least one flag."""
        flags = pd.DataFrame(
            {"image": self.names, "split": self.stages, "label": self.labels}
            | dict.fromkeys(("exact_in_train", "near_in_train", "same_label_in_train", "conflicting", "flat"), False)
        )
        flags.loc[flat_ones, "flat"] = True
        for one, other in (("first", "second"), ("second", "first")):
            across = (table[f"{one}_stage"] == "train") & (table[f"{other}_stage"] != "train")
            conflict = table[f"{one}_label"] != table[f"{other}_label"]
            flags.loc[table.loc[across & table.exact, other], "exact_in_train"] = True
            flags.loc[table.loc[across, other], "near_in_train"] = True
            flags.loc[table.loc[across & ~conflict, other], "same_label_in_train"] = True
            flags.loc[table.loc[conflict, other], "conflicting"] = True
        said = ["exact_in_train", "near_in_train", "conflicting", "flat"]
        return flags[flags[said].any(axis=1)].reset_index(drop=True)

    def groups_report(self, table: pd.DataFrame) -> dict[str, int]:
        """The number of groups of similar images, of redundant images, and of groups with conflicting labels."""
        pairs = Pairs(*(table[name].to_numpy() for name in ("first", "second", "correlation", "mirrored")))
        group = groups(pairs, len(self.names))
        sizes = np.bincount(group)
        kinds = pd.DataFrame({"group": group, "label": self.labels}).groupby("group")["label"].nunique()
        train = np.bincount(group[self.stages == "train"], minlength=len(sizes))
        return {
            "pairs": len(table),
            "groups": int((sizes > 1).sum()),
            "redundant_images": int((sizes - 1).sum()),
            "redundant_in_train": int(np.maximum(train - 1, 0).sum()),
            "groups_under_several_labels": int((kinds > 1).sum()),
        }

    def overlap(self, flagged: pd.DataFrame, stage: str) -> dict[str, Any]:
        """How many images of a split have a duplicate in train, also by class, and for how many the labels agree."""
        mine, total = flagged[flagged.split == stage], int((self.stages == stage).sum())
        counts = pd.Series(self.labels[self.stages == stage]).value_counts()
        near = mine[mine.near_in_train]
        by_class = near.label.value_counts().reindex(list(self.class_names), fill_value=0)
        return {
            "images": total,
            "exact": int(mine.exact_in_train.sum()),
            "near": len(near),
            "near_share": len(near) / total,
            "near_same_label_share": float(near.same_label_in_train.mean()) if len(near) else None,
            "near_share_by_class": {name: int(by_class[name]) / int(counts.get(name, 1)) for name in self.class_names},
        }

    def contact_sheet(self, table: pd.DataFrame, title: str) -> plt.Figure:
        """Pairs side by side: across splits, with conflicting labels, and the least similar that still count."""
        across = table[(table.first_stage != table.second_stage)].drop_duplicates("second").head(PAIRS_SHOWN)
        conflicts = table[table.first_label != table.second_label].drop_duplicates("second").head(PAIRS_SHOWN)
        least = table[~table.exact].drop_duplicates("second").tail(PAIRS_SHOWN)
        shown = pd.concat([across, conflicts, least])
        positions = shown[["first", "second"]].to_numpy().reshape(-1)
        captions = []
        for row in shown.itertuples():
            how = "same" if row.exact else f"{row.correlation:.3f}{' mirrored' if row.mirrored else ''}"
            captions += [f"{row.first_stage}\n{row.first_label}", f"{row.second_stage}: {how}\n{row.second_label}"]
        return faces_figure(self.images[positions], captions, title if len(shown) else f"{title}: none")


def _write(folder: Path, report: dict[str, Any], table: pd.DataFrame, flagged: pd.DataFrame, sheet: plt.Figure) -> None:
    with replacing(folder / "contact_sheet.png") as temporary:
        sheet.savefig(temporary, dpi=110)
    plt.close(sheet)
    with replacing(folder / "pairs.csv") as temporary:
        table.drop(columns=["first", "second"]).to_csv(temporary, index=False, float_format="%.4f")
    with replacing(folder / FLAGGED) as temporary:
        flagged.to_csv(temporary, index=False)
    with replacing(folder / "report.json") as temporary:
        temporary.write_text(json.dumps(report, indent=2) + "\n")


def _print(report: dict[str, Any], folder: Path, data: Sequence[str]) -> None:
    console = Console()
    what = f"{report['dataset']}, {report['protocol']}: {report['images']:,} images"
    table = Table("", "exact", f"correlation >= {report['threshold']}", title=what)
    for key, name in (
        ("groups", "groups of similar images"),
        ("redundant_images", "images beyond the first of each group"),
        ("redundant_in_train", "such images within train"),
        ("groups_under_several_labels", "groups with conflicting labels"),
    ):
        table.add_row(name, f"{report['exact'][key]:,}", f"{report['near'][key]:,}")
    for stage, overlap in report["also_in_train"].items():
        shares = [f"{overlap[kind]:,} ({overlap[kind] / overlap['images']:.1%})" for kind in ("exact", "near")]
        table.add_row(f"images of {stage} that are also in train", *shares)
    console.print(table)
    for stage, overlap in report["also_in_train"].items():
        if overlap["near"]:
            shares = ", ".join(f"{name} {share:.1%}" for name, share in overlap["near_share_by_class"].items())
            agree = overlap["near_same_label_share"]
            console.print(f"{stage} by class: {shares}; the label agrees for {agree:.1%}", soft_wrap=True)
    console.print(f"{len(report['flat'])} flat images")
    command = ("python", "-m", "fer_lightning.evaluate")
    console.print(
        f"Everything is in [bold]{escape(str(folder))}[/bold]: contact_sheet.png, pairs.csv, {FLAGGED}, report.json. "
        f"Accuracy without them: {escape(shlex.join([*command, *data, f'audit={folder}', 'ckpt_path=...']))}",
        soft_wrap=True,
    )


if __name__ == "__main__":
    with plain_errors():
        main()
