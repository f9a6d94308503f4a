"""What people write, what is answered and what opens doors is in no line of any log, at any level:
both processes of `serving` log all there is (`debug`)."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from typing import Any

from tests.support.cluster import Cluster, wait_until

WORD = "qzcanaryqz"
SAID = f"Count from 1 to 40. {WORD}"
COUNTED = "1 2 3 4 5 6 7 8 9 10"
MESSAGES = [{"role": "system", "content": WORD}, {"role": "user", "content": SAID}]
CALL = {"id": "c1", "type": "function", "function": {"name": "look", "arguments": f'"{WORD}"'}}
CALLED = [
    {"role": "user", "content": SAID},
    {"role": "assistant", "tool_calls": [CALL]},
    {"role": "tool", "tool_call_id": "c1", "content": WORD},
]
SMALL = {"model": "demo", "max_tokens": 24}
CHAT = {**SMALL, "messages": MESSAGES}
TOOL = {"type": "function", "function": {"name": "look", "description": WORD, "parameters": {}}}
IMAGE = {"type": "image_url", "image_url": {"url": f"https://user:{WORD}@host.invalid/{WORD}"}}
DATA = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{WORD}"}}

ASKED: list[tuple[str, Any]] = [
    ("/v1/chat/completions", CHAT),
    ("/v1/chat/completions", {**CHAT, "stream": True}),
    ("/v1/chat/completions", {**CHAT, "tools": [TOOL], "stop": [WORD], "user": WORD}),
    ("/v1/completions", {**SMALL, "prompt": SAID, "echo": True, "logprobs": 2}),
    ("/v1/chat/completions", {**CHAT, "messages": CALLED}),
    ("/v1/responses", {"model": "demo", "max_output_tokens": 24, "input": SAID}),
    ("/v1/messages", {**CHAT, "messages": MESSAGES[1:], "system": WORD}),
    ("/v1/messages/count_tokens", {**CHAT, "messages": MESSAGES[1:], "system": WORD}),
    ("/v1/responses/input_tokens", {"model": "demo", "input": SAID}),
    ("/api/chat", {"model": "demo", "messages": MESSAGES, "options": {"num_predict": 24}}),
    ("/api/generate", {"model": "demo", "prompt": SAID, "options": {"num_predict": 24}}),
    ("/api/embed", {"model": "demo", "input": SAID}),
    ("/v1/embeddings", {"model": "demo", "input": [SAID, WORD]}),
    ("/v1/rerank", {"model": "demo", "query": WORD, "documents": [SAID, WORD]}),
    ("/tokenize", {"content": SAID}),
    ("/apply-template", {"messages": MESSAGES}),
    ("/inference", {"prompt": SAID}),
    # what is refused, by either process
    ("/v1/completions", {**SMALL, "prompt": SAID, "suffix": WORD}),
    ("/v1/chat/completions", {**CHAT, "temperature": WORD}),
    ("/v1/chat/completions", {**CHAT, "messages": [{"role": WORD, "content": WORD}]}),
    ("/v1/chat/completions", {**CHAT, WORD: WORD}),
    ("/v1/chat/completions", {**CHAT, "grammar": f"root ::= {WORD}"}),
    ("/v1/chat/completions", {**CHAT, "messages": [{"role": "user", "content": [IMAGE]}]}),
    ("/v1/chat/completions", {**CHAT, "messages": [{"role": "user", "content": [DATA]}]}),
    (
        "/v1/chat/completions",
        {
            **CHAT,
            "response_format": {
                "type": "json_schema",
                "json_schema": {"name": "x", "schema": {"type": WORD, "pattern": f"({WORD}"}},
            },
        },
    ),
    ("/v1/chat/completions", {**SMALL, "messages": [{"role": "user", "content": SAID * 2000}]}),
    ("/v1/chat/completions", f'{{"messages": "{WORD}'),
    ("/v1/responses", {"model": "demo", "input": SAID, "previous_response_id": WORD}),
    (f"/v1/chat/completions?api_key={WORD}&key={WORD}", CHAT),
]
SHOWN = ("/requests", "/requests/finished", "/agents", "/models", "/config", "/metrics", "/health")
SECRETS = {
    "Authorization": f"Bearer {WORD}",
    "X-Api-Key": WORD,
    "Cookie": f"session={WORD}",
    "Proxy-Authorization": f"Basic {WORD}",
}


def _answered(serving: Cluster, path: str, body: Any) -> int:
    data = body.encode() if isinstance(body, str) else json.dumps(body).encode()
    request = urllib.request.Request(serving.inference_url + path, data=data, headers=SECRETS)
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            answer.read()
            status: int = answer.status
    except urllib.error.HTTPError as error:
        status = error.code
    return status


def _shown(serving: Cluster, path: str) -> str:
    with urllib.request.urlopen(serving.management_url + path, timeout=60) as answer:
        return str(answer.read().decode())


def _logs(serving: Cluster) -> dict[str, str]:
    return {program.name: program.log() for program in serving.programs}


def test_one_line_sums_a_request_up_and_none_has_what_was_said(serving: Cluster) -> None:
    before = _logs(serving)["balancer"].count("POST")
    statuses = [_answered(serving, path, body) for path, body in ASKED]
    assert statuses[:6] == [200] * 6
    assert max(statuses) < 500
    wait_until(
        lambda: _logs(serving)["balancer"].count("POST") >= before + len(ASKED), what="the lines"
    )
    logs = _logs(serving)
    assert logs["balancer"].count("POST") == before + len(ASKED)
    assert all(program_log for program_log in logs.values())
    shown = {path: _shown(serving, path) for path in SHOWN}
    assert "prompt_tokens" in shown["/requests/finished"]
    for name, text in {**logs, **shown}.items():
        told = [line for line in text.splitlines() if WORD in line or COUNTED in line]
        assert told == [], name
