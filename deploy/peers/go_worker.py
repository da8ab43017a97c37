"""Load workers with the peers' Go clients: the sources in `go/`, and Debian's packages of them."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

SOURCES = Path(__file__).with_name("go")
PACKAGED = Path("/usr/share/gocode")
CLIENTS = {
    "nats": ("github.com/nats-io/nats.go", "golang-github-nats-io-go-nats-dev"),
    "etcd": ("go.etcd.io/etcd/clientv3", "golang-etcd-server-dev"),
}
"""Of a peer: the client's import path, and the package that has it."""


def why_not(peer: str, packaged: Path = PACKAGED) -> str | None:
    """Say why a peer's Go client cannot be used here; None if it can."""
    if peer not in CLIENTS:
        return "no load worker is written for it"
    imported, package = CLIENTS[peer]
    if not shutil.which("go"):
        return "Go is not there: apt-get install golang-go"
    if not (packaged / "src" / imported).is_dir():
        return f"the client is not there: apt-get install {package}"
    return None


def built(peer: str, folder: Path) -> Path:
    """Compile a peer's worker into the folder. Raises OSError with the compiler's words."""
    folder.mkdir(parents=True, exist_ok=True)
    program = folder.resolve() / f"{peer}-worker"
    done = subprocess.run(
        ["go", "build", "-tags", peer, "-o", str(program), "."],
        cwd=SOURCES,
        env={**os.environ, "GO111MODULE": "off", "GOPATH": str(PACKAGED), "GOFLAGS": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise OSError(f"go build: {done.stderr.strip()}")
    return program
