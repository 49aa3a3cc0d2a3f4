"""make bench: the cost of a real epoch relative to a bare loop."""

import sys

import pytest

from fer_lightning import bench
from fer_lightning.errors import InputError

TINY = ("data.reader.train=64", "data.reader.val=14", "data.reader.test=14", "data.batch_size=16", "model=cnn3")


@pytest.fixture
def measure(tmp_path, monkeypatch, capsys):
    """measure(*settings): what the bench prints after one round."""

    def printed(*settings: str) -> str:
        places = (f"data.cache_dir={tmp_path / 'cache'}", "trainer.accelerator=cpu", "logger=none")
        monkeypatch.setattr(sys, "argv", ["bench", *TINY, *places, *settings])
        monkeypatch.setattr(bench, "ROUNDS", 1)
        bench.main()
        return capsys.readouterr().out

    return printed


def test_it_sets_a_real_epoch_beside_bare_loops(measure):
    rows = [line.split("│") for line in measure("trainer.limit_train_batches=2").splitlines() if "│" in line]
    found = {name.strip(): float(ratio) for _, name, _, _, ratio, _ in rows}
    assert found.keys() == {"real epoch", "bare loop", "float32 NCHW"}
    assert found["real epoch"] == 1
    assert found["bare loop"] > 0


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["trainer.compile=true"], "compiles in the first epoch, the one that is timed here: omit it"),
        (["callbacks=finetune"], "callbacks=finetune trains one layer in the first epoch"),
        (["model=svm"], "that model is not a network"),
        (["trainer=ddp"], "the loops are compared on one device"),
        (["model.teachers=[none.ckpt]", "model.teacher_share=0.5"], "there is no checkpoint at .*none.ckpt"),
    ],
)
def test_what_would_not_be_timed_as_a_whole_is_refused(measure, settings, message):
    with pytest.raises(InputError, match=message):
        measure(*settings)


def test_a_share_of_an_epoch_is_refused(measure):
    with pytest.raises(InputError, match=r"limit_train_batches must be a number of batches here, got 0.5"):
        measure("trainer.limit_train_batches=0.5")
