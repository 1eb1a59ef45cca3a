"""What all unit tests need."""

import torch

# Networks of a test are too small for two threads, and on a busy machine the one waits, spinning, for the other: the
# tests of models and trainer took 25 s with one thread, 338 s with two beside another test run.
torch.set_num_threads(1)
