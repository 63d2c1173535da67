"""Networks and activations. An architecture is an option of `conf/architecture`; its class in config/models builds it.

Every architecture maps normalised float32 images B×C×H×W to logits B×classes as
`classifier(features(image))`, so that losses and later stages can reach the features B×F that the last dense
layer sees. Weights are drawn from torch's global generator.
"""
