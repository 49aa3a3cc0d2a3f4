"""The commands in README, docs and experiments are real: each composes against conf/, each make target exists."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import typer

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


@pytest.mark.parametrize("target", sorted(set(re.findall(r"make (\w+)", README))))
def test_every_make_target_exists(target):
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)


@pytest.mark.parametrize(
    "group", sorted(path.name for path in CONF_DIR.iterdir() if path.is_dir() and path.name != "hydra")
)
def test_the_table_of_options_names_every_one(group):
    [row] = [line for line in README.splitlines() if re.match(rf"\| [^|]*`{group}`[^|]* \|", line)]
    options = {path.stem for path in (CONF_DIR / group).glob("*.yaml") if not path.stem.startswith("_")}
    assert {option for option in options if f"`{option}`" not in row} == set()


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
