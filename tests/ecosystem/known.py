"""What of other projects' tests is known to fail: without us, and with process slots, and why."""

from __future__ import annotations

#: Without us, when what a test computes is computed on a cluster (dask 2026.8.0).
#: Most look for something in the test's own process that is in the worker's.
WITHOUT_US = frozenset(
    {
        "dask.tests.test_delayed::test_callable_obj",
        "dask.tests.test_delayed::test_p2p_as_delayed",
        "dask.tests.test_delayed::test_traverse_false",
        "dask.bag.tests.test_bag::test_bag_with_single_callable",
        "dask.bag.tests.test_bag::test_groupby_with_indexer",
        "dask.bag.tests.test_bag::test_groupby_with_npartitions_changed",
        "dask.bag.tests.test_bag::test_msgpack_unicode",
        "dask.bag.tests.test_bag::test_reductions_are_lazy",
        "dask.bag.tests.test_bag::test_repartition_partition_size_complex_dtypes",
        "dask.bag.tests.test_bag::test_take_npartitions_warn",
        "dask.bag.tests.test_bag::test_temporary_directory",
        "dask.bag.tests.test_bag::test_to_delayed_optimize_graph",
    }
)

#: With process slots, and the reason.
EXPLAINED = {
    "dask.bag.tests.test_bag::test_from_delayed_iterator": "a generator is a stream, with one reader",
    "joblib.test.test_dask::test_wait_for_workers[adaptive]": "get_client() over inproc:// "
    "addresses, which no other process can reach: docs/in_a_process_slot.md",
    "joblib.test.test_dask::test_wait_for_workers[late_scaling]": "the same",
    "joblib.test.test_dask::test_joblib_warning_inside_dask_daemonic_worker[loky]": "expects a warning that "
    "processes can't be started in a task; they can",
    "joblib.test.test_dask::test_joblib_warning_inside_dask_daemonic_worker[multiprocessing]": "the same",
    "joblib.test.test_dask::test_secede_with_no_processes": "get_client() over inproc:// addresses",
    "joblib.test.test_dask::test_scheduler_tasks_cleanup": "the same",
    "joblib.test.test_dask::test_nested_backend_context_manager": "counts processes: a slot whose task has "
    "seceded gets another one",
}
