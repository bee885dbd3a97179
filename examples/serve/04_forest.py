"""A model of scikit-learn with a typed body: what does not fit is refused with the place of the mistake, and `/docs` shows the form.

    python examples/serve/04_forest.py               # or: leyden serve examples/serve/04_forest.py
    curl localhost:8000/iris -d sepal_length=5.1 -d sepal_width=3.5 -d petal_length=1.4 -d petal_width=0.2

JSON with the same names is taken as well.
"""

import argparse

from pydantic import BaseModel, Field
from sklearn.datasets import load_iris
from sklearn.ensemble import RandomForestClassifier

import leyden.serve as ls


class Flower(BaseModel):
    """An iris, in centimetres."""

    sepal_length: float = Field(gt=0, le=20)
    sepal_width: float = Field(gt=0, le=20)
    petal_length: float = Field(gt=0, le=20)
    petal_width: float = Field(gt=0, le=20)


class Answer(BaseModel):
    """Which species it is."""

    species: str
    probabilities: dict[str, float]


class Iris(ls.LitAPI):
    """Tells the species of an iris by its measures."""

    def setup(self, device: str) -> None:
        """Fit the forest: it is faster than reading it from a file."""
        flowers = load_iris()
        self.names = [str(name) for name in flowers.target_names]
        self.forest = RandomForestClassifier(50, random_state=0).fit(flowers.data, flowers.target)

    def decode_request(self, request: Flower) -> list[float]:
        """Return the measures."""
        return [request.sepal_length, request.sepal_width, request.petal_length, request.petal_width]

    def predict(self, rows: list[list[float]]) -> list[list[float]]:
        """Return the probability of each species; a forest takes ten flowers as fast as one."""
        return self.forest.predict_proba(rows).tolist()

    def encode_response(self, shares: list[float]) -> Answer:
        """Name the species."""
        best = max(range(len(shares)), key=shares.__getitem__)
        return Answer(species=self.names[best], probabilities=dict(zip(self.names, shares, strict=True)))


server = ls.LitServer(Iris(api_path="/iris", max_batch_size=64), accelerator="cpu", model_metadata={"forest": "50 trees"})

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, default=8000)
    args = parser.parse_args()
    server.run(host="127.0.0.1", port=args.port, generate_client_file=False)
