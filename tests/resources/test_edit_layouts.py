"""However a file is laid out, an edit changes the operating mode's data and loses no comment."""

import copy
import json
from typing import Any

import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fleetward.resources.edit import set_operating_mode

SET_BY = "fleetward.dev/operating-mode-set-by"
examples = settings(max_examples=50, suppress_health_check=[HealthCheck.too_slow])

MODES = st.sampled_from(["Running", "Paused", "Stopped", "Quarantined"])
REASONS = st.none() | st.text(
    st.characters(codec="utf-8", exclude_characters="\x00"), max_size=20
)  # whatever a person types
WHO = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), min_size=1, max_size=20)

FIELDS: dict[str, list[Any]] = {
    "role": ["Worker", "Planner"],
    "owner": ["team", "a: b # c", "", "it's"],
    "dataClasses": [[], ["customer"], ["a", "b"]],
    "workload": [{"selector": {"matchLabels": {"app": "x"}}}, {"selector": {}}],
    "mayDelegateTo": [{"roles": ["Worker"], "agents": ["a/b"]}],
    "operatingMode": ["Running", "Paused"],
    "operatingReason": ["", "maintenance", "several: words", "two\nlines\n"],
}


class Layout:
    """Writes data as YAML in the many ways people do; each comment is told apart by its number."""

    def __init__(self, data: st.DataObject) -> None:
        self._draw = data.draw
        self._comments = 0
        self.step = self._draw(st.integers(1, 4), "indent")

    def block(self, data: dict[str, Any], indent: int) -> list[str]:
        lines: list[str] = []
        for key, value in data.items():
            lines += self.between(indent)
            lines += self._entry(key, value, " " * indent, indent)
        return lines

    def between(self, indent: int) -> list[str]:
        choices = st.sampled_from(["", "", "", "blank", "comment", "outdented"])
        match self._draw(choices):
            case "blank":
                return [""]
            case "comment":
                return [" " * indent + self._comment()]
            case "outdented":
                return [self._comment()]
        return []

    def _entry(self, key: str, value: Any, start: str, indent: int) -> list[str]:
        head = f"{start}{self._key(key)}:"
        inner = indent + self.step
        if isinstance(value, dict) and value and self._draw(st.booleans()):
            return [head + self._trailing(), *self.block(value, inner)]
        if isinstance(value, list) and value and self._draw(st.booleans()):
            pad = " " * self._draw(st.sampled_from([indent, inner]))
            return [head + self._trailing(), *(f"{pad}- {self.flow(item)}{self._trailing()}" for item in value)]
        if isinstance(value, str) and value.endswith("\n"):
            header = self._draw(st.sampled_from(["|", "|+" if "\n\n" not in value else "|"]))
            return [f"{head} {header}{self._trailing()}", *(" " * inner + line for line in value.splitlines())]
        return [f"{head} {self.flow(value)}{self._trailing()}"]

    def flow(self, value: Any) -> str:
        pad = self._draw(st.sampled_from(["", " "]))
        if isinstance(value, dict):
            inside = ", ".join(f"{self._key(key)}: {self.flow(inner)}" for key, inner in value.items())
            return f"{{{pad}{inside}{self._comma(inside)}{pad}}}"
        if isinstance(value, list):
            inside = ", ".join(map(self.flow, value))
            return f"[{pad}{inside}{self._comma(inside)}{pad}]"
        return self._text(value)

    def _comma(self, inside: str) -> str:
        return self._draw(st.sampled_from(["", ","])) if inside else ""

    def _key(self, key: str) -> str:
        return self._draw(st.sampled_from([key, key, json.dumps(key), f"'{key}'"]))

    def _text(self, value: str) -> str:
        styles = [json.dumps(value)]
        if value.isprintable():
            styles.append("'" + value.replace("'", "''") + "'")
        if value.isalpha():
            styles.append(value)
        return self._draw(st.sampled_from(styles))

    def _trailing(self) -> str:
        return self._draw(st.sampled_from(["", "", " " + self._comment()]))

    def _comment(self) -> str:
        self._comments += 1
        return f"#c{self._comments}: {{x"


@st.composite
def agents(draw: st.DrawFn, name: str) -> dict[str, Any]:
    optional = draw(st.lists(st.sampled_from([f for f in FIELDS if f != "role"]), unique=True))
    order = draw(st.permutations(["role", *optional]))
    metadata: dict[str, Any] = {"name": name, "namespace": "reports"}
    if draw(st.booleans()):
        metadata["labels"] = {"team": "x"}
    if draw(st.booleans()):
        some = st.sampled_from([{}, {"a.b/c": "d"}, {SET_BY: "Running by alice"}, {SET_BY: "Paused by b", "z": ""}])
        metadata["annotations"] = draw(some)
    return {
        "apiVersion": "fleetward.dev/v1alpha1",
        "kind": "Agent",
        "metadata": metadata,
        "spec": {field: draw(st.sampled_from(FIELDS[field])) for field in order},
    }


def write(data: st.DataObject, documents: list[dict[str, Any]]) -> str:
    layout = Layout(data)
    lines: list[str] = []
    for document in documents:
        lines += ["---", *layout.between(0), *layout.block(document, 0), *layout.between(0)]
    newline = data.draw(st.sampled_from(["\n", "\r\n"]), "line break")
    end = data.draw(st.sampled_from(["", newline]), "end")
    if lines[-1] == "" or documents[-1]["spec"].get("operatingReason", "").endswith("\n"):
        end = newline
    return newline.join(lines) + end


def change(text: str, mode: str, reason: str | None, who: str) -> str:
    return set_operating_mode(text, kind="Agent", namespace="reports", name="a", mode=mode, reason=reason, set_by=who)


def intended(documents: list[dict[str, Any]], index: int, mode: str, reason: str | None, who: str) -> list[Any]:
    result = copy.deepcopy(documents)
    spec, metadata = result[index]["spec"], result[index]["metadata"]
    spec["operatingMode"] = mode
    spec.pop("operatingReason", None)
    if reason is not None:
        spec["operatingReason"] = reason
    metadata.setdefault("annotations", {})[SET_BY] = f"{mode} by {who}"
    return result


def comments(text: str) -> list[str]:
    return [line[line.index("#c") :].rstrip() for line in text.splitlines() if "#c" in line]


@examples
@given(data=st.data(), mode=MODES, reason=REASONS, who=WHO)
def test_only_the_intended_data_changes_and_every_comment_survives(
    data: st.DataObject, mode: str, reason: str | None, who: str
) -> None:
    index = data.draw(st.integers(0, 2), "which")
    text = write(data, [data.draw(agents("a" if i == index else f"other-{i}")) for i in range(3)])
    documents = list(yaml.safe_load_all(text))
    edited = change(text, mode, reason, who)
    assert list(yaml.load_all(edited, yaml.SafeLoader)) == intended(documents, index, mode, reason, who)
    assert comments(edited) == comments(text)
    assert ("\r\n" in text) == ("\r\n" in edited)
    assert edited.count("\r\n") in {0, edited.count("\n")}


@examples
@given(data=st.data(), mode=MODES)
def test_every_line_that_says_something_else_stays_in_its_order(data: st.DataObject, mode: str) -> None:
    text = write(data, [data.draw(agents("a"))])
    edited = iter(change(text, mode, "because", "alice").splitlines())
    for line in text.splitlines():
        if not any(word in line for word in ("operating", "annotations", "metadata", "spec", "two", "lines")):
            assert any(line == other for other in edited), line


@examples
@given(data=st.data(), reason=REASONS)
def test_resume_after_a_pause_gives_back_the_text(data: st.DataObject, reason: str | None) -> None:
    agent = data.draw(agents("a"))
    had = {"operatingMode", SET_BY} <= {*agent["spec"], *agent["metadata"].get("annotations", {})}
    agent["spec"].pop("operatingReason", None)
    if had:
        agent["spec"]["operatingMode"] = "Running"
        agent["metadata"]["annotations"][SET_BY] = "Running by alice"
    text = write(data, [agent])
    resumed = change(change(text, "Paused", reason, "alice"), "Running", None, "alice")
    if had:
        assert resumed == text
    else:
        assert list(yaml.safe_load_all(resumed)) == intended([agent], 0, "Running", None, "alice")
        assert comments(resumed) == comments(text)
