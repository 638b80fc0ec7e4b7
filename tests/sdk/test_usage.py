"""What an action used, told by numbers or by what a model's response says."""

from types import SimpleNamespace
from typing import Any

import pytest
from support.webhook import Webhook

from fleetward.sdk import AsyncClient, Client, OutcomeRefused
from fleetward.sdk.usage import actual_of, tokens_of

RUN = "crm.customers.read"

CHAT = {
    "prompt_tokens": 100,
    "completion_tokens": 40,
    "total_tokens": 140,
    "prompt_tokens_details": {"cached_tokens": 60, "audio_tokens": 0},
    "completion_tokens_details": {"reasoning_tokens": 25},
}
RESPONSES = {
    "input_tokens": 100,
    "input_tokens_details": {"cached_tokens": 60},
    "output_tokens": 40,
    "output_tokens_details": {"reasoning_tokens": 25},
}
MESSAGES = {
    "input_tokens": 30,
    "cache_creation_input_tokens": 10,
    "cache_read_input_tokens": 60,
    "output_tokens": 40,
    "service_tier": "standard",
}


def as_object(usage: dict[str, Any]) -> SimpleNamespace:
    return SimpleNamespace(**{k: as_object(v) if isinstance(v, dict) else v for k, v in usage.items()})


@pytest.mark.parametrize(("usage", "reasoning"), [(CHAT, 25), (RESPONSES, 25), (MESSAGES, None)])
def test_what_models_say_they_took(usage: dict[str, Any], reasoning: int | None) -> None:
    expected = {"input_tokens": 100, "output_tokens": 40, "cached_input_tokens": 60}
    if reasoning is not None:
        expected["reasoning_tokens"] = reasoning
    assert tokens_of(usage) == expected
    assert tokens_of(as_object(usage)) == expected


def test_details_may_be_missing() -> None:
    assert tokens_of({"prompt_tokens": 5, "completion_tokens": 0, "prompt_tokens_details": None}) == {
        "input_tokens": 5,
        "output_tokens": 0,
    }
    assert tokens_of({"input_tokens": 5, "output_tokens": 1, "cache_read_input_tokens": None}) == {
        "input_tokens": 5,
        "output_tokens": 1,
    }


def test_usage_that_says_nothing_is_an_error() -> None:
    with pytest.raises(ValueError, match="neither"):
        tokens_of({"total": 7})


def test_numbers_beside_usage_count_instead() -> None:
    actual = actual_of({"usage": CHAT, "output_tokens": 41, "duration": 1.5, "cost_micro_usd": 9}, measured=7.0)
    assert (actual.input_tokens, actual.output_tokens, actual.duration_ms, actual.cost_micro_usd) == (100, 41, 1500, 9)
    assert actual_of({}, measured=7.0).duration_ms == 7000


def test_what_cannot_be_said_is_named() -> None:
    with pytest.raises(TypeError, match="unknown: tokens; known are input_tokens"):
        actual_of({"tokens": 1}, 0.0)  # type: ignore[typeddict-unknown-key]


def test_success_and_failure_both_tell_what_was_used(client: Client, webhook: Webhook) -> None:
    client.decide("ToolCall", RUN).succeed(1, usage=CHAT, records=2, duration=2.5)
    told = webhook.spooled()[-1]["actual"]
    assert told == {
        "inputTokens": 100,
        "outputTokens": 40,
        "cachedInputTokens": 60,
        "reasoningTokens": 25,
        "records": 2,
        "durationMs": 2500,
    }
    client.decide("ToolCall", RUN).fail("the model broke off", usage=MESSAGES)
    record = webhook.spooled()[-1]
    assert (record["status"], record["actual"]["cachedInputTokens"]) == ("Failed", 60)


async def test_the_asynchronous_client_takes_the_same(async_client: AsyncClient, webhook: Webhook) -> None:
    permit = await async_client.decide("ToolCall", RUN)
    await permit.fail("no", usage=RESPONSES)
    assert webhook.spooled()[-1]["actual"]["reasoningTokens"] == 25


def test_a_negative_amount_is_refused(client: Client) -> None:
    with pytest.raises(OutcomeRefused, match="inputTokens"):
        client.decide("ToolCall", RUN).succeed(1, input_tokens=-1)
