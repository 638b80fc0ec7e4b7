"""What one replica asks another about budgets, where the other keeps the ledger: `POST /v1/budget-questions`, JSON."""

from typing import Annotated

import msgspec
from msgspec import Meta

from fleetward.budget import calls
from fleetward.budget.ledger import Entry
from fleetward.budget.report import BudgetsReport
from fleetward.registry.slice import Wire
from fleetward.registry.text import AgentKey
from fleetward.stream.messages import WriterId

PATH = "/v1/budget-questions"

REPORT_PATH = "/v1/budgets"

MAX_WAITING = 5_000
"""Questions that wait to be sent."""

MAX_QUESTIONS = 256
"""In one request."""

MAX_BODY = 16 * 2**20
"""Bytes of a request."""


class Asked(Wire, frozen=True, kw_only=True):
    """One question of one decision webhook, and the agents that it serves."""

    webhook: WriterId
    agents: tuple[AgentKey, ...]
    request: calls.Request


class Questions(Wire, frozen=True, kw_only=True):
    """Questions in the order in which they were asked, and what is to be settled before they are answered."""

    asked: Annotated[tuple[Asked, ...], Meta(max_length=MAX_QUESTIONS)] = ()
    entries: tuple[Entry, ...] = ()
    folded: str = ""
    """A writer of whom it is asked up to which number its records are settled."""


class Answers(Wire, frozen=True, kw_only=True):
    """One answer for each question, in their order."""

    replies: tuple[calls.Reply, ...] = ()
    folded: int = 0
    problem: str = ""
    """Why nothing was settled; empty where it was."""


encode = msgspec.json.Encoder().encode
decode_questions = msgspec.json.Decoder(Questions).decode
decode_report = msgspec.json.Decoder(BudgetsReport).decode

_decode_answers = msgspec.json.Decoder(Answers).decode


def answers_to(questions: Questions, data: bytes) -> Answers:
    """Read the answers. Raises msgspec.MsgspecError, also where they are not as many as the questions."""
    answers = _decode_answers(data)
    if len(answers.replies) != len(questions.asked):
        raise msgspec.ValidationError(f"it gave {len(answers.replies)} answers to {len(questions.asked)} questions")
    return answers
