"""The page on the client shows programs that run."""

import re
from pathlib import Path

import pytest
from support.serving import Serve

PAGE = (Path(__file__).parents[2] / "docs" / "sdk.md").read_text()


def test_the_programs_shown_run(chain: Serve, capsys: pytest.CaptureFixture[str]) -> None:
    shown = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    assert len(shown) == 3
    opening, inside, other = shown
    indented = "".join(f"    {line}\n" for line in other.splitlines())
    program = opening + inside + indented + "desk.close()\nworker.close()\n"  # the grant ends with its run
    program = program.replace("http://127.0.0.1:7480", chain.address("care/desk"))
    program = program.replace("http://127.0.0.1:7481", chain.address("care/data-worker"))
    program = program.replace('agent="care', 'timeout=20, agent="care')
    exec(compile(program, "docs/sdk.md", "exec"), {"__name__": "shown"})  # noqa: S102 - it is our own page
    assert capsys.readouterr().out.startswith("depth ")
