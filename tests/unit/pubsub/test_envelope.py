"""The layout of a message on a channel."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.identity import UNKNOWN_STREAM_EPOCH, StreamEpoch
from service.pubsub.envelope import Envelope, Kind, MalformedEnvelope, decode, encode

ENVELOPES = st.builds(
    Envelope,
    kind=st.sampled_from(Kind),
    seq=st.integers(-1, 2**63 - 1),
    stream_epoch=st.binary(min_size=16, max_size=16).map(StreamEpoch),
    payload=st.binary(max_size=200),
)


@given(ENVELOPES)
def test_decode_reverses_encode(envelope: Envelope) -> None:
    """Whatever is sent arrives as it was."""
    assert decode(encode(envelope)) == envelope


def test_layout_is_the_documented_one() -> None:
    """Version, kind, seq, stream epoch, then the payload untouched: other versions read these bytes."""
    envelope = Envelope(Kind.TRANSIENT, 258, StreamEpoch(bytes(range(16))), b'{"a":1}')
    assert encode(envelope) == b"\x01\x01" + b"\0\0\0\0\0\0\x01\x02" + bytes(range(16)) + b'{"a":1}'


def test_unknown_stream_epoch_fits() -> None:
    """What is read from the log without its identity can be enveloped too."""
    assert len(UNKNOWN_STREAM_EPOCH) == 16


GOOD = encode(Envelope(Kind.DURABLE, 0, UNKNOWN_STREAM_EPOCH, b"{}"))


@pytest.mark.parametrize(
    "message",
    [b"", GOOD[:25], b"\x00" + GOOD[1:], b"\x02" + GOOD[1:], GOOD[:1] + b"\xff" + GOOD[2:]],
    ids=["empty", "header cut short", "version 0", "newer version", "unknown kind"],
)
def test_what_is_no_envelope_is_refused(message: bytes) -> None:
    """Bytes of another version are noticed, not misread."""
    with pytest.raises(MalformedEnvelope):
        decode(message)


def test_an_empty_payload_is_allowed() -> None:
    """A deletion carries none."""
    deleted = Envelope(Kind.DELETED, 3, UNKNOWN_STREAM_EPOCH, b"")
    assert decode(encode(deleted)) == deleted
