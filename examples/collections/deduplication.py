"""Fetch each page once, however many tasks come across it: adding it to a set claims it, in one call."""

import argparse

import skyward_dask as sky

LINKS = {
    "/": ["/docs", "/blog", "/about"],
    "/docs": ["/", "/docs/slots", "/blog"],
    "/blog": ["/", "/docs", "/about", "/docs/slots"],
    "/about": ["/", "/blog"],
    "/docs/slots": ["/docs", "/"],
}


@sky.function
def crawl(start: str) -> list[str]:
    """Follow links until every page has been visited; return the pages that this task fetched."""
    seen, fetched, ahead = sky.set("seen"), [], [start]
    while ahead:
        page = ahead.pop()
        if seen.add(page):  # True for one task only
            fetched.append(page)
            ahead += LINKS[page]
    return fetched


def main(executor: str) -> None:
    with sky.Compute(nodes=2, worker=sky.Worker(concurrency=2, executor=executor)) as compute:
        parts = sky.gather(*[crawl(page) for page in ("/", "/docs", "/blog", "/about")]) >> compute
        fetched = [page for part in parts for page in part]
        print("fetched:", sorted(fetched))
        print("each once:", len(fetched) == len(LINKS) == len(compute.set("seen")))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--executor", choices=("thread", "process"), default="process")
    main(parser.parse_args().executor)

# Prints:
# fetched: ['/', '/about', '/blog', '/docs', '/docs/slots']
# each once: True
