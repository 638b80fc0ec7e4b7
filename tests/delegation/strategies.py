"""Random scopes and actions over alphabets so small that they overlap all the time."""

from decision.strategies import dotted
from hypothesis import strategies as st

from fleetward.delegation.narrowing import WiderError, narrow
from fleetward.delegation.scope import AMOUNTS, Amounts, AskedScope, Scope
from fleetward.registry.slice import ActionKind

GLOBS = dotted(("a", "b", "ab", "*", "**", "a*", "*b"))
NAMES = dotted(("a", "b", "ab", "x"))
WORDS = ("p", "q", "r")
KINDS: tuple[ActionKind, ...] = ("ToolCall", "ModelCall", "Delegation", "Plan", "Message")


def lists(entries: st.SearchStrategy[str]) -> st.SearchStrategy[tuple[str, ...] | None]:
    return st.none() | st.lists(entries, max_size=4).map(tuple)


def numbers() -> st.SearchStrategy[int | None]:
    return st.none() | st.integers(0, 4)


AMOUNT_SETS = st.builds(Amounts, **{name: numbers() for name in AMOUNTS})

ASKED = st.builds(
    AskedScope,
    actions=lists(GLOBS),
    data_classes=lists(st.sampled_from(WORDS)),
    targets=lists(st.sampled_from(WORDS)),
    depth=st.none() | st.integers(0, 6),
    limits=AMOUNT_SETS,
    expires_in_seconds=st.none() | st.integers(1, 86_400),
)
ACTIONS = st.tuples(
    st.sampled_from(KINDS),
    NAMES,
    st.none() | st.sampled_from(WORDS),
    st.lists(st.sampled_from(WORDS), max_size=2, unique=True),
)


def asking(scope: Scope) -> AskedScope:
    """Ask for `scope` itself."""
    return AskedScope(
        actions=scope.actions,
        data_classes=scope.data_classes,
        targets=scope.targets,
        depth=scope.depth,
        limits=scope.limits,
    )


@st.composite
def chains(draw: st.DrawFn) -> list[Scope]:
    """Draw scopes, each allowed under the one before; what was refused is asked for again, field by field."""
    scopes = [narrow(None, draw(ASKED))]
    for asked in draw(st.lists(ASKED, max_size=8)):
        for attempt in (asked, *_fields(asked)):
            try:
                scopes.append(narrow(scopes[-1], attempt))
                break
            except WiderError:
                continue
    return scopes


def _fields(asked: AskedScope) -> list[AskedScope]:
    """Ask for one field at a time."""
    return [
        AskedScope(actions=asked.actions),
        AskedScope(data_classes=asked.data_classes),
        AskedScope(targets=asked.targets),
        AskedScope(limits=asked.limits),
        AskedScope(depth=asked.depth),
    ]
