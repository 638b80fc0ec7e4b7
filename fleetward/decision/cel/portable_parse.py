"""Parsing with cel-python, and the checks at compile time that its parser leaves out.

Unknown names, wrong numbers of arguments, bad escapes, literals out of range and deep nesting are refused here,
so that what the portable runtime compiles, cel-expr compiles, too.
"""

import re
from collections.abc import Iterable
from typing import Any, Final, cast

from celpy.celparser import CELParseError, CELParser
from celpy.evaluation import CELEvalError, Evaluator
from lark import Token, Tree
from lark.exceptions import LarkError

from fleetward.decision.cel import fields, lexical
from fleetward.decision.cel.portable_eval import MACROS, Node
from fleetward.decision.cel.portable_functions import FUNCTIONS, METHODS
from fleetward.decision.cel.runtime import ExpressionError, position

MAX_NESTING: Final = 128
"""Levels of the collapsed parse tree; each costs a few Python frames to evaluate."""

_PASS_THROUGH: Final = frozenset(
    ("expr", "conditionalor", "conditionaland", "relation", "addition", "multiplication", "unary", "member")
)
_KEYWORDS: Final = frozenset(("false", "in", "null", "true"))
_RESERVED: Final = _KEYWORDS | {
    *("as", "break", "const", "continue", "else", "for", "function", "if", "import", "let", "loop", "namespace"),
    *("package", "return", "var", "void", "while"),
}
_BARE_DOT: Final = re.compile(r"\.(?![0-9])")
_LITERALS: Final = Evaluator(Tree("expr", []), activation=cast("Any", None))


def parse(source: str, variables: Iterable[str] = fields.VARIABLES) -> Node:
    """Return the collapsed tree; raises ExpressionError for what does not compile over these variables."""
    try:
        tree = CELParser().parse(source)
    except CELParseError as error:
        raise _syntax_error(source, error) from None
    except LarkError as error:
        raise ExpressionError(f"Syntax error: {error}", source=source) from None
    if found := lexical.flaw(source):
        line, column = position(source, found[0])
        raise ExpressionError(found[1], source=source, line=line, column=column)
    tree = _collapse(tree)
    _Check(source, frozenset(variables)).tree(tree)
    return tree


def _syntax_error(source: str, error: CELParseError) -> ExpressionError:
    lines = source.split("\n")
    line, column = error.line, error.column
    at_end = getattr(getattr(error.__context__, "token", None), "type", None) == "$END"
    if at_end or not line or line < 1:  # the parser gives the place of the last token for the end
        line, column = len(lines), len(lines[-1]) + 1
    text = lines[line - 1][(column or 1) - 1 :] if line <= len(lines) else ""
    found = f"unexpected {text[:20]!r}" if text else "unexpected end"
    return ExpressionError(f"Syntax error: {found}", source=source, line=line, column=column or 1)


def _collapse(tree: Node) -> Node:
    """Drop the levels of the grammar that hold one child and nothing else: a third of the depth, half the time."""
    for node in tree.iter_subtrees():  # from the leaves up
        node.children = [_single(child) for child in node.children]
    return _single(tree)


def _single(node: Any) -> Any:
    while isinstance(node, Tree) and len(node.children) == 1:
        child = node.children[0]
        if node.data == "primary" and isinstance(child, Tree) and child.data == "paren_expr":
            node = child.children[0]
        elif node.data in _PASS_THROUGH:
            node = child
        else:
            break
    return node


class _Check:
    """Walks a tree with the names in scope; raises at the first thing that is wrong."""

    def __init__(self, source: str, variables: frozenset[str]) -> None:
        self._source = source
        self._variables = variables

    def tree(self, root: Node) -> None:
        stack = [(root, self._variables, 1)]
        while stack:
            node, names, depth = stack.pop()
            if depth > MAX_NESTING:
                raise self._error(f"nested more than {MAX_NESTING} deep", node)
            inner = self._node(node, names)
            stack.extend(
                (child, inner.get(id(child), names), depth + 1)
                for child in reversed(node.children)
                if isinstance(child, Tree)
            )

    def _node(self, node: Node, names: frozenset[str]) -> dict[int, frozenset[str]]:
        """Check one node; return the names of those children that see others."""
        kind = node.data
        if kind in ("ident", "dot_ident"):
            self._variable(node.children[0], names if kind == "ident" else self._variables)
        elif kind == "member_dot" and node.children[1].value in _KEYWORDS:
            raise self._error(f"the keyword {node.children[1]} cannot be a field; write ['{node.children[1]}']", node)
        elif kind == "member_object":
            raise self._error("a message cannot be built in an expression", node)
        elif kind == "ident_arg":
            self._call(node.children[0], _arguments(node.children[1:]))
        elif kind == "member_dot_arg":
            return self._method(node, names)
        elif kind == "literal":
            self._literal(node)
        elif kind == "dot_ident_arg":
            raise self._error(f"unknown function {node.children[0].value!r}", node)
        return {}

    def _variable(self, token: Token, names: frozenset[str]) -> None:
        if token.value in _RESERVED:
            raise self._error(f"reserved identifier: {token}", token)
        if token.value not in names:
            allowed = ", ".join(sorted(names))
            raise self._error(f"unknown variable {token.value!r}; variables: {allowed}", token)

    def _call(self, name: Token, args: list[Node]) -> None:
        if name == "has":
            if len(args) != 1 or args[0].data != "member_dot":
                raise self._error("has() argument must be a field selection", name)
        elif name.value not in FUNCTIONS:
            allowed = ", ".join((*FUNCTIONS, "has"))
            raise self._error(f"unknown function {name.value!r}; functions: {allowed}", name)
        elif FUNCTIONS[name.value][0] != len(args):
            raise self._error(f"{name}() takes {FUNCTIONS[name.value][0]} argument(s), not {len(args)}", name)

    def _method(self, node: Node, names: frozenset[str]) -> dict[int, frozenset[str]]:
        name = node.children[1]
        args = _arguments(node.children[2:])
        if len(args) in MACROS.get(name.value, ()):
            first = args[0].children[0] if args[0].data == "primary" else args[0]
            if first.data != "ident":
                raise self._error(f"{name}() variable name must be a simple identifier", args[0])
            bound = names | {first.children[0].value}
            return {id(node.children[2]): bound}
        if name.value not in METHODS:
            allowed = ", ".join((*METHODS, *MACROS))
            raise self._error(f"unknown method {name.value!r}, or wrong arguments; methods: {allowed}", name)
        if METHODS[name.value][0] != len(args) + 1:
            raise self._error(f"{name}() takes {METHODS[name.value][0] - 1} argument(s), not {len(args)}", name)
        return {}

    def _literal(self, node: Node) -> None:
        token = node.children[0]
        value = _LITERALS.literal(node)
        if isinstance(value, CELEvalError) or (token.type == "FLOAT_LIT" and _BARE_DOT.search(token.value)):
            raise self._error(f"invalid literal {token.value[:40]}", token)

    def _error(self, message: str, at: Node | Token) -> ExpressionError:
        place: Any = at.meta if isinstance(at, Tree) else at
        line, column = (getattr(place, name, None) or 1 for name in ("line", "column"))
        return ExpressionError(message, source=self._source, line=line, column=column)


def _arguments(rest: Iterable[Node]) -> list[Node]:
    return [argument for exprlist in rest for argument in exprlist.children]
