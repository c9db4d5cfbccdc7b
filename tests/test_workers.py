"""Several processes at one service, for real: what the parent does for them."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
from contextlib import suppress
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest
import trio

from echo_service import Config, ConfigError, serve, workers
from tests import wire
from tests.conftest import Program, eventually

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.usefixtures("in_time")


@pytest.fixture
def service(program, connect):
    """Start the command with two workers and a second address; returns what is known of it."""

    async def start(*arguments: str, **more: object) -> Several:
        words = ["serve", "--workers=2", "--admin-bind=127.0.0.1:0", "--log-format=json"]
        if not any(each.startswith("--bind") for each in arguments):
            words.append("--bind=127.0.0.1:0")
        running = await program(*words, *arguments, **more)
        several = Several(running, connect)
        for _ in range(2):
            await several.started()
        several.url = await running.url()
        line = json.loads(await running.line("http://"))
        several.admin = line["url"]
        return several

    return start


class Several:
    """A running command with workers."""

    url: str
    admin: str

    def __init__(self, running: Program, connect: Callable) -> None:
        self.running = running
        self.process = running.process
        self.pids: dict[int, int] = {}
        self._connect = connect

    async def started(self) -> int:
        """Wait for the next start of a worker; returns its place."""
        line = json.loads(await self.running.line("worker.started"))
        self.pids[line["worker"]] = line["pid"]
        return line["worker"]

    async def connect(self) -> wire.Client:
        return await self._connect(self.url)

    async def open(self, target: str = "/") -> wire.Client:
        client = await self._connect(self.url)
        await client.open(target)
        return client

    async def ask(self, target: str) -> tuple[int, str]:
        client = await self._connect(self.admin)
        await client.send(f"GET {target} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
        return wire.status(await client.head()), (await client.rest()).decode()

    async def until_ready_is(self, status: int) -> None:
        while (await self.ask("/readyz"))[0] != status:  # noqa: ASYNC110 - nothing tells of it
            await trio.sleep(0.05)

    async def metrics(self, wanted: dict[str, float]) -> None:
        """Wait until the metrics have these values: workers report once a second."""
        while True:
            body = (await self.ask("/metrics"))[1]
            found = dict(re.findall(r"^(\S+) (\S+)$", body, re.MULTILINE))
            if all(float(found.get(name, -1)) == value for name, value in wanted.items()):
                return
            await trio.sleep(0.05)

    async def settled(self, name: str) -> float:
        """A metric's value, once two reports have brought no other."""
        seen = -1.0
        while True:
            body = (await self.ask("/metrics"))[1]
            now = float(dict(re.findall(r"^(\S+) (\S+)$", body, re.MULTILINE))[name])
            if now == seen:
                return now
            seen = now
            await trio.sleep(2.2)

    async def on_each(self) -> dict[int, wire.Client]:
        """An open connection on each of the workers, by its place."""
        found: dict[int, wire.Client] = {}
        for number in range(1000):
            if len(found) == 2:
                break
            client = await self.open(f"/{number}")
            line = json.loads(await self.running.line(f'"/{number}"'))
            if line["worker"] in found:
                await client.stream.aclose()
            else:
                found[line["worker"]] = client
        return found


TEXTS = 'echo_service_messages_total{type="text"}'


async def test_connections_spread_and_the_counts_are_added_up(service):
    running = await service()
    clients = await running.on_each()
    for client in clients.values():
        await client.echo()
    await running.metrics({TEXTS: 2, "echo_service_connections": 2})


async def test_only_the_parent_tells_that_the_service_listens_and_drains(service):
    running = await service()
    client = await running.open()
    running.process.terminate()
    assert wire.codes(wire_close(await client.frame())) == [1001]
    await client.send(wire.close(1001))
    await client.stream.aclose()
    assert await running.running.ends() == 0
    lines = [json.loads(line) for line in running.running.lines]
    events = [line["event"] for line in lines]
    for event in ("server.draining", "server.stopped"):
        assert events.count(event) == 1
    assert events.count("server.listening") == 2
    ended = [line for line in lines if line["event"] == "worker.exited"]
    assert [line["status"] for line in ended] == [0, 0]
    (closed,) = [line for line in lines if line["event"] == "connection.closed"]
    assert closed["worker"] in (0, 1)


def wire_close(frame: wire.Frame) -> bytes:
    return bytes([0x80 | frame.opcode, len(frame.payload)]) + frame.payload


async def test_a_killed_worker_is_back_and_the_others_notice_nothing(service):
    running = await service()
    clients = await running.on_each()
    for client in clients.values():
        await client.echo()
    await running.metrics({TEXTS: 2})
    os.kill(running.pids[0], signal.SIGKILL)
    line = json.loads(await running.running.line("worker.exited"))
    assert (line["worker"], line["status"], line["level"]) == (0, "SIGKILL", "error")
    assert await running.started() == 0
    await clients[1].echo()
    with suppress(trio.BrokenResourceError):
        assert await clients[0].rest() == b""
    assert set(await running.on_each()) == {0, 1}
    # Nothing that was reported is lost with the worker, not even who was connected.
    cut_off = 'echo_service_closes_total{ending="cancelled",received="1006",sent="none"}'
    await running.metrics({TEXTS: 3, cut_off: 1})
    assert (await running.ask("/readyz"))[0] == 200


async def test_metrics_are_what_the_clients_counted_under_load_and_a_killed_worker(service):
    running = await service()
    counted = {0: 0, 1: 0}

    async def load(place: int, client: wire.Client, messages: int) -> None:
        for _ in range(messages):
            await client.echo(b"1234567890")
            counted[place] += 1

    clients = await running.on_each()
    async with trio.open_nursery() as nursery:
        for place, client in clients.items():
            nursery.start_soon(load, place, client, 500)
    await running.metrics({TEXTS: 1000, "echo_service_received_bytes_total": 10_000})

    async def load_to_the_end() -> None:
        with suppress(trio.BrokenResourceError, EOFError):
            await load(0, clients[0], 10**9)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(load_to_the_end)
        await eventually(lambda: counted[0] > 600)
        os.kill(running.pids[0], signal.SIGKILL)
    await running.started()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(load, 1, clients[1], 500)
    survived = await running.settled(TEXTS)
    # What the killed one had not reported is all that may be missing.
    assert 500 + counted[1] <= survived <= counted[0] + counted[1]

    await load(1, clients[1], 100)
    await running.metrics({TEXTS: survived + 100})


async def test_nobody_is_refused_while_workers_are_started_again(service):
    running = await service()
    for pid in running.pids.values():
        os.kill(pid, signal.SIGKILL)
    for _ in range(20):
        client = await running.open()
        await client.echo()
        await client.stream.aclose()


async def test_a_signal_without_a_name_is_told_by_its_number(service):
    running = await service()
    os.kill(running.pids[0], 40)
    line = json.loads(await running.running.line("worker.exited"))
    assert line["status"] == "signal 40"
    assert await running.started() == 0


async def test_a_worker_that_can_not_start_is_no_traceback_and_the_service_not_ready(
    service, certificate
):
    files = certificate()
    arguments = [f"--tls-cert={files['tls_cert']}", f"--tls-key={files['tls_key']}"]
    running = await service(*arguments)
    os.unlink(files["tls_key"])
    os.kill(running.pids[0], signal.SIGKILL)
    line = json.loads(await running.running.line("worker.failed"))
    assert (line["worker"], line["level"]) == (0, "error")
    assert "PEM files" in line["error"]
    assert (await running.ask("/readyz"))[0] == 503


async def test_a_service_whose_workers_are_stuck_is_not_ready(service):
    running = await service()
    for pid in running.pids.values():
        os.kill(pid, signal.SIGSTOP)
    await running.until_ready_is(503)
    for pid in running.pids.values():
        os.kill(pid, signal.SIGCONT)
    await running.until_ready_is(200)


async def test_options_longer_than_a_socket_holds_reach_the_workers(service):
    origins = [f"--allow-origin=https://{number:070}.example" for number in range(3000)]
    running = await service(*origins)
    await running.open()


@pytest.mark.parametrize("workers", [1, 2])
async def test_signals_that_come_too_fast_end_it_all_the_same(program, workers):
    running = await program("serve", f"--workers={workers}", "--bind=127.0.0.1:0")
    await running.url()
    for _ in range(8):
        with suppress(ProcessLookupError):
            running.process.send_signal(signal.SIGTERM)
        await trio.sleep(0.005)
    assert await running.ends() in (0, 1)


async def test_cpu_time_does_not_fall_when_a_worker_ends(service):
    running = await service()

    async def cpu() -> float:
        body = (await running.ask("/metrics"))[1]
        return float(re.search(r"^process_cpu_seconds_total (\S+)$", body, re.MULTILINE)[1])

    before = await cpu()
    os.kill(running.pids[0], signal.SIGKILL)
    await running.started()
    assert await cpu() >= before


async def test_the_second_signal_ends_all_at_once(service):
    running = await service()
    client = await running.open()
    running.process.terminate()
    await client.frame()
    running.process.terminate()
    assert await running.running.ends() == 1
    await gone(running.pids.values())


async def gone(pids) -> None:
    await eventually(lambda: not any(os.path.exists(f"/proc/{pid}") for pid in pids))


async def test_workers_drain_when_their_parent_is_gone(service):
    running = await service()
    client = await running.open()
    running.process.kill()
    assert wire.codes(wire_close(await client.frame())) == [1001]
    await client.send(wire.close(1001))
    await client.stream.aclose()
    await gone(running.pids.values())


async def test_a_worker_that_is_told_to_end_drains_and_is_replaced(service):
    """Who comes meanwhile is for the next one, and not refused."""
    running = await service()
    clients = await running.on_each()
    os.kill(running.pids[0], signal.SIGTERM)
    assert (await clients[0].frame()).opcode == wire.CLOSE
    others = [await running.connect() for _ in range(20)]
    for other in others:
        await other.send(wire.request("/"))
    await clients[0].stream.aclose()
    for other in others:
        await other.opened()
    line = json.loads(await running.running.line("worker.exited"))
    assert (line["worker"], line["status"]) == (0, 0)
    assert await running.started() == 0
    await clients[1].echo()


async def test_a_signal_to_the_whole_group_drains_once(service):
    """As a service manager sends it that knows no main process."""
    running = await service()
    clients = await running.on_each()
    for pid in [*running.pids.values(), running.process.pid]:
        os.kill(pid, signal.SIGTERM)
    for client in clients.values():
        assert (await client.frame()).opcode == wire.CLOSE
        await client.send(wire.close(1001))
        await client.stream.aclose()
    assert await running.running.ends() == 0


async def test_a_signal_to_all_before_they_have_learnt_to_obey_it_is_a_drain(program):
    """Nobody was connected: what a worker leaves is nothing."""
    running = await program("serve", "--workers=2", "--bind=127.0.0.1:0", "--log-format=json")
    for _ in range(2):
        os.kill(json.loads(await running.line("worker.started"))["pid"], signal.SIGTERM)
    os.kill(running.process.pid, signal.SIGTERM)
    assert await running.ends() == 0


async def test_one_that_can_not_be_told_keeps_no_other_from_being_told(autojump_clock):
    told = trio.Event()

    async def tell() -> None:
        told.set()

    several = workers.Workers(2, Config(drain_timeout=10), [])
    several._workers[0].leave = trio.sleep_forever
    several._workers[1].leave = tell
    async with trio.open_nursery() as nursery:
        nursery.start_soon(several.drain)
        with trio.fail_after(1):
            await told.wait()


async def test_a_worker_that_says_nothing_is_killed(monkeypatch, nursery, logged):
    """In this process, with less patience than a minute."""

    def events():
        return [line.event for line in logged()]

    monkeypatch.setattr(workers, "SILENCE", 1.5)
    nursery.start_soon(partial(workers.run, 1, Config(bind=["127.0.0.1:0"])))
    await eventually(lambda: "server.listening" in events())
    pid = next(line.fields["pid"] for line in logged() if line.event == "worker.started")
    os.kill(pid, signal.SIGSTOP)
    await eventually(lambda: "worker.exited" in events())
    assert "worker.hung" in events()
    nursery.cancel_scope.cancel()


async def test_certificates_are_read_again_by_all(service, certificate):
    files = certificate()
    arguments = [f"--tls-cert={files['tls_cert']}", f"--tls-key={files['tls_key']}"]
    running = await service(*arguments)
    running.process.send_signal(signal.SIGHUP)
    seen = {json.loads(await running.running.line("certificate.reloaded"))["worker"]}
    seen.add(json.loads(await running.running.line("certificate.reloaded"))["worker"])
    assert seen == {0, 1}
    os.unlink(files["tls_key"])
    running.process.send_signal(signal.SIGHUP)
    for _ in range(2):
        line = json.loads(await running.running.line("certificate.kept"))
        assert line["level"] == "error"


async def test_unix_and_passed_sockets_are_shared(service, connect, tmp_path):
    running = await service(f"--bind=unix:{tmp_path}/echo")
    assert set(await running.on_each()) <= {0, 1}
    client = await running.open()
    await client.echo()
    running.process.terminate()
    assert (await client.frame()).opcode == wire.CLOSE


async def test_an_address_in_use_is_refused_by_name(program):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        running = await program("serve", "--workers=2", f"--bind=127.0.0.1:{port}")
        assert await running.ends() == 1
    (line,) = running.lines
    assert f"127.0.0.1:{port}" in line


async def test_an_address_of_another_service_with_workers_is_in_use_too(service, program):
    running = await service()
    address = running.url.removeprefix("ws://")
    other = await program("serve", "--workers=2", f"--bind={address}")
    assert await other.ends() == 1
    assert address in other.lines[0]


@pytest.mark.skipif(shutil.which("taskset") is None, reason="taskset is not here")
async def test_auto_is_one_process_where_there_is_one_cpu(program, connect):
    one = f'exec taskset --cpu-list {min(os.sched_getaffinity(0))} "$@"'
    running = await program("serve", "--workers=auto", "--bind=127.0.0.1:0", shell=one)
    client = await connect(await running.url())
    await client.open()
    await client.echo()
    await client.stream.aclose()
    running.process.terminate()
    assert await running.ends() == 0
    assert "worker" not in "".join(running.lines)


async def test_a_program_that_embeds_the_service_is_one_process():
    with pytest.raises(ConfigError, match="workers"):
        await serve(Config(bind=["127.0.0.1:0"], workers=2))


class Failing(workers.Worker):
    """A worker whose processes end at once."""

    def __init__(self) -> None:
        super().__init__(0, Config(), [])
        self.starts: list[float] = []
        self.life = 0.0

    async def _run(self, _: trio.Event) -> int:
        self.starts.append(trio.current_time())
        await trio.sleep(self.life)
        return 1


async def test_the_pause_before_a_restart_grows_and_is_short_again_after_a_life(autojump_clock):
    worker, leaving = Failing(), trio.Event()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(worker.keep, leaving)
        await trio.sleep(42)
        worker.life = 11
        await trio.sleep(12)
        leaving.set()
    pauses = [after - before for before, after in pairwise(worker.starts)]
    assert pauses == pytest.approx([0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 10, 10, 10, 11.1])
