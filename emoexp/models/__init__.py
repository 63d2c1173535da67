"""Networks and activations. An option of `conf/architecture` is built by its class in `emoexp/config/models.py`.

Every network is a `Network` (`emoexp/models/network.py`): from normalised float32 images B×C×H×W to features B×F and
logits B×classes. Weights are drawn from torch's global generator.
"""
