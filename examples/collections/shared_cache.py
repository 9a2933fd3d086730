"""A cache that all tasks share: an expensive value is computed once, and the others wait for it."""

import argparse
import time

import skyward_dask as sky


@sky.function
def classify(text: str) -> str:
    model = sky.dict("models").get_or_compute("sentiment", load_model)
    return "good" if sum(model.get(word, 0) for word in text.split()) > 0 else "bad"


def load_model() -> dict[str, int]:
    sky.counter("loads").increment()
    time.sleep(0.2)  # a slow download
    return {"fine": 1, "great": 2, "dull": -1, "awful": -2}


def main(executor: str) -> None:
    texts = ["great but dull", "fine", "awful", "dull, awful", "fine and great", "great but awful"]
    with sky.Compute(nodes=2, worker=sky.Worker(concurrency=2, executor=executor)) as compute:
        print(sky.gather(*[classify(text) for text in texts]) >> compute)
        print("times loaded:", compute.counter("loads").value)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--executor", choices=("thread", "process"), default="process")
    main(parser.parse_args().executor)

# Prints:
# ['good', 'good', 'bad', 'bad', 'good', 'bad']
# times loaded: 1
