"""The image and the kind script, as far as they can be looked at without Docker."""

import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml
from support.chart import MANIFESTS, ROOT, objects, workloads

from fleetward_webhook.admission.container import USER

DOCKERFILE = (ROOT / "Dockerfile").read_text()
KIND_UP = ROOT / "charts" / "kind-up.sh"


def instructions() -> list[list[str]]:
    joined = re.sub(r"\\\n", " ", re.sub(r"^#.*\n", "", DOCKERFILE, flags=re.MULTILINE))
    return [line.split(maxsplit=1) for line in joined.splitlines() if line.strip()]


def test_the_image_by_itself_is_the_decision_webhook() -> None:
    """Injected containers give no command."""
    last = dict(instructions())
    assert last["ENTRYPOINT"] == '["fleetward-webhook"]'
    assert last["USER"] == f"{USER}:{USER}"


def test_the_programs_that_the_chart_starts_are_installed() -> None:
    scripts = re.findall(r"^(fleetward-\w+) = ", (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    started = {t["spec"]["containers"][0]["command"][0] for t in workloads(objects(MANIFESTS.read_text())).values()}
    assert started == {"fleetward-operator", "fleetward-admission"}
    assert started | {"fleetward-webhook"} <= set(scripts)


def test_everything_copied_is_there_and_not_ignored() -> None:
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    for instruction, rest in instructions():
        if instruction != "COPY" or rest.startswith("--from="):
            continue
        for source in shlex.split(rest)[:-1]:
            assert (ROOT / source).exists(), source
            assert f"!{Path(source).parts[0]}" in ignored


def test_only_known_files_are_installed() -> None:
    installs = [rest for instruction, rest in instructions() if instruction == "RUN" and "pip install" in rest]
    for command in (part for rest in installs for part in rest.split("&&") if "pip install" in part):
        assert "--require-hashes" in command or "--no-deps /wheels/*.whl" in command


def test_requirements_of_the_image_are_those_that_are_tested() -> None:
    pin = re.compile(r"^([a-z0-9-]+)==(\S+)", re.MULTILINE)
    ours, tested = (dict(pin.findall((ROOT / "requirements" / f).read_text())) for f in ("image.txt", "dev.txt"))
    assert "kopf" in ours
    assert not {"pytest", "mypy", "ruff"} & ours.keys()
    assert ours.items() <= tested.items()


def test_kind_has_a_node_for_each_replica() -> None:
    config = yaml.safe_load((ROOT / "kind-config.yaml").read_text())
    assert [node["role"] for node in config["nodes"]].count("worker") == 2
    assert f"cluster={config['name']}" in KIND_UP.read_text()


def test_the_kind_script_says_what_is_missing(tmp_path: Path) -> None:
    for program in ("bash", "dirname", "sed", "sort"):
        found = shutil.which(program)
        assert found
        (tmp_path / program).symlink_to(found)
    done = subprocess.run(
        [KIND_UP], capture_output=True, text=True, check=False, timeout=20, env={"PATH": str(tmp_path)}
    )
    assert done.returncode == 1
    assert "docker kind kubectl" in done.stderr


def test_the_kind_script_builds_the_image_that_the_manifests_name() -> None:
    (line,) = (line for line in KIND_UP.read_text().splitlines() if line.startswith("image="))
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", f'{line}\nprintf %s "$image"'],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
        timeout=20,
    )
    assert done.stdout == "fleetward:0.1.0"


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="shellcheck is not installed")
def test_shellcheck_has_nothing_to_say() -> None:
    subprocess.run(["shellcheck", KIND_UP], check=True, timeout=20)
