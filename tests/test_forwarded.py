"""Whom proxies name as the client, and how far they are believed."""

from __future__ import annotations

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from echo_service import forwarded

PROXY = "127.0.0.1:5000"

TRUSTED = tuple(map(forwarded.trusted, ["127.0.0.0/8", "10.0.0.0/8", "fd00::/8"]))


def named(*headers: tuple[str, str], peer: str = PROXY, proxies=TRUSTED) -> str:
    pairs = [(name.lower().encode(), value.encode("latin-1")) for name, value in headers]
    return forwarded.client(peer, pairs, proxies)


def listed(*values: str, **options: str) -> str:
    return named(*[("X-Forwarded-For", value) for value in values], **options)


def described(*values: str, **options: str) -> str:
    return named(*[("Forwarded", value) for value in values], **options)


# Who is believed


@pytest.mark.parametrize(
    "peer, believed",
    [
        ("127.0.0.1:5000", True),
        ("127.255.255.255:5000", True),
        ("128.0.0.1:5000", False),
        ("[fd00::1]:5000", True),
        ("[fd00::1%eth0]:5000", True),
        ("[fe00::1]:5000", False),
        ("[::ffff:10.1.2.3]:5000", True),  # a socket for both kinds
        ("[::ffff:192.0.2.1]:5000", False),
        ("unix:", False),
        ("unix:@proxy", False),
        ("unknown", False),
    ],
)
@pytest.mark.parametrize("read", [listed, lambda value, peer: described(f"for={value}", peer=peer)])
def test_only_a_trusted_peer_is_believed(peer, believed, read):
    assert read("192.0.2.7", peer=peer) == ("192.0.2.7" if believed else peer)


@pytest.mark.parametrize("peer", ["unix:", "unix:/run/proxy", "unix:@proxy"])
def test_the_peers_of_unix_sockets_are_trusted_together(peer):
    assert listed("192.0.2.7", peer=peer, proxies=(forwarded.UNIX,)) == "192.0.2.7"
    assert listed("192.0.2.7", peer=PROXY, proxies=(forwarded.UNIX,)) == PROXY


def test_nobody_is_believed_where_nobody_is_trusted():
    assert listed("192.0.2.7", proxies=()) == PROXY


def test_a_peer_that_names_nobody_is_the_client():
    assert named() == PROXY
    assert named(("X-Real-IP", "192.0.2.7")) == PROXY


# How far


@pytest.mark.parametrize(
    "values, client",
    [
        (["192.0.2.7"], "192.0.2.7"),
        (["198.51.100.1, 192.0.2.7"], "192.0.2.7"),  # the client says that it is a proxy
        (["192.0.2.7, 10.0.0.1"], "192.0.2.7"),
        (["198.51.100.1, 192.0.2.7, 10.0.0.1, 10.0.0.2"], "192.0.2.7"),
        (["198.51.100.1,\t192.0.2.7 ,10.0.0.1"], "192.0.2.7"),
        (["198.51.100.1", "192.0.2.7", "10.0.0.1"], "192.0.2.7"),
        (["198.51.100.1, 192.0.2.7", "10.0.0.1, 10.0.0.2"], "192.0.2.7"),
        (["10.0.0.1, 10.0.0.2"], "10.0.0.1"),  # a client in the trusted network
        ([", ,192.0.2.7,, "], "192.0.2.7"),
        (["", ""], PROXY),
        (["nonsense, 192.0.2.7"], "192.0.2.7"),
        (["192.0.2.7, nonsense"], PROXY),
        (["192.0.2.7, nonsense, 10.0.0.1"], "10.0.0.1"),
        (["192.0.2.7", "nonsense", "10.0.0.1"], "10.0.0.1"),
        (["192.0.2.7, unknown"], "unknown"),
        (["192.0.2.7, _hidden, 10.0.0.1"], "_hidden"),
        (['192.0.2.7, "', "10.0.0.1"], "10.0.0.1"),
    ],
)
def test_the_list_is_read_from_its_end_up_to_whom_is_not_trusted(values, client):
    assert listed(*values) == client


def test_forwarded_is_read_in_the_same_way():
    lines = "for=198.51.100.1, for=192.0.2.7;proto=http", 'for=10.0.0.1, for="[fd00::1]:81"'
    assert described(*lines) == "192.0.2.7"
    assert described(lines[1]) == "10.0.0.1"
    assert described("for=192.0.2.7, for=10.0.0.1;for=10.0.0.1", lines[1]) == "10.0.0.1"


@pytest.mark.parametrize("value, client", [("for=192.0.2.7", "192.0.2.7"), ("odd", PROXY)])
def test_forwarded_wins_over_x_forwarded_for_even_malformed(value, client):
    both = [("X-Forwarded-For", "198.51.100.1"), ("Forwarded", value)]
    assert named(*both) == named(*reversed(both)) == client


# What a list holds


@pytest.mark.parametrize(
    "node, client",
    [
        ("192.0.2.7:4711", "192.0.2.7:4711"),
        ("192.0.2.7:_port", "192.0.2.7:_port"),
        ("[2001:db8::1]", "[2001:db8::1]"),
        ("[2001:DB8:0::1]:4711", "[2001:db8::1]:4711"),
        ("2001:db8::1", "[2001:db8::1]"),
        ("1:2:3:4:5:6:7:8", "[1:2:3:4:5:6:7:8]"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("[::ffff:c000:207]:80", "192.0.2.7:80"),
        ("unknown", "unknown"),
        ("unknown:80", "unknown:80"),
        ("_hidden", "_hidden"),
        ("_SEVKISEK-1.a_b:_port", "_SEVKISEK-1.a_b:_port"),
        ("_" + "a" * 64, "_" + "a" * 64),
        ("_" + "a" * 65, None),
        ("_", None),
        ("_a b", None),
        ("hidden", None),
        ("Unknown", None),
        ("192.0.2", None),
        ("192.0.2.256", None),
        ("192.0.2.07", None),
        ("[192.0.2.7]", None),
        ("192.0.2.7:", None),
        ("192.0.2.7:http", None),
        ("192.0.2.7:123456", None),
        ("[2001:db8::1", None),
        ("2001:db8::1]", None),
        ("[2001:db8::1]4711", None),
        ("[2001:db8:::1]", None),
        ("fe80::1%eth0", None),
        ("[fe80::1%eth0]", None),
        ("192.0.2.7 192.0.2.8", None),
        ("192.0.2.7\n", None),
        ("caf\xe9", None),
        ("unix:", None),
        ("-", None),
    ],
)
def test_a_node_is_named_as_the_log_names_it_or_is_malformed(node, client):
    assert listed(node) == (client or PROXY)
    assert described(f'for="{node}"') == (client or PROXY)


@pytest.mark.parametrize(
    "element, client",
    [
        ("For=192.0.2.7", "192.0.2.7"),
        ("FOR=192.0.2.7;by=203.0.113.43;proto=https", "192.0.2.7"),
        ('proto=https; host="a,b;for=198.51.100.1" ;for=192.0.2.7', "192.0.2.7"),
        (";for=192.0.2.7;;", "192.0.2.7"),
        ('for="192.0.2.7"', "192.0.2.7"),
        ("for=_hidden", "_hidden"),
        ("for=unknown", "unknown"),
        ("by=203.0.113.43;proto=https", PROXY),  # it does not say whom it has it from
        ("for=192.0.2.7;for=192.0.2.7", PROXY),
        ("for=192.0.2.7:80", PROXY),  # a colon needs quoting
        ("for=[2001:db8::1]", PROXY),
        ("for = 192.0.2.7", PROXY),
        ("for=192.0.2.7 proto=https", PROXY),
        ("for=", PROXY),
        ('for=""', PROXY),
        ("for", PROXY),
        ("192.0.2.7", PROXY),
        ('for="192.0.2.7', PROXY),
        ('for=192.0.2.7"', PROXY),
        ('for="192.0.2.7"x', PROXY),
        (r'for="192\.0.2.7"', PROXY),
        ('for=192.0.2.7;host="\\""', PROXY),
    ],
)
def test_an_element_of_forwarded_names_one_node_or_is_malformed(element, client):
    assert described(element) == client


@pytest.mark.parametrize(
    "sent", ['for="', '"', 'for=198.51.100.1;x="', "for=198.51.100.1;x=\\", ";"]
)
@pytest.mark.parametrize("appended", ["192.0.2.7", '"192.0.2.7:4711"', '"192.0.2.7";host="a"'])
def test_what_a_client_leaves_open_does_not_hide_it(sent, appended):
    """However the proxy appends: to the client's line, or in another."""
    client = appended.split('"')[1] if '"' in appended else appended
    assert described(f"{sent}, for={appended}") == client
    assert described(sent, f"for={appended}") == client


# Laws

PRINTABLE = frozenset(string.ascii_letters + string.digits + "._-:[]")

pieces = st.sampled_from(
    [
        "for=",
        "192.0.2.7",
        "10.0.0.1",
        "fd00::1",
        "[",
        "]",
        '"',
        "\\",
        ",",
        ";",
        " ",
        "_x",
        ":80",
        "\0",
    ]
)
values = st.one_of(
    st.lists(pieces, max_size=20).map("".join), st.text("\x00\x7f\xff\r\n", max_size=9)
)


@given(st.sampled_from([listed, described]), st.lists(values, max_size=3))
def test_whatever_came_is_safe_in_a_log(read, lines):
    name = read(*lines)
    assert set(name) <= PRINTABLE
    assert 0 < len(name) < 150


@given(st.sampled_from([listed, described]), st.lists(values, max_size=3))
def test_whatever_a_client_sends_does_not_change_what_a_proxy_appends(read, lines):
    mark = "for=" if read is described else ""
    assert read(*lines, f"{mark}192.0.2.99") == "192.0.2.99"
    assert read(", ".join([*lines, f"{mark}192.0.2.99"])) == "192.0.2.99"


def test_a_header_as_large_as_any_is_read_at_once():
    """Linear: what backtracks needs seconds for a quarter of this."""
    for piece in (",", '"', '",', 'for="\\",', "for=10.0.0.1;", "10.0.0.1,", ";a=b ", " ", "; "):
        for read in (listed, described):
            read(piece * (65536 // len(piece)) + "!")


# What the option takes


@pytest.mark.parametrize(
    "text", ["192.0.2.1", "10.0.0.0/8", "0.0.0.0/0", "::1", "2001:db8::/32", "::/0", "unix:"]
)
def test_a_network_that_can_be_trusted(text):
    assert str(forwarded.trusted(text)).startswith(text)


@pytest.mark.parametrize(
    "text",
    [
        *["", "proxy", "unix", "unix:/run/proxy", "10.0.0.0/", "10.0.0.0/33", "10.0.0.0/8 "],
        "10.0.0.1/8",  # host bits
        "10.0.0.0/255.0.0.0",
        "fe80::1%eth0",
        "::ffff:10.0.0.0/104",  # IPv4, which is compared as IPv4
    ],
)
def test_a_network_that_can_not_be_trusted(text):
    with pytest.raises(ValueError, match=r"not|IPv4|host bits|Expected|Only"):
        forwarded.trusted(text)
