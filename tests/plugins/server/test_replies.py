"""What a served model makes of replies: text, thoughts, log-probabilities."""

from __future__ import annotations

from typing import Any

import pytest

from harness.errors import BadInput
from harness.extraction import read_letter
from tests.plugins.server import chats
from tests.plugins.server.chats import KEY, LOGITS, OPTIONS, THINK, group, model, results, units
from tests.servers import Act, reply, serving, status


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "*")


@pytest.mark.parametrize(
    ("message", "finish", "text", "letter", "truncated"),
    [
        ({"content": "B"}, "stop", "B", "B", False),
        ({"content": "B", "reasoning_content": "A?"}, "stop", "<think>A?</think>B", "B", False),
        ({"content": "B", "reasoning": "A?"}, "stop", "<think>A?</think>B", "B", False),
        ({"content": None, "reasoning": "A, or"}, "length", "<think>A, or", None, True),
        ({"content": None}, "stop", "", None, False),
        ({"content": "The answer is", "refusal": None}, "length", "The answer is", None, True),
        ({"content": None, "refusal": "I will not say."}, "stop", "I will not say.", None, False),
        ({"content": [{"type": "text", "text": "(C)"}]}, "stop", "(C)", "C", False),
        ({"content": f"B {KEY}"}, "stop", "B ***", None, False),
    ],
)
def test_how_replies_are_read(
    message: dict[str, Any], finish: str, text: str, letter: str | None, truncated: bool
) -> None:
    act = status(200, {"choices": [{"message": message, "finish_reason": finish}]})
    with serving(lambda number, asked: act) as server:
        (result,) = results(model(server), [[group(1, 1)]], THINK)
    (response,) = result.responses
    assert (response.text, response.truncated) == (text, truncated)
    if KEY not in str(message):
        assert read_letter(response.text, None, OPTIONS, "think") == letter


def test_a_short_key_is_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who serves on their own machine may call the key "B", and answers must survive that."""
    monkeypatch.setattr(chats, "KEY", "B")
    with serving(lambda number, asked: reply("The answer is B.")) as server:
        (result,) = results(model(server), [[group(1, 1)]])
    assert result.responses[0].text == "The answer is B."


def test_log_probabilities_of_the_options() -> None:
    found = {"B": -0.5, " A": -1.5, "A": -2.5, "C": -4.0, "\u2581D": -6.0, "The": -0.1, "b": -0.2}
    with serving(lambda number, asked: chats.chances(found)) as server:
        (result,) = results(model(server), [[group(1, 1)]], LOGITS)
    (asked,) = server.asked
    assert (asked.body["max_tokens"], asked.body["logprobs"], asked.body["top_logprobs"]) == (1, True, 20)
    (response,) = result.responses
    assert response.option_logprobs == {"A": -1.5, "B": -0.5, "C": -4.0, "D": -6.0}
    assert read_letter(response.text, response.option_logprobs, OPTIONS, "logits") == "B"


def test_an_option_that_is_not_listed_has_no_log_probability() -> None:
    with serving(
        lambda number, asked: chats.chances({"A": -0.1, "B": -2.0, "C": -3.0, "So": -4.0})
    ) as server:
        (result,) = results(model(server), [[group(1, 1)]], LOGITS)
    (response,) = result.responses
    assert response.option_logprobs == {"A": -0.1, "B": -2.0, "C": -3.0}
    with pytest.raises(ValueError, match="no log-probability for option D"):
        read_letter(response.text, response.option_logprobs, OPTIONS, "logits")


@pytest.mark.parametrize(
    "act",
    [
        reply("A"),
        status(200, {"choices": [{"message": {"content": "A"}, "logprobs": None}]}),
        status(200, {"choices": [{"message": {"content": "A"}, "logprobs": {"content": None}}]}),
        status(400, {"error": {"message": "logprobs is not supported by this model"}}),
    ],
)
def test_a_server_without_log_probabilities_ends_the_run_at_once(act: Act) -> None:
    with serving(lambda number, asked: act) as server, pytest.raises(BadInput) as error:
        results(model(server, concurrency=1), units(5), LOGITS)
    assert "--mode logits needs them: use --mode direct" in str(error.value)
    assert len(server.asked) == 1


def test_bare_prompts_cannot_be_sent() -> None:
    with serving() as server, pytest.raises(BadInput, match="bare texts"):
        results(model(server), [[group(1, raw=True)]])
    assert server.asked == []
