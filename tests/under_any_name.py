"""`kbridge worker` for several services that one handler serves, under whatever names.

    python -m tests.under_any_name worker SERVICE…

`--handler` is for one service, and by default each has a module of its own name. Here all of those
names are `consumers.effect`, so that a test need not start a process for each.
"""

import importlib
import sys

from bridge.cli import main

if __name__ == "__main__":
    _effect = importlib.import_module("consumers.effect")
    sys.modules.update({f"consumers.{name}": _effect for name in sys.argv[2:]})
    main()
