"""How good, and how sure: metrics, intervals, comparisons."""
