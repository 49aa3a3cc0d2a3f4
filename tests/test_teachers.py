"""Learning from the answers of trained networks."""

import copy
import shutil

import pytest
import torch
from torch.nn.functional import cross_entropy

from fer_lightning.checkpoint import load_checkpoint
from fer_lightning.data.batch import FaceBatch
from fer_lightning.errors import InputError
from fer_lightning.module import ExpressionClassifier
from fer_lightning.preprocess import Preprocess
from fer_lightning.teachers import Teachers
from fer_lightning.weights.bundled import checkpoint_path

CLASSES = ["angry", "happy"]
NET = {"name": "cnn3", "dropout": 0.0}
PREPROCESS = Preprocess().to_dict()
BATCH = FaceBatch(torch.rand(4, 1, 48, 48), torch.tensor([0, 1, 0, 1]), torch.arange(4))


@pytest.fixture
def saved(tmp_path):
    """saved(seed): the checkpoint of a network with random weights."""

    def save(seed, *, class_names=CLASSES, preprocess=PREPROCESS, training=None):
        torch.manual_seed(seed)
        model = ExpressionClassifier(NET, class_names, preprocess, training=training)
        path = tmp_path / f"{seed}.ckpt"
        torch.save({"state_dict": model.state_dict(), "hyper_parameters": dict(model.hparams)}, path)
        return str(path)

    return save


def taught(teachers, **settings):
    torch.manual_seed(9)
    settings = {"teacher_share": 0.5, **settings}
    model = ExpressionClassifier(NET, CLASSES, PREPROCESS, teachers=teachers, **settings)
    model.load_teachers()
    return model


def answers(path):
    return Teachers([path], CLASSES, PREPROCESS, {}).probabilities(BATCH.images)


def test_the_loss_is_shared_between_the_labels_and_the_teachers_answers(saved):
    model = taught([saved(1)], teacher_share=0.3)
    logits = model(BATCH.images)
    expected = 0.7 * cross_entropy(logits, BATCH.targets) + 0.3 * cross_entropy(logits, answers(saved(1)))
    torch.testing.assert_close(model.training_step(BATCH, 0), expected)


def test_each_of_several_teachers_answers_for_its_share_of_a_batch(saved):
    paths = [saved(seed) for seed in (1, 2, 3)]
    given = Teachers(paths, CLASSES, PREPROCESS, {}).probabilities(BATCH.images)
    alone = torch.stack([answers(path) for path in paths])
    assert (alone[0] - alone[1]).abs().max() > 1e-3
    torch.testing.assert_close(given, alone[[0, 0, 1, 2], range(4)])


def test_a_batch_may_be_smaller_than_the_number_of_teachers(saved):
    teachers = Teachers([saved(1), saved(2)], CLASSES, PREPROCESS, {})
    torch.testing.assert_close(teachers.probabilities(BATCH.images[:1]), answers(saved(1))[:1])


def test_teachers_see_the_images_that_the_network_sees(saved):
    model, seen = taught([saved(1)], teacher_share=1.0, mixup=0.5), []
    model.teachers.probabilities = lambda images: seen.append(images) or torch.full((4, 2), 0.5)
    model.net.register_forward_hook(lambda net, inputs, logits: seen.append(inputs[0]))
    model.training_step(BATCH, 0)
    assert torch.equal(seen[0], seen[1])
    assert not torch.equal(seen[0], BATCH.images)


def test_teachers_are_neither_trained_nor_saved(saved):
    model = taught([saved(1)])
    alone = ExpressionClassifier(NET, CLASSES, PREPROCESS)
    assert model.state_dict().keys() == alone.state_dict().keys()
    assert len(list(model.parameters())) == len(list(alone.parameters()))
    model.training_step(BATCH, 0).backward()
    assert all(parameter.grad is None for net in model.teachers._nets for parameter in net.parameters())


def test_a_checkpoint_tells_what_the_teachers_were_trained_on(saved):
    model = taught([saved(1, training={"dataset": "others"}), saved(2)], teacher_share=0.4)
    assert model.hparams.training == {"teachers": [{"dataset": "others"}, {}], "teacher_share": 0.4}


def test_a_warning_says_that_a_teacher_may_have_seen_the_images_that_are_measured(saved, caplog):
    theirs, ours = ({"dataset": "faces", "splits": {"train": part}} for part in ("one half", "the other half"))
    taught([saved(1, training=theirs)], training=ours)
    assert "were trained on another split of faces" in caplog.text


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler on a CPU")
def test_compiled_teachers_answer_the_same(saved):
    path = saved(1)
    teachers = Teachers([path], CLASSES, PREPROCESS, {})
    teachers.compile()
    torch.testing.assert_close(teachers.probabilities(BATCH.images), answers(path))


def test_the_bundled_model_can_teach():
    facts = load_checkpoint(checkpoint_path("bundled"))["hyper_parameters"]
    teachers = Teachers(["bundled"], facts["class_names"], facts["preprocess"], {})
    assert teachers.probabilities(torch.zeros(2, 1, 48, 48)).shape == (2, 7)


def test_teachers_of_other_classes_or_pixels_are_refused(saved):
    with pytest.raises(InputError, match=r"class_names \['angry', 'sad'\], this run has \['angry', 'happy'\]"):
        taught([saved(1, class_names=["angry", "sad"])])
    with pytest.raises(InputError, match=r"was trained with preprocess \{'clahe': 2\.0\}, this run has"):
        taught([saved(2, preprocess=Preprocess(clahe=2.0).to_dict())])
    with pytest.raises(InputError, match=r"there is no checkpoint at .*none\.ckpt"):
        taught(["none.ckpt"])


def test_a_mean_may_differ_in_its_last_digit_which_depends_on_the_processor(saved):
    def measured(mean):
        return Preprocess(scaling="standard", mean=mean, std=0.25).to_dict()

    path = saved(1, preprocess=measured(0.5))
    Teachers([path], CLASSES, measured(0.5 + 1e-16 * 2), {})
    with pytest.raises(InputError, match=r"preprocess \{'mean': 0\.5\}, this run has \{'mean': 0\.501\}"):
        Teachers([path], CLASSES, measured(0.501), {})


def test_teachers_are_not_copied_with_the_model(saved):
    model = taught([saved(1)])
    assert copy.deepcopy(model).teachers is model.teachers


@pytest.mark.parametrize(
    ("teachers", "share", "message"),
    [
        (["bundled"], 2, r"model\.teacher_share must be 0 to 1, got 2"),
        (["bundled"], 0, r"set both or none, got \['bundled'\] and 0"),
        (None, 0.5, r"set both or none, got None and 0\.5"),
    ],
)
def test_a_share_that_cannot_be_is_refused(teachers, share, message):
    with pytest.raises(InputError, match=message):
        taught(teachers, teacher_share=share)
