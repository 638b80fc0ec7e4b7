"""The API server takes the ready rules and the examples of failure modes as they are."""

import re
from pathlib import Path

import pytest
from support.controlplane.fixtures import namespace, plane
from support.controlplane.plane import ControlPlane

__all__ = ["namespace", "plane"]

pytestmark = [pytest.mark.cluster, pytest.mark.xdist_group("cluster")]

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


@pytest.mark.parametrize("folder", ["ready-rules", "mast"])
def test_the_api_server_takes_them(plane: ControlPlane, namespace: str, folder: str) -> None:
    files = sorted((EXAMPLES / folder).glob("*.yaml"))
    text = "\n---\n".join(file.read_text() for file in files)
    there = re.sub(r"namespace: [a-z0-9-]+", f"namespace: {namespace}", text)
    taken = plane.kubectl("apply", "--server-side", "--dry-run=server", "-f", "-", input=there)
    assert len(taken.splitlines()) == len(re.findall(r"^kind: ", text, re.MULTILINE))
