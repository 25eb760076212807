# Herald's index: `make help`. GNU make 3.81 and POSIX sh are enough.

TARGET = $${CARGO_TARGET_DIR:-target}/debug
DEVSTACK = $(TARGET)/devstack
# Without a pid file nothing runs; with one, what runs outlived its build (cargo clean).
IF_BUILT = if [ ! -x $(DEVSTACK) ]; then \
	ls .local/*.pid >/dev/null 2>&1 || { echo "nothing runs: make run brings it up"; exit 0; }; \
	cargo build -q -p devstack || exit 1; fi;
SQLX_CLI = .local/cargo/bin/sqlx

.DEFAULT_GOAL = help
.PHONY: help run stop reset status logs demo test check fmt sqlx chaos histories bench tools

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-9s %s\n", $$1, $$2 }' Makefile

run: tools ## Build, bring up Kafka, Postgres, the provider simulator and Herald, run the demo
	@cargo build
	@$(DEVSTACK) run

stop: ## Stop what `make run` started
	@$(IF_BUILT) $(DEVSTACK) stop

reset: ## Stop it and remove its data
	@$(IF_BUILT) $(DEVSTACK) reset

status: ## Show each process: pid, port, ready or why not
	@$(IF_BUILT) $(DEVSTACK) status

logs: ## Show the logs; on a terminal, follow them
	@$(IF_BUILT) $(DEVSTACK) logs

demo: tools ## Run the demo against what is up
	@cargo build -q
	@$(DEVSTACK) demo

test: tools ## Run every test on a Kafka and a Postgres of its own
	@start=$$(date +%s) && \
	cargo build --workspace --bins --tests && \
	$(DEVSTACK) test-env --build $$(($$(date +%s) - start)) -- cargo test --workspace --no-fail-fast

check: tools ## Formatting, lints, dependencies, queries against the migrated schema
	@cargo fmt --all --check
	@cargo clippy --workspace --all-targets -- -D warnings
	@if ! cargo deny --version >/dev/null 2>&1; then echo "skipped: cargo deny isn't installed"; \
	elif ls -d "$${CARGO_HOME:-$$HOME/.cargo}"/advisory-dbs/*/ >/dev/null 2>&1; then cargo deny check --disable-fetch; \
	else echo "skipped: cargo deny check advisories, for its database isn't here (cargo deny fetch)"; \
		cargo deny check bans licenses sources; fi
	@if docker compose version >/dev/null 2>&1; then docker compose config -q; \
	else echo "skipped: docker compose isn't installed"; fi
	@cargo build --workspace --bins --tests
	@$(DEVSTACK) test-env --postgres-only -- sh -ec '$(TARGET)/herald migrate; $(CHECK_QUERIES)'

# A profile of its own makes this another unit than the offline check, so neither takes the other's result; it is redone when
# the crate or a migration has changed.
CHECK_QUERIES = SQLX_OFFLINE=false cargo check -p store --config profile.dev.package.store.codegen-units=1

fmt: ## Format everything
	@cargo fmt --all

sqlx: tools $(SQLX_CLI) ## Write .sqlx anew after a query or a migration has changed
	@cargo build -p devstack
	@PATH="$$PWD/.local/cargo/bin:$$PATH" $(DEVSTACK) test-env --postgres-only -- sh -ec \
		'sqlx migrate run --source migrations; SQLX_OFFLINE=false cargo sqlx prepare --workspace -- --all-targets'

$(SQLX_CLI):
	cargo install sqlx-cli --version '^0.9' --root .local/cargo --no-default-features --features postgres,rustls

chaos: tools ## Play the long runs under fire: make chaos [SEEDS="1 2 3"] [RUNS="kills rolling"]
	@cargo build --workspace --bins --tests
	@$(TARGET)/chaos --seeds "$(SEEDS)" $(RUNS)

histories: tools ## Play random histories: 1,000,000 of the ledger and of the projector's fold, 10,000 of the fleet
	PROPTEST_CASES=1000000 cargo test -p kafka -p projector --lib -- ledger fold
	FLEET_HISTORIES=10000 cargo test -p domain --test fleet -- whatever

bench: tools ## Measure 100,000 messages: make bench [BENCH_BASE=a commit] [BENCH_RUNS=5] [BENCH_LATENCY=50ms]
	@cargo build --release -p herald -p provider-sim -p bench
	@$${CARGO_TARGET_DIR:-target}/release/bench

# What a build needs beside Rust, each missing thing in one sentence.
tools:
	@command -v cargo >/dev/null || { echo "error: Rust isn't here: install it from https://rustup.rs" >&2; exit 1; }
	@command -v $${CC:-cc} >/dev/null || { echo "error: there is no C compiler ($${CC:-cc}): install gcc or clang" >&2; exit 1; }
	@command -v $${CXX:-c++} >/dev/null || { echo "error: there is no C++ compiler ($${CXX:-c++}): install g++ or clang" >&2; exit 1; }
	@df -Pk . | awk 'NR == 2 && $$4 < 1048576 { print "error: the disk is full: " $$6 " has less than 1 GB free"; exit 1 }' >&2
