"""One module for each topic; a new one is found by its name.

A topic has a docstring whose first line is its title, and

    UNIT: str         what a figure counts
    HIGHER_IS_BETTER: bool
    REFERENCE: str    the contender that the others are divided by
    contenders(settings) -> dict[str, ContextManager[Callable[[], float]]]

The context managers hold a contender's cluster; the function that they yield does the work once and gives
the figure.
"""
