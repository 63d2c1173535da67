"""A real training command until its first optimizer step: prints the time of the clock then, and ends.

python benchmarks/first_step.py epochs=1 ...   with the words of `python -m emoexp.train`
"""

import os
import sys
import time
from typing import Any


def main() -> None:
    sys.argv[0] = "train"
    from emoexp import train
    from emoexp.config import checks

    checked = checks.checked

    def then_torch(composed: Any) -> Any:
        """Check as the command does, and watch optimizers from here on: the command imports torch next."""
        values = checked(composed)

        def stepped(*ignored: object) -> None:
            print(f"first step {time.time():.6f}", flush=True)
            os._exit(0)

        from torch.optim.optimizer import register_optimizer_step_post_hook

        register_optimizer_step_post_hook(stepped)
        return values

    checks.checked = then_torch
    train.main()


if __name__ == "__main__":
    main()
