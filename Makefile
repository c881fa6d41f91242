# The commands of this house. Each is safe to repeat, and quick the second time.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
ARGS ?=

.PHONY: run test check bench compare soak format pictures
.DEFAULT_GOAL := run

run: $(VENV)/.installed .env          ## start the app on http://localhost:5001
	@exec $(BIN)/python main.py $(ARGS)

test: $(VENV)/.installed-dev          ## SQLite, PostgreSQL, a real browser and a real proxy
	@lacking=""; \
	command -v chromium >/dev/null || command -v chromium-browser >/dev/null || command -v google-chrome >/dev/null || lacking="chromium"; \
	PATH="$$PATH:/usr/sbin" command -v nginx >/dev/null || lacking="$$lacking nginx-light"; \
	command -v fail2ban-regex >/dev/null || lacking="$$lacking fail2ban"; \
	test -z "$$lacking" || { command -v apt-get >/dev/null && (apt-get update -qq; DEBIAN_FRONTEND=noninteractive apt-get install -y -qq $$lacking) >/dev/null; } || true
	@command -v promtool >/dev/null || test -x $(BIN)/promtool || { command -v apt-get >/dev/null && cd $(VENV) && \
	{ apt-get download -qq prometheus || { apt-get update -qq && apt-get download -qq prometheus; }; } && \
	dpkg-deb --fsys-tarfile prometheus_*.deb | tar -x --strip-components=3 -C bin ./usr/bin/promtool; rm -f prometheus_*.deb; } >/dev/null 2>&1 || true
	@$(BIN)/python -m pytest $(ARGS)

check: $(VENV)/.installed-dev         ## lint, format, types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/.installed-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(VENV)/.installed-dev         ## CPU per sign-in, beside a bare hello
	@$(BIN)/python bench/bench.py run bench/vestibule.toml --cwd . --python $(BIN)/python $(ARGS)

compare: $(VENV)/.installed-dev       ## the same beside other sign-in stacks, ten minutes
	@$(BIN)/python bench/bench.py compare bench/vestibule.toml --cwd . --python $(BIN)/python --rounds 5 --seconds 540 $(ARGS)

soak: $(VENV)/.installed-dev          ## ten minutes of mixed load: errors, memory, descriptors
	@$(BIN)/python bench/soak.py $(ARGS)

pictures: $(VENV)/.installed-dev      ## the pictures in docs/, anew
	@$(BIN)/python docs/pictures.py

.env:
	@install -m 600 .env.example .env

# A stamp newer than the requirement files means: nothing to install.
$(VENV)/.installed: requirements.txt
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "Installing requirements.txt …"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	@touch $@

$(VENV)/.installed-dev: requirements.txt requirements-dev.txt
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "Installing requirements-dev.txt …"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	@touch $(VENV)/.installed $@
