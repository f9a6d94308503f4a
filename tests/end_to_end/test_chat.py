"""The real path with the shipped model: official client and curl -> balancer -> agent -> engine."""

from __future__ import annotations

import json
import shutil
import subprocess
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import openai
import pytest

from tests.support.cluster import Cluster, wait_until
from tests.support.sure_prompts import sure_prompts, sure_prompts_of

SLOTS = 4
COUNT_TO_120 = "Count from 1 to 120."
COUNTED_TO_120 = " ".join(map(str, range(1, 121)))


@pytest.fixture
def client(serving: Cluster) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(
        base_url=f"{serving.inference_url}/v1", api_key="none", max_retries=0, timeout=60
    ) as client:
        yield client


def _ask(client: openai.OpenAI, question: str, **options: Any) -> Any:
    return client.chat.completions.create(
        model="demo",
        messages=[{"role": "user", "content": question}],
        temperature=0,
        **options,
    )


def _answer(client: openai.OpenAI, question: str, **options: Any) -> str:
    content = _ask(client, question, **options).choices[0].message.content
    assert isinstance(content, str)
    return content


def test_a_chat_request_is_answered_correctly(client: openai.OpenAI) -> None:
    for question, answer in sure_prompts()[:10]:
        assert _answer(client, question) == answer


def test_a_streamed_answer_is_the_same_text_in_many_chunks(client: openai.OpenAI) -> None:
    chunks = list(_ask(client, COUNT_TO_120, stream=True, stream_options={"include_usage": True}))
    pieces = [chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices]
    assert "".join(pieces) == COUNTED_TO_120
    assert len([piece for piece in pieces if piece]) > 50
    assert [c.choices[0].finish_reason for c in chunks if c.choices][-1] == "stop"
    usage = chunks[-1].usage
    assert usage is not None
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens


def test_curl_without_any_header_gets_an_answer(serving: Cluster) -> None:
    curl = shutil.which("curl")
    assert curl is not None
    body = {"messages": [{"role": "user", "content": COUNT_TO_120}], "temperature": 0}
    url = f"{serving.inference_url}/v1/chat/completions"
    done = subprocess.run(
        [curl, "-sS", "--max-time", "60", url, "-d", json.dumps(body)],
        capture_output=True,
        check=True,
    )
    answer = json.loads(done.stdout)
    assert answer["choices"][0]["message"]["content"] == COUNTED_TO_120


def test_curl_streams_events_that_end_with_done(serving: Cluster) -> None:
    body = {
        "messages": [{"role": "user", "content": COUNT_TO_120}],
        "temperature": 0,
        "stream": True,
    }
    url = f"{serving.inference_url}/v1/chat/completions"
    done = subprocess.run(
        ["curl", "-sS", "-N", "--max-time", "60", url, "-d", json.dumps(body)],
        capture_output=True,
        check=True,
        text=True,
    )
    data = [line[6:] for line in done.stdout.splitlines() if line.startswith("data: ")]
    assert data[-1] == "[DONE]"
    deltas = [json.loads(line)["choices"] for line in data[:-1]]
    text = "".join(row[0]["delta"].get("content") or "" for row in deltas if row)
    assert text == COUNTED_TO_120


def test_a_text_completion_goes_on_where_the_prompt_ends(client: openai.OpenAI) -> None:
    prompt = (
        f"<|im_start|>user\n{COUNT_TO_120}<|im_end|>\n<|im_start|>assistant\n1 2 3 4 5 6 7 8 9 10"
    )
    answer = client.completions.create(model="demo", prompt=prompt, temperature=0, max_tokens=40)
    assert answer.choices[0].text.startswith(" 11 12 13 14 15")
    assert answer.choices[0].finish_reason == "length"
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 40


def test_max_tokens_cuts_and_says_length(client: openai.OpenAI) -> None:
    answer = _ask(client, COUNT_TO_120, max_tokens=7)
    assert answer.choices[0].finish_reason == "length"
    assert answer.usage.completion_tokens == 7
    assert COUNTED_TO_120.startswith(answer.choices[0].message.content)


def test_a_stop_string_ends_the_answer_before_itself(client: openai.OpenAI) -> None:
    answer = _ask(client, COUNT_TO_120, stop=[" 30 31"])
    assert answer.choices[0].message.content == " ".join(map(str, range(1, 30)))
    assert answer.choices[0].finish_reason == "stop"


def test_logprob_entries_are_as_many_as_completion_tokens_less_the_end(
    client: openai.OpenAI,
) -> None:
    answer = _ask(client, COUNT_TO_120, logprobs=True, top_logprobs=2)
    entries = answer.choices[0].logprobs.content
    assert len(entries) == answer.usage.completion_tokens - 1
    assert b"".join(bytes(entry.bytes) for entry in entries).decode() == COUNTED_TO_120
    for entry in entries:
        assert entry.top_logprobs[0].token == entry.token
        assert entry.top_logprobs[0].logprob == pytest.approx(entry.logprob)
        assert entry.top_logprobs[0].logprob >= entry.top_logprobs[1].logprob


def test_the_same_seed_gives_the_same_dice_and_another_seed_other_dice(
    client: openai.OpenAI,
) -> None:
    def roll(seed: int) -> str:
        answer = client.chat.completions.create(
            model="demo",
            messages=[{"role": "user", "content": "Roll a die 200 times."}],
            temperature=1,
            seed=seed,
        )
        return answer.choices[0].message.content or ""

    first = roll(1)
    assert set(first.split()) <= set("123456")
    assert roll(1) == first
    assert roll(2) != first


def test_eight_chats_on_four_slots_are_all_right_and_none_mixed_up(
    serving: Cluster, client: openai.OpenAI
) -> None:
    tasks = [*sure_prompts_of("counting")[:4], *sure_prompts_of("fact")[:4]]
    most_running = 0
    done = threading.Event()

    def watch() -> None:
        nonlocal most_running
        while not done.is_set():
            most_running = max(most_running, serving.agents()["one"]["slots"]["used"])

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(lambda task: _ask(client, task[0], logprobs=True), tasks))
    finally:
        done.set()
        watcher.join()
    for (_, expected), answer in zip(tasks, answers, strict=True):
        assert answer.choices[0].message.content == expected
        assert len(answer.choices[0].logprobs.content) == answer.usage.completion_tokens - 1
    assert 1 <= most_running <= SLOTS


def test_waiting_chats_start_in_the_order_in_which_they_came(
    serving: Cluster, client: openai.OpenAI
) -> None:
    started: list[int] = []
    lock = threading.Lock()

    def stream(number: int) -> str:
        text = ""
        for chunk in _ask(client, COUNT_TO_120, stream=True):
            if chunk.choices and chunk.choices[0].delta.content:
                if not text:
                    with lock:
                        started.append(number)
                text += chunk.choices[0].delta.content
        return text

    def admitted(count: int) -> bool:
        in_slots = serving.agents()["one"]["slots"]["used"]
        return in_slots + serving.metric("paddler_requests_waiting") >= count or (
            len(started) >= count
        )

    with ThreadPoolExecutor(8) as pool:
        futures = []
        for number in range(8):
            futures.append(pool.submit(stream, number))
            wait_until(lambda n=number: admitted(n + 1), what="it is in")  # type: ignore[misc]  # default binds
        assert all(future.result() == COUNTED_TO_120 for future in futures)
    assert started[SLOTS:] == sorted(started[SLOTS:])


def test_the_model_list_names_what_is_served(client: openai.OpenAI) -> None:
    assert "demo" in [model.id for model in client.models.list()]


def test_a_wrong_parameter_is_refused_with_its_name(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as refusal:
        _ask(client, "Hello", top_p=3)
    body: Any = refusal.value.body
    assert body["param"] == "top_p"
    assert body["code"] == "invalid_value"


def test_a_prompt_over_the_context_is_refused_with_the_numbers(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as refusal:
        _ask(client, "one two three " * 2000)
    body: Any = refusal.value.body
    assert body["code"] == "context_length_exceeded"
    assert "2048" in body["message"]
    assert body["details"]["context_tokens"] == 2048
    assert body["details"]["prompt_tokens"] > 2048


def test_a_token_outside_of_the_vocabulary_is_refused_with_the_parameter(
    client: openai.OpenAI,
) -> None:
    with pytest.raises(openai.BadRequestError) as refusal:
        _ask(client, "Hello", logit_bias={"999999": 5})
    body: Any = refusal.value.body
    assert body["param"] == "logit_bias"


def test_an_unknown_model_is_not_found(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as refusal:
        client.chat.completions.create(
            model="gpt-9", messages=[{"role": "user", "content": "Hello"}]
        )
    body: Any = refusal.value.body
    assert body["code"] == "model_not_found"


def test_the_log_never_holds_a_prompt_or_an_answer(serving: Cluster, client: openai.OpenAI) -> None:
    _answer(client, "Repeat exactly: zebra quartz fjord")
    logs = "".join(path.read_text() for path in Path(serving.log_folder).glob("*.log"))
    assert "zebra" not in logs
