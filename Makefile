# Everything that is done with this repository. `make` alone lists it.
# Each target first makes .venv ready (tools/bootstrap); PYTHON=… chooses the interpreter, ARGS=… goes to the program.

SHELL := /bin/sh
READY := .venv/.ready
RUN   := .venv/bin/python
ARGS  ?=
WORKERS ?= 3 # of the tests, on two cores: half of the time they wait for programs that they started

.DEFAULT_GOAL := help
.PHONY: help demo test check format bench soak docs lock build clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(READY) ## watch an agent work: with your provider key if there is one, else with the model simulator
	@.venv/bin/computeragent demo $(ARGS)

test: $(READY) ## run all tests, the ones with the real CLI included
	@$(RUN) -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder $(ARGS)

check: $(READY) ## lint, format, types, floors, generated docs, public API, tree
	@$(RUN) tools/check.py $(ARGS)

format: $(READY) ## format the code and mend what the linter can mend
	@.venv/bin/ruff check --fix --quiet . ; .venv/bin/ruff format --quiet .

bench: $(READY) ## run the benchmarks
	@$(RUN) benchmarks/run.py $(ARGS)
	@$(RUN) benchmarks/redaction.py --quick
	@$(RUN) benchmarks/telemetry.py --quick
	@$(RUN) benchmarks/streams.py --quick
	@$(RUN) benchmarks/substrates.py --quick
	@$(RUN) benchmarks/computer.py --quick
	@$(RUN) benchmarks/computer_task.py --quick
	@$(RUN) benchmarks/p2p.py --quick
	@$(RUN) benchmarks/inspect_bridge.py --quick
	@$(RUN) benchmarks/inspect_evals.py --quick

soak: $(READY) ## run what takes long: soak tests, and the installation of every extra
	@$(RUN) -m pytest -m soak --timeout 1800 $(ARGS)
	@if [ -f benchmarks/soak.py ]; then $(RUN) benchmarks/soak.py $(ARGS); fi

docs: $(READY) ## write the generated pages and accept the public API as it is
	@$(RUN) tools/check_docs.py --update
	@$(RUN) tools/api_contract.py --update

lock: $(READY) ## resolve the dependencies anew (UPGRADE=1: to their newest versions)
	@tools/lock $(if $(UPGRADE),--upgrade)

build: $(READY) ## build the sdist and the wheel into dist/
	@.venv/bin/python -m hatchling build

clean: ## remove what was made here, .venv included
	@rm -rf .venv .venv-uv .demo dist build .pytest_cache .ruff_cache .hypothesis .import_linter_cache .grimp_cache
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(READY): requirements.lock pyproject.toml tools/bootstrap tools/uv.lock
	@tools/bootstrap
