"""Topics of a `safety.yaml`: a dotted name in which `*` stands for any characters, dots included, or none.

They are turned into Fleetward's globs, in which `*` stays within a segment and `**` stands for any number of
segments, and two topics are asked for a name that both match. Names are action names: no segment is empty.
"""

import re
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from itertools import product

MAX_INNER_STARS = 6
"""The most stars with text on both sides within one topic: each doubles the number of globs."""
MAX_GLOB = 256
"""The most characters in a glob, and in an action name."""

_SEGMENT = re.compile(r"[A-Za-z0-9_:/@+*-]+\Z")
_FILLER = "x"


def mistake(topic: str) -> str | None:
    """Say what keeps the topic from being imported, or nothing."""
    segments = topic.split(".")
    if not all(segments):
        return "an empty segment, which no action name has; allowed segments of at least one character"
    if not all(_SEGMENT.match(segment) for segment in segments):
        return "allowed letters, digits, '_:/@+-', '.' between segments, and '*' for any characters"
    if sum(_inner_stars(segment) for segment in _simple(topic).split(".")) > MAX_INNER_STARS:
        return f"allowed at most {MAX_INNER_STARS} stars that have text before and after them in a segment"
    if any(len(glob) > MAX_GLOB for glob in globs(topic)):
        return f"too long; allowed what fits {MAX_GLOB} characters as a glob"
    return None


def globs(topic: str) -> list[str]:
    """Give the globs that together match the names that the topic matches.

    A star that is a whole segment is one or more segments (`*.**`). At the end or the beginning of a segment
    it may run on over further ones (`ex*.**`, `**.*ex`). Inside a segment it stays or does not: two globs.
    """
    if set(topic) == {"*"}:
        return ["**"]
    choices = [list(_alternatives(segment)) for segment in _simple(topic).split(".")]
    return list(dict.fromkeys(_joined(parts) for parts in product(*choices)))


def _simple(topic: str) -> str:
    return re.sub(r"\*+", "*", topic)


def _inner_stars(segment: str) -> int:
    return segment.strip("*").count("*")


def _alternatives(segment: str) -> Iterator[str]:
    if segment == "*":
        yield "*.**"
        return
    before = "**." if segment.startswith("*") else ""
    after = ".**" if segment.endswith("*") else ""
    texts = segment.strip("*").split("*")
    for joints in product(("*", "*.**.*"), repeat=len(texts) - 1):
        inner = texts[0] + "".join(joint + text for joint, text in zip(joints, texts[1:], strict=True))
        yield before + ("*" if before else "") + inner + ("*" if after else "") + after


def _joined(parts: Sequence[str]) -> str:
    # `a.**` before `**.b` says `**` twice, where once says the same.
    return re.sub(r"\*\*(\.\*\*)+", "**", ".".join(parts))


@lru_cache(maxsize=4096)
def _pattern(topic: str) -> re.Pattern[str]:
    return re.compile(".*".join(re.escape(part) for part in _simple(topic).split("*")), re.DOTALL)


def matches(topic: str, name: str) -> bool:
    """Say whether the topic matches the name."""
    return _pattern(topic).fullmatch(name) is not None


@lru_cache(maxsize=4096)
def _automaton(topic: str) -> "_Automaton":
    return _Automaton(_simple(topic))


class TooManyStatesError(Exception):
    """The search for a name went on for too long."""


class _Automaton:
    """A topic as a machine: its state is the set of places in it that the text so far can lead to, as bits.

    Once a star is reached, every place before it is dropped: what matched from there matches from the star as
    well. So there are about as many states as characters.
    """

    def __init__(self, topic: str) -> None:
        self.topic = topic
        self.start = self._settle(1)
        self._known: dict[tuple[int, str], int] = {}

    def step(self, state: int, character: str) -> int:
        known = self._known.get((state, character))
        if known is None:
            known = self._known[state, character] = self._after(state, character)
        return known

    def accepts(self, state: int) -> bool:
        return bool(state >> len(self.topic) & 1)

    def _after(self, state: int, character: str) -> int:
        after = 0
        for place, here in enumerate(self.topic):
            if state >> place & 1:
                if here == "*":
                    after |= 1 << place
                elif here == character:
                    after |= 1 << place + 1
        return self._settle(after)

    def _settle(self, state: int) -> int:
        for place, here in enumerate(self.topic):
            if here == "*" and state >> place & 1:
                state = (state >> place << place) | 1 << place + 1
        return state


def common_name(both: Iterable[str], none_of: Iterable[str] = (), *, max_states: int = 20_000) -> str | None:
    """Find a shortest action name that all topics in `both` and none in `none_of` match; None: there is none.

    A breadth-first walk through the product of the topics' automata, so the answer is exact. Raises
    TooManyStatesError beyond `max_states` states.
    """
    wanted = [_automaton(topic) for topic in both]
    unwanted = [_automaton(topic) for topic in none_of]
    machines = wanted + unwanted
    letters = [_FILLER, *sorted({c for m in machines for c in m.topic} - {"*", ".", _FILLER}), "."]
    start = (False, *(machine.start for machine in machines))
    seen, todo = {start}, deque([(start, "")])
    while todo:
        (inside, *states), name = todo.popleft()
        accepted = [machine.accepts(state) for machine, state in zip(machines, states, strict=True)]
        if inside and all(accepted[: len(wanted)]) and not any(accepted[len(wanted) :]):
            return name
        if len(name) == MAX_GLOB:
            continue
        for letter in letters if inside else letters[:-1]:
            after = [machine.step(state, letter) for machine, state in zip(machines, states, strict=True)]
            key = (letter != ".", *after)
            if all(after[: len(wanted)]) and key not in seen:
                seen.add(key)
                todo.append((key, name + letter))
        if len(seen) > max_states:
            raise TooManyStatesError
    return None


def disjoint_at_a_glance(one: str, other: str) -> bool:
    """Say whether the texts before the first and after the last star already keep the two apart."""
    return _clash(one.partition("*")[0], other.partition("*")[0], one, other) or _clash(
        one.rpartition("*")[2][::-1], other.rpartition("*")[2][::-1], one[::-1], other[::-1]
    )


def _clash(a: str, b: str, one: str, other: str) -> bool:
    shared = min(len(a), len(b))
    if a[:shared] != b[:shared]:
        return True
    return "*" not in one and "*" not in other and a != b
