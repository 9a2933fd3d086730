"""One module for each topic; a new one is found by its name.

A topic has a docstring whose first line is its title, and

    UNIT: str               what a figure counts
    HIGHER_IS_BETTER: bool
    REFERENCE: str          the contender that the others are divided by
    GOALS: list[Goal]       what is to be reached; may be missing
    contenders(settings, enter) -> dict[str, Callable[[], float]]

`enter` enters a context, which is left when the topic is done. Each function does its work once and gives the
figure.
"""
