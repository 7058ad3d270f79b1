PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.installed
DEMO := runs/demo
.PHONY: demo demo-images test test-slow lint

$(READY): setup.cfg pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	touch $@

# glibc returns each large tensor's memory to the system at once; keeping it makes a training step on a CPU 1.2 to 1.6
# times as fast
demo demo-images: export MALLOC_MMAP_MAX_ = 0
demo demo-images: export MALLOC_TRIM_THRESHOLD_ = 100000000000
demo demo-images: export MALLOC_TOP_PAD_ = 100000000
demo: $(READY)
	$(BIN)/litscale fit --config configs/demo.yaml
	$(BIN)/litscale validate --config $(DEMO)/config.yaml --ckpt_path $(DEMO)/checkpoints/last.ckpt --verbose false
	$(BIN)/litscale predict --config $(DEMO)/config.yaml --ckpt_path $(DEMO)/checkpoints/last.ckpt

demo-images: $(READY)
	for kind in mar ar; do \
	  $(BIN)/litscale fit --config configs/digits/fractal_$$kind.yaml && \
	  $(BIN)/litscale test --config runs/digits_$$kind/config.yaml --ckpt_path runs/digits_$$kind/checkpoints/last.ckpt && \
	  $(BIN)/litscale predict --config runs/digits_$$kind/config.yaml --ckpt_path runs/digits_$$kind/checkpoints/last.ckpt \
	  || exit 1; \
	done

lint: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

test: lint
	$(BIN)/python -m pytest -n 2 -m "not slow"

test-slow: $(READY)
	$(BIN)/python -m pytest -m slow
