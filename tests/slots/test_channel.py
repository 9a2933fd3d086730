"""Frames over a socket pair: whole, in order, of any size, and a clear end."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
import threading
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from skyward_dask.slots.channel import Channel, ChannelClosed
from skyward_dask.slots.child_messages import Ask, Ready
from skyward_dask.slots.framing import Frame, pack
from skyward_dask.slots.loop_channel import LoopChannel


@given(st.lists(st.lists(st.integers(0, 200_000), max_size=4), min_size=1, max_size=6))
@settings(max_examples=30)
def test_frames_arrive_whole_and_in_order(shapes: list[list[int]]) -> None:
    """Whatever the sizes of their parts, also those that don't fit one read."""
    left, right = socket.socketpair()
    with left, right:
        sender, receiver = Channel(left), Channel(right)
        frames = [[os.urandom(size) for size in shape] for shape in shapes]

        def send() -> None:
            for number, parts in enumerate(frames):
                sender.send(Ask(number, "x"), number, parts)

        thread = threading.Thread(target=send)
        thread.start()
        for number, parts in enumerate(frames):
            frame = receiver.receive()
            assert (frame.message, frame.number) == (Ask(number, "x"), number)
            assert [bytes(part) for part in frame.parts] == parts
        thread.join()


@pytest.mark.parametrize("size", [10, 10_000_000])
def test_a_channel_keeps_nothing_of_a_frame(size: int) -> None:
    """A large result goes when it is dropped, not when the next one comes."""
    left, right = socket.socketpair()
    with left, right:
        sender, receiver = Channel(left), Channel(right)
        thread = threading.Thread(target=sender.send, args=(Ready(), 1, [bytes(size)]))
        thread.start()
        (part,) = receiver.receive().parts
        thread.join()
        assert sys.getrefcount(part) == 2  # `part`, and the argument of this call


def test_the_end_of_the_other_side_is_an_error() -> None:
    """Nobody waits for a party that is gone."""
    left, right = socket.socketpair()
    with left:
        right.close()
        with pytest.raises(ChannelClosed):
            Channel(left).receive()
        with pytest.raises(ChannelClosed):
            Channel(left).send(Ready())


def test_a_message_that_is_cut_short_leaves_no_descriptor() -> None:
    """Its sender was killed in the middle of it."""
    left, right = socket.socketpair()
    reader, writer = os.pipe()
    channel = Channel(right)
    with left:
        (whole,) = pack(Frame(Ready(), 1, (), (writer,)))
        socket.send_fds(left, [whole[:-1]], [writer])
        os.close(writer)
    with pytest.raises(ChannelClosed):
        channel.receive()
    channel.close()
    assert os.read(reader, 1) == b""  # nobody holds the other end
    os.close(reader)


def test_a_peer_that_sends_without_end_has_its_turn_only() -> None:
    """Others have theirs after some of its frames; all of them come, in order."""

    async def talk() -> None:
        loop = asyncio.get_running_loop()
        left, right = socket.socketpair()
        heard: list[int] = []
        turns: list[int] = []
        ended = asyncio.Event()

        def hear(frame: Frame) -> None:
            heard.append(frame.number)
            if len(heard) == 1:
                loop.call_soon(lambda: turns.append(len(heard)))
            end = time.perf_counter() + 100e-6
            while time.perf_counter() < end:
                pass

        ours = LoopChannel(loop, left, hear, ended.set)
        theirs = Channel(right)
        for number in range(200):
            theirs.send(Ready(), number)
        theirs.close()
        ours.listen()
        await ended.wait()
        assert heard == list(range(200)) and turns[0] < 100
        ours.close()

    asyncio.run(talk())


def test_a_loop_waits_for_no_reader() -> None:
    """What the other end doesn't take is sent later, in order; the loop goes on meanwhile."""

    async def talk() -> None:
        loop = asyncio.get_running_loop()
        left, right = socket.socketpair()
        heard: list[int] = []
        ended = asyncio.Event()
        ours = LoopChannel(loop, left, lambda frame: heard.append(frame.number), ended.set)
        ours.listen()
        reader, writer = os.pipe()
        ours.send(Frame(Ready(), 1, [bytes(10_000_000)]))
        ours.send(Frame(Ask(1, "with a descriptor"), 2, [b"x"], [writer]), owned=[writer])
        theirs = Channel(right)

        def answer() -> None:
            first, second = theirs.receive(), theirs.receive()
            assert len(first.parts[0]) == 10_000_000 and second.message == Ask(1, "with a descriptor")
            os.write(second.descriptors[0], b"from there")
            os.close(second.descriptors[0])
            for number in range(3):
                theirs.send(Ready(), number, [bytes(100_000)])
            theirs.close()

        await asyncio.to_thread(answer)
        await ended.wait()
        assert heard == [0, 1, 2] and os.read(reader, 100) == b"from there" and os.read(reader, 1) == b""
        ours.close()
        os.close(reader)

    asyncio.run(talk())
