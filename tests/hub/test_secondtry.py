"""Which question of a webhook is its newest, and for how long that is known."""

from fleetward.budget.calls import Reserve
from fleetward_operator.hub.secondtry import FORGET_SECONDS, NewestQuestions


class _Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def _question(number: int, born: str = "b") -> Reserve:
    return Reserve(born=born, number=number, wishes=())


def test_a_later_question_takes_the_place_of_the_one_before() -> None:
    newest = NewestQuestions()
    newest.note("w1", _question(1))
    newest.note("w2", _question(1))
    assert newest.is_newest("w1", _question(1))
    newest.note("w1", _question(2))
    assert not newest.is_newest("w1", _question(1))
    assert newest.is_newest("w1", _question(2))
    assert newest.is_newest("w2", _question(1))
    assert not newest.is_newest("w1", _question(2, born="again"))


def test_a_webhook_that_never_asked_has_none() -> None:
    assert not NewestQuestions().is_newest("w1", _question(0))


def test_webhooks_that_are_gone_are_forgotten() -> None:
    clock = _Clock()
    newest = NewestQuestions(clock=clock)
    for index in range(100):
        newest.note(f"gone{index}", _question(1))
    newest.note("w1", _question(1))
    clock.now += FORGET_SECONDS
    newest.note("w1", _question(2))
    assert len(newest) == 101
    clock.now += 1
    newest.note("w2", _question(1))
    assert len(newest) == 2
    assert newest.is_newest("w1", _question(2))
    assert not newest.is_newest("gone0", _question(1))
