"""What a status other than 200 means: the class decides what happens next, the message is for a person."""

from __future__ import annotations

import email.utils
import json
import time
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from wire import sample

from pipeline.errors import ClassifyError, Misconfigured, Overloaded, Rejected, RequestFailed, Unavailable
from pipeline.servers.dialects.vllm import Vllm
from pipeline.servers.refusal import error_message, parse_retry_after

error_of = Vllm().refusal


def replay(name: str) -> ClassifyError:
    """Return the error that vLLM's recorded answer stands for."""
    recorded = sample(name)
    return error_of(recorded["status"], recorded["headers"], json.dumps(recorded["body"]).encode(), "MY_KEY")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("error-empty-list", "You must pass at least one prompt"),
        ("error-empty-text", "The decoder prompt cannot be empty"),
        ("error-null", "7 validation errors"),
        ("error-surrogate", "TextEncodeInput must be"),
    ],
)
def test_a_real_refusal_is_rejected_in_the_servers_words(name: str, words: str) -> None:
    """The recorded 400s mean: never again as it is. The row's error says what the server said."""
    error = replay(name)
    assert isinstance(error, Rejected)
    assert error.code == "rejected"
    assert words in str(error)
    assert "400" in str(error)


@pytest.mark.parametrize("name", ["error-too-long", "error-far-too-long"])
def test_a_real_too_long_has_its_own_code(name: str) -> None:
    """The two recorded ways of vLLM to say "too long" both give `too_long`."""
    error = replay(name)
    assert isinstance(error, Rejected)
    assert error.code == "too_long"


@pytest.mark.parametrize("name", ["error-unknown-model", "error-wrong-path", "error-wrong-method"])
def test_a_real_404_or_405_is_for_a_person(name: str) -> None:
    """The recorded 404 and 405 mean a wrong address or model, which the message says how to mend."""
    error = replay(name)
    assert isinstance(error, Misconfigured)
    assert "server.url" in str(error)


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        *((status, Rejected) for status in (400, 413, 422)),
        *((status, RequestFailed) for status in (408, 424, 425, 429, 500, 502, 503, 504, 507, 520, 529, 599)),
        *((status, Misconfigured) for status in (204, 301, 302, 307, 308, 401, 403, 404, 405, 410, 451, 501)),
    ],
)
def test_each_status_has_its_decision(status: int, kind: type[ClassifyError]) -> None:
    """Refused for good, tried again, or a person's business: by the status alone, whatever the body."""
    for body in (b"", b"{}", b"<html>", b'{"error":{"message":"no"}}', b"\xff\x00", b"null", b"[" * 100_000):
        error = error_of(status, {}, body, "KEY")
        assert isinstance(error, kind)
        assert isinstance(error, Rejected) == (kind is Rejected)
        assert str(status) in str(error)
        assert str(error).isprintable()


@pytest.mark.parametrize(
    ("status", "kind"), [(429, Overloaded), (503, Overloaded), (500, Unavailable), (502, Unavailable)]
)
def test_the_servers_wish_to_wait_is_kept(status: int, kind: type[RequestFailed]) -> None:
    """Retry-After is taken from every status that is tried again."""
    error = error_of(status, {"Retry-After": "7"}, b"", "KEY")
    assert isinstance(error, kind)
    assert error.retry_after == 7


@pytest.mark.parametrize("status", [401, 403])
def test_a_missing_key_names_the_variable(status: int) -> None:
    """401 and 403 say into which environment variable the key goes."""
    assert "MY_KEY" in str(error_of(status, {}, b'{"error":"Unauthorized"}', "MY_KEY"))


def test_a_redirect_names_its_target() -> None:
    """A redirect is not followed; the message says where it leads, in one line."""
    error = error_of(302, {"Location": "https://login.test/\r\nx" + "y" * 5000}, b"", "KEY")
    assert "https://login.test/" in str(error)
    assert str(error).isprintable()
    assert len(str(error)) < 500


# -- Retry-After


def test_retry_after_in_seconds_and_as_a_date() -> None:
    """Both forms of RFC 9110 give seconds from now; a date in the past is now."""
    now = 1_795_000_000.0
    assert parse_retry_after("120") == 120
    assert parse_retry_after(" 120 ") == 120
    assert parse_retry_after("0") == 0
    assert parse_retry_after(email.utils.formatdate(now + 90, usegmt=True), now) == 90
    assert parse_retry_after(email.utils.formatdate(now - 90, usegmt=True), now) == 0
    assert parse_retry_after(None) is None


@pytest.fixture
def tokyo(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Set the machine's clock to a zone that is not Greenwich's."""
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.usefixtures("tokyo")
def test_the_obsolete_date_is_greenwich_time() -> None:
    """RFC 9110, 5.6.7: the asctime form has no zone and means GMT; recipients must take it."""
    assert parse_retry_after("Sun Nov  6 08:49:37 1994", 784_111_767.0) == pytest.approx(10)


@pytest.mark.parametrize(
    "value",
    ["", " ", "soon", "-5", "1.5", "nan", "Mon, 01 Jan 99999999999 00:00:00 GMT", "Mon, 01 Jan 2026 00:00:00 +9999"],
)
def test_a_nonsense_retry_after_is_as_none(value: str) -> None:
    """What is neither seconds nor a date is passed over, never an exception."""
    assert parse_retry_after(value) is None


@pytest.mark.parametrize("value", ["9" * 400, " " * 30 + "5", "Mon, 01 Jan 0001 00:00:00 -0000"])
def test_a_strange_retry_after_is_still_a_number(value: str) -> None:
    """Very large, padded or very old: seconds that are not negative."""
    seconds = parse_retry_after(value)
    assert seconds is not None
    assert seconds >= 0


@given(st.text(max_size=40))
def test_no_retry_after_escapes(value: str) -> None:
    """Any header value gives None or seconds that are not negative."""
    seconds = parse_retry_after(value)
    assert seconds is None or seconds >= 0


# -- the server's own words


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b'{"error":{"message":"nested","type":"T","param":null,"code":400}}', "nested"),
        (b'{"object":"error","message":"flat","type":"T","param":null,"code":400}', "flat"),
        (b'{"detail":"Not Found"}', "Not Found"),
        (b'{"error":"Unauthorized"}', "Unauthorized"),
        (b'{"detail":[{"loc":["body"],"msg":"field required"}]}', "field required"),
        (b"<html><body>\n <h1>502 Bad Gateway</h1>\n</body></html>", "502 Bad Gateway"),
        (b"upstream connect error", "upstream connect error"),
        (b"\xff\xfe odd bytes", "odd bytes"),
    ],
)
def test_the_message_is_found_in_every_shape(body: bytes, words: str) -> None:
    """Nested (vLLM 0.10 on), flat (before), FastAPI's detail, a proxy's page: the words come through."""
    assert words in error_message(body)


@given(st.text(max_size=1500).map(lambda text: json.dumps({"error": {"message": text}}).encode()) | st.binary())
def test_a_message_is_short_printable_and_one_line(body: bytes) -> None:
    """It goes into files, logs and terminals: no control characters, no line ends, at most 300 characters."""
    message = error_message(body)
    assert message == "" or message.isprintable()
    assert len(message) <= 300


def test_a_huge_message_is_cut() -> None:
    """A megabyte of complaint is shortened and shows that it was."""
    message = error_message(json.dumps({"error": {"message": "why " * 300_000}}).encode())
    assert message.startswith("why why")
    assert message.endswith("…")
    assert len(message) <= 300


def test_too_long_is_understood_from_the_end_of_a_long_message() -> None:
    """The words that tell count wherever they stand: the message we show is shortened, the decision is not."""
    text = "The request was refused. " * 30 + "This model's maximum context length is 256 tokens."
    error = error_of(400, {}, json.dumps({"message": text, "code": 400}).encode(), "KEY")
    assert isinstance(error, Rejected)
    assert error.code == "too_long"
