"""Builds the programs that the cluster tests and the cluster demo run, once, into a cache outside the tree.

`python -m support.controlplane.build` (with PYTHONPATH=tests) builds all of them, with progress on stderr.
"""

import fcntl
import hashlib
import os
import re
import select
import shutil
import signal
import subprocess
import sys
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from support.controlplane.errors import BuildError, UnavailableError
from support.controlplane.golang import REPOSITORY, cache_dir, find_go
from support.controlplane.leash import leashed
from support.controlplane.progress import Progress

SOURCES = REPOSITORY / "tests" / "controlplane"

ASSETS = "KUBEBUILDER_ASSETS"
"""The environment variable by which people name a directory with a control plane of their own."""

UNREACHABLE = re.compile(
    r"dial tcp|no such host|connection refused|network is unreachable|i/o timeout|TLS handshake|proxyconnect"
    r"|module lookup disabled|x509:|: (403|404|407|410|429|50\d) "
)
"""What Go says where it cannot download modules."""


@dataclass(frozen=True)
class Source:
    """A Go module of ours, or one that pins a tool, and what is built from it."""

    name: str
    directory: Path
    module: str
    """The module whose version is the version of what is built."""
    package: str = "."
    programs: tuple[str, ...] = ()
    """Names under which the one binary is several programs."""
    note: str = ""
    """How long it takes."""

    @property
    def version(self) -> str:
        """The version that go.mod requires."""
        found = re.search(
            rf"^(?:require)?\s+{re.escape(self.module)} (v\S+)", (self.directory / "go.mod").read_text(), re.MULTILINE
        )
        assert found is not None, f"{self.directory}/go.mod requires no {self.module}"
        return found[1]

    @property
    def home(self) -> Path:
        """Where it is kept: another version or another source has another place."""
        digest = hashlib.sha256()
        for file in [*sorted(self.directory.glob("*.go")), self.directory / "go.mod", self.directory / "go.sum"]:
            digest.update(file.read_bytes())
        return cache_dir() / self.name / f"{self.version}-{digest.hexdigest()[:12]}"

    @property
    def linker_flags(self) -> str:
        """Flags that make the programs know their version, which Kubernetes' own build sets in this way."""
        if self.module != "k8s.io/kubernetes":
            return "-s -w"
        major, minor, _ = self.version.removeprefix("v").split(".")
        base, client = "k8s.io/component-base/version", "k8s.io/client-go/pkg/version"
        values = (f"{base}.gitVersion={self.version}", f"{base}.gitMajor={major}", f"{base}.gitMinor={minor}")
        return " ".join(["-s -w", *(f"-X {value}" for value in (*values, f"{client}.gitVersion={self.version}"))])


CONTROL_PLANE = Source(
    name="controlplane",
    directory=SOURCES,
    module="k8s.io/kubernetes",
    programs=("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubelet", "kubectl"),
    note="once; 5 to 10 minutes on two cores",
)
HELM = Source("helm", SOURCES / "helm", "helm.sh/helm/v4", "helm.sh/helm/v4/cmd/helm", note="once; a few minutes")
KSTATUS = Source("kstatus", SOURCES / "kstatus", "github.com/fluxcd/cli-utils", note="once; about a minute")


def program(name: str) -> Path:
    """Give one program of the control plane: from KUBEBUILDER_ASSETS if it is there, else built by us.

    Raises `UnavailableError` where it can be neither found nor built, and `BuildError` where it does not compile.
    """
    assets = os.environ.get(ASSETS)
    if assets and (Path(assets) / name).exists():
        return Path(assets) / name
    return built(CONTROL_PLANE) / name


def binaries() -> dict[str, Path]:
    """Give all programs of the control plane by name; raises as `program` does."""
    return {name: program(name) for name in CONTROL_PLANE.programs if name != "kubelet"}


def helm() -> Path:
    """Give Helm; raises as `program` does."""
    return built(HELM) / "helm"


def kstatus() -> Path:
    """Give the program that computes kstatus of an object on stdin; raises as `program` does."""
    return built(KSTATUS) / "kstatus"


def built(source: Source) -> Path:
    """Give the directory with what is built from a source; build it first if that was never done.

    Two processes never build the same at once, and a build that is killed leaves nothing that looks finished.
    """
    home = source.home
    if home.exists():
        return home
    home.parent.mkdir(parents=True, exist_ok=True)
    with _locked(home.with_name(f"{home.name}.lock"), source.name):
        if not home.exists():
            partial = home.with_name(f"{home.name}.partial")
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir()
            _compile(source, find_go(), partial / source.name)
            for name in source.programs:
                (partial / name).symlink_to(source.name)
            partial.rename(home)
    return home


@contextmanager
def _locked(path: Path, name: str) -> Iterator[None]:
    with path.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            progress = Progress(f"Another process builds {name}; waiting for it")
            fcntl.flock(lock, fcntl.LOCK_EX)
            progress.done("done")
        yield


def _environment() -> Mapping[str, str]:
    fixed = {"GOFLAGS": "-mod=readonly -buildvcs=false", "GOTOOLCHAIN": "local", "GOWORK": "off", "CGO_ENABLED": "0"}
    return {**os.environ, **fixed}


def _compile(source: Source, go: Path, output: Path) -> None:
    """Run Go, showing which package it compiles."""
    command = ["build", "-v", "-trimpath", "-ldflags", source.linker_flags, "-o", str(output), source.package]
    progress = Progress(f"Building {source.name} {source.version}{source.note and f' ({source.note})'}")
    said: deque[str] = deque(maxlen=15)
    with subprocess.Popen(
        leashed(str(go), *command, signal=signal.SIGTERM),
        cwd=source.directory,
        env=_environment(),
        stderr=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
        start_new_session=True,
    ) as process:
        try:
            _follow(process, progress, said)
        except BaseException:  # interrupted: Go's compilers go with us
            os.killpg(process.pid, signal.SIGKILL)
            raise
    if process.returncode == 0:
        progress.done("built")
        return
    progress.done("failed")
    tail = "\n".join(said)
    if UNREACHABLE.search(tail):
        message = f"{source.name} {source.version} must be built, and Go could not download its modules:\n{tail}"
        raise UnavailableError(message)
    raise BuildError(f"{source.name} {source.version} does not build with {go}:\n{tail}")


def _follow(process: "subprocess.Popen[bytes]", progress: Progress, said: deque[str]) -> None:
    """Show each line until the process ends. Linking takes long and says nothing: the last line is shown again."""
    assert process.stderr is not None
    stderr = process.stderr.fileno()
    doing, rest = "starting", b""
    while True:
        if select.select([stderr], [], [], 0.2)[0]:
            chunk = os.read(stderr, 65536)
            if not chunk:
                return
            *lines, rest = (rest + chunk).split(b"\n")
            said.extend(line.decode(errors="replace") for line in lines)
            doing = said[-1] if said else doing
        progress.show(doing)


def main() -> int:
    """Build everything that is not built yet."""
    try:
        for name, path in binaries().items():
            sys.stdout.write(f"{name}: {path}\n")
        sys.stdout.write(f"helm: {helm()}\nkstatus: {kstatus()}\n")
    except (UnavailableError, BuildError) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
