"""Images and sounds from a request to the engine: decoded in a process that can be killed."""

from __future__ import annotations

import asyncio
import io
import json
import os
import wave
from base64 import b64encode
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np
import psutil
import pytest
from msgspec import structs
from PIL import Image

from agent.engine.engine import Engine, EngineDoor
from agent.engine.frames import EngineOptions, Medium
from agent.errors import MediaBusy, MediaRefused
from agent.media import decoder as decoder_module
from agent.media.decoder import DecodedMedium, MediaDecoder
from agent.settings import BalancerAddress
from balancer.app import build
from balancer.settings import Address, Settings
from protocol.chat import AudioPart, ImagePart, MediaPart, Message, Part, TextPart
from protocol.generation import GenerationRequest
from protocol.jsonrpc import ErrorResponse
from protocol.refusals import RefusalCode
from tests.support.cluster import eventually
from tests.support.fake_balancer import FakeBalancer, fake_balancer
from tests.support.fake_engine import FACTS, FakeEngine
from tests.support.media_files import picture, tone
from tests.support.running_agent import running_agent
from tests.support.tiny_gguf import write_tiny_gguf
from tests.support.tiny_projector_gguf import IMAGE_TOKENS, Kind, write_tiny_projector

SEEING = structs.replace(FACTS, modalities=("vision",))
ALL_SENSES = structs.replace(FACTS, modalities=("vision", "audio"), audio_sample_rate=16_000)


def png(seed: int = 1, *, width: int = 48, height: int = 40) -> bytes:
    out = io.BytesIO()
    Image.fromarray(picture(seed, width=width, height=height)).save(out, "PNG")
    return out.getvalue()


def wav(hertz: float = 440.0, *, seconds: float = 0.5) -> bytes:
    out = io.BytesIO()
    with wave.open(out, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16_000)
        file.writeframes((tone(hertz, seconds=seconds) * 32767).astype("<i2").tobytes())
    return out.getvalue()


def content(medium: DecodedMedium | Medium) -> bytes:
    return Path(medium.path).read_bytes()


def is_held(medium: DecodedMedium | Medium) -> bool:
    """Whether the engine could still open it."""
    return Path(medium.path).exists()


# --- the decoder ---


@pytest.fixture
async def decoder() -> AsyncIterator[MediaDecoder]:
    decoder = MediaDecoder(timeout_s=20.0)
    yield decoder
    await decoder.close()


async def test_media_come_out_as_the_engine_opens_them(decoder: MediaDecoder) -> None:
    parts = (ImagePart(data=png()), AudioPart(data=wav()), ImagePart(data=png()))
    with await decoder.decode(parts, sample_rate=16_000) as decoded:
        image, sound, again = decoded.media
        assert (image.kind, image.width, image.height) == ("image", 48, 40)
        assert content(image) == picture(1).tobytes()
        assert (sound.kind, sound.samples) == ("audio", 8000)
        samples = np.frombuffer(content(sound), dtype=np.float32)
        assert np.abs(samples - tone(440.0, seconds=0.5)).max() < 1e-3
        assert again.digest == image.digest != sound.digest
        assert decoder.held_bytes == decoded.size_bytes == 2 * 48 * 40 * 3 + 4 * 8000
        with pytest.raises(OSError, match="not permitted"):
            os.truncate(image.path, 0)
    assert decoder.held_bytes == 0
    assert not is_held(image)


async def test_the_same_bytes_in_another_shape_are_another_image(decoder: MediaDecoder) -> None:
    wide, high = png(width=8, height=4), png(width=4, height=8)
    with await decoder.decode(
        [ImagePart(data=wide), ImagePart(data=high)], sample_rate=0
    ) as decoded:
        one, other = decoded.media
        assert content(one) == content(other)
        assert one.digest != other.digest


@pytest.mark.parametrize(
    ("part", "reason"),
    [
        (ImagePart(data=b"no image"), r"^Medium 2 \(image\) cannot be taken: it is no JPEG"),
        (ImagePart(data=wav()), "it is no JPEG"),
        (AudioPart(data=png()), r"^Medium 2 \(audio\) cannot be taken: it is no WAV file"),
    ],
)
async def test_what_is_no_medium_is_refused_and_the_next_call_is_served(
    decoder: MediaDecoder, part: MediaPart, reason: str
) -> None:
    good = ImagePart(data=png())
    with pytest.raises(MediaRefused, match=reason):
        await decoder.decode([good, part], sample_rate=16_000)
    assert decoder.held_bytes == 0
    with await decoder.decode([good], sample_rate=16_000) as decoded:
        assert len(decoded.media) == 1


async def test_one_that_needs_too_much_memory_is_refused_and_the_next_call_is_served(
    decoder: MediaDecoder,
) -> None:
    out = io.BytesIO()
    # WebP is decoded as a whole before anybody can look at its size
    Image.new("RGB", (10_000, 8_000)).save(out, "WEBP", lossless=True, method=0)
    with pytest.raises(MediaRefused, match=r"256 MiB|are decoded|decoder object"):
        await decoder.decode([ImagePart(data=out.getvalue())], sample_rate=0)
    with await decoder.decode([ImagePart(data=png())], sample_rate=0) as decoded:
        assert len(decoded.media) == 1


async def test_one_that_takes_too_long_is_killed() -> None:
    decoder = MediaDecoder(timeout_s=1.0)
    try:
        (await decoder.decode([ImagePart(data=png())], sample_rate=0)).close()
        worker = psutil.Process(decoder.pid)
        worker.suspend()
        with pytest.raises(MediaRefused, match=r"could not be decoded within 1 s"):
            await decoder.decode([ImagePart(data=png())], sample_rate=0)
        assert not worker.is_running()
        assert decoder.held_bytes == 0
    finally:
        await decoder.close()


async def test_what_all_media_take_is_bounded(
    decoder: MediaDecoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    part = ImagePart(data=png())
    monkeypatch.setattr(decoder_module, "MAX_REQUEST_BYTES", 48 * 40 * 3)
    with pytest.raises(MediaRefused, match="at most 5760 are allowed"):
        await decoder.decode([part, part], sample_rate=0)
    monkeypatch.setattr(decoder_module, "MAX_HELD_BYTES", 5000)
    held = await decoder.decode([part], sample_rate=0)
    with pytest.raises(MediaBusy, match="held for calls"):
        await decoder.decode([part], sample_rate=0)
    monkeypatch.setattr(decoder_module, "MAX_HELD_BYTES", 50_000)
    monkeypatch.setattr(decoder_module, "MAX_HELD_FILES", 2)
    with pytest.raises(MediaBusy, match="held for calls"):
        await decoder.decode([part, part], sample_rate=0)
    (await decoder.decode([part], sample_rate=0)).close()
    held.close()
    held.close()
    assert decoder.held_files == 0


async def test_a_call_that_is_gone_is_not_decoded(decoder: MediaDecoder) -> None:
    decoded = await decoder.decode([ImagePart(data=png())], sample_rate=0, is_wanted=lambda: False)
    assert decoded.media == []
    assert decoder.held_bytes == 0


# --- the agent ---


@pytest.fixture
async def balancer() -> AsyncIterator[FakeBalancer]:
    async with fake_balancer() as balancer:
        yield balancer


def asked(*parts: Part, **more: Any) -> GenerationRequest:
    return GenerationRequest(messages=(Message(role="user", content=parts),), **more)


async def test_the_engine_is_told_where_in_the_prompt_the_media_stand(
    balancer: FakeBalancer,
) -> None:
    engine = FakeEngine(facts=ALL_SENSES)
    request = asked(
        TextPart(text="see "), ImagePart(data=png()), TextPart(text="hear "), AudioPart(data=wav())
    )
    async with running_agent(balancer.address, engine):
        await balancer.has_slots(4)
        await balancer.finished(await balancer.call(request))
        [submit] = engine.submits
        assert not any(map(is_held, submit.media))
    assert submit.prompt == "[user]see hear [assistant]"
    assert [(medium.kind, medium.at) for medium in submit.media] == [("image", 10), ("audio", 15)]
    assert (submit.media[0].width, submit.media[1].samples) == (48, 8000)


@pytest.mark.parametrize(
    ("request_", "code", "message"),
    [
        (asked(AudioPart(data=b"x")), RefusalCode.UNSUPPORTED, "hold audio, and this model"),
        (asked(ImagePart(data=b"x")), RefusalCode.INVALID_MEDIA, "it is no JPEG"),
        (asked(*[ImagePart(data=b"x")] * 33), RefusalCode.INVALID_MEDIA, "33 images and sounds"),
    ],
)
async def test_media_that_cannot_be_taken_are_refused(
    balancer: FakeBalancer, request_: GenerationRequest, code: int, message: str
) -> None:
    engine = FakeEngine(facts=SEEING)
    async with running_agent(balancer.address, engine):
        await balancer.has_slots(4)
        answer = await balancer.answered(await balancer.call(request_))
    assert isinstance(answer, ErrorResponse)
    assert answer.error.code == code
    assert message in answer.error.message
    assert engine.submits == []


async def test_a_text_only_model_refuses_an_image_before_it_is_decoded(
    balancer: FakeBalancer,
) -> None:
    async with running_agent(balancer.address, FakeEngine()):
        await balancer.has_slots(4)
        answer = await balancer.answered(await balancer.call(asked(ImagePart(data=b"no image"))))
    assert isinstance(answer, ErrorResponse)
    assert answer.error.code == RefusalCode.UNSUPPORTED
    assert "an image" in answer.error.message


@pytest.mark.parametrize(
    "template", ["no messages", "{% for m in messages * 2 %}{{ m.content }}{% endfor %}"]
)
async def test_a_template_that_does_not_show_each_image_once_is_refused(
    balancer: FakeBalancer, template: str
) -> None:
    engine = FakeEngine(facts=SEEING)
    async with running_agent(balancer.address, engine, chat_template=template):
        await balancer.has_slots(4)
        answer = await balancer.answered(await balancer.call(asked(ImagePart(data=png()))))
    assert isinstance(answer, ErrorResponse)
    assert answer.error.code == RefusalCode.INVALID_TEMPLATE
    assert "of 1 images and sounds" in answer.error.message


async def test_what_an_engine_that_died_was_told_to_open_is_let_go(balancer: FakeBalancer) -> None:
    engine = FakeEngine(facts=SEEING)
    engine.ignore_submits = True
    async with running_agent(balancer.address, engine):
        await balancer.has_slots(4)
        call = await balancer.call(asked(ImagePart(data=png())))
        await engine.events.submitted.wait()
        [medium] = engine.submits[0].media
        assert is_held(medium)
        engine.die()
        assert isinstance(await balancer.answered(call), ErrorResponse)
        assert not is_held(medium)


# --- the whole way ---


@dataclass(frozen=True)
class Site:
    """A balancer, an agent and an engine process."""

    client: aiohttp.ClientSession
    url: str

    async def ask(self, *parts: dict[str, Any] | str, **more: Any) -> tuple[int, dict[str, Any]]:
        content = [{"type": "text", "text": p} if isinstance(p, str) else p for p in parts]
        body = {"messages": [{"role": "user", "content": content}], "temperature": 0, **more}
        async with self.client.post(self.url, json={"max_tokens": 12, **body}) as answer:
            return answer.status, json.loads(await answer.read())


def image(data: bytes) -> dict[str, Any]:
    url = "data:image/png;base64," + b64encode(data).decode()
    return {"type": "image_url", "image_url": {"url": url}}


def sound(data: bytes) -> dict[str, Any]:
    audio = {"data": b64encode(data).decode(), "format": "wav"}
    return {"type": "input_audio", "input_audio": audio}


@asynccontextmanager
async def site(engine: EngineDoor) -> AsyncIterator[Site]:
    loopback = Address("127.0.0.1", 0)
    balancer = build(Settings(inference=loopback, management=loopback))
    balancer.bind()
    management = balancer.address_of("management")
    async with asyncio.TaskGroup() as tasks, aiohttp.ClientSession() as client:
        serving = tasks.create_task(balancer.run())
        try:
            async with running_agent(BalancerAddress(management.host, management.port), engine):
                await eventually(
                    lambda: sum(a.slots_total for a in balancer.wiring.roster.agents()) > 0,
                    what="the agent's slots",
                )
                url = f"http://{balancer.address_of('inference')}/v1/chat/completions"
                yield Site(client, url)
        finally:
            balancer.stop()
            balancer.stop()
            await serving


def engine_with(folder: Path, kind: Kind | None) -> Engine:
    model = write_tiny_gguf(folder / "tiny.gguf")
    mmproj = str(write_tiny_projector(folder / "mmproj.gguf", kind)) if kind else ""
    return Engine(
        EngineOptions(
            model_path=str(model),
            slots=2,
            threads=1,
            gpu_layers=0,
            cache_type="f32",
            flash_attention="off",
            mmproj_path=mmproj,
        )
    )


async def test_an_image_goes_all_the_way_and_is_cached(tmp_path: Path) -> None:
    # over 256 KiB, so that it crosses the link in pieces
    cat, dog = (image(png(seed, width=400, height=300)) for seed in (1, 2))
    async with site(engine_with(tmp_path, "mlp")) as here:
        answers = [await here.ask("what is ", one, "?", logprobs=True) for one in (cat, cat, dog)]
        _, without = await here.ask("what is ", "?", logprobs=True)
    assert [status for status, _ in answers] == [200] * 3
    first, again, other = (body for _, body in answers)
    prompt = first["usage"]["prompt_tokens"]
    assert prompt == without["usage"]["prompt_tokens"] + IMAGE_TOKENS
    assert first["choices"][0]["message"] == again["choices"][0]["message"]
    assert again["performance"]["cached_prompt_tokens"] == prompt - 1
    logprobs = [b["choices"][0]["logprobs"]["content"][0]["logprob"] for b in (first, other)]
    assert abs(logprobs[0] - logprobs[1]) > 1e-3
    assert other["performance"]["cached_prompt_tokens"] < prompt - IMAGE_TOKENS


async def test_a_sound_goes_all_the_way(tmp_path: Path) -> None:
    async with site(engine_with(tmp_path, "ultravox")) as here:
        status, body = await here.ask("hear ", sound(wav()))
        refused, error = await here.ask("see ", image(png()))
    assert status == 200
    assert body["usage"]["completion_tokens"] > 0
    assert (refused, error["error"]["code"]) == (400, "unsupported_parameter")
    assert "image" in error["error"]["message"]


@pytest.mark.parametrize(
    ("kind", "part", "code", "words"),
    [
        (None, image(png()), "unsupported_parameter", "an image"),
        ("mlp", sound(wav()), "unsupported_parameter", "audio"),
        ("mlp", image(b"no image"), "invalid_value", "no JPEG"),
        ("mlp", image(png(width=1001, height=5)), "invalid_value", "200 times"),
    ],
)
async def test_what_cannot_be_seen_is_a_400_that_says_why(
    tmp_path: Path, kind: Kind | None, part: dict[str, Any], code: str, words: str
) -> None:
    async with site(engine_with(tmp_path, kind)) as here:
        status, body = await here.ask("what is ", part)
        after, _ = await here.ask("hello")
    assert (status, body["error"]["code"]) == (400, code)
    assert words in body["error"]["message"]
    assert after == 200
