"""wss:// over real sockets, with certificates made for the test."""

from __future__ import annotations

import socket
import ssl
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import trio
from trio.testing import wait_all_tasks_blocked
from websockets.sync.client import connect as websocket

from echo_service import Config, ConfigError, Ending, Server, serve, tls
from echo_service.testing import running
from tests import wire
from tests.conftest import until
from tests.wire import BINARY, CLOSE, PING, TEXT, frame

if TYPE_CHECKING:
    from collections.abc import Callable

    import trustme

pytestmark = pytest.mark.usefixtures("in_time")


@pytest.fixture
def trusting(authority: trustme.CA) -> ssl.SSLContext:
    """What a client needs to trust the server."""
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


@pytest.fixture
async def secure(nursery: trio.Nursery, certificate) -> Server:
    """A server that speaks TLS."""
    return await nursery.start(serve, Config(bind=["127.0.0.1:0"], **certificate()))


@pytest.fixture
async def connect_securely(connect, trusting):
    """Connect to a server's first address by TLS."""

    async def connect_securely(server: Server) -> wire.Client:
        below = (await connect(server)).stream
        stream = trio.SSLStream(below, trusting, server_hostname="localhost")
        await stream.do_handshake()
        return wire.Client(stream)

    return connect_securely


def certificate_of(client: wire.Client) -> bytes:
    return client.stream.getpeercert(binary_form=True)


def of_file(path: str) -> bytes:
    """The first certificate in the file, as it goes over the wire."""
    first, end, _ = Path(path).read_text().partition("-----END CERTIFICATE-----\n")
    return ssl.PEM_cert_to_DER_cert(first + end)


async def test_echo(secure, connect_securely):
    (url,) = secure.urls
    assert url.startswith("wss://127.0.0.1:")
    client = await connect_securely(secure)
    await client.open()
    await client.echo()
    await client.echo(bytes(200_000), wire.BINARY)


@pytest.mark.parametrize("offered, chosen", [([], None), (["h2", "http/1.1"], "http/1.1")])
async def test_protocol_is_http_1_1(
    secure, connect_securely, trusting, offered: list[str], chosen: str | None
):
    if offered:
        trusting.set_alpn_protocols(offered)
    client = await connect_securely(secure)
    assert client.stream.selected_alpn_protocol() == chosen
    await client.open()


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_versions_of_tls(secure, connect_securely, trusting, version: ssl.TLSVersion):
    trusting.minimum_version = trusting.maximum_version = version
    client = await connect_securely(secure)
    await client.open()
    await client.echo()


def test_client_that_is_not_ours(certificate, trusting):
    with running(**certificate()) as server:
        url = server.urls[0].replace("127.0.0.1", "localhost")
        with websocket(url, ssl=trusting) as client:
            client.send("hello")
            assert client.recv() == "hello"


@pytest.mark.parametrize("after", [b"", frame(TEXT, b"too late") * 1000], ids=["", "and more"])
async def test_close_notify_and_end_of_stream_follow_the_close(
    secure, connect_securely, after: bytes
):
    """And no reset, although there is something unread."""
    client = await connect_securely(secure)
    await client.open()
    await client.send(wire.close(1000) + after)
    # Without a close_notify this would be a BrokenResourceError, by trio's default.
    assert await client.rest() == b"\x88\x02\x03\xe8"
    assert await client.stream.transport_stream.receive_some() == b""


async def test_close_notify_of_a_client_is_answered_with_ours(secure, connect_securely):
    client = await connect_securely(secure)
    await client.open()
    below, rest = await client.stream.unwrap()  # fails where a FIN comes instead
    assert (await below.receive_some(), rest) == (b"", b"")


class Tail:
    """What a client has enciphered, to be sent in one segment."""

    def __init__(self, client: wire.Client) -> None:
        self._stream = client.stream
        self.segment = b""

    def add(self, data: bytes) -> None:
        self._stream._ssl_object.write(data)
        self.segment += self._stream._outgoing.read()

    def end(self) -> None:
        with suppress(ssl.SSLWantReadError):
            self._stream._ssl_object.unwrap()
        self.segment += self._stream._outgoing.read()


async def test_many_records_in_a_segment_leave_the_others_their_turn(
    secure, connect_securely, monkeypatch
):
    """All are deciphered at once, and then the session judges how much is done in a turn."""
    received = []
    receive = tls.TLSTransport.receive

    async def noted(self):
        received.append(await receive(self))
        return received[-1]

    monkeypatch.setattr(tls.TLSTransport, "receive", noted)
    client = await connect_securely(secure)
    await client.open()
    tail = Tail(client)
    for _ in range(100):
        tail.add(frame(TEXT, b"hello"))
    await client.stream.transport_stream.send_all(tail.segment)
    assert [await client.frame() for _ in range(100)] == 100 * [wire.Frame(TEXT, b"hello")]
    assert received[1:] == [100 * frame(TEXT, b"hello")]


async def test_what_came_before_the_end_in_a_segment_is_echoed(secure, connect_securely):
    client = await connect_securely(secure)
    await client.open()
    tail = Tail(client)
    tail.add(frame(TEXT, b"hello"))
    tail.end()
    await client.stream.transport_stream.send_all(tail.segment)
    await until(lambda: secure.statistics().connections == 0)
    assert (secure.statistics().texts, secure.statistics().endings) == (1, {Ending.VANISHED: 1})


class Dripping(trio.abc.SendStream):
    """Sends a byte at a time, once it ``drips``, with time going by after each."""

    drips = None

    def __init__(self, below: trio.SocketStream) -> None:
        self._below = below

    async def send_all(self, data: bytes) -> None:
        for piece in [data] if self.drips is None else [bytes([byte]) for byte in data]:
            await self._below.send_all(piece)
            if self.drips is not None:
                await wait_all_tasks_blocked(0.01)
                self.drips()

    async def wait_send_all_might_not_block(self) -> None:
        await self._below.wait_send_all_might_not_block()

    async def aclose(self) -> None:
        await self._below.aclose()


async def test_a_part_of_a_record_is_a_sign_of_life(
    nursery, certificate, connect, trusting, mock_clock
):
    settings = Config(bind=["127.0.0.1:0"], ping_interval=20, ping_timeout=20, **certificate())
    plain = (await connect(await nursery.start(serve, settings))).stream
    dripping = Dripping(plain)
    below = trio.StapledStream(dripping, plain)
    client = wire.Client(trio.SSLStream(below, trusting, server_hostname="localhost"))
    await client.open()
    dripping.drips = lambda: mock_clock.jump(15)
    await client.echo()


async def test_close_notify_is_sent_when_the_close_timeout_ends_a_connection(
    nursery, certificate, connect_securely, mock_clock
):
    settings = Config(bind=["127.0.0.1:0"], ping_interval=20, ping_timeout=20, **certificate())
    client = await connect_securely(await nursery.start(serve, settings))
    await client.open()
    for _ in range(2):
        await wait_all_tasks_blocked(0.01)
        mock_clock.jump(20)
    assert (await client.frame()).opcode == PING
    assert (await client.frame()).payload[:2] == b"\x03\xf3"
    await wait_all_tasks_blocked(0.01)
    mock_clock.jump(5)
    assert await client.rest() == b"", "a bare FIN would be a BrokenResourceError"


async def test_a_message_of_many_records_comes_back_however_slowly_it_is_read(
    secure, connect_securely, nursery
):
    client = await connect_securely(secure)
    await client.open()
    payload = bytes(range(256)) * 32768
    nursery.start_soon(client.send, frame(BINARY, payload))
    await wait_all_tasks_blocked(0.05)
    echo = await client.frame()
    assert (echo.opcode, echo.payload == payload) == (BINARY, True)
    await client.echo()


async def test_tls_that_fails_is_told_at_debug(secure, connect, logged, caplog):
    caplog.set_level("DEBUG", "echo_service")
    client = await connect(secure)
    await client.send(b"GET / HTTP/1.1\r\n\r\n")
    assert await client.rest() == b""
    await until(lambda: logged()[-1].event == "handshake.abandoned")
    assert "HTTP_REQUEST" in str(logged()[-1].fields["cause"])


async def test_drain_awaits_the_closing_handshake(secure, connect_securely, nursery):
    client = await connect_securely(secure)
    await client.open()
    nursery.start_soon(secure.drain)
    got = await client.frame()
    assert (got.opcode, got.payload[:2]) == (CLOSE, b"\x03\xe9")
    await client.send(wire.close(1001))
    assert await client.rest() == b""
    await client.stream.aclose()
    await secure.drain()
    assert secure.statistics().received_codes == {1001: 1}


async def test_peer_gone_without_a_word_is_recorded_as_1006(secure, connect_securely, logged):
    client = await connect_securely(secure)
    await client.open()
    await client.stream.transport_stream.aclose()
    await until(lambda: secure.statistics().endings)
    assert secure.statistics().endings == {Ending.VANISHED: 1}
    assert secure.statistics().received_codes == {1006: 1}
    assert not [line for line in logged() if line.level == "ERROR"]


@pytest.mark.parametrize("sent", [b"", b"\x16", b"\x16\x03\x01\x02\x00\x01\x00"])
async def test_a_reset_in_the_tls_handshake_touches_no_other(
    secure, connect, connect_securely, logged, sent: bytes
):
    other, client = await connect_securely(secure), await connect(secure)
    await other.open()
    if sent:
        await client.send(sent)
    await until(lambda: len(secure._acceptor.connections) == 2)
    client.stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    await client.stream.aclose()
    await until(lambda: len(secure._acceptor.connections) == 1)
    await other.echo()
    assert not [line for line in logged() if line.level == "ERROR"]


@pytest.mark.parametrize("scheme", ["ws", "wss"])
@pytest.mark.parametrize(
    "sent",
    [
        b"GET / HTTP/1.1\r\nHost: echo.example\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(600),
        bytes(range(256)) * 40,
        b"\x80\x2e\x01\x00\x02",
    ],
    ids=["HTTP", "client hello", "garbage", "SSL 2"],
)
async def test_what_does_not_belong_on_the_port_leaves_the_service_alive(
    nursery, connect, connect_securely, certificate, logged, *, scheme: str, sent: bytes
):
    options = certificate() if scheme == "wss" else {}
    server: Server = await nursery.start(serve, Config(bind=["127.0.0.1:0"], **options))
    connect_well = connect_securely if scheme == "wss" else connect
    other = await connect_well(server)
    await other.open()
    client = await connect(server)
    await client.send(sent)
    await client.stream.send_eof()
    await client.rest()
    await client.stream.aclose()
    await until(lambda: len(server._acceptor.connections) == 1)
    await other.echo()
    assert not [line for line in logged() if line.level == "ERROR"]


async def test_silent_client_is_let_go_at_the_handshake_timeout(
    nursery, connect, connect_securely, certificate, mock_clock
):
    config = Config(bind=["127.0.0.1:0"], handshake_timeout=3, **certificate())
    server: Server = await nursery.start(serve, config)
    other = await connect_securely(server)
    await other.open()
    silent, begun = await connect(server), await connect(server)
    await begun.send(b"\x16\x03\x01")
    await until(lambda: len(server._acceptor.connections) == 3)
    mock_clock.jump(3)
    assert await silent.rest() == await begun.rest() == b""
    await other.echo()


# Certificates


async def test_reload_is_for_the_connections_to_come(
    nursery, connect_securely, certificate: Callable[[], dict[str, str]]
):
    files = certificate()
    old = of_file(files["tls_cert"])
    server: Server = await nursery.start(serve, Config(bind=["127.0.0.1:0"], **files))
    before = await connect_securely(server)
    await before.open()
    certificate()
    assert certificate_of(await connect_securely(server)) == old
    server.reload()
    new = of_file(files["tls_cert"])
    assert certificate_of(await connect_securely(server)) == new != old
    await before.echo()


def remove(path: Path, _: object) -> None:
    path.unlink()


def overwrite(path: Path, _: object) -> None:
    path.write_text("nothing")


def leave_behind(path: Path, certificate: Callable[[], object]) -> None:
    """Replace all but this one."""
    before = path.read_bytes()
    certificate()
    path.write_bytes(before)


@pytest.mark.parametrize("file", ["tls_cert", "tls_key"])
@pytest.mark.parametrize("spoil", [remove, overwrite, leave_behind])
async def test_certificate_is_kept_where_the_new_one_is_unusable(
    nursery, connect_securely, certificate, spoil: Callable, file: str
):
    files = certificate()
    old = of_file(files["tls_cert"])
    server: Server = await nursery.start(serve, Config(bind=["127.0.0.1:0"], **files))
    spoil(Path(files[file]), certificate)
    with pytest.raises(ConfigError, match="PEM files of a certificate chain") as caught:
        server.reload()
    assert files["tls_cert"] in str(caught.value)
    assert certificate_of(await connect_securely(server)) == old


async def test_server_does_not_start_with_an_unusable_certificate(nursery, certificate):
    files = certificate()
    overwrite(Path(files["tls_key"]), certificate)
    with pytest.raises(ConfigError, match="PEM files"):
        await serve(Config(bind=["127.0.0.1:0"], **files))


def test_key_with_a_password_is_refused_without_asking_the_terminal(certificate):
    from cryptography.hazmat.primitives import serialization

    files = certificate()
    key = serialization.load_pem_private_key(Path(files["tls_key"]).read_bytes(), None)
    Path(files["tls_key"]).write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"secret"),
        )
    )
    with pytest.raises(ConfigError):
        tls.Certificate(files["tls_cert"], files["tls_key"])
