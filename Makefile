# Two commands: `make run` and `make test`. Each does all of its set-up first; nothing else has to be installed.
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help run test soak fuzz check format bench bench-others image lock upgrade clean environment-run environment-dev

# Tools are run as modules, so that the tree can be moved; PYTHONSAFEPATH and PYTHONPATH: as in ./sluice.
RUN = PYTHONPATH='$(CURDIR)' .venv/bin/python
DEV = PYTHONPATH='$(CURDIR)' .venv-dev/bin/python

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

run: ## Set everything up and start the gateway on 127.0.0.1:8080
	@./sluice serve --banner

test: environment-dev check ## Set everything up, check, and run all tests with the coverage bars
	@$(DEV) -m tests.servers
	@$(DEV) -m tests.redis_server
	@$(DEV) -m coverage erase
	$(DEV) tools/run_tests.py
	@$(DEV) -m coverage combine --quiet
	@$(DEV) -m coverage json --quiet -o .cache/coverage.json
	@$(DEV) tools/coverage_bars.py .cache/coverage.json

soak: environment-dev ## Mixed traffic and a reload a second for SOAK_SECONDS (300): what is left of it; proofs at full size
	$(DEV) -m pytest -m soak -s tests/soak tests/integration

fuzz: environment-dev ## Feed every parser anything at all for its share of FUZZ_SECONDS (60), from the golden messages on
	@$(DEV) -m tests.fuzz

check: environment-dev ## Lint, formatting, types, import layers, generated files, documents
	$(DEV) -m ruff check .
	$(DEV) -m ruff format --check .
	$(DEV) -m mypy
	$(DEV) -c 'from importlinter.cli import lint_imports_command as check; check()' --no-logo --cache-dir .cache/import-linter
	SLUICE_VENV=.venv-dev ./sluice schema --check
	SLUICE_VENV=.venv-dev ./sluice openapi --check
	$(DEV) -m tests.web_client
	$(DEV) -m pytest -q tests/test_docs.py tests/test_layout.py tests/test_dockerfile.py

format: environment-dev ## Format the code, and mend what the linter can mend
	$(DEV) -m ruff format .
	$(DEV) -m ruff check --fix .

bench: environment-run ## Measure the gateway beside a direct row and an nginx row (bench/results/)
	@$(RUN) -m bench

bench-others: environment-run ## The same beside LiteLLM's and Portkey's gateways, installed into .cache/others
	@$(RUN) -m bench --others

image: ## Build the container image `sluice`
	@engine=; for name in docker podman; do \
		if $$name info >/dev/null 2>&1; then engine=$$name; break; fi; \
	done; \
	if [ -z "$$engine" ]; then \
		echo "make image: no container engine answers: start Docker or Podman (\`docker info\` must succeed)" >&2; exit 1; \
	fi; \
	$$engine build --tag sluice .

# The locks hold for every Python from 3.11 on, and name no address of a registry. Versions that still fit are kept.
COMPILE = .venv-dev/bin/python -m uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	--no-emit-index-url --no-emit-find-links --custom-compile-command "make lock" $(UPGRADE)

lock: environment-dev ## Write requirements/*.txt anew from pyproject.toml
	$(COMPILE) pyproject.toml --output-file requirements/run.txt
	$(COMPILE) --constraint requirements/run.txt --group dev pyproject.toml --output-file requirements/dev.txt

upgrade: ## The same, with the newest versions
	@$(MAKE) lock UPGRADE=--upgrade

clean: ## Remove everything that was made: environments, caches, measurements of coverage
	rm -rf .venv .venv.lock .venv-dev .venv-dev.lock .cache .coverage .coverage.* .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

environment-run:
	@tools/environment run

environment-dev:
	@tools/environment dev
