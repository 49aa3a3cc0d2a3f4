"""The leaderboard: what stands beside what, how sure it is, and what is left out."""

import gc
import json
import re
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from sklearn.metrics import precision_recall_fscore_support, recall_score
from typer.testing import CliRunner

from fer_lightning.command import make_command
from fer_lightning.errors import InputError
from fer_lightning.evaluation.scores import scores_with_intervals
from fer_lightning.leaderboard.columns import table as table_of
from fer_lightning.leaderboard.entries import entries
from fer_lightning.leaderboard.figures import kernel_figure, pareto_front
from fer_lightning.leaderboard.pooling import OF_CLASSES
from fer_lightning.leaderboard.runs import collect
from fer_lightning.leaderboard.significance import with_p_values
from fer_lightning.report import main

CLASSES = ("angry", "happy")


def command(*arguments: object):
    return CliRunner().invoke(make_command(main), [str(argument) for argument in arguments])


@pytest.fixture
def write_run(tmp_path):
    """write_run(name, acc=..., ...): a finished run's folder; `right` says which of 100 test images it got right."""

    def write(
        name: str,
        *,
        acc: float = 0.5,
        net: str = "cnn4",
        kernel_size: int = 3,
        seed: int | None = 0,
        fold: int | None = None,
        dataset: str = "ckplus",
        protocol: str = "official",
        right: np.ndarray | None = None,
        settings: dict | None = None,
        **facts,
    ) -> Path:
        folder = tmp_path / "runs" / name
        folder.mkdir(parents=True)
        count = 100 if right is None else len(right)
        split = {"count": count, "classes": dict.fromkeys(CLASSES, count // 2), "sha256": "0"}
        scores = dict.fromkeys(("acc", *OF_CLASSES), acc)
        written = {
            "schema_version": 1,
            "config": {
                "model": {"net": {"name": net, "kernel_size": kernel_size}},
                "protocol": {"fold": fold},
                "output_dir": str(folder),
                **(settings or {}),
            },
            "seed": seed,
            "data": {
                "dataset": dataset,
                "protocol": protocol,
                "leaks": False,
                "sha256": f"hash of {dataset}",
                "splits": {"test": split},
            },
            "parameters": 1000 * kernel_size,
            "multiply_adds": 2_000_000 * kernel_size,
            "epochs": 3,
            "train_seconds": 60.0,
            "metrics": {f"test/{name}": value for name, value in scores.items()},
        }
        (folder / "result.json").write_text(json.dumps(written | facts))
        if right is not None:
            names = [f"{fold}/{i}.png" for i in range(len(right))]
            predictions = np.where(right, "happy", "angry")
            pd.DataFrame({"image": names, "target": "happy", "prediction": predictions}).to_csv(
                folder / "predictions.csv", index=False
            )
        return folder

    return write


def leaderboard(tmp_path: Path, metric: str = "acc", **settings) -> list:
    return entries(collect([tmp_path / "runs"]).runs, metric, **settings)


class TestEntries:
    def test_seeds_of_one_setting_are_one_entry_with_mean_deviation_and_interval(self, write_run, tmp_path):
        values = [0.6, 0.7, 0.8]
        for seed, acc in enumerate(values):
            write_run(f"run{seed}", acc=acc, seed=seed)
        [entry] = leaderboard(tmp_path)
        assert (entry.label, entry.repetitions) == ("cnn4", "3 seeds")
        assert entry.mean == pytest.approx(0.7)
        assert entry.std == pytest.approx(0.1)
        low, high = stats.t.interval(0.95, 2, loc=0.7, scale=0.1 / np.sqrt(3))
        assert entry.interval == pytest.approx((high - low) / 2)

    def test_seeds_that_train_on_other_parts_are_one_entry(self, write_run, tmp_path):
        for seed in (0, 1):
            folder = write_run(f"run{seed}", seed=seed, settings={"protocol": {"seed": seed, "train_percent": 25}})
            facts = json.loads((folder / "result.json").read_text())
            facts["data"]["sha256"] = f"of what seed {seed} drew"
            (folder / "result.json").write_text(json.dumps(facts))
        [entry] = leaderboard(tmp_path)
        assert entry.repetitions == "2 seeds, 2 splits"

    def test_one_seed_has_no_interval(self, write_run, tmp_path):
        write_run("only", acc=0.6)
        [entry] = leaderboard(tmp_path)
        assert (entry.std, entry.interval, entry.repetitions) == (None, None, "1 seed")

    def test_folds_of_one_seed_have_a_deviation_and_no_interval(self, write_run, tmp_path):
        for fold, acc in enumerate((0.6, 0.8)):
            write_run(f"{fold}", acc=acc, fold=fold)
        [entry] = leaderboard(tmp_path)
        assert (entry.std, entry.interval) == (pytest.approx(np.std([0.6, 0.8], ddof=1)), None)

    def test_seeds_that_lack_folds_have_no_interval(self, write_run, tmp_path):
        for seed, fold in ((0, 0), (0, 1), (1, 0)):
            write_run(f"{seed}_{fold}", seed=seed, fold=fold, acc=0.5 + 0.1 * fold)
        [entry] = leaderboard(tmp_path)
        assert (entry.repetitions, entry.interval) == ("2 seeds, 2 folds, 1 missing", None)

    def test_runs_on_other_images_of_the_same_dataset_are_in_a_table_of_their_own(self, write_run, tmp_path):
        for name, acc in (("first", 0.5), ("moved", 0.9)):
            write_run(name, acc=acc)
        path = tmp_path / "runs" / "moved" / "result.json"
        facts = json.loads(path.read_text())
        facts["data"]["splits"]["test"]["sha256"] = "other images"
        path.write_text(json.dumps(facts))
        found = leaderboard(tmp_path)
        assert [(entry.mean, entry.repetitions) for entry in found] == [(0.5, "1 seed"), (0.9, "1 seed")]
        assert str(found[0].comparison) != str(found[1].comparison)

    def test_a_seed_of_the_images_alone_is_a_setting(self, write_run, tmp_path):
        for images, acc in enumerate((0.5, 0.6)):
            write_run(f"{images}", acc=acc, settings={"seed": 0, "data": {"seed": images}})
        assert [entry.label for entry in leaderboard(tmp_path)] == ["cnn4 data.seed=1", "cnn4"]

    def test_the_seeds_that_follow_the_runs_are_no_setting(self, write_run, tmp_path):
        for seed in (0, 1):
            write_run(f"{seed}", seed=seed, settings={"seed": seed, "data": {"seed": seed}})
        [entry] = leaderboard(tmp_path)
        assert entry.repetitions == "2 seeds"

    def test_one_is_one_with_and_without_a_decimal_point(self, write_run, tmp_path):
        for seed, oversample in enumerate((1, 1.0, 0.0)):
            write_run(f"{seed}", seed=seed, settings={"data": {"oversample": oversample}})
        assert sorted(entry.repetitions for entry in leaderboard(tmp_path)) == ["1 seed", "2 seeds"]

    def test_folds_are_pooled_by_their_images(self, write_run, tmp_path):
        write_run("small", acc=1.0, fold=0, right=np.ones(10, bool))
        write_run("large", acc=0.5, fold=1, right=np.arange(30) < 15)
        [entry] = leaderboard(tmp_path)
        assert entry.mean == pytest.approx(25 / 40)
        assert entry.repetitions == "1 seed, 2 folds"

    def test_macro_scores_of_folds_are_those_of_all_their_predictions(self, write_run, tmp_path):
        generator = np.random.default_rng(0)
        targets, predictions = generator.integers(0, 3, 90), generator.integers(0, 3, 90)
        targets[:40] = 0  # the first fold lacks most classes
        for fold, part in enumerate((slice(0, 40), slice(40, 90))):
            folder = write_run(f"{fold}", acc=0.123, fold=fold)
            table = {"image": [f"{i}.png" for i in range(90)], "target": targets, "prediction": predictions}
            pd.DataFrame(table)[part].to_csv(folder / "predictions.csv", index=False)
        every = precision_recall_fscore_support(targets, predictions, average="macro", zero_division=0)
        weighted = precision_recall_fscore_support(targets, predictions, average="weighted", zero_division=0)
        spared = [recall_score(targets != k, predictions != k) for k in range(3)]
        expected = dict(zip(("precision_macro", "recall_macro", "f1_macro"), every, strict=False))
        expected |= {"acc_macro": every[1], "f1_weighted": weighted[2], "specificity_macro": np.mean(spared)}
        for name, value in expected.items():
            [entry] = leaderboard(tmp_path, name)
            assert entry.mean == pytest.approx(value), name
        assert table_of([entry], "acc")["f1_macro"].item() == pytest.approx(every[2])

    def test_the_calibration_error_of_folds_is_that_of_all_their_predictions(self, write_run, tmp_path):
        generator = np.random.default_rng(0)
        probabilities = generator.dirichlet(np.ones(3), 90)
        targets = generator.integers(0, 3, 90)
        for fold, part in enumerate((slice(0, 40), slice(40, 90))):
            folder = write_run(f"{fold}", fold=fold)
            facts = json.loads((folder / "result.json").read_text())
            facts["metrics"]["test/ece"] = 0.5
            (folder / "result.json").write_text(json.dumps(facts))
            table = {f"p_{k}": probabilities[:, k] for k in range(3)}
            table |= {
                "image": [f"{i}.png" for i in range(90)],
                "target": targets,
                "prediction": probabilities.argmax(1),
            }
            pd.DataFrame(table)[part].to_csv(folder / "predictions.csv", index=False)
        [entry] = leaderboard(tmp_path, "ece")
        expected = scores_with_intervals(probabilities, targets, resamples=0).overall["ece"].value
        assert entry.mean == pytest.approx(expected)

    def test_an_entry_without_a_split_that_others_were_drawn_stands_below_them(self, write_run, tmp_path):
        for seed, acc in enumerate((0.9, 0.4)):  # the second split is hard
            write_run(f"both{seed}", seed=seed, acc=acc, settings={"protocol": {"percent": [80, 0, 20], "seed": seed}})
        write_run("easy", net="cnn3", acc=0.8, settings={"protocol": {"percent": [80, 0, 20], "seed": 0}})
        both, easy = leaderboard(tmp_path)
        assert (both.label, both.repetitions, both.complete) == ("cnn4", "2 seeds, 2 splits", True)
        assert (easy.label, easy.repetitions, easy.complete) == ("cnn3", "1 seed, 1 split of others missing", False)

    def test_a_val_that_is_drawn_by_seed_is_one_entry(self, write_run, tmp_path):
        for seed in (0, 1):
            folder = write_run(f"{seed}", seed=seed, settings={"protocol": {"val_percent": 10, "seed": seed}})
            facts = json.loads((folder / "result.json").read_text())
            facts["data"]["splits"]["val"] = {"count": 10, "classes": {}, "sha256": f"of seed {seed}"}
            facts["metrics"]["val/acc"] = 0.5
            (folder / "result.json").write_text(json.dumps(facts))
        [entry] = entries(collect([tmp_path / "runs"], "val").runs, "acc")
        assert entry.repetitions == "2 seeds, 2 splits"

    def test_folds_that_are_missing_are_told(self, write_run, tmp_path):
        write_run("first", acc=0.5, settings={"protocol": {"fold": 0, "n_folds": 10}})
        [entry] = leaderboard(tmp_path)
        assert entry.repetitions == "1 seed, 1 of 10 folds"

    def test_an_entry_that_lacks_folds_stands_below_those_that_do_not(self, write_run, tmp_path):
        for fold in range(2):
            write_run(f"whole{fold}", acc=0.5, fold=fold, settings={"protocol": {"fold": fold, "n_folds": 2}})
        write_run("part", net="cnn3", acc=0.9, settings={"protocol": {"fold": 0, "n_folds": 2}})
        assert [entry.label for entry in leaderboard(tmp_path)] == ["cnn4", "cnn3"]

    def test_a_run_that_was_repeated_counts_once_and_folds_that_a_seed_lacks_are_told(self, write_run, tmp_path):
        for name, seed, fold in [("a", 0, 0), ("b", 0, 1), ("b_again", 0, 1), ("c", 1, 0)]:
            write_run(name, acc=0.5, seed=seed, fold=fold)
        [entry] = leaderboard(tmp_path)
        assert entry.repetitions == "2 seeds, 2 folds, 1 missing, 1 run again"
        assert len(entry.runs) == 3
        write_run("alone", net="cnn3", acc=0.5)
        write_run("alone_again", net="cnn3", acc=0.5)
        assert [each.interval for each in leaderboard(tmp_path) if each.label == "cnn3"] == [None]

    def test_of_a_repeated_run_the_one_that_finished_last_counts(self, write_run, tmp_path):
        write_run("a", acc=0.9, finished="2026-01-02T00:00:00+00:00")
        write_run("b", acc=0.5, finished="2026-01-01T00:00:00+00:00")
        [entry] = leaderboard(tmp_path)
        assert (entry.mean, entry.repetitions) == (0.9, "1 seed, 1 run again")

    def test_splits_drawn_anew_are_repetitions_and_their_folds_stay_apart(self, write_run, tmp_path):
        for split_seed, acc in enumerate((0.6, 0.8)):
            for fold in range(2):
                protocol = {"fold": fold, "n_folds": 2, "seed": split_seed}
                write_run(f"{split_seed}_{fold}", acc=acc, settings={"protocol": protocol})
        [entry] = leaderboard(tmp_path)
        assert (entry.repetitions, len(entry.runs)) == ("1 seed, 2 splits, 2 folds", 4)
        assert (entry.mean, entry.std) == (pytest.approx(0.7), pytest.approx(np.std([0.6, 0.8], ddof=1)))
        assert entry.interval is None  # the splits share images

    def test_seeds_that_draw_their_own_splits_are_told_as_such(self, write_run, tmp_path):
        for seed in range(3):
            write_run(f"{seed}", seed=seed, settings={"protocol": {"seed": seed}})
        [entry] = leaderboard(tmp_path)
        assert (entry.repetitions, entry.interval) == ("3 seeds, 3 splits", None)

    @pytest.mark.parametrize(("one", "other"), [(None, 0), (None, False), (0.5, 0)])
    def test_none_is_not_zero(self, write_run, tmp_path, one, other):  # dropout: the paper's rates, and no dropout
        for name, value in (("one", one), ("other", other)):
            write_run(name, settings={"model": {"net": {"name": "cnn4", "dropout": value}}})
        labels = {entry.label for entry in leaderboard(tmp_path)}
        assert len(labels) == 2
        assert labels <= {f"cnn4 dropout={value}" for value in (one, other)} | {"cnn4"}

    def test_two_processes_are_not_one(self, write_run, tmp_path):
        for devices in (1, 2):
            write_run(str(devices), settings={"trainer": {"devices": devices}})
        assert len(leaderboard(tmp_path)) == 2

    def test_no_run_is_dropped_for_another_that_differs(self, write_run, tmp_path):
        for lr in (0.1, 0.2):
            write_run(f"{lr}", settings={"lr": lr})
        with pytest.raises(InputError, match="--group-by puts runs of different lr into one entry: add it"):
            leaderboard(tmp_path, group_by=["model.net.kernel_size"])

    def test_a_setting_that_differs_tells_entries_apart_and_names_them(self, write_run, tmp_path):
        write_run("a", acc=0.6, kernel_size=3)
        write_run("b", acc=0.7, kernel_size=5)
        write_run("c", acc=0.5, net="cnn3")
        assert [entry.label for entry in leaderboard(tmp_path)] == [
            "cnn4 kernel_size=5",
            "cnn4 kernel_size=3",
            "cnn3",
        ]

    def test_each_difference_is_said_once_and_nothing_of_what_an_entry_lacks(self, write_run, tmp_path):
        sgd = {"_target_": "torch.optim.SGD", "lr": 0.1, "momentum": 0.9}
        adam = {"_target_": "torch.optim.Adam", "lr": 0.001}
        for i, (optimizer, kernel_size) in enumerate([(sgd, 3), (adam, 3), (adam | {"lr": 0.01}, 5)]):
            settings = {"optimizer": optimizer, "scheduler": {"max_lr": optimizer["lr"]}}
            write_run(f"{i}", acc=0.1 * i, kernel_size=kernel_size, settings=settings)
        assert [entry.label for entry in leaderboard(tmp_path)] == [
            "cnn4 kernel_size=5 optimizer=Adam lr=0.01",
            "cnn4 kernel_size=3 optimizer=Adam lr=0.001",
            "cnn4 kernel_size=3 optimizer=SGD lr=0.1",
        ]

    def test_augmentations_of_the_same_classes_are_told_apart(self, write_run, tmp_path):
        for degrees in (10, 20):
            transforms = [{"_target_": "albumentations.Flip"}, {"_target_": "albumentations.Affine", "rotate": degrees}]
            write_run(f"{degrees}", settings={"augmentation": {"transforms": transforms}})
        one, other = [entry.label for entry in leaderboard(tmp_path)]
        assert one.startswith("cnn4 transforms=Flip+Affine#")
        assert one != other

    def test_a_probability_is_told_with_its_transform(self, write_run, tmp_path):
        for p in (0.25, 0.5):
            transforms = {"flip": {"p": 0.5}, "erasing": {"p": p}}
            write_run(f"{p}", settings={"augmentation": {"transforms": transforms}})
        labels = {entry.label for entry in leaderboard(tmp_path)}
        assert labels == {"cnn4 erasing.p=0.25", "cnn4 erasing.p=0.5"}

    def test_long_values_with_the_same_beginning_are_told_apart(self, write_run, tmp_path):
        for name in ("first", "second"):
            write_run(name, settings={"model": {"init_from": f"outputs/runs/2026-01-01_folds/{name}.ckpt"}})
        one, other = [entry.label for entry in leaderboard(tmp_path)]
        assert "init_from=outputs/runs/2026-01-01_#" in one
        assert one != other

    def test_places_and_older_runs_without_a_setting_make_no_difference(self, write_run, tmp_path):
        write_run("a", seed=0, settings={"data": {"cache_dir": "here"}})
        write_run("b", seed=1, settings={"data": {"cache_dir": "there", "oversample": 0.0}})
        assert len(leaderboard(tmp_path)) == 1

    def test_settings_can_be_chosen(self, write_run, tmp_path):
        write_run("a", seed=0, settings={"lr": 0.1})
        write_run("b", seed=1, settings={"lr": 0.2})
        assert len(leaderboard(tmp_path)) == 2
        assert len(leaderboard(tmp_path, group_by=["model.net.kernel_size"])) == 1

    @pytest.mark.parametrize("other", [{"dataset": "fer2013"}, {"protocol": "random_80_20"}])
    def test_other_data_or_another_protocol_is_another_column(self, write_run, tmp_path, other):
        write_run("a")
        write_run("b", **other)
        one, two = leaderboard(tmp_path)
        assert one.comparison != two.comparison

    def test_a_loss_is_best_where_it_is_lowest(self, write_run, tmp_path):
        for name, loss in (("a", 0.9), ("b", 0.4)):
            folder = write_run(name, settings={"lr": loss})
            facts = json.loads((folder / "result.json").read_text())
            facts["metrics"]["test/loss"] = loss
            (folder / "result.json").write_text(json.dumps(facts))
        assert [entry.mean for entry in leaderboard(tmp_path, "loss")] == [0.4, 0.9]


class TestSignificance:
    def test_a_clear_difference_on_the_same_images_is_none_by_chance_and_a_small_one_may_be(self, write_run, tmp_path):
        generator = np.random.default_rng(0)
        best = generator.random(400) < 0.9
        near, far = best.copy(), generator.random(400) < 0.6
        near[:2] = ~near[:2]
        for name, right in (("best", best), ("near", near), ("far", far)):
            write_run(name, acc=right.mean(), net=name, right=right)
        by_name = {entry.label: entry.p_value for entry in with_p_values(leaderboard(tmp_path))}
        [top] = [name for name, p in by_name.items() if p is None]
        assert top in ("best", "near")
        assert by_name["far"] < 0.01
        assert by_name[{"best": "near", "near": "best"}[top]] > 0.1

    @pytest.mark.parametrize("told", [("good", "worse"), ("good",), ("worse",), ()])
    def test_the_images_of_one_person_are_one_observation_if_a_run_tells_who_it_is(self, write_run, tmp_path, told):
        good, worse = np.ones(240, bool), np.arange(240) >= 12
        for name, right in (("good", good), ("worse", worse)):
            table = write_run(name, acc=right.mean(), net=name, right=right) / "predictions.csv"
            if name in told:
                people = [f"S{i // 12:03d}" for i in range(240)]  # all mistakes are on one of twenty
                pd.read_csv(table).assign(person=people).to_csv(table, index=False)
        [_, other] = with_p_values(leaderboard(tmp_path))
        assert other.p_value > 0.3 if told else other.p_value < 0.001

    def test_many_comparisons_are_corrected_for(self, write_run, tmp_path):
        generator = np.random.default_rng(1)
        best = generator.random(300) < 0.75
        slightly = best & (generator.random(300) > 0.05)
        write_run("best", acc=best.mean(), net="best", right=best)
        write_run("slightly", acc=slightly.mean(), net="slightly", right=slightly)
        [alone] = [entry.p_value for entry in with_p_values(leaderboard(tmp_path)) if entry.label == "slightly"]
        for number in range(8):
            write_run(f"same{number}", acc=slightly.mean() - 1e-9, net=f"same{number}", right=slightly)
        [among] = [entry.p_value for entry in with_p_values(leaderboard(tmp_path)) if entry.label == "slightly"]
        assert among > alone

    def test_few_images_tell_no_more_than_mcnemars_exact_test(self, write_run, tmp_path):
        worse = np.arange(98) >= 5  # five images that only the other gets right
        write_run("best", acc=1.0, net="best", right=np.ones(98, bool))
        write_run("worse", acc=worse.mean(), net="worse", right=worse)
        [_, other] = with_p_values(leaderboard(tmp_path))
        assert other.p_value == pytest.approx(stats.binomtest(5, 5).pvalue)

    def test_entries_of_other_seeds_are_compared_on_a_split_that_all_have(self, write_run, tmp_path):
        good, worse = np.ones(60, bool), np.arange(60) >= 10
        write_run("best", acc=1.0, net="best", right=good, seed=7)
        for seed in (0, 1):
            write_run(f"worse{seed}", acc=worse.mean(), net="worse", right=worse, seed=seed)
        [_, other] = with_p_values(leaderboard(tmp_path))
        assert other.p_value == pytest.approx(stats.binomtest(10, 10).pvalue)

    def test_equal_sums_of_seeds_are_equal(self, write_run, tmp_path):
        # The best gets one image right under every seed, the other one each of three under one.
        for seed in range(3):
            write_run(f"best{seed}", acc=0.5, net="best", right=np.arange(4) == 0, seed=seed)
            write_run(f"other{seed}", acc=0.5 - 1e-9, net="other", right=np.arange(4) == 1 + seed, seed=seed)
        [_, other] = with_p_values(leaderboard(tmp_path))
        assert other.p_value == 1

    def test_the_best_of_many_is_corrected_for_those_without_predictions_too(self, write_run, tmp_path):
        good, worse = np.ones(60, bool), np.arange(60) >= 10
        write_run("best", acc=1.0, net="best", right=good)
        write_run("worse", acc=0.9, net="worse", right=worse)
        write_run("unknown", acc=0.8, net="unknown")
        by_name = {entry.label: entry.p_value for entry in with_p_values(leaderboard(tmp_path))}
        assert by_name["worse"] == pytest.approx(3 * stats.binomtest(10, 10).pvalue)
        assert by_name["unknown"] is None

    def test_among_equals_hardly_any_is_told_apart_from_the_one_that_chance_put_first(self, write_run, tmp_path):
        generator = np.random.default_rng(0)
        for dataset in range(40):
            for net in range(8):
                right = generator.random(200) < 0.7
                write_run(f"{dataset}_{net}", acc=right.mean(), net=str(net), dataset=str(dataset), right=right)
        made = with_p_values(leaderboard(tmp_path))
        told_apart = {entry.comparison for entry in made if entry.p_value is not None and entry.p_value < 0.05}
        assert len(told_apart) <= 2  # of 40; corrected for the number of others only, it would be 7

    def test_other_test_images_are_not_compared(self, write_run, tmp_path):
        write_run("a", acc=0.9, net="a", right=np.ones(50, bool))
        write_run("b", acc=0.5, net="b", right=np.zeros(40, bool))
        write_run("c", acc=0.4, net="c")
        assert [entry.p_value for entry in with_p_values(leaderboard(tmp_path))] == [None, None, None]


def test_the_pareto_front_is_what_nothing_cheaper_reaches():
    assert pareto_front([(1, 0.5), (2, 0.4), (3, 0.7), (3, 0.6), (4, 0.7)]) == [(1, 0.5), (3, 0.7)]


def test_the_command_writes_and_prints_the_leaderboard(write_run, tmp_path):
    for kernel in (3, 5):
        for seed in (0, 1):
            folder = write_run(f"k{kernel}_{seed}", acc=0.5 + kernel / 100, kernel_size=kernel, seed=seed)
            pd.DataFrame({"epoch": [1, 2], "val/acc": [0.3, 0.4]}).to_csv(folder / "metrics.csv", index=False)
    finished = command(tmp_path / "runs")
    assert finished.exit_code == 0, finished.output
    assert "ckplus official, test" in finished.output
    written = pd.read_csv(tmp_path / "runs" / "leaderboard.csv")
    assert written.entry.tolist() == ["cnn4 kernel_size=5", "cnn4 kernel_size=3"]
    assert written.acc.tolist() == pytest.approx([0.55, 0.53])
    assert written.repetitions.tolist() == ["2 seeds"] * 2
    assert "| cnn4 kernel_size=5 | 2 seeds | 0.5500 |" in (tmp_path / "runs" / "leaderboard.md").read_text()
    page = (tmp_path / "runs" / "leaderboard.html").read_text()
    assert "http" not in page.replace("</html>", "")  # it opens offline
    for title in ("By kernel size", "Scores: ", "Cost: ", "Learning curves"):
        assert title in page
    assert (tmp_path / "runs" / "kernel_size.png").exists()


def test_runs_can_be_compared_on_val_and_those_without_it_are_told(write_run, tmp_path):
    for name, net, val in (("a", "cnn3", 0.8), ("b", "cnn4", 0.7), ("c", "ahmad3", None)):
        folder = write_run(name, net=net, acc=0.5, right=np.ones(10, bool))
        facts = json.loads((folder / "result.json").read_text())
        if val is not None:
            facts["metrics"]["val/acc"] = val
            facts["data"]["splits"]["val"] = {"count": 50, "sha256": "0"}
        (folder / "result.json").write_text(json.dumps(facts))
        predictions = pd.read_csv(folder / "predictions.csv")
        predictions.assign(split="test").to_csv(folder / "predictions.csv", index=False)
    finished = command(tmp_path / "runs", "--metric", "val/acc")
    assert finished.exit_code == 0, finished.output
    assert "c has no accuracy on val" in finished.output.replace("\n", " ")
    written = pd.read_csv(tmp_path / "runs" / "leaderboard.csv")
    assert written.split.tolist() == ["val", "val"]
    assert written.entry.tolist() == ["cnn3", "cnn4"]
    assert written.acc.tolist() == [0.8, 0.7]
    assert written.p_against_best.isna().all()  # the predictions are those of test


def test_a_run_that_lacks_the_metric_is_told(write_run, tmp_path):
    folder = write_run("votes")
    write_run("network", metrics={"test/acc": 0.5, "test/ece": 0.1})
    finished = command(tmp_path / "runs", "--metric", "ece")
    assert f"left out: {folder} has no ece" in finished.output


def test_a_class_may_be_called_none(write_run, tmp_path):
    folder = write_run("a", right=np.ones(4, bool))
    pd.DataFrame({"image": list("abcd"), "target": "None", "prediction": "None"}).to_csv(
        folder / "predictions.csv", index=False
    )
    [run] = collect([tmp_path / "runs"]).runs
    assert run.predictions.correct.all()


def test_models_measured_elsewhere_make_a_matrix_and_no_entry(write_run, tmp_path):
    write_run("trained")
    write_run("measured", dataset="fer2013", model={"training": {"dataset": "ckplus"}, "path": "x", "metrics": {}})
    assert command(tmp_path / "runs").exit_code == 0
    assert pd.read_csv(tmp_path / "runs" / "leaderboard.csv").dataset.tolist() == ["ckplus"]
    assert "Trained here, measured there" in (tmp_path / "runs" / "leaderboard.html").read_text()


def test_images_that_chose_the_epoch_are_not_in_the_matrix(write_run, tmp_path):
    write_run("measured", chosen=True, model={"training": {"dataset": "ckplus"}, "path": "x", "metrics": {}})
    assert command(tmp_path / "runs").exit_code == 0
    assert "Trained here, measured there" not in (tmp_path / "runs" / "leaderboard.html").read_text()


def test_measurements_alone_make_a_matrix_and_an_empty_table(write_run, tmp_path):
    write_run("measured", dataset="fer2013", model={"training": {"dataset": "ckplus"}, "path": "x", "metrics": {}})
    assert command(tmp_path / "runs").exit_code == 0
    assert pd.read_csv(tmp_path / "runs" / "leaderboard.csv").columns[:2].tolist() == ["dataset", "protocol"]
    assert "Trained here, measured there" in (tmp_path / "runs" / "leaderboard.html").read_text()


def test_a_line_by_kernel_size_holds_what_differs_in_nothing_else(write_run, tmp_path):
    for kernel_size in (3, 5):
        for epochs in (10, 40):
            settings = {"trainer": {"max_epochs": epochs}}
            write_run(f"{kernel_size}_{epochs}", acc=epochs / 100, kernel_size=kernel_size, settings=settings)
    [axes] = kernel_figure(leaderboard(tmp_path), "acc").axes
    lines = [container.lines[0].get_ydata().tolist() for container in axes.containers]
    assert sorted(lines) == [[0.1, 0.1], [0.4, 0.4]]


def test_a_line_by_kernel_size_is_of_splits_that_all_have(write_run, tmp_path):
    for kernel_size, accs in {3: (0.9, 0.3), 5: (0.8,)}.items():
        for seed, acc in enumerate(accs):
            protocol = {"percent": [80, 0, 20], "seed": seed}
            name = f"{kernel_size}_{seed}"
            write_run(name, acc=acc, seed=seed, kernel_size=kernel_size, settings={"protocol": protocol})
    [axes] = kernel_figure(leaderboard(tmp_path), "acc").axes
    assert [line.lines[0].get_ydata().tolist() for line in axes.containers] == [[0.9, 0.8]]


def test_a_filter_means_values_and_p_values_are_of_accuracy_alone(write_run, tmp_path):
    for name, lr, right in [("slow", 0.001, 40), ("fast", 0.01, 90)]:
        write_run(name, acc=right / 100, right=np.arange(100) < right, settings={"optimizer": {"lr": lr, "on": True}})
    for text in ("optimizer.lr=1e-3", "protocol.fold=null"):
        assert command(tmp_path / "runs", "--filter", text, "--filter", "optimizer.on=true").exit_code == 0
    assert command(tmp_path / "runs").exit_code == 0
    csv = tmp_path / "runs" / "leaderboard.csv"
    assert pd.read_csv(csv).p_against_best.notna().tolist() == [False, True]
    assert command(tmp_path / "runs", "--metric", "f1_macro").exit_code == 0
    assert pd.read_csv(csv).p_against_best.isna().all()


def test_a_leaderboard_can_be_filtered_and_told_by_another_metric(write_run, tmp_path):
    write_run("a", kernel_size=3)
    write_run("b", kernel_size=5)
    assert command(tmp_path / "runs", "--filter", "model.net.kernel_size=5", "--metric", "f1_macro").exit_code == 0
    written = pd.read_csv(tmp_path / "runs" / "leaderboard.csv")
    assert written.entry.tolist() == ["cnn4"]
    assert "f1_macro" in written


def test_what_cannot_be_read_is_told_and_the_rest_stands(write_run, tmp_path):
    whole = write_run("whole")
    (whole / "failure.json").write_text('{"reason": "another code version"}')  # of an attempt to repeat it
    cut = write_run("cut")
    (cut / "result.json").write_text((cut / "result.json").read_text()[:100])
    write_run("later", schema_version=2)
    write_run("empty", metrics={})
    write_run("null", metrics=None)
    write_run("odd", metrics={"test/acc": None})
    write_run("bare", data={"sha256": "0"})
    (tmp_path / "runs" / "unfinished" / "checkpoints").mkdir(parents=True)
    (tmp_path / "runs" / "broke").mkdir()
    (tmp_path / "runs" / "broke" / "failure.json").write_text('{"reason": "killed by SIGKILL"}')
    finished = command(tmp_path / "runs")
    assert finished.exit_code == 0
    for text in (
        "cut cannot be read",
        "later has schema 2",
        "empty has no accuracy",
        "null has no mapping under metrics",
        "odd has a metric that is no number: test/acc",
        "bare lacks data.dataset, data.protocol, data.splits",
        "unfinished is unfinished",
        "broke failed: killed by SIGKILL",
    ):
        assert text in finished.output.replace("\n", " ")
    assert len(pd.read_csv(tmp_path / "runs" / "leaderboard.csv")) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], "there is no folder nowhere"),
        (["runs", "--metric", "top7"], "no run has the metric top7: choose from acc, acc_macro"),
        (["runs", "--metric", "train/acc"], "--metric train/acc: runs are compared on val or test, as in val/acc"),
        (
            ["runs", "--filter", "kernel_size=3"],
            "no run has the setting kernel_size: choose from model.net.kernel_size",
        ),
        (["runs", "--filter", "model.net.kernel_size"], "must be KEY=VALUE"),
        (["runs", "--filter", "model.net.kernel_size=11"], "no run has it"),
        (["runs", "--group-by", "colour"], "no run has the setting colour"),
        (["empty"], "no run to compare .* below empty"),
        (["runs", "--metric", "val/acc"], "no run to compare .* below runs; runs/a .* val"),
    ],
)
def test_a_mistake_is_told_in_a_sentence(write_run, tmp_path, monkeypatch, arguments, message):
    write_run("a")
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path)
    finished = command(*arguments)
    assert finished.exit_code == 1
    assert re.search(f"error: .*{message}", finished.output + finished.stderr)


def test_runs_without_seeds_are_entries_of_one(write_run, tmp_path):
    write_run("a", seed=None)
    [entry] = leaderboard(tmp_path)
    assert (entry.repetitions, entry.std) == ("no seed", None)
    assert table_of([entry], "acc").acc.tolist() == [0.5]


@pytest.fixture
def little_garbage():
    """Spare the test the collector's passes over what earlier tests have left in this process."""
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.mark.usefixtures("little_garbage")
def test_ten_times_the_runs_take_about_ten_times_as_long(write_run, tmp_path):
    taken = []
    for already, count in ((0, 200), (200, 2000)):
        for number in range(already, count):
            write_run(f"run{number}", acc=number / 4000, seed=number % 5, kernel_size=number // 5)
        start = time.process_time()  # of this process alone, whatever else the machine does
        assert len(with_p_values(leaderboard(tmp_path))) == count // 5
        taken.append(time.process_time() - start)
    assert taken[1] < 30 * taken[0]  # comparing each with each would take a hundred times as long
