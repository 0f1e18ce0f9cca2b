# The commands of the README. Each sets up what it needs in .venv, from nothing.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test test-oldest test-newest test-slow test-gpu soak fuzz lint bench bench-step bench-gpu clean

# The tools that a target needs are stamped, so that a second call starts at once.
$(BIN)/python:
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip setuptools wheel -c constraints.txt

.venv/product: $(BIN)/python setup.py constraints.txt
	$(BIN)/python -m pip install --quiet --editable . -c constraints.txt
	touch $@

.venv/tested: .venv/product
	$(BIN)/python -m pip install --quiet --editable '.[test]' -c constraints.txt
	touch $@

.venv/benched: .venv/tested
	$(BIN)/python -m pip install --quiet --editable '.[test,bench]' -c constraints.txt
	touch $@

demo: .venv/product
	$(BIN)/visreg pretrain --config digits --overwrite

lint: .venv/tested
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

test: lint
	$(BIN)/python -m pytest -m "not slow" -n 2 --dist worksteal

# The suite, or the TESTS named, at both ends of what setup.py admits, each in an environment of its own. The oldest
# numpy has no wheels beyond Python 3.12.
.venv-oldest/tested: setup.py constraints-oldest.txt
	$(PYTHON) -m venv .venv-oldest
	.venv-oldest/bin/python -m pip install --quiet --upgrade pip setuptools wheel -c constraints-oldest.txt
	.venv-oldest/bin/python -m pip install --quiet --editable '.[test]' -c constraints-oldest.txt
	touch $@

test-oldest: .venv-oldest/tested
	.venv-oldest/bin/python -m pytest -m "not slow" -n 2 --dist worksteal $(TESTS)

.venv-newest/tested: setup.py
	$(PYTHON) -m venv .venv-newest
	.venv-newest/bin/python -m pip install --quiet --upgrade pip setuptools wheel
	.venv-newest/bin/python -m pip install --quiet --upgrade --upgrade-strategy eager --editable '.[test]'
	touch $@

test-newest: .venv-newest/tested
	.venv-newest/bin/python -m pytest -m "not slow" -n 2 --dist worksteal $(TESTS)

# The Space is driven in a real browser: chromium and chromium-driver of the system.
test-slow: .venv/tested
	$(BIN)/python -m pip install --quiet --editable '.[test,space]' -c constraints.txt
	$(BIN)/python -m pytest -m slow

# What needs a GPU; `make test` runs it too where there is one. One process: they would share its memory.
test-gpu: .venv/tested
	$(BIN)/python -m pytest -m gpu

# Forty kills of two runs, and the weights of unbroken ones.
soak: .venv/tested
	$(BIN)/python tests/soak.py

# Commands on mutated files for half an hour; MINUTES and SEED change it.
fuzz: .venv/tested
	$(BIN)/python tests/fuzz.py --minutes $(or $(MINUTES),30) --seed $(or $(SEED),0)

bench: .venv/benched
	$(BIN)/python -m benchmarks.objective --output benchmarks/figures

# Whole steps beside lightly: make bench-step CIFAR10=folder PHOTOS=folder, each with data/train-*.parquet as on the Hub.
bench-step: .venv/benched
	$(BIN)/python -m benchmarks.step --setting cifar10 --data $(CIFAR10) --output benchmarks/figures
	$(BIN)/python -m benchmarks.step --setting photos --data $(PHOTOS) --output benchmarks/figures

# On one GPU: make bench-gpu PHOTOS=folder of photos, in an environment that has torch with CUDA.
bench-gpu: .venv/benched
	$(BIN)/python -m benchmarks.gpu --photos $(PHOTOS) --output benchmarks/figures

clean:
	rm -rf .venv .venv-oldest .venv-newest build dist *.egg-info runs
