"""Secrets never reach a person's eyes: the address grammar of cameras, and text around it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streammem.redact import credentials, escaped, redact, without_user

SHOWN = [
    ("plain", "rtsp://cam.local:554/live", "rtsp://cam.local:554/live"),
    ("user and password", "rtsp://admin:hunter2@cam.local:554/live", "rtsp://***@cam.local:554/live"),
    ("user alone", "rtsp://admin@cam/live", "rtsp://***@cam/live"),
    ("at sign in the password", "rtsp://admin:p@ss@cam/live", "rtsp://***@cam/live"),
    ("slash in the password", "rtsp://admin:p/ss@cam/live", "rtsp://***@cam/live"),
    ("hash in the password", "rtsp://admin:p#ss@cam/live", "rtsp://***@cam/live"),
    ("question mark in the password", "rtsp://admin:p?ss@cam/live", "rtsp://***@cam/live"),
    ("at sign and question mark in the password", "rtsp://admin:p@ss/w#1?x@cam/live", "rtsp://***@cam/live"),
    ("user that is an e-mail", "https://me@corp.example:pw@cam/x", "https://***@cam/x"),
    ("space in the password", "rtsp://admin:my pass@cam/live", "rtsp://*** pass@cam/live"),
    ("query token", "http://cam/video?token=abc123&fps=5", "http://cam/video?token=***&fps=5"),
    ("query password", "http://cam/v?user=a&password=s3cret", "http://cam/v?user=a&password=***"),
    ("prefixed parameter", "http://cam/v?api_key=s3cret&x=1", "http://cam/v?api_key=***&x=1"),
    ("harmless parameter", "http://cam/v?monkey=1&channel=2", "http://cam/v?monkey=1&channel=2"),
    ("IPv6", "rtsp://u:p@[fe80::1]:554/a", "rtsp://***@[fe80::1]:554/a"),
    ("IPv6 plain", "rtsp://[::1]:554/a", "rtsp://[::1]:554/a"),
    ("ZeroMQ", "zmq+tcp://127.0.0.1:5570", "zmq+tcp://127.0.0.1:5570"),
    ("inside a sentence", "can't open 'rtsp://u:pw@cam/x': refused", "can't open 'rtsp://***@cam/x': refused"),
    ("two addresses", "rtsp://u:p@a/ and rtsp://v:q@b/", "rtsp://***@a/ and rtsp://***@b/"),
    ("a file", "/videos/kitchen@home.mp4", "/videos/kitchen@home.mp4"),
    ("an assignment", 'secret-key = "abc"', "secret-key = ***"),
    ("a header", "Authorization: Basic dXNlcjpwYXNz", "Authorization: Basic ***"),
    ("no address", "mail me@example.org", "mail me@example.org"),
]


@pytest.mark.parametrize(("case", "text", "shown"), SHOWN, ids=[row[0] for row in SHOWN])
def test_what_is_shown(case: str, text: str, shown: str) -> None:
    assert redact(text) == shown
    assert redact(shown) == shown, "twice is the same as once"


WORD = st.text(alphabet=st.characters(min_codepoint=33, max_codepoint=126, exclude_characters="\"'`<>|"), min_size=4)


@given(password=WORD.map(lambda word: "Z9" + word + "9Z"))
def test_no_password_in_an_address_survives(password: str) -> None:
    address = f"rtsp://admin:{password}@cam.example:554/live"
    assert password not in redact(address)
    assert redact(address) == "rtsp://***@cam.example:554/live"
    assert password not in redact(f"[Errno 5] I/O error: '{address}'; try {password}", credentials(address))


def test_credentials_are_found_for_foreign_text() -> None:
    assert credentials("rtsp://admin:hunter2@cam/live") == ("admin:hunter2", "hunter2")
    assert credentials("http://cam/v?token=abcd") == ("abcd",)
    assert credentials("rtsp://cam/live") == ()
    assert redact("401 for hunter2", credentials("rtsp://admin:hunter2@cam/")) == "401 for ***"
    assert escaped("rtsp://u:p@s/s#1@cam/x?y=1") == "rtsp://u:p%40s%2Fs%231@cam/x?y=1"
    assert escaped("rtsp://u:p%40ss@cam/x") == "rtsp://u:p%40ss@cam/x" and escaped("rtsp://cam/x") == "rtsp://cam/x"
    assert without_user("rtsp://u:p@s/s#1@cam/x?y=1") == "rtsp://cam/x?y=1"
    assert redact("p%40ss and p@ss", credentials("rtsp://u:p@ss@cam/")) == "*** and ***"
