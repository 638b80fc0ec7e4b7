"""Evaluation for the portable runtime: cel-python's interpreter with a budget, scopes and strict macros."""

from collections.abc import Iterable, Mapping
from typing import Any, Final, TypeAlias, cast

from celpy import celtypes
from celpy.evaluation import CELEvalError, Evaluator

from fleetward.decision.cel.portable_functions import FUNCTIONS, METHODS, OPERATORS, error
from fleetward.decision.cel.portable_meter import refill, spend, turn

Node: TypeAlias = Any
"""A lark Tree or Token: which one stands where is known from the grammar, not from the type."""

MACROS: Final = {"all": (2,), "exists": (2,), "exists_one": (2,), "filter": (2,), "map": (2, 3)}
"""Argument counts by macro."""

_FUNCTIONS: Final = {
    **{name: function for name, (_, function) in {**FUNCTIONS, **METHODS}.items()},
    **OPERATORS,
}


def evaluate(tree: Node, variables: Mapping[str, object]) -> object:
    """Evaluate a tree made by `portable_parse.parse`; errors are returned. Raises BudgetError."""
    refill()
    return _Evaluator(tree, variables).visit(tree)


class _Scope:
    """What cel-python's Activation is asked for, without its machinery of packages and annotations."""

    def __init__(self, variables: Mapping[str, object]) -> None:
        self.variables = variables

    def resolve_variable(self, name: str) -> object:
        return self.variables[name]

    def resolve_function(self, name: str) -> object:
        return _FUNCTIONS[name]


class _Evaluator(Evaluator):
    """cel-python's Evaluator; overridden where it departs from the specification."""

    def __init__(self, tree: Node, variables: Mapping[str, object]) -> None:
        self._scope = _Scope(variables)
        super().__init__(tree, activation=cast("Any", self._scope))

    def _visit_tree(self, tree: Node) -> Any:
        spend(1)
        return super()._visit_tree(tree)

    def expr(self, tree: Node) -> Any:
        """Evaluate `condition ? then : otherwise`, the chosen branch only."""
        condition, then, otherwise = tree.children
        chosen = self.visit(condition)
        if isinstance(chosen, celtypes.BoolType):
            return self.visit(then if chosen else otherwise)
        return chosen if isinstance(chosen, CELEvalError) else error("no such overload: _?_:_")

    def conditionalor(self, tree: Node) -> Any:
        """Evaluate `||`: true on either side wins over an error on the other."""
        return self._logic(tree, decisive=True)

    def conditionaland(self, tree: Node) -> Any:
        """Evaluate `&&`: false on either side wins over an error on the other."""
        return self._logic(tree, decisive=False)

    def _logic(self, tree: Node, *, decisive: bool) -> object:
        left = self.visit(tree.children[0])
        if isinstance(left, celtypes.BoolType) and bool(left) is decisive:
            return left
        return _joined(left, self.visit(tree.children[1]), decisive=decisive)

    def macro_has_eval(self, exprlist: Node) -> Any:
        """Evaluate `has(e.f)`: an error where `e` is one or is no map, else whether it has the key."""
        operand_tree, key = exprlist.children[0].children
        operand = self.visit(operand_tree)
        if isinstance(operand, celtypes.MapType):
            return celtypes.BoolType(celtypes.StringType(key.value) in operand)
        return operand if isinstance(operand, CELEvalError) else error("no such overload: has()")

    def mapinits(self, tree: Node) -> Any:
        """Build a map literal: keys are strings and differ."""
        values = [self.visit(child) for child in tree.children]
        made = celtypes.MapType()
        for key, value in zip(values[::2], values[1::2], strict=True):
            for part in (key, value):
                if isinstance(part, CELEvalError):
                    return part
            if not isinstance(key, celtypes.StringType) or key in made:
                return error("duplicate key in map" if isinstance(key, celtypes.StringType) else "invalid map key")
            made[key] = value
        return made

    def member_dot_arg(self, tree: Node) -> Any:
        """Evaluate a macro, or leave a method to the superclass."""
        name = tree.children[1].value
        if name not in MACROS:
            return super().member_dot_arg(tree)
        target = self.visit(tree.children[0])
        if isinstance(target, CELEvalError):
            return target
        if not isinstance(target, (celtypes.ListType, celtypes.MapType)):
            return error("no such overload: a macro wants a list or a map")
        variable, *bodies = tree.children[2].children
        ident = variable.children[0].children[0].value
        outer = self._scope.variables
        try:
            return getattr(self, f"_{name}")(self._turns(ident, target, outer), *bodies)
        finally:
            self._scope.variables = outer

    def _turns(self, name: str, items: Iterable[object], outer: Mapping[str, object]) -> Iterable[object]:
        """Bind `name` to one item after another, counting."""
        for item in items:
            turn()
            self._scope.variables = {**outer, name: item}
            yield item

    def _all(self, turns: Iterable[object], body: Node) -> object:
        return self._fold(turns, body, decisive=False)

    def _exists(self, turns: Iterable[object], body: Node) -> object:
        return self._fold(turns, body, decisive=True)

    def _fold(self, turns: Iterable[object], body: Node, *, decisive: bool) -> object:
        result: object = celtypes.BoolType(not decisive)
        for _ in turns:
            result = _joined(result, self.visit(body), decisive=decisive)
            if isinstance(result, celtypes.BoolType) and bool(result) is decisive:
                break
        return result

    def _exists_one(self, turns: Iterable[object], body: Node) -> object:
        kept = self._filter(turns, body)
        return celtypes.BoolType(len(kept) == 1) if isinstance(kept, celtypes.ListType) else kept

    def _filter(self, turns: Iterable[object], body: Node) -> object:
        kept = celtypes.ListType()
        for item in turns:
            verdict = self.visit(body)
            if not isinstance(verdict, celtypes.BoolType):
                return verdict if isinstance(verdict, CELEvalError) else error("a predicate that is not bool")
            if verdict:
                kept.append(cast("Any", item))
        return kept

    def _map(self, turns: Iterable[object], *bodies: Node) -> object:
        *predicate, body = bodies
        made = celtypes.ListType()
        for _ in turns:
            verdict = self.visit(predicate[0]) if predicate else celtypes.BoolType(True)
            if not isinstance(verdict, celtypes.BoolType):
                return verdict if isinstance(verdict, CELEvalError) else error("a predicate that is not bool")
            value = self.visit(body) if verdict else None
            if isinstance(value, CELEvalError):
                return value
            if verdict:
                made.append(cast("Any", value))
        return made


def _joined(left: object, right: object, *, decisive: bool) -> object:
    """Join two verdicts: the decisive one wins, then an error, and two of the other kind stay as they are."""
    for side in (left, right):
        if isinstance(side, celtypes.BoolType) and bool(side) is decisive:
            return side
    for side in (left, right):
        if not isinstance(side, celtypes.BoolType):
            return side if isinstance(side, CELEvalError) else error("no such overload: a condition that is not bool")
    return left
