"""What a story is told with: agents ask a served folder, and every answer is held against what the story expects."""

import json
import sys
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable
from typing import Any, TypeAlias

Answer = dict[str, Any]
Story: TypeAlias = "Callable[[World], None]"


class Unexpected(Exception):  # noqa: N818 - it says what was found
    """An answer is not the one that the story expects."""


class World:
    """The agents of one failure mode, and what they ask.

    `loose` leaves out what narrows a run: its mandate beyond requester and purpose, and the scope of its grants.
    """

    def __init__(self, address: str, mode: str, *, loose: bool = False) -> None:
        self.unique = uuid.uuid4().hex[:8]
        """Different in each telling, for what is remembered beyond a run."""
        self._address = address.rstrip("/")
        self._namespace = f"mast-{mode.replace('.', '-')}"
        self._loose = loose

    def open(self, agent: str, purpose: str, **mandate: Any) -> str:
        """Open a run and give its id."""
        asked = {} if self._loose else mandate
        answer = self._post("/v1/runs", agent, mandate={"requester": "ana@example.com", "purpose": purpose, **asked})
        print(f"  {agent} opens a run: {purpose}")
        return str(answer["run"])

    def close(self, agent: str, run: str) -> None:
        """Close a run."""
        self._post(f"/v1/runs/{run}/close", agent)
        print(f"  {agent} closes the run")

    def hand(self, agent: str, to: str, run: str, grant: str | None = None, **scope: Any) -> str:
        """Hand work to another agent, and give the grant."""
        answer = self._delegate(agent, to, run, grant, scope)
        self._check(answer, "Allow", "", f"{agent} hands work to {to}")
        return str(answer["grant"])

    def may_not_hand(self, agent: str, to: str, run: str, grant: str | None, because: str) -> None:
        """Expect that work cannot be handed over."""
        self._check(self._delegate(agent, to, run, grant, {}), "Deny", because, f"{agent} hands work to {to}")

    def ask(self, expected: str, agent: str, name: str, run: str, because: str = "", **more: Any) -> str:
        """Ask for an action, and give the id of the decision.

        `because` is the rule that decides, or a part of the reason; `more` may have `grant`, and fields of the action.
        """
        grant = {"grant": more.pop("grant")} if more.get("grant") else {}
        action = {"kind": "ToolCall", "name": name, **more}
        answer = self._post("/v1/decisions", agent, run=run, action=action, **grant)
        self._check(answer, expected, because, f"{agent}: {name} {_shown(more)}".rstrip())
        return str(answer["id"])

    def unseen(self, agent: str, name: str, run: str, **more: Any) -> str:
        """Show a failure of this mode that goes ahead, since no policy layer can see it."""
        print("  and nobody here can see:")
        return self.ask("Allow", agent, name, run, **more)

    def done(self, expected: str, decision: str, because: str = "", **outcome: Any) -> None:
        """Report what came of an action."""
        answer = self._send(f"/v1/decisions/{decision}/outcome", {"status": "Succeeded", **outcome})
        self._check(answer, expected, because, f"  outcome {_shown(outcome)}")

    def plan(self, expected: str, agent: str, run: str, steps: list[tuple[str, str, str]], because: str = "") -> None:
        """Have a plan checked; its steps are (id, agent, action), one after the other."""
        listed: list[dict[str, Any]] = []
        for step, who, name in steps:
            action = {"kind": "ToolCall", "name": name}
            after = {"dependsOn": [listed[-1]["id"]]} if listed else {}
            listed.append({"id": step, "agent": self._key(who), "action": action, **after})
        answer = self._post("/v1/plans", agent, run=run, steps=listed)
        self._check(answer, expected, because, f"{agent} plans {', '.join(step for step, _, _ in steps)}")

    def _delegate(self, agent: str, to: str, run: str, grant: str | None, scope: dict[str, Any]) -> Answer:
        held = {"grant": grant} if grant else {}
        asked = {} if self._loose else scope
        return self._post("/v1/delegations", agent, to=self._key(to), run=run, scope=asked, **held)

    def _check(self, answer: Answer, expected: str, because: str, what: str) -> None:
        found, reason = str(answer["decision"]), str(answer["reason"])
        rules = [ref["rule"] for ref in answer.get("rules", ()) if ref["decision"] == found]
        print(f"  {what} -> {found}" + ("" if found == "Allow" else f": {reason}"))
        if found != expected or not (because in rules or because in reason):
            raise Unexpected(
                f"{what}: expected {expected} ({because or 'whatever the reason'}), found {found}: {reason}"
            )

    def _post(self, path: str, agent: str, **body: Any) -> Answer:
        return self._send(path, {"agent": self._key(agent), **body})

    def _send(self, path: str, body: Answer) -> Answer:
        headers = {"Content-Type": "application/json"}
        request = urllib.request.Request(self._address + path, json.dumps(body).encode(), headers)  # noqa: S310 - ours
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310
                return dict(json.load(answer))
        except urllib.error.HTTPError as problem:
            with problem:
                raise Unexpected(f"{path}: {problem.code} {problem.read().decode()}") from None

    def _key(self, agent: str) -> str:
        return f"{self._namespace}/{agent}"


def _shown(fields: dict[str, Any]) -> str:
    return ", ".join(f"{key} {value}" for key, value in fields.items() if key != "grant")


def tell(stories: dict[str, Story], arguments: list[str], usage: str | None) -> int:
    """Tell the stories that a command line names, all of them where it names none; give the exit code."""
    loose = "--loose" in arguments
    address, *modes = [argument for argument in arguments if argument != "--loose"] or [""]
    if not address or not set(modes) <= stories.keys():
        print(usage, file=sys.stderr)
        return 2
    failed = 0
    for mode in modes or stories:
        print(f"{mode} {stories[mode].__doc__}")
        try:
            stories[mode](World(address, mode, loose=loose))
        except Unexpected as error:
            failed += 1
            print(f"  NOT AS TOLD: {error}")
    return 1 if failed else 0
