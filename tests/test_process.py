"""One process that serves: signals, and what comes of them."""

from __future__ import annotations

import os
import signal

import pytest
import trio

from echo_service import Config, Server, process, serve
from tests import wire
from tests.conftest import until
from tests.wire import CLOSE

pytestmark = pytest.mark.usefixtures("in_time")


@pytest.fixture
async def running(nursery: trio.Nursery, monkeypatch):
    """Run the command's own part in this process: its server, and its exit code in the end."""

    class Running:
        server: Server
        code: int | None = None

    state, started = Running(), trio.Event()

    async def serve_and_tell(config: Config, *, task_status: trio.TaskStatus) -> None:
        class Told(trio.TaskStatus):
            def started(self, value: Server) -> None:
                state.server = value
                task_status.started(value)
                started.set()

        await serve(config, task_status=Told())

    monkeypatch.setattr(process, "serve", serve_and_tell)

    async def run(**options: object) -> Running:
        async def main() -> None:
            state.code = await process.run(Config(bind=["127.0.0.1:0"], **options))

        nursery.start_soon(main)
        await started.wait()
        return state

    return run


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_first_signal_drains_and_second_ends_at_once(
    running, connect, number: signal.Signals
):
    service = await running()
    client = await connect(service.server)
    await client.open()
    signal.raise_signal(number)
    got = await client.frame()
    assert (got.opcode, got.payload[:2]) == (CLOSE, b"\x03\xe9")
    assert service.code is None
    signal.raise_signal(number)
    await until(lambda: service.code is not None)
    assert service.code == 1
    await client.rest()


async def test_drain_ends_with_exit_code_0(running, connect):
    service = await running()
    client = await connect(service.server)
    await client.open()
    signal.raise_signal(signal.SIGTERM)
    await client.frame()
    await client.send(wire.close(1001))
    await client.stream.aclose()
    await until(lambda: service.code is not None)
    assert service.code == 0


async def test_hangup_reads_the_certificate_again(running, certificate, logged):
    files = certificate()
    service = await running(**files)
    before = service.server._certificate.context
    signal.raise_signal(signal.SIGHUP)
    await until(lambda: logged()[-1].event == "certificate.reloaded")
    assert service.server._certificate.context is not before

    before = service.server._certificate.context
    os.unlink(files["tls_key"])
    signal.raise_signal(signal.SIGHUP)
    await until(lambda: logged()[-1].event == "certificate.kept")
    assert logged()[-1].level == "ERROR"
    assert "PEM files" in str(logged()[-1].fields["error"])
    assert service.server._certificate.context is before


async def test_hangup_without_a_certificate_changes_nothing(running, connect, logged):
    service = await running()
    client = await connect(service.server)
    await client.open()
    signal.raise_signal(signal.SIGHUP)
    await until(lambda: logged()[-1].event == "reload.ignored")
    await client.echo()
