"""The page on the client shows programs that run."""

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from support.serving import Serve
from support.webhook import Webhook, make_slice, names, small_hub

from fleetward.registry.slice import Rule
from fleetward.sdk import Client

PAGE = (Path(__file__).parents[2] / "docs" / "sdk.md").read_text()
SHOWN = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


def test_the_programs_shown_run(chain: Serve, capsys: pytest.CaptureFixture[str]) -> None:
    assert len(SHOWN) == 4
    opening, inside, other = SHOWN[:3]
    indented = "".join(f"    {line}\n" for line in other.splitlines())
    program = opening + inside + indented + "desk.close()\nworker.close()\n"  # the grant ends with its run
    program = program.replace("http://127.0.0.1:7480", chain.address("care/desk"))
    program = program.replace("http://127.0.0.1:7481", chain.address("care/data-worker"))
    program = program.replace('agent="care', 'timeout=20, agent="care')
    exec(compile(program, "docs/sdk.md", "exec"), {"__name__": "shown"})  # noqa: S102 - it is our own page
    assert capsys.readouterr().out.startswith("depth ")


def test_the_model_call_shown_runs(tmp_path: Path) -> None:
    def send(**arguments: Any) -> SimpleNamespace:
        return SimpleNamespace(text=f"by {arguments['model']}", usage={"prompt_tokens": 80, "completion_tokens": 20})

    models = make_slice(rules=(Rule(name="models", decision="Allow", match=names("llm.**")),))
    with small_hub(tmp_path, models) as hub, Webhook(hub.address, tmp_path) as webhook:
        with Client(webhook.await_ready().address) as desk:
            exec(compile(SHOWN[3], "docs/sdk.md", "exec"), {"desk": desk, "send": send})  # noqa: S102
        actual = webhook.spooled()[-1]["actual"]
        assert (actual["inputTokens"], actual["outputTokens"]) == (80, 20)
