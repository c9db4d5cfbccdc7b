"""Real servers from PyPI, held against what was measured of them otherwise."""

from __future__ import annotations

import pytest

from echo_service.check.judge import Verdict

pytestmark = pytest.mark.peers

INVALID = (0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535)


@pytest.fixture(scope="module")
def graded():
    """What becomes of each check at a peer; each peer is graded once."""
    from benchmarks import check

    known = {}

    def grade(name: str):
        if name not in known:
            results = check.grade(check.PEERS[name][0])
            known[name] = {each.check.name: each.judgement for each in results}
        return known[name]

    return grade


def closing(judgements) -> dict[str, Verdict]:
    return {name: each.verdict for name, each in judgements.items() if name.startswith("closing.")}


def test_ours_passes_every_check(graded):
    assert {each.verdict for each in graded("echo-service").values()} == {Verdict.PASS}


def test_websockets_passes_all_of_closing(graded):
    assert set(closing(graded("websockets")).values()) == {Verdict.PASS}


@pytest.mark.parametrize("code", INVALID)
def test_tornado_echoes_a_code_that_must_not_be_sent(graded, code: int):
    judgement = graded("tornado")[f"closing.code-{code}"]
    assert judgement.verdict is Verdict.FAIL
    assert judgement.observed == f"Close {code}"


def test_aiohttp_answers_1006_with_1000(graded):
    judgement = graded("aiohttp")["closing.code-1006"]
    assert judgement[:2] == (Verdict.FAIL, "Close 1000")


@pytest.mark.parametrize("name", ["trio-websocket", "hypercorn", "uvicorn"])
def test_a_server_on_wsproto_drops_tcp_on_an_invalid_code(graded, name: str):
    for code in INVALID:
        judgement = graded(name)[f"closing.code-{code}"]
        assert judgement[:2] == (Verdict.NON_STRICT, "TCP closed"), code


def test_picows_echoes_the_codes_that_it_does_not_know(graded):
    found = closing(graded("picows"))
    assert found["closing.code-0"] is Verdict.FAIL
    assert found["closing.code-65535"] is Verdict.FAIL
    assert found["closing.code-1000"] is Verdict.PASS


@pytest.mark.parametrize("name", ["picows", "trio-websocket"])
def test_without_compression_its_checks_are_skipped(graded, name: str):
    found = {k: v.verdict for k, v in graded(name).items() if k.startswith("deflate.")}
    assert set(found.values()) == {Verdict.SKIPPED}


def test_aiohttp_and_tornado_take_a_frame_without_a_mask(graded):
    for name in ("aiohttp", "tornado"):
        assert graded(name)["framing.mask-none"].verdict is Verdict.FAIL


def test_a_frame_after_the_request_ends_hypercorn(graded):
    judgement = graded("hypercorn")["handshake.pipelined"]
    assert judgement.verdict is Verdict.FAIL
    assert "no new one is taken" in judgement.why
