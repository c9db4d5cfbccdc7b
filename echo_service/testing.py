"""A running service for tests of clients that are not written with Trio."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

import trio

from echo_service.config import Config
from echo_service.server import Server, serve

if TYPE_CHECKING:
    from collections.abc import Iterator

    from echo_service.registry import Statistics


class RunningServer:
    """A server in another thread; what it offers may be called from any."""

    def __init__(self, server: Server, scope: trio.CancelScope) -> None:
        self._server = server
        self._scope = scope
        self._token = trio.lowlevel.current_trio_token()

    @property
    def urls(self) -> list[str]:
        """The addresses as bound, ``ws://127.0.0.1:41871`` or the like."""
        return self._server.urls

    def statistics(self) -> Statistics:
        """A frozen snapshot of what the server has counted; after its end too."""
        try:
            return trio.from_thread.run_sync(self._server.statistics, trio_token=self._token)
        except trio.RunFinishedError:  # so that nobody counts any more
            return self._server.statistics()

    def drain(self) -> None:
        """Stop gracefully, as SIGTERM does; returns when that is done."""
        trio.from_thread.run(self._server.drain, trio_token=self._token)

    def stop(self) -> None:
        """Stop at once, and end the thread, if it has not ended by itself."""
        with suppress(trio.RunFinishedError):
            trio.from_thread.run_sync(self._scope.cancel, trio_token=self._token)


class _Started(trio.TaskStatus[Server]):
    """Tells another thread that the server has started."""

    def __init__(self, future: Future[RunningServer], scope: trio.CancelScope) -> None:
        self._future = future
        self._scope = scope

    def started(self, value: Server | None = None) -> None:
        if value is not None:  # as it always is: the signature is Trio's
            self._future.set_result(RunningServer(value, self._scope))


async def _run(config: Config, future: Future[RunningServer]) -> None:
    """Serve, and stay after a drain, so that the statistics can still be asked for."""
    with trio.CancelScope() as scope:
        try:
            await serve(config, task_status=_Started(future, scope))
        except BaseException as error:
            if not future.done():
                future.set_exception(error)
            raise
        await trio.sleep_forever()


def options(**given: Any) -> Config:
    """The configuration of a server in a test: on a free port, unless told otherwise."""
    return Config(**{"bind": ["127.0.0.1:0"], **given})


@contextmanager
def running(**given: Any) -> Iterator[RunningServer]:
    """Run a server in a thread for as long as the block lasts; takes `Config`'s options.

    It listens on a free port of 127.0.0.1, unless ``bind`` says otherwise, and is stopped
    at once in the end.  Raises what starting or serving raised.
    """
    config = options(**given)
    future: Future[RunningServer] = Future()
    with ThreadPoolExecutor(1, "echo-service") as executor:
        thread = executor.submit(trio.run, _run, config, future)
        server = future.result()
        try:
            yield server
        finally:
            server.stop()
            thread.result()
