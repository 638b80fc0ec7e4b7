"""A second, plain evaluator, written from the design's text: no index, no plan, no cache, no fast path.

It reads the documents as written. What it gives is what decides: the decision, the rules that counted and as what,
the obligations, and after how long to try again.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from decision.strategies import MODES, Data, World

SEVERITY = ["Allow", "Constrain", "Throttle", "RequireApproval", "Deny"]

MEANING: dict[str, Callable[[Data, Data], bool]] = {
    "true": lambda _a, _g: True,
    "false": lambda _a, _g: False,
    "action.estimate.records > 1": lambda a, _: a["estimate"]["records"] > 1,
    "has(action.estimate.records) && action.estimate.records > 1": lambda a, _: a["estimate"].get("records", 0) > 1,
    "has(action.estimate.records) && action.estimate.records <= 1": lambda a, _: a["estimate"].get("records", 9) <= 1,
    "'c' in action.dataClasses": lambda a, _: "c" in a["dataClasses"],
    "!('t' in action.riskTags)": lambda a, _: "t" not in a["riskTags"],
    "size(action.labels) > 0": lambda a, _: len(a["labels"]) > 0,
    "action.target == 'x'": lambda a, _: a["target"] == "x",
    "has(action.target)": lambda a, _: "target" in a,
    "action.reversibility == 'Irreversible'": lambda a, _: a["reversibility"] == "Irreversible",
    "action.arguments.n > 1": lambda a, _: a["arguments"]["n"] > 1,
    "has(action.argumentsDigest)": lambda a, _: "argumentsDigest" in a,
    "agent.riskTier == 'High'": lambda _, g: g["riskTier"] == "High",
    "agent.owner == 'o'": lambda _, g: g["owner"] == "o",
    "agent.labels.k == '1'": lambda _, g: g["labels"]["k"] == "1",
    "'c' in agent.dataClasses": lambda _, g: "c" in g["dataClasses"],
    "size(agent.fleets) == 1": lambda _, g: len(g["fleets"]) == 1,
}
"""What the expressions of `strategies.EXPRESSIONS` mean; KeyError and TypeError stand for an error of CEL."""


@dataclass(frozen=True)
class Expected:
    decision: str
    rules: frozenset[tuple[str, str, str, str, str]] = frozenset()
    """Kind, policy, rule, as what it counted, enforcement."""
    obligations: tuple[tuple[str, str, int | None], ...] = ()
    retry_after_seconds: int | None = None
    throttles: frozenset[tuple[str, str, str]] = frozenset()
    """Kind, policy and name of each rule that throttles beyond a limit."""


def glob_matches(glob: list[str], name: list[str]) -> bool:
    """Match segments: `**` stands for any number of them, `*` for any characters within one."""
    if not glob:
        return not name
    if glob[0] == "**":
        return any(glob_matches(glob[1:], name[skip:]) for skip in range(len(name) + 1))
    return bool(name) and segment_matches(glob[0], name[0]) and glob_matches(glob[1:], name[1:])


def segment_matches(glob: str, text: str) -> bool:
    if not glob:
        return not text
    if glob[0] == "*":
        return any(segment_matches(glob[1:], text[skip:]) for skip in range(len(text) + 1))
    return bool(text) and glob[0] == text[0] and segment_matches(glob[1:], text[1:])


def any_glob(globs: list[str], name: str) -> bool:
    return any(glob_matches(glob.split("."), name.split(".")) for glob in globs)


def selects(selector: Data, labels: dict[str, str]) -> bool:
    wanted = selector.get("matchLabels", {})
    return all(key in labels and labels[key] == value for key, value in wanted.items()) and all(
        {
            "In": one["key"] in labels and labels[one["key"]] in one.get("values", []),
            "NotIn": one["key"] not in labels or labels[one["key"]] not in one.get("values", []),
            "Exists": one["key"] in labels,
            "DoesNotExist": one["key"] not in labels,
        }[one["operator"]]
        for one in selector.get("matchExpressions", [])
    )


class Reference:
    """Decides in one world."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.agents = {key_of(document): document for document in world.of("Agent")}

    def decide(self, request: Data) -> Expected:
        agent = self.agents.get(request["agent"])
        if agent is None:
            return Expected("Deny")
        fleets = [fleet for fleet in self.world.of("AgentFleet") if self.is_member(agent, fleet)]
        modes = [one["spec"].get("operatingMode", "Running") for one in (agent, *fleets)]
        if any(mode != "Running" for mode in modes):
            assert set(modes) <= set(MODES)
            return Expected("Deny")

        action = request["action"]
        known, conflict = self.catalogued(action["name"])
        told = added(known, action)
        believes = bool(fleets) and all(f["spec"].get("declaredFacts") == "Trusted" for f in fleets)
        if believes:
            known = {**told, "estimate": {**known["estimate"], **action.get("estimate", {})}}
            told = known

        view = {"agent": agent, "fleets": fleets, "action": action}
        every = self.counting(view, known, exclude_by=known, least="Allow")
        further = self.counting(view, told, exclude_by=known, least="Constrain")
        limits = frozenset(hit["id"] for hit in (*every, *further) if is_limit(hit))
        trusted, declared = ([hit for hit in hits if not is_limit(hit)] for hits in (every, further))
        defaults = [fleet["spec"].get("defaultDecision", "Deny") for fleet in fleets] or ["Deny"]
        decided = [hit["as"] for hit in trusted if hit["enforced"]] or defaults
        stricter = [hit["as"] for hit in declared if hit["enforced"]]
        decision = severest([severest(decided), *stricter])
        refused = self.refuses(view, known, told, conflict=conflict)
        answer = self.answer(decision, [*trusted, *declared], refused, action)
        return answer if answer.decision == "Deny" else replace(answer, throttles=limits)

    def answer(self, decision: str, hits: list[Data], refused: bool, action: Data) -> Expected:  # noqa: FBT001
        strongest: dict[tuple[str, str, str], Data] = {}
        for hit in hits:
            before = strongest.get(hit["id"])
            if before is None or SEVERITY.index(hit["as"]) > SEVERITY.index(before["as"]):
                strongest[hit["id"]] = hit
        rules = frozenset(
            (*hit["id"], hit["as"], "Enforce" if hit["enforced"] else "Audit") for hit in strongest.values()
        )
        enforced = [hit for hit in strongest.values() if hit["enforced"]]
        owed: dict[tuple[str, str], int | None] = {}
        for hit in enforced:
            for one in hit["rule"].get("obligations", []):
                key, maximum = (one["field"], one["type"]), one.get("maximum")
                owed[key] = maximum if owed.get(key) is None else min(owed[key] or 0, maximum)
        refused = refused or (decision != "Deny" and impossible(owed, action))
        if refused or decision == "Deny":
            return Expected("Deny", rules)
        retry = None
        if decision == "Throttle":
            retry = max(hit["rule"].get("retryAfterSeconds", 30) for hit in enforced if hit["as"] == "Throttle")
        obligations = tuple((kind, name, owed[name, kind]) for name, kind in sorted(owed))
        return Expected(decision, rules, obligations, retry)

    def counting(self, view: Data, facts: Data, *, exclude_by: Data, least: str) -> list[Data]:
        """Give the rules that match and whose expression holds or errs."""
        hits = []
        for policy in self.world.of("AgentPolicy", "ClusterAgentPolicy"):
            if not self.is_subject(view["agent"], policy):
                continue
            for rule in policy["spec"]["rules"]:
                if SEVERITY.index(rule["decision"]) < SEVERITY.index(least):
                    continue
                if not holds(rule["match"], view, facts) or (
                    "exclude" in rule and holds(rule["exclude"], view, exclude_by)
                ):
                    continue
                counted = self.evaluated(rule, view, facts)
                if counted is not None:
                    hits.append(
                        {
                            "id": (policy["kind"], key_of(policy), rule["name"]),
                            "rule": rule,
                            "as": counted,
                            "enforced": policy["spec"].get("enforcement", "Enforce") == "Enforce",
                        }
                    )
        return hits

    def evaluated(self, rule: Data, view: Data, facts: Data) -> str | None:
        """Say as what a rule counts: an Allow whose expression errs does not, any other counts as Deny."""
        if "when" not in rule:
            return str(rule["decision"])
        action, agent = variables(view["action"], facts), agent_variables(view)
        try:
            return rule["decision"] if MEANING[rule["when"]](action, agent) else None
        except (KeyError, TypeError):
            return None if rule["decision"] == "Allow" else "Deny"

    def refuses(self, view: Data, known: Data, told: Data, *, conflict: bool) -> bool:
        """Say whether the action is denied whatever the rules say."""
        spec, action = view["agent"]["spec"], view["action"]
        if conflict or (known["target"] and action.get("target", known["target"]) != known["target"]):
            return True
        if "dataClasses" in spec and not told["dataClasses"] <= set(spec["dataClasses"]):
            return True
        may = spec.get("mayDelegateTo")
        if action["kind"] != "Delegation" or may is None:
            return False
        if known["target"] is None:
            return True
        home = view["agent"]["metadata"]["namespace"]
        target = known["target"] if "/" in known["target"] else f"{home}/{known['target']}"
        if target in {name if "/" in name else f"{home}/{name}" for name in may["agents"]}:
            return False
        there = self.agents.get(target)
        neighbour = there is not None and there["metadata"]["namespace"] == home
        return not (neighbour and there is not None and there["spec"]["role"] in may["roles"])

    def catalogued(self, name: str) -> tuple[Data, bool]:
        entries = [
            entry
            for document in self.world.of("ActionCatalog")
            for entry in document["spec"]["entries"]
            if any_glob(entry["names"], name)
        ]
        targets = {entry["target"] for entry in entries if "target" in entry}
        undo = {entry["reversibility"] for entry in entries if "reversibility" in entry}
        estimate: dict[str, int] = {}
        for entry in entries:
            larger(estimate, entry.get("estimate", {}))
        facts = {
            "riskTags": {tag for entry in entries for tag in entry.get("riskTags", [])},
            "dataClasses": {tag for entry in entries for tag in entry.get("dataClasses", [])},
            "labels": set(),
            "target": min(targets, default=None),
            "reversibility": min(undo, default=None),  # "Irreversible" < "Reversible"
            "estimate": estimate,
        }
        return facts, len(targets) > 1

    def is_member(self, agent: Data, fleet: Data) -> bool:
        chosen = fleet["spec"]["agents"]
        return selects(chosen.get("namespaceSelector", {}), self.labels_of(agent)) and selects(
            chosen.get("agentSelector", {}), agent["metadata"]["labels"]
        )

    def is_subject(self, agent: Data, policy: Data) -> bool:
        subjects, meta = policy["spec"].get("subjects", {}), agent["metadata"]
        return (
            policy["metadata"].get("namespace", meta["namespace"]) == meta["namespace"]
            and selects(subjects.get("namespaceSelector", {}), self.labels_of(agent))
            and selects(subjects.get("agentSelector", {}), meta["labels"])
            and (not subjects.get("roles") or agent["spec"]["role"] in subjects["roles"])
            and (not subjects.get("agents") or bool({meta["name"], key_of(agent)} & set(subjects["agents"])))
        )

    def labels_of(self, agent: Data) -> dict[str, str]:
        namespace = agent["metadata"]["namespace"]
        return {**self.world.namespaces.get(namespace, {}), "kubernetes.io/metadata.name": namespace}


def is_limit(hit: Data) -> bool:
    """Say whether a rule only says beyond what it throttles."""
    return "throttle" in hit["rule"] and hit["as"] == "Throttle" and hit["enforced"]


def key_of(document: Data) -> str:
    meta = document["metadata"]
    return f"{meta['namespace']}/{meta['name']}" if "namespace" in meta else str(meta["name"])


def severest(decisions: list[str]) -> str:
    return max(decisions, key=SEVERITY.index)


def larger(into: dict[str, int], other: dict[str, int]) -> None:
    for name, amount in other.items():
        into[name] = max(amount, into.get(name, amount))


def added(known: Data, action: Data) -> Data:
    estimate = dict(known["estimate"])
    larger(estimate, action.get("estimate", {}))
    return {
        "riskTags": known["riskTags"] | set(action.get("riskTags", [])),
        "dataClasses": known["dataClasses"] | set(action.get("dataClasses", [])),
        "labels": known["labels"] | set(action.get("labels", [])),
        "target": known["target"] or action.get("target"),
        "reversibility": known["reversibility"],
        "estimate": estimate,
    }


def holds(match: Data, view: Data, facts: Data) -> bool:
    action, agent = view["action"], view["agent"]
    found: dict[str, set[Any]] = {
        "kinds": {action["kind"]},
        "riskTags": facts["riskTags"],
        "dataClasses": facts["dataClasses"],
        "labels": facts["labels"],
        "targets": {facts["target"]},
        "reversibility": {facts["reversibility"]},
        "agents": {agent["metadata"]["name"], key_of(agent)},
        "roles": {agent["spec"]["role"]},
        "fleets": {fleet["metadata"]["name"] for fleet in view["fleets"]},
    }
    return all(
        any_glob(wanted, action["name"]) if name == "names" else bool(found[name] & set(wanted))
        for name, wanted in match.items()
    )


def impossible(owed: dict[tuple[str, str], int | None], action: Data) -> bool:
    """Say whether the arguments cannot be constrained: only their digest is known, or no number is there to clamp."""
    if not any(name.startswith("arguments.") for name, _ in owed):
        return False
    if "arguments" not in action:
        return "argumentsDigest" in action
    return ("arguments.n", "Clamp") in owed and isinstance(action["arguments"].get("n"), str)


def variables(action: Data, facts: Data) -> Data:
    given: Data = {"kind": action["kind"], "name": action["name"], **facts}
    given |= {name: action[name] for name in ("arguments", "argumentsDigest") if name in action}
    if "arguments" in action:
        given["argumentsDigest"] = "of the arguments"
    return {name: value for name, value in given.items() if value is not None}


def agent_variables(view: Data) -> Data:
    meta, spec = view["agent"]["metadata"], view["agent"]["spec"]
    return {
        **spec,
        "labels": meta["labels"],
        "dataClasses": spec.get("dataClasses", []),
        "fleets": [fleet["metadata"]["name"] for fleet in view["fleets"]],
    }
