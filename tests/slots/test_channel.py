"""Frames over a socket pair: whole, in order, of any size, and a clear end."""

from __future__ import annotations

import os
import socket
import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from skyward_dask.slots import template
from skyward_dask.slots.channel import Channel, ChannelClosed, Kind


@given(st.lists(st.lists(st.integers(0, 200_000), max_size=4), min_size=1, max_size=6))
@settings(max_examples=30, deadline=None)
def test_frames_arrive_whole_and_in_order(shapes: list[list[int]]) -> None:
    """Whatever the sizes of their parts, also those that don't fit one read."""
    left, right = socket.socketpair()
    with left, right:
        sender, receiver = Channel(left), Channel(right)
        frames = [[os.urandom(size) for size in shape] for shape in shapes]

        def send() -> None:
            for number, parts in enumerate(frames):
                sender.send(Kind.RUN, number, (number, "x"), parts)

        thread = threading.Thread(target=send)
        thread.start()
        for number, parts in enumerate(frames):
            frame = receiver.receive()
            assert (frame.kind, frame.number, frame.envelope) == (Kind.RUN, number, (number, "x"))
            assert [bytes(part) for part in frame.parts] == parts
        thread.join()


def test_the_end_of_the_other_side_is_an_error() -> None:
    """Nobody waits for a party that is gone."""
    left, right = socket.socketpair()
    with left:
        right.close()
        with pytest.raises(ChannelClosed):
            Channel(left).receive()
        with pytest.raises(ChannelClosed):
            Channel(left).send(Kind.RUN, 1, ())


def test_a_message_that_is_cut_short_leaves_no_descriptor() -> None:
    """Its sender, a template, was killed in the middle of it."""
    left, right = socket.socketpair()
    reader, writer = os.pipe()
    with left, right:
        socket.send_fds(left, [template._LENGTH.pack(100)], [writer])
        os.close(writer)
        left.close()
        with pytest.raises(template.Disconnected):
            template.receive(right)
    assert os.read(reader, 1) == b""  # nobody holds the other end
    os.close(reader)
