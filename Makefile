# Two commands do everything: `make fig1` (the main job) and `make test`. Each sets up what it needs first.

PYTHON ?= python3
PROFILE ?= quick
N ?= 200
SEED ?= 0
BIN := .venv/bin
READY := .venv/.ready

.DEFAULT_GOAL := help
.PHONY: help setup fig1 figures quick lab site check test browse mutants lock clean

help:
	@echo "make fig1               Figure 1 of PeerAiD on the embedded digits -> figures/quick/"
	@echo "make test               the linters, the type checker and the tests"
	@echo "make browse             of these, the tests of the site and of JupyterLab in Chromium"
	@echo "make lab                JupyterLab on the notebooks"
	@echo "make site               static pages of all exhibits, claims and numbers -> site/index.html"
	@echo "make figures            every notebook; PROFILE=smoke|quick|small|paper (now: $(PROFILE))"
	@echo "make quick              every picture of figures/quick again, with three or five seeds each"
	@echo "make mutants            how many of N small mistakes the tests notice (now: N=$(N) SEED=$(SEED)); takes half an hour to an hour"
	@echo "make lock               bring requirements.lock in line with pyproject.toml; delete it first to upgrade all"
	@echo "make clean              remove .venv, caches, executed notebooks and the site (the store and data stay)"

setup: $(READY)

$(READY): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(None if sys.version_info >= (3, 11) else "rkdkit needs Python 3.11 or newer, and $(PYTHON) is " + sys.version.split()[0] + ". Name a newer one: make PYTHON=python3.12 ...")'
	@echo "Setting up .venv: about 6 GB on Linux (torch with its CUDA libraries). This takes a few minutes, without output."
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install -q --require-hashes -r requirements.lock
	$(BIN)/python -m pip install -q --no-deps --no-build-isolation -e .
	@touch $@

fig1: $(READY)
	$(BIN)/rkdkit figures fig1_peer_vs_teacher --profile $(PROFILE)

figures: $(READY)
	$(BIN)/rkdkit figures --profile $(PROFILE)

quick: $(READY)
	$(BIN)/rkdkit figures --profile quick -p n_seeds=committed

lab: $(READY)
	$(BIN)/jupyter lab --LabApp.default_url=/lab/tree/notebooks/fig1_peer_vs_teacher.ipynb

site: $(READY)
	$(BIN)/python -m rkdkit.site

check: $(READY)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

test: check
	$(BIN)/python -m pytest -n auto

browse: $(READY)
	$(BIN)/python -m pytest -n 2 tests/test_browser_site.py tests/test_browser_lab.py tests/test_site_pictures.py

mutants: $(READY)
	$(BIN)/python benchmarks/mutants --n $(N) --seed $(SEED)

lock:
	@test -x $(BIN)/uv || { $(PYTHON) -m venv .venv && $(BIN)/python -m pip install -q uv; }
	$(BIN)/uv pip compile pyproject.toml --all-extras --universal --python-version 3.11 \
	    --generate-hashes --custom-compile-command "make lock" -o requirements.lock

clean:
	rm -rf .venv cache executed site .mypy_cache .pytest_cache .ruff_cache .hypothesis .mutants *.egg-info
