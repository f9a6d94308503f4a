"""Images that requests name by their URLs: fetched from hosts that are listed, from no others."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import AsyncIterator
from typing import Any

import pytest

from balancer.upstreams import image_source
from protocol.chat import ImagePart
from tests.support.fake_agent import FakeAgent
from tests.support.image_host import ImageHost, image_host
from tests.support.running_balancer import Answer, RunningBalancer, eventually, running_balancer

CAT, DOG = b"a picture of a cat", b"a picture of a dog"


@pytest.fixture
async def host() -> AsyncIterator[ImageHost]:
    async with image_host() as host:
        host.add("/cat", CAT)
        host.add("/dog", DOG, media_type="image/jpeg")
        yield host


@pytest.fixture
async def balancer(host: ImageHost) -> AsyncIterator[RunningBalancer]:
    async with running_balancer(image_hosts=(host.name,), image_timeout_s=20.0) as balancer:
        yield balancer


@pytest.fixture
async def agent(balancer: RunningBalancer) -> AsyncIterator[FakeAgent]:
    async with FakeAgent(balancer.management_port) as agent:
        yield agent


def chat(*urls: str) -> dict[str, Any]:
    parts = [{"type": "image_url", "image_url": {"url": url}} for url in urls]
    return {"messages": [{"role": "user", "content": parts}]}


def claude(block: dict[str, Any]) -> dict[str, Any]:
    return {"max_tokens": 8, "messages": [{"role": "user", "content": [block]}]}


def by_url(url: str) -> dict[str, Any]:
    return {"type": "image", "source": {"type": "url", "url": url}}


def seen(agent: FakeAgent) -> list[bytes]:
    """The images of the last call."""
    return [
        part.data
        for message in agent.started[-1].messages or ()
        for part in message.content or ()
        if isinstance(part, ImagePart)
    ]


async def asked(balancer: RunningBalancer, *urls: str) -> Answer:
    return await balancer.post("/v1/chat/completions", chat(*urls))


async def reason(balancer: RunningBalancer, url: str) -> str:
    """Why an image is not fetched; the error names its place."""
    answer = await asked(balancer, url)
    assert (answer.status, answer.error["code"]) == (400, "invalid_value"), answer.body
    assert answer.error["param"] == "messages[0].content[0].image_url.url"
    assert answer.error["param"] in answer.error["message"]
    issue: str = answer.error["details"]["issue"]
    return issue


async def test_images_are_fetched_into_every_family_s_requests(
    balancer: RunningBalancer, agent: FakeAgent, host: ImageHost
) -> None:
    cat, dog = host.url("/cat"), host.url("/dog")
    bare = {"type": "image_url", "image_url": cat}
    result = {"type": "tool_result", "tool_use_id": "t1", "content": [by_url(dog)]}
    output = [{"type": "input_image", "image_url": dog}]
    items = [
        {"role": "user", "content": [{"type": "input_image", "image_url": cat}]},
        {"type": "function_call", "call_id": "c", "name": "look", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "c", "output": output},
    ]
    for path, body, images in (
        ("/v1/chat/completions", chat(cat, dog, cat), [CAT, DOG, CAT]),
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": [bare]}]}, [CAT]),
        ("/v1/messages", claude(by_url(cat)), [CAT]),
        ("/v1/messages", claude(result), [DOG]),
        ("/v1/responses", {"input": items}, [CAT, DOG]),
    ):
        answer = await balancer.post(path, body)
        assert answer.status == 200, answer.body
        assert seen(agent) == images
    # an image that is there twice is fetched once
    assert [request.path for request in host.asked][:3] in (
        ["/cat", "/dog", "/cat"],
        ["/dog", "/cat", "/cat"],
    )


async def test_a_picture_named_often_counts_each_time_before_it_is_written(
    balancer: RunningBalancer, agent: FakeAgent, host: ImageHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("balancer.http.remote_images.MAX_MEDIA_BYTES", 2 * len(CAT))
    cat = host.url("/cat")
    assert (await asked(balancer, cat, cat)).status == 200
    answer = await asked(balancer, cat, cat, cat)
    assert (answer.status, answer.error["param"]) == (400, "messages")
    assert "bytes together" in answer.error["message"]
    assert seen(agent) == [CAT, CAT]


async def test_a_stored_response_needs_its_image_s_host_no_more(
    balancer: RunningBalancer, agent: FakeAgent, host: ImageHost
) -> None:
    part = {"type": "input_image", "image_url": host.url("/cat")}
    first = await balancer.post("/v1/responses", {"input": [{"role": "user", "content": [part]}]})
    host.files.clear()
    more = {"input": "and?", "previous_response_id": first.json()["id"]}
    assert (await balancer.post("/v1/responses", more)).status == 200
    assert seen(agent) == [CAT]
    assert len(host.asked) == 1


@pytest.mark.usefixtures("agent")
async def test_hosts_are_told_nothing_of_the_client(
    balancer: RunningBalancer, host: ImageHost
) -> None:
    secrets = {"Authorization": "Bearer secret", "X-Request-Id": "mine", "User-Agent": "me"}
    await balancer.post("/v1/chat/completions", chat(host.url("/cat")), secrets)
    [request] = host.asked
    told = {"Host", "Accept", "Accept-Encoding", "User-Agent", "Connection"}
    assert set(request.headers) <= told
    assert request.headers["User-Agent"] == "paddler-py"
    assert request.headers["Accept-Encoding"] == "identity"


async def test_others_are_not_asked(
    balancer: RunningBalancer, agent: FakeAgent, host: ImageHost
) -> None:
    port = host.port
    other = "it is of no host that this service may ask"
    for url, why in (
        (f"http://127.0.0.2:{port}/cat", other),
        ("http://127.0.0.1/cat", other),
        (f"http://127.0.0.1:{balancer.management_port}/agents", other),
        (f"http://user@127.0.0.1:{port}/cat", other),
        (f"http://2130706433:{port}/cat", other),
        (f"HTTP://evil.example#@127.0.0.1:{port}/cat", other),
        (f"http://evil.example\\@127.0.0.1:{port}/cat", "it is no URL"),
        (f"http://127.0.0.1:{port}/{'a' * 9000}", other),
        (f"http://127.0.0.1:{port}x/cat", "it is no URL"),
    ):
        assert await reason(balancer, url) == why, url
    assert host.asked == []
    assert agent.started == []


async def test_a_listed_name_of_an_inner_address_is_not_called(host: ImageHost) -> None:
    async with running_balancer(image_hosts=(f"localhost:{host.port}",)) as balancer:
        why = await reason(balancer, host.url("/cat", host="localhost"))
        assert why == "its host has no address that this service may call"
    assert host.asked == []


async def test_a_name_may_be_an_inner_address_that_is_listed_too(host: ImageHost) -> None:
    listed = (f"localhost:{host.port}", host.name)
    async with (
        running_balancer(image_hosts=listed) as balancer,
        FakeAgent(balancer.management_port) as agent,
    ):
        assert (await asked(balancer, host.url("/cat", host="localhost"))).status == 200
        assert seen(agent) == [CAT]


async def test_what_is_no_image_is_not_taken(
    balancer: RunningBalancer, agent: FakeAgent, host: ImageHost
) -> None:
    packed = gzip.compress(CAT)
    for url, why in (
        (host.add("/page", CAT, media_type="text/html"), "it is no image: its Content-Type is not"),
        (host.add("/odd", CAT, media_type="image/png,x"), "it is no image"),
        (host.add("/empty"), "it is empty"),
        (host.add("/packed", packed, headers={"Content-Encoding": "gzip"}), "sends it compressed"),
        (host.add("/gone", CAT, status=410), "its host answers 410"),
        (host.url("/nowhere"), "its host answers 404"),
    ):
        assert why in await reason(balancer, url)
    assert agent.started == []


async def test_redirects_stay_with_their_host(
    balancer: RunningBalancer, agent: FakeAgent, host: ImageHost
) -> None:
    def moved(path: str, to: str) -> str:
        return host.add(path, status=302, headers={"Location": to})

    assert (await asked(balancer, moved("/old", "/cat"))).status == 200
    assert seen(agent) == [CAT]
    for url, why in (
        (moved("/out", "http://evil.example/cat"), "its host redirects to another one"),
        (moved("/name", host.url("/cat", host="localhost")), "its host redirects to another one"),
        (moved("/port", "http://127.0.0.1/cat"), "its host redirects to another one"),
        (moved("/file", "file:///etc/passwd"), "its host redirects to another one"),
        (moved("/none", "http://[::1"), "its host redirects to no URL"),
        (moved("/round", "/round"), "its host redirects more than 3 times"),
    ):
        assert await reason(balancer, url) == why


@pytest.mark.usefixtures("agent")
async def test_images_of_a_request_are_bounded_in_number_and_size(
    balancer: RunningBalancer,
    host: ImageHost,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    many = await asked(balancer, *[host.url("/cat")] * 33)
    assert (many.status, many.error["param"]) == (400, "messages")
    assert host.asked == []
    monkeypatch.setattr(image_source, "MAX_MEDIA_BYTES", len(CAT) + len(DOG))
    assert (await asked(balancer, host.url("/cat"), host.url("/dog"))).status == 200
    too_much = await asked(balancer, host.url("/cat"), host.url("/dog"), host.add("/more", b"!"))
    assert too_much.status == 400
    assert "the images of the request have more than" in too_much.error["message"]
    one = host.add("/large", b"x" * 100)
    assert "the images of the request have more than" in await reason(balancer, one)


async def test_a_host_that_does_not_answer_is_not_waited_for(host: ImageHost) -> None:
    async with running_balancer(image_hosts=(host.name,), image_timeout_s=0.2) as balancer:
        assert await reason(balancer, host.url("/never")) == "it did not come within 0.2 s"


async def test_a_host_that_nobody_is_at_could_not_be_reached() -> None:
    async with image_host() as gone:
        pass
    async with running_balancer(image_hosts=(gone.name, "nowhere.invalid")) as balancer:
        why = await reason(balancer, gone.url("/cat"))
        assert why == "its host could not be reached, or broke off"
        assert await reason(balancer, "http://nowhere.invalid/cat") == "its host is not known"


async def test_requests_that_wait_for_images_are_bounded(
    host: ImageHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(image_source, "MAX_AT_ONCE", 1)
    monkeypatch.setattr(image_source, "MAX_WAITING", 1)
    async with (
        running_balancer(image_hosts=(host.name,), image_timeout_s=20.0) as balancer,
        asyncio.TaskGroup() as tasks,
    ):
        source = balancer.app.wiring.images
        slow = [tasks.create_task(asked(balancer, host.url("/never"))) for _ in range(2)]
        await host.waiting.wait()
        await eventually(lambda: source.requests == 2, "the other one waits for its turn")
        refused = await asked(balancer, host.url("/cat"))
        assert (refused.status, refused.error["code"]) == (503, "queue_full")
        assert refused.headers["Retry-After"] == "1"
        assert len(host.asked) == 1
        for task in slow:
            task.cancel()
        await eventually(lambda: source.requests == 0, "those who left are gone")


async def test_without_listed_hosts_nothing_is_fetched(host: ImageHost) -> None:
    async with (
        running_balancer() as balancer,
        FakeAgent(balancer.management_port),
    ):
        for path, body in (
            ("/v1/chat/completions", chat(host.url("/cat"))),
            ("/v1/messages", claude(by_url(host.url("/cat")))),
        ):
            answer = await balancer.post(path, body)
            assert answer.status == 400
            assert "nothing is fetched from elsewhere" in answer.json()["error"]["message"]
    assert host.asked == []
