from fleetward.resources.finding import Finding, did_you_mean, field_path, shorten


def test_a_finding_reads_as_file_line_field_and_message() -> None:
    finding = Finding("a.yaml", 3, "spec.role", "found x, allowed y", "Agent a/b")
    assert str(finding) == "a.yaml:3: spec.role: found x, allowed y"


def test_without_line_or_field_they_are_left_out() -> None:
    assert str(Finding("a.yaml", 0, "", "cannot be read")) == "a.yaml: cannot be read"


def test_further_lines_of_a_message_are_indented() -> None:
    finding = Finding("a.yaml", 3, "spec.rules[0].when", "undeclared reference\n| acton.name\n| ^")
    assert str(finding).splitlines()[1:] == ["    | acton.name", "    | ^"]


def test_as_a_dict_it_has_every_part() -> None:
    finding = Finding("a.yaml", 3, "spec", "m", "Agent a/b")
    expected = {"file": "a.yaml", "line": 3, "field": "spec", "message": "m", "resource": "Agent a/b"}
    assert finding.to_dict() == expected


def test_paths_are_written_as_people_write_them() -> None:
    assert field_path(("spec", "rules", 2, "match", "names", 0)) == "spec.rules[2].match.names[0]"
    assert field_path(("metadata", "annotations", "a.b/c")) == 'metadata.annotations["a.b/c"]'
    assert field_path(()) == ""


def test_shown_values_are_short_and_printable() -> None:
    assert shorten("a" * 100) == "a" * 57 + "..."
    assert shorten("a\x1b\n\u202eb") == "a\\u001b\\n\\u202eb"


def test_the_closest_name_is_suggested_whatever_its_case_style() -> None:
    assert did_you_mean("operating_mode", ["role", "operatingMode"]) == "; did you mean operatingMode?"
    assert did_you_mean("xyz", ["role", "operatingMode"]) == ""
