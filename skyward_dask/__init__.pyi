# Functions that take a `client` are typed for a synchronous one. With an asynchronous client they return
# awaitables: `await cast(Awaitable[sky.Check], sky.check(client))`.

from skyward_dask.api.barriers import Barrier as Barrier
from skyward_dask.api.calls import function as function
from skyward_dask.api.cluster import Compute as Compute
from skyward_dask.api.counters import Counter as Counter
from skyward_dask.api.dicts import Dict as Dict
from skyward_dask.api.gathering import gather as gather
from skyward_dask.api.locks import Holder as Holder
from skyward_dask.api.locks import Lock as Lock
from skyward_dask.api.nodes import Node as Node
from skyward_dask.api.openers import barrier as barrier
from skyward_dask.api.openers import counter as counter
from skyward_dask.api.openers import dict as dict
from skyward_dask.api.openers import lock as lock
from skyward_dask.api.openers import queue as queue
from skyward_dask.api.openers import set as set
from skyward_dask.api.queues import Queue as Queue
from skyward_dask.api.sets import Set as Set
from skyward_dask.api.sharding import shard as shard
from skyward_dask.config import Worker as Worker
from skyward_dask.errors import BroadcastError as BroadcastError
from skyward_dask.errors import BrokenBarrierError as BrokenBarrierError
from skyward_dask.errors import CollectionConflict as CollectionConflict
from skyward_dask.errors import CollectionLost as CollectionLost
from skyward_dask.errors import ConfigurationError as ConfigurationError
from skyward_dask.errors import InstallError as InstallError
from skyward_dask.errors import LockError as LockError
from skyward_dask.errors import NodeLeft as NodeLeft
from skyward_dask.errors import NoWorkers as NoWorkers
from skyward_dask.errors import OperatorError as OperatorError
from skyward_dask.errors import SerializationError as SerializationError
from skyward_dask.errors import SharedMemoryError as SharedMemoryError
from skyward_dask.errors import SkywardError as SkywardError
from skyward_dask.errors import SlotCrashed as SlotCrashed
from skyward_dask.errors import SlotOutOfMemory as SlotOutOfMemory
from skyward_dask.errors import SlotStartFailed as SlotStartFailed
from skyward_dask.errors import StreamBroken as StreamBroken
from skyward_dask.errors import StreamTaken as StreamTaken
from skyward_dask.errors import TaskTimeout as TaskTimeout
from skyward_dask.errors import WorkerUnreachable as WorkerUnreachable
from skyward_dask.extension.client.check import Check as Check
from skyward_dask.extension.client.check import WorkerCheck as WorkerCheck
from skyward_dask.extension.client.check import check as check
from skyward_dask.extension.client.collection_list import Collection as Collection
from skyward_dask.extension.client.collection_list import collections as collections
from skyward_dask.extension.client.control import install as install
from skyward_dask.extension.client.control import resize as resize
from skyward_dask.extension.client.control import uninstall as uninstall
from skyward_dask.extension.client.feed import feed as feed
from skyward_dask.extension.client.options import options as options
from skyward_dask.extension.client.stack import stack as stack
from skyward_dask.extension.client.statistics import Statistics as Statistics
from skyward_dask.extension.client.statistics import StreamStatistics as StreamStatistics
from skyward_dask.extension.client.statistics import WorkerStatistics as WorkerStatistics
from skyward_dask.extension.client.statistics import statistics as statistics
from skyward_dask.extension.instance import InstanceInfo as InstanceInfo
from skyward_dask.extension.instance import instance_info as instance_info
from skyward_dask.extension.prefixes import PrefixStatistics as PrefixStatistics
from skyward_dask.extension.preload import dask_setup as dask_setup
from skyward_dask.extension.streams.stream import Stream as Stream
from skyward_dask.extension.task_run import cancelled as cancelled
from skyward_dask.extension.worker.plugin import SkywardPlugin as SkywardPlugin
from skyward_dask.slots.statistics import SlotStatistics as SlotStatistics

__version__: str
__all__: list[str]
