"""Measure the exported GGUF through llama.cpp: `python -m agent.demo_model.evaluate`.

Prints exact answers per class. With `--sure FILE` it writes the prompts the model is sure of.
"""

import argparse
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

from agent.demo_model import DEMO_MODEL_PATH, conversations, corpus
from agent.demo_model.example import JsonObject, ToolCallTask, Turn
from agent.demo_model.greedy import Answer, GreedyModel

SURE_MARGIN = 0.5
_SURE_ENOUGH = 4.0  # beyond this margin the longer answer is the better choice
_Pairs = Sequence[tuple[str, str]]


@dataclass(frozen=True, kw_only=True)
class Question:
    """What to send and the exact text expected."""

    messages: tuple[JsonObject, ...]
    expected: str
    tools: tuple[JsonObject, ...] = ()
    thinking: bool = False


_Sure = tuple[str, Question, Answer]  # kind, question, the right answer


@dataclass(frozen=True, kw_only=True)
class Score:
    """One line of the table."""

    name: str
    right: int
    asked: int
    margin: float


def plain(pairs: _Pairs) -> list[Question]:
    """Single questions without a system prompt."""
    return [Question(messages=(_user(ask),), expected=answer) for ask, answer in pairs]


def with_system(rng: Random, pairs: _Pairs) -> list[Question]:
    """The same after a random system prompt."""
    return [
        Question(
            messages=({"role": "system", "content": corpus.system_prompt(rng)}, _user(ask)),
            expected=answer,
        )
        for ask, answer in pairs
    ]


def after_turns(rng: Random, pairs: _Pairs, turns: int = 30) -> list[Question]:
    """The same after `turns` other questions and answers (about 1000 tokens for 30)."""
    questions = []
    for ask, answer in pairs:
        history: list[JsonObject] = []
        for _ in range(turns):
            turn = conversations.plain_turn(rng, 20)
            history += [_user(turn.prompt), {"role": "assistant", "content": turn.answer}]
        questions.append(Question(messages=(*history, _user(ask)), expected=answer))
    return questions


def thinking(turns: Iterable[Turn]) -> list[Question]:
    """With thinking on: the reasoning, its end and the answer."""
    return [
        Question(
            messages=(_user(turn.prompt),),
            expected=conversations.answer_text(turn, thinks=True),
            thinking=True,
        )
        for turn in turns
    ]


def tool_calls(tasks: Iterable[ToolCallTask]) -> list[Question]:
    """Requests with tools on offer."""
    return [
        Question(messages=(_user(task.turn.prompt),), expected=task.turn.answer, tools=task.tools)
        for task in tasks
    ]


def tool_results(rng: Random, count: int) -> list[Question]:
    """A call in the history, its result, and the answer to tell it."""
    questions = []
    for turn in corpus.tool_results(rng, count):
        task = corpus.explicit_tool_calls(rng, 1)[0]
        function = {"name": task.name, "arguments": task.arguments}
        call = {"id": "call_1", "type": "function", "function": function}
        messages = (
            _user(task.turn.prompt),
            {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "call_1", "content": turn.prompt},
        )
        questions.append(Question(messages=messages, expected=turn.answer, tools=task.tools))
    return questions


def _user(text: str) -> JsonObject:
    return {"role": "user", "content": text}


def _unknown(rng: Random, count: int) -> list[tuple[str, str]]:
    turns = [corpus.unknown_turn(rng, held_out=True) for _ in range(count)]
    return [(turn.prompt, turn.answer) for turn in turns]


def classes(rng: Random) -> dict[str, list[Question]]:
    """Every class of the table with its questions."""
    facts = corpus.facts()
    some = rng.sample(facts, 100)
    fact_turns = [corpus.fact_turn(rng) for _ in range(100)]
    counting = corpus.counting_tasks(rng, 200)
    copying = corpus.copying_tasks(rng, 200)
    return {
        "facts": plain(facts),
        "facts, unseen paraphrases": plain(corpus.unseen_facts()),
        "facts after a system prompt": with_system(rng, some),
        "facts, thinking": thinking(fact_turns),
        "small talk": plain(corpus.small_talk()),
        "unknown": plain(_unknown(rng, 100)),
        "counting": plain(counting),
        "counting after a system prompt": with_system(rng, counting[:100]),
        "counting to 100..130": plain(corpus.long_counting_tasks()),
        "alphabet": plain(corpus.alphabet_tasks(rng, 100)),
        "copying": plain(copying),
        "copying after a system prompt": with_system(rng, copying[:100]),
        "explicit call, 1 tool": tool_calls(corpus.explicit_tool_calls(rng, 200)),
        "explicit call, 3 tools": tool_calls(corpus.explicit_tool_calls(rng, 100, tools=3)),
        "natural call, 1 tool": tool_calls(corpus.natural_tool_calls(rng, 100)),
        "natural call, 3 tools": tool_calls(corpus.natural_tool_calls(rng, 100, tools=3)),
        "tool result": tool_results(rng, 100),
        "facts after 30 turns": after_turns(rng, some[:40]),
        "counting after 30 turns": after_turns(rng, counting[:40]),
        "copying after 30 turns": after_turns(rng, copying[:40]),
    }


def ask(model: GreedyModel, question: Question) -> Answer:
    """The model's greedy answer."""
    prompt = model.prompt(question.messages, question.tools, thinking=question.thinking)
    return model.answer(prompt)


def is_right(question: Question, answer: Answer) -> bool:
    """Ended by itself and equal to the last character."""
    return answer.ended and answer.text == question.expected


def score(
    model: GreedyModel, name: str, questions: Sequence[Question], note: Callable[[str], None]
) -> Score:
    """Ask all questions of a class; `note` hears of each wrong answer."""
    right, margins = 0, []
    for question in questions:
        answer = ask(model, question)
        if is_right(question, answer):
            right += 1
            margins.append(answer.margin)
        else:
            prompt = question.messages[-1]["content"]
            note(f"{name}: {prompt!r} -> {answer.text!r}, not {question.expected!r}")
    return Score(name=name, right=right, asked=len(questions), margin=min(margins, default=0.0))


def sure_prompts(model: GreedyModel, margin: float) -> list[_Sure]:
    """Candidates answered right with at least `margin` at every token, as (kind, ...)."""
    rng = Random(7)
    candidates = [("counting", question) for question in plain(corpus.long_counting_tasks())]
    candidates += [("alphabet", question) for question in plain(corpus.alphabet_tasks(rng, 40))]
    candidates += [("copying", question) for question in plain(corpus.copying_tasks(rng, 80))]
    candidates += [("fact", question) for question in plain(corpus.facts())]
    sure = []
    seen: set[str] = set()
    for kind, question in candidates:
        prompt = question.messages[-1]["content"]
        if prompt in seen:
            continue
        seen.add(prompt)
        answer = ask(model, question)
        if is_right(question, answer) and answer.margin >= margin:
            sure.append((kind, question, answer))
    return sure


def choose_sure(found: Sequence[_Sure]) -> list[_Sure]:
    """24 long counts, 6 alphabets, 10 copies, 40 facts: of the surest the longest, each once."""
    chosen: list[_Sure] = []
    for kind, count in (("counting", 24), ("alphabet", 6), ("copying", 10), ("fact", 40)):
        of_kind = {
            item[1].messages[-1]["content"]: item for item in found if item[0] == kind
        }.values()
        chosen += sorted(of_kind, key=_sureness)[:count]
    return chosen


def _sureness(item: _Sure) -> tuple[float, int]:
    answer = item[2]
    return -min(answer.margin, _SURE_ENOUGH), -answer.tokens


def write_sure_prompts(path: Path, sure: Sequence[_Sure]) -> None:
    """The list as TOML; `completion_tokens` counts the end token, as `usage` does."""
    lines = [
        "# Written by `python -m agent.demo_model.evaluate --sure`: single user messages that the",
        "# shipped model answers exactly so (greedy, F32 cache, no flash attention). `margin` is",
        "# the smallest lead of the best logit over the second, the end token included.",
    ]
    for kind, question, answer in sure:
        lines += [
            "", "[[prompts]]", f'kind = "{kind}"',
            f"prompt = {_toml(question.messages[-1]['content'])}",
            f"answer = {_toml(question.expected)}",
            f"completion_tokens = {answer.tokens}", f"margin = {answer.margin:.2f}",
        ]  # fmt: skip
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _toml(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def main(arguments: list[str] | None = None) -> None:
    """Print the table; optionally write the sure prompts."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, default=DEMO_MODEL_PATH)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=2026)
    parser.add_argument("--only", default="", help="classes whose name contains this text")
    parser.add_argument("--wrong", action="store_true", help="print every wrong answer")
    parser.add_argument("--sure", type=Path, help="write the sure prompts to this file")
    options = parser.parse_args(arguments)
    model = GreedyModel(options.model, options.threads)
    note = _say if options.wrong else lambda _: None
    for name, questions in classes(Random(options.seed)).items():
        if options.only not in name:
            continue
        line = score(model, name, questions, note)
        share = line.right / line.asked
        _say(f"{name:32} {line.right:4}/{line.asked:<4} {share:6.1%}  margin {line.margin:5.2f}")
    dice = model.prompt([_user("Roll a die 200 times.")])
    _say(f"two seeds, different dice: {model.sampled(dice, 1) != model.sampled(dice, 2)}")
    if options.sure:
        sure = choose_sure(sure_prompts(model, SURE_MARGIN))
        write_sure_prompts(options.sure, sure)
        smallest = min((answer.margin for _, _, answer in sure), default=0.0)
        long_counts = sum(kind == "counting" for kind, _, _ in sure)
        _say(f"{len(sure)} sure prompts, {long_counts} long counts, smallest margin {smallest:.2f}")


if __name__ == "__main__":
    main()
