# The commands of the README. Each sets up what it needs in .venv, from nothing.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test test-slow soak lint bench bench-step clean

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

test: lint
	$(BIN)/python -m pytest -m "not slow" -n 2 --dist worksteal

# The Space is driven in a real browser: chromium and chromium-driver of the system.
test-slow: .venv/tested
	$(BIN)/python -m pip install --quiet --editable '.[test,space]' -c constraints.txt
	$(BIN)/python -m pytest -m slow

# Forty kills of two runs, and the weights of unbroken ones.
soak: .venv/tested
	$(BIN)/python tests/loop/soak.py

bench: .venv/benched
	$(BIN)/python tests/benchmarks/objective.py --output tests/benchmarks/figures

# Whole steps beside lightly: make bench-step CIFAR10=folder PHOTOS=folder, each with data/train-*.parquet as on the Hub.
bench-step: .venv/benched
	$(BIN)/python tests/benchmarks/step.py --setting cifar10 --data $(CIFAR10) --output tests/benchmarks/figures
	$(BIN)/python tests/benchmarks/step.py --setting photos --data $(PHOTOS) --output tests/benchmarks/figures

clean:
	rm -rf .venv build dist *.egg-info runs
