"""The corpus: enough questions, one answer each, nothing held out that training draws."""

import json
from random import Random

import pytest

from agent.demo_model import corpus, tool_tasks, words


def test_the_corpus_has_at_least_200_facts_with_paraphrases() -> None:
    facts = corpus.load()["facts"]
    assert len(facts) >= 200
    assert all(len(fact["ask"]) >= 3 for fact in facts)


def test_no_question_is_asked_twice() -> None:
    questions = [ask for ask, _ in corpus.facts() + corpus.unseen_facts() + corpus.small_talk()]
    assert len(questions) == len(set(questions))


def test_the_corpus_is_ascii() -> None:
    assert corpus.CORPUS_PATH.read_text(encoding="utf-8").isascii()


def test_the_same_seed_draws_the_same_tasks() -> None:
    assert corpus.copying_tasks(Random(3), 20) == corpus.copying_tasks(Random(3), 20)
    assert corpus.explicit_tool_calls(Random(3), 20) == corpus.explicit_tool_calls(Random(3), 20)


@pytest.mark.parametrize(
    ("first", "last", "answer"), [(1, 5, "1 2 3 4 5"), (128, 130, "128 129 130"), (4, 2, "4 3 2")]
)
def test_counting_answers_are_exact(first: int, last: int, answer: str) -> None:
    assert corpus.counting_turn(first, last).answer == answer


def test_long_counting_tasks_end_at_100_to_130() -> None:
    ends = {int(answer.split()[-1]) for _, answer in corpus.long_counting_tasks()}
    assert ends == set(range(100, 131))


def test_held_out_ranges_are_never_trained() -> None:
    rng = Random(1)
    trained = {corpus.random_counting_turn(rng).answer for _ in range(2000)}
    held_out = {answer for _, answer in corpus.counting_tasks(rng, 200)}
    assert not trained & held_out


def test_held_out_letter_ranges_are_never_trained() -> None:
    rng = Random(1)
    trained = {corpus.alphabet_turn(rng).answer.lower() for _ in range(2000)}
    held_out = {answer.lower() for _, answer in corpus.alphabet_tasks(rng, 50)}
    assert not trained & held_out


def test_held_out_words_and_names_are_never_trained() -> None:
    rng = Random(2)
    for make in (words.word, words.tool_name, words.parameter_name, words.number, words.phrase):
        assert not words.is_held_out(make(rng).lower())
        assert words.is_held_out(make(rng, held_out=True).lower())


def test_alphabet_turns_start_and_end_as_asked() -> None:
    for question, answer in corpus.alphabet_tasks(Random(4), 50):
        assert question.endswith(f"from {answer[0]} to {answer[-1]}.")


def test_copying_answers_stand_in_the_question() -> None:
    for question, answer in corpus.copying_tasks(Random(5), 50):
        assert question.endswith(f": {answer}")


def test_explicit_calls_name_an_offered_tool_and_its_parameter() -> None:
    for task in corpus.explicit_tool_calls(Random(6), 100, tools=3):
        functions = {tool["function"]["name"]: tool["function"] for tool in task.tools}
        properties = functions[task.name]["parameters"]["properties"]
        assert set(task.arguments) == set(properties)
        assert task.name in task.turn.prompt


def test_the_answer_of_a_tool_task_is_its_call_as_json() -> None:
    for task in corpus.explicit_tool_calls(Random(7), 50) + corpus.natural_tool_calls(
        Random(7), 50
    ):
        inner = task.turn.answer.removeprefix("<tool_call>\n").removesuffix("\n</tool_call>")
        assert json.loads(inner) == {"name": task.name, "arguments": task.arguments}


def test_values_of_several_words_are_quoted_in_the_request() -> None:
    rng = Random(8)
    for value in (tool_tasks.random_value(rng) for _ in range(500)):
        if isinstance(value.json, str) and " " in value.json:
            assert value.written == f'"{value.json}"'


def test_dice_show_one_to_six_as_often_as_asked() -> None:
    rng = Random(9)
    for turn in (corpus.dice_turn(rng) for _ in range(50)):
        rolls = turn.answer.split()
        assert str(len(rolls)) in turn.prompt
        assert set(rolls) <= set("123456")
