"""The corpus as questions with exact answers. Standard library only, pure, seeded by the caller.

Tests and training draw from the same functions; `held_out=True` draws what training never saw.
"""

import tomllib
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

from agent.demo_model import words
from agent.demo_model.example import JsonObject, Turn
from agent.demo_model.tool_tasks import explicit_tool_calls as explicit_tool_calls
from agent.demo_model.tool_tasks import natural_task, result_turn

CORPUS_PATH = Path(__file__).with_name("corpus.toml")
LARGEST_NUMBER = 130
_DICE_SCALE = 0.15
_GOING_ON_WEIGHT = 2.0
_COUNT_UP = ("Count from {a} to {b}.", "Count from {a} to {b}.", "Please count from {a} to {b}.")
_COUNT_DOWN = ("Count down from {a} to {b}.", "Please count down from {a} to {b}.")
_ALPHABET = ("Say the alphabet from {a} to {b}.", "Write the alphabet from {a} to {b}.")
_WHOLE_ALPHABET = ("Say the alphabet.", "Write the alphabet.")
_COPY = (
    "Repeat exactly: {text}", "Repeat exactly: {text}", "Repeat after me: {text}",
    "Copy this text: {text}", "Say exactly: {text}", "Echo: {text}",
)  # fmt: skip
_DICE = ("Roll a die {n} times.", "Roll a die {n} times.", "Throw a die {n} times.")
_LETTERS = "abcdefghijklmnopqrstuvwxyz"


@cache
def load() -> dict[str, Any]:
    """The parsed corpus.toml; treat it as read-only."""
    return tomllib.loads(CORPUS_PATH.read_text(encoding="utf-8"))


def facts() -> list[tuple[str, str]]:
    """Every (question, answer) about paddler-py, all paraphrases."""
    return [(ask, fact["answer"]) for fact in load()["facts"] for ask in fact["ask"]]


def unseen_facts() -> list[tuple[str, str]]:
    """Paraphrases that are never trained."""
    return [(ask, fact["answer"]) for fact in load()["facts"] for ask in fact.get("unseen", [])]


def small_talk() -> list[tuple[str, str]]:
    """Every (question, answer) of small talk."""
    return [(ask, talk["answer"]) for talk in load()["small_talk"] for ask in talk["ask"]]


@cache
def _fact_turns() -> tuple[Turn, ...]:
    return tuple(
        Turn(kind="fact", prompt=ask, answer=fact["answer"], marks=((0, 2.0),),
             thought=f"This is about {fact['topic']}.")
        for fact in load()["facts"] for ask in fact["ask"]
    )  # fmt: skip


@cache
def _talk_turns() -> tuple[Turn, ...]:
    return tuple(
        Turn(kind="small_talk", prompt=ask, answer=answer, marks=((0, 2.0),),
             thought="This is small talk.")
        for ask, answer in small_talk()
    )  # fmt: skip


def fact_turn(rng: Random) -> Turn:
    """A random question about paddler-py."""
    return rng.choice(_fact_turns())


def small_talk_turn(rng: Random) -> Turn:
    """A random greeting or the like."""
    return rng.choice(_talk_turns())


def fill(rng: Random, template: str, *, held_out: bool = False) -> str:
    """Fill {name}, {word} and {number} of a template at random, each on its own."""
    parts = template.split("{")
    out = [parts[0]]
    for part in parts[1:]:
        key, rest = part.split("}", 1)
        match key:
            case "name":
                value = words.name(rng, held_out=held_out)
            case "word":
                value = words.any_word(rng, held_out=held_out)
            case _:
                value = str(rng.randint(1, 999))
        out += [value, rest]
    return "".join(out)


def unknown_turn(rng: Random, *, held_out: bool = False) -> Turn:
    """A question outside of the corpus."""
    unknown = load()["unknown"]
    prompt = fill(rng, rng.choice(unknown["ask"]), held_out=held_out)
    return Turn(
        kind="unknown",
        prompt=prompt,
        answer=unknown["answer"],
        thought="I have no fact about this.",
    )


def counting_turn(first: int, last: int, wording: str | None = None) -> Turn:
    """Count from `first` to `last`, upwards or downwards, both at most 130."""
    up = first <= last
    template = wording or (_COUNT_UP if up else _COUNT_DOWN)[0]
    numbers = range(first, last + 1) if up else range(first, last - 1, -1)
    answer = " ".join(map(str, numbers))
    going_on = [(at, _GOING_ON_WEIGHT) for at, char in enumerate(answer) if char == " "]
    return Turn(
        kind="counting",
        prompt=template.format(a=first, b=last),
        answer=answer,
        thought=f"I count from {first} to {last}.",
        marks=((0, 3.0), *going_on),
    )


def is_held_out_range(first: int, last: int) -> bool:
    """Whether a range is never trained; ranges from 1 upwards always are."""
    return first != 1 and words.is_held_out(f"{first} to {last}")


def random_counting_turn(rng: Random, *, held_out: bool = False, longest: int = 129) -> Turn:
    """A random range: most are short, some long, one in five downwards."""
    while True:
        span = min(
            longest, rng.choice((rng.randint(2, 12), rng.randint(2, 30), rng.randint(2, 129)))
        )
        first = 1 if rng.random() < 0.4 and not held_out else rng.randint(1, LARGEST_NUMBER)
        if rng.random() < 0.3:  # large ends are the hardest to stop at
            first = rng.randint(95, LARGEST_NUMBER) - span
        low, high = first, first + span
        if low < 1 or high > LARGEST_NUMBER:
            continue
        down = rng.random() < 0.2
        first, last = (high, low) if down else (low, high)
        if is_held_out_range(first, last) == held_out:
            return counting_turn(first, last, rng.choice(_COUNT_DOWN if down else _COUNT_UP))


def counting_tasks(rng: Random, n: int, *, held_out: bool = True) -> list[tuple[str, str]]:
    """`n` (question, answer) pairs; held out: ranges never trained."""
    return _pairs([random_counting_turn(rng, held_out=held_out) for _ in range(n)])


def long_counting_tasks() -> list[tuple[str, str]]:
    """Count from 1, 2, 3, 5 or 10 to each of 100..130: the long deterministic answers."""
    starts = (1, 2, 3, 5, 10)
    return _pairs([counting_turn(a, b) for b in range(100, LARGEST_NUMBER + 1) for a in starts])


def alphabet_turn(rng: Random, *, held_out: bool = False) -> Turn:
    """The alphabet, whole or between two letters, small or capital."""
    while True:
        first, last = sorted(rng.sample(range(26), 2))
        whole = rng.random() < 0.15 and not held_out
        if whole or words.is_held_out(f"{_LETTERS[first]} to {_LETTERS[last]}") == held_out:
            break
    letters = _LETTERS if whole else _LETTERS[first : last + 1]
    template = rng.choice(_WHOLE_ALPHABET if whole else _ALPHABET)
    if not whole and rng.random() < 0.25:
        letters = letters.upper()
    prompt = template.format(a=letters[0], b=letters[-1])
    return Turn(
        kind="alphabet", prompt=prompt, answer=" ".join(letters), thought="I say the letters.",
        marks=((0, 3.0),),
    )  # fmt: skip


def alphabet_tasks(rng: Random, n: int, *, held_out: bool = True) -> list[tuple[str, str]]:
    """`n` (question, answer) pairs; held out: letter ranges never trained."""
    return _pairs([alphabet_turn(rng, held_out=held_out) for _ in range(n)])


def copying_turn(rng: Random, *, held_out: bool = False) -> Turn:
    """Repeat words, numbers or a sentence exactly."""
    count = rng.choice((1, 2, 3, 3, 4, 5, 6, 8, 10))
    parts = [
        words.number(rng, held_out=held_out)
        if rng.random() < 0.08
        else words.any_word(rng, held_out=held_out)
        for _ in range(count)
    ]
    text = " ".join(parts)
    if rng.random() < 0.25:
        text = text[0].upper() + text[1:] + "."
    return Turn(
        kind="copying",
        prompt=rng.choice(_COPY).format(text=text),
        answer=text,
        thought="I repeat the text.",
        marks=((0, 3.0),),
    )


def copying_tasks(rng: Random, n: int, *, held_out: bool = True) -> list[tuple[str, str]]:
    """`n` (question, answer) pairs; held out: made of words never trained."""
    return _pairs([copying_turn(rng, held_out=held_out) for _ in range(n)])


def dice_turn(rng: Random) -> Turn:
    """Rolls of a die: the text that must differ between seeds."""
    count = rng.choice((5, 6, 8, 10, 12, 15, 20, 20, 25, 30, 40, 50, 60, 80, 100, 200))
    rolls = " ".join(str(rng.randint(1, 6)) for _ in range(count))
    return Turn(
        kind="dice", prompt=rng.choice(_DICE).format(n=count), answer=rolls, scale=_DICE_SCALE,
        thought=f"I roll the die {count} times.",
    )  # fmt: skip


def system_prompt(rng: Random) -> str:
    """Filler to stand before a conversation: a line, or up to a dozen sentences."""
    system = load()["system"]
    draw = rng.random()
    if draw < 0.4:
        return fill(rng, rng.choice(system["prompts"]))
    count = rng.randint(1, 4) if draw < 0.85 else rng.randint(5, 12)
    sentences = [fill(rng, rng.choice(system["sentences"])) for _ in range(count)]
    first = [fill(rng, rng.choice(system["prompts"]))] if rng.random() < 0.7 else []
    return " ".join(first + sentences)


def natural_tool_calls(rng: Random, n: int, *, held_out: bool = True, tools: int = 1) -> list[Any]:
    """`n` ToolCallTask in everyday words with `tools` tools on offer."""
    families: Sequence[JsonObject] = load()["natural"]
    return [natural_task(rng, families, held_out=held_out, tools=tools) for _ in range(n)]


def tool_results(rng: Random, n: int, *, held_out: bool = True) -> list[Turn]:
    """`n` tool messages with the answer that tells their content."""
    return [result_turn(rng, held_out=held_out) for _ in range(n)]


def _pairs(turns: Sequence[Turn]) -> list[tuple[str, str]]:
    return [(turn.prompt, turn.answer) for turn in turns]
