"""An agent's program: goes through a list of actions and asks before each one, as the pod's environment tells it whom.

`agent.py FILE` reads the list as YAML. The last action is done again and again if it says after how many seconds. Each
answer is a line of JSON on standard output, with the time (Unix, in seconds) at which it came.
"""

import json
import signal
import sys
import threading
import time
from pathlib import Path
from types import FrameType
from typing import Any

import yaml

from fleetward.sdk import Client, Refused


def act(client: Client, task: dict[str, Any], arguments: dict[str, Any]) -> dict[str, Any]:
    """Ask for an action and, where it is allowed, report it as done. Gives what became of it."""
    start = time.perf_counter()
    try:
        permit = client.decide(task["kind"], task["name"], arguments=arguments)
        took = time.perf_counter() - start
        permit.succeed(records=task.get("records", 0))  # the work itself goes before this, with `permit.arguments`
    except Refused as refused:
        took = time.perf_counter() - start
        rule = refused.rules[0].rule if refused.rules else ""
        return {"decision": refused.decision, "rule": rule, "seconds": took, "reason": refused.reason}
    changed = {} if permit.arguments == arguments else {"arguments": permit.arguments}
    return {"decision": permit.answer.decision, "rule": permit.answer.rules[0].rule, "seconds": took, **changed}


def main() -> None:
    """Work until told to stop."""
    signal.signal(signal.SIGTERM, _stop)
    work = yaml.safe_load(Path(sys.argv[1]).read_text())
    client = Client()
    for task in work:
        again = _do(client, task)
    while again is not None:
        time.sleep(again)
        _do(client, task, repeated=True)
    threading.Event().wait()


def _do(client: Client, task: dict[str, Any], *, repeated: bool = False) -> float | None:
    """Do one task and say how it went; give the seconds after which it is to be done again."""
    arguments = task.get("arguments") or {}
    outcome = act(client, task, arguments)
    said = {"time": time.time(), "name": task["name"], "repeated": repeated, "asked": arguments, **outcome}
    sys.stdout.write(f"{json.dumps(said)}\n")
    sys.stdout.flush()
    again: float | None = task.get("again")
    return again


def _stop(_number: int, _frame: FrameType | None) -> None:
    sys.exit(0)


if __name__ == "__main__":
    main()
