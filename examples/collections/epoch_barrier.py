"""Trainers that meet after each epoch: none starts the next one before all have published their gradients."""

import argparse

import skyward_dask as sky

TRAINERS, EPOCHS = 4, 3


@sky.function
def train(rank: int) -> list[float]:
    """Return the weight after each epoch: the same for all, although each has different data."""
    barrier, gradients = sky.barrier("epoch", TRAINERS), sky.dict("gradients")
    weight, weights = 0.0, []
    for epoch in range(EPOCHS):
        gradients[epoch, rank] = (rank - weight) / TRAINERS
        barrier.wait(timeout=60)
        weight += sum(gradients[epoch, other] for other in range(TRAINERS)) / 2
        weights.append(weight)
    return weights


def main(executor: str) -> None:
    with sky.Compute(nodes=1, worker=sky.Worker(concurrency=TRAINERS, executor=executor)) as compute:
        trained = sky.gather(*[train(rank) for rank in range(TRAINERS)]) >> compute
        print("weights after each epoch:", trained[0])
        print("the same for all:", all(weights == trained[0] for weights in trained))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--executor", choices=("thread", "process"), default="process")
    main(parser.parse_args().executor)

# Prints:
# weights after each epoch: [0.75, 1.125, 1.3125]
# the same for all: True
