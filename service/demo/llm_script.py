"""The small language in which a user message tells the scripted LLM what to answer.

One directive a line; lines that start with none of the words are ignored, so a script may sit inside prose:

    SAY text                    answer with text
    CALL name {json}            answer with a tool call
    CALL a {...} && CALL b {...}    answer with two tool calls at once
    HTTP code text              answer with that HTTP status
    SLEEP seconds               wait before the next answer
    HOLD name                   wait before the next answer until the test releases `name`
    STALL name                  the same, in the middle of the next answer; for a text of words that is streamed

    JUDGE {json}            in a goal's objective: what its judge says; each line is one judgement, the last stands

An answer and the waits before it are one turn. Past the last turn the LLM says `done`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

JsonObject = dict[str, Any]

# A shell command may contain " && " too: only one that starts another CALL separates calls.
_NEXT_CALL = re.compile(r" && (?=CALL \S+ \{)")


class ToolCall(NamedTuple):
    """One tool the LLM asks for."""

    name: str
    arguments: str
    """JSON text of one object, sent to the server as written."""


class Refusal(NamedTuple):
    """An HTTP error instead of an answer."""

    status: int
    text: str


class Sleep(NamedTuple):
    """A pause before the answer."""

    seconds: float


class Hold(NamedTuple):
    """A gate the test opens by name."""

    name: str


class Turn(NamedTuple):
    """What happens on one request: the waits in order, then text, calls or an HTTP error."""

    waits: tuple[Sleep | Hold, ...] = ()
    text: str | None = None
    calls: tuple[ToolCall, ...] = ()
    refusal: Refusal | None = None
    stall: str | None = None
    """The gate that a streamed text waits at after its first word."""


DEFAULT_TURN = Turn(text="done")


class ScriptError(ValueError):
    """A directive that cannot be read; the LLM answers it with 400 so that the test sees why."""


def turn_for(messages: Sequence[JsonObject]) -> Turn:
    """Choose the turn for one chat completions request.

    The script is the last user message; every assistant message after it is one turn already taken.

    Args:
        messages: the `messages` of the request body, OpenAI's shapes.

    Raises:
        ScriptError: the script has a line that starts with a directive but is not one.
    """
    last = max((index for index, message in enumerate(messages) if message["role"] == "user"), default=None)
    if last is None:
        return DEFAULT_TURN
    taken = sum(message["role"] == "assistant" for message in messages[last + 1 :])
    turns = parse_parts(content_parts(messages[last]))
    return turns[taken] if taken < len(turns) else DEFAULT_TURN


def verdict_for(messages: Sequence[JsonObject]) -> str | None:
    """What a goal's judge says; None for a request that is none."""
    text = "".join(content_parts(messages[-1]))
    if "<objective>" not in text:
        return None
    objective, _, transcript = text.partition("</objective>")
    verdicts = [line.removeprefix("JUDGE ") for line in objective.splitlines() if line.startswith("JUDGE ")]
    made = transcript.count("audit iteration")
    return verdicts[min(made, len(verdicts) - 1)] if verdicts else None


def content_parts(message: JsonObject) -> list[str]:
    """The texts of one message, whose content is a string or a list of parts."""
    content = message.get("content") or ""
    return [content] if isinstance(content, str) else [part.get("text", "") for part in content]


def parse_parts(parts: Sequence[str]) -> list[Turn]:
    """Read the turns of a message.

    The SDK joins consecutive user messages into one with a part each. A refused request leaves no assistant
    message, so a refusal stands until the user writes again: in all parts but the last it counts as taken.
    """
    turns: list[Turn] = []
    for number, part in enumerate(parts, start=1):
        found = parse_turns(part)
        turns += found if number == len(parts) else [turn for turn in found if turn.refusal is None]
    return turns


def parse_turns(script: str) -> list[Turn]:
    """Read the turns of one text; waits with no answer after them come before the default answer."""
    turns: list[Turn] = []
    waits: list[Sleep | Hold] = []
    stall: str | None = None
    for line in script.splitlines():
        word, _, rest = line.strip().partition(" ")
        if word == "SLEEP":
            waits.append(Sleep(_number(rest, line)))
        elif word == "HOLD":
            waits.append(Hold(rest.strip()))
        elif word == "STALL":
            stall = rest.strip()
        elif (turn := _answer(word, rest, line)) is not None:
            turns.append(turn._replace(waits=tuple(waits), stall=stall))
            waits, stall = [], None
    return [*turns, DEFAULT_TURN._replace(waits=tuple(waits))] if waits else turns


def _answer(word: str, rest: str, line: str) -> Turn | None:
    if word == "SAY":
        return Turn(text=rest)
    if word == "CALL":
        return Turn(calls=tuple(_tool_call(call, line) for call in _NEXT_CALL.split(f"CALL {rest}")))
    if word == "HTTP":
        code, _, text = rest.partition(" ")
        return Turn(refusal=Refusal(int(_number(code, line)), text))
    return None


def _tool_call(call: str, line: str) -> ToolCall:
    _, name, arguments = [*call.split(" ", 2), "", ""][:3]
    try:
        json.loads(arguments)
    except json.JSONDecodeError as error:
        raise ScriptError(f"{line!r}: the arguments are not JSON ({error})") from error
    return ToolCall(name, arguments)


def _number(text: str, line: str) -> float:
    try:
        return float(text)
    except ValueError as error:
        raise ScriptError(f"{line!r}: {text!r} is not a number") from error
