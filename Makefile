PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.installed
DEMO := runs/demo
FASHION := runs/fashion_demo
.PHONY: music clothes demo demo-images demo-var demo-sdvar demo-fashion bench-fashion pictures test tests test-slow mutants lint docs

$(READY): setup.cfg pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	touch $@

# four pieces of the model that comes with litscale, to runs/music/predictions
music: $(READY)
	$(BIN)/litscale predict --model.pretrained bach --config configs/music.yaml

# twenty pictures of clothes by the pair of VARs that comes with litscale, to runs/clothes/predictions
clothes: $(READY)
	$(BIN)/litscale predict --model.pretrained fashion --config callbacks/pictures.yaml \
	  --trainer.default_root_dir runs/clothes

demo: $(READY)
	$(BIN)/litscale fit --config configs/demo.yaml --overwrite true
	$(BIN)/litscale validate --config $(DEMO)/config.yaml --ckpt_path last --verbose false
	$(BIN)/litscale predict --config $(DEMO)/config.yaml --ckpt_path last
	$(BIN)/litscale report $(DEMO)

# fit, test and predict a run of runs/ by its config
define run
$(BIN)/litscale fit --config configs/digits/$(1).yaml --overwrite true
$(BIN)/litscale test --config runs/digits_$(2)/config.yaml --ckpt_path last --verbose false
endef
define samples
$(BIN)/litscale predict --config runs/digits_$(1)/config.yaml --ckpt_path last
endef

demo-images: $(READY)
	$(call run,fractal_mar,mar)
	$(call samples,mar)
	$(call run,fractal_ar,ar)
	$(call samples,ar)
	$(BIN)/litscale compare runs/digits_mar runs/digits_ar

demo-var: $(READY)
	$(call run,vqvae,vqvae)
	$(call run,var_target,var_target)
	$(call samples,var_target)
	$(call run,var_draft,var_draft)
	$(BIN)/litscale compare runs/digits_vqvae runs/digits_var_target runs/digits_var_draft

# after demo-var
demo-sdvar: $(READY)
	$(BIN)/litscale fit --config configs/sdvar/digits.yaml --overwrite true
	$(BIN)/litscale test --config runs/sdvar_digits/config.yaml --ckpt_path last --verbose false
	$(BIN)/litscale bench decode --config configs/sdvar/digits.yaml --drafts '{distilled: runs/sdvar_digits/draft.ckpt}' \
	  --gammas [3] --acceptances [Coupled,Rejection,KL] --thresholds [0.7,0.8] --entry_nums [2] --num_images 500 \
	  --batch_size 100 --features litscale.metrics.DigitFeatures

# fit and validate a run of the pair of configs/fashion_mnist for so many steps; further options go to fit
define fashion
$(BIN)/litscale fit --config configs/fashion_mnist/$(1).yaml --overwrite true --trainer.default_root_dir $(FASHION)/$(1) \
  --trainer.max_steps $(2) --trainer.limit_val_batches 8 $(3)
$(BIN)/litscale validate --config $(FASHION)/$(1)/config.yaml --ckpt_path last --trainer.limit_val_batches 1.0 \
  --verbose false
endef

SHORT := --model.tokenizer_checkpoint $(FASHION)/vqvae/checkpoints/last.ckpt --config configs/callbacks/ema_short.yaml \
  --config configs/callbacks/fashion_quality.yaml --config configs/callbacks/pictures.yaml

# downloads nothing: FASHION_MNIST is the folder of the pictures, see docs/data.md; a short version of configs/fashion_mnist
demo-fashion: $(READY)
	$(call fashion,vqvae,400,--model.restart_until 300)
	$(call fashion,var_target,200,$(SHORT) --data.batch_size 16)
	$(call fashion,var_draft,300,$(SHORT))
	$(BIN)/litscale predict --config $(FASHION)/var_target/config.yaml --ckpt_path last
	$(BIN)/litscale compare $(FASHION)/vqvae $(FASHION)/var_target $(FASHION)/var_draft

# those of the README and of the docs, after music, clothes, demo, demo-images, demo-var, demo-sdvar and bench-fashion
pictures: $(READY)
	$(BIN)/python benchmarks/pictures.py

# other ways of drawing late scales: without guidance, by the likeliest tokens, both, and some of the tokens alone
GENERATIONS := [{cfg_until: 4}, {top_k: [0, 0, 0, 0, 1]}, {cfg_until: 4, top_k: [0, 0, 0, 0, 1]}, \
  {prune: {from_scale: 5, ratios: [0.6, 0.5, 0.4]}}]

# rules of acceptance with other options than their defaults, for fewer calls of the target
LOOSER := {class_path: TopK, init_args: {k: 10}}, {class_path: TopK, init_args: {k: 5, threshold: 0.3}}, \
  {class_path: KL, init_args: {threshold: 0.3}}

# the table of decoders of the pair that comes with litscale; FASHION_MNIST is the folder of the pictures, see docs/data.md
bench-fashion: $(READY)
	$(BIN)/litscale bench decode --model.pretrained fashion --trainer.default_root_dir runs/bench_fashion \
	  --model.generation.top_k 0 --model.generation.cfg_until null \
	  --features litscale.metrics.FashionFeatures --num_images 300 --batch_size 50 --gammas [3] \
	  --acceptances "[TopK,KL,Rejection,Coupled,$(LOOSER)]" --large_scales [3,4,5,6] --entry_nums [2] \
	  --generations '$(GENERATIONS)'

lint: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/codespell

# to build/site; opened as files, the pages need no server
docs: $(READY)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

# several processes with as many threads each as there are cores get in each other's way
test tests test-slow: export OMP_NUM_THREADS = 1
# compiled once, not by each of the processes that tests start
test tests test-slow: export PYTHONDONTWRITEBYTECODE =
# type checking takes a while on one core, so the tests run beside it
test: $(READY)
	$(MAKE) --no-print-directory --jobs 2 lint tests

# not --dist worksteal: in a process that has compiled, autograd refuses forks, so tests that fork must come first
tests: $(READY)
	$(BIN)/python -m pytest -n 2 -m "not slow"

test-slow: $(READY)
	$(BIN)/python -m pytest -m slow

# hours long, and resumed where it was stopped
mutants: export OMP_NUM_THREADS = 1
mutants: $(READY)
	PYTHONPATH=tests nice -n 10 $(BIN)/python -m mutants.run
