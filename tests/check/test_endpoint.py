"""A URL → what to connect to."""

from __future__ import annotations

import ssl

import pytest
import trio

from echo_service import Config, serve
from echo_service.check.endpoint import Endpoint, UnreachableError, parse, trusting
from echo_service.check.quick import quick

pytestmark = pytest.mark.usefixtures("in_time")
TLS = ssl.create_default_context()


def parsed(url: str) -> Endpoint:
    return parse(url, lambda: TLS)


@pytest.mark.parametrize(
    "url, expected",
    [
        ("ws://a", ("a", 80, "", "a", "/")),
        ("wss://a", ("a", 443, "", "a", "/")),
        ("WS://a:81/b?c=d", ("a", 81, "", "a:81", "/b?c=d")),
        ("ws://a?b", ("a", 80, "", "a", "/?b")),
        ("ws://[::1]:8080/", ("::1", 8080, "", "[::1]:8080", "/")),
        ("ws+unix:/run/echo", ("localhost", 0, "/run/echo", "localhost", "/")),
        ("wss+unix:echo", ("localhost", 0, "echo", "localhost", "/")),
    ],
)
def test_url_is_taken_apart(url: str, expected: tuple[str, int, str, str, str]):
    found = parsed(url)
    assert (found.host, found.port, found.path, found.authority, found.target) == expected
    assert (found.tls is TLS) == url.startswith("wss")


@pytest.mark.parametrize(
    "url",
    [
        *("", "a", "a:80", "//a", "http://a", "ws:a", "ws://", "ws://:80", "ws+unix:"),
        *("ws://a:b", "ws://a:65536", "ws://a/#b", "ws://u:p@a", "ws://a/ b", "ws://ä", "ws://[a"),
        *("ws://a..b/", "wss://a..b/", "ws://.:1/", "ws://.a", f"ws://{64 * 'a'}/"),
    ],
)
def test_what_is_no_websocket_url_is_a_value_error(url: str):
    with pytest.raises(ValueError):  # noqa: PT011 - the command words it
        parsed(url)


async def test_nobody_listening_is_unreachable():
    with pytest.raises(UnreachableError):
        await Endpoint("", None, host="127.0.0.1", port=1).connect()
    with pytest.raises(UnreachableError):
        await Endpoint("", None, path="/nowhere").connect()


@pytest.fixture
async def secured(nursery, certificate) -> str:
    """The URL of our own service over TLS."""
    config = Config(bind=["127.0.0.1:0"], **certificate())
    return (await nursery.start(serve, config)).urls[0]


async def test_a_certificate_is_trusted_by_the_authority_that_is_named(
    secured, authority, tmp_path
):
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    trusted = parse(secured, lambda: trusting(str(tmp_path / "ca.pem"), insecure=False))
    assert await quick(trusted, 30) == ""


async def test_a_certificate_of_a_stranger_is_trusted_only_where_any_is(secured):
    with pytest.raises(UnreachableError, match="certificate verify failed"):
        await parse(secured, lambda: trusting(None, insecure=False)).connect()
    assert await quick(parse(secured, lambda: trusting(None, insecure=True)), 30) == ""


async def test_a_unix_socket_is_reached_as_our_log_names_it(nursery, tmp_path):
    server = await nursery.start(serve, Config(bind=[f"unix:{tmp_path}/echo"]))
    assert await quick(parsed(server.urls[0]), 30) == ""


async def test_a_peer_that_is_silent_in_tls_is_left_at_the_deadline(nursery, autojump_clock):
    async def keep_silent(_stream: trio.abc.Stream) -> None:
        await trio.sleep_forever()

    listeners = await nursery.start(trio.serve_tcp, keep_silent, 0)
    port = listeners[0].socket.getsockname()[1]
    silent = Endpoint("", trusting(None, insecure=True), host="127.0.0.1", port=port)
    with pytest.raises(UnreachableError, match="in time"):
        await quick(silent, 5)
