"""What a chat template may use, rendered here without the worker process around it."""

from __future__ import annotations

from typing import Any

import pytest

from agent.chat.template_frames import MAX_OUTPUT_BYTES, RenderJob
from agent.chat.template_worker import render


def rendered(template: str, **variables: Any) -> str:
    reply = render(RenderJob(template=template, variables=variables, created=1_700_000_000))
    assert reply.kind == "rendered", reply
    return reply.text


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("{{ strftime_now('%d %b %Y') }}", "14 Nov 2023"),
        ("{{ {'a': '<ä>', 'b': [1]} | tojson }}", '{"a": "<ä>", "b": [1]}'),
        ("{{ {'a': 1} | tojson(indent=2) }}", '{\n  "a": 1\n}'),
        ("{{ 'ä' | tojson(ensure_ascii=True) }}", '"\\u00e4"'),
        ("{{ {'b': 1, 'a': 2} | tojson(separators=(',', ':'), sort_keys=True) }}", '{"a":2,"b":1}'),
        ("{% for i in range(5) %}{% if i == 2 %}{% break %}{% endif %}{{ i }}{% endfor %}", "01"),
        ("{% for i in [1, 2] %}\n  {% if i %}\n{{ i }}\n  {% endif %}\n{% endfor %}\n", "1\n2\n"),
        ("a{% generation %}b{% endgeneration %}c", "abc"),
        ("{% if enable_thinking is defined %}x{% endif %}{{ name | trim }}", "n"),
    ],
)
def test_templates_find_what_they_expect(template: str, text: str) -> None:
    assert rendered(template, name=" n ") == text


def test_what_a_template_raises_is_told_in_its_own_words() -> None:
    reply = render(
        RenderJob(template="{{ raise_exception('Roles must alternate.') }}", variables={})
    )
    assert (reply.kind, reply.text) == ("raised", "Roles must alternate.")


@pytest.mark.parametrize(
    "template",
    [
        "{% for %}",
        "{{ messages[0].role + 1 }}",
        "{{ ''.__class__.__mro__[1].__subclasses__()[0].__name__ + x }}",
        "{{ messages.append(1) }}",
        "{% include 'x' %}",
        "{{ '\\ud800' }}",
        "{% for i in range(10**7) %}{% endfor %}",
    ],
)
def test_a_template_that_fails_or_reaches_out_is_broken_not_fatal(template: str) -> None:
    assert render(RenderJob(template=template, variables={"messages": []})).kind == "broken"


def test_too_much_output_ends_at_the_limit() -> None:
    template = "{% for i in range(99999) %}{{ 'abcdefghij' * 10 }}{% endfor %}"
    assert render(RenderJob(template=template, variables={})).kind == "too_long"
    assert len(rendered("{{ 'a' * n }}", n=MAX_OUTPUT_BYTES)) == MAX_OUTPUT_BYTES


def test_a_template_can_be_compiled_ahead() -> None:
    assert render(RenderJob(template="{{ nothing.at_all }}", variables=None)).kind == "rendered"
    assert render(RenderJob(template="{% if %}", variables=None)).kind == "broken"
