"""What is wrong with a text that is no YAML, in words."""

import re

import yaml


class YamlError(ValueError):
    """The text cannot be read as YAML; `line` counts from 1, 0 for the whole file."""

    def __init__(self, line: int, message: str) -> None:
        super().__init__(message)
        self.line = line
        self.message = message


_WORDS: tuple[tuple[str, str], ...] = (
    (
        r"mapping values are not allowed",
        "found ': ' where no mapping can begin; check the indentation, and quote a text that holds ': '",
    ),
    (
        r"could not find expected ':'",
        "found a line that is neither 'key: value' nor a '- ' item; check for a missing ':' or quote",
    ),
    (
        r"expected <block end>|did not find expected (key|'-' indicator)",
        "the indentation does not fit its surroundings{context}; fields of one level begin in one column",
    ),
    (
        r"expected ',' or '\]'|did not find expected ',' or '\]'",
        "a list in [ ]{context} lacks a ',' or its ']'",
    ),
    (
        r"expected ',' or '\}'|did not find expected ',' or '\}'",
        "a mapping in {{ }}{context} lacks a ',' or its '}}'",
    ),
    (r"unexpected end of stream", "a quote{context} is never closed"),
    (
        r"unknown escape character|did not find expected hexdecimal number|expected escape sequence of",
        "found a backslash in double quotes that begins no escape; use single quotes, or write \\\\",
    ),
    (r"invalid Unicode character escape", "found an escape that is no character; write the character itself"),
    (r"expected (a )?comment or (a )?line|expected chomping", "found text where the line should end"),
    (r"unexpected document (separator|indicator)", "a quote{context} is not closed before the next document begins"),
    (
        r"undefined tag handle",
        "found a tag with an unknown prefix; remove the tag (the word that begins with '!')",
    ),
    (r"tab character that violates", "found a tab, allowed spaces; indent with spaces"),
    (
        r"expected '?<document start>",
        "found text after the end of a document; check its indentation, or begin the next one with ---",
    ),
    (
        r"incompatible YAML document",
        "found a %YAML directive of another version, allowed 1.1 or 1.2, or none",
    ),
    (
        r"sequence entries are not allowed",
        "found '- ' where no list can begin; put each item on its own line",
    ),
)

_CANNOT_START = re.compile(r"cannot start any token")
_BEGINNERS = {"\t": "a tab, allowed spaces; use spaces"} | {
    char: f"{char!r} at the beginning of a text; put the text in quotes" for char in "@`%"
}


def in_words(error: yaml.MarkedYAMLError, text: str) -> YamlError:
    """Say the parser's error so that somebody who never saw the parser knows where to look and what to do."""
    mark = error.problem_mark or error.context_mark
    line = mark.line + 1 if mark else 0
    problem = error.problem or error.context or "unreadable"
    character = text[mark.index : mark.index + 1] if mark else ""
    if _CANNOT_START.search(problem) and character in _BEGINNERS:
        return YamlError(line, f"not valid YAML: found {_BEGINNERS[character]}")
    begin = error.context_mark.line + 1 if error.context_mark else line
    context = f" (from line {begin})" if begin != line else ""
    for pattern, words in _WORDS:
        if re.search(pattern, problem):
            return YamlError(line, f"not valid YAML: {words.format(context=context)}")
    return YamlError(line, f"not valid YAML: {problem}{context}")
