"""Every parameter of sampling has a range, the same for the link and for the engine."""

from __future__ import annotations

import msgspec
import pytest

from agent.engine.frames import Sampling
from agent.engine.sampling.limits import problem_with
from protocol.generation import GenerationRequest
from tests.support.samplers import SIZE


@pytest.mark.parametrize(
    ("sampling", "named"),
    [
        (Sampling(temperature=-1), "temperature"),
        (Sampling(temperature=float("nan")), "temperature"),
        (Sampling(repeat_penalty=0), "repeat_penalty"),
        (Sampling(top_p=1.5), "top_p"),
        (Sampling(top_k=-1), "top_k"),
        (Sampling(presence_penalty=float("inf")), "presence_penalty"),
        (Sampling(logit_bias=((SIZE, 1.0),)), "vocabulary"),
        (Sampling(logit_bias=((1, float("nan")),)), "logit_bias"),
        (Sampling(top_logprobs=SIZE + 1), "top_logprobs"),
        (Sampling(seed=-1), "seed"),
        (Sampling(dry_multiplier=-0.1), "dry_multiplier"),
        (Sampling(dry_base=0.5), "dry_base"),
        (Sampling(dry_allowed_length=-1), "dry_allowed_length"),
        (Sampling(dry_penalty_last_n=2**31), "dry_penalty_last_n"),
        (Sampling(dry_sequence_breakers=("",)), "dry_sequence_breakers"),
        (Sampling(dry_sequence_breakers=("a",) * 33), "dry_sequence_breakers"),
        (Sampling(xtc_probability=1.5), "xtc_probability"),
        (Sampling(xtc_threshold=float("nan")), "xtc_threshold"),
        (Sampling(mirostat=3), "mirostat"),
        (Sampling(mirostat_tau=-1), "mirostat_tau"),
        (Sampling(mirostat_eta=2), "mirostat_eta"),
    ],
)
def test_what_is_out_of_range_is_named(sampling: Sampling, named: str) -> None:
    assert named in problem_with(sampling, SIZE)


def test_ordinary_sampling_has_no_problem() -> None:
    assert problem_with(Sampling(logit_bias=((1, -100.0),), top_logprobs=20), SIZE) == ""


@pytest.mark.parametrize("name", Sampling.__struct_fields__)
def test_what_the_link_lets_in_is_within_the_engines_ranges(name: str) -> None:
    (field,) = (
        info for info in msgspec.structs.fields(GenerationRequest) if info.encode_name == name
    )
    meta = getattr(field.type, "__metadata__", ())
    for bound in (limit for one in meta for limit in (one.ge, one.le) if limit is not None):
        if name not in ("top_logprobs", "dry_sequence_breakers"):
            assert problem_with(Sampling(**{name: bound}), SIZE) == ""


def test_the_engine_takes_every_default_of_the_link() -> None:
    request, neutral = GenerationRequest(), Sampling()
    for name in Sampling.__struct_fields__:
        assert getattr(request, name) == getattr(neutral, name), name
