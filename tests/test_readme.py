"""The commands in README, docs and experiments are real: each composes against conf/, each make target exists."""

import importlib
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import cv2
import pytest
import typer
from hydra import compose, initialize_config_dir

from fer_lightning import app, export, predict, report
from fer_lightning.settings.config import (
    CONF_DIR,
    AuditConfig,
    BaselineConfig,
    EvaluateConfig,
    TrainConfig,
    check,
    compose_config,
)

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
GUIDES = README + (ROOT / "CONTRIBUTING.md").read_text()
TEXTS = (
    README,
    (ROOT / "docs" / "replication.md").read_text(),
    *(path.read_text() for path in (CONF_DIR / "experiment").iterdir()),
)
COMMAND = re.compile(r"^(?: {4}|# {3})?python -m fer_lightning\.(train|baseline|audit|evaluate)(.*)$", re.MULTILINE)
COMMANDS = sorted({found for text in TEXTS for found in COMMAND.findall(text)})
SCHEMAS = {"train": TrainConfig, "baseline": BaselineConfig, "audit": AuditConfig, "evaluate": EvaluateConfig}
PREDICTIONS = sorted(
    set(re.findall(r"^(?:cat .*\| )?(fer-(?:predict|export|report|app)(?: [^#`\n]*)?)", README, flags=re.MULTILINE))
)


@pytest.mark.parametrize(("command", "arguments"), COMMANDS)
def test_every_command_composes(command, arguments):
    overrides = [word for word in shlex.split(arguments) if word != "-m"]
    sweeps = [re.sub(r"=(range\((\d+),.*\)|([^,\[]+),.*)$", r"=\2\3", override) for override in overrides]
    check(compose_config(*sweeps, command=command), SCHEMAS[command])


@pytest.mark.parametrize("line", PREDICTIONS)
def test_every_option_of_a_prediction_command_exists(line):
    command, *words = shlex.split(line)
    parser = typer.main.get_command(
        typer_app(
            {"fer-predict": predict.main, "fer-export": export.main, "fer-report": report.main, "fer-app": app.main}[
                command
            ]
        )
    )
    known = {option for parameter in parser.params for option in parameter.opts}
    assert {word for word in words if word.startswith("--")} <= known


def typer_app(function) -> typer.Typer:
    app = typer.Typer()
    app.command()(function)
    return app


def test_there_are_commands_to_test():
    assert len(COMMANDS) >= 30
    assert len(PREDICTIONS) >= 7


@pytest.mark.parametrize("target", sorted(set(re.findall(r"(?:^|[`(])make ([a-z-]+)", GUIDES, flags=re.MULTILINE))))
def test_every_make_target_exists(target):
    assert re.search(rf"^{re.escape(target)}:", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)


@pytest.mark.parametrize(
    "group", sorted(path.name for path in CONF_DIR.iterdir() if path.is_dir() and path.name != "hydra")
)
def test_the_table_of_options_names_every_one(group):
    [row] = [line for line in README.splitlines() if re.match(rf"\| [^|]*`{group}`[^|]* \|", line)]
    options = {path.stem for path in (CONF_DIR / group).glob("*.yaml") if not path.stem.startswith("_")}
    assert {option for option in options if f"`{option}`" not in row} == set()


def test_the_table_of_options_says_the_defaults():
    groups = ("data", "model", "loss", "preprocess", "augmentation", "optimizer", "scheduler", "trainer", "logger")
    with initialize_config_dir(str(CONF_DIR), version_base="1.3"):
        chosen = compose("train", return_hydra_config=True).hydra.runtime.choices
    assert re.findall(r"`(\w+)` \(default", README) == [chosen[group] for group in groups]


def test_every_installed_command_is_a_function():
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    assert scripts.keys() == {"fer-predict", "fer-app", "fer-export", "fer-report"}
    for module, _, name in (target.partition(":") for target in scripts.values()):
        assert callable(getattr(importlib.import_module(module), name))


def test_its_python_runs_on_a_photo_and_a_film(tmp_path, monkeypatch, photo, capsys):
    cv2.imwrite(str(tmp_path / "photo.jpg"), photo)
    film = cv2.VideoWriter(str(tmp_path / "film.mp4"), cv2.VideoWriter_fourcc(*"mp4v"), 25, (512, 512))
    for _ in range(3):
        film.write(photo)
    film.release()
    monkeypatch.chdir(tmp_path)
    one, two, _ = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)  # the third needs a server
    exec(one + two, {})
    of_photo, *of_film = capsys.readouterr().out.splitlines()
    assert of_photo.startswith("happy 0.")
    assert [line.split()[:2] for line in of_film] == [["0.0", "0"], ["0.04", "0"], ["0.08", "0"]]


def test_the_map_names_every_folder_and_file_of_the_package_and_no_other():
    package, folder, named = ROOT / "fer_lightning", "", set()
    for line in README.partition("\nfer_lightning/\n")[2].partition("\ndocs/ ")[0].splitlines():
        if start := re.match(r"  (\w\S*)", line):  # further lines of a folder are indented more
            folder = start[1] if start[1].endswith("/") else ""
        for name in re.findall(r"[\w*]+\.py", line):
            named |= set(package.glob(folder + name)) or {name}
    readers = {package / "data" / f"{name}.py" for name in ("affectnet", "ckplus", "fer2013", "folder", "synthetic")}
    assert named | readers == set(package.rglob("[!_]*.py"))


def test_every_local_link_and_picture_leads_somewhere():
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", README) if "://" not in link]
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_the_leaderboard_in_docs_is_that_of_the_runs_in_docs(tmp_path):
    shown = subprocess.run(
        [sys.executable, "-m", "fer_lightning.report", ROOT / "docs" / "runs", "--output", tmp_path],
        capture_output=True,
        text=True,
    )
    assert shown.returncode == 0, shown.stderr
    for name in ("leaderboard.md", "leaderboard.csv"):
        assert (ROOT / "docs" / "leaderboard" / name).read_text() == (tmp_path / name).read_text(), (
            "make it again: fer-report docs/runs --output docs/leaderboard"
        )
