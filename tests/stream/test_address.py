import pytest

from fleetward.stream.address import Address, parse_address


@pytest.mark.parametrize(
    ("text", "address", "base"),
    [
        ("unix:///run/fleetward/hub.sock", Address(path="/run/fleetward/hub.sock"), "http://hub"),
        ("http://127.0.0.1:8181", Address(host="127.0.0.1", port=8181), "http://127.0.0.1:8181"),
        ("http://localhost:0", Address(host="localhost", port=0), "http://localhost:0"),
        ("http://[::1]:81/", Address(host="::1", port=81), "http://[::1]:81"),
    ],
)
def test_what_is_an_address(text: str, address: Address, base: str) -> None:
    assert parse_address(text) == address
    assert address.base_url == base
    assert parse_address(str(address)) == address


@pytest.mark.parametrize(
    ("text", "address"),
    [
        (
            "https://fleetward-hub.fleetward-system.svc:8443",
            Address(host="fleetward-hub.fleetward-system.svc", port=8443, tls=True),
        ),
        ("https://0.0.0.0:0/", Address(host="0.0.0.0", port=0, tls=True)),
        ("https://[2001:db8::1]:8443", Address(host="2001:db8::1", port=8443, tls=True)),
        ("https://127.0.0.1:8443", Address(host="127.0.0.1", port=8443, tls=True)),
    ],
)
def test_what_is_an_address_of_a_hub_over_tls(text: str, address: Address) -> None:
    parsed = parse_address(text, tls=True)
    assert parsed == address
    assert parsed.base_url == str(parsed)
    assert parse_address(str(parsed), tls=True) == parsed


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("https://hub.example", "or https://host:8443"),
        ("https://:8443", "not of the form"),
        ("https://user@hub.example:8443", "not of the form"),
        ("https://hub.example:8443/path", "not of the form"),
        ("https://hub example:8443", "not of the form"),
        (f"https://{'x' * 254}:8443", "not of the form"),
        ("http://hub.example:8443", "other hosts need https"),
        ("wss://hub.example:8443", "not of the form"),
    ],
)
def test_what_is_none_of_a_hub_either(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        parse_address(text, tls=True)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "not of the form"),
        ("/run/hub.sock", "not of the form"),
        ("unix://run/hub.sock", "not of the form"),
        ("unix:///run/hub\0.sock", "not of the form"),
        ("unix:///" + "x" * 107, "108 bytes, and 107 are allowed"),
        ("http://127.0.0.1", "not of the form"),
        ("http://127.0.0.1:99999", "not of the form"),
        ("http://user@127.0.0.1:80", "not of the form"),
        ("http://127.0.0.1:80/path", "not of the form"),
        ("https://127.0.0.1:80", "asks for TLS, which only the stream to a hub has"),
        ("http://0.0.0.0:80", "not on this machine"),
        ("http://hub.example:80", "not on this machine"),
        ("http://127.0.0.1.example:80", "not on this machine"),
    ],
)
def test_what_is_none(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        parse_address(text)
