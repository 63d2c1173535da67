"""Use of a trained model: loading, prediction, evaluation, export."""
