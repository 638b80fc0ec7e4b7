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
        ("https://127.0.0.1:80", "not of the form"),
        ("http://0.0.0.0:80", "not on this machine"),
        ("http://hub.example:80", "not on this machine"),
        ("http://127.0.0.1.example:80", "not on this machine"),
    ],
)
def test_what_is_none(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        parse_address(text)
