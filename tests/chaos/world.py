"""The folder that the chaos suite serves, and what its actions take out of budgets: worked out here once more, by hand.

Prices are whole micro-USD for a token, so that what a call costs needs no rounding.
"""

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from fleetward.budget.windows import window_at
from fleetward.registry.slice import BudgetWindow

INPUT_PRICE, OUTPUT_PRICE = 3, 15
"""Micro-USD for a token."""

LISTED = 3
"""Records that the catalog expects of `crm.list`."""

SETTLE_AFTER_SECONDS = 60

CRM = "calls crm.**"
BOTH = "calls crm.**,llm.**"

Limit = tuple[str, str]
"""A budget's key, and one of its limits."""

HOT, EACH, RUN, TREE = (f"AgentBudget/shop/{name}" for name in ("hot", "each", "run", "tree"))
LEFT, RIGHT, MINUTE, BRINK, EDGE = (f"AgentBudget/lab/{name}" for name in ("left", "right", "minute", "brink", "edge"))
WHOLE = "ClusterAgentBudget/whole"
OFTEN, FEW, CROWD = (f"ClusterAgentPolicy/throttles#{rule}" for rule in ("often", "few", "crowd"))

RATE, BURST = 20, 10
"""Of rule `often`: actions a second in the long run, and at once."""

LIMITS: Mapping[Limit, int] = {
    (HOT, "costMicroUsd"): 60_000,
    (HOT, "outputTokens"): 4_000,
    (HOT, "records"): 1_000,
    (HOT, CRM): 400,
    (EACH, "records"): 200,
    (EACH, BOTH): 120,
    (RUN, "records"): 30,
    (RUN, BOTH): 12,
    (TREE, "records"): 25,
    (LEFT, "outputTokens"): 3_000,
    (LEFT, "records"): 500,
    (RIGHT, "outputTokens"): 600,
    (RIGHT, "records"): 120,
    (WHOLE, "outputTokens"): 4_000,
    (WHOLE, CRM): 400,
    (MINUTE, "records"): 600,
    (MINUTE, BOTH): 400,
    (BRINK, BOTH): 100,
    (EDGE, "records"): 200,
    (FEW, "concurrency"): 2,
    (CROWD, "concurrency"): 5,
}
"""At the start; faults raise and lower them."""

WINDOWS: Mapping[str, BudgetWindow] = {
    EACH: BudgetWindow("Rolling", duration_seconds=3600),
    RIGHT: BudgetWindow("Rolling", duration_seconds=3600),
    WHOLE: BudgetWindow("Calendar", "Day", "Europe/Berlin"),
    MINUTE: BudgetWindow("Rolling", duration_seconds=60),
    BRINK: BudgetWindow("Calendar", "Hour"),
}
"""Of all others: Total."""

SHORT = (MINUTE,)
"""Budgets whose windows let go of what was used within a run of the suite."""

_MORE: Mapping[str, dict[str, Any]] = {
    HOT: {"thresholds": [{"percent": 80, "action": "Event"}]},
    EACH: {"scope": "Agent"},
    RUN: {"scope": "Run"},
    TREE: {"scope": "Subtree"},
    LEFT: {
        "subjects": {"agents": ["b0", "b1", "b2"]},
        "parent": {"kind": "ClusterAgentBudget", "name": "whole"},
    },
    RIGHT: {
        "subjects": {"agents": ["b3", "b4", "b5"]},
        "parent": {"kind": "ClusterAgentBudget", "name": "whole"},
    },
    WHOLE: {"subjects": {"agentSelector": {"matchLabels": {"part": "b"}}}},
    MINUTE: {"subjects": {"agentSelector": {"matchLabels": {"part": "b"}}}},
    BRINK: {
        "subjects": {"agents": ["p0", "p1"]},
        "thresholds": [
            {"percent": 50, "action": "Event"},
            {"percent": 75, "action": "Throttle", "perMinute": 600},
            {"percent": 100, "action": "Pause"},
        ],
    },
    EDGE: {
        "subjects": {"agents": ["p0", "p1"]},
        "thresholds": [{"percent": 60, "action": "Event"}, {"percent": 90, "action": "RequireApproval"}],
    },
}

LEAD = "shop/lead"
SHOP = tuple(f"shop/a{number}" for number in range(4))
LEFT_HALF = tuple(f"lab/b{number}" for number in range(3))
RIGHT_HALF = tuple(f"lab/b{number}" for number in range(3, 6))
BRINKS = ("lab/p0", "lab/p1")
AGENTS = (LEAD, *SHOP, *LEFT_HALF, *RIGHT_HALF, *BRINKS)
TRUSTED = "lab"
"""The fleet whose declared facts are believed."""


@dataclass(frozen=True)
class Pot:
    """A window of a pot, as the agents see it."""

    budget: str
    scope: str
    window: str


Amounts = dict[str, int]


@dataclass(frozen=True)
class Action:
    """What an agent asks for."""

    agent: str
    name: str
    records: int | None = None
    input_tokens: int = 0
    max_tokens: int = 0
    run: str | None = None

    @property
    def is_model_call(self) -> bool:
        return self.name.startswith("llm.")

    @property
    def arguments(self) -> dict[str, Any] | None:
        return {"model": "m-large", "max_tokens": self.max_tokens} if self.is_model_call else None

    def body(self) -> dict[str, Any]:
        """Give the action as it is sent."""
        body: dict[str, Any] = {"kind": "ModelCall" if self.is_model_call else "ToolCall", "name": self.name}
        estimate = {"inputTokens": self.input_tokens} if self.is_model_call else {}
        if self.records is not None:
            estimate["records"] = self.records
        if estimate:
            body["estimate"] = estimate
        if self.arguments is not None:
            body["arguments"] = self.arguments
        return body

    def estimate(self) -> Amounts:
        """Give what it is expected to use in all."""
        if self.is_model_call:
            cost = INPUT_PRICE * self.input_tokens + OUTPUT_PRICE * self.max_tokens
            return {"outputTokens": self.max_tokens, "costMicroUsd": cost}
        if self.name == "crm.list":
            return {"records": max(LISTED, self.records or 0)}
        return {"records": self.records or 0}

    def pots(self) -> dict[tuple[str, str], Amounts]:
        """Give what it takes of each pot, by budget and scope; those of grants aside."""
        amounts, found = self.estimate(), {}
        for budget, scope in self._counts_in():
            taken = {}
            for key, limit in LIMITS:
                amount = _calls(limit, self.name) if limit.startswith("calls ") else amounts.get(limit, 0)
                if key == budget and amount:
                    taken[limit] = amount
            if taken:
                found[budget, scope] = taken
        if self.name == "slow.job":
            found[FEW, self.run or f"agent:{self.agent}"] = {"concurrency": 1}
        if self.name == "queue.job":
            found[CROWD, ""] = {"concurrency": 1}
        return found

    def _counts_in(self) -> Iterable[tuple[str, str]]:
        run = self.run or f"agent:{self.agent}"
        if self.agent.startswith("shop/"):
            return ((HOT, ""), (EACH, self.agent), (RUN, run), (TREE, run))
        if self.agent in BRINKS:
            return ((BRINK, ""), (EDGE, ""))
        half = LEFT if self.agent in LEFT_HALF else RIGHT
        return ((half, ""), (WHOLE, ""), (MINUTE, ""))


def _calls(limit: str, name: str) -> int:
    globs = limit.removeprefix("calls ").split(",")
    return int(any(name.startswith(glob.removesuffix("**")) for glob in globs))


def window_id(budget: str, now: float) -> str:
    """Give the window of a budget, or of a rule, that is open at a time."""
    return window_at(WINDOWS.get(budget, BudgetWindow()), now).id


def write(folder: Path, limits: Mapping[Limit, int]) -> None:
    """Write the folder under these limits, each file at once."""
    folder.mkdir(parents=True, exist_ok=True)
    _write(folder / "agents.yaml", _agents())
    _write(folder / "policies.yaml", [*_policies(limits), _catalog()])
    _write(
        folder / "budgets.yaml",
        [_budget(key, limits) for key in dict.fromkeys(key for key, _ in LIMITS) if "#" not in key],
    )


def _write(file: Path, resources: Iterable[dict[str, Any]]) -> None:
    text = yaml.safe_dump_all(resources, sort_keys=False)
    if file.exists() and file.read_text() == text:
        return
    draft = file.with_name(f".{file.name}.new")
    draft.write_text(text)
    os.replace(draft, file)  # noqa: PTH105


def _resource(kind: str, name: str, spec: dict[str, Any], namespace: str = "", **labels: str) -> dict[str, Any]:
    metadata: dict[str, Any] = {"name": name}
    if namespace:
        metadata["namespace"] = namespace
    if labels:
        metadata["labels"] = labels
    return {"apiVersion": "fleetward.dev/v1alpha1", "kind": kind, "metadata": metadata, "spec": spec}


def _agents() -> list[dict[str, Any]]:
    found = []
    for key in AGENTS:
        namespace, _, name = key.partition("/")
        spec: dict[str, Any] = {"role": "Worker"}
        if key == LEAD:
            spec = {"role": "Coordinator", "mayDelegateTo": {"roles": ["Worker"]}}
        found.append(_resource("Agent", name, spec, namespace, team=namespace, part=name[0]))
    for fleet in ("shop", "lab"):
        facts = "Trusted" if fleet == TRUSTED else "RestrictOnly"
        selector = {"agentSelector": {"matchLabels": {"team": fleet}}}
        found.append(_resource("AgentFleet", fleet, {"agents": selector, "declaredFacts": facts}))
    return found


def _policies(limits: Mapping[Limit, int]) -> list[dict[str, Any]]:
    rate = {"count": RATE, "perSeconds": 1, "burst": BURST}
    throttles: list[tuple[str, str, dict[str, Any]]] = [
        ("often", "burst.**", {"rate": rate, "scope": "Shared"}),
        ("few", "slow.**", {"concurrency": limits[FEW, "concurrency"], "scope": "Run"}),
        ("crowd", "queue.**", {"concurrency": limits[CROWD, "concurrency"], "scope": "Shared"}),
    ]
    rules = [
        {"name": name, "match": {"names": [glob]}, "decision": "Throttle", "throttle": throttle}
        for name, glob, throttle in throttles
    ]
    may = {"name": "may", "match": {}, "decision": "Allow"}
    return [
        _resource("ClusterAgentPolicy", "may", {"rules": [may]}),
        _resource("ClusterAgentPolicy", "throttles", {"rules": rules}),
    ]


def _catalog() -> dict[str, Any]:
    prices = {"inputMicroUsdPerMillion": INPUT_PRICE * 10**6, "outputMicroUsdPerMillion": OUTPUT_PRICE * 10**6}
    entries = [
        {"names": ["crm.list"], "estimate": {"records": LISTED}},
        {"names": ["burst.**", "slow.**", "queue.**"], "estimate": {"records": 0}},
    ]
    return _resource("ActionCatalog", "all", {"entries": entries, "models": [{"models": ["m-*"], **prices}]})


def _budget(key: str, limits: Mapping[Limit, int]) -> dict[str, Any]:
    kind, _, name = key.partition("/")
    namespace, _, name = name.rpartition("/")
    said: dict[str, Any] = {}
    for (budget, limit), most in limits.items():
        if budget != key:
            continue
        if limit.startswith("calls "):
            said.setdefault("calls", []).append({"names": limit.removeprefix("calls ").split(","), "max": most})
        else:
            said[limit] = most
    spec = {"window": _window(key), "limits": said, "settleAfterSeconds": SETTLE_AFTER_SECONDS, **_MORE[key]}
    return _resource(kind, name, spec, namespace)


def _window(key: str) -> dict[str, Any]:
    window = WINDOWS.get(key)
    if window is None:
        return {"kind": "Total"}
    if window.kind == "Rolling":
        return {"kind": "Rolling", "duration": f"{window.duration_seconds}s"}
    return {"kind": "Calendar", "unit": window.unit, "timeZone": window.time_zone}
