"""What one replica asks another about runs that the other keeps: `POST /v1/run-questions`, JSON both ways."""

from typing import Annotated

import msgspec
from msgspec import Meta

from fleetward.registry.slice import Wire
from fleetward.registry.text import AgentKey
from fleetward.run import calls
from fleetward.stream.messages import MAX_FRAME_TO_HUB, WriterId

PATH = "/v1/run-questions"

MAX_QUESTIONS = 256
"""In one request."""

MAX_BODY = MAX_FRAME_TO_HUB + 65_536
"""Bytes of a request: as much as one question may have, and what is said about it."""


class Asked(Wire, frozen=True):
    """One question of one decision webhook. What is not to be decoded yet is `msgspec.Raw`."""

    webhook: WriterId
    agent: AgentKey | None
    """The agent that the question is about, where it names one and the webhook serves it."""
    request: calls.Request


class Questions(Wire, frozen=True):
    """Questions in the order in which they were asked."""

    tag: Annotated[str, Meta(max_length=16)]
    """Whose runs they are about."""
    asked: Annotated[tuple[Asked, ...], Meta(min_length=1, max_length=MAX_QUESTIONS)]


class Answers(Wire, frozen=True):
    """One answer for each question, in their order."""

    replies: tuple[calls.Reply, ...]


encode = msgspec.json.Encoder().encode
decode_questions = msgspec.json.Decoder(Questions).decode
decode_answers = msgspec.json.Decoder(Answers).decode
