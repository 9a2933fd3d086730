"""Hyperparameter search: results as they finish, and the search ends when one is good enough."""

from itertools import product

import skyward_dask as sky


@sky.function
def evaluate(rate: float, momentum: float) -> tuple[float, float, float]:
    """Minimise x² by gradient descent with momentum; how far from the minimum does it end?"""
    x, speed = 1.0, 0.0
    for _ in range(30):
        speed = momentum * speed - rate * 2 * x
        x += speed
    return rate, momentum, abs(x)


def main():
    grid = [evaluate(rate, momentum) for rate, momentum in product((0.01, 0.1, 0.5, 1.0), (0.0, 0.5, 0.9))]

    with sky.Compute(nodes=1, worker=sky.Worker(concurrency=2, executor="process")) as compute:
        tried, best = 0, None
        for result in sky.gather(*grid, stream=True, ordered=False) >> compute:
            tried += 1
            best = min(best or result, result, key=lambda found: found[-1])

    print(f"{tried} combinations tried")
    print("best: rate {}, momentum {}, ends {} from the minimum".format(*best))


if __name__ == "__main__":
    main()

# Prints:
# 12 combinations tried
# best: rate 0.5, momentum 0.0, ends 0.0 from the minimum
