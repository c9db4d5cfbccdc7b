"""Prometheus metrics: counts of one process or of several, in the text that Prometheus reads.

What is counted are plain numbers (`counts`), so that an echo pays for no metric object;
they are made metrics when somebody asks.  Several processes need none of the files of
`prometheus_client`'s multiprocess mode, which a read-only container has no place for and a
killed process leaves behind: their numbers are added up before they come here.
"""

from __future__ import annotations

from functools import partial
from itertools import accumulate
from typing import TYPE_CHECKING, Any, Final

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from echo_service.endpoints import Answer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from echo_service.counts import Counts, Histogram


class Metrics:
    """What `/metrics` answers.

    ``counts`` tells the numbers, ``pids`` our processes, ``dead`` the seconds of CPU time of
    those that have ended.
    """

    def __init__(
        self,
        counts: Callable[[], Counts],
        pids: Callable[[], Sequence[int]],
        dead: Callable[[], float],
    ) -> None:
        self._registry = CollectorRegistry()
        self._registry.register(_Counted(counts))
        self._registry.register(_Processes(pids, dead))

    def answer(self) -> Answer:
        """The metrics as they are now."""
        text = generate_latest(self._registry).decode()
        return Answer(200, [("Content-Type", CONTENT_TYPE_LATEST)], text)


class _Counted(Collector):
    """What the service has counted."""

    def __init__(self, counts: Callable[[], Counts]) -> None:
        self._counts = counts

    def collect(self) -> Iterator[Metric]:
        """Every metric, with the numbers as they are now."""
        counts = self._counts()
        yield GaugeMetricFamily(
            "echo_service_connections", "WebSocket connections open now.", counts.connections
        )
        yield _counter("connections", "WebSocket connections opened.", counts.connections_total)
        yield _counters(
            "handshakes_refused",
            "Requests refused, by HTTP status.",
            {(str(status),): count for status, count in counts.refused.items()},
            ["status"],
        )
        yield _counters(
            "messages",
            "Messages echoed, by type.",
            {("text",): counts.texts, ("binary",): counts.binaries},
            ["type"],
        )
        yield _counter(
            "received_bytes", "Payload bytes of the messages echoed, inflated.", counts.octets
        )
        yield _counter("sent_bytes", "Payload bytes of their echoes, inflated.", counts.octets)
        yield _counters(
            "closes",
            "WebSocket connections ended, by the ending and the close codes.",
            counts.closes,
            ["ending", "received", "sent"],
        )
        yield _histogram(
            "connection_duration_seconds",
            "From accept to the end of a WebSocket connection.",
            counts.durations,
        )
        yield _counter(
            "stall_seconds", "Time that echoes waited for their peers to take them.", counts.stalled
        )
        yield _histogram(
            "ping_rtt_seconds", "From a ping to the first bytes after it.", counts.round_trips
        )


def _counter(name: str, words: str, value: float) -> Metric:
    return CounterMetricFamily(f"echo_service_{name}", words, value)


def _counters(name: str, words: str, values: Mapping[Any, int], labels: list[str]) -> Metric:
    metric = CounterMetricFamily(f"echo_service_{name}", words, labels=labels)
    for each, value in sorted(values.items()):
        metric.add_metric(each, value)
    return metric


def _histogram(name: str, words: str, histogram: Histogram) -> Metric:
    bounds = [*map(floatToGoString, histogram.bounds), "+Inf"]
    buckets = list(zip(bounds, accumulate(histogram.buckets), strict=True))
    return HistogramMetricFamily(
        f"echo_service_{name}", words, buckets=buckets, sum_value=histogram.total
    )


_CHOICES: Final[dict[str, Callable[[list[float]], float]]] = {
    "process_start_time_seconds": min,
    "process_open_fds": max,  # each has a limit of its own
    "process_max_fds": max,
}


class _Processes(Collector):
    """What the client library tells of a process, for all of ours."""

    def __init__(self, pids: Callable[[], Sequence[int]], dead: Callable[[], float]) -> None:
        self._pids = pids
        self._dead = dead

    def collect(self) -> Iterable[Metric]:
        """Sums; of the start times the first, of the files those of the fullest process."""
        found: dict[str, Metric] = {}
        for pid in self._pids():
            for metric in ProcessCollector(pid=partial(int, pid), registry=None).collect():
                if metric.name in found:
                    _merge(found[metric.name], metric, _CHOICES.get(metric.name, sum))
                else:
                    found[metric.name] = metric
        if "process_cpu_seconds" in found:
            seconds = CounterMetricFamily("process_cpu_seconds", "", self._dead())
            _merge(found["process_cpu_seconds"], seconds, sum)
        return found.values()


def _merge(mine: Metric, other: Metric, choose: Callable[[list[float]], float]) -> None:
    mine.samples = [
        one._replace(value=choose([one.value, more.value]))
        for one, more in zip(mine.samples, other.samples, strict=True)
    ]
