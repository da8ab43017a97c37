# Two commands set everything up: `make up` starts a cluster, `make test` passes the tests.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed

.PHONY: up test lint demo memory indexes millions catchup compaction bench bench-peers growth profile chaos mutations fuzz clean

up: $(STAMP)  ## a local cluster of three nodes; Ctrl-C stops it and keeps its data
	$(BIN)/cute up

test: $(STAMP)  ## all tests
	$(BIN)/pytest -n 3 --dist loadfile

lint: $(STAMP)  ## style, types, and which package may import which
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

demo: $(STAMP)  ## stream real text through a cluster whose leader is killed on the way
	$(BIN)/python deploy/demo.py

memory: $(STAMP)  ## resident memory of three nodes while 1 GiB goes through
	$(BIN)/python deploy/memory.py

indexes: $(STAMP)  ## build an index of two million records under appends, and look keys up; RECORDS=10000000 for more
	$(BIN)/python deploy/indexes.py --records $(or $(RECORDS),2000000)

millions: $(STAMP)  ## ten million records in one stream: how a node starts, and reads
	$(BIN)/python deploy/millions.py

catchup: $(STAMP)  ## a node that missed 2 GiB comes back while appends go on
	$(BIN)/python deploy/catchup.py

compaction: $(STAMP)  ## five million records on 100,000 keys are compacted while appends and reads go on
	$(BIN)/python deploy/compaction.py
bench: $(STAMP)  ## produce, read, tail, failover, start, memory; 18 minutes, BENCH="--quick" 2
	$(BIN)/python deploy/bench.py $(BENCH)

# The others' clients are installed beside the product in an environment of their own.
bench-peers:  ## the same loads on NATS, etcd, RabbitMQ, ZooKeeper; 55 minutes, BENCH="--quick" 8
	$(PYTHON) -m venv build/bench-venv
	build/bench-venv/bin/pip install --quiet --disable-pip-version-check \
		--requirement deploy/peers/requirements.txt --editable .
	build/bench-venv/bin/python deploy/bench_peers.py $(BENCH)

growth: $(STAMP)  ## 1 to 1,000 streams and readers, 3 to 7 nodes, 1 to 64 producers, more kept; 7 minutes, BENCH="--quick" 2
	$(BIN)/python deploy/growth.py $(BENCH)

profile: $(STAMP)  ## processor time of a produce and a read, layer by layer; some minutes
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[profile]'
	$(BIN)/python deploy/layers.py

chaos: $(STAMP)  ## every kind of fault on real processes, networks and disks, five times each; needs root
	$(BIN)/python deploy/chaos.py

mutations: $(STAMP)  ## every deliberate bug, and how soon the simulator notices it; takes some minutes
	PYTHONPATH=tests $(BIN)/python -m support.mutations.table > replication/sim/MUTATIONS.md

fuzz: $(STAMP)  ## every parser of foreign bytes, coverage-guided; FUZZ_SECONDS (600) for each
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[fuzz]'
	$(BIN)/python tests/fuzz/run.py $(FUZZ_TARGETS)

# The editable install links file by file: a module that was added or removed needs it again.
$(STAMP): pyproject.toml $(shell find client node replication storage -type d ! -name __pycache__)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[dev]'
	touch $(STAMP)

clean:
	rm -rf $(VENV) build *.egg-info
