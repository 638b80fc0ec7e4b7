"""A run's tree as one page that needs nothing but itself: no network, no other file.

Its content security policy lets in the one style sheet and the one script it was written with, by their hashes. All
that comes from records is text: escaped in the tree, and in the data behind it.
"""

import base64
import hashlib
from collections import Counter
from collections.abc import Iterator
from html import escape
from pathlib import Path

import msgspec

from fleetward.audit.trace import Node, Trace
from fleetward.cli.output import printable
from fleetward.cli.runtext import mandate_in_words
from fleetward.cli.traceline import Line, line
from fleetward.cli.tracetext import times
from fleetward.registry.slice import Decision

_FOLDER = Path(__file__).with_name("page")
_DECISIONS: tuple[Decision, ...] = ("Allow", "Constrain", "Throttle", "RequireApproval", "Deny")


def page(trace: Trace) -> Iterator[str]:
    """Give the page in pieces."""
    style, script = ((_FOLDER / name).read_text("utf-8") for name in ("trace.css", "trace.js"))
    allowed = f"style-src '{_hash(style)}'; script-src '{_hash(script)}'"
    policy = f"default-src 'none'; {allowed}; base-uri 'none'; form-action 'none'"
    yield (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="referrer" content="no-referrer">\n'
        f"<title>Run {_text(trace.run)}</title>\n<style>{style}</style>\n</head>\n<body>\n"
    )
    yield from _header(trace)
    # The data comes before the tree: behind it, the tree would be laid out again and again while the data comes in.
    yield '<script type="application/json" id="records">'
    yield from _records(trace)
    yield "</script>\n<main>\n"
    yield '<ul id="tree" role="tree" aria-label="What was decided in this run, and by which cause">\n'
    yield from _tree(trace)
    yield f"</ul>\n</main>\n<script>{script}</script>\n</body>\n</html>\n"


def _header(trace: Trace) -> Iterator[str]:
    opening = trace.opening
    yield f"<header>\n<h1>Run {_text(trace.run)}</h1>\n"
    if opening is not None:
        mandate = "; ".join(mandate_in_words(opening.mandate))
        yield f"<p>Opened by {_text(opening.agent)} {_text(mandate)}</p>\n"
    yield f"<p>{trace.records} record{'s' * (trace.records != 1)} {_text(times(trace).strip())}</p>\n"
    counts = Counter(getattr(node.record, "decision", "") for node, _ in trace.walk())
    shown = (f'<span class="{name}">{name} {counts[name]}</span>' for name in _DECISIONS if counts[name])
    yield f'<p class="counts">{"".join(shown)}</p>\n'
    yield (
        '<div class="tools"><label for="filter">Filter</label>'
        '<input id="filter" type="search" placeholder="agent, action, verdict, rule, id" autocomplete="off">'
        '<button id="open" type="button">Expand all</button><button id="close" type="button">Collapse all</button>'
        '<span id="found" role="status"></span></div>\n</header>\n'
    )


def _tree(trace: Trace) -> Iterator[str]:
    day = trace.opening.time[:10] if trace.opening else ""
    open_: list[bool] = []
    """Of each level above: whether its node has children, and so a list that is to be closed."""
    for number, (node, level) in enumerate(trace.walk()):
        yield from _ends(open_, level)
        open_.append(bool(node.children))
        index = -1 if number else 0
        expanded = ' aria-expanded="true"' if node.children else ""
        yield f'<li role="treeitem" tabindex="{index}" data-n="{number}"{expanded}>{_row(line(node, day))}'
        if node.children:
            yield '<ul role="group">'
    yield from _ends(open_, 0)


def _ends(open_: list[bool], level: int) -> Iterator[str]:
    while len(open_) > level:
        yield "</ul></li>" if open_.pop() else "</li>\n"


def _row(words: Line) -> str:
    below = "".join(f"<i>{_text(text)}</i>" for text in words.below)
    facts = "".join(f" · {_text(fact)}" for fact in words.facts)
    id_ = f" <code>{_text(words.id)}</code>" if words.id else ""
    if not words.verdict:
        return f'<div class="row"><b class="Lacking">{_text(words.what)}</b>{id_}{facts}</div>'
    name = words.verdict if words.verdict in _DECISIONS else "Run"
    reason = f"<i>{_text(words.reason)}</i>" if words.reason else ""
    head = f'<b class="{name}">{words.verdict}</b><time>{_text(words.time)}</time>'
    who = f'<span class="who">{_text(words.who)}</span>'
    return f'<div class="row">{head} {who} {_text(words.what)}{facts}{id_}{reason}{below}</div>'


def _records(trace: Trace) -> Iterator[str]:
    """Give what each node can show in full, by its number, as JSON that cannot end the element it is in."""
    before = "["
    for node, _ in trace.walk():
        text = msgspec.json.encode(_full(node)).decode()
        for character, written in _UNSAFE_IN_SCRIPT.items():
            text = text.replace(character, written)
        yield before + text
        before = ","
    yield "[]" if before == "[" else "]"


_UNSAFE_IN_SCRIPT = {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026", "\u2028": "\\u2028", "\u2029": "\\u2029"}


def _full(node: Node) -> dict[str, object]:
    full: dict[str, object] = {"record": node.record, "outcomes": node.outcomes, "notes": node.notes}
    return {name: value for name, value in full.items() if value}


def _text(text: str) -> str:
    return escape(printable(text))


def _hash(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"
