"""`kubectl port-forward` to the hub, for as long as it is needed, and again where it ended."""

import re
import subprocess
import tempfile
import time
from types import TracebackType
from typing import Self

from fleetward.cli.cluster.kubectl import Kubectl, KubectlError, said
from fleetward.resources.names import HUB_PORT, HUB_SERVICE

START_SECONDS = 20.0
END_SECONDS = 5.0

_FORWARDING = re.compile(rb"Forwarding from 127\.0\.0\.1:(\d+)")


class PortForward:
    """A context manager; `port` gives the local port."""

    def __init__(self, kubectl: Kubectl, namespace: str) -> None:
        target = ["port-forward", "--namespace", namespace, f"svc/{HUB_SERVICE}", f":{HUB_PORT}"]
        self._command = kubectl.command(*target, "--address=127.0.0.1")
        self._process: subprocess.Popen[bytes] | None = None
        self._port = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    def port(self) -> int:
        """Give the local port; start kubectl where it does not run. Raises KubectlError."""
        if self._process is None or self._process.poll() is not None:
            self._end()
            self._start()
        return self._port

    def _start(self) -> None:
        # What it says goes to files: nobody would drain a pipe, and a full one would stop the forwarding.
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as errors:
            # In a session of its own, Ctrl-C is for us alone, and we end it.
            self._process = subprocess.Popen(
                self._command, stdin=subprocess.DEVNULL, stdout=out, stderr=errors, start_new_session=True
            )
            deadline = time.monotonic() + START_SECONDS
            while time.monotonic() < deadline:
                ended = self._process.poll() is not None
                out.seek(0)
                if found := _FORWARDING.search(out.read()):
                    self._port = int(found.group(1))
                    return
                if ended:
                    break
                time.sleep(0.02)
            self._end()
            errors.seek(0)
            problem = said(errors.read()) or (f"port-forward to {HUB_SERVICE} is not there after {START_SECONDS:g} s",)
            raise KubectlError(problem)

    def _end(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.terminate()
        try:
            process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
