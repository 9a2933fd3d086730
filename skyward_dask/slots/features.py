"""Features that a platform may offer, each with a fallback where it is missing.

`SKYWARD_WITHOUT` in the environment (names, separated by spaces) switches features off, so that each fallback
can be tried on a machine that has them all.
"""

from __future__ import annotations

import os
import sys
from enum import StrEnum
from functools import cache


class Feature(StrEnum):
    """One thing that a kernel or a platform may lack."""

    FORK = "fork"  #: children are forked by a template that has imported everything; else exec
    MEMFD = "memfd"  #: memory that has a descriptor and no name; else unlinked files
    PIDFD = "pidfd"  #: a descriptor that refers to one process for ever; else process ids
    SUBREAPER = "subreaper"  #: orphans become our children; else only process groups can be killed


def _offered() -> frozenset[Feature]:
    linux = sys.platform == "linux"
    offered = {
        Feature.FORK: linux,  # macOS: its own libraries don't survive a fork
        Feature.MEMFD: hasattr(os, "memfd_create"),
        Feature.PIDFD: _has_pidfd(),
        Feature.SUBREAPER: linux,
    }
    return frozenset(feature for feature, there in offered.items() if there)


def _has_pidfd() -> bool:
    """Whether the kernel has pidfds: gVisor and Linux before 5.3 don't, whatever Python offers."""
    try:
        os.close(os.pidfd_open(os.getpid()))
    except (AttributeError, OSError):
        return False
    return True


@cache
def available(feature: Feature) -> bool:
    """Whether this platform has the feature and nobody has switched it off."""
    return feature in _offered() and feature.value not in os.environ.get("SKYWARD_WITHOUT", "").split()
