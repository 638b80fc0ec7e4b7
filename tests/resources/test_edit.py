"""An operating mode set in YAML that people keep: what changes, and what must not."""

import stat
import threading
from pathlib import Path
from typing import Any

import pytest
import yaml

from fleetward.resources.edit import EditError, edit_file, find_resource, set_operating_mode
from fleetward.resources.folder import FolderError

SET_BY = "fleetward.dev/operating-mode-set-by"
HEAD = "apiVersion: fleetward.dev/v1alpha1\nkind: Agent\n"


def change(text: str, mode: str = "Paused", reason: str | None = "maintenance", **where: Any) -> str:
    target = {"kind": "Agent", "namespace": "reports", "name": "a"} | where
    return set_operating_mode(text, mode=mode, reason=reason, set_by="alice", **target)


def pause_and_resume(text: str) -> tuple[str, str]:
    paused = change(text)
    return paused, change(paused, "Running", None)


BLOCK = (
    HEAD
    + """\
metadata:
  name: a            # the name
  namespace: reports
  annotations:
    example.com/x: "1"   # kept
# about the spec
spec:
  # its part
  role: Worker   # yes
  operatingMode: Running  # patch this

  # the data
  dataClasses:
  - customer
# the end
"""
)


def test_in_block_style_only_the_lines_concerned_change() -> None:
    assert change(BLOCK) == BLOCK.replace(
        "operatingMode: Running  # patch this\n",
        "operatingMode: Paused  # patch this\n  operatingReason: maintenance\n",
    ).replace("# kept\n", f"# kept\n    {SET_BY}: Paused by alice\n")


def test_resume_gives_back_the_text_where_the_fields_were_there_before() -> None:
    text = BLOCK.replace("# kept\n", f"# kept\n    {SET_BY}: Running by alice\n")
    assert pause_and_resume(text)[1] == text


def test_carriage_returns_and_a_byte_order_mark_stay() -> None:
    text = "\ufeff" + BLOCK.replace("\n", "\r\n")
    assert change(text) == "\ufeff" + change(BLOCK).replace("\n", "\r\n")


def test_without_a_line_break_at_the_end_none_is_added() -> None:
    text = HEAD + f"metadata: {{name: a, namespace: reports, annotations: {{{SET_BY}: Running by alice}}}}\n"
    text += "spec:\n  role: Worker\n  operatingMode: Running"
    paused, resumed = pause_and_resume(text)
    assert paused.endswith("operatingMode: Paused\n  operatingReason: maintenance")
    assert resumed == text


def test_fields_that_are_missing_are_made_where_no_comment_changes_its_owner() -> None:
    text = HEAD + "metadata:\n  name: a\n  namespace: reports # ns\nspec:\n"
    text += "  role: Worker # r\n  # about\n  dataClasses:\n  - x\n"
    assert change(text) == (
        HEAD
        + f"metadata:\n  name: a\n  namespace: reports # ns\n  annotations:\n    {SET_BY}: Paused by alice\n"
        + "spec:\n  role: Worker # r\n  operatingMode: Paused\n  operatingReason: maintenance\n"
        + "  # about\n  dataClasses:\n  - x\n"
    )


def test_in_flow_style_it_stays_on_its_line() -> None:
    text = HEAD + "metadata: {name: a, namespace: reports}  # m\nspec: {role: Worker}\n"
    assert change(text) == (
        HEAD
        + f"metadata: {{name: a, namespace: reports, annotations: {{{SET_BY}: Paused by alice}}}}  # m\n"
        + "spec: {role: Worker, operatingMode: Paused, operatingReason: maintenance}\n"
    )


def test_in_flow_style_over_several_lines_it_gets_lines_of_its_own() -> None:
    text = HEAD + "metadata: {name: a, namespace: reports}\nspec: {\n  role: Worker, # r\n  owner: x\n}\n"
    assert "spec: {\n  role: Worker, # r\n  owner: x,\n  operatingMode: Paused,\n  operatingReason: maint" in change(
        text
    )


def test_json_stays_json() -> None:
    text = '{\n\t"apiVersion": "fleetward.dev/v1alpha1",\n\t"kind": "Agent",\n\t"metadata": {"name": "a"},\n'
    text += '\t"spec": {\n\t\t"role": "Worker"\n\t}\n}\n'
    edited = change(text, namespace=None, file="a.json")
    assert '"role": "Worker",\n\t\t"operatingMode": "Paused",\n\t\t"operatingReason": "maintenance"\n' in edited
    assert yaml.safe_load(edited.replace("\t", " "))["metadata"]["annotations"] == {SET_BY: "Paused by alice"}


def test_quotes_are_kept_and_added_where_yaml_needs_them() -> None:
    text = (
        HEAD
        + "metadata: {name: a, namespace: reports}\n"
        + "spec: {role: Worker, operatingMode: 'Running', operatingReason: \"\"}\n"
    )
    assert "operatingMode: 'Paused', operatingReason: \"maintenance\"" in change(text)
    for reason in (
        "no",
        "12",
        "a: b",
        "x # y",
        "",
        "- x",
        "line\nbreak",
        "\x7f\u2028 é",
        "{a}",
        'say "no"',
        "2024-01-01",
    ):
        edited = change(text.replace('""', "x"), reason=reason)
        assert yaml.safe_load(edited)["spec"]["operatingReason"] == reason


@pytest.mark.parametrize("style", ["|", ">-", "|+  # header"])
def test_a_reason_in_block_style_is_replaced_and_its_comments_stay(style: str) -> None:
    text = (
        HEAD
        + "metadata: {name: a, namespace: reports}\nspec:\n  role: Worker\n"
        + f"  operatingReason: {style}\n    one\n    two\n\n# end\n"
    )
    paused, resumed = pause_and_resume(text)
    header = "  # header" if "#" in style else ""
    assert f"  operatingReason: maintenance{header[1:]}\n" in paused
    assert paused.endswith("\n# end\n")
    assert "operatingReason" not in resumed
    assert header.strip() in resumed
    assert resumed.endswith("\n# end\n")


def test_a_comment_beside_a_removed_reason_stays() -> None:
    text = BLOCK.replace("  # the data\n", "  operatingReason: x  # see ticket 4\n  # the data\n")
    assert change(text, "Running", None).count("\n  # see ticket 4\n  # the data\n") == 1


def test_running_with_a_reason_sets_it() -> None:
    assert "  operatingReason: checked\n" in change(BLOCK, "Running", "checked")


def test_other_documents_stay_and_only_the_one_named_changes() -> None:
    other = BLOCK.replace("name: a ", "name: b ")
    text = f"{other}---\n{BLOCK}---\nany: [thing] # kept\n...\n"
    assert change(text) == f"{other}---\n{change(BLOCK)}---\nany: [thing] # kept\n...\n"


def test_a_fleet_is_paused_in_the_same_way() -> None:
    text = "apiVersion: fleetward.dev/v1alpha1\nkind: AgentFleet\nmetadata:\n  name: f\nspec:\n  agents: {}\n"
    edited = set_operating_mode(
        text, kind="AgentFleet", namespace=None, name="f", mode="Stopped", reason=None, set_by="a b <a@example.com>"
    )
    data = yaml.safe_load(edited)
    assert data["spec"] == {"agents": {}, "operatingMode": "Stopped"}
    assert data["metadata"]["annotations"] == {SET_BY: "Stopped by a b <a@example.com>"}


def test_an_item_of_a_list_can_be_changed() -> None:
    item = BLOCK.replace("\n", "\n  ").rstrip(" ")
    text = f"apiVersion: v1\nkind: List\nitems:\n- {item}"
    assert yaml.safe_load(change(text))["items"][0]["spec"]["operatingMode"] == "Paused"


def test_a_value_that_comes_by_a_merge_key_is_set_beside_it() -> None:
    text = (
        HEAD
        + "metadata: {name: a, namespace: reports}\nspec:\n  <<: {operatingMode: Running, owner: x}\n  role: Worker\n"
    )
    spec = yaml.safe_load(change(text))["spec"]
    assert (spec["operatingMode"], spec["owner"]) == ("Paused", "x")


LIST = "apiVersion: v1\nkind: List\nitems:\n"
ITEM = "- apiVersion: fleetward.dev/v1alpha1\n  kind: Agent\n  metadata: {name: %s, namespace: reports}\n  spec: %s\n"
REFUSED = {
    "alias": (LIST + ITEM % ("b", "&s {role: Worker}") + ITEM % ("a", "*s"), "spec is the alias *s", "write spec out"),
    "anchor": (
        LIST + ITEM % ("a", "&s {role: Worker}") + ITEM % ("b", "*s"),
        "would change more than the operating mode",
        "shared by the anchor &s: write it out",
    ),
    "merged mapping": (
        LIST
        + ITEM % ("b", "{role: Worker}")
        + "- <<: {spec: {role: Worker}}\n  apiVersion: fleetward.dev/v1alpha1\n  kind: Agent\n"
        + "  metadata: {name: a, namespace: reports}\n",
        "spec comes from a merge key <<",
        "write spec out",
    ),
    "merged reason": (
        HEAD + "metadata: {name: a, namespace: reports}\nspec: {<<: {operatingReason: x}, role: Worker}\n",
        "spec.operatingReason comes from a merge key <<",
        "write spec.operatingReason out",
    ),
    "not there": (BLOCK.replace("name: a ", "name: b "), "found no Agent reports/a", ""),
    "there twice": (f"{BLOCK}---\n{BLOCK}", "found Agent reports/a twice, on lines 1, 19", ""),
    "with mistakes": (
        BLOCK.replace("Worker", "Boss"),
        "has mistakes, so an edit of it would not take effect",
        'found "Boss"',
    ),
    "no YAML": (BLOCK + "\tx", "must be repaired first", ":18: not valid YAML"),
}


@pytest.mark.parametrize(("text", "why", "what_to_do"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_changed_safely_is_refused_with_what_to_do(text: str, why: str, what_to_do: str) -> None:
    with pytest.raises(EditError) as refused:
        change(text, reason=None)
    assert why in str(refused.value)
    assert what_to_do in str(refused.value)


def test_an_unknown_mode_is_refused_with_the_modes_there_are() -> None:
    with pytest.raises(
        EditError, match=r'found "Pausd", allowed Running, Paused, Stopped or Quarantined; did you mean P'
    ):
        change(BLOCK, "Pausd")


def test_a_kind_without_modes_is_refused() -> None:
    with pytest.raises(EditError, match="AgentPolicy, which has no operatingMode; allowed Agent or AgentFleet"):
        change(BLOCK, kind="AgentPolicy")


# Files


def edit(path: Path, **changes: Any) -> bool:
    settings: dict[str, Any] = {"kind": "Agent", "namespace": "reports", "name": "a", "mode": "Paused"}
    settings |= {"reason": "x", "set_by": "alice"}
    return edit_file(path, **(settings | changes))


def test_a_file_is_replaced_in_one_step_and_keeps_its_permissions(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_bytes(BLOCK.replace("\n", "\r\n").encode())
    path.chmod(0o640)
    before = path.stat().st_ino
    assert edit(path)
    assert path.read_bytes() == change(BLOCK, reason="x").replace("\n", "\r\n").encode()
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert path.stat().st_ino != before
    assert list(tmp_path.iterdir()) == [path]


def test_what_is_so_already_is_not_written(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(BLOCK)
    assert edit(path)
    before = path.stat().st_ino
    assert not edit(path)
    assert path.stat().st_ino == before


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "a.yaml").write_text(BLOCK)
    (tmp_path / "a.yaml").symlink_to("real/a.yaml")
    assert edit(tmp_path / "a.yaml")
    assert (tmp_path / "a.yaml").is_symlink()
    assert "Paused" in (tmp_path / "real" / "a.yaml").read_text()


def test_a_refused_edit_writes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(BLOCK)
    with pytest.raises(EditError, match="Pausd"):
        edit(path, mode="Pausd")
    assert path.read_text() == BLOCK
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_that_is_not_there_or_not_text_is_an_error_in_words(tmp_path: Path) -> None:
    with pytest.raises(EditError, match=r"a\.yaml cannot be edited: No such file or directory"):
        edit(tmp_path / "a.yaml")
    (tmp_path / "a.yaml").write_bytes(b"\xff")
    with pytest.raises(EditError, match="is not UTF-8 text"):
        edit(tmp_path / "a.yaml")


def test_edits_at_the_same_moment_all_take_effect(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    agents = [f"a{i}" for i in range(8)]
    path.write_text("---\n".join(BLOCK.replace("name: a ", f"name: {name} ") for name in agents))
    threads = [threading.Thread(target=edit, args=(path,), kwargs={"name": name}) for name in agents]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    modes = [document["spec"]["operatingMode"] for document in yaml.safe_load_all(path.read_text())]
    assert modes == ["Paused"] * 8


def test_a_resource_is_found_by_its_key_or_by_a_name_that_only_it_has(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(f"{BLOCK}---\n{BLOCK.replace('name: a ', 'name: b ').replace('Worker', 'Boss')}")
    (tmp_path / "c.yaml").write_text(BLOCK.replace("reports", "other"))
    found = find_resource(tmp_path, "Agent", "reports/a")
    assert (found.file, found.line, found.identity) == (tmp_path / "a.yaml", 1, ("Agent", "reports", "a"))
    assert find_resource(tmp_path, "Agent", "b").line == 19, "a broken one is found, too"
    with pytest.raises(
        EditError, match=r"found 2 resources for Agent a: reports/a at .*a\.yaml:1, other/a at .*c\.yaml:1"
    ):
        find_resource(tmp_path, "Agent", "a")


def test_a_resource_that_is_not_there_is_told_with_those_that_are(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(BLOCK)
    with pytest.raises(EditError, match=r"found no Agent report/a, allowed reports/a; did you mean reports/a\?"):
        find_resource(tmp_path, "Agent", "report/a")
    with pytest.raises(EditError, match="found no AgentFleet x; there is no AgentFleet in"):
        find_resource(tmp_path, "AgentFleet", "x")
    (tmp_path / "b.yaml").write_text("{")
    with pytest.raises(EditError, match=r"(?s)could not be read, it may be there:.*b\.yaml:"):
        find_resource(tmp_path, "Agent", "b")
    with pytest.raises(FolderError):
        find_resource(tmp_path / "nowhere", "Agent", "b")
