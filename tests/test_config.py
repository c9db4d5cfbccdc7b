"""Every option: its default, what it takes, and what it refuses."""

from __future__ import annotations

import dataclasses
import resource
from typing import TYPE_CHECKING

import pytest

from echo_service import Config, ConfigError, config

if TYPE_CHECKING:
    from pathlib import Path

DEFAULTS = {
    "bind": ("127.0.0.1:8080",),
    "admin_bind": None,
    "workers": 1,
    "tls_cert": None,
    "tls_key": None,
    "max_message_size": 16777216,
    "handshake_timeout": 10,
    "ping_interval": 20,
    "ping_timeout": 20,
    "close_timeout": 5,
    "stall_timeout": 30,
    "drain_timeout": 20,
    "drain_code": 1001,
    "compression": True,
    "fast_lane": True,
    "subprotocol": (),
    "allow_origin": (),
    "trusted_proxy": (),
    "controls": True,
    "log_format": "text",
    "log_level": "info",
}


def test_defaults():
    made = dataclasses.asdict(Config())
    del made["max_connections"]
    assert made == DEFAULTS


@pytest.mark.parametrize(
    "soft, connections",
    [(1024, 960), (65, 1), (64, 1), (10, 1), (10**6, 10**6 - 64), (resource.RLIM_INFINITY, None)],
)
def test_default_of_max_connections_is_the_file_limit_less_64(
    monkeypatch, soft: int, connections: int | None
):
    """Where there is no file limit, there is none of connections that could be met."""
    monkeypatch.setattr(resource, "getrlimit", lambda _: (soft, resource.RLIM_INFINITY))
    made = Config().max_connections
    assert made == connections if connections else made >= 10**6


def test_configuration_is_frozen_and_named():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Config().drain_code = 1012
    with pytest.raises(TypeError, match="positional"):
        Config(["127.0.0.1:0"])
    with pytest.raises(TypeError, match="max_message_sise"):
        Config(max_message_sise=1)


SECONDS = ["handshake_timeout", "close_timeout", "stall_timeout", "drain_timeout"]
SECONDS_OR_OFF = ["ping_interval", "ping_timeout"]
WHOLE = ["max_message_size", "max_connections"]


def rows(names: list[str], *values: object) -> list[tuple[str, object]]:
    return [(name, value) for name in names for value in values]


@pytest.mark.parametrize(
    "name, value, used",
    [
        ("bind", ["127.0.0.1:0"], ("127.0.0.1:0",)),
        ("bind", ("[::1]:80", "unix:/run/echo", "fd:3"), ("[::1]:80", "unix:/run/echo", "fd:3")),
        *[(name, text, float(text)) for name in SECONDS for text in ("1", "0.5", ".5", "5.")],
        *[(name, 0.001, 0.001) for name in SECONDS],
        *[(name, 3, 3.0) for name in SECONDS],
        *[(name, zero, 0.0) for name in SECONDS_OR_OFF for zero in (0, 0.0, "0", "0.0")],
        *[(name, "2.5", 2.5) for name in SECONDS_OR_OFF],
        *[(name, one, 1) for name in WHOLE for one in (1, "1", "001")],
        *[(name, 2**40, 2**40) for name in WHOLE],
        ("drain_code", 1001, 1001),
        ("drain_code", 1012, 1012),
        ("drain_code", "1012", 1012),
        *[("compression", on, True) for on in (True, "1", "true", "yes", "on", "ON", "True")],
        *[("compression", off, False) for off in (False, "0", "false", "no", "off", "No")],
        ("subprotocol", ["chat", "v2.echo"], ("chat", "v2.echo")),
        ("subprotocol", [], ()),
        ("allow_origin", ["https://echo.example"], ("https://echo.example",)),
        ("allow_origin", ["null", "http://[::1]:81"], ("null", "http://[::1]:81")),
        ("trusted_proxy", ["10.0.0.0/8", "::1", "unix:"], ("10.0.0.0/8", "::1", "unix:")),
        ("log_format", "json", "json"),
        *[("log_level", level, level) for level in ("debug", "info", "warning", "error")],
    ],
)
def test_value_that_is_used(name: str, value: object, used: object):
    got = getattr(Config(**{name: value}), name)
    assert got == used
    assert type(got) is type(used)


@pytest.mark.parametrize(
    "name, value",
    [
        *rows(
            ["bind"], [], "127.0.0.1:0", None, 8080, ["8080"], [8080], ["127.0.0.1:0", ""], {"a"}
        ),
        *rows(["tls_cert", "tls_key"], "", 3, True),
        *rows(WHOLE, 0, -1, "0", "-1", "+1", "1.0", 1.0, "1e3", "", " 1", "1_000", "x", "\u0661"),
        *rows(WHOLE, None, True, "1" * 19, 10**18, [1]),
        *rows(SECONDS + SECONDS_OR_OFF, -1, -0.1, "-1", "+1", "", " 1", "1 ", "1e3", "x", "1s"),
        *rows(SECONDS + SECONDS_OR_OFF, "nan", "inf", float("nan"), float("inf"), "1" * 400),
        *rows(SECONDS + SECONDS_OR_OFF, None, True, False, [1], 10**400, "."),
        *rows(SECONDS, 0, 0.0, "0", "0.000"),
        *rows(["drain_code"], 1000, "1000", "01001", "", 1011, None, True, [1001]),
        *rows(["compression"], "", "maybe", 2, None, [True]),
        *rows(["subprotocol"], "chat", [""], ["two words"], ["a,b"], ["caf\xe9"], [3], None),
        *rows(["allow_origin"], "null", [""], ["echo.example"], ["https://echo.example/"], None),
        *rows(
            ["trusted_proxy"], "10.0.0.0/8", ["10.0.0.1/8"], ["10.0.0.0/33"], ["proxy"], [8], None
        ),
        *rows(["log_format"], "", "JSON", "xml", None, True),
        *rows(["log_level"], "", "INFO", "critical", 20, None),
    ],
    ids=lambda each: repr(each)[:30],
)
def test_value_that_is_refused(name: str, value: object):
    with pytest.raises(ConfigError) as caught:
        Config(**{name: value})
    error = caught.value
    assert error.option == name
    assert isinstance(value, list) or error.value is value
    assert error.accepted
    assert str(error) == f"{name}: {error.value!r} can't be used; accepted: {error.accepted}"


def test_value_that_is_refused_is_the_one_of_several():
    with pytest.raises(ConfigError) as caught:
        Config(bind=["127.0.0.1:0", "nowhere"])
    assert caught.value.value == "nowhere"


def test_certificate_and_key_go_together(tmp_path: Path):
    made = Config(tls_cert=tmp_path / "cert.pem", tls_key="key.pem")
    assert (made.tls_cert, made.tls_key) == (str(tmp_path / "cert.pem"), "key.pem")
    assert made.scheme == "wss"
    assert Config().scheme == "ws"
    for one in ("tls_cert", "tls_key"):
        with pytest.raises(ConfigError) as caught:
            Config(**{one: "file.pem"})
        assert (caught.value.option, caught.value.value) == (one, "file.pem")
        assert "is given too" in caught.value.accepted


@pytest.mark.parametrize(
    "allowed, origins",
    [
        ([], None),
        (["HTTPS://Echo.Example"], {("https", "echo.example", 443)}),
        (["http://a:80", "http://a", "null"], {("http", "a", 80), ("null", "", None)}),
    ],
)
def test_origins_to_compare_with(allowed: list[str], origins: object):
    assert Config(allow_origin=allowed).origins == origins


# The environment


def test_every_option_has_a_flag_and_a_variable():
    assert list(config.OPTIONS) == [row.name for row in dataclasses.fields(Config)]
    assert config.flag("max_message_size") == "--max-message-size"
    assert config.variable("max_message_size") == "ECHO_SERVICE_MAX_MESSAGE_SIZE"


def test_variables_are_read_as_text_and_lists_are_split_at_spaces():
    environ = {
        "ECHO_SERVICE_BIND": "127.0.0.1:0  [::1]:0 unix:/run/echo",
        "ECHO_SERVICE_DRAIN_CODE": "1012",
        "ECHO_SERVICE_SUBPROTOCOL": "",
        "ECHO_SERVICE_COMPRESSION": "off",
        "PATH": "/bin",
        "OTHER_ECHO_SERVICE_BIND": "not ours",
        "ECHO_SERVICES": "not ours",
    }
    given = config.from_environment(environ)
    assert given == {
        "bind": ["127.0.0.1:0", "[::1]:0", "unix:/run/echo"],
        "drain_code": "1012",
        "subprotocol": [],
        "compression": "off",
    }
    assert Config(**given).drain_code == 1012


@pytest.mark.parametrize(
    "key",
    [
        "ECHO_SERVICE_SERVICE_HOST",
        "ECHO_SERVICE_SERVICE_PORT",
        "ECHO_SERVICE_SERVICE_PORT_HTTP",
        "ECHO_SERVICE_PORT",
        "ECHO_SERVICE_PORT_8080_TCP",
        "ECHO_SERVICE_PORT_8080_TCP_ADDR",
        "ECHO_SERVICE_PORT_8080_TCP_PORT",
        "ECHO_SERVICE_PORT_8080_TCP_PROTO",
    ],
)
def test_what_kubernetes_injects_for_a_service_of_our_name_is_left_alone(key: str):
    assert config.from_environment({key: "tcp://10.0.0.7:8080"}) == {}


@pytest.mark.parametrize(
    "key",
    [
        "ECHO_SERVICE_",
        "ECHO_SERVICE_MAX_MESAGE_SIZE",
        "ECHO_SERVICE_max_message_size",
        "ECHO_SERVICE_MAX-MESSAGE-SIZE",
        "ECHO_SERVICE_PORTS",
        "ECHO_SERVICE_SERVICE",
        "ECHO_SERVICE_SERVICE_HOSTS",
        "ECHO_SERVICE_WORKER",
        "ECHO_SERVICE_ADMIN",
        "ECHO_SERVICE_TRUSTED_PROXIES",
        "ECHO_SERVICE_CONTROL",
    ],
)
def test_unknown_variable_is_refused_by_name(key: str):
    with pytest.raises(ConfigError) as caught:
        config.from_environment({key: "some value"})
    assert (caught.value.option, caught.value.value) == (key, "some value")
