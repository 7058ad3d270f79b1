PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.installed
DEMO := runs/demo
.PHONY: demo test test-slow lint

$(READY): setup.cfg pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	touch $@

# glibc returns each large tensor's memory to the system at once; keeping it makes a training step on a CPU 1.2 to 1.6
# times as fast
demo: export MALLOC_MMAP_MAX_ = 0
demo: export MALLOC_TRIM_THRESHOLD_ = 100000000000
demo: export MALLOC_TOP_PAD_ = 100000000
demo: $(READY)
	$(BIN)/litscale fit --config configs/demo.yaml
	$(BIN)/litscale validate --config $(DEMO)/config.yaml --ckpt_path $(DEMO)/checkpoints/last.ckpt --verbose false
	$(BIN)/litscale predict --config $(DEMO)/config.yaml --ckpt_path $(DEMO)/checkpoints/last.ckpt

lint: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

test: lint
	$(BIN)/python -m pytest -n 2 -m "not slow"

test-slow: $(READY)
	$(BIN)/python -m pytest -m slow
