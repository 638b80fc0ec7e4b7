"""How budgets are part of one another, by key. A parent may be missing, and by mistake budgets may form a circle."""

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping

Parents = Mapping[str, str]
"""The key of each budget's parent, by the budget's key; empty for a budget that is part of no other."""


def ancestors(key: str, parents: Parents) -> Iterator[str]:
    """Give the budget and all that it is part of, as far as they are there, each once."""
    seen: set[str] = set()
    while key in parents and key not in seen:
        seen.add(key)
        yield key
        key = parents[key]


def below(keys: Collection[str], parents: Parents) -> set[str]:
    """Give these budgets and all that are part of them, directly or through others."""
    children: defaultdict[str, list[str]] = defaultdict(list)
    for child, parent in parents.items():
        children[parent].append(child)
    found: set[str] = set()
    new = set(keys)
    while new:
        found |= new
        new = {child for key in new for child in children.get(key, ())} - found
    return found


def problem(key: str, parents: Parents) -> str:
    """Say why nothing may be spent from a budget: its parent is not there, or it is part of itself; else nothing."""
    parent = parents[key]
    if not parent:
        return ""
    if parent not in parents:
        return f"{_name(parent)}, which it is part of (spec.parent), is not there"
    way = list(ancestors(key, parents))
    if parents[way[-1]] != key:
        return ""
    circle = " is part of ".join(_name(each) for each in [*way, key])
    return f"it is part of itself (spec.parent): {circle}"


def _name(key: str) -> str:
    kind, _, name = key.partition("/")
    return f"{kind} {name}"
