"""Work handed down: a decision at depth 5 beside one at depth 0, delegations, plans, and the trace of it all."""

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from bench.serving import Poster, Served, served
from bench.stats import Samples, interleaved
from fleetward.resources import API_VERSION

DEPTH = 5
STEPS = 1_000
"""Of a plan."""

BLOCK = 50
OUTSIDE = "decision, no run"
AT_0 = "decision in a run, depth 0"
AT_5 = f"decision in a run, depth {DEPTH}"
DELEGATION = "delegation"
PLAN = f"plan of {STEPS:,} steps"
TRACE = "trace"


def measure(folder: Path, rounds: int) -> tuple[dict[str, Samples], dict[str, float]]:
    """Give the samples, and how many records the trace had."""
    with served(folder, _world(), "--webhooks", "1") as serving:
        run = _call(serving, "/v1/runs", agent=_agent(0), mandate={"requester": "bench", "purpose": "bench"})["run"]
        grant = _chain(serving, run)
        action = {"kind": "ToolCall", "name": "crm.customers.read", "arguments": {"segment": "trial"}}
        asked = {
            OUTSIDE: ("/v1/decisions", {"agent": _agent(0), "action": action}),
            AT_0: ("/v1/decisions", {"agent": _agent(0), "run": run, "action": action}),
            AT_5: ("/v1/decisions", {"agent": _agent(DEPTH), "run": run, "grant": grant, "action": action}),
            DELEGATION: ("/v1/delegations", {"agent": _agent(0), "to": _agent(1), "run": run, "scope": {"depth": 0}}),
        }
        posters = {name: Poster(serving.port, json.dumps(body).encode(), path) for name, (path, body) in asked.items()}
        plan = Poster(serving.port, json.dumps(_plan(run)).encode(), "/v1/plans")
        try:
            for poster in (*posters.values(), plan):
                said = json.loads(poster())
                assert said["decision"] == "Allow", said
            delegating = {DELEGATION: posters.pop(DELEGATION)}
            samples = interleaved(posters, rounds, block=BLOCK)  # type: ignore[arg-type]
            samples |= interleaved(delegating, min(rounds, 2_000), warm_up=100)  # type: ignore[arg-type]
            samples |= interleaved({PLAN: plan}, 50, warm_up=3)
        finally:
            for poster in (*posters.values(), *delegating.values(), plan):
                poster.close()
        traced, records = _trace(run, folder)
        return samples | {TRACE: traced}, {"records in the trace": records}


def _world() -> list[dict[str, Any]]:
    agents = [_resource("Agent", f"a{n}", {"role": "Worker"}) for n in range(DEPTH + 1)]
    policies = [
        _resource(
            "AgentPolicy",
            f"of-a{n}",
            {
                "subjects": {"agents": [f"a{n}"]},
                "rules": [
                    {"name": "may", "match": {}, "decision": "Allow"},
                    {"name": "no-export", "match": {"names": ["**.export"]}, "decision": "Deny"},
                    {
                        "name": "not-for-ever",
                        "match": {"kinds": ["ToolCall"]},
                        "when": "run.repeats > 100000000",
                        "decision": "Deny",
                    },
                ],
            },
        )
        for n in range(DEPTH + 1)
    ]
    return [*agents, *policies]


def _resource(kind: str, name: str, spec: dict[str, Any]) -> dict[str, Any]:
    return {
        "apiVersion": API_VERSION,
        "kind": kind,
        "metadata": {"name": name, "namespace": "chain"},
        "spec": spec,
    }


def _agent(number: int) -> str:
    return f"chain/a{number}"


def _chain(serving: Served, run: str) -> str:
    grant: str | None = None
    for number in range(DEPTH):
        more = {} if grant is None else {"grant": grant}
        said = _call(serving, "/v1/delegations", agent=_agent(number), to=_agent(number + 1), run=run, **more)
        grant = said["grant"]
    assert grant is not None
    return grant


def _plan(run: str) -> dict[str, Any]:
    steps = [
        {
            "id": f"s{n}",
            "agent": _agent(n % (DEPTH + 1)),
            "action": {"kind": "ToolCall", "name": "crm.customers.read", "estimate": {"records": 1}},
            "dependsOn": [f"s{n - 1}"] if n % 10 else [],
        }
        for n in range(STEPS)
    ]
    return {"agent": _agent(0), "run": run, "steps": steps}


def _call(serving: Served, path: str, **body: Any) -> dict[str, Any]:
    poster = Poster(serving.port, json.dumps(body).encode(), path)
    try:
        said: dict[str, Any] = json.loads(poster())
        return said
    finally:
        poster.close()


def _trace(run: str, folder: Path) -> tuple[Samples, int]:
    """Draw the run's tree as a page, as a user would."""
    page = folder.parent / "trace.html"
    data = folder / ".fleetward"
    command = [sys.executable, "-m", "fleetward.cli.main", "trace", run, "--data", str(data), "--html", str(page)]
    micros = []
    for _ in range(3):
        start = time.perf_counter_ns()
        subprocess.run(command, check=True, capture_output=True)
        micros.append((time.perf_counter_ns() - start) / 1000)
    counted = subprocess.run(
        [*command[:5], "--data", str(data), "-o", "json"], check=True, capture_output=True, text=True
    )
    return Samples(TRACE, micros), json.loads(counted.stdout)["records"]
