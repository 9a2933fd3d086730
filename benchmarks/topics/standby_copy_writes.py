"""The 99th percentile of writes to a dict of 256 MiB while a new standby is brought in step.

By a client, up to 1,000 a second.
"""

from benchmarks.goals import Goal, figure
from benchmarks.topics.standby_copy import OURS, copied, filled

UNIT = "ms"
HIGHER_IS_BETTER = False
REFERENCE = OURS
GOALS = [Goal("the 99th percentile of writes, ms", figure(OURS), most=50)]


def contenders(settings, enter):
    client, shared = filled(enter)
    return {OURS: lambda: copied(client, shared)[1]}
