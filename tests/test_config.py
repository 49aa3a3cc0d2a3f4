"""Everything in conf/ composes and builds; what is not in it is refused with what there is."""

import re
import subprocess
import sys
import zipfile
from itertools import product
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import OmegaConf, read_write

import fer_lightning
from fer_lightning.atomic import new_folder
from fer_lightning.errors import InputError
from fer_lightning.images import BadImageError
from fer_lightning.settings.config import (
    CONF_DIR,
    TrainConfig,
    check,
    compose_config,
    instantiate,
    run_folder,
)
from fer_lightning.settings.plain_errors import explain, plain_errors

GROUPS = [
    "data",
    "protocol",
    "preprocess",
    "augmentation",
    "model",
    "loss",
    "optimizer",
    "scheduler",
    "trainer",
    "callbacks",
    "logger",
    "experiment",
]
OPTIONS = [
    f"{group}={path.stem}"
    for group in GROUPS
    for path in sorted((CONF_DIR / group).glob("*.yaml"))
    if not path.stem.startswith("_")
]


@pytest.mark.parametrize("option", OPTIONS)
def test_every_option_of_every_group_composes_and_resolves(option):
    cfg = compose_config(option, "output_dir=somewhere")
    check(cfg, TrainConfig)
    OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)


def settings_swept(key: str, values: object) -> list[str]:
    """What a sweep sets of one key; of an interval, its ends."""
    override = OverridesParser.create().parse_override(f"{key}={values}")
    if not override.is_sweep_override():
        return [f"{key}={values}"]
    if override.is_interval_sweep():
        return [f"{key}={override.value().start}", f"{key}={override.value().end}"]
    return [f"{key}={value}" for value in override.sweep_string_iterator()]


@pytest.mark.parametrize("name", [path.stem for path in sorted((CONF_DIR / "sweep").glob("*.yaml"))])
def test_every_job_of_a_sweep_composes_and_resolves(name):
    sweep = OmegaConf.load(CONF_DIR / "sweep" / f"{name}.yaml")
    assert sweep.hydra.mode == "MULTIRUN"
    choices = [settings_swept(key, values) for key, values in sweep.hydra.sweeper.params.items()]
    jobs = list(product(*choices))
    assert len(jobs) > 1
    for job in jobs:
        cfg = compose_config(*job, "output_dir=somewhere", command="baseline" if name == "baselines" else "train")
        OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)


@pytest.mark.parametrize("option", [o for o in OPTIONS if not o.startswith(("trainer", "model", "experiment"))])
def test_every_option_of_every_group_builds(option, tmp_path):
    cfg = compose_config(option, f"output_dir={tmp_path}")
    group = option.partition("=")[0]
    instantiate(cfg[group])


def test_a_warm_up_in_epochs_is_refused():
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    with pytest.raises(InputError, match="scheduler.warmup is a fraction of all steps, from 0 to below 1, got 5"):
        instantiate(compose_config("scheduler=cosine", "scheduler.warmup=5", "output_dir=x").scheduler)(optimizer, 10)


def rates_of(*overrides: str, steps: int) -> list[float]:
    """The learning rate of each step, from an optimizer's rate of 1."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler = instantiate(compose_config(*overrides, "output_dir=x").scheduler)(optimizer, steps)["scheduler"]
    rates = []
    for _ in range(steps):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return rates


def test_one_cycle_may_begin_with_its_highest_rate():
    rates = rates_of("scheduler=one_cycle", "scheduler.pct_start=0.2", "scheduler.max_lr=1", steps=5)
    assert rates[0] == pytest.approx(1)
    assert rates == sorted(rates, reverse=True)
    assert rates[-1] < 0.1


def test_the_cosine_schedule_rises_and_falls_to_its_end():
    rates = rates_of("scheduler=cosine", "scheduler.warmup=0.2", steps=10)
    assert rates[0] == pytest.approx(0.5)
    assert max(rates) == pytest.approx(1.0)
    assert rates[2:] == sorted(rates[2:], reverse=True)
    assert rates[-1] < 0.1


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (
            "model.net.kernal_size=5",
            "There is no 'kernal_size' in model.net: choose from batch_norm, dropout, kernel_size, name, padding",
        ),
        ("trainer.max_epoch=3", "There is no 'max_epoch' in trainer: .*max_epochs"),
        ("nothing=1", "There is no 'nothing': choose from augmentation, callbacks, .*trainer"),
        ("model=cnn9", "Could not find 'model/cnn9' Available options in 'model': .*cnn4"),
        ("seed=abc", "'abc' of type 'str' could not be converted to Integer"),
    ],
)
def test_what_does_not_exist_is_refused_with_what_does(override, message):
    with pytest.raises(HydraException) as caught:
        compose_config(override)
    assert re.search(message, explain(caught.value))


def test_a_sweeps_folder_is_known_before_any_job_runs():  # a search keeps its study there
    with initialize_config_dir(str(CONF_DIR), version_base="1.3", job_name="train"):
        cfg = compose("train", return_hydra_config=True)
    assert cfg.hydra.sweep.dir.startswith("outputs/sweeps/")


def test_a_top_level_key_without_a_reader_is_refused_even_when_it_is_added():
    with pytest.raises(InputError, match="there is no bogus in the configuration: choose from augmentation, .*trainer"):
        check(compose_config("+bogus=1"), TrainConfig)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("data.batch_size=1.5", "data.batch_size must be a whole number, got 1.5"),
        ("data.batch_size=true", "data.batch_size must be a whole number, got True"),
        ("data.num_workers=two", "data.num_workers must be a whole number or null, got 'two'"),
        ("data.cache_gb=much", "data.cache_gb must be a number, got 'much'"),
        ("data.cache_dir=null", "data.cache_dir must be text, got None"),
        ("data.seed=1.5", "data.seed must be a whole number, got 1.5"),
        ("data.reader.train=many", "data.reader.train must be a whole number, got 'many'"),
        ("preprocess.size=48.5", "preprocess.size must be a whole number, got 48.5"),
        ("preprocess.laplacian=1", "preprocess.laplacian must be true or false, got 1"),
        ("+optimizer.amsgrad=no", "optimizer.amsgrad must be true or false, got 'no'"),
        ("model.mixup=strong", "model.mixup must be a number, got 'strong'"),
        ("model.net=cnn3", "model.net must be settings by name, got 'cnn3'"),
        ("callbacks.pictures.every_n_epochs=often", "every_n_epochs must be a whole number, got 'often'"),
    ],
)
def test_a_value_of_another_kind_than_the_constructor_names_is_refused(override, message):
    with pytest.raises(InputError, match=re.escape(message)):
        check(compose_config(override, "output_dir=somewhere"), TrainConfig)


def test_a_setting_within_a_list_is_refused_too():
    mine = "augmentation.transforms=[{_target_: fer_lightning.data.batch_transforms.HorizontalFlip, p: often}]"
    with pytest.raises(InputError, match=r"augmentation\.transforms\.0\.p must be a number, got 'often'"):
        check(compose_config("augmentation=none", mine, "output_dir=somewhere"), TrainConfig)


def test_a_setting_deep_within_others_is_refused_too():
    strange = ("augmentation=batch", "augmentation.transforms.affine.degrees=far")
    with pytest.raises(InputError, match=r"augmentation\.transforms\.affine\.degrees must be a number, got 'far'"):
        check(compose_config(*strange, "output_dir=somewhere"), TrainConfig)


def test_a_list_is_refused_for_one_strange_item():
    strange = ("protocol=random_80_20", "protocol.percent=[80,a,20]")
    with pytest.raises(
        InputError, match=r"protocol\.percent must be \[(a whole number(, )?){3}\], got \[80, 'a', 20\]"
    ):
        check(compose_config(*strange, "output_dir=somewhere"), TrainConfig)


@pytest.mark.parametrize(
    ("strange", "message"),
    [
        (["+optimizer.betas=[0.9]"], r"optimizer\.betas must be \[a number.*, a number.*\], got \[0\.9\]"),
        (["data.cache_gb=inf"], r"data\.cache_gb must be a finite number, got inf"),
        (["+data.x.y=[1.0,nan]"], r"data\.x\.y must be a finite number, got nan"),
        (["optimizer._target_=torch.optim.Foo"], r"optimizer\._target_ names what does not exist, torch\.optim\.Foo"),
    ],
)
def test_values_that_cannot_be_used_are_told_with_their_place(strange, message):
    with pytest.raises(InputError, match=message):
        check(compose_config(*strange, "output_dir=somewhere"), TrainConfig)


@pytest.mark.parametrize("group", ["data", "protocol", "model", "loss", "optimizer", "trainer", "callbacks", "logger"])
def test_a_group_without_an_option_is_refused(group):
    with pytest.raises(InputError, match=f"{group} is left open: choose an option of it"):
        check(compose_config(f"~{group}", "output_dir=somewhere"), TrainConfig)
    with pytest.raises(SystemExit, match="must be a string.*: write GROUP=OPTION"), plain_errors():
        compose_config(f"{group}=null")


@pytest.mark.parametrize("part", ["callbacks.progress", "logger.tensorboard"])
def test_a_callback_or_a_logger_is_left_out_by_null_alone(part):
    check(compose_config(f"{part}=null", "output_dir=somewhere"), TrainConfig)
    with pytest.raises(InputError, match=f"{part} must be null, to go without it, or settings by name, got False"):
        check(compose_config(f"{part}=false", "output_dir=somewhere"), TrainConfig)


def test_an_experiment_says_its_number_and_its_command():
    for path in (CONF_DIR / "experiment").glob("[!_]*.yaml"):
        header = path.read_text().partition("defaults:")[0]
        assert "Ours: " in header
        assert f"experiment={path.stem}" in header


def test_a_full_gpu_is_told_with_the_remedy():
    with pytest.raises(SystemExit, match="the GPU's memory is full: lower data.batch_size"), plain_errors():
        raise torch.OutOfMemoryError("CUDA out of memory")


@pytest.mark.parametrize("kind", [torch.AcceleratorError, RuntimeError])
@pytest.mark.parametrize("what", ["CUDA error: unspecified launch failure", "NCCL error in: here.cpp:1, unhandled"])
def test_a_gpu_that_fails_is_told_with_the_way_to_go_on(kind, what):
    message = rf"the GPU failed \({what}\); a training goes on with ckpt_path="
    with pytest.raises(SystemExit, match=message), plain_errors():
        raise kind(f"{what}\nCompile with `TORCH_USE_CUDA_DSA`")


def test_a_gpu_that_this_pytorch_was_not_made_for_is_told_with_the_remedy():
    with pytest.raises(SystemExit, match="was not made for the GPU here .*: install one that was, or"), plain_errors():
        raise torch.AcceleratorError("CUDA error: no kernel image is available for execution on the device")


def test_an_image_that_fails_in_a_loaders_process_is_told_in_one_sentence():
    class Images(torch.utils.data.Dataset):
        def __len__(self):
            return 1

        def __getitem__(self, i):
            raise BadImageError("happy/3.jpg", "does not decode as an image")

    with pytest.raises(SystemExit, match=r"^error: happy/3.jpg does not decode as an image$"), plain_errors():
        list(torch.utils.data.DataLoader(Images(), num_workers=1))


def test_an_error_of_the_code_keeps_its_traceback():
    with pytest.raises(RuntimeError, match="shapes"), plain_errors():
        raise RuntimeError("shapes cannot be multiplied")


def test_a_dataset_brings_its_protocol_and_the_command_line_overrides_it():
    assert compose_config("data=ckplus").protocol._target_.endswith("subject_kfold")
    assert compose_config("data=ckplus", "protocol=random_80_20").protocol.percent == [80, 0, 20]


def test_a_resumed_run_goes_on_in_its_own_folder_and_others_get_one_that_no_other_process_has(tmp_path):
    new = str(tmp_path / "runs" / "new")
    assert run_folder("outputs/runs/a/checkpoints/last.ckpt", new) == str(Path("outputs/runs/a"))
    assert run_folder(None, new) == new
    assert run_folder(None, new) == new  # the same process asks again
    assert run_folder("somewhere/last.ckpt", new) == f"{new}_2"


@pytest.mark.parametrize("command", ["train", "baseline", "evaluate", "audit"])
def test_the_settings_of_a_run_are_not_overwritten_by_another_in_its_folder(tmp_path, monkeypatch, command):
    with initialize_config_dir(str(CONF_DIR), version_base="1.3", job_name=command):
        cfg = compose(command, return_hydra_config=True)
    with read_write(cfg.hydra.runtime):
        cfg.hydra.runtime.output_dir = str(tmp_path)
    monkeypatch.setattr(HydraConfig.instance(), "cfg", cfg)
    assert cfg.hydra.output_subdir == ".hydra"
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "last.ckpt").touch()
    assert cfg.hydra.output_subdir is None


@pytest.mark.parametrize(
    ("metric", "mode"), [("val/acc", "max"), ("val/loss", "min"), ("val/ece", "min"), ("null", "max")]
)
def test_the_monitored_metric_says_which_way_is_better(metric, mode):
    cfg = compose_config(f"monitor.metric={metric}", "output_dir=x")
    assert (cfg.monitor.mode, cfg.callbacks.best_checkpoint.mode) == (mode, mode)


def test_a_wheel_carries_conf_the_trained_model_and_the_page(tmp_path):
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(build, cwd=CONF_DIR.parent, capture_output=True, check=True)
    [wheel] = tmp_path.glob("*.whl")
    inside = set(zipfile.ZipFile(wheel).namelist())
    package = Path(fer_lightning.__file__).parent
    carried = [path for folder in ("weights", "web") for path in (package / folder).glob("*.*")]
    assert {str(path.relative_to(package.parent)) for path in carried if path.suffix != ".pyc"} <= inside
    missing = {f"fer_lightning/conf/{path.relative_to(CONF_DIR)}" for path in CONF_DIR.rglob("*.yaml")} - inside
    assert missing == set()
    assert not [name for name in inside if name.startswith(("tests/", "data/", "outputs/"))]


def test_conf_is_found_from_any_working_directory(tmp_path):
    code = "from fer_lightning.settings.config import compose_config as c; print(c('data=ckplus').model.net.name)"
    found = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "cnn4"


def test_a_copy_of_a_group_is_not_set_in_place_of_the_group():
    for setting, told in [("model.loss=focal", "loss"), ("data.preprocess=clahe", "preprocess")]:
        with pytest.raises(InputError, match=f"is a copy of {told}: set {told}=, or its settings, instead"):
            check(compose_config(setting, "output_dir=somewhere"), TrainConfig)


def test_a_folder_that_cannot_be_made_is_an_error_and_not_a_search_without_end(tmp_path):
    (tmp_path / "outputs").symlink_to(tmp_path / "no disk")
    with pytest.raises(FileExistsError):
        new_folder(tmp_path / "outputs" / "run")
