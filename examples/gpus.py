"""One GPU per slot: each process sees one device. Without GPUs, their numbers stand in for them."""

import os

import skyward_dask as sky

GPUS = 2


@sky.function
def predict(batch: int) -> tuple[int, str]:
    """In real life: `torch.device("cuda")`, which is the only one that this process sees."""
    sky.barrier("both", GPUS).wait(timeout=60)  # only so that this example shows both for sure
    return 10 * batch, os.environ["CUDA_VISIBLE_DEVICES"]


def works() -> bool:
    """After a task that has failed: is the device still usable? If not, its slot gets a new process."""
    return os.environ["CUDA_VISIBLE_DEVICES"].isdigit()


def main():
    worker = sky.Worker(
        concurrency=GPUS,
        executor="process",
        env={"CUDA_VISIBLE_DEVICES": "{slot}"},  # set before anything is imported
        health_check=works,
    )
    with sky.Compute(nodes=1, worker=worker) as compute:
        found = compute.map(predict, range(4))

    print("results:", [result for result, _ in found])
    print("devices:", sorted({device for _, device in found}))


if __name__ == "__main__":
    main()

# Prints:
# results: [0, 10, 20, 30]
# devices: ['0', '1']
