"""Read netCDF files at once with a library that isn't thread-safe: each slot has its own copy of it."""

import os
from pathlib import Path
from tempfile import TemporaryDirectory

import netCDF4  # noqa: F401  its C library must not be entered by two threads at once
import numpy as np
import xarray as xr

import skyward_dask as sky


def write(path: Path, year: int) -> Path:
    temperature = xr.DataArray(year + np.zeros((12, 10)), dims=("month", "place"), name="temperature")
    temperature.to_netcdf(path, engine="netcdf4")
    return path


@sky.function
def yearly_mean(path: Path) -> tuple[float, int]:
    with xr.open_dataset(path, engine="netcdf4") as data:
        mean = float(data.temperature.mean())
    sky.barrier("both", 2).wait(timeout=60)  # only so that this example runs in two processes for sure
    return mean, os.getpid()


def main():
    with (
        TemporaryDirectory() as folder,
        # slots find the library imported already
        sky.Compute(
            nodes=1, worker=sky.Worker(concurrency=2, executor="process", pre_import=["netCDF4", "xarray"])
        ) as compute,
    ):
        paths = [write(Path(folder, f"{year}.nc"), year) for year in (2024, 2025, 2026, 2027)]
        found = compute.map(yearly_mean, paths)

    print("means:", [mean for mean, _ in found])
    print("processes:", len({pid for _, pid in found}))


if __name__ == "__main__":
    main()

# Prints:
# means: [2024.0, 2025.0, 2026.0, 2027.0]
# processes: 2
