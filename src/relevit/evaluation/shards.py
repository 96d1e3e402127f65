"""How a benchmark is cut into shards: runs of images that are done, written and shared among processes as a whole."""

from __future__ import annotations

LEAST, MOST, ABOUT = 64, 2048, 16  # images in a shard, and how many shards a benchmark should at least have
STREAM = 1024  # images in a shard of a set whose length need not be known


def shard_size(length: int) -> int:
    """Images in a shard: a power of two from 64 to 2048, such that there are about 16 shards or more.

    It depends on the benchmark's length alone: neither on the number of processes, nor on what is done already. Batches
    begin anew at a shard, so the images that share a batch are always the same.
    """
    size = LEAST
    while size < MOST and size * ABOUT < length:
        size *= 2
    return size


def shard_ranges(length: int) -> list[range]:
    """The places of the images of each shard."""
    size = shard_size(length)
    return [range(first, min(first + size, length)) for first in range(0, length, size)]
