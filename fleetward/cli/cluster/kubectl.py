"""kubectl as a process: it knows kubeconfigs, contexts and sign-in plug-ins better than any library would."""

import json
import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from typing import Any

from fleetward.cli.output import CliError

VARIABLE = "FLEETWARD_KUBECTL"
"""Names the kubectl to use, where it is not the one in PATH."""

REQUEST_SECONDS = 15
"""How long one request to the API server may take."""

_LOG_LINE = re.compile(r"[EWIF]\d{4} \d\d:")
_PREFIX = re.compile(r"^(error: |Error from server \(\w+\): |Error from server: )")


class KubectlError(CliError):
    """kubectl failed; the message is its own, on one line. `stdout` is what it gave all the same."""

    def __init__(self, lines: tuple[str, ...], stdout: bytes = b"") -> None:
        super().__init__(f"kubectl: {'; '.join(lines)}")
        self.lines = lines
        self.stdout = stdout


@dataclass(frozen=True)
class Kubectl:
    """Runs kubectl for one cluster, as one user."""

    kubeconfig: str | None = None
    context: str | None = None
    user: str | None = None
    """Whom to act as (`--as`)."""

    def command(self, *arguments: str) -> list[str]:
        """Give the command line. CliError where there is no kubectl."""
        named = os.environ.get(VARIABLE)
        program = shutil.which(named or "kubectl")
        if program is None:
            found = f"{VARIABLE}={named}, which is no program" if named else "no kubectl in PATH"
            raise CliError(f"found {found}; a cluster is reached through kubectl: install it, or set {VARIABLE}")
        given = {"--kubeconfig": self.kubeconfig, "--context": self.context, "--as": self.user}
        return [program, *arguments, *(f"{option}={value}" for option, value in given.items() if value)]

    def run(self, *arguments: str, seconds: int = REQUEST_SECONDS) -> bytes:
        """Run kubectl and give its output. Raises KubectlError; CliError where there is no kubectl.

        `seconds` bounds each request to the API server.
        """
        done = subprocess.run(
            self.command(*arguments, f"--request-timeout={seconds}s"),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
        )
        if done.returncode:
            raise KubectlError(said(done.stderr) or (f"it ended with code {done.returncode}",), done.stdout)
        return done.stdout

    def json(self, *arguments: str) -> dict[str, Any]:
        """Run kubectl with `-o json` and give what it says. Raises as `run` does."""
        return parsed(self.run(*arguments, "-o", "json"))


def parsed(output: bytes) -> dict[str, Any]:
    """Read kubectl's JSON. Raises KubectlError where it is none."""
    try:
        value = json.loads(output)
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise KubectlError((f"its answer is no JSON object: {output[:100].decode(errors='replace')!r}",))
    return value


def said(stderr: bytes) -> tuple[str, ...]:
    """Give what kubectl says is wrong, one line for each error, without its own log and warnings."""
    errors: list[str] = []
    for line in stderr.decode(errors="replace").splitlines():
        text = line.strip()
        if not text or _LOG_LINE.match(text) or text.startswith("Warning:"):
            continue
        if text.startswith("*") and errors:  # one of several reasons why an object is invalid
            if "some validation rules were not checked" not in text:
                errors[-1] += f" {text.removeprefix('*').strip()}"
        else:
            errors.append(_PREFIX.sub("", text))
    return tuple(dict.fromkeys(errors))
