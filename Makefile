VENV := .venv
BIN := $(VENV)/bin
# Paths mypy and ruff look at.
SOURCES := service tests bench

.DEFAULT_GOAL := help
.PHONY: help install run test faults lint format demo lock bench

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z0-9]+:.*## / {printf "  make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: ## Build .venv and install what requirements.lock pins
	@sh scripts/install.sh $(VENV)

run: install ## Serve on 127.0.0.1:8000
	@exec $(BIN)/fanout serve

test: install lint ## Check style and types, then run all tests
	@sh scripts/install_test_packages.sh
	@$(BIN)/python -m pytest -n 3 --dist loadfile --reruns 1 --rerun-show-tracebacks

faults: install ## Run every test that kills, stops and starves processes, and all that are long
	@sh scripts/install_test_packages.sh
	@$(BIN)/python -m pytest -n 2 --dist loadfile -m 'heavy or not heavy' tests/faults
	@$(BIN)/python -m pytest -n 2 --dist loadfile -m heavy --ignore tests/faults

lint: install ## Check style (ruff) and types (mypy)
	@$(BIN)/ruff check $(SOURCES)
	@$(BIN)/ruff format --check $(SOURCES)
	@$(BIN)/mypy --strict $(SOURCES)

format: install ## Rewrite the sources as `make lint` wants them
	@$(BIN)/ruff check --fix-only --quiet $(SOURCES)
	@$(BIN)/ruff format $(SOURCES)

demo: install ## Watch an agent work in the terminal; needs no network and no API key
	@exec $(BIN)/fanout demo

bench: install ## Measure Fanout beside the published server, 15 minutes of an idle machine; renews docs/performance.md
	@sh scripts/install_test_packages.sh wrk
	@sh scripts/install_bench.sh .venv-bench
	@TZ=UTC $(BIN)/python -m bench
	@$(BIN)/python -m bench.page
	@.venv-bench/bin/python -m bench.plots

lock: install ## Pin what pyproject.toml asks for in requirements.lock; keeps pins that still fit
	@sh scripts/lock.sh $(VENV)
