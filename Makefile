# Every target builds .venv by itself; all it needs is Python >= 3.11 and make.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: setup demo test test-slow lint format bench

setup: $(READY)

# uv installs the environment in a fraction of pip's time, and keeps the second build of OpenCV out (pyproject.toml).
# Compiled once here, every start takes half as long where Python may not write next to its libraries.
$(READY): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "error: Python >= 3.11 is needed, %s is %s: set PYTHON=..." % (sys.executable, sys.version.split()[0]))'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	VIRTUAL_ENV=$(VENV) $(BIN)/uv pip install --quiet --compile-bytecode --editable . --group dev
	@# A server may lack the libGL that opencv-python's windows need.
	@$(BIN)/python -c 'import cv2' 2>/dev/null || VIRTUAL_ENV=$(VENV) $(BIN)/uv pip install --quiet --no-config --reinstall 'opencv-python-headless>=4.13,<5'
	touch $@

demo: $(READY)
	$(BIN)/python -m fer_lightning.train data=synthetic model=cnn4 trainer.max_epochs=6

# One thread a process: as many processes as there are cores would otherwise wait for each other's threads.
test: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "not slow" --numprocesses auto --maxprocesses 4 --dist worksteal

test-slow: $(READY)
	$(BIN)/python -m pytest -m slow

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(READY)
	$(BIN)/python -m fer_lightning.bench
	$(BIN)/python -m fer_lightning.bench_predict
	$(BIN)/python -m fer_lightning.bench_process
