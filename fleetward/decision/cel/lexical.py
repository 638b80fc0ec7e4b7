r"""What the two parsers read differently, found in the source text.

cel-python knows no `\?`, `` \` `` and `\X41`, loses the line breaks of a string over several lines, and has
neither quoted field names nor trailing commas. The portable runtime refuses these, and so does lint.
"""

import re
from typing import Final

_TOKEN: Final = re.compile(
    r"""
    (?P<comment> //[^\n]* )
  | (?P<raw> [bB]?[rR][bB]? (?P<rq>'{3}|"{3}|'|") (?P<rawbody> .*? ) (?P=rq) )
  | (?P<cooked> [bB]? (?P<q>'{3}|"{3}|'|") (?P<body> (?: \\. | [^\\] )*? ) (?P=q) )
  | (?P<backtick> ` )
  | (?P<comma> , (?= (?: \s | //[^\n]* )* [\])}] ) )
    """,
    re.DOTALL | re.VERBOSE,
)
_PIECE: Final = re.compile(
    r"\\(?:[abfnrtv\"'\\]|[0-3][0-7]{2}|x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|U[0-9a-fA-F]{8})|[^\\]", re.DOTALL
)


def flaw(source: str) -> tuple[int, str] | None:
    """Return the offset of the first such thing in a source, and what it is; None where there is none."""
    for token in _TOKEN.finditer(source):
        if token["backtick"]:
            return token.start(), "a field name in backticks is not supported; write ['name']"
        if token["comma"]:
            return token.start(), "a trailing comma is not supported"
        body = token["rawbody"] or token["body"] or ""
        if "\n" in body or "\r" in body:
            return token.start(), "a string over several lines is not supported; write \\n"
        if token["body"] and (found := _escape_flaw(token["body"])) is not None:
            return token.start("body") + found, f"the escape {token['body'][found : found + 2]} is not supported"
    return None


def _escape_flaw(body: str) -> int | None:
    at = 0
    while at < len(body):
        piece = _PIECE.match(body, at)
        if piece is None or (piece[0].startswith(("\\u", "\\U")) and not _is_scalar(int("0x" + piece[0][2:], 0))):
            return at
        at = piece.end()
    return None


def _is_scalar(code: int) -> bool:
    """Whether a number is a Unicode scalar value: a code point that is no surrogate."""
    return code < 0xD800 or 0xDFFF < code <= 0x10FFFF
