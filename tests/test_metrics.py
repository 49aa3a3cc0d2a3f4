"""Numbers against scikit-learn, over batches of uneven size."""

import numpy as np
import pytest
import torch
from sklearn import metrics as sk

from fer_lightning.metrics import Meter, per_class_scores

NAMES = ("angry", "happy", "sad", "fear")


def measured(num_classes: int, *, classes_present: int, batch_sizes=(7, 5, 1, 20)):
    """A meter fed with random logits, and the same targets and predictions for scikit-learn."""
    generator = torch.Generator().manual_seed(num_classes)
    meter = Meter("val", num_classes, calibration=True)
    targets = torch.randint(0, classes_present, (sum(batch_sizes),), generator=generator)
    logits = torch.randn(len(targets), num_classes, generator=generator)
    indices = torch.randperm(len(targets), generator=generator)
    for rows in torch.arange(len(targets)).split(list(batch_sizes)):
        loss = torch.nn.functional.cross_entropy(logits[rows], targets[rows])
        meter.update(loss, logits[rows], targets[rows], indices[rows])
    return meter, logits, targets, indices


@pytest.mark.parametrize("num_classes", [2, 3, 7, 8, 12])
def test_scores_agree_with_scikit_learn(num_classes):
    meter, logits, targets, _ = measured(num_classes, classes_present=num_classes)
    scores = {name.removeprefix("val/"): value.item() for name, value in meter.compute().items()}
    predictions = logits.argmax(dim=1)
    expected = {
        "acc": sk.accuracy_score(targets, predictions),
        "acc_macro": sk.balanced_accuracy_score(targets, predictions),
        "precision_macro": sk.precision_score(targets, predictions, average="macro", zero_division=0),
        "recall_macro": sk.recall_score(targets, predictions, average="macro"),
        "f1_macro": sk.f1_score(targets, predictions, average="macro"),
        "f1_weighted": sk.f1_score(targets, predictions, average="weighted"),
        "loss": sk.log_loss(targets, logits.double().softmax(dim=1).numpy(), labels=range(num_classes)),
    }
    assert {name: scores[name] for name in expected} == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("scale", [0.1, 1.0, 5.0])
def test_the_calibration_error_is_that_of_the_probabilities_however_small_the_logits(scale):
    generator = torch.Generator().manual_seed(0)
    logits, targets = scale * torch.rand(200, 4, generator=generator), torch.randint(0, 4, (200,), generator=generator)
    meter = Meter("val", 4, calibration=True)
    meter.update(torch.tensor(1.0), logits, targets, torch.arange(200))
    confidence, prediction = logits.softmax(dim=1).max(dim=1)
    bins = np.clip(np.ceil(confidence.numpy() * 15) - 1, 0, 14)
    gaps = [
        abs((prediction == targets).numpy()[bins == k].mean() - confidence.numpy()[bins == k].mean())
        * (bins == k).mean()
        for k in np.unique(bins)
    ]
    assert meter.compute()["val/ece"].item() == pytest.approx(sum(gaps), abs=1e-5)


def test_specificity_is_the_mean_of_true_negative_rates():
    meter, logits, targets, _ = measured(4, classes_present=4)
    counts = sk.multilabel_confusion_matrix(targets, logits.argmax(dim=1))
    expected = np.mean(counts[:, 0, 0] / counts[:, 0].sum(axis=1))
    assert meter.compute()["val/specificity_macro"].item() == pytest.approx(expected, abs=1e-6)


def test_the_confusion_matrix_has_true_rows_and_predicted_columns():
    meter, logits, targets, _ = measured(4, classes_present=4)
    np.testing.assert_array_equal(
        meter.findings().confusion, sk.confusion_matrix(targets, logits.argmax(dim=1), labels=range(4))
    )


def test_findings_are_in_the_order_of_the_images():
    meter, logits, targets, indices = measured(4, classes_present=4)
    findings = meter.findings()
    order = indices.argsort()
    assert findings.indices.tolist() == list(range(len(targets)))
    np.testing.assert_array_equal(findings.targets, targets[order])
    np.testing.assert_allclose(findings.probabilities, logits.softmax(dim=1)[order], rtol=1e-6)


def test_per_class_scores_agree_with_scikit_learn_also_for_a_class_that_is_missing():
    meter, logits, targets, _ = measured(4, classes_present=3)
    scores = per_class_scores(meter.findings().confusion, NAMES)
    precision, recall, f1, support = sk.precision_recall_fscore_support(
        targets, logits.argmax(dim=1), labels=range(4), zero_division=0
    )
    assert [row["precision"] for row in scores.values()] == pytest.approx(precision)
    assert [row["recall"] for row in scores.values()] == pytest.approx(recall)
    assert [row["f1"] for row in scores.values()] == pytest.approx(f1)
    assert [row["support"] for row in scores.values()] == support.tolist()


def test_a_batch_that_comes_after_a_computation_counts():
    meter, *_ = measured(3, classes_present=3)
    before = meter.compute()["val/acc"]
    meter.update(
        torch.tensor(0.0), 9 * torch.eye(3)[[0] * 99], torch.zeros(99, dtype=torch.long), 33 + torch.arange(99)
    )
    assert before < 0.6 < 0.8 < meter.compute()["val/acc"]


def test_a_reset_meter_forgets_the_epoch_before():
    meter, *_ = measured(4, classes_present=4)
    meter.reset()
    logits = torch.eye(4)
    meter.update(torch.tensor(0.5), logits, torch.arange(4), torch.arange(4))
    assert meter.compute()["val/acc"] == 1
    assert len(meter.findings().targets) == 4


def test_a_split_of_one_image_is_measured():
    meter = Meter("test", 3, calibration=True)
    meter.update(torch.tensor(0.5), torch.eye(3)[:1], torch.tensor([0]), torch.tensor([5]))
    assert meter.compute()["test/acc"] == 1
    assert meter.findings().indices.tolist() == [5]
