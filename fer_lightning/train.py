"""`python -m fer_lightning.train`: one run, or with `-m` or `sweep=NAME` many."""

from fer_lightning.settings import config  # isort: skip - sets what must be set before albumentations is imported

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from fer_lightning.settings.plain_errors import plain_errors
from fer_lightning.sweeps.jobs import run_job


@hydra.main(version_base="1.3", config_path=str(config.CONF_DIR), config_name="train")
def main(cfg: DictConfig) -> float | None:
    """Train one model on one dataset and return the monitored metric, for a sweep to compare."""
    config.check_call(cfg)
    if HydraConfig.get().mode == RunMode.MULTIRUN:
        return run_job("train", cfg)
    # Only a run needs PyTorch and Lightning, which take seconds and memory: the sweep's own processes do without them.
    from fer_lightning.runs.training import prepare_process, train

    prepare_process()
    return train(cfg, overrides=config.given_arguments("train", HydraConfig.get()))


if __name__ == "__main__":
    with plain_errors():
        main()
