"""Every score of a report, held to scikit-learn's."""

import warnings

import numpy as np
import pytest
from sklearn import metrics

from fer_lightning.evaluation.scores import Score, mean_with_interval, resample_weights, scores_with_intervals


def answers(classes: int, count: int = 401, *, missing: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities (N, K) that are right more often than not, and targets (N,); the last class may not be there."""
    generator = np.random.default_rng(classes)
    targets = generator.integers(0, classes - missing, count)
    probabilities = generator.dirichlet(np.ones(classes), count)
    probabilities[np.arange(count), targets] += 0.2
    return probabilities / probabilities.sum(axis=1, keepdims=True), targets


def reference(probabilities: np.ndarray, targets: np.ndarray) -> dict[str, float]:
    classes = list(range(probabilities.shape[1]))
    predictions, there = probabilities.argmax(axis=1), [k for k in classes if (targets == k).any()]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of classes that are predicted and not there, which is meant
        balanced = metrics.balanced_accuracy_score(targets, predictions)
    return {
        "acc": metrics.accuracy_score(targets, predictions),
        "balanced_acc": balanced,
        "f1_macro": metrics.f1_score(targets, predictions, average="macro"),
        "f1_weighted": metrics.f1_score(targets, predictions, average="weighted"),
        "precision_macro": metrics.precision_score(targets, predictions, average="macro", zero_division=0),
        "recall_macro": metrics.recall_score(targets, predictions, average="macro", zero_division=0),
        "kappa": metrics.cohen_kappa_score(targets, predictions),
        "top2_acc": metrics.top_k_accuracy_score(targets, probabilities, k=2, labels=classes)
        if len(classes) > 2
        else 1,
        "log_loss": metrics.log_loss(targets, probabilities, labels=classes),
        "brier": metrics.brier_score_loss(targets, probabilities, labels=classes, scale_by_half=False),
        "auroc_macro": np.mean([metrics.roc_auc_score(targets == k, probabilities[:, k]) for k in there]),
        "auprc_macro": np.mean([metrics.average_precision_score(targets == k, probabilities[:, k]) for k in there]),
    }


@pytest.mark.parametrize(
    ("classes", "missing"), [(2, False), *((classes, missing) for classes in range(3, 13) for missing in (False, True))]
)
def test_scores_are_those_of_scikit_learn(classes, missing):
    probabilities, targets = answers(classes, missing=missing)
    found = {
        name: score.value for name, score in scores_with_intervals(probabilities, targets, resamples=0).overall.items()
    }
    for name, value in reference(probabilities, targets).items():
        assert found[name] == pytest.approx(value, abs=1e-9), name


@pytest.mark.parametrize("classes", [2, 5])
def test_scores_of_a_class_are_those_of_scikit_learn(classes):
    probabilities, targets = answers(classes)
    predictions = probabilities.argmax(axis=1)
    precision, recall, f1, _ = metrics.precision_recall_fscore_support(targets, predictions)
    for k, found in enumerate(scores_with_intervals(probabilities, targets, resamples=0).classes):
        negatives = targets != k
        wanted = {
            "precision": precision[k],
            "recall": recall[k],
            "f1": f1[k],
            "specificity": (predictions[negatives] != k).mean(),
            "auroc": metrics.roc_auc_score(targets == k, probabilities[:, k]),
            "auprc": metrics.average_precision_score(targets == k, probabilities[:, k]),
        }
        assert {name: score.value for name, score in found.items()} == pytest.approx(wanted, abs=1e-9)


def test_equal_probabilities_are_ranked_as_scikit_learn_ranks_them():
    probabilities, targets = answers(3)
    probabilities = probabilities.round(1)  # many alike
    of_class = scores_with_intervals(probabilities, targets, resamples=0).classes[1]
    assert of_class["auroc"].value == pytest.approx(metrics.roc_auc_score(targets == 1, probabilities[:, 1]), abs=1e-9)
    expected = metrics.average_precision_score(targets == 1, probabilities[:, 1])
    assert of_class["auprc"].value == pytest.approx(expected, abs=1e-9)


def test_a_probability_of_nothing_costs_as_much_as_scikit_learn_says():
    probabilities, targets = np.array([[1e-9, 1 - 1e-9], [0.0, 1.0], [0.5, 0.5]]), np.array([0, 0, 1])
    found = scores_with_intervals(probabilities, targets, resamples=0).overall["log_loss"].value
    assert found == pytest.approx(metrics.log_loss(targets, probabilities), abs=1e-9)


def test_one_answer_for_all_faces_is_not_among_the_two_best_of_all():
    probabilities = np.full((70, 7), 1 / 7)
    assert scores_with_intervals(probabilities, np.arange(70) % 7, resamples=0).overall["top2_acc"].value == 2 / 7


def test_no_image_has_no_score():
    scores, classes = scores_with_intervals(np.zeros((0, 3)), np.zeros(0, int))
    assert str(scores["acc"]) == str(classes[2]["f1"]) == "none"


def test_a_known_confusion_gives_the_known_numbers():
    confusion = np.array([[8, 2, 0], [1, 5, 4], [0, 0, 5]])
    targets, predictions = (np.repeat(side, confusion.ravel()) for side in np.indices((3, 3)).reshape(2, -1))
    probabilities = np.where(np.eye(3)[predictions] == 1, 0.8, 0.1)
    scores, classes = scores_with_intervals(probabilities, targets, resamples=0)
    assert scores["acc"].value == pytest.approx(18 / 25)
    assert scores["balanced_acc"].value == pytest.approx((0.8 + 0.5 + 1) / 3)
    assert classes[1]["precision"].value == pytest.approx(5 / 7)
    assert classes[1]["specificity"].value == pytest.approx(13 / 15)
    assert scores["ece"].value == pytest.approx(0.8 - 18 / 25)
    assert scores["log_loss"].value == pytest.approx(-(18 * np.log(0.8) + 7 * np.log(0.1)) / 25)
    assert scores["brier"].value == pytest.approx((18 * 0.06 + 7 * (0.64 + 0.81 + 0.01)) / 25)


def test_a_resample_counts_an_image_as_often_as_it_was_drawn():
    probabilities, targets = answers(4, count=60)
    counts = resample_weights(60, 200, np.random.default_rng(0)).astype(int)
    repeated = [np.repeat(np.arange(60), times) for times in counts]
    values = [reference(probabilities[rows], targets[rows]) for rows in repeated]
    found = scores_with_intervals(probabilities, targets, resamples=200, seed=0).overall
    assert np.isnan(found.pop("ece").low)  # its resamples are biased
    for name in found.keys() & values[0].keys():
        # The first 100 are drawn as one block, and so are the next.
        limits = np.percentile([of[name] for of in values], (2.5, 97.5))
        assert found[name][1:] == pytest.approx(limits, abs=1e-9), name


def test_intervals_hold_the_value_shrink_with_more_images_and_repeat_with_the_seed():
    widths = []
    for count in (100, 1600):
        score = scores_with_intervals(*answers(5, count)).overall["acc"]
        assert score.low < score.value < score.high
        widths.append(score.high - score.low)
    assert widths[0] / widths[1] == pytest.approx(4, rel=0.35)
    assert score == scores_with_intervals(*answers(5, 1600)).overall["acc"]


def test_the_classes_of_a_mean_are_the_same_in_all_resamples():
    targets = np.zeros(40, int)
    probabilities = np.eye(3)[[1] + 39 * [0]]  # one image is taken for a class that is absent
    scores, classes = scores_with_intervals(probabilities, targets)
    assert scores["f1_macro"].value == pytest.approx(2 * 39 / 79 / 2)
    assert scores["f1_macro"].high == pytest.approx(0.5)  # and not 1, where that image is not drawn
    assert scores["precision_macro"].value == pytest.approx(0.5)
    assert classes[1]["f1"].value == 0


def test_a_few_faces_that_are_all_right_have_no_interval():
    targets = np.arange(40) % 4
    for count in (9, 40):
        score = scores_with_intervals(np.eye(4)[targets[:count]], targets[:count]).overall["acc"]
        assert str(score) == "1.000"
        assert str(mean_with_interval(np.ones(count))) == "1.000"


@pytest.mark.parametrize(("people", "told"), [(9, False), (10, True)])
def test_fewer_than_ten_people_have_no_interval(people, told):
    probabilities, targets = answers(5, 200)
    units = np.arange(200) % people
    assert np.isfinite(scores_with_intervals(probabilities, targets, units=units).overall["acc"].low) == told
    right = probabilities.argmax(axis=1) == targets
    assert np.isfinite(mean_with_interval(right, units=units).low) == told


def test_images_of_one_person_are_drawn_together_and_widen_the_interval():
    probabilities, targets = (np.repeat(part, 10, axis=0) for part in answers(3, 40))
    people = np.repeat(np.arange(40), 10)
    counts = resample_weights(400, 5, np.random.default_rng(0), units=people)
    assert (counts.reshape(5, 40, 10) == counts.reshape(5, 40, 10)[..., :1]).all()
    alone = scores_with_intervals(probabilities, targets).overall["acc"]
    together = scores_with_intervals(probabilities, targets, units=people).overall["acc"]
    assert together.high - together.low > 2 * (alone.high - alone.low)


def test_a_class_without_images_has_no_recall():
    scores, classes = scores_with_intervals(*answers(4, missing=True), resamples=50)
    assert np.isnan(classes[3]["recall"].value)
    assert str(classes[3]["recall"]) == "none"
    assert classes[3]["recall"].plain() == {"value": None, "low": None, "high": None}
    assert 0 < scores["balanced_acc"].value < 1


def test_a_score_reads_as_its_value_with_its_interval():
    assert str(Score(0.5, 0.25, 0.75)) == "0.500 [0.250, 0.750]"
    assert str(Score(0.5, np.nan, np.nan)) == "0.500"
