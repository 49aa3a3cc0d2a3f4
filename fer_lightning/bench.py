"""`make bench`: the cost of a real epoch relative to a bare loop of the same network, measured in one process.

It takes the same settings as training, trainer.limit_train_batches=80, a number of batches, among them:
python -m fer_lightning.bench experiment=fer2013_seresnet_s trainer.limit_train_batches=80

A real epoch reads the cache, augments, trains with the Trainer, measures and logs to TensorBoard; the bare loop only
repeats forward, backward and the recipe's step on tensors in memory. The loops take turns, so that noise slows all of
them equally.
"""

from fer_lightning.settings import config  # isort: skip - sets what must be set before albumentations is imported

import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from itertools import islice

import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch.nn.functional import cross_entropy

from fer_lightning.callbacks import EpochTable
from fer_lightning.data.batch import FaceBatch
from fer_lightning.data.datamodule import FaceDataModule
from fer_lightning.errors import InputError
from fer_lightning.machine.hardware import choose_precision, describe_hardware, finish_gpu_work, uses_gpu
from fer_lightning.module import ExpressionClassifier, OptimizerFactory
from fer_lightning.runs.checks import check_settings
from fer_lightning.runs.settings import asks_for_several
from fer_lightning.runs.training import prepare_process
from fer_lightning.settings.config import instantiate
from fer_lightning.settings.plain_errors import plain_errors

ROUNDS = 4
EPOCHS = {"cuda": 3, "cpu": 1}  # of either loop, the last is timed: on a GPU the first ones also ask for memory
AUTOCAST = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}


def main() -> None:
    """Measure the loops in turn, and print images/s and their ratios."""
    prepare_process()
    cfg = config.compose_config(*sys.argv[1:], "trainer.max_epochs=1", "output_dir=.")
    config.check(cfg, config.TrainConfig)
    limit = cfg.trainer.limit_train_batches
    if not isinstance(limit, int | None):
        raise InputError(f"trainer.limit_train_batches must be a number of batches here, got {limit}")
    if cfg.trainer.compile:
        raise InputError("trainer.compile=true compiles in the first epoch, the one that is timed here: omit it")
    if asks_for_several(cfg.trainer.strategy, cfg.trainer.devices):
        raise InputError("the loops are compared on one device: set trainer=auto")
    if "freeze" in cfg.callbacks:
        raise InputError("callbacks=finetune trains one layer in the first epoch, the one that is timed here: omit it")
    check_settings(cfg)
    datamodule: FaceDataModule = instantiate(cfg.data)
    loader = islice(datamodule.train_dataloader(), limit)  # as many as the real epoch's
    batches = [datamodule.on_after_batch_transfer(batch, 0) for batch in loader]
    precision, reason = choose_precision(cfg.trainer.precision, cfg.trainer.accelerator)
    device = "cuda" if uses_gpu(cfg.trainer.accelerator) else "cpu"
    cfg.trainer.max_epochs = EPOCHS[device]
    optimizer_of = instantiate(cfg.optimizer)
    loops = {
        "real epoch": lambda: _real_epoch(cfg, datamodule),
        "bare loop": lambda: _bare_loop(
            _model(cfg, datamodule), optimizer_of, batches, device, AUTOCAST.get(precision)
        ),
        f"{'TF32' if device == 'cuda' else 'float32'} NCHW": lambda: _bare_loop(
            _model(cfg, datamodule, channels_last=False), optimizer_of, batches[::3], device, None
        ),
    }
    rates: dict[str, list[float]] = {name: [] for name in loops}
    for round_number in track(range(ROUNDS + 1), description="Measuring"):
        # Each round reverses the order, so that a machine that slows down as it warms up favours no loop.
        for name in list(loops)[:: 1 if round_number % 2 else -1]:
            rate = loops[name]()
            if round_number > 0:  # the first round warms up
                rates[name].append(rate)
    gpus = None if device == "cuda" else ()
    _print(rates, f"{cfg.model.net.name}, batch {cfg.data.batch_size}, {precision} ({reason})", gpus)


def _model(cfg: config.DictConfig, datamodule: FaceDataModule, **settings: bool) -> ExpressionClassifier:
    preprocess = datamodule.preprocess.to_dict()
    return instantiate(cfg.model, class_names=list(datamodule.class_names), preprocess=preprocess, **settings)


def _real_epoch(cfg: config.DictConfig, datamodule: FaceDataModule) -> float:
    """Images/s of the last epoch with the Trainer and all that the settings ask for, except the progress bar."""
    with tempfile.TemporaryDirectory() as folder:
        cfg.output_dir = folder
        callbacks = [instantiate(node) for name, node in cfg.callbacks.items() if node and name != "progress"]
        trainer = instantiate(
            cfg.trainer,
            precision=choose_precision(cfg.trainer.precision, cfg.trainer.accelerator)[0],
            callbacks=callbacks,
            logger=list(instantiate(cfg.logger).values()),
            enable_progress_bar=False,
        )
        trainer.fit(_model(cfg, datamodule), datamodule=datamodule)  # with its teachers, if there are any
    [table] = [callback for callback in callbacks if isinstance(callback, EpochTable)]
    return table.rows[-1]["images_per_s"]


def _bare_loop(
    model: ExpressionClassifier,
    optimizer_of: OptimizerFactory,
    batches: list[FaceBatch],
    device: str,
    multiplied_in: torch.dtype | None,
) -> float:
    """Images/s of forward, backward and step alone."""
    net = model.net.to(device)
    batches = [FaceBatch(*(tensor.to(device) for tensor in batch)) for batch in batches]
    optimizer = optimizer_of(net.parameters())

    def step(batch: FaceBatch) -> None:
        with torch.autocast(device, multiplied_in, enabled=multiplied_in is not None):
            loss = cross_entropy(net(batch.images), batch.targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    step(batches[0])  # which also makes the optimizer's state
    for _ in range(EPOCHS[device]):
        finish_gpu_work(torch.device(device))
        start = time.perf_counter()
        for batch in batches:
            step(batch)
        finish_gpu_work(torch.device(device))
    return sum(len(batch.targets) for batch in batches) / (time.perf_counter() - start)


def _print(rates: dict[str, list[float]], title: str, gpus: Sequence[int] | None) -> None:
    hardware = describe_hardware(gpus)
    table = Table("loop", "images/s (median)", "min-max", "real epoch / loop", title=title)
    for name, values in rates.items():
        # Within a round both ran under the same conditions: the median of the rounds' ratios, not a ratio of medians.
        ratio = statistics.median(real / value for real, value in zip(rates["real epoch"], values, strict=True))
        table.add_row(name, f"{statistics.median(values):.0f}", f"{min(values):.0f}-{max(values):.0f}", f"{ratio:.2f}")
    console = Console()
    console.print(table)
    console.print(f"{', '.join(hardware['gpus']) or hardware['cpu']}, {hardware['threads']} threads, {ROUNDS} rounds")


if __name__ == "__main__":
    with plain_errors():
        main()
