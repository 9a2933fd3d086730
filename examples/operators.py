"""Calls as values: run one, two at once, or many, on a pool."""

import skyward_dask as sky


@sky.function
def factors(number: int) -> list[int]:
    """The prime factors of a number, by trial division."""
    found, divisor = [], 2
    while divisor * divisor <= number:
        while number % divisor == 0:
            found.append(divisor)
            number //= divisor
        divisor += 1
    return [*found, number] if number > 1 else found


@sky.function
def greet(name: str) -> str:
    return f"hello, {name}"


def main():
    print("here:", factors.local(91))

    with sky.Compute(nodes=1, worker=sky.Worker(concurrency=2, executor="process")) as compute:
        print("there:", factors(91) >> compute)
        print("two at once:", (factors(2**20 + 7) & greet("slots")) >> compute)
        print("many:", sky.gather(*[factors(n) for n in (60, 97, 1001)]) >> compute)

        future = factors(999_983 * 1_000_003) > compute
        print("later:", future.result())


if __name__ == "__main__":
    main()

# Prints:
# here: [7, 13]
# there: [7, 13]
# two at once: ([1048583], 'hello, slots')
# many: [[2, 2, 3, 5], [97], [7, 11, 13]]
# later: [999983, 1000003]
