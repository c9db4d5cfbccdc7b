"""Plain HTTP: a request that is no opening handshake in, an answer out."""

from __future__ import annotations

import pytest

from echo_service import endpoints, page
from echo_service.endpoints import Answer
from echo_service.request import Refused, RequestReader

TEXT = ("Content-Type", "text/plain; charset=utf-8")


def plain(method, target):
    """A request without any sign of an upgrade."""
    head = f"{method} {target} HTTP/1.1\r\nHost: echo.example\r\n\r\n"
    return RequestReader().receive(head.encode("ascii"))


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize(
    "target, ready, expected",
    [
        ("/healthz", True, Answer(200, [TEXT], "ok\n")),
        ("/healthz", False, Answer(200, [TEXT], "ok\n")),
        ("/readyz", True, Answer(200, [TEXT], "ready\n")),
        ("/readyz", False, Answer(503, [TEXT], "not ready\n")),
        ("/readyz?from=probe", True, Answer(200, [TEXT], "ready\n")),
        ("http://echo.example/healthz", True, Answer(200, [TEXT], "ok\n")),
    ],
)
def test_health_and_readiness_are_told(method, target, ready, expected):
    assert endpoints.answer(plain(method, target), ready=ready) == expected


@pytest.mark.parametrize("target", ["/", "/?room=1", "http://echo.example"])
@pytest.mark.parametrize("ready", [True, False])
@pytest.mark.parametrize("controls", [True, False])
def test_the_root_is_the_page_for_browsers(target, ready, controls):
    expected = Answer(200, page.HEADERS, page.html(controls=controls))
    assert endpoints.answer(plain("GET", target), ready=ready, controls=controls) == expected


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize(
    "target",
    [
        "/chat",
        "/healthz/",
        "/healthz2",
        "/HEALTHZ",
        "//healthz",
        "/chat?/healthz",
        "/%68ealthz",
    ],
)
@pytest.mark.parametrize("ready", [True, False])
def test_every_other_path_wants_an_upgrade(method, target, ready):
    with pytest.raises(Refused) as caught:
        endpoints.answer(plain(method, target), ready=ready)
    assert caught.value.status == 426
    assert caught.value.headers == (("Upgrade", "websocket"),)


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "TRACE", "CONNECT", "get"])
@pytest.mark.parametrize("target", ["/", "/healthz", "/readyz", "/chat"])
def test_another_method_is_told_which_ones_there_are(method, target):
    with pytest.raises(Refused) as caught:
        endpoints.answer(plain(method, target), ready=True)
    assert caught.value.status == 405
    assert caught.value.headers == (("Allow", "GET, HEAD"),)


@pytest.mark.parametrize(
    "target, path",
    [
        (b"/", "/"),
        (b"/chat?room=1?", "/chat"),
        (b"?room=1", "/"),
        (b"http://echo.example", "/"),
        (b"HTTPS://echo.example:8443/chat", "/chat"),
        (b"http://echo.example?room=1", "/"),
        (b"/to/http://echo.example/chat", "/to/http://echo.example/chat"),
        (b"ws://echo.example/chat", "ws://echo.example/chat"),
        (b"*", "*"),
    ],
)
def test_the_path_of_a_target_is_without_its_host_and_query(target, path):
    assert endpoints.path(target) == path


def test_a_refusal_is_a_line_of_text_with_the_headers_of_its_status():
    refused = Refused(405, "a WebSocket begins with GET, not POST", ("Allow", "GET"))
    expected = Answer(405, [TEXT, ("Allow", "GET")], "a WebSocket begins with GET, not POST\n")
    assert endpoints.refusal(refused) == expected


def test_a_refusal_without_headers_has_only_its_type():
    assert endpoints.refusal(Refused(400, "why")) == Answer(400, [TEXT], "why\n")


METRICS = Answer(200, [TEXT], "the metrics")


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize(
    "target, ready, expected",
    [
        ("/metrics", False, METRICS),
        ("/metrics?name[]=up", True, METRICS),
        ("/healthz", False, Answer(200, [TEXT], "ok\n")),
        ("/readyz", True, Answer(200, [TEXT], "ready\n")),
        ("/readyz", False, Answer(503, [TEXT], "not ready\n")),
    ],
)
def test_the_second_address_has_metrics_and_health(method, target, ready, expected):
    request = plain(method, target)
    assert endpoints.answer_admin(request, ready=ready, metrics=lambda: METRICS) == expected


@pytest.mark.parametrize(
    "method, target, status",
    [("GET", "/", 404), ("GET", "/metrics/", 404), ("POST", "/metrics", 405)],
)
def test_the_second_address_has_nothing_else(method, target, status):
    with pytest.raises(Refused) as caught:
        endpoints.answer_admin(plain(method, target), ready=True, metrics=lambda: METRICS)
    assert caught.value.status == status
