"""The engine's rows with no service around them, in a process that measures whenever it is asked to.

So that it can take turns with the service: a shared machine drifts, and both turns must meet the same hour.
"""

from benchmarks import child
from benchmarks.sampling import VOCABULARY, as_in_generation, seconds_for_each, writing
from benchmarks.timing import interleaved_medians
from models.config import ModelConfig
from models.rnn import CharRNN


def main() -> None:
    asked = child.request()
    as_in_generation()
    stepper = writing(CharRNN(ModelConfig(**asked["model"]), VOCABULARY).eval(), asked["rows"])
    for seconds in child.questions():
        medians = interleaved_medians({"rows": lambda: seconds_for_each(stepper)}, seconds)
        child.answer([asked["rows"] / medians["rows"]])


if __name__ == "__main__":
    main()
