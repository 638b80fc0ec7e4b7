"""A folder read once."""

import os
from pathlib import Path

import pytest

from fleetward.resources.folder import FolderError, read_folder

AGENT = (
    "apiVersion: fleetward.dev/v1alpha1\nkind: Agent\nmetadata: {name: %s, namespace: reports}\nspec: {role: Worker}\n"
)
NAMESPACE = "apiVersion: v1\nkind: Namespace\nmetadata: {name: %s, labels: {team: %s}}\n"


def keys(path: Path) -> list[str]:
    return [loaded.resource.key for loaded in read_folder(path).resources]


def test_resources_come_with_file_line_and_document_in_the_order_of_files(tmp_path: Path) -> None:
    (tmp_path / "b.yml").write_text(AGENT % "b" + "---\n" + AGENT % "c")
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x.yaml").write_text("# one\n" + AGENT % "a")
    resources = read_folder(tmp_path).resources
    assert [(loaded.resource.key, loaded.file, loaded.line) for loaded in resources] == [
        ("reports/a", str(tmp_path / "a" / "x.yaml"), 2),
        ("reports/b", str(tmp_path / "b.yml"), 1),
        ("reports/c", str(tmp_path / "b.yml"), 6),
    ]
    assert resources[1].document.line_of(("spec", "role")) == 4


def test_a_single_file_of_any_name_can_be_given(tmp_path: Path) -> None:
    (tmp_path / "agents").write_text(AGENT % "a")
    assert keys(tmp_path / "agents") == ["reports/a"]


def test_hidden_files_folders_and_other_suffixes_are_left_out(tmp_path: Path) -> None:
    (tmp_path / ".git").mkdir()
    for name in (".git/a.yaml", ".b.yaml", "c.yaml~", "d.txt", "e.yaml.bak"):
        (tmp_path / name).write_text(AGENT % "a")
    content = read_folder(tmp_path)
    assert (content.resources, content.findings) == ((), ())


def test_loops_of_links_end_and_no_file_is_read_twice(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "a.yaml").write_text(AGENT % "a")
    (tmp_path / "sub" / "up").symlink_to(tmp_path)
    (tmp_path / "again").symlink_to(tmp_path / "sub")
    (tmp_path / "b.yaml").symlink_to(tmp_path / "sub" / "a.yaml")
    content = read_folder(tmp_path)
    assert len(content.resources) == 1
    assert content.findings == ()


def test_a_mounted_config_map_is_read_once(tmp_path: Path) -> None:
    (tmp_path / "..2024").mkdir()
    (tmp_path / "..2024" / "a.yaml").write_text(AGENT % "a")
    (tmp_path / "..data").symlink_to("..2024")
    (tmp_path / "a.yaml").symlink_to("..data/a.yaml")
    assert keys(tmp_path) == ["reports/a"]


def test_namespace_labels_and_policy_tests_are_found(tmp_path: Path) -> None:
    test = "apiVersion: fleetward.dev/v1alpha1\nkind: PolicyTest\ntests: []\n"
    (tmp_path / "a.yaml").write_text(NAMESPACE % ("reports", "x") + "---\n" + test)
    content = read_folder(tmp_path)
    assert content.namespaces == {"reports": {"team": "x"}}
    assert [t.data["tests"] for t in content.policy_tests] == [[]]
    assert content.findings == ()


def test_two_resources_of_one_kind_and_name_name_each_other_and_neither_counts(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(AGENT % "x" + "---\n" + AGENT % "y")
    (tmp_path / "b.yaml").write_text("#\n" + AGENT % "x")
    content = read_folder(tmp_path)
    assert [loaded.resource.key for loaded in content.resources] == ["reports/y"]
    first, second = content.findings
    assert (Path(first.file).name, first.line, first.field) == ("a.yaml", 3, "metadata.name")
    assert f"found a second Agent reports/x at {tmp_path / 'b.yaml'}:2" in first.message
    assert (Path(second.file).name, second.line) == ("b.yaml", 4)
    assert f"at {tmp_path / 'a.yaml'}:1" in second.message


def test_a_broken_twin_is_a_duplicate_too(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(AGENT % "x" + "---\n" + (AGENT % "x").replace("Worker", "Boss"))
    content = read_folder(tmp_path)
    assert content.resources == ()
    assert [f.field for f in content.findings] == ["metadata.name", "metadata.name", "spec.role"]


def test_the_same_name_in_another_namespace_or_kind_is_no_duplicate(tmp_path: Path) -> None:
    fleet = (AGENT % "x").replace("Agent", "AgentFleet").replace(", namespace: reports", "")
    (tmp_path / "a.yaml").write_text(
        "---\n".join(
            [AGENT % "x", (AGENT % "x").replace("reports", "other"), fleet.replace("role: Worker", "agents: {}")]
        )
    )
    assert keys(tmp_path) == ["reports/x", "other/x", "x"]


def test_two_namespaces_of_one_name_are_told(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(NAMESPACE % ("n", "a") + "---\n" + NAMESPACE % ("n", "b"))
    content = read_folder(tmp_path)
    assert content.namespaces == {}
    assert "found a second Namespace n" in content.findings[0].message


def test_one_bad_document_leaves_the_others(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(AGENT % "x" + "---\n" + (AGENT % "y").replace("Worker", "Boss"))
    content = read_folder(tmp_path)
    assert [loaded.resource.key for loaded in content.resources] == ["reports/x"]
    assert [f.field for f in content.findings] == ["spec.role"]


def test_json_that_is_no_manifest_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "action.json").write_text('{"agent": "reports/a", "action": {"name": "x"}}')
    (tmp_path / "list.json").write_text("[1, 2]")
    (tmp_path / "forgot.json").write_text('{"metadata": {"name": "x"}}')
    content = read_folder(tmp_path)
    assert [(Path(f.file).name, f.field) for f in content.findings] == [("forgot.json", "apiVersion")]


def test_what_cannot_be_read_is_a_finding(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").symlink_to(tmp_path / "nowhere")
    os.mkfifo(tmp_path / "b.yaml")
    (tmp_path / "c.yaml").write_text(AGENT % "c")
    content = read_folder(tmp_path)
    assert [loaded.resource.key for loaded in content.resources] == ["reports/c"]
    assert [str(f).removeprefix(f"{tmp_path}/") for f in content.findings] == [
        "a.yaml: cannot be read: No such file or directory",
        "b.yaml: cannot be read: it is not a regular file",
    ]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_without_permission_is_a_finding(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(AGENT % "a")
    (tmp_path / "a.yaml").chmod(0)
    assert ["Permission denied" in f.message for f in read_folder(tmp_path).findings] == [True]


def test_a_folder_that_is_not_there_is_an_error_that_says_so(tmp_path: Path) -> None:
    with pytest.raises(FolderError, match="nowhere does not exist; give a folder of YAML files"):
        read_folder(tmp_path / "nowhere")


def test_a_file_that_is_being_written_is_read_as_it_is(tmp_path: Path) -> None:
    with (tmp_path / "a.yaml").open("w") as file:
        file.write(AGENT % "a")
        file.flush()
        content = read_folder(tmp_path)
    assert [loaded.resource.key for loaded in content.resources] == ["reports/a"]
    assert content.pending == ()
