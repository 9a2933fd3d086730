"""scikit-learn on process slots, through joblib's own backend for Dask."""

import joblib
from sklearn.datasets import load_iris
from sklearn.model_selection import GridSearchCV
from sklearn.tree import DecisionTreeClassifier

import skyward_dask as sky


def main():
    x, y = load_iris(return_X_y=True)
    grid = {"max_depth": [1, 2, 3], "min_samples_leaf": [1, 5]}
    search = GridSearchCV(DecisionTreeClassifier(random_state=0), grid, cv=3)

    worker = sky.Worker(concurrency=2, executor="process", pre_import=["sklearn.tree"])
    with sky.Compute(nodes=1, worker=worker) as compute:
        with joblib.parallel_backend("dask"):  # it finds the client of the open Compute by itself
            search.fit(x, y)
        places = sky.statistics(compute.client).tasks

    print("best:", search.best_params_)
    print(f"accuracy: {search.best_score_:.2f}")
    print("in process slots:", places["child", "plain"] > 0)


if __name__ == "__main__":
    main()

# Prints:
# best: {'max_depth': 3, 'min_samples_leaf': 1}
# accuracy: 0.96
# in process slots: True
