"""Forty broken files: each gives one message, with the line, the field and what to do."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given
from hypothesis import strategies as st

from balancer.config_file.faults import FaultyConfiguration
from balancer.config_file.files import MAX_FILE_BYTES
from balancer.config_file.load import Sources, load

BROKEN: dict[str, tuple[bytes, int, str, str]] = {
    # --- no YAML ---
    "an open list": (b"max_waiting: 1\nimage_hosts: [a, b\n", 2, "image_hosts", "look at this"),
    "an open quote": (b'policy: latency\ndata_dir: "/srv\n', 2, "data_dir", "look at this line"),
    "a tab before a name": (b"app:\n\tenvironment: x\n", 2, "environment", "indent with spaces"),
    "a tab before a value": (b"app:\n  environment: x\n\t- y\n", 3, "environment", "spaces"),
    "a colon in a value": (b"data_dir: C: /srv\n", 1, "data_dir", "in quotes"),
    "a name that is indented": (
        b"max_waiting: 1\n  policy: latency\n", 2, "policy", "the same column",
    ),
    "a name that is less indented": (
        b"  max_waiting: 1\npolicy: latency\n", 2, "policy", "look at this line",
    ),
    "a name without a colon": (
        b"max_waiting: 1\npolicy latency\nlog_level: info\n", 3, "log_level", "look at this line",
    ),
    "no blank after the colon": (b"max_waiting:5\n", 1, "file", "write `name: value` lines"),
    "a percent sign in front": (b"policy: latency\ndata_dir: %x\n", 2, "data_dir", "look at this"),
    "an at sign in front": (b"data_dir: @home\n", 1, "data_dir", "look at this line"),
    "two documents": (b"policy: latency\n---\npolicy: random\n", 2, "policy", "keep one"),
    "an unknown escape": (b'data_dir: "C:\\srv"\n', 1, "data_dir", "look at this line"),
    "a conflict of versions": (
        b"<<<<<<< ours\nmax_waiting: 1\n", 2, "max_waiting", "in quotes",
    ),
    "an escape of no character": (
        b'policy: latency\ndata_dir: "\\U00110000"\n', 2, "data_dir", "look at this line",
    ),
    "an escape of no number": (b'data_dir: "\\UFFFFFFFF"\n', 1, "data_dir", "look at this line"),
    "a version beyond all": (
        b"%YAML 1." + b"9" * 5000 + b"\n---\npolicy: latency\n", 1, "file", "look at this line",
    ),
    "half a character": (b'data_dir: "\\ud800"\n', 1, "data_dir", "a directory's path"),
    # --- no text ---
    "latin-1": (b"policy: latency\ndata_dir: /m\xfcller\n", 2, "file", "save the file as UTF-8"),
    "utf-16": ("policy: latency\n".encode("utf-16"), 1, "file", "save the file as UTF-8"),
    "a zero byte": (b"policy: latency\ndata_dir: /s\0rv\n", 2, "file", "remove it"),
    "an escape of a terminal": (b"\n\ndata_dir: \x1b[31mred\n", 3, "file", "remove it"),
    "too many bytes": (b"# x\n" * (MAX_FILE_BYTES // 4) + b"#", 65_537, "file", "right file"),
    # --- YAML that is not wanted ---
    "a list": (b"# settings\n- policy: latency\n", 2, "file", "write `name: value` lines"),
    "a text": (b"policy\n", 1, "file", "write `name: value` lines"),
    "a name that is a list": (b"[a, b]: 1\n", 1, "file", "write `name: value` lines"),
    "a name twice": (b"max_waiting: 1\n\nmax_waiting: 2\n", 3, "max_waiting", "remove one"),
    "an alias": (b"data_dir: &x a\nrecord_routes: *x\n", 2, "record_routes", "write the value"),
    "a billion laughs": (
        b"a: &a [x, x]\nb: &b [*a, *a]\nc: &c [*b, *b]\n", 2, "b", "write the value itself",
    ),
    "an alias to itself": (b"image_hosts: &a [*a]\n", 1, "image_hosts", "write the value itself"),
    "a tag": (b"policy: latency\ndata_dir: !!python/name:os.system\n", 2, "data_dir", "the tag"),
    "a tag of one's own": (b"data_dir: !env HOME\n", 1, "data_dir", "remove the tag"),
    "very deep": (
        b"policy: latency\nimage_hosts: " + b"[" * 9000, 2, "image_hosts", "right file",
    ),
    # --- settings ---
    "a misspelt name": (b"\nmax_wating: 3\n", 2, "max_wating", "did you mean max_waiting?"),
    "a name with dashes": (b"max-waiting: 3\n", 1, "max-waiting", "did you mean max_waiting?"),
    "a strange name": (b"providers: []\n", 1, "providers", "allowed: inference, management"),
    "a section of nobody": (b"server:\n  port: 80\n", 1, "server", "allowed: inference"),
    "a key of a role that there is not": (
        b"auth:\n  api_keys:\n    - sk-one\n    - key: sk-two\n      role: boss\n",
        5, "auth.api_keys[1].role", "roles are public, user, admin, system",
    ),
    "a key without a key": (
        b"auth:\n  api_keys:\n    - role: user\n", 3, "auth.api_keys[0]", "one of key: TEXT, env:",
    ),
    "a key twice": (
        b"auth:\n  api_keys:\n    - one\n    - two\n    - key: one\n",
        5, "auth.api_keys[2]", "give each key once",
    ),
    "two keys of one name": (
        b"auth:\n  api_keys:\n    - {key: a, name: n}\n    - {key: b, name: n}\n",
        4, "auth.api_keys[1]", "give each name once",
    ),
    "a key of the name of somebody with a password": (
        b"auth:\n  api_keys:\n    - {key: a, name: 'basic:ci'}\n",
        3, "auth.api_keys[0].name", "does not begin with key_",
    ),
    "a key with a space": (
        b"auth:\n  api_keys: [one two]\n", 2, "auth.api_keys[0]", "printable ASCII",
    ),
    "a key in a variable that is not there": (
        b"auth:\n  api_keys:\n    - env: NO_SUCH_VARIABLE_OF_OURS\n",
        3, "auth.api_keys[0].env", "put the key there",
    ),
    "a key in a file that is not there": (
        b"auth:\n  api_keys:\n    - file: /no/such/file\n",
        3, "auth.api_keys[0].file", "put the key there",
    ),
    "a key from a place that is no network": (
        b"auth:\n  api_keys:\n    - key: a\n      networks:\n        - 10.0.0.1/8\n",
        4, "auth.api_keys[0].networks[0]", "10.0.0.0/8",
    ),
    "a key from a place that is no list": (
        b"auth:\n  api_keys:\n    - key: a\n      networks: 10.0.0.0/8\n",
        4, "auth.api_keys[0].networks", "models, networks and agents are lists",
    ),
    "a misspelt way to sign in": (
        b"auth:\n  metrics_tokens: word\n", 1, "auth", "metrics_token (a text, env or file)",
    ),
    "a key for agents that can have no such name": (
        b"auth:\n  api_keys:\n    - key: a\n      role: system\n      agents: ['a b']\n",
        5, "auth.api_keys[0].agents[0]", "names of agents",
    ),
    "a key for agents that no agent can join with": (
        b"auth:\n  api_keys:\n    - key: a\n      agents: [gpu-1]\n",
        4, "auth.api_keys[0].agents", "write role: system",
    ),
    "a key for a label that is none": (
        b"auth:\n  api_keys:\n    - {key: a, role: system, labels: {'': x}}\n",
        3, "auth.api_keys[0].labels.", "up to 128 characters",
    ),
    "a key for too many labels": (
        b"auth:\n  api_keys:\n    - key: a\n      role: system\n      labels: {"
        + b", ".join(b"l%d: x" % n for n in range(65)) + b"}\n",
        5, "auth.api_keys[0].labels", "at most 64",
    ),
    "a key for too many agents": (
        b"auth:\n  api_keys:\n    - key: a\n      role: system\n      agents: ["
        + b", ".join(b"a%d" % n for n in range(1001)) + b"]\n",
        5, "auth.api_keys[0].agents", "at most 1000",
    ),
    "a key that ends at no moment": (
        b"auth:\n  api_keys:\n    - key: a\n      expires: 2027-01-01\n",
        4, "auth.api_keys[0].expires", "with its time zone",
    ),
    "a header that cannot be one": (
        b"auth:\n  api_key_header: 'X Key:'\n", 2, "auth.api_key_header", "letters, digits and -",
    ),
    "keys that are no list": (b"auth:\n  api_keys: one\n", 2, "auth.api_keys", "a list"),
    "an unknown way to sign in": (b"auth:\n  password: x\n", 1, "auth", "allowed: api_keys"),
    "a section of auth that is a text": (b"auth: yes please\n", 1, "auth", "write an object"),
    "a limit that there is not": (
        b"limits:\n  roles:\n    user:\n      per_hour: 3\n",
        4, "limits.roles.user.per_hour", "allowed: requests_per_minute",
    ),
    "a limit that is no number": (
        b"limits:\n  routes:\n    chat:\n      burst: -1\n",
        4, "limits.routes.chat.burst", "a whole number 0..10^12",
    ),
    "a limit of a tier that there is not": (
        b"limits:\n  tiers: {gold: {concurrent: 1}}\n",
        2, "limits.tiers.gold", "allowed: free, basic, pro, enterprise",
    ),
    "a limit of a route that there is not": (
        b"limits:\n  roles:\n    user:\n      routes:\n        chats: {burst: 1}\n",
        5, "limits.roles.user.routes.chats", "allowed: chat, completions",
    ),
    "limits of a key that are no section": (
        b"auth:\n  api_keys:\n    - key: a\n      limits: 3\n",
        4, "auth.api_keys[0].limits", "allowed: requests_per_minute",
    ),
    "no value": (b"policy: latency\nmax_waiting:\n", 2, "max_waiting", "allowed: a whole number"),
    "a word for a number": (b"max_waiting: many\n", 1, "max_waiting", "0..1000000"),
    "a number that is too large": (b"\n\nqueue_timeout_s: 1e9\n", 3, "queue_timeout_s", "0..86400"),
    "a section for a number": (b"max_waiting:\n  of: 3\n", 1, "max_waiting", "a whole number"),
    "a list for an address": (b"inference: [127.0.0.1, 80]\n", 1, "inference", "HOST:PORT"),
    "a word for a switch": (b"insecure: maybe\n", 1, "insecure", "true or false"),
    "an unknown choice": (b"policy: fastest\n", 1, "policy", "allowed: least_busy, round_robin"),
    "a host with a path": (b"image_hosts:\n  - a/b\n", 1, "image_hosts", "a list of host names"),
    "a list in a list": (b"allowed_hosts:\n  - [a]\n", 1, "allowed_hosts", "a list of host names"),
    # --- sections of ours ---
    "an environment as a path": (
        b"policy: latency\napp:\n  environment: ../x\n", 3, "app.environment", "letters, digits",
    ),
    "an environment without a file": (
        b"app: {environment: test}\n", 1, "app.environment", "write one, it may be empty",
    ),
    "something else of the app": (b"app:\n  name: x\n", 2, "app.name", "allowed: environment"),
    "an app that is a text": (b"app: production\n", 1, "app", "write `environment: NAME`"),
    # --- together ---
    "one address twice": (
        b"inference: 127.0.0.1:80\nmanagement: 127.0.0.1:80\n", 2, "management", "two different",
    ),
    "an open door": (b"\nmanagement: 0.0.0.0:80\n", 2, "management", "listen on 127.0.0.1"),
}  # fmt: skip


def test_there_are_forty_and_more() -> None:
    assert len(BROKEN) >= 40


@pytest.mark.parametrize("name", BROKEN)
def test_one_message_has_the_line_the_field_and_the_remedy(name: str, tmp_path: Path) -> None:
    content, line, field, remedy = BROKEN[name]
    file = tmp_path / "paddler.yaml"
    file.write_bytes(content)
    with pytest.raises(FaultyConfiguration) as caught:
        load(Sources(config=file))
    message = str(caught.value)
    assert "\n" not in message
    assert message.isprintable()
    assert message.startswith(f"{field}: ")
    assert f"(from {file}, line {line})" in message
    assert remedy in message
    assert "sk-secret" not in message
    (fault,) = caught.value.faults
    assert (fault.field, fault.origin.line, fault.origin.name) == (field, line, str(file))


PIECES = (
    *("max_waiting", "app", ": ", ":", "- ", "\n", "  ", "[", "]", "{", "}", "&a ", "*a", "!t "),
    *("'", '"', "|", ">", "%", "---\n", "...", "? ", "#", "\t", "<<", "\\", "x", "1", ","),
)


@given(st.lists(st.sampled_from(PIECES), max_size=30).map("".join) | st.text(max_size=60))
def test_whatever_a_file_holds_it_can_be_used_or_the_fault_is_named(content: str) -> None:
    with TemporaryDirectory() as folder:
        file = Path(folder, "paddler.yaml")
        file.write_bytes(content.encode("utf-8", "surrogatepass"))
        with suppress(FaultyConfiguration):
            load(Sources(config=file))


def test_the_lines_of_an_overlay_are_its_own(tmp_path: Path) -> None:
    file, overlay = tmp_path / "paddler.yaml", tmp_path / "paddler.test.yaml"
    file.write_text("app: {environment: test}\n")
    overlay.write_text("\nmax_waiting: many\napp: {environment: other}\n")
    with pytest.raises(FaultyConfiguration) as caught:
        load(Sources(config=file))
    assert [
        (fault.field, fault.origin.name, fault.origin.line) for fault in caught.value.faults
    ] == [
        ("max_waiting", str(overlay), 2),
        ("app", str(overlay), 3),
    ]
    assert "cannot choose an environment" in str(caught.value)
