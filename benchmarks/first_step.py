"""A real training command until its first optimizer step: prints the time of the clock then, and ends.

python benchmarks/first_step.py epochs=1 ...   with the words of `python -m emoexp.train`
"""

import os
import sys
import time


def main() -> None:
    sys.argv[0] = "train"
    from emoexp import train

    run = train.run

    def patched(composed: object) -> None:

        def taken(*ignored: object) -> None:
            print(f"first step {time.time():.6f}", flush=True)
            os._exit(0)

        from torch.optim.optimizer import register_optimizer_step_post_hook

        register_optimizer_step_post_hook(taken)
        run(composed)  # type: ignore[arg-type]

    train.run = patched
    train.main()


if __name__ == "__main__":
    main()
