# Everything starts here: `make train` and `make test` need Python 3.11 to 3.13, make and the
# package registry that pip knows, nothing else. `make help` lists the rest.

SHELL := /bin/sh
.DEFAULT_GOAL := help
.PHONY: help train test test-slow test-all lint format types docs gpu lowest python clean .venv FORCE

VENV := .venv
BIN := $(VENV)/bin
PIP_INSTALL := $(BIN)/python -m pip install -qq --disable-pip-version-check \
	--constraint constraints.txt
# By uv, which is several times faster than pip; by pip where uv cannot.
INSTALL = { $(BIN)/python tools/uv_install.py --constraint constraints.txt \
	--build-constraint constraints.txt $(1) || \
	$(PIP_INSTALL) --build-constraint constraints.txt $(1); }
# Written last: an interrupted set-up leaves none and is done again from the start. The second
# stands for what the tests and checks need beside what running does.
READY := $(VENV)/ready
READY_DEV := $(VENV)/ready-dev
# Two at once, each file by one process: tests wait for processes to start half of their time. In the
# order of the folders, as the longest alone at the end would keep a core idle.
PYTEST := $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

# Which Python: the one given (make PYTHON=/path/to/python3.12 …), else the first that fits. A name
# on the PATH may still fail when it is run (pyenv's shims), so each is asked for its version and
# for the modules that the set-up needs.
CANDIDATES := python3.13 python3.12 python3.11 python3 python
FITS := import ensurepip, venv, sys; (3, 11) <= sys.version_info[:2] <= (3, 13) or sys.exit(1)
VERSION_OF := import sys; print(sys.version_info[:2])
FOUND = $(shell for python in $(or $(PYTHON),$(CANDIDATES)); do \
	"$$python" -c '$(FITS)' >/dev/null 2>&1 && { command -v "$$python"; break; }; done)
NONE_FITS = $(if $(PYTHON),$(PYTHON) does not fit,none of $(CANDIDATES) fits): catdog needs Python \
	3.11, 3.12 or 3.13 that runs and has the modules venv and ensurepip; name one with \
	make PYTHON=/path/to/python3.12
CHOSEN = $(or $(FOUND),$(error $(NONE_FITS)))

# Another Python than that of the set-up asks for a new set-up.
ifneq ($(strip $(PYTHON)),)
ifneq ($(shell "$(PYTHON)" -c '$(VERSION_OF)' 2>/dev/null),$(shell $(BIN)/python -c '$(VERSION_OF)' 2>/dev/null))
OTHER_PYTHON := FORCE
endif
endif

help:  ## this list
	@echo "catdog: distributed image classification, cats from dogs."
	@echo
	@sed -n 's/^\([a-z.-][a-z.-]*\):.*  ## /\1\t/p' $(firstword $(MAKEFILE_LIST)) \
		| while IFS="$$(printf '\t')" read -r name what; do printf '  make %-10s %s\n' "$$name" "$$what"; done
	@echo
	@echo "Another Python:   make test PYTHON=/path/to/python3.12"
	@echo "Your own photos:  $(BIN)/python jobs/train.py --data PHOTOS"

train: $(READY)  ## set up, then the whole job on the built-in drawings
	$(BIN)/python jobs/train.py

test: $(READY_DEV)  ## set up, then the tests, without the slow ones
	$(PYTEST) -m "not slow"

test-slow: $(READY_DEV)  ## the slow tests alone
	$(PYTEST) -m slow

test-all: $(READY_DEV)  ## all tests
	$(PYTEST)

lint: $(READY_DEV)  ## ruff: lint and form
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(READY_DEV)  ## ruff: put everything in form
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

types: $(READY_DEV)  ## mypy
	$(BIN)/mypy

docs: $(READY)  ## write docs/settings.md and its JSON schema from the code
	$(BIN)/python -m catdog.cli.settings docs

.venv: $(READY_DEV)  ## set up alone: .venv with the exact versions of constraints.txt

gpu: $(READY)  ## set up, and TensorFlow with CUDA for this machine's GPUs
	$(PIP_INSTALL) --build-constraint constraints.txt --editable '.[gpu]'

lowest:  ## the sample job with the lowest versions that pyproject.toml declares
	"$(CHOSEN)" -m venv --clear .venv-lowest
	.venv-lowest/bin/python -m pip install -qq --disable-pip-version-check --upgrade pip uv
	.venv-lowest/bin/python tools/uv_install.py --resolution lowest-direct --editable .
	.venv-lowest/bin/python jobs/train.py

python:  ## which Python a set-up takes
	@echo "$(CHOSEN)"

clean:  ## remove .venv and the caches; runs stay
	rm -rf $(VENV) .venv-lowest build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis

# A finished set-up is brought up to date where it is, so that whatever runs from it goes on; one
# that was interrupted, or is of another Python, is made anew. Where pip gives up by itself (no
# network, say) it has put back what it was changing: the old set-up stays, as one that is out of
# date. pip comes first: older ones know neither --group nor --build-constraint.
$(READY): pyproject.toml constraints.txt $(OTHER_PYTHON)
	@python="$(CHOSEN)"; set -e; \
	if [ -f $@ ] && [ -z "$(OTHER_PYTHON)" ]; then \
		echo "Bringing $(VENV) up to date"; rm -f $@; \
		gave_up() { touch -t 200001010000 $@; exit 1; }; \
	else \
		echo "Setting up $(VENV) with $$python (some minutes)"; rm -f $@; \
		"$$python" -m venv --clear $(VENV); \
		gave_up() { exit 1; }; \
	fi; \
	$(PIP_INSTALL) --upgrade pip || gave_up; \
	$(PIP_INSTALL) uv 2>/dev/null || true; \
	$(call INSTALL,--editable .) || gave_up; \
	touch $@

# Meanwhile the environment counts as not set up, for an interruption may leave anything.
$(READY_DEV): $(READY)
	@set -e; echo "Adding what the tests need"; rm -f $@ $(READY); \
	$(call INSTALL,--editable . --group dev) || { touch $(READY); exit 1; }; \
	touch $(READY) $@

FORCE:
