"""What workloads say to a server: requests in its dialect, sent at once or so many at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from tests.benchmarks.peers.exchange import Answer, post
from tests.benchmarks.peers.sides import Dialect
from tests.support.random_gguf import text_of

Message = dict[str, str]


@dataclass(frozen=True, kw_only=True)
class Request:
    """One request to one server."""

    host: str
    port: int
    path: str
    body: dict[str, Any]
    asked_tokens: int = 0
    """How many tokens the answer must have; 0: whatever it has."""

    async def send(self, on_data: Callable[[bytes], None] | None = None) -> Answer:
        """The whole answer. Cancelling closes the connection."""
        return await post(
            self.host,
            self.port,
            self.path,
            self.body,
            asked_tokens=self.asked_tokens,
            on_data=on_data,
        )


@dataclass(frozen=True, kw_only=True)
class Target:
    """A server under load."""

    host: str
    port: int
    dialect: Dialect

    def complete(self, prompt: Sequence[int], tokens: int, **more: Any) -> Request:
        """A streamed, greedy text completion of exactly `tokens` tokens."""
        written = list(prompt) if self.dialect.token_ids else text_of(prompt)
        return self._generate("/v1/completions", {"prompt": written, **more}, tokens)

    def under_schema(self, prompt: Sequence[int], tokens: int, schema: dict[str, Any]) -> Request:
        """`complete`, the text bound to a JSON schema.

        No chat: llama-server parses a chat's answer by its template once more, and now and then
        refuses a truncated one.
        """
        if self.dialect.schema_field == "json_schema":
            return self.complete(prompt, tokens, json_schema=schema)
        wrapped = {"name": "fields", "schema": schema, "strict": True}
        form = {"type": "json_schema", "json_schema": wrapped}
        return self.complete(prompt, tokens, response_format=form)

    def chat(self, messages: Sequence[Message], tokens: int, **more: Any) -> Request:
        """A streamed, greedy chat completion of exactly `tokens` tokens."""
        return self._generate("/v1/chat/completions", {"messages": list(messages), **more}, tokens)

    def reply(self, messages: Sequence[Message], most: int) -> Request:
        """A streamed, greedy chat completion that ends where the model ends it."""
        body = {"messages": list(messages), "ignore_eos": False}
        return self._generate("/v1/chat/completions", body, most, exactly=False)

    def embed(self, inputs: Sequence[Sequence[int]]) -> Request:
        """The embeddings of several texts in one request."""
        as_ids = self.dialect.token_ids
        written = [list(tokens) if as_ids else text_of(tokens) for tokens in inputs]
        body = {"model": self.dialect.model, "input": written}
        return Request(host=self.host, port=self.port, path="/v1/embeddings", body=body)

    def _generate(
        self, path: str, body: dict[str, Any], tokens: int, *, exactly: bool = True
    ) -> Request:
        request = {
            "model": self.dialect.model,
            "max_tokens": tokens,
            **self.dialect.greedy,
            "stream": True,
            "stream_options": {"include_usage": True},
            **({"ignore_eos": True} if self.dialect.ignore_eos else {}),
            **body,
        }
        return Request(
            host=self.host,
            port=self.port,
            path=path,
            body=request,
            asked_tokens=tokens if exactly else 0,
        )


async def in_order(requests: Sequence[Request], in_flight: int) -> list[Answer]:
    """Send the requests in their order, `in_flight` of them open all the time."""
    answers: dict[int, Answer] = {}
    waiting = iter(enumerate(requests))

    async def client() -> None:
        for index, request in waiting:
            answers[index] = await request.send()

    async with asyncio.TaskGroup() as group:
        for _ in range(in_flight):
            group.create_task(client())
    return [answers[index] for index in range(len(requests))]


async def at_once(requests: Sequence[Request]) -> list[Answer]:
    """Send all of the requests at the same time."""
    return await in_order(requests, len(requests))


def tokens_per_s(answers: Sequence[Answer]) -> float:
    """Generated tokens a second, from the first request sent to the last token come."""
    return sum(answer.tokens for answer in answers) / elapsed_s(answers)


def elapsed_s(answers: Sequence[Answer]) -> float:
    """From the first request sent to the last token come."""
    first = min(answer.sent_at for answer in answers)
    return max(answer.ended_at for answer in answers) - first


def cached_share(answers: Sequence[Answer]) -> dict[str, float]:
    """Which part of the prompts came from a cache, as a metric; nothing where it is not said."""
    prompt = sum(answer.last("usage").get("prompt_tokens", 0) for answer in answers)
    cached = sum(_cached_tokens(answer) for answer in answers)
    return {"cached_share": cached / prompt} if cached else {}


def _cached_tokens(answer: Answer) -> int:
    details = answer.last("usage").get("prompt_tokens_details") or {}
    ours = answer.last("performance").get("cached_prompt_tokens", 0)
    return int(details.get("cached_tokens", ours) or 0)
