"""The two ends of a stream in any process of a cluster, and the connection between them."""
