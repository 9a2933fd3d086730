"""What our parts of clients, workers and the scheduler call each other when they stream."""

#: Our handlers of connections, and our extensions of workers and clients.
NAME = "skyward_stream"
#: A worker tells the scheduler that it no longer holds the key of a stream of its own, and is told when
#: nobody wants the key any more: copies of the key may be elsewhere.
DROPPED, GONE = "skyward-stream-dropped", "skyward-stream-gone"
#: A worker tells the scheduler how many of its slots streams hold.
HELD = "skyward-stream-slots"
#: The connection over which a client that feeds streams is told of readers, and what it makes for each.
FEEDS, MEETS = "skyward_stream_feeds", "skyward_stream_meets"
