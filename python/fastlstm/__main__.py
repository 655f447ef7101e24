"""``python -m fastlstm`` is the command ``fastlstm``."""

import sys

from .cli import main

sys.exit(main())
