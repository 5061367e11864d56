"""Training steps: whole ones, with the model's computation in them, beside peers in the same run."""

MODELS = ("resnet18", "transformer", "perceptron")
"""What can be trained; see `models`, which only ranks import, since torch is slow to."""
