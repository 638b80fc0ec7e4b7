"""A control plane, Fleetward on it as its manifests install it, and what both can be asked about themselves."""

import json
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
from support.chart import NAMESPACE
from support.controlplane.fixtures import make_namespace
from support.controlplane.plane import ControlPlane
from support.installed import Installed, installed

from fleetward.resources.names import ADMISSION, OPERATOR

USERS = {name: f"system:serviceaccount:{NAMESPACE}:{name}" for name in (OPERATOR, ADMISSION)}
"""Whose requests the API server's audit log holds."""

AUDIT_POLICY = {
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    "omitStages": ["RequestReceived", "ResponseStarted"],
    "rules": [{"level": "Metadata", "users": list(USERS.values())}, {"level": "None"}],
}


@dataclass(frozen=True)
class Cluster:
    """A control plane of the bench's own."""

    plane: ControlPlane
    directory: Path
    """For files, removed in the end."""

    @property
    def audit_log(self) -> Path:
        """One JSON line for each request of Fleetward that the API server has answered."""
        return self.directory / "audit.log"

    def audited(self) -> int:
        """Give the place in the audit log that it has come to."""
        return self.audit_log.stat().st_size if self.audit_log.exists() else 0

    def calls(self, since: int) -> Counter[tuple[str, str, str]]:
        """Count the requests after a place in the log, by program, verb and resource. Watches count when they end."""
        found: Counter[tuple[str, str, str]] = Counter()
        programs = {user: name for name, user in USERS.items()}
        with self.audit_log.open("rb") as log:
            log.seek(since)
            for line in log:
                event = json.loads(line)
                on = event.get("objectRef") or {}
                resource = "/".join(filter(None, (on.get("resource", event["requestURI"]), on.get("subresource"))))
                found[programs[event["user"]["username"]], event["verb"], resource] += 1
        return found

    def make_namespace(self, name: str, **labels: str) -> None:
        """Make a namespace in which pods can be made."""
        make_namespace(self.plane, name, labels)

    @contextmanager
    def fleetward(self, *options: str) -> Iterator[Installed]:
        """Install Fleetward; `options` are for the operator."""
        with installed(self.plane, self.directory, *options) as running:
            yield running


@contextmanager
def cluster(*, scheduler: bool = True) -> Iterator[Cluster]:
    """Have a control plane without Fleetward."""
    with tempfile.TemporaryDirectory(prefix="fleetward-bench-") as name:
        directory = Path(name)
        policy = directory / "audit-policy.json"
        policy.write_text(json.dumps(AUDIT_POLICY))
        audit = (f"--audit-policy-file={policy}", f"--audit-log-path={directory / 'audit.log'}")
        with ControlPlane(scheduler=scheduler, apiserver_options=audit) as plane:
            yield Cluster(plane, directory)


class Others:
    """What else this machine does meanwhile: it takes the processor from what is measured."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._busy, self._own = _busy_seconds(), _own_seconds()

    def processors(self) -> float:
        """Say how many processors something else has had since, on average. Call before own programs end."""
        busy, own = _busy_seconds() - self._busy, _own_seconds() - self._own
        return max(0.0, busy - own) / (time.monotonic() - self._began)


def _busy_seconds() -> float:
    times = psutil.cpu_times()
    return float(sum(times) - times.idle - times.iowait - times.guest - times.guest_nice)


def _own_seconds() -> float:
    own = psutil.Process()
    return sum(cpu_seconds(each) for each in (own, *own.children(recursive=True)))


def process(program: str) -> psutil.Process:
    """Find one of Fleetward's programs that this process has started."""
    (found,) = [child for child in psutil.Process().children() if any(program in part for part in child.cmdline()[:2])]
    return found


def peak_mib(of: psutil.Process) -> float:
    """Give the most memory that a process has had resident so far (VmHWM of Linux), in MiB."""
    status = Path(f"/proc/{of.pid}/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) / 1024


def resident_mib(of: psutil.Process) -> float:
    """Give the memory that a process has resident now, in MiB."""
    return float(of.memory_info().rss) / 2**20


def cpu_seconds(of: psutil.Process) -> float:
    """Give the processor time that a process has used."""
    times = of.cpu_times()
    return float(times.user + times.system)
